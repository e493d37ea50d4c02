"""Token ids → blocks, sub-batches and counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from curate.records import Counts

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SHORTEST_TAIL = 8
"""Tokens; a shorter rest of a cut document has too little context to count."""


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


def document_cap(batch_tokens: int) -> int:
    """Return how many tokens one document may bring to a sub-batch: a quarter of it."""
    return max(1, batch_tokens // 4)


def choose_batches(
    lengths: Sequence[int] | Counts, *, batches: int, batch_tokens: int, seed: int
) -> list[npt.NDArray[np.int64]]:
    """Choose disjoint documents for each sub-batch, in seeded random order.

    The next document goes to the sub-batch with the fewest tokens, until all are full, so that
    a small shard gives sub-batches of equal size. A document counts for at most a quarter of a
    sub-batch (`document_cap`), so that several documents are in each.

    Args:
        lengths: (n_documents,) tokens; documents of none are left out.
        batches: > 0, number of sub-batches.
        batch_tokens: > 0, tokens at which a sub-batch is full.
        seed: of the order.

    Returns:
        `batches` arrays of document numbers; empty ones where there are fewer documents.

    Raises:
        ValueError: a count is not positive, or a length is negative.
    """
    sizes = _checked_lengths(lengths, batches=batches, batch_tokens=batch_tokens)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(sizes > 0))
    chosen: list[list[int]] = [[] for _ in range(batches)]
    filled = [0] * batches
    capped = np.minimum(sizes, document_cap(batch_tokens)).tolist()
    for document in order.tolist():
        fewest = min(filled)
        if fewest >= batch_tokens:
            break
        emptiest = filled.index(fewest)
        chosen[emptiest].append(document)
        filled[emptiest] += capped[document]
    return [np.array(numbers, dtype=np.int64) for numbers in chosen]


def draw_batches(
    tokens: Sequence[Counts], *, batches: int, batch_tokens: int, block_tokens: int, seed: int
) -> list[list[Counts]]:
    """Draw the sub-batches of a shard as sequences, with no text in two of them.

    Where capped documents fill the sub-batches, each brings one random window of at most a
    quarter of a sub-batch. Where they do not, as in a shard of three novels, documents are cut
    into such windows and the windows are dealt out instead.

    Args:
        tokens: (n_i,) token ids of each document.
        batches: > 0, number of sub-batches.
        batch_tokens: > 0, most tokens in a sub-batch.
        block_tokens: > 0, longest sequence.
        seed: of order and windows.

    Returns:
        `batches` lists of sequences; in sum at most `batch_tokens` tokens each.

    Raises:
        ValueError: a count is not positive.
    """
    cap = document_cap(batch_tokens)
    capped = [min(len(ids), cap) for ids in tokens]
    few = sum(capped) < batches * batch_tokens or len(tokens) < 2 * batches
    pieces = _windows(tokens, cap) if few else _one_window(tokens, cap, seed)
    chosen = choose_batches(
        [len(piece) for piece in pieces], batches=batches, batch_tokens=batch_tokens, seed=seed
    )
    return [
        cut_blocks(_up_to([pieces[n] for n in numbers], batch_tokens), block_tokens=block_tokens)
        for numbers in chosen
    ]


def pad_batch(
    blocks: Sequence[Counts], *, pad: int = 0, length: int | None = None
) -> tuple[Ids, Mask]:
    """Lay sequences side by side, filled up on the right.

    Args:
        blocks: (n_i,) token ids, at least one sequence.
        pad: the id that fills up; the mask is what tells it from text.
        length: width of the result; None is the longest sequence.

    Returns:
        ids (n_blocks, length) int64, and mask (n_blocks, length) bool, true on text.

    Raises:
        ValueError: no sequence, or one longer than `length`.
    """
    if not blocks:
        raise ValueError("no sequence to lay out")
    longest = max(len(block) for block in blocks)
    width = longest if length is None else length
    if longest > width:
        raise ValueError(f"a sequence of {longest} tokens does not fit {width}")
    ids = np.full((len(blocks), width), pad, dtype=np.int64)
    mask = np.zeros((len(blocks), width), dtype=np.bool_)
    for row, block in enumerate(blocks):
        ids[row, : len(block)] = block
        mask[row, : len(block)] = True
    return ids, mask


def pack(
    tokens: Sequence[Counts], *, block_tokens: int, separator: int | None = None
) -> tuple[Ids, Ids]:
    """Join documents into full blocks, remembering which token is whose.

    Args:
        tokens: (n_i,) token ids of each document.
        block_tokens: > 0, tokens a block.
        separator: id put after each document, or None.

    Returns:
        ids (n_blocks, block_tokens) int64, and segments of the same shape: the document's
        number. The rest that fills no block is dropped.

    Raises:
        ValueError: `block_tokens` is not positive.
    """
    if block_tokens <= 0:
        raise ValueError(f"block_tokens must be positive, is {block_tokens}")
    end = np.array([] if separator is None else [separator], dtype=np.int64)
    parts = [np.concatenate([np.asarray(ids, dtype=np.int64), end]) for ids in tokens]
    empty = np.zeros(0, dtype=np.int64)
    flat = np.concatenate(parts) if parts else empty
    owners = (
        np.concatenate([np.full(len(part), n, dtype=np.int64) for n, part in enumerate(parts)])
        if parts
        else empty
    )
    used = len(flat) // block_tokens * block_tokens
    shape = (-1, block_tokens)
    return flat[:used].reshape(shape), owners[:used].reshape(shape)


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


def _checked_lengths(
    lengths: Sequence[int] | Counts, *, batches: int, batch_tokens: int
) -> npt.NDArray[np.int64]:
    if batches <= 0 or batch_tokens <= 0:
        raise ValueError(f"batches and batch_tokens must be positive: {batches}, {batch_tokens}")
    sizes = np.asarray(lengths, dtype=np.int64)
    if sizes.size and int(sizes.min()) < 0:
        raise ValueError("a document has a negative length")
    return sizes


def _windows(tokens: Sequence[Counts], cap: int) -> list[Counts]:
    return [ids[start : start + cap] for ids in tokens for start in range(0, len(ids), cap)]


def _one_window(tokens: Sequence[Counts], cap: int, seed: int) -> list[Counts]:
    rng = np.random.default_rng([seed, 1])
    pieces: list[Counts] = []
    for ids in tokens:
        start = int(rng.integers(0, len(ids) - cap + 1)) if len(ids) > cap else 0
        pieces.append(ids[start : start + cap])
    return pieces


def _up_to(pieces: list[Any], most: int) -> list[Any]:
    kept: list[Any] = []
    room = most
    for piece in pieces:
        if room <= 0:
            break
        kept.append(piece[:room])
        room -= len(kept[-1])
    return kept
