"""A pretrained language model in the place of the small one: training goes on from its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from curate.verification.small_model import SmallModel


class ContinuedModel(nn.Module):
    """A transformers causal language model with the interface of `SmallModel`.

    It stays in eval mode: no dropout, so that a run is decided by its seed, and two arms differ
    by their documents alone. Documents packed into one block do not see each other.
    """

    def __init__(self, model: Any, *, lora: int, seed: int) -> None:
        """Take a model over, in place.

        Args:
            model: a causal language model whose logits are the head of its last hidden state.
            lora: rank of the adapters that learn in place of the weights; 0: the weights learn.
            seed: of the adapters' first weights.

        Raises:
            ImportError: adapters are wanted and peft is not installed.
            ValueError: the model has no linear layer that an adapter fits.
        """
        super().__init__()
        self.model = model.eval().requires_grad_(lora == 0)
        if lora:
            _add_adapters(self.model, lora, seed=seed)

    def forward(self, ids: Tensor, starts: Tensor) -> Tensor:
        """Return the last hidden state, (1, B, T, D).

        Args:
            ids: (1, B, T) token ids.
            starts: (1, B, T) for each position, where its document starts in this block.
        """
        (ids,), (starts,) = ids, starts
        place = torch.arange(ids.shape[1], device=ids.device)
        same = starts[:, :, None] == starts[:, None, :]  # (B, T, T)
        seen = (same & (place[:, None] >= place[None, :]))[:, None]
        base = getattr(self.model, self.model.base_model_prefix)
        hidden: Tensor = base(
            input_ids=ids, attention_mask=seen, position_ids=place - starts, use_cache=False
        ).last_hidden_state
        return hidden[None]

    @property
    def head(self) -> Tensor:
        """Weights of the head, (1, V, D)."""
        weights: Tensor = self.model.get_output_embeddings().weight
        return weights[None]

    @property
    def n_runs(self) -> int:
        """Models side by side: one."""
        return 1

    def matrices(self) -> list[nn.Parameter]:
        """Return none: all that learns is updated by AdamW, as such models were made."""
        return []


LanguageModel = SmallModel | ContinuedModel
"""What is trained and evaluated."""


def _add_adapters(model: Any, rank: int, *, seed: int) -> None:
    """Put low-rank adapters on the linear layers of the blocks; nothing else learns.

    LoRA (Hu et al. 2021) with alpha = 2 · rank and no dropout. The second factor starts at zero,
    so that before the first step the model is what it was.
    """
    import peft

    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        bias="none",
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    before = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        peft.inject_adapter_in_model(config, model)
    finally:
        torch.set_rng_state(before)
