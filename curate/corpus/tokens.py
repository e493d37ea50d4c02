"""Token ids → blocks, sub-batches and counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from curate.records import Counts

Encode = Callable[[list[str]], list[npt.NDArray[np.int32]]]
"""Texts to the token ids of each, without special tokens."""

SHORTEST_TAIL = 8
"""Tokens; a shorter rest of a cut document has too little context to count."""

DRAW = 1
"""State of how sub-batches are drawn, a part of every embedding's key: raise it with any change."""


def cut_blocks(tokens: Sequence[Counts], *, block_tokens: int) -> list[Counts]:
    """Cut documents into sequences; no sequence holds two documents.

    Args:
        tokens: (n_i,) token ids of each document.
        block_tokens: > 0, longest sequence.

    Returns:
        Views of the documents in order, each of 1 to `block_tokens` ids. Rests shorter than 8
        tokens are dropped unless they are the whole document.

    Raises:
        ValueError: `block_tokens` is not positive.

    Example:
        >>> [len(block) for block in cut_blocks([np.arange(25)], block_tokens=10)]
        [10, 10]
    """
    if block_tokens <= 0:
        raise ValueError(f"block_tokens must be positive, is {block_tokens}")
    blocks: list[Counts] = []
    for ids in tokens:
        for start in range(0, len(ids), block_tokens):
            block = ids[start : start + block_tokens]
            if start == 0 or len(block) >= min(SHORTEST_TAIL, block_tokens):
                blocks.append(block)
    return blocks


def draw_batches(
    tokens: Sequence[Counts], *, batches: int, batch_tokens: int, block_tokens: int, seed: int
) -> list[list[Counts]]:
    """Draw the sub-batches of a shard as sequences, seeded; short documents lie in one of them.

    All sequences of the shard are as likely, so that long documents are drawn by their share of
    the text, and as many documents are seen as there can be. What is drawn of a document goes to
    one sub-batch; if that is more than a quarter of it, parts of that size go to several: they
    would be of different text otherwise, and not samples of one.

    Args:
        tokens: (n_i,) token ids of each document.
        batches: > 0, number of sub-batches.
        batch_tokens: > 0, most tokens in a sub-batch.
        block_tokens: > 0, longest sequence.
        seed: of the order.

    Returns:
        `batches` lists of sequences, views of the documents; in sum at most `batch_tokens` tokens
        each, about equally many, and none where there is nothing left to deal.

    Raises:
        ValueError: a count is not positive.
    """
    if batches <= 0 or batch_tokens <= 0:
        raise ValueError(f"batches and batch_tokens must be positive: {batches}, {batch_tokens}")
    cut = [cut_blocks([ids], block_tokens=block_tokens) for ids in tokens]
    blocks = [(number, block) for number, own in enumerate(cut) for block in own]
    drawn: dict[int, list[Counts]] = {}
    room = batches * batch_tokens
    for place in np.random.default_rng(seed).permutation(len(blocks)).tolist():
        if room <= 0:
            break
        document, block = blocks[place]
        drawn.setdefault(document, []).append(block[:room])
        room -= len(block)
    most = max(1, batch_tokens // 4)
    parts = [part for own in drawn.values() for part in _parts(own, most)]
    return [_up_to(own, batch_tokens) for own in _deal(parts, batches)]


def count_unigrams(tokens: Sequence[Counts], vocab: int) -> npt.NDArray[np.int64]:
    """Return how often each token id occurs.

    Args:
        tokens: (n_i,) token ids, each 0 to `vocab` - 1.
        vocab: > 0, size of the vocabulary.

    Returns:
        (vocab,) int64.

    Raises:
        ValueError: an id is outside the vocabulary.
    """
    counts = np.zeros(vocab, dtype=np.int64)
    for ids in tokens:
        if len(ids) == 0:
            continue
        if int(ids.min()) < 0 or int(ids.max()) >= vocab:
            raise ValueError(f"a token id is outside the vocabulary of {vocab}")
        counts += np.bincount(ids, minlength=vocab)
    return counts


def _parts(blocks: list[Counts], most: int) -> list[list[Counts]]:
    """Divide sequences into parts of at most `most` tokens, or of one sequence."""
    parts: list[list[Counts]] = []
    size = most
    for block in blocks:
        if size + len(block) > most:
            parts.append([])
            size = 0
        parts[-1].append(block)
        size += len(block)
    return parts


def _deal(parts: list[list[Counts]], batches: int) -> list[list[Counts]]:
    """Give the largest part left to the sub-batch with the fewest tokens, until none is left."""
    dealt: list[list[Counts]] = [[] for _ in range(batches)]
    filled = [0] * batches
    sizes = [sum(map(len, part)) for part in parts]
    for number in sorted(range(len(parts)), key=lambda n: -sizes[n]):
        emptiest = filled.index(min(filled))
        dealt[emptiest] += parts[number]
        filled[emptiest] += sizes[number]
    return dealt


def _up_to(blocks: list[Counts], most: int) -> list[Counts]:
    kept: list[Counts] = []
    room = most
    for block in blocks:
        if room <= 0:
            break
        kept.append(block[:room])
        room -= len(kept[-1])
    return kept
