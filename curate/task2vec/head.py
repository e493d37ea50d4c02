"""The output head fitted to a text, as the published recipe does, on a matrix of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from curate.task2vec.batches import Ids, lay_out, micro_batches
from curate.task2vec.forward import find_logit_map, last_hidden
from curate.task2vec.quantity import FisherSettings

EPOCHS = 4
RATE = 5e-4  # ten times the published rate, for a tenth or so of its steps
DECAY = 1e-4
_STEP_TOKENS = 1_024  # 8 rows of 128, the published mini-batch


@torch.inference_mode(False)  # where the caller is in it, autograd would record nothing
def tune_head(model: Any, sequences: Sequence[Ids], *, epochs: int = EPOCHS) -> Tensor:
    """Return the head's matrix after a few epochs of AdamW on these sequences.

    The network before the head is frozen and read once, so that an epoch costs the head alone;
    a head that is tied to the embeddings is copied first. The order of the steps is that of
    the lengths, longest first.

    Args:
        model: a `transformers` causal language model in eval mode; not changed.
        sequences: (T_i,) token ids each, T_i >= 2.
        epochs: passes over them.

    Returns:
        (V, width), on the model's device, in the precision of its head.
    """
    head = model.get_output_embeddings()
    matrix = nn.Parameter(head.weight.detach().clone())
    optimizer = torch.optim.AdamW([matrix], lr=RATE, eps=1e-8, weight_decay=DECAY)
    on_gpu = matrix.device.type == "cuda"
    logit_map = find_logit_map(model, sequences[0], autocast=on_gpu)
    steps = []
    for which in micro_batches([len(s) for s in sequences], batch_tokens=_STEP_TOKENS):
        batch = lay_out(
            [sequences[i] for i in which],
            FisherSettings(labels="data"),
            packed=False,
            device=matrix.device,
            dtype=matrix.dtype,
        )
        with torch.no_grad():
            last = last_hidden(model, batch, autocast=on_gpu)
        flat = last.reshape(batch.ids.numel(), -1)
        steps.append((flat[batch.inputs].to(matrix.dtype), batch.observed))
    with torch.enable_grad():
        for _ in range(epochs):
            for hidden, observed in steps:
                logits = logit_map.apply(nn.functional.linear(hidden, matrix, head.bias))
                loss = nn.functional.cross_entropy(logits, observed)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return matrix.detach()
