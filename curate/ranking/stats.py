"""Intervals of alignments and of ranks from influences, ties, agreement of rankings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

if TYPE_CHECKING:
    from curate.records import Counts, Floats

Flags = npt.NDArray[np.bool_]

PAIRED_UP_TO = 2_000  # shards whose draws are compared pair by pair: seconds at 1,000 draws


@dataclass(frozen=True, slots=True)
class Influences:
    """How far each value moves with each sub-batch, and how many sub-batches there are."""

    target: Floats  # (K, m) influences of the target's sub-batches or items, shared by all values
    shard: Floats  # (K, n) influences of each shard's own; 0 beyond its own number
    shard_batches: Counts  # (K,) each shard's own number of sub-batches
    bias: Floats | None = None  # (K,) that intervals take off the values; None: 0
    level: float = 1.0  # factor on `target` in intervals of values; differences have none


Measured = tuple[npt.NDArray[np.float64], Influences]
"""Values (K,) and the influences that their intervals are made from."""


@dataclass(frozen=True, slots=True)
class RankIntervals:
    """What the draws say about the order."""

    low: Counts  # (K,) best rank that the interval allows, from 1
    high: Counts  # (K,) worst
    tied_with_next: Flags  # (K,) the interval of the difference to the next rank holds 0


def gather_influences(targets: Sequence[Floats], shards: Sequence[Floats]) -> Influences:
    """Return the influences of K values from those of each: the target's, and the shard's own.

    Args:
        targets: K of equal length.
        shards: K, which may differ in length.
    """
    batches = np.array([max(len(row), 1) for row in shards], dtype=np.int64)
    padded = np.zeros((len(shards), int(batches.max(initial=1))))
    for row, moves in zip(padded, shards, strict=True):
        row[: len(moves)] = moves
    width = len(targets[0]) if len(targets) else 1
    return Influences(np.array(targets).reshape(len(shards), width), padded, batches)


def t_intervals(
    values: Floats, influence: Influences, *, confidence: float = 0.95
) -> tuple[Floats, Floats]:
    """Return the interval of every value: jackknife variance, Student's t.

    The variance is the sum of the jackknife's over the target's and the shard's sub-batches. Its
    degrees of freedom are few (3 each at 4 sub-batches) and follow Welch and Satterthwaite; a
    normal quantile and a variance over n instead of n - 1 would be a third too narrow at 6.
    A known bias moves the interval and not the value, which stays inside; what is not known of
    it, and is common to all values, is the `level` by which the target's influences count more.

    Args:
        values: (K,).
        influence: of K values.
        confidence: 0 to 1.

    Returns:
        low, high, (K,) each; equal to the value where nothing varies.

    Raises:
        ValueError: lengths differ or confidence is not inside (0, 1).
    """
    _check(values, influence, confidence)
    parts, freedom = _variances(influence)
    parts[0] *= influence.level**2
    total = parts.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        welch = total**2 / (parts**2 / np.maximum(freedom, 1)).sum(axis=0)
    quantile = stdtrit(np.where(total > 0, welch, 1.0), (1 + confidence) / 2)
    reach = np.where(total > 0, quantile * np.sqrt(total), 0.0)
    centre = values if influence.bias is None else values - influence.bias
    return np.minimum(centre - reach, values), np.maximum(centre + reach, values)


def draw_values(values: Floats, influence: Influences, *, draws: int, seed: int) -> Floats:
    """Return values as other sub-batches might have given them, (draws, K) float32.

    A bootstrap over sub-batches, linear in the influences: every sub-batch gets a random
    multiplier. Multipliers are normal and divided by the root of chi-square over its degrees of
    freedom, once a draw and a set of sub-batches, so that one value's draws are Student's t as
    in `t_intervals`. The target's multipliers are common to all shards: its noise moves them
    together, and drops out of their differences as far as it moves them alike.

    Args:
        values: (K,).
        influence: of K values.
        draws: how many.
        seed: of the multipliers.
    """
    _check(values, influence, 0.5)
    generator = np.random.default_rng(seed)
    m = influence.target.shape[1]
    drawn = np.tile(values.astype(np.float32), (draws, 1))
    if m > 1:
        z = generator.standard_normal((draws, m)) / np.sqrt(m * (m - 1))
        z /= np.sqrt(generator.chisquare(m - 1, (draws, 1)) / (m - 1))
        drawn += (z @ influence.target.T).astype(np.float32)
    parts, freedom = _variances(influence)
    own = np.sqrt(parts[1]).astype(np.float32)
    degrees = np.maximum(freedom[1], 1)
    if own.any():
        for row in drawn:
            spread = np.sqrt(generator.chisquare(degrees) / degrees).astype(np.float32)
            row += own * generator.standard_normal(len(own), dtype=np.float32) / spread
    return drawn


def rank_intervals(
    values: Floats, influence: Influences, *, confidence: float, draws: int, seed: int
) -> RankIntervals:
    """Return the ranks that each shard may hold, and which neighbours are tied.

    A shard's ranks run from 1 + the number of shards surely above it to K - the number surely
    below. Surely: the interval of the difference excludes 0 in paired draws. (Percentiles of
    the ranks in the draws would be too narrow among near equals: each draw adds its noise to
    that of the values.) Beyond `PAIRED_UP_TO` shards, "surely" means that the two intervals do
    not overlap, which is wider.

    Args:
        values: (K,), higher is closer.
        influence: of K values.
        confidence: 0 to 1, of each comparison.
        draws: bootstrap resamples.
        seed: of the draws.
    """
    count = len(values)
    low_value, high_value = t_intervals(values, influence, confidence=confidence)
    order = np.argsort(-values, kind="stable")
    tied = np.zeros(count, dtype=bool)
    if count > PAIRED_UP_TO:
        low = 1 + count - np.searchsorted(np.sort(low_value), high_value, side="right")
        high = count - np.searchsorted(np.sort(high_value), low_value, side="left")
        tied[order[:-1]] = low_value[order[:-1]] <= high_value[order[1:]]
        return RankIntervals(low=low, high=high, tied_with_next=tied)
    drawn = draw_values(values, influence, draws=draws, seed=seed)[:, order]
    above = _surely_above(values[order], drawn, confidence=confidence)
    low, high = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    low[order] = 1 + above.sum(axis=0)
    high[order] = count - above.sum(axis=1)
    tied[order[:-1]] = ~above[np.arange(count - 1), np.arange(1, count)]
    return RankIntervals(low=low, high=high, tied_with_next=tied)


def spearman(x: Floats, y: Floats) -> float:
    """Return Spearman's rank correlation, ties at their mean rank; 0 where one is constant.

    Raises:
        ValueError: lengths differ.
    """
    if len(x) != len(y):
        raise ValueError(f"lengths differ: {len(x)} and {len(y)}")
    return float(agreement(np.stack([np.asarray(x, float), np.asarray(y, float)]))[0, 1])


def agreement(values: Floats) -> Floats:
    """Return Spearman's correlation of every two rows, (R, R): do rankings agree?

    Args:
        values: (R, K): K shards under R methods; a row of equal values agrees with none (0).
    """
    from scipy.stats import rankdata  # half a second to load

    ranks = rankdata(values, axis=1)
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=1, keepdims=True)
    ranks = np.divide(ranks, norms, out=np.zeros_like(ranks), where=norms > 0)
    return np.asarray(np.clip(ranks @ ranks.T, -1.0, 1.0))


def _variances(influence: Influences) -> tuple[Floats, npt.NDArray[Any]]:
    """Return jackknife variances (2, K) of target and shard, and degrees of freedom (2, K)."""
    m, n = influence.target.shape[1], influence.shard_batches
    target = np.square(influence.target).sum(axis=1) / max(m * (m - 1), 1)
    shard = np.square(influence.shard).sum(axis=1) / np.maximum(n * (n - 1), 1)
    return np.stack([target, shard]), np.stack([np.full(len(n), m - 1), n - 1])


def _surely_above(values: Floats, drawn: Floats, *, confidence: float) -> Flags:
    """Return (K, K): is shard i (of values in falling order) surely above shard j.

    Of fewer draws than a tail of the confidence is one of, nothing is sure.
    """
    draws, count = drawn.shape
    above = np.zeros((count, count), dtype=bool)
    allowed = int(round((1 - confidence) / 2 * draws, 6))
    if allowed < 1:
        return above
    for i in range(count - 1):
        fewer = (drawn[:, i, None] <= drawn[:, i + 1 :]).sum(axis=0)
        above[i, i + 1 :] = (fewer <= allowed) & (values[i] > values[i + 1 :])
    return above


def _check(values: Floats, influence: Influences, confidence: float) -> None:
    count = len(values)
    if not count == len(influence.target) == len(influence.shard) == len(influence.shard_batches):
        raise ValueError("values and influences differ in length")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
