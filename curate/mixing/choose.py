"""Which documents, how often, and where the last one is cut: arrays in, arrays out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Cut = Callable[[int, int, int], tuple[int, int]]
"""`cut(shard, place, wanted)`: the end (a character) and the tokens, at most `wanted`, of the
longest beginning of a document that can be had."""

ROUGH = 0.02
"""A shard's part is met by whole documents if that changes it by less; else one is cut."""

DRIFT = 0.01
"""The same of the budget: many small parts together are met by whole documents of some shards."""


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
