"""Embeddings ready for comparison: normalised, each coordinate with its noise.

An embedding is a stack of sub-batches (n_batches, dim) of disjoint documents. Their spread says
how much of a difference between two embeddings is only noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from curate.ranking.measures import MIN_RELIABILITY, layer_weights
from curate.records import RowBlock
from curate.settings import Measure

if TYPE_CHECKING:
    from curate.records import Counts, Floats

LOGS = ("log", "whitened")  # measures of log embeddings about the corpus
FIT_ON = 1_024  # shards that the directions of `whitened` are fitted on, at most
DIRECTIONS = 128  # that are shrunk, at most


@dataclass(frozen=True, slots=True)
class Prepared:
    """An embedding ready for comparison: row 0 from all sub-batches, row i without the i-th."""

    mean: Floats  # (1 + n, dim), or (1, dim) where there is one sub-batch
    variance: Floats  # like `mean`: squared standard error of each coordinate of `mean`
    weights: Floats | None = None  # (dim,) of the coordinates, where the measure weighs them


@dataclass(frozen=True, slots=True)
class Reference:
    """What the measures `log` and `whitened` know of the corpus."""

    centre: Floats  # (dim,) mean log embedding: the origin
    directions: Floats  # (r, dim), orthonormal rows; r is 0 for `log`
    factors: Floats  # (r,), 0 to 1: what is kept of each direction


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
    reference: Reference | None = None,
) -> Prepared:
    """Normalise an embedding, with the noise of every coordinate.

    All but `cosine` divide each weight matrix by its own mean, `rms` further by its root mean
    square (noise taken out), `log` and `whitened` by its geometric mean, so that a constant
    factor on an embedding, or on one weight matrix, changes nothing. By weight matrix, because
    one factor for all is set by the few matrices with the largest Fisher; what remains is which
    rows of a matrix matter. (A choice, not a finding: four corpora against one target came out
    in the same order either way.) `cosine` takes vectors as they are. The standard error of a
    quotient is that of its linearisation: a factor common to a whole sub-batch is no noise in it.

    Args:
        stack: (n_batches, dim), positive except for `cosine`.
        measure: decides the normalisation.
        blocks: the weight matrices; none: one block of all coordinates.
        reference: what `corpus_reference` returns, for `log` and `whitened`; None: origin 0.

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
        return Prepared(mean / np.sqrt(power), variance / power)
    if measure in LOGS:
        logs, errors = _logs(mean, variance, edges)
        if reference is None:
            return Prepared(logs, errors)
        logs -= reference.centre
        if len(reference.directions):
            errors = errors * _kept_noise(stack, mean, errors, edges, reference)[:, None]
            logs = _shrunk(logs, reference)
        return Prepared(logs, errors)
    weights = layer_weights(blocks, stack.shape[1]) if measure == "late" else None
    return Prepared(mean, variance, weights)


def corpus_reference(
    shards: Iterable[Floats], *, measure: Measure, blocks: Sequence[RowBlock] = ()
) -> Reference | None:
    """Return what a measure has to know of the corpus; None where that is nothing.

    `log` takes the mean log embedding as origin. `whitened` also shrinks the directions in which
    the shards differ most, by sqrt(l / (s + l)) for a direction of variance s; l is the mean
    variance over all directions in which they differ at all. (l = 0 would make all shards
    orthogonal to each other, because there are fewer of them than coordinates.) One shard alone
    is no corpus: None.

    Args:
        shards: stacks (n, dim), one a shard; not read where the measure needs nothing.
        measure: see `alignment`.
        blocks: weight matrices.
    """
    if measure not in LOGS:
        return None
    generator = np.random.default_rng(0)
    total: Floats = np.zeros(1)
    kept: list[Floats] = []
    count = 0
    for count, stack in enumerate(shards, start=1):
        row = prepare(stack, measure="log", blocks=blocks).mean[0]
        total = total + row
        if measure == "whitened":
            place = len(kept) if len(kept) < FIT_ON else int(generator.integers(count))
            kept[place : place + 1] = [row.astype(np.float32)] if place < FIT_ON else []
    if count < 2:
        return None
    centre = total / count
    if measure == "log":
        return Reference(centre, np.zeros((0, len(centre))), np.zeros(0))
    return Reference(centre, *_directions(np.stack(kept) - centre))


def _directions(rows: Floats) -> tuple[Floats, Floats]:
    """Return the directions in which centred rows (n, dim) differ, and what is kept of each."""
    power, vectors = np.linalg.eigh(rows @ rows.T / len(rows))
    if power[-1] <= 1e-10 * rows.shape[1]:  # logs of equal shards differ by rounding
        return np.zeros((0, rows.shape[1])), np.zeros(0)
    found = np.flatnonzero(power > power[-1] * 1e-9)[::-1]
    mean = power[found].mean()
    found = found[:DIRECTIONS]
    directions = vectors[:, found].T @ rows / np.sqrt(len(rows) * power[found])[:, None]
    return directions, np.sqrt(mean / (power[found] + mean))


def _shrunk(rows: Floats, reference: Reference) -> Floats:
    parts = rows @ reference.directions.T * (reference.factors - 1)
    return np.asarray(rows + parts @ reference.directions)


def _kept_noise(
    stack: Floats, mean: Floats, errors: Floats, edges: Counts, reference: Reference
) -> Floats:
    """Return the share of each row's summed noise that is left after the directions shrink.

    Noise of the coordinates of one text is not independent, so it is projected as it is.
    """
    widths, n = np.diff(edges), len(stack)
    own = np.repeat(_block_means(stack, edges), widths, axis=1)
    left = np.ones(len(mean))
    for row in range(len(mean) if n > 1 else 0):
        some = np.arange(n) != row - 1
        count = int(some.sum())
        if count < 2:
            continue
        scale = np.repeat(_block_means(stack[some].mean(axis=0)[None], edges), widths, axis=1)
        deviations = (stack[some] / mean[row] - own[some]) / scale
        along = np.square(deviations @ reference.directions.T).sum(axis=0) / (count * (count - 1))
        change = float(((reference.factors**2 - 1) * along).sum())
        left[row] = max(1 + change / max(float(errors[row].sum()), 1e-300), 0.0)
    return left


def _logs(mean: Floats, variance: Floats, edges: Counts) -> tuple[Floats, Floats]:
    errors = variance / mean**2
    logs = np.log(mean) + errors / 2  # the log of a noisy mean lies low by half of that
    logs -= np.repeat(_block_means(logs, edges), np.diff(edges), axis=1)
    return logs, errors


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
    total = chosen @ own  # scale · count
    scale = np.repeat(1 / total, widths, axis=1)
    mean = chosen @ stack
    mean *= scale
    # The sums run over the products of two rows each; a rest below 0 is rounding.
    variance = chosen @ np.square(stack)
    crossed = chosen @ (stack * np.repeat(own, widths, axis=1))
    crossed *= 2
    crossed -= mean * np.repeat(chosen @ own**2, widths, axis=1)
    crossed *= mean
    variance -= crossed
    np.maximum(variance, 0, out=variance)
    scale *= scale
    variance *= scale
    variance *= np.where(count > 1, count / np.maximum(count - 1, 1), 0.0)
    return mean, variance
