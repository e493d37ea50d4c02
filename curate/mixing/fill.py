"""Whole tokens into the room that shards have: in an order, by shares, without crumbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from curate.records import Counts, Floats

CRUMBS = 0.001
"""Share of a budget that the smallest parts of a mix must reach together to be taken at all."""


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
    return _round_to_sum(share_out(room, shares, total=budget), room, budget=budget)


def share_out(room: Counts | Floats, shares: Floats, *, total: float) -> npt.NDArray[np.float64]:
    """Split `total` by `shares` as `fill_by_share`, not in whole numbers: (n,).

    Of all that keep to their room it is the split of least relative entropy to the shares.
    """
    exact, full = np.zeros(len(room)), room <= 0
    while not full.all():
        pull = np.where(full, 0.0, shares)
        if pull.sum() <= 0:
            pull = np.where(full, 0.0, room)
        wanted = exact + (total - exact.sum()) * pull / pull.sum()
        exact = np.minimum(wanted, room)
        now_full = full | (wanted >= room)
        if (now_full == full).all():
            break  # all that was left found room
        full = now_full
    return np.asarray(exact)


def _round_to_sum(exact: Floats, room: Counts, *, budget: int) -> npt.NDArray[np.int64]:
    """Round down, then give the missing tokens to the largest remainders that have room."""
    whole = np.floor(exact + 1e-9).astype(np.int64)
    while (missing := int(budget - whole.sum())) > 0:
        order = np.argsort(-(exact - whole), kind="stable")
        order = order[whole[order] < room[order]][:missing]
        whole[order] += 1
    return whole


def smallest_parts(parts: Counts, *, budget: int) -> npt.NDArray[np.bool_]:
    """Say which parts are so small that all of them together are less than `CRUMBS` of a budget.

    A soft choice gives every shard something: of the last ones a few tokens, the beginning of
    one document. They would say nothing of their shard, and stand in every table.
    """
    order = np.argsort(parts, kind="stable")
    small = np.zeros(len(parts), np.bool_)
    small[order] = np.cumsum(parts[order]) < CRUMBS * budget
    return small
