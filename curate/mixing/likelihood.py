"""How likely a target is under the token pairs of a mixture, and which shard would help most.

The model is that of `curate.mixing.expected`, of all shards at once: what a mixture can be
expected to hold is a few sums over its shards, so its cost, and what a token more of each shard
would change, are two dozen products of sparse matrices with vectors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from curate.ranking.lexical import FILLED
from curate.ranking.ngram_lm import STRENGTH, ItemPairs, Seen

if TYPE_CHECKING:
    from curate.records import Floats

Array = npt.NDArray[np.float64]

WHOLE = 1.0 - 1e-6
"""Part of a shard from which all of it counts as drawn; at 1 a logarithm would have no end."""


class Likelihood:
    """What n shards say about the token pairs of a target, and what mixtures of them would."""

    def __init__(
        self,
        target: ItemPairs,
        said: Iterable[tuple[Seen, float]],
        *,
        stands_for: Floats,
        corpus: Floats,
    ) -> None:
        """Take what the shards say.

        Args:
            target: its k pairs.
            said: of each shard, and its `Pairs.repeats`, one at a time.
            stands_for: (n,) how many shards like it each stands for, itself among them.
            corpus: (k,) as for `pair_probabilities`.
        """
        (_, first, self._before), (_, last, self._after) = (
            np.unique(ids, return_index=True, return_inverse=True)
            for ids in (target.before, target.after)
        )
        rows, sizes, repeats = [_Rows(), _Rows(), _Rows()], [], []
        for seen, repeat in said:
            for mine, counts in zip(
                rows, (seen.pairs, seen.before[first], seen.after[last]), strict=True
            ):
                mine.add(counts)
            sizes.append(seen.tokens)
            repeats.append(repeat)
        kept = 1.0 - np.array(repeats)
        times = np.asarray(stands_for, np.float64)
        self.sizes = np.maximum(sizes, 1.0) * times
        self.corpus = np.asarray(corpus, np.float64)[last]
        widths = len(target.after), len(first), len(last)
        rows.reverse()  # each is let go where its matrices are made
        self._pairs, self._firsts, self._lasts = (
            _Counted(rows.pop(), kept, times, width) for width in widths
        )

    def cost(self, tokens: Floats, weights: Floats) -> tuple[float, Array]:
        """Return the cross-entropy of the target under a mixture, and its gradient.

        Args:
            tokens: (n,) that each shard, and those that it stands for, give to the mixture, sum
                above 0; beyond their size they come again.
            weights: (k,) how often the target has each pair.

        Returns:
            nats/token, and what a token of each shard adds to it where others leave as much
            room (n,).
        """
        parts, size = np.asarray(tokens, np.float64) / self.sizes, float(np.sum(tokens))
        pairs, firsts, lasts = (
            each.drawn(parts) for each in (self._pairs, self._firsts, self._lasts)
        )
        last = lasts.logarithm(size * self.corpus * FILLED / (1.0 - FILLED))
        word = (STRENGTH * (1.0 - FILLED) / size) * np.exp(last.value)  # with what fills gaps
        pair, first = pairs.logarithm(word[self._after]), firsts.logarithm(STRENGTH)
        total = float(weights.sum())
        cost = float(weights @ (first.value[self._before] - pair.value)) / total
        by_first = np.bincount(self._before, weights, len(first.value)) / total
        by_last = np.bincount(self._after, weights * pair.by_added, len(word)) / total
        slopes = (
            self._pairs.slopes(parts, pair, -weights / total)
            + self._firsts.slopes(parts, first, by_first)
            + self._lasts.slopes(parts, last, -by_last * word)
        )
        return cost, slopes / self.sizes


@dataclass(frozen=True, slots=True)
class _Logarithm:
    """E log(count + added) of k counts, and its derivatives: all (k,)."""

    value: Array
    by_mean: Array
    by_variance: Array
    by_none: Array  # by the logarithm of the probability of none
    by_added: Array


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What is known of k counts of a mixture, as in `Expected`."""

    mean: Array
    variance: Array
    none: Array

    def logarithm(self, added: Array | float) -> _Logarithm:
        """Return what `Expected.effective` rests on, with derivatives."""
        some = -np.expm1(self.none)
        safe = np.where(some > 0, some, 1.0)
        mean, square = self.mean / safe, (self.variance + self.mean**2) / safe
        variance, whole = np.maximum(square - mean**2, 0.0), mean + added
        above = 2.0 * np.log(whole) - 0.5 * np.log(whole**2 + variance) - np.log(added)
        more = above > 0.0  # no count is below 0, whatever a log-normal one would be
        by_mean = np.where(more, 2.0 / whole - whole / (whole**2 + variance), 0.0)
        by_variance = np.where(more, -0.5 / (whole**2 + variance), 0.0)
        by_some = np.maximum(above, 0.0) - by_mean * mean - by_variance * (square - 2.0 * mean**2)
        return _Logarithm(
            value=some * np.maximum(above, 0.0) + np.log(added),
            by_mean=by_mean + 2.0 * by_variance * (self.mean - mean),
            by_variance=by_variance,
            by_none=(some - 1.0) * by_some,
            by_added=some * np.where(more, by_mean, 1.0 / added) + (1.0 - some) / added,
        )


class _Rows:
    """Rows of which most numbers are 0."""

    def __init__(self) -> None:
        self.columns: list[npt.NDArray[np.int32]] = []
        self.values: list[npt.NDArray[np.float32]] = []

    def add(self, row: Floats) -> None:
        """Add a row."""
        self.columns.append(np.flatnonzero(row).astype(np.int32))
        self.values.append(row[self.columns[-1]].astype(np.float32))


class _Counted:
    """Counts of k tokens, or pairs, in n shards, and what follows of them: (n, k) sparse."""

    def __init__(self, rows: _Rows, kept: Array, times: Array, width: int) -> None:
        """Take the counts, the share of later ones that open a document, and `stands_for`."""
        self.kept, self.times = kept, times
        ends = np.cumsum([0, *map(len, rows.columns)])
        ends = ends.astype(np.int32 if ends[-1] < 2**31 else np.int64)
        where, counts = np.concatenate(rows.columns), np.concatenate(rows.values)
        documents = 1.0 + (counts - 1.0) * np.repeat(kept, np.diff(ends)).astype(np.float32)
        self.counts, self.there, self.spread = (
            sparse.csr_array((each, where, ends), shape=(len(kept), width))
            for each in (counts, np.ones_like(counts), counts**2 / documents)
        )

    def drawn(self, parts: Array) -> _Drawn:
        """Return what parts of the shards (n,) hold together."""
        most, again = np.minimum(parts, WHOLE), _last_time(parts)
        first, later = np.log1p(-most), np.log1p(-most * self.kept)
        mean, variance, later, first = (
            (self.times * each).astype(np.float32)
            for each in (parts, again * (1.0 - again), later, first - later)
        )
        return _Drawn(
            mean=_double(self.counts.T @ mean),
            variance=_double(self.spread.T @ variance),
            none=_double(self.counts.T @ later + self.there.T @ first),
        )

    def slopes(self, parts: Array, by: _Logarithm, weights: Floats) -> Array:
        """Return the derivatives by the parts (n,) of the sum of weights (k,) × logarithms."""
        most = np.minimum(parts, WHOLE)
        later = -self.kept / (1.0 - most * self.kept)
        first = -1.0 / (1.0 - most) - later
        mean, variance, none = (
            (weights * each).astype(np.float32) for each in (by.by_mean, by.by_variance, by.by_none)
        )
        lost = later * (self.counts @ none) + first * (self.there @ none)
        return self.times * (
            self.counts @ mean
            + (1.0 - 2.0 * _last_time(parts)) * (self.spread @ variance)
            + np.where(parts <= 1.0, lost, 0.0)
        )


def _last_time(parts: Array) -> Array:
    """Return how much is drawn the last time: above 0 to 1, so that slopes are those of less."""
    return parts - np.maximum(np.ceil(parts) - 1.0, 0.0)


def _double(values: npt.NDArray[Any]) -> Array:
    return np.asarray(values, np.float64)
