"""Which documents, how often, and where the last one is cut: arrays in, arrays out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from curate.mixing.fill import fill_by_share
from curate.mixing.weights import Spread

Ints = npt.NDArray[np.int64]
Cut = Callable[[int, int, int], tuple[int, int]]
"""`cut(shard, place, wanted)`: the end (a character) and the tokens, at most `wanted`, of the
longest beginning of a document that can be had."""

ROUGH = 0.02
"""A shard's part is met by whole documents if that changes it by less; else one is cut."""

DRIFT = 0.01
"""The same of the budget: many small parts together are met by whole documents of some shards."""


SIGN = 16
"""Tokens that one sign may be, at most: by fewer than so many a part is missed for its sake."""

TRIED = 8
"""Documents that are tried with another one where none alone can be cut to what is missing."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a mix is made of, before any text is read: arrays (n_rows,)."""

    shard: Ints  # place in the list of shards
    place: Ints  # of the document in the shard's draw
    epoch: Ints  # from 0
    tokens: Ints
    end: Ints  # character at which the document is cut; -1 where it is whole


@dataclass(slots=True)
class Taken:
    """What one shard gives: so many documents in turn, and the beginning of the next."""

    usable: Ints  # places in the draw that may be taken
    ends: Ints  # tokens of each of them and all before it
    room: int  # tokens that it may give over all epochs
    whole: int = 0  # documents taken, counted through all epochs
    part: int = 0  # tokens of the next one that are taken
    end: int = -1  # the character where it is cut

    @property
    def total(self) -> int:
        """Tokens of one epoch."""
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def given(self) -> int:
        """Tokens taken."""
        epochs, rest = divmod(self.whole, max(len(self.ends), 1))
        return epochs * self.total + (int(self.ends[rest - 1]) if rest else 0) + self.part

    @property
    def next_tokens(self) -> int:
        """Tokens of the document whose turn it is, 0 where the shard has none."""
        if not len(self.ends):
            return 0
        place = self.whole % len(self.ends)
        return int(self.ends[place] - (self.ends[place - 1] if place else 0))


def choose_rows(
    shards: Sequence[Taken], parts: Ints, *, budget: int, cut: Cut, whole: bool = False
) -> int:
    """Take documents of each shard for its part, and exactly `budget` tokens in all.

    A part is met by whole documents where the nearest number of them misses it by less than
    `ROUGH` of it or `DRIFT` of the budget, and what is missed is added to the next shard's part;
    else one document is cut. So of a hundred shards that give a third of a document each, some
    thirty give a whole one. At last a document is cut where the budget ends. The order of the
    shards decides who gives what is missing.

    Args:
        shards: nothing taken yet; they are changed.
        parts: (n_shards,) tokens, sum `budget`, each at most the shard's room.
        budget: tokens, > 0.
        cut: cuts one document.
        whole: cut none; the budget is met as nearly as whole documents can.

    Returns:
        The tokens taken: `budget`, unless `whole`, or where no shard has more.
    """
    carried, left, drift = 0, budget, math.floor(DRIFT * budget)
    for place, (shard, part) in enumerate(zip(shards, parts.tolist(), strict=True)):
        if part > 0:
            wanted = min(part + carried, shard.room)
            rough = wanted if whole else max(ROUGH * wanted, drift)
            _take(shard, wanted, left=left, rough=rough)
            missing = wanted - shard.given
            if not whole and missing > rough:
                _cut_next(shard, place, missing, cut)
            carried += part - shard.given
            left -= shard.given
    if whole:
        _nearest(shards, parts, budget)
    else:
        _fill(shards, parts, budget, cut)
    return _given(shards)


def choose_by_source(
    shards: Sequence[Taken], parts: Ints, spread: Spread, *, cut: Cut, whole: bool = False
) -> int:
    """Choose as `choose_rows`; sources that have rules give each its part.

    Where a sign is several tokens a source may have no documents that can be cut to its part: then
    it gives a few tokens more, or fewer where its rule is a ceiling. The sources without a rule
    come last, together, and make up for that; without documents cut, for all that is missed.

    Args:
        shards: nothing taken yet; they are changed.
        parts: as for `choose_rows`.
        spread: its groups and their rules.
        cut: as for `choose_rows`.
        whole: as for `choose_rows`.

    Returns:
        The tokens taken.
    """
    groups, given, rest = _ruled(spread, len(shards)), 0, int(parts.sum())
    for group in np.unique(groups)[::-1].tolist():
        mine = np.flatnonzero(groups == group)
        here, wanted = [shards[place] for place in mine.tolist()], parts[mine]

        def cut_here(number: int, place: int, tokens: int, mine: Ints = mine) -> tuple[int, int]:
            return cut(int(mine[number]), place, tokens)

        if group < 0:
            wanted = _refilled(here, wanted, rest)
            given += choose_rows(here, wanted, budget=int(wanted.sum()), cut=cut_here, whole=whole)
        else:
            step = -1 if group in spread.ceilings and group not in spread.floors else 1
            offs = [0] if whole else [step * off for off in range(SIGN)]
            mine_given = _choose_near(here, wanted, offs, cut=cut_here, whole=whole)
            near = whole or mine_given - int(wanted.sum()) in offs
            rest -= mine_given if near else int(wanted.sum())  # a source may not have been read yet
            given += mine_given
    return given


def _choose_near(
    shards: Sequence[Taken], parts: Ints, offs: Sequence[int], *, cut: Cut, whole: bool
) -> int:
    """Choose the first budget, off by so much from that of the parts, that can be met."""
    budget, first = int(parts.sum()), [replace(shard) for shard in shards]
    for off in offs if budget else [0]:
        wanted = _refilled(shards, parts, budget + off)
        trial = [replace(shard) for shard in first]
        given = choose_rows(trial, wanted, budget=int(wanted.sum()), cut=cut, whole=whole)
        if off == 0 or given == budget + off:
            for shard, tried in zip(shards, trial, strict=True):
                shard.whole, shard.part, shard.end = tried.whole, tried.part, tried.end
        if given == budget + off:
            return given
    return _given(shards)


def _refilled(shards: Sequence[Taken], parts: Ints, budget: int) -> Ints:
    """Return the parts, or, where they do not sum to the budget, parts like them that do."""
    if budget == parts.sum():
        return parts
    room = np.array([shard.room for shard in shards])
    budget = max(0, min(budget, int(room.sum())))
    return fill_by_share(room, parts.astype(np.float64), budget=budget)


def _ruled(spread: Spread, n: int) -> Ints:
    """Return the group of each shard (n,) whose source has a rule, -1 of the others."""
    ruled = {*spread.floors, *spread.ceilings, *(group for group, _ in spread.blend)}
    if spread.groups is None:
        return np.full(n, -1)
    return np.where(np.isin(spread.groups, list(ruled)), spread.groups, -1)


def gather_rows(shards: Sequence[Taken]) -> Rows:
    """Return the rows that the shards give, shard by shard, in the order of the draw."""
    columns: list[list[Ints]] = [[] for _ in range(5)]
    for place, shard in enumerate(shards):
        count = shard.whole + (shard.part > 0)
        if not count:
            continue
        turns = np.arange(count)
        which = turns % len(shard.usable)
        tokens, ends = np.diff(shard.ends, prepend=0)[which], np.full(count, -1)
        if shard.part:
            tokens[-1], ends[-1] = shard.part, shard.end
        found = (np.full(count, place), shard.usable[which], turns // len(shard.usable))
        for column, values in zip(columns, (*found, tokens, ends), strict=True):
            column.append(np.asarray(values, np.int64))
    empty = np.zeros(0, np.int64)
    return Rows(*(np.concatenate(column) if column else empty for column in columns))


def _given(shards: Sequence[Taken]) -> int:
    return sum(shard.given for shard in shards)


def _take(shard: Taken, wanted: int, *, left: int, rough: float) -> None:
    """Take whole documents up to `wanted`; one more where that is nearer, `rough` off at most."""
    if not shard.total or wanted <= 0:
        return
    epochs, rest = divmod(wanted, shard.total)
    count = int(np.searchsorted(shard.ends, rest, side="right"))
    shard.whole = epochs * len(shard.ends) + count
    missing = wanted - shard.given
    over = shard.next_tokens - missing
    fits = shard.given + shard.next_tokens <= min(shard.room, left)
    if missing and over < missing and over <= rough and fits:
        shard.whole += 1


def _cut_next(shard: Taken, place: int, wanted: int, cut: Cut) -> None:
    """Take `wanted` tokens of the next document, or all of it where that is not more."""
    wanted = min(wanted, shard.room - shard.given)
    if wanted >= shard.next_tokens:
        shard.whole, shard.part, shard.end = shard.whole + 1, 0, -1
    elif wanted > 0:
        document = int(shard.usable[shard.whole % len(shard.usable)])
        shard.end, shard.part = cut(place, document, wanted)


def _fill(shards: Sequence[Taken], parts: Ints, budget: int, cut: Cut) -> None:
    """Take what is missing to the budget: shards that have a part first, in their order."""
    order = np.argsort(parts <= 0, kind="stable").tolist()
    missing = budget - _given(shards)
    for place in order:
        shard = shards[place]
        while missing > 0 and shard.given < shard.room:
            before = (shard.whole, shard.part, shard.end)
            given, shard.part = shard.given, 0
            _cut_next(shard, place, before[1] + missing, cut)
            if shard.given <= given:  # merges make steps: no more of this document
                shard.whole, shard.part, shard.end = before
                break
            missing -= shard.given - given
        if missing <= 0:
            return
    if 0 < missing < SIGN:
        _cut_two(shards, order, missing, cut)


def _cut_two(shards: Sequence[Taken], order: Sequence[int], missing: int, cut: Cut) -> None:
    """Take what no document has an end for of two: one is cut earlier, another gives the rest.

    Where signs are of three tokens, say, a text of them can be cut to every third number; spaces
    and stops are fewer, so that ends a little before are of other numbers.
    """
    others = [place for place in order if shards[place].next_tokens][:TRIED]
    for one in [place for place in others if shards[place].part]:
        shard = shards[one]
        document = int(shard.usable[shard.whole % len(shard.usable)])
        before = shard.part, shard.end
        for back in range(1, min(2 * SIGN, before[0])):
            shard.end, shard.part = cut(one, document, before[0] - back)
            more = missing + before[0] - shard.part
            if shard.part and any(
                _gives(shards[other], other, more, cut) for other in others if other != one
            ):
                return
        shard.part, shard.end = before


def _gives(shard: Taken, place: int, more: int, cut: Cut) -> bool:
    """Take so many tokens more of a shard's next document, if it can be cut to just them."""
    before, given = (shard.part, shard.end), shard.given
    wanted = before[0] + more
    if wanted > shard.next_tokens or more > shard.room - given:
        return False
    shard.part = 0
    whole = shard.whole
    _cut_next(shard, place, wanted, cut)
    if shard.given == given + more:
        return True
    shard.whole, shard.part, shard.end = whole, *before
    return False


def _nearest(shards: Sequence[Taken], parts: Ints, budget: int) -> None:
    """Add whole documents while that brings the sum nearer to the budget.

    What is then missing shards give beyond their room, each to the boundary nearest to it: where
    epochs are no whole number, no boundary need lie in it, and a shard would be passed once.
    """
    order = np.argsort(parts <= 0, kind="stable").tolist()
    missing = budget - _given(shards)
    for beyond in (False, True):
        for place in order:
            shard = shards[place]
            while shard.next_tokens and abs(missing - shard.next_tokens) < abs(missing):
                left = shard.room - shard.given
                if shard.next_tokens > left and not (beyond and shard.next_tokens < 2 * left):
                    break
                missing -= shard.next_tokens
                shard.whole += 1
