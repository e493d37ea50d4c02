"""Alignment of a target with shards: the measures, corrected for noise, with their influences.

Every embedding is a stack of sub-batches (n_batches, dim) of disjoint documents. Their spread
says how much of a difference between two embeddings is only noise; that part is taken out, so
that the coefficient does not move with the number of tokens embedded. Leaving out one sub-batch
at a time says how far the coefficient would move with other text: its influences, from which
`curate.ranking.stats` makes intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from curate.records import Measure, RowBlock

if TYPE_CHECKING:
    from curate.records import Counts, Floats

MAX_SPLITS = 35  # of the target into halves: all of them up to 8 sub-batches
MIN_RELIABILITY = 0.05  # share of a squared norm that must remain after the noise is taken out


@dataclass(frozen=True, slots=True)
class Alignments:
    """Alignment of one target with K shards, and what it rests on."""

    values: Floats  # (K,) corrected for noise, not clipped
    raw: Floats  # (K,) between the means of the sub-batches, noise and all
    target_influence: Floats  # (K, m) of each sub-batch of the target, see `influences`
    shard_influence: Floats  # (K, n) of each sub-batch of the shard; 0 beyond its own number
    shard_batches: Counts  # (K,) sub-batches of each shard
    ceiling: float  # the target's halves against each other, corrected like `values`
    raw_ceiling: float  # and not corrected: what noise leaves of a perfect match
    floor: float  # a corrected value below this is not explained by noise alone


@dataclass(frozen=True, slots=True)
class Prepared:
    """An embedding ready for comparison: row 0 from all sub-batches, row i without the i-th."""

    mean: Floats  # (1 + n, dim), or (1, dim) where there is one sub-batch
    variance: Floats  # like `mean`: squared standard error of each coordinate of `mean`


def block_edges(blocks: Sequence[RowBlock], dim: int) -> Counts:
    """Return where each weight matrix begins, and `dim`; one of all where none is named.

    Raises:
        ValueError: the blocks do not cover `dim` coordinates exactly and in order.
    """
    starts = [block.start for block in blocks] or [0]
    stops = [block.stop for block in blocks] or [dim]
    edges = np.array([*starts, dim])
    if edges[0] != 0 or edges[1:].tolist() != stops or (np.diff(edges) <= 0).any():
        raise ValueError(f"row blocks do not cover the {dim} coordinates in order")
    return edges


def prepare(
    stack: Floats,
    *,
    measure: Measure,
    blocks: Sequence[RowBlock] = (),
    centre: Floats | None = None,
) -> Prepared:
    """Normalise an embedding, with the noise of every coordinate.

    `scaled` and `kl` divide each weight matrix by its own mean, `log` by its geometric mean,
    `rms` by its root mean square (noise taken out), so that a constant factor on an embedding,
    or on one weight matrix, changes nothing. By weight matrix, because one factor for all is set
    by the few matrices with the largest Fisher; what remains is which rows of a matrix matter.
    (A choice, not a finding: four corpora against one target came out in the same order either
    way.) `cosine` takes vectors as they are. The standard error of a quotient is that of its
    linearisation: a factor common to a whole sub-batch is no noise in it.

    Args:
        stack: (n_batches, dim), positive except for `cosine`.
        measure: decides the normalisation.
        blocks: the weight matrices; none: one block of all coordinates.
        centre: (dim,), of `log` only: what `corpus_centre` returns.

    Returns:
        The embedding and n leave-one-out embeddings; variances are 0 for a single sub-batch.

    Raises:
        ValueError: not a stack, not finite, or not positive where it has to be.
    """
    stack = _checked(stack, positive=measure != "cosine")
    edges = block_edges(blocks, stack.shape[1])
    mean, variance = _means_and_errors(stack, edges, normalised=measure != "cosine")
    if measure == "rms":
        raw, clean = _block_means(mean**2, edges), _block_means(mean**2 - variance, edges)
        power = np.repeat(np.maximum(clean, MIN_RELIABILITY * raw), np.diff(edges), axis=1)
        mean, variance = mean / np.sqrt(power), variance / power
    if measure == "log":
        variance = variance / mean**2
        mean = np.log(mean) + variance / 2  # the log of a noisy mean lies low by half of that
        mean -= np.repeat(_block_means(mean, edges), np.diff(edges), axis=1)
        if centre is not None:
            mean -= centre
    return Prepared(mean=mean, variance=variance)


def corpus_centre(shards: Iterable[Floats], *, blocks: Sequence[RowBlock] = ()) -> Floats:
    """Return the mean of the shards' log embeddings, (dim,): the origin of measure `log`.

    Raises:
        ValueError: no shard.
    """
    total, count = None, 0
    for stack in shards:
        row = prepare(stack, measure="log", blocks=blocks).mean[0]
        total = row if total is None else total + row
        count += 1
    if total is None:
        raise ValueError("no shard to centre on")
    return np.asarray(total / count)


def compare(a: Prepared, b: Prepared, *, measure: Measure) -> tuple[Floats, Floats]:
    """Return alignments (raw, corrected) of the target `a` with the shard `b`.

    Returns:
        Two arrays (1 + m + n,): from all sub-batches, then without each of the target's m,
        then without each of the shard's n. Not clipped.
    """
    m, n = len(a.mean) - 1, len(b.mean) - 1
    left = np.concatenate([np.arange(m + 1), np.zeros(n, dtype=int)])
    right = np.concatenate([np.zeros(m + 1, dtype=int), np.arange(1, n + 1)])
    x, vx, y, vy = a.mean[left], a.variance[left], b.mean[right], b.variance[right]
    if measure == "scaled":
        return _scaled(x, vx, y, vy)
    if measure == "kl":
        return _gaussian_kl(x, vx, y, vy)
    raw, corrected = _cosine(x, vx, y, vy)
    return ((1 + raw) / 2, (1 + corrected) / 2) if measure == "log" else (raw, corrected)


def influences(leave_outs: Floats) -> Floats:
    """Return the jackknife influence of each sub-batch, (n,), from the n leave-one-out values.

    (n - 1) (mean of the leave-outs - leave-out i): for a mean of numbers this is number i minus
    the mean. Sum of squares / (n (n - 1)) is the jackknife's variance (Efron and Stein, 1981).
    """
    n = len(leave_outs)
    return np.asarray((n - 1) * (leave_outs.mean() - leave_outs)) if n else leave_outs


def alignment(
    a: Floats,
    b: Floats,
    *,
    measure: Measure = "scaled",
    blocks: Sequence[RowBlock] = (),
    centre: Floats | None = None,
) -> float:
    """Return the alignment of target `a` with shard `b`, corrected for noise, 0 to 1.

    scaled: cosine of a/(a+b) and b/(a+b) (Achille et al. 2019, eq. 4), each embedding first
        divided by the mean of each weight matrix; symmetric. With t = (a-b)/(a+b) it is
        (1 - mean t²) / sqrt((1 + mean t²)² - 4 (mean t)²), which is how it is computed.
    rms: cosine after division of each weight matrix by its root mean square; symmetric.
    log: (1 + cosine of log embeddings centred on the corpus) / 2; symmetric.
    cosine: plain; symmetric.
    kl: exp(-KL) of N(0, a) over N(0, b), mean over coordinates: what the target needs and the
        shard does not supply costs more than the reverse; not symmetric.

    Noise enters each of them through squares; its expectation (second order, from the spread of
    the sub-batches) is subtracted inside, before the quotient is formed.

    Args:
        a: (m, dim) sub-batches of the target, > 0 (any sign for `cosine`).
        b: (n, dim) sub-batches of the shard. With a single sub-batch nothing is corrected.
        measure: see above.
        blocks: weight matrices; none: one block.
        centre: (dim,), for `log`; none: the origin is 0.

    Raises:
        ValueError: dimensions differ, or a stack is empty, not finite, or not positive.

    Example:
        >>> same = np.array([[1.0, 2.0, 3.0]])
        >>> alignment(same, 7 * same)
        1.0
    """
    left = prepare(a, measure=measure, blocks=blocks, centre=centre)
    right = prepare(b, measure=measure, blocks=blocks, centre=centre)
    if left.mean.shape[1] != right.mean.shape[1]:
        raise ValueError(f"dimensions differ: {left.mean.shape[1]} and {right.mean.shape[1]}")
    return float(np.clip(compare(left, right, measure=measure)[1][0], 0.0, 1.0))


def align_all(
    target: Floats,
    shards: Iterable[Floats],
    *,
    measure: Measure = "scaled",
    blocks: Sequence[RowBlock] = (),
    centre: Floats | None = None,
    confidence: float = 0.95,
    seen: Callable[[int], None] | None = None,
) -> Alignments:
    """Align one target with many shards, one shard in memory at a time.

    Args:
        target: (m, dim).
        shards: stacks (n, dim), one a shard; n may differ.
        measure: see `alignment`.
        blocks: weight matrices.
        centre: (dim,), for `log`.
        confidence: of the floor.
        seen: called with the number of shards done.

    Raises:
        ValueError: as `alignment`.
    """
    left = prepare(target, measure=measure, blocks=blocks, centre=centre)
    m = len(left.mean) - 1
    results: list[tuple[float, float, Floats, Floats]] = []
    for number, stack in enumerate(shards, start=1):
        right = prepare(stack, measure=measure, blocks=blocks, centre=centre)
        if left.mean.shape[1] != right.mean.shape[1]:
            raise ValueError(f"dimensions differ: {left.mean.shape[1]}, {right.mean.shape[1]}")
        raw, corrected = compare(left, right, measure=measure)
        mine, theirs = influences(corrected[1 : m + 1]), influences(corrected[m + 1 :])
        results.append((float(raw[0]), float(corrected[0]), mine, theirs))
        if seen is not None:
            seen(number)
    batches = np.array([max(len(row[3]), 1) for row in results], dtype=np.int64)
    theirs_all = np.zeros((len(results), int(batches.max(initial=1))))
    for row, (_, _, _, theirs) in zip(theirs_all, results, strict=True):
        row[: len(theirs)] = theirs
    ceiling, raw_ceiling, floor = noise(
        target, measure=measure, blocks=blocks, confidence=confidence
    )
    return Alignments(
        values=np.array([row[1] for row in results]),
        raw=np.array([row[0] for row in results]),
        target_influence=np.array([row[2] for row in results]).reshape(len(results), m),
        shard_influence=theirs_all,
        shard_batches=batches,
        ceiling=ceiling,
        raw_ceiling=raw_ceiling,
        floor=floor,
    )


def noise(
    target: Floats,
    *,
    measure: Measure = "scaled",
    blocks: Sequence[RowBlock] = (),
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """Return ceiling, raw ceiling and floor, from the target's halves against each other.

    ceiling: their mean alignment, corrected: about 1 where the correction holds. Halves of one
        sub-batch cannot be corrected: raw.
    raw ceiling: the same, not corrected: how much noise alone takes from a perfect match.
    floor: 1 - t · d / 2, where d is the root mean square of what the corrected alignments of
        halves miss to 1 (halves carry twice the noise of the whole), t Student's quantile: a
        shard at or above it cannot be told from the target itself.

    With one sub-batch none is measurable: (1, 1, 0). `log` is not centred here: against the
    corpus, halves of one target would differ only by what the corpus happens to be.
    """
    n = len(target)
    if n < 2:
        return 1.0, 1.0, 0.0
    half = n // 2
    splits = list(combinations(range(n), half))
    splits = [s for s in splits if 2 * half < n or 0 in s][:MAX_SPLITS]
    raws, values = [], []
    for split in splits:
        inside = np.isin(np.arange(n), split)
        left = prepare(target[inside], measure=measure, blocks=blocks)
        right = prepare(target[~inside], measure=measure, blocks=blocks)
        raw, corrected = compare(left, right, measure=measure)
        raws.append(raw[0])
        values.append(corrected[0] if half > 1 else raw[0])
    miss = float(np.sqrt(np.mean(np.square(1 - np.array(values)))))
    floor = 1 - float(stdtrit(n - 1, confidence)) * miss / 2
    ceiling, raw_ceiling, floor = np.clip([np.mean(values), np.mean(raws), floor], 0, 1)
    return float(ceiling), float(raw_ceiling), float(floor)


def _checked(stack: Floats, *, positive: bool) -> Floats:
    stack = np.asarray(stack, dtype=np.float64)
    if stack.ndim != 2 or 0 in stack.shape:
        raise ValueError(f"an embedding is (n_batches, dim), not {stack.shape}")
    if not np.isfinite(stack).all():
        raise ValueError("an embedding holds values that are not finite")
    if positive and not (stack > 0).all():
        raise ValueError("an embedding holds values that are not positive")
    return stack


def _block_means(rows: Floats, edges: Counts) -> Floats:
    """Return the mean of each block of columns, (n, blocks)."""
    return np.asarray(np.add.reduceat(rows, edges[:-1], axis=1) / np.diff(edges))


def _means_and_errors(stack: Floats, edges: Counts, *, normalised: bool) -> tuple[Floats, Floats]:
    """Return means and their squared standard errors, (1 + n, dim): of all, and without each.

    With own_j the block mean of sub-batch j, x the normalised mean and s the block mean of the
    mean, sub-batch j deviates from x by (a_j - x own_j) / s; the squares are summed expanded.
    """
    n, widths = len(stack), np.diff(edges)
    chosen = np.concatenate([np.ones((1, n)), 1 - np.eye(n)] if n > 1 else [np.ones((1, 1))])
    count = chosen.sum(axis=1, keepdims=True)
    own = _block_means(stack, edges) if normalised else np.ones((n, len(widths)))
    own_wide = np.repeat(own, widths, axis=1)
    scale = np.repeat(chosen @ own / count, widths, axis=1)
    mean = chosen @ stack / count / scale
    squares = chosen @ stack**2 - 2 * mean * (chosen @ (stack * own_wide))
    squares += mean**2 * np.repeat(chosen @ own**2, widths, axis=1)
    variance = np.maximum(squares, 0) / scale**2 / np.maximum(count * (count - 1), 1)
    return mean, np.where(count > 1, variance, 0.0)


def _scaled(x: Floats, vx: Floats, y: Floats, vy: Floats) -> tuple[Floats, Floats]:
    inverse = 1 / (x + y)
    t = (x - y) * inverse
    first, second = t.mean(axis=1), np.einsum("pd,pd->p", t, t) / t.shape[1]
    # Half the second derivatives of t and t² in x and y, times the noise of x and y.
    p, q = x * inverse, y * inverse
    vx, vy = vx * inverse * inverse, vy * inverse * inverse
    first_bias = (2 * (p * vy - q * vx)).mean(axis=1)
    second_bias = (4 * (q * (2 * q - p) * vx + p * (2 * p - q) * vy)).mean(axis=1)
    return _from_moments(first, second), _from_moments(first - first_bias, second - second_bias)


def _from_moments(first: Floats, second: Floats) -> Floats:
    square = (1 + second) ** 2 - 4 * first**2
    norms = np.where(square > 0, square, np.inf)  # nothing in common at all: 0 / 0, which is 0
    return (1 - second) / np.sqrt(norms)


def _cosine(x: Floats, vx: Floats, y: Floats, vy: Floats) -> tuple[Floats, Floats]:
    dot = np.einsum("pd,pd->p", x, y)
    xx, yy = np.einsum("pd,pd->p", x, x), np.einsum("pd,pd->p", y, y)
    if (xx == 0).any() or (yy == 0).any():
        raise ValueError("an embedding has no direction: all its coordinates are equal or zero")
    clean_x = np.maximum(xx - vx.sum(axis=1), MIN_RELIABILITY * xx)
    clean_y = np.maximum(yy - vy.sum(axis=1), MIN_RELIABILITY * yy)
    return dot / np.sqrt(xx * yy), dot / np.sqrt(clean_x * clean_y)


def _gaussian_kl(x: Floats, vx: Floats, y: Floats, vy: Floats) -> tuple[Floats, Floats]:
    ratio = x / y
    divergence = (ratio - 1 - np.log(ratio)).mean(axis=1) / 2
    bias = (vx / x**2 + (2 * ratio - 1) * vy / y**2).mean(axis=1) / 4
    return np.exp(-divergence), np.exp(-(divergence - bias))
