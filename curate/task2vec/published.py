"""The published algorithm, its departures from the definition included: for comparison only.

arXiv 2306.13840 and 2501.08496 embed text with a fine-tuned GPT-2: rows of 128 tokens padded
with the end-of-text token; the output head, tied to the input embeddings, tuned on the batch;
then one label a position drawn from the model in training mode, and the square of the gradient
of each mini-batch's mean loss. The loss shifts labels that are already aligned, so position t
is judged by a label drawn at t + 1, and padded positions count. Every one of these is a setting.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from curate.records import RowBlock
from curate.task2vec.batches import Ids


@dataclass(frozen=True, slots=True)
class PublishedSettings:
    """The recipe's numbers, and a switch for each of its faults."""

    row_tokens: int = 128  # each text's first tokens; shorter ones are padded
    batch: int = 8  # rows whose mean gradient is squared
    epochs: int = 10  # of tuning the head; 0 leaves it as it is
    rate: float = 5e-5  # AdamW, constant
    decay: float = 1e-4
    shifted: bool = True  # a position is judged by the label drawn at the next
    count_pads: bool = True
    dropout: bool = True
    drift: bool = False  # tune the model that was given, so that the next embedding starts there
    conv_inputs: bool = True  # a row of a Conv1D is an input unit
    seed: int = 42


def published_rows(
    model: Any, texts: Sequence[Ids], *, pad: int, settings: PublishedSettings | None = None
) -> tuple[npt.NDArray[np.float64], tuple[RowBlock, ...]]:
    """Embed texts by the published recipe.

    Args:
        model: a `transformers` causal language model; left as it was unless `drift`.
        texts: (T_i,) token ids each, T_i >= 1; in order, none is shuffled.
        pad: the id that fills rows up; as a label it is ignored.
        settings: None is the recipe as published.

    Returns:
        (dim,) mean over the mini-batches of the squared gradient, mean over all but the first
        axis of every module's weight but the head's; and the coordinates.

    Raises:
        ValueError: no text.
    """
    if not texts:
        raise ValueError("no texts")
    settings = settings or PublishedSettings()
    device = next(model.parameters()).device
    twin = model if settings.drift else copy.deepcopy(model)
    twin.requires_grad_(True).train(settings.dropout)
    batches = [_padded(part, pad, settings, device) for part in _cut(texts, settings.batch)]
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(settings.seed)
        _tune_head(twin, batches, pad, settings)
        squares = _mean_squares(twin, batches, pad, settings)
    if settings.drift:
        twin.requires_grad_(False).eval()
    blocks = published_blocks(twin, conv_inputs=settings.conv_inputs)
    return _reduce(twin, squares, settings), blocks


def _cut(texts: Sequence[Ids], size: int) -> Iterator[Sequence[Ids]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _padded(
    texts: Sequence[Ids], pad: int, settings: PublishedSettings, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return ids and mask, both (B, row_tokens) int64."""
    ids = torch.full((len(texts), settings.row_tokens), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        kept = np.asarray(text[: settings.row_tokens], np.int64)
        ids[row, : len(kept)] = torch.from_numpy(kept)
        mask[row, : len(kept)] = 1
    return ids.to(device), mask.to(device)


def _tune_head(
    model: Any, batches: Sequence[tuple[Tensor, Tensor]], pad: int, settings: PublishedSettings
) -> None:
    """Train the head on the text, and with it the input embeddings where the two are tied."""
    head = list(model.get_output_embeddings().parameters())
    optimizer = torch.optim.AdamW(head, lr=settings.rate, eps=1e-8, weight_decay=settings.decay)
    for _ in range(settings.epochs):
        for ids, mask in batches:
            logits = _logits(model, ids, mask)
            loss = _next_token_loss(logits, ids, pad)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.zero_grad(set_to_none=True)


def _mean_squares(
    model: Any, batches: Sequence[tuple[Tensor, Tensor]], pad: int, settings: PublishedSettings
) -> dict[int, Tensor]:
    """Return the mean over mini-batches of each parameter's squared gradient, by its id."""
    sums = {  # not in bfloat16, which matrices have on a GPU
        id(p): torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
        for p in model.parameters()
    }
    for ids, mask in batches:
        logits = _logits(model, ids, mask)
        p = logits.detach().softmax(dim=-1)
        labels = torch.multinomial(p.flatten(0, 1), 1).view(ids.shape)
        if not settings.shifted:  # what the shift of the loss takes away is put before
            labels = torch.cat([labels[:, :1], labels[:, :-1]], dim=1)
        if not settings.count_pads:
            labels = torch.where(mask > 0, labels, pad)
        loss = _next_token_loss(logits, labels, pad)
        model.zero_grad(set_to_none=True)
        loss.backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                total = sums[id(parameter)]
                total += parameter.grad.to(total.dtype).square()
    model.zero_grad(set_to_none=True)
    return {key: total / len(batches) for key, total in sums.items()}


def _logits(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    gpu = ids.device.type == "cuda"  # where the blocks' matrices are bfloat16
    with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=gpu):
        logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits.float()


def _next_token_loss(logits: Tensor, labels: Tensor, ignored: int) -> Tensor:
    """Return the mean over positions of −log p of the label one position later."""
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=ignored
    )


def published_blocks(model: Any, *, conv_inputs: bool = True) -> tuple[RowBlock, ...]:
    """Return the coordinates that `published_rows` gives."""
    blocks: list[RowBlock] = []
    start = 0
    for name, module in _weighted(model):
        transposed = isinstance(module, Conv1D) and not conv_inputs
        stop = start + module.weight.shape[1 if transposed else 0]
        found = re.search(r"\.(\d+)\.", name)
        layer = int(found[1]) if found else -1
        blocks.append(RowBlock(name, layer, name.rpartition(".")[2], start, stop))
        start = stop
    return tuple(blocks)


def _weighted(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield every module that holds a weight, but the head."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if module is not head and isinstance(getattr(module, "weight", None), nn.Parameter):
            yield name, module


def _reduce(
    model: Any, squares: dict[int, Tensor], settings: PublishedSettings
) -> npt.NDArray[np.float64]:
    parts: list[Tensor] = []
    for _, module in _weighted(model):
        square = squares[id(module.weight)].double()
        if isinstance(module, Conv1D) and not settings.conv_inputs:
            square = square.T
        parts.append(square.flatten(1).mean(dim=1) if square.ndim > 1 else square)
    return torch.cat(parts).cpu().numpy()
