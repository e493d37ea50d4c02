"""Which token follows which in a text, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from curate.records import Counts

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """The different token pairs of a text, in the order of `pair_keys`: whole numbers (n,)."""

    before: npt.NDArray[Any]  # rising; the vocabulary's size begins a document
    after: npt.NDArray[Any]  # the token that follows, rising where `before` is one
    counts: npt.NDArray[Any]  # how often, above 0
    by_document: int  # the different pairs of each document by itself, added up

    @property
    def repeats(self) -> float:
        """Share of a pair's occurrences after the first whose document has it already, 0 to 1."""
        later = int(np.sum(self.counts, dtype=np.int64)) - len(self.counts)
        return 1.0 - (self.by_document - len(self.counts)) / later if later else 0.0

    def keys(self, vocab: int) -> Ints:
        """Return the number of each pair, (n,), rising."""
        return self.before.astype(np.int64) * (vocab + 1) + self.after

    def followed(self, vocab: int) -> Ints:
        """Return how often any token follows each one, (vocab + 1,): the last begins documents."""
        totals = np.bincount(self.before, self.counts, minlength=vocab + 1)
        return np.rint(totals).astype(np.int64)

    def without(self, part: Pairs, vocab: int) -> Pairs:
        """Return the pairs of the text that is left where some of its documents are taken out.

        Raises:
            ValueError: `part` has a pair more often than the whole text.
        """
        keys, taken = self.keys(vocab), part.keys(vocab)
        place = np.searchsorted(keys, taken)
        left = np.append(self.counts.astype(np.int64), 0)
        np.subtract.at(left, place, part.counts)
        if left.min() < 0 or not np.array_equal(np.append(keys, -1)[place], taken):
            raise ValueError("what is taken out has pairs that the text has not")
        some = left[:-1] > 0
        counts = _small(left[:-1][some], int(left.max()))
        by_document = self.by_document - part.by_document
        return Pairs(self.before[some], self.after[some], counts, by_document)


def pair_keys(ids: Counts, vocab: int) -> Ints:
    """Return one number for each token of a document and the one before it: (n,).

    The first has `vocab` before it, so that no pair runs from one document into the next.

    Example:
        >>> pair_keys(np.array([1, 0, 1]), vocab=2).tolist()
        [7, 3, 1]
    """
    tokens = np.asarray(ids, np.int64)
    before = np.concatenate([np.full(min(len(tokens), 1), vocab), tokens[:-1]])
    return np.asarray(before * (vocab + 1) + tokens, np.int64)


def count_pairs(tokens: Sequence[Counts], vocab: int) -> Pairs:
    """Return how often each token follows each other one in some documents.

    Args:
        tokens: (n_i,) token ids of each document, each 0 to `vocab` - 1.
        vocab: > 0, size of the vocabulary.

    Returns:
        Arrays of the smallest whole numbers that hold them.

    Raises:
        ValueError: an id is outside the vocabulary.
    """
    found = [pair_keys(ids, vocab) for ids in tokens if len(ids)]
    keys = np.concatenate([np.zeros(0, np.int64), *found])
    if any(len(ids) and not 0 <= int(np.min(ids)) <= int(np.max(ids)) < vocab for ids in tokens):
        raise ValueError(f"a token id is outside the vocabulary of {vocab}")
    kinds, counts = np.unique(keys, return_counts=True)
    before, after = np.divmod(kinds, vocab + 1)
    most = int(counts.max(initial=0))
    by_document = sum(len(np.unique(each)) for each in found)
    return Pairs(_small(before, vocab), _small(after, vocab), _small(counts, most), by_document)


def _small(values: Ints, most: int) -> npt.NDArray[Any]:
    return values.astype(np.min_scalar_type(most))
