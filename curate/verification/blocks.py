"""Documents packed into blocks: what a step of training is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Packed training data: position t of a block predicts `labels[t]`."""

    ids: npt.NDArray[np.int64]  # (n, T)
    labels: npt.NDArray[np.int64]  # (n, T)
    starts: npt.NDArray[np.int64]  # (n, T) where the document of each position starts


def pack_blocks(
    documents: Sequence[IntArray], *, eos: int, block_tokens: int, tokens: int, seed: int
) -> Blocks:
    """Pack documents in seeded order into full blocks, passing over them as often as needed.

    Each document has `eos` before it. What a block's end cuts off goes on in another block,
    without its context. The blocks are shuffled: a long document would else fill many steps in
    a row, and at a high learning rate a model forgets the rest meanwhile.

    Args:
        documents: token ids of each, at least one token in all.
        eos: the id that stands before each document, and is predicted after it.
        block_tokens: T, positions a block.
        tokens: labels to train on; rounded down to whole blocks, at least one.
        seed: of the order; every pass has its own.

    Raises:
        ValueError: no token in any document.
    """
    if not any(len(document) for document in documents):
        raise ValueError("no tokens to train on")
    n_blocks = max(1, tokens // block_tokens)
    need = n_blocks * block_tokens + 1
    rng = np.random.default_rng(seed)
    pieces: list[IntArray] = []
    while sum(map(len, pieces)) < need:
        for number in rng.permutation(len(documents)):
            pieces += [np.array([eos], dtype=np.int32), documents[number]]
    stream = np.concatenate(pieces)[:need].astype(np.int64)
    is_start = np.zeros(sum(map(len, pieces)), dtype=bool)
    is_start[np.cumsum([0, *map(len, pieces)])[:-1:2]] = True  # every other piece is an eos
    order = rng.permutation(n_blocks)
    ids = stream[:-1].reshape(n_blocks, block_tokens)[order]
    marks = is_start[: need - 1].reshape(n_blocks, block_tokens)[order]
    starts = np.maximum.accumulate(np.where(marks, np.arange(block_tokens), 0), axis=1)
    return Blocks(ids, stream[1:].reshape(n_blocks, block_tokens)[order], starts)
