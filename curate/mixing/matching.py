"""The mixture that is closest to the target by its embedding.

A convex problem over shares: the embedding of a mixture is the mean of its shards'. It is kept
from following the select split too closely by the natural proportions, as far as one half of the
target says that it helps the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curate.records import RowBlock

if TYPE_CHECKING:
    from curate.records import Floats

PULLS = (0.0, 1e-3, 1e-2, 1e-1, 1.0)
"""Strengths of the pull to the natural mix that `match_embeddings` chooses from."""

MAX_STEPS = 150
"""Of the solver, a problem."""

CAP_ROUNDS = 6
"""In which caps and the sum that they are shares of settle."""

MAX_COORDINATES = 5_000_000
"""Numbers in the matrix that `match_embeddings` solves; beyond it the coordinates are projected,
which moves a distance by about 1 / √(coordinates left): 4 % at 512."""


def match_embeddings(
    vectors: Floats,
    target_vectors: Floats,
    *,
    natural: Floats,
    caps: Floats,
    blocks: Sequence[RowBlock] = (),
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Return the shares whose mixture embedding points where the target's points.

    The Fisher diagonal is an expectation over text, so the mixture's embedding is the
    mean of the shards' weighted by shares. Alignment ignores scale, so the problem is
    min ‖A z − t‖² + λ s² n ‖z/s − natural‖² over z >= 0 with s = Σz free: the smallest
    residual over a cone is the largest cosine. Coordinates are relative to the natural
    mix (in a second round, to the mixture of the first), so that rows of any size count
    equally, and the target is scaled to it in every weight matrix, as alignment does. λ is
    the one of `PULLS` whose mixture, found from one half of the target, is closest to the
    other half.

    Args:
        vectors: (n, dim), > 0.
        target_vectors: (m, dim), > 0; with m = 1 the middle one of `PULLS` is taken.
        natural: (n,), shares of the pool, sum 1.
        caps: (n,), the largest share of each shard, sum >= 1.
        blocks: weight matrices; none: one of all coordinates.
        seed: of the projection that large problems go through.

    Returns:
        (n,) shares, sum 1; a cap may be passed by a hundredth.
    """
    slices = [slice(block.start, block.stop) for block in blocks] or [slice(None)]
    shares, pull = np.asarray(natural, np.float64), PULLS[len(PULLS) // 2]
    for turn in range(2):
        design, targets = _relative(vectors, target_vectors, shares @ vectors, slices)
        if len(vectors) < len(design):  # the rest of the residual is the same for all shares
            basis, design = np.linalg.qr(design)
            targets = targets @ basis
        elif design.size > MAX_COORDINATES:
            width = max(256, MAX_COORDINATES // len(vectors))
            signs = np.random.default_rng(seed).standard_normal((width, len(design)))
            design, targets = signs @ design / width**0.5, targets @ signs.T / width**0.5
        if turn == 0 and len(targets) > 1:
            pull = _choose_pull(design, targets, natural=natural, caps=caps)
        shares = _solve(
            design, targets.mean(0), natural=natural, caps=caps, pull=pull, start=shares
        )
    return shares


def _relative(
    vectors: Floats, targets: Floats, base: Floats, slices: list[slice]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return shards (dim, n) and targets (m, dim) relative to `base`, targets scaled to it."""
    base = np.where(base > 0, base, 1.0)
    relative = np.asarray(targets, np.float64) / base
    for part in slices:
        relative[:, part] /= relative[:, part].mean()
    return (vectors / base).T, relative


def _choose_pull(design: Floats, targets: Floats, *, natural: Floats, caps: Floats) -> float:
    halves = targets[::2].mean(0), targets[1::2].mean(0)
    closeness = np.zeros(len(PULLS))
    for half, other in (halves, halves[::-1]):
        shares = np.asarray(natural, np.float64)
        for place in reversed(range(len(PULLS))):  # the strongest first: each starts the next
            shares = _solve(
                design, half, natural=natural, caps=caps, pull=PULLS[place], start=shares
            )
            closeness[place] += _cosine(design @ shares, other)
    return PULLS[int(np.argmax(closeness))]


def _solve(
    design: Floats, target: Floats, *, natural: Floats, caps: Floats, pull: float, start: Floats
) -> npt.NDArray[np.float64]:
    """Return the shares with the smallest residual and pull to the natural mix."""
    mixture = design @ start
    total = float(mixture @ target / (mixture @ mixture))
    norm = float(target @ target)
    size = len(natural)

    def loss(z: Any, total: float) -> tuple[float, Any]:
        residual, away = design @ z - target, z / total - natural
        value = float(residual @ residual / norm + pull * size * (away @ away))
        return value, 2 * (design.T @ residual / norm + pull * size * away / total)

    found = _within_caps(loss, start, caps=caps, total=total)
    return found if found.any() else np.asarray(natural)


def _within_caps(
    loss: Callable[[Any, float], tuple[float, Any]], start: Floats, *, caps: Floats, total: float
) -> npt.NDArray[np.float64]:
    """Minimise over z >= 0 with z <= caps · Σz, which settles in a few rounds; return z / Σz.

    Args:
        loss: (z, Σz of the round before) → value and gradient.
        start: shares.
        caps: of the shares.
        total: Σz to start from.
    """
    from scipy.optimize import minimize  # a tenth of a second to load

    z = start * total
    for _ in range(CAP_ROUNDS):
        limits = np.maximum(caps, 0.0) * total
        found = minimize(
            loss,
            np.clip(z, 0.0, limits),
            args=(total,),
            jac=True,
            method="L-BFGS-B",
            bounds=np.stack([np.zeros(len(z)), limits], axis=1),
            options={"maxiter": MAX_STEPS, "ftol": 1e-9, "gtol": 1e-6},
        )
        z = found.x
        if z.sum() <= 0 or abs(z.sum() / total - 1) < 0.01:
            break
        total = float(z.sum())
    return np.asarray(z / z.sum()) if z.sum() > 0 else np.zeros(len(z))


def _cosine(a: Floats, b: Floats) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
