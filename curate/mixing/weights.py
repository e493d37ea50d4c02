"""How many tokens of each shard: the best ones, a draw among them, or the closest mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from curate.records import RowBlock
from curate.settings import Selection

if TYPE_CHECKING:
    from curate.records import Counts, Floats

Ints = npt.NDArray[np.int64]

PULLS = (0.0, 1e-3, 1e-2, 1e-1, 1.0)
"""Strengths of the pull to the natural mix that `match` chooses from."""

MAX_STEPS = 150
"""Of the solver, a problem."""

MAX_COORDINATES = 5_000_000
"""Numbers in the matrix that `match` solves; beyond it the coordinates are projected, which
moves a distance by about 1 / √(coordinates left): 4 % at 512."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How a budget is spread over shards, whatever room they turn out to have."""

    order: Ints | None = None  # (n,) positions: each to its end
    shares: Floats | None = None  # (n,), >= 0: in proportion; one of the two is given
    groups: Ints | None = None  # (n,) group of each shard, from 0
    floors: Mapping[int, float] = field(default_factory=dict)  # group → least share of the budget
    ceilings: Mapping[int, float] = field(default_factory=dict)  # group → largest share
    blend: tuple[tuple[int, float], ...] = ()  # (group, or -1 for all; share) in natural parts


def choose_weights(
    alignments: Floats,
    tokens: Counts,
    *,
    budget: int,
    selection: Selection = "top",
    temperature: float = 0.05,
    max_epochs: float = 1.0,
    seed: int = 0,
    vectors: Floats | None = None,
    target_vectors: Floats | None = None,
    blocks: Sequence[RowBlock] = (),
) -> Spread:
    """Return how a budget is to be spread over shards.

    - top: whole shards in order of alignment until the budget is full.
    - temperature: shares in proportion to tokens × exp(alignment / temperature).
    - match: the shares whose mixture embedding is closest to the target's (`match_shares`).

    Args:
        alignments: (n,), higher is closer; equal ones are ordered by the seed.
        tokens: (n,), >= 0.
        budget: tokens, > 0.
        selection: top, temperature or match.
        temperature: > 0, in units of alignment.
        max_epochs: > 0, times that a shard may be repeated.
        seed: of the order among equals, and of the projection of `match`.
        vectors: (n, dim), > 0, the shards' embeddings; `match` only.
        target_vectors: (m, dim), > 0, the target's sub-batches; `match` only.
        blocks: the weight matrices behind the coordinates; `match` only.

    Raises:
        ValueError: lengths differ, a number is out of its range, vectors are missing, or
            the shards hold less than the budget.

    Example:
        >>> spread = choose_weights(np.array([0.2, 0.9]), np.array([100, 60]), budget=80)
        >>> spread_tokens(spread, np.array([100, 60]), budget=80)
        array([20, 60])
    """
    alignments, tokens = np.asarray(alignments, np.float64), np.asarray(tokens, np.int64)
    room = _checked_room(alignments, tokens, budget=budget, max_epochs=max_epochs)
    if selection == "top":
        return Spread(order=best_first(alignments, seed=seed))
    if selection == "temperature":
        if not temperature > 0:
            raise ValueError(f"temperature {temperature} is not above 0")
        return Spread(shares=tokens * np.exp((alignments - alignments.max()) / temperature))
    if vectors is None or target_vectors is None:
        raise ValueError("match needs the vectors of the shards and of the target")
    shares = match_shares(
        vectors,
        target_vectors,
        natural=tokens / tokens.sum(),
        caps=room / budget,
        blocks=blocks,
        seed=seed,
    )
    return Spread(shares=shares)


def spread_tokens(spread: Spread, room: Ints, *, budget: int) -> npt.NDArray[np.int64]:
    """Return how many tokens of each shard make a mix of exactly `budget` tokens.

    First what is blended in, in proportion to the room; then the rest in order or by shares.
    A group that comes out above its ceiling or below its floor is set to it, and the others
    share what is left, until all keep theirs. What a shard cannot give goes to the others.

    Args:
        spread: how.
        room: (n,) tokens that each can give, over all epochs.
        budget: tokens, at most the sum of `room`.

    Returns:
        (n,) tokens, sum `budget`. A floor above the room of its group is met as far as it goes.

    Raises:
        ValueError: the room is less than the budget, or ceilings leave too little of it.
    """
    groups = np.zeros(len(room), np.int64) if spread.groups is None else spread.groups
    given = np.zeros(len(room), np.int64)
    for group, share in spread.blend:
        here = np.where((groups == group) | (group < 0), room - given, 0)
        part = min(round(share * budget), int(here.sum()))
        given += fill_by_share(here, here.astype(np.float64), budget=part)
    fixed: dict[int, int] = {}
    while True:
        found = given + _fill_free(
            spread, room - given, groups, fixed, budget=int(budget - given.sum())
        )
        wrong = _out_of_bounds(spread, found, room, groups, set(fixed), budget=budget)
        if not wrong:
            return found
        for group, total in wrong.items():
            fixed[group] = max(0, total - int(given[groups == group].sum()))


def _out_of_bounds(
    spread: Spread, found: Ints, room: Ints, groups: Ints, fixed: set[int], *, budget: int
) -> dict[int, int]:
    """Return the groups that miss a bound and what they should have; floors go first."""
    for bounds, sign in ((spread.floors, 1), (spread.ceilings, -1)):
        wrong = {}
        for group, share in bounds.items():
            mine = groups == group
            bound = round(share * budget)
            bound = min(bound, int(room[mine].sum())) if sign > 0 else bound
            if group not in fixed and sign * (bound - int(found[mine].sum())) > 0:
                wrong[group] = bound
        if wrong:
            return wrong
    return {}


def _fill_free(
    spread: Spread, room: Ints, groups: Ints, fixed: Mapping[int, int], *, budget: int
) -> Ints:
    """Fill the groups that are fixed to their number, and the others with the rest."""
    found = np.zeros(len(room), np.int64)
    for group, total in fixed.items():
        found += _fill(spread, np.where(groups == group, room, 0), budget=total)
    free = np.where(np.isin(groups, list(fixed)), 0, room)
    return found + _fill(spread, free, budget=budget - sum(fixed.values()))


def _fill(spread: Spread, room: Ints, *, budget: int) -> Ints:
    if budget <= 0:
        return np.zeros(len(room), np.int64)
    if spread.order is not None:
        return fill_in_order(room, spread.order, budget=budget)
    if spread.shares is None:
        raise ValueError("a spread has an order or shares")
    return fill_by_share(room, spread.shares, budget=budget)


def best_first(alignments: Floats, *, seed: int) -> npt.NDArray[np.int64]:
    """Return positions by falling alignment; the seed orders equal ones."""
    shuffled = np.random.default_rng(seed).permutation(len(alignments))
    return shuffled[np.argsort(-np.asarray(alignments)[shuffled], kind="stable")]


def fill_in_order(room: Counts, order: Counts, *, budget: int) -> npt.NDArray[np.int64]:
    """Give each position in `order` all its room until `budget` is spent.

    Raises:
        ValueError: the room is less than the budget.
    """
    if room.sum() < budget:
        raise ValueError(f"room for {int(room.sum())} tokens, budget {budget}")
    before = np.cumsum(room[order]) - room[order]
    filled = np.zeros(len(room), np.int64)
    filled[order] = np.clip(budget - before, 0, room[order])
    return filled


def fill_by_share(room: Counts, shares: Floats, *, budget: int) -> npt.NDArray[np.int64]:
    """Split `budget` by `shares`, whole tokens, none above its room.

    What a full position cannot take is split again among the others by their shares;
    positions of share zero are filled last, evenly by room.

    Args:
        room: (n,) tokens.
        shares: (n,), >= 0, any sum.
        budget: tokens, at most the sum of `room`.

    Returns:
        (n,) tokens, sum `budget`.

    Raises:
        ValueError: the room is less than the budget.
    """
    if room.sum() < budget:
        raise ValueError(f"room for {int(room.sum())} tokens, budget {budget}")
    exact = np.zeros(len(room))
    rest, full = float(budget), room <= 0
    while rest > 1e-9 and not full.all():
        pull = np.where(full, 0.0, shares)
        if pull.sum() <= 0:
            pull = np.where(full, 0.0, room)
        wanted = exact + rest * pull / pull.sum()
        exact = np.minimum(wanted, room)
        rest = float(budget - exact.sum())
        newly_full = wanted >= room
        if not (newly_full & ~full).any():
            break
        full = full | newly_full
    return _round_to_sum(exact, room, budget=budget)


def match_shares(
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
    """Return the shares; the caps, which scale with Σz, settle in a few rounds."""
    mixture = design @ start
    total = float(mixture @ target / (mixture @ mixture))
    norm = float(target @ target)
    size = len(natural)

    def loss(z: Any, total: float) -> tuple[float, Any]:
        residual, away = design @ z - target, z / total - natural
        value = float(residual @ residual / norm + pull * size * (away @ away))
        return value, 2 * (design.T @ residual / norm + pull * size * away / total)

    z = start * total
    for _ in range(3):
        limits = np.maximum(caps, 0.0) * total
        found = minimize(
            loss,
            np.clip(z, 0.0, limits),
            args=(total,),
            jac=True,
            method="L-BFGS-B",
            bounds=np.stack([np.zeros(size), limits], axis=1),
            options={"maxiter": MAX_STEPS, "ftol": 1e-9, "gtol": 1e-6},
        )
        z = found.x
        if z.sum() <= 0 or abs(z.sum() / total - 1) < 0.01:
            break
        total = float(z.sum())
    return np.asarray(z / z.sum()) if z.sum() > 0 else np.asarray(natural)


def _cosine(a: Floats, b: Floats) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _round_to_sum(exact: Floats, room: Counts, *, budget: int) -> npt.NDArray[np.int64]:
    """Round down, then give the missing tokens to the largest remainders that have room."""
    whole = np.floor(exact + 1e-9).astype(np.int64)
    while (missing := int(budget - whole.sum())) > 0:
        order = np.argsort(-(exact - whole), kind="stable")
        order = order[whole[order] < room[order]][:missing]
        whole[order] += 1
    return whole


def _checked_room(
    alignments: Floats, tokens: Counts, *, budget: int, max_epochs: float
) -> npt.NDArray[np.int64]:
    if alignments.shape != tokens.shape or alignments.ndim != 1:
        raise ValueError(f"alignments {alignments.shape} and tokens {tokens.shape} differ")
    if budget <= 0 or max_epochs <= 0 or (tokens < 0).any():
        raise ValueError("budget and max_epochs must be above 0, tokens not below")
    if not np.isfinite(alignments).all():
        raise ValueError("an alignment is not finite")
    room = np.floor(tokens * max_epochs).astype(np.int64)
    if room.sum() < budget:
        raise ValueError(f"room for {int(room.sum())} tokens, budget {budget}")
    return room
