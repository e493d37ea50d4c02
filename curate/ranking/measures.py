"""The measures of alignment: closed forms on prepared rows, each with its noise taken out.

A row is an embedding, its variance the squared standard error of every coordinate. Noise enters
each measure through squares; its expectation (second order) is subtracted inside, before the
quotient or the exponential is formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from curate.records import RowBlock
from curate.settings import Measure

if TYPE_CHECKING:
    from curate.records import Floats

Pair = tuple["Floats", "Floats"]
"""(raw, corrected), (P,) each."""

MIN_RELIABILITY = 0.05  # share of a squared norm that must remain after the noise is taken out
TRIVIAL_SHARE = 0.15  # of the distance to the trivial embedding: alpha of Achille et al., sec. 4
LATE_HALVES = 0.1  # of the depth: where the weight of a layer is half that of the last


def measure_rows(
    x: Floats,
    vx: Floats,
    y: Floats,
    vy: Floats,
    *,
    measure: Measure,
    weights: Floats | None = None,
) -> Pair:
    """Return alignments (raw, corrected) of targets `x` with shards `y`, row by row.

    Args:
        x: (P, dim) prepared targets.
        vx: like `x`, squared standard errors.
        y: (P, dim) prepared shards.
        vy: like `y`.
        measure: which form; what each is stands at `curate.ranking.alignment.alignment`.
        weights: (dim,) of the coordinates, sum 1, where the measure weighs them; None: equal.

    Returns:
        Two arrays (P,), not clipped: 1 is a perfect match (less for `asymmetric`).
    """
    if measure in ("scaled", "late"):
        return scaled(x, vx, y, vy, weights=weights)
    if measure == "asymmetric":
        return asymmetric(x, vx, y, vy)
    if measure in ("kl", "jeffreys", "entropy"):
        return _closeness(*_divergence(x, vx, y, vy, measure=measure))
    raw, corrected = cosine(x, vx, y, vy)
    if measure in ("log", "whitened"):
        return (1 + raw) / 2, (1 + corrected) / 2
    return raw, corrected


def scaled(x: Floats, vx: Floats, y: Floats, vy: Floats, *, weights: Floats | None = None) -> Pair:
    """Return the cosine of x/(x+y) and y/(x+y), coordinates weighted.

    With t = (x-y)/(x+y) it is (1 - mean t²) / sqrt((1 + mean t²)² - 4 (mean t)²).
    """
    inverse = x + y
    np.reciprocal(inverse, out=inverse)  # in place: new arrays cost more than the arithmetic
    p = x * inverse  # the other quotient is 1 - p, and t = 2 p - 1
    mean_p, mean_pp = _mean("pd", p, weights=weights), _mean("pd,pd", p, p, weights=weights)
    first, second = 2 * mean_p - 1, 4 * (mean_pp - mean_p) + 1
    # Half the second derivatives of t and t² in x and y, times the noise of x and y, as
    # polynomials in p, so that each is a sum over coordinates of a few products.
    inverse *= inverse
    u = vx * inverse
    g = np.multiply(vx + vy, inverse, out=inverse)
    mean_u, mean_pu = _mean("pd", u, weights=weights), _mean("pd,pd", p, u, weights=weights)
    mean_pg = _mean("pd,pd", p, g, weights=weights)
    g *= p
    mean_ppg = _mean("pd,pd", p, g, weights=weights)
    first_bias = 2 * (mean_pg - mean_u)
    second_bias = 4 * (3 * mean_ppg - mean_pg - 4 * mean_pu + 2 * mean_u)
    return _from_moments(first, second), _from_moments(first - first_bias, second - second_bias)


def asymmetric(x: Floats, vx: Floats, y: Floats, vy: Floats) -> Pair:
    """Return Task2Vec's asymmetric form, turned to an alignment between 0 and 1.

    Its distance is d(x, y) - alpha d(y, trivial): a shard far from the trivial embedding (flat
    within each weight matrix) has more to teach. 1 minus it lies between 0 and 1 + alpha, and is
    divided by that.
    """
    flat = np.ones_like(y)
    near = scaled(x, vx, y, vy)
    trivial = scaled(flat, np.zeros_like(y), y, vy)
    raw, corrected = (
        (a + TRIVIAL_SHARE * (1 - b)) / (1 + TRIVIAL_SHARE)
        for a, b in zip(near, trivial, strict=True)
    )
    return raw, corrected


def cosine(x: Floats, vx: Floats, y: Floats, vy: Floats) -> Pair:
    """Return the cosine, -1 to 1; the noise is taken out of the squared norms.

    A row without direction (a shard that is the mean of its corpus, under `log`) has nothing in
    common with any other: 0.
    """
    dot = np.einsum("pd,pd->p", x, y)
    xx, yy = np.einsum("pd,pd->p", x, x), np.einsum("pd,pd->p", y, y)
    clean_x = np.maximum(xx - vx.sum(axis=1), MIN_RELIABILITY * xx)
    clean_y = np.maximum(yy - vy.sum(axis=1), MIN_RELIABILITY * yy)
    none = (xx == 0) | (yy == 0)
    raw, corrected = (np.sqrt(np.where(none, np.inf, s)) for s in (xx * yy, clean_x * clean_y))
    return dot / raw, dot / corrected


def shortfalls(
    x: Floats,
    vx: Floats,
    y: Floats,
    vy: Floats,
    *,
    measure: Measure,
    weights: Floats | None = None,
) -> Floats:
    """Return what every coordinate takes away from the alignment of two rows, (dim,).

    In the measure's own distance, which is their sum: t² of the scaled forms (weighted), half
    the squared difference of the unit vectors of the cosines, the terms of the divergences.
    Noise is taken out, so that a coordinate in which only noise differs has about 0.

    Args:
        x: (dim,) prepared target.
        vx: like `x`, squared standard errors.
        y: (dim,) prepared shard.
        vy: like `y`.
        measure: which form.
        weights: as for `measure_rows`.
    """
    share = 1 / len(x) if weights is None else weights
    if measure in ("scaled", "late", "asymmetric"):
        inverse = 1 / (x + y)
        p, q = x * inverse, y * inverse
        bias = 4 * inverse**2 * (q * (2 * q - p) * vx + p * (2 * p - q) * vy)
        return np.asarray(((p - q) ** 2 - bias) * share)
    if measure in ("kl", "jeffreys", "entropy"):
        value, noise = _divergence_terms(x, vx, y, vy, measure=measure)
        return np.asarray((value - noise) * share)
    xx = max(float(x @ x - vx.sum()), MIN_RELIABILITY * float(x @ x), 1e-300)
    yy = max(float(y @ y - vy.sum()), MIN_RELIABILITY * float(y @ y), 1e-300)
    return np.asarray(((x**2 - vx) / xx + (y**2 - vy) / yy) / 2 - x * y / np.sqrt(xx * yy))


def layer_weights(blocks: Sequence[RowBlock], dim: int) -> Floats:
    """Return the weight of every coordinate of measure `late`, (dim,), sum 1.

    A layer weighs half as much a tenth of the depth below the last; the coordinates of a layer
    share its weight equally. Without blocks, or with one layer, all weigh the same.
    """
    if not blocks:
        return np.full(dim, 1 / dim)
    layers = np.concatenate([np.full(block.stop - block.start, block.layer) for block in blocks])
    depth = layers.max() + 1
    per_layer = np.bincount(layers)
    weights = 0.5 ** ((depth - 1 - layers) / (LATE_HALVES * depth)) / per_layer[layers]
    return np.asarray(weights / weights.sum())


def perfect(shard: Floats, variance: Floats, *, measure: Measure) -> float:
    """Return what a shard, (1, dim) with its variance, would give as its own target.

    1, except for `asymmetric`, which adds what the shard is worth by itself.
    """
    if measure != "asymmetric":
        return 1.0
    trivial = scaled(np.ones_like(shard), np.zeros_like(shard), shard, variance)[1]
    return float((1 + TRIVIAL_SHARE * (1 - trivial[0])) / (1 + TRIVIAL_SHARE))


def _divergence(x: Floats, vx: Floats, y: Floats, vy: Floats, *, measure: Measure) -> Pair:
    """Return a divergence of `x` from `y`, mean over coordinates, and what noise adds to it."""
    value, noise = _divergence_terms(x, vx, y, vy, measure=measure)
    return value.mean(axis=1), noise.mean(axis=1)


def _divergence_terms(x: Floats, vx: Floats, y: Floats, vy: Floats, *, measure: Measure) -> Pair:
    ratio: Floats = x / y
    if measure == "entropy":
        return x * np.log(ratio), (vx / x + ratio * vy / y) / 2
    if measure == "kl":
        value = (ratio - 1 - np.log(ratio)) / 2
        return value, (vx / x**2 + (2 * ratio - 1) * vy / y**2) / 4
    return (ratio + 1 / ratio - 2) / 4, (vx / x**2 / ratio + vy / y**2 * ratio) / 4


def _closeness(divergence: Floats, noise: Floats) -> Pair:
    # The ratio of a coordinate that is all noise is huge, and so is the rounding of its noise.
    return np.exp(-divergence), np.exp(-np.maximum(divergence - noise, -1.0))


def _mean(terms: str, *rows: Floats, weights: Floats | None) -> Floats:
    """Return the weighted mean of the product of `rows` over coordinates, (P,)."""
    if weights is None:
        return np.asarray(np.einsum(f"{terms}->p", *rows) / rows[0].shape[1])
    return np.asarray(np.einsum(f"{terms},d->p", *rows, weights))


def _from_moments(first: Floats, second: Floats) -> Floats:
    square = (1 + second) ** 2 - 4 * first**2
    norms = np.where(square > 0, square, np.inf)  # nothing in common at all: 0 / 0, which is 0
    return np.asarray((1 - second) / np.sqrt(norms))
