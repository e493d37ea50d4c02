"""Texts → what copies are found by: a number of all words, and a MinHash of their shingles."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from curate.corpus.words import Words, mixed, text_of, text_values, window_values

Signatures = npt.NDArray[np.uint16]
Places = npt.NDArray[np.int64]

SHINGLE = 5
"""Words of a shingle: texts are near where their sets of shingles are."""

BINS = 64
"""Numbers of a signature. Four of them make a band: 16 bands, in one of which texts of overlap 0.8
meet with probability 0.9998, of 0.5 with 0.64, of 0.3 with 0.12."""

MOST_TRIES = 16
"""Bins that are looked at together for each empty one: a short text leaves most bins empty."""

_EMPTY = np.uint64(0xFFFFFFFF)


def sketch(words: Words) -> tuple[npt.NDArray[np.uint64], Signatures, Places]:
    """Return what copies are found by: a number of all words, a MinHash, its shingles.

    The MinHash is of one permutation (Li, Owen, Zhang 2012): shingles fall in `BINS` bins, the
    smallest of each stands for it; an empty bin takes that of another bin, in an order that is
    the same for all texts (Shrivastava 2017). The share of bins in which two texts agree
    estimates the Jaccard overlap of their sets of `SHINGLE`-word shingles, with a standard
    error of about √(J (1 - J) / 64).

    Returns:
        values (n_texts,), signatures (n_texts, BINS) of 16 bits each, and the number of
        shingles (n_texts,): 0 where a text is shorter than one and has no signature.
    """
    n_texts = len(words.bounds) - 1
    counts = np.maximum(np.diff(words.bounds) - SHINGLE + 1, 0)
    lowest = np.full(n_texts * BINS, _EMPTY, np.uint64)
    if counts.any():
        owner = text_of(words)
        inside = owner[: len(owner) - SHINGLE + 1] == owner[SHINGLE - 1 :]
        shingles = window_values(words.values, SHINGLE)[inside]
        place = owner[: len(inside)][inside] * BINS + (shingles >> np.uint64(58)).astype(np.int64)
        np.minimum.at(lowest, place, shingles & np.uint64(0x3FFFFFFF))
    filled = _fill_empty(lowest.reshape(n_texts, BINS), counts)
    return text_values(words), mixed(filled).astype(np.uint16), counts


def _fill_empty(lowest: npt.NDArray[np.uint64], counts: Places) -> npt.NDArray[np.uint64]:
    """Give each empty bin the number of another, tried in an order that no text decides."""
    filled = lowest.copy()
    rows, bins = np.nonzero((lowest == _EMPTY) & (counts[:, None] > 0))
    for orders in _orders():
        if not len(rows):
            return filled
        sources = lowest[rows[:, None], orders[bins]]
        found = sources != _EMPTY
        filled[rows, bins] = sources[np.arange(len(rows)), found.argmax(axis=1)]
        left = ~found.any(axis=1)
        rows, bins = rows[left], bins[left]
    filled[rows, bins] = lowest[rows].min(axis=1)
    return filled


@lru_cache(maxsize=1)
def _orders() -> list[Places]:
    """Return the bins that are tried for each bin, (BINS, tries) a round: drawn once a process."""
    rng = np.random.default_rng(0)
    tries = np.stack([rng.integers(BINS, size=BINS) for _ in range(8 * BINS)], axis=1)
    ends = [1, 2, 4, 8, *range(MOST_TRIES, 8 * BINS, MOST_TRIES)]
    return [np.ascontiguousarray(part) for part in np.split(tries, ends, axis=1)]
