"""How many tokens of each shard: the best ones, a draw among them, or the closest mixture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from curate.mixing.fill import fill_by_share, fill_in_order, smallest_parts
from curate.settings import Method, Selection

if TYPE_CHECKING:
    from curate.records import Counts, Floats

Ints = npt.NDArray[np.int64]

ARITHMETIC = 17
"""State of the arithmetic that makes a mix; a part of every mix's fingerprint.

Raise it with any change by which the same index, ranking, target, settings and budget would give
other tokens of a shard, other documents, another order of rows or another alignment (here, in
`plan.py`, `fill.py`, `bounds.py`, `stock.py`, `mixture.py`, `sums.py`, `expected.py`,
`foresight.py`, `likelihood.py`, `descent.py`, `matching.py`, `choose.py`, `decontaminate.py`,
`dedup.py`, `draw.py`, `shuffle.py`): a mix that an earlier state made is then made again, not read
back.
"""

STEPS = 14
"""Temperatures that are tried, each 1 / √2 of the one before: the lowest is 1 / 128 of the reach
of the alignments."""

GIVEN_UP = 0.02
"""Share of the largest drop that is given up for a softer mix."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How a budget is spread over shards, whatever room they turn out to have."""

    order: Ints | None = None  # (n,) positions: each to its end
    shares: Floats | None = None  # (n,), >= 0: in proportion; one of the two is given
    groups: Ints | None = None  # (n,) group of each shard, from 0
    floors: Mapping[int, float] = field(default_factory=dict)  # group → least share of the budget
    ceilings: Mapping[int, float] = field(default_factory=dict)  # group → largest share
    blend: tuple[tuple[int, float], ...] = ()  # (group, or -1 for all; share) in natural parts
    natural: Ints | None = None  # (n,) tokens that those parts are in proportion to; None: the room


def settle_selection(selection: Selection, method: Method) -> Selection:
    """Return what `auto` means after a ranking by such a method.

    What trained the best models in `benchmarks/selection.py`: after token pairs, words and
    Task2Vec the mixture that is closest to the target; after importance of n-grams and a
    classifier, of whose values no mixture's is known, a soft choice. Of others the best, whole:
    nothing else was measured.

    Args:
        selection: as set.
        method: that ranked.
    """
    if selection != "auto":
        return selection
    if method in ("ngram", "classifier"):
        return "temperature"
    return "match" if method in ("ngram-lm", "lexical", "task2vec") else "top"


def choose_weights(
    alignments: Floats,
    tokens: Counts,
    *,
    budget: int,
    selection: Selection = "top",
    temperature: float = 0.05,
    max_epochs: float = 1.0,
    seed: int = 0,
    matched: Floats | None = None,
) -> Spread:
    """Return how a budget is to be spread over shards.

    - temperature: shares in proportion to tokens × exp(alignment / temperature).
    - match: shares that were found by `curate.mixing.matching`.
    - top: whole shards in order of alignment until the budget is full.

    Args:
        alignments: (n,), higher is closer; equal ones are ordered by the seed.
        tokens: (n,), >= 0.
        budget: tokens, > 0.
        selection: temperature, match or top.
        temperature: > 0, in units of alignment.
        max_epochs: > 0, times that a shard may be repeated.
        seed: of the order among equals.
        matched: (n,) shares, >= 0; `match` only.

    Raises:
        ValueError: lengths differ, a number is out of its range, shares are missing, `auto`
            was not settled, or the shards hold less than the budget.

    Example:
        >>> spread = choose_weights(np.array([0.2, 0.9]), np.array([100, 60]), budget=80)
        >>> spread_tokens(spread, np.array([100, 60]), budget=80)
        array([20, 60])
    """
    alignments, tokens = np.asarray(alignments, np.float64), np.asarray(tokens, np.int64)
    _check_room(alignments, tokens, budget=budget, max_epochs=max_epochs)
    if selection == "top":
        return Spread(order=best_first(alignments, seed=seed))
    if selection == "temperature":
        if not temperature > 0:
            raise ValueError(f"temperature {temperature} is not above 0")
        return Spread(shares=tokens * np.exp((alignments - alignments.max()) / temperature))
    if selection == "auto":
        raise ValueError("auto has to be settled first")
    if matched is None:
        raise ValueError("match needs the shares that were matched")
    return Spread(shares=matched)


def temperatures(alignments: Floats) -> list[float]:
    """Return temperatures to choose from, falling: of a mix of nearly all to one of the best."""
    reach = float(np.ptp(alignments)) or 1.0
    return [reach * 2.0 ** (-step / 2) for step in range(1, STEPS + 1)]


def softest(drops: Sequence[float]) -> int:
    """Return the place of the first drop that is nearly the largest.

    A softer mix takes more of everything and costs other text less, so it is taken where it gives
    up no more than `GIVEN_UP` of what a sharper one would gain; where none gains, the first.

    Args:
        drops: forecasts of mixes, the softest first.

    Example:
        >>> softest([0.1, 0.495, 0.5, 0.3]), softest([-0.3, -0.2])
        (1, 0)
    """
    enough = (1 - GIVEN_UP) * max(0.0, *drops)
    return next((place for place, drop in enumerate(drops) if drop >= enough), 0)


def spread_tokens(spread: Spread, room: Ints, *, budget: int) -> npt.NDArray[np.int64]:
    """Return how many tokens of each shard make a mix of exactly `budget` tokens.

    First what is blended in, in natural proportions; then the rest in order or by shares.
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
    given = blend_tokens(spread, room, budget=budget)
    fixed: dict[int, int] = {}
    while True:
        found = given + _fill_free(
            spread, room - given, groups, fixed, budget=int(budget - given.sum())
        )
        wrong = _out_of_bounds(spread, found, given, room, groups, set(fixed), budget=budget)
        if not wrong:
            return found
        for group, total in wrong.items():
            fixed[group] = max(0, total - int(given[groups == group].sum()))


def blend_tokens(spread: Spread, room: Ints, *, budget: int) -> npt.NDArray[np.int64]:
    """Return the tokens of each shard (n,) that are blended in, in natural proportions.

    Those are the shards' own, not those of the room: while a mix is drawn, the room of a shard of
    which few documents were looked at is a guess.
    """
    natural = room if spread.natural is None else spread.natural
    given = np.zeros(len(room), np.int64)
    for group, share in spread.blend:
        everywhere = spread.groups is None or group < 0
        here = np.where(everywhere | (spread.groups == group), room - given, 0)
        part = min(tokens_of(share, budget), int(here.sum()))
        given += fill_by_share(here, np.where(here > 0, natural, 0.0), budget=part)
    return given


def tokens_of(share: float, budget: int, *, most: bool = False) -> int:
    """Return the whole tokens of a share: so many at least, or `most`.

    Floors are rounded down and ceilings up, so that floors of 50 % and 50 % of an odd budget
    do not ask for more than there is, and ceilings leave no less.
    """
    exact = round(share * budget, 3)  # 0.29 · 100 is 28.999999999999996
    return math.ceil(exact) if most else math.floor(exact)


def _out_of_bounds(
    spread: Spread, found: Ints, given: Ints, room: Ints, groups: Ints, fixed: set[int], *,
    budget: int,
) -> dict[int, int]:  # fmt: skip
    """Return the groups to set to a bound, and to which: of the side that is missed by more.

    Where floors ask for more than ceilings free, the others are left with less, so that no group
    below its floor would come out above it; and the other way round. Floors first, whatever
    ceilings free, would leave nobody to take it. So CSS resolves flexible lengths (flexbox, 9.7).
    """
    short: dict[int, int] = {}
    over: dict[int, int] = {}
    missing = 0
    for bounds, wrong, sign in ((spread.floors, short, 1), (spread.ceilings, over, -1)):
        for group in sorted(bounds.keys() - fixed):
            mine = groups == group
            bound = tokens_of(bounds[group], budget, most=sign < 0)
            # no floor above what there is, no ceiling below what is blended in
            bound = min(bound, room[mine].sum()) if sign > 0 else max(bound, given[mine].sum())
            if sign * (apart := int(bound - found[mine].sum())) > 0:
                wrong[group] = int(bound)
                missing += apart
    return {**(short if missing >= 0 else {}), **(over if missing <= 0 else {})}


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
    found = fill_by_share(room, spread.shares, budget=budget)
    kept = np.where(smallest_parts(found, budget=budget), 0, room)
    return found if kept.sum() < budget else fill_by_share(kept, spread.shares, budget=budget)


def best_first(alignments: Floats, *, seed: int) -> npt.NDArray[np.int64]:
    """Return positions by falling alignment; the seed orders equal ones."""
    shuffled = np.random.default_rng(seed).permutation(len(alignments))
    return shuffled[np.argsort(-np.asarray(alignments)[shuffled], kind="stable")]


def _check_room(alignments: Floats, tokens: Counts, *, budget: int, max_epochs: float) -> None:
    if alignments.shape != tokens.shape or alignments.ndim != 1:
        raise ValueError(f"alignments {alignments.shape} and tokens {tokens.shape} differ")
    if budget <= 0 or max_epochs <= 0 or (tokens < 0).any():
        raise ValueError("budget and max_epochs must be above 0, tokens not below")
    if not np.isfinite(alignments).all():
        raise ValueError("an alignment is not finite")
    room = int(np.floor(tokens * max_epochs).sum())
    if room < budget:
        raise ValueError(f"room for {room} tokens, budget {budget}")
