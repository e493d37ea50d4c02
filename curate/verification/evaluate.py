"""The loss of small models on items: nats of each item, counted from its first token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from curate.verification.blocks import IntArray
from curate.verification.continued import LanguageModel


def item_nats(
    model: LanguageModel,
    items: Sequence[IntArray],
    *,
    eos: int,
    block_tokens: int,
    batch_tokens: int = 4_096,
) -> npt.NDArray[np.float64]:
    """Return the nats that each of G models side by side needs for each item.

    `eos` stands before an item, so that its first token counts; the end of an item does not.
    What is longer than a block goes on in another one without its context, as in training.

    Args:
        model: on the device to compute on.
        items: token ids of each, at least one token.
        eos: the id before each document in training.
        block_tokens: longest context, as in training.
        batch_tokens: positions a forward pass; changes the result by rounding only.

    Returns:
        (G, n_items) summed nats, float64.

    Raises:
        ValueError: an item without tokens.
    """
    pieces = item_blocks(items, eos=eos, block_tokens=block_tokens)
    order = sorted(range(len(pieces)), key=lambda number: len(pieces[number][1]))
    nats = np.zeros((model.n_runs, len(items)))
    device = next(model.parameters()).device
    while order:
        width = len(pieces[order[-1]][1])  # the longest first: memory is known at once
        n = max(1, batch_tokens // width)
        batch, order = [pieces[number] for number in order[-n:]], order[:-n]
        ids, labels = np.full((2, len(batch), width), eos, dtype=np.int64)
        kept = np.zeros((len(batch), width), dtype=bool)
        for row, (_, tokens, after) in enumerate(batch):
            ids[row, : len(tokens)], labels[row, : len(tokens)] = tokens, after
            kept[row, : len(tokens)] = True
        with (
            torch.no_grad(),
            torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"),
        ):
            on_device, following = (
                torch.from_numpy(rows).to(device).expand(model.n_runs, -1, -1)
                for rows in (ids, labels)
            )
            loss = model.nats(model(on_device, torch.zeros_like(on_device)), following)
        values = loss.double().cpu().numpy().reshape(model.n_runs, *kept.shape)
        numbers = [number for number, _, _ in batch]
        np.add.at(nats.T, numbers, np.where(kept, values, 0.0).sum(axis=2).T)
    return nats


def item_blocks(
    items: Sequence[IntArray], *, eos: int, block_tokens: int
) -> list[tuple[int, IntArray, IntArray]]:
    """Return (item, ids, labels) of every block of every item."""
    pieces = []
    for number, item in enumerate(items):
        if not len(item):
            raise ValueError(f"item {number} has no tokens")
        ids = np.concatenate([np.array([eos], dtype=np.int32), item[:-1]])
        for start in range(0, len(item), block_tokens):
            part = slice(start, start + block_tokens)
            pieces.append((number, ids[part], item[part]))
    return pieces
