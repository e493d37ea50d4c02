"""Alignment of a target with shards, corrected for noise, with its influences.

Leaving out one sub-batch at a time says how far an alignment would move with other text: its
influences, from which `curate.ranking.stats` makes intervals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from curate.ranking.measures import measure_rows, perfect
from curate.ranking.prepared import Prepared, Reference, prepare
from curate.ranking.stats import Influences, gather_influences
from curate.records import RowBlock
from curate.settings import Measure

if TYPE_CHECKING:
    from curate.records import Floats

MAX_SPLITS = 35  # of the target into halves: all of them up to 8 sub-batches


@dataclasses.dataclass(frozen=True, slots=True)
class Alignments:
    """Alignment of one target with K shards, and what it rests on."""

    values: Floats  # (K,) corrected for noise, not clipped
    raw: Floats  # (K,) between the means of the sub-batches, noise and all
    moves: Influences  # of each sub-batch of target and shards, and `residual_bias`
    ceiling: float  # the target's halves against each other, corrected like `values`
    raw_ceiling: float  # and not corrected: what noise leaves of a perfect match
    floor: float  # a corrected value below this is not explained by noise alone


def compare(a: Prepared, b: Prepared, *, measure: Measure) -> tuple[Floats, Floats]:
    """Return alignments (raw, corrected) of the target `a` with the shard `b`.

    Returns:
        Two arrays (1 + m + n,): from all sub-batches, then without each of the target's m,
        then without each of the shard's n. Not clipped.
    """
    raw, corrected = _measure_pairs(a, slice(None), b, slice(0, 1), measure)
    if len(b.mean) > 1:
        more = _measure_pairs(a, slice(0, 1), b, slice(1, None), measure)
        raw, corrected = np.append(raw, more[0]), np.append(corrected, more[1])
    return raw, corrected


def _measure_pairs(
    a: Prepared, left: slice, b: Prepared, right: slice, measure: Measure
) -> tuple[Floats, Floats]:
    return measure_rows(
        a.mean[left],
        a.variance[left],
        b.mean[right],
        b.variance[right],
        measure=measure,
        weights=a.weights,
    )


def influences(leave_outs: Floats) -> Floats:
    """Return the jackknife influence of each sub-batch, (n,), from the n leave-one-out values.

    (n - 1) (mean of the leave-outs - leave-out i): for a mean of numbers this is number i minus
    the mean. Sum of squares / (n (n - 1)) is the jackknife's variance (Efron and Stein, 1981).
    """
    n = len(leave_outs)
    return np.asarray((n - 1) * (leave_outs.mean() - leave_outs)) if n else leave_outs


def residual_bias(value: float, leave_outs: Floats) -> float:
    """Return the bias that is left in a corrected value, from the n leave-one-out values.

    Where the second order of noise is taken out, what is left falls as 1 / n², and the values of
    n - 1 sub-batches have more of it in a known ratio: (mean of the leave-outs - value)
    (n - 1)² / (2 n - 1), the generalised jackknife (Schucany, Gray and Owen, 1971). It matters
    where a sub-batch holds a few items. 0 for n < 3: a lone sub-batch has no noise taken out.
    """
    n = len(leave_outs)
    return float(leave_outs.mean() - value) * (n - 1) ** 2 / (2 * n - 1) if n > 2 else 0.0


def alignment(
    a: Floats,
    b: Floats,
    *,
    measure: Measure = "scaled",
    blocks: Sequence[RowBlock] = (),
    reference: Reference | None = None,
) -> float:
    """Return the alignment of target `a` with shard `b`, corrected for noise, 0 to 1.

    Every measure but `cosine` first divides each weight matrix by its mean; t = (a-b)/(a+b).

    scaled: cosine of a/(a+b) and b/(a+b) (Achille et al. 2019, eq. 4); symmetric.
    late: the same, each layer weighing half as much a tenth of the depth further down; symmetric.
    asymmetric: 1 - scaled distance + 0.15 · (b's distance to a flat embedding), divided by 1.15
        (Achille et al., sec. 4): a shard that is itself far from trivial has more to teach.
    rms: cosine after division of each weight matrix by its root mean square; symmetric.
    log: (1 + cosine of log embeddings centred on the corpus) / 2; symmetric.
    whitened: the same, the directions in which the corpus varies most shrunk; symmetric.
    cosine: plain; symmetric.
    kl: exp(-KL) of N(0, a) over N(0, b), mean over coordinates: what the target needs and the
        shard does not supply costs more than the reverse; not symmetric.
    jeffreys: exp(-mean of that KL and its reverse); symmetric.
    entropy: exp(-relative entropy of a over b), each weight matrix one distribution; not
        symmetric.

    Args:
        a: (m, dim) sub-batches of the target, > 0 (any sign for `cosine`).
        b: (n, dim) sub-batches of the shard. With a single sub-batch nothing is corrected.
        measure: see above.
        blocks: weight matrices; none: one block.
        reference: of the corpus, for `log` and `whitened`; none: the origin is 0.

    Raises:
        ValueError: dimensions differ, or a stack is empty, not finite, or not positive.

    Example:
        >>> same = np.array([[1.0, 2.0, 3.0]])
        >>> alignment(same, 7 * same)
        1.0
    """
    left = prepare(a, measure=measure, blocks=blocks, reference=reference)
    right = prepare(b, measure=measure, blocks=blocks, reference=reference)
    if left.mean.shape[1] != right.mean.shape[1]:
        raise ValueError(f"dimensions differ: {left.mean.shape[1]} and {right.mean.shape[1]}")
    return float(np.clip(compare(left, right, measure=measure)[1][0], 0.0, 1.0))


def align_all(
    target: Floats,
    shards: Iterable[Floats],
    *,
    measure: Measure = "scaled",
    blocks: Sequence[RowBlock] = (),
    reference: Reference | None = None,
    confidence: float = 0.95,
) -> Alignments:
    """Align one target with many shards, one shard in memory at a time.

    Args:
        target: (m, dim).
        shards: stacks (n, dim), one a shard; n may differ.
        measure: see `alignment`.
        blocks: weight matrices.
        reference: of the corpus, for `log` and `whitened`.
        confidence: of the floor.

    Raises:
        ValueError: as `alignment`.
    """
    left = prepare(target, measure=measure, blocks=blocks, reference=reference)
    m = len(left.mean) - 1
    values, raws, biases = [], [], []
    targets: list[Floats] = []
    theirs: list[Floats] = []
    for stack in shards:
        right = prepare(stack, measure=measure, blocks=blocks, reference=reference)
        if left.mean.shape[1] != right.mean.shape[1]:
            raise ValueError(f"dimensions differ: {left.mean.shape[1]}, {right.mean.shape[1]}")
        raw, corrected = compare(left, right, measure=measure)
        parts = corrected[1 : m + 1], corrected[m + 1 :]
        values.append(corrected[0])
        raws.append(raw[0])
        biases.append(sum(residual_bias(corrected[0], part) for part in parts))
        for rows, part in zip((targets, theirs), parts, strict=True):
            rows.append(influences(part))
    moves = dataclasses.replace(gather_influences(targets, theirs), bias=np.array(biases))
    ceiling, raw_ceiling, floor = noise(
        target, measure=measure, blocks=blocks, reference=reference, confidence=confidence
    )
    return Alignments(
        values=np.array(values),
        raw=np.array(raws),
        moves=moves,
        ceiling=ceiling,
        raw_ceiling=raw_ceiling,
        floor=floor,
    )


def noise(
    target: Floats,
    *,
    measure: Measure = "scaled",
    blocks: Sequence[RowBlock] = (),
    reference: Reference | None = None,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """Return ceiling, raw ceiling and floor, from the target's halves against each other.

    ceiling: their mean alignment, corrected: about 1 where the correction holds. Halves of one
        sub-batch cannot be corrected: raw.
    raw ceiling: the same, not corrected: how much noise alone takes from a perfect match.
    floor: 1 - t · d / 2, where d is the root mean square of what the corrected alignments of
        halves miss to 1 (halves carry twice the noise of the whole), t Student's quantile: a
        shard at or above it cannot be told from the target itself. (`asymmetric`: not 1, but
        what the half would give with itself.)

    With one sub-batch none is measurable: (1, 1, 0).
    """
    n = len(target)
    if n < 2:
        return 1.0, 1.0, 0.0
    half = n // 2
    splits = list(combinations(range(n), half))
    splits = [s for s in splits if 2 * half < n or 0 in s][:MAX_SPLITS]
    raws, values, tops = [], [], []
    for split in splits:
        inside = np.isin(np.arange(n), split)
        left = prepare(target[inside], measure=measure, blocks=blocks, reference=reference)
        right = prepare(target[~inside], measure=measure, blocks=blocks, reference=reference)
        raw, corrected = compare(left, right, measure=measure)
        raws.append(raw[0])
        values.append(corrected[0] if half > 1 else raw[0])
        tops.append(perfect(right.mean[:1], right.variance[:1], measure=measure))
    miss = float(np.sqrt(np.mean(np.square(np.array(tops) - values))))
    floor = float(np.mean(tops)) - float(stdtrit(n - 1, confidence)) * miss / 2
    ceiling, raw_ceiling, floor = np.clip([np.mean(values), np.mean(raws), floor], 0, 1)
    return float(ceiling), float(raw_ceiling), float(floor)
