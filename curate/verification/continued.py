"""A pretrained language model in the place of the small one: training goes on from its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers.pytorch_utils import Conv1D

from curate.task2vec.batches import micro_batches, own_past
from curate.task2vec.forward import (
    before_head,
    find_logit_map,
    keeps_packed_apart,
    working_dtype,
)
from curate.verification.small_model import SmallModel, head_loss


class ContinuedModel(nn.Module):
    """A transformers causal language model with the interface of `SmallModel`.

    It stays in eval mode: no dropout, so that a run is decided by its seed, and two arms differ
    by their documents alone. Documents packed into one block do not see each other.
    """

    def __init__(self, model: Any, *, lora: int, seed: int, block_tokens: int) -> None:
        """Take a model over, in place.

        Args:
            model: a causal language model whose logits are the head of its last hidden state,
                but for the scale and the cap of its configuration.
            lora: rank of the adapters that learn in place of the weights; 0: the weights learn.
            seed: of the adapters' first weights.
            block_tokens: of the longest document that it will read.

        Raises:
            ImportError: adapters are wanted and peft is not installed.
            ValueError: the model has other logits, or no linear layer that an adapter fits.
        """
        super().__init__()
        self.model = model.eval().requires_grad_(lora == 0)
        self.logit_map = find_logit_map(model, np.arange(4), autocast=False)
        self.shares_rows = keeps_packed_apart(model, longest=block_tokens)
        if lora:
            _add_adapters(self.model, lora, seed=seed)

    def forward(self, ids: Tensor, starts: Tensor) -> Tensor:
        """Return the last hidden state, (1, B, T, D).

        Args:
            ids: (1, B, T) token ids.
            starts: (1, B, T) for each position, where its document starts in this block.
        """
        place = torch.arange(ids.shape[-1], device=ids.device) - starts[0]
        read = self._read_together if self.shares_rows else self._read_apart
        return read(ids[0], starts[0], place)[None]

    def _read_together(self, ids: Tensor, starts: Tensor, place: Tensor) -> Tensor:
        """Read the documents of a block in one row, (B, T, D)."""
        narrow = torch.is_autocast_enabled(ids.device.type)
        mask = own_past(starts, working_dtype(self.model, autocast=narrow))
        base = before_head(self.model)
        hidden: Tensor = base(
            input_ids=ids, attention_mask=mask, position_ids=place, use_cache=False
        ).last_hidden_state
        return hidden

    def _read_apart(self, ids: Tensor, starts: Tensor, place: Tensor) -> Tensor:
        """Read each document in a row of its own, beside others of like length, (B, T, D).

        A packed row would hide a window from a model, and some have no positions to restart.
        """
        number = (place == 0).flatten().cumsum(0) - 1
        lengths = number.bincount().tolist()
        texts = ids.flatten().split(lengths)
        hidden = [ids.new_empty(0)] * len(texts)
        for which in micro_batches(lengths, batch_tokens=ids.numel()):
            several = [texts[n] for n in which]
            rows = pad_sequence(several, batch_first=True)
            mask = pad_sequence([torch.ones_like(each) for each in several], batch_first=True)
            last = before_head(self.model)(
                input_ids=rows, attention_mask=mask, use_cache=False
            ).last_hidden_state
            for n, states in zip(which, last, strict=True):
                hidden[n] = states[: lengths[n]]
        return torch.cat(hidden).view(*ids.shape, -1)

    def nats(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Return the nats of each label, (1, B · T); only the gradient of their sum can be taken.

        Args:
            hidden: (1, B, T, D) what `forward` returned.
            labels: (1, B, T) token ids.
        """
        head = self.model.get_output_embeddings()
        weights = head.weight
        if head.bias is not None:  # a weight of an input that is 1; GPUs are fast at eights
            weights = torch.cat([weights, pad(head.bias[:, None], (0, 7))], dim=1)
            hidden = pad(hidden, (0, 8), value=1.0)
        hidden = hidden * self.logit_map.scale
        return head_loss(weights[None], hidden, labels, cap=self.logit_map.cap)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return what the model predicts of states (n, D), (n, V) float32."""
        predicted: Tensor = self.model.get_output_embeddings()(hidden).float()
        return self.logit_map.apply(predicted)

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
