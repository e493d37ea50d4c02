"""Which of the documents that were looked at may be taken: no leak, no copy, not held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curate.corpus.words import mixed
from curate.mixing.choose import Ints
from curate.mixing.dedup import Copies, Seen, alike_groups, find_copies
from curate.mixing.facts import Facts
from curate.mixing.weights import Spread
from curate.records import Shard


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of the shards; every field decides which rows there are."""

    budget: int  # tokens, > 0
    names: tuple[str, ...]  # shards, in the order of reading
    spread: Spread  # over them
    max_epochs: float = 1.0
    seen: Seen | None = None  # None: copies stay
    priority: tuple[str, ...] = ()  # sources whose copy stays; then the order of `names`
    holdout: float = 0.0  # share of the groups of like documents that is held out
    whole: bool = False  # whether no document may be cut
    seed: int = 0
    at_most: bool = False  # whether all there is does where that is less than the budget


@dataclass(slots=True)
class Looked:
    """A shard while it is looked at deeper and deeper."""

    shard: Shard
    embedding: Path | None
    size: float  # tokens of a document, about
    depth: int = 0  # documents looked at
    facts: Facts | None = None
    good: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    held: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    copies_of: dict[int, tuple[str, str, float]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Say whether all its documents have been looked at."""
        return self.depth >= self.shard.n_documents

    @property
    def clean(self) -> int:
        """Tokens that may be taken of what has been looked at."""
        return int(self.facts.tokens[self.good].sum()) if self.facts is not None else 0


def filter_documents(states: Sequence[Looked], wish: Wish) -> int:
    """Say which documents may be taken; return how many were not held against all others."""
    known = [state for state in _by_priority(states, wish) if state.facts is not None]
    for state in known:
        assert state.facts is not None
        state.good = state.facts.tokens > 0
        state.good[list(state.facts.leaks)] = False
        state.held = np.zeros(len(state.good), np.bool_)
        state.copies_of = {}
    unchecked = 0
    if wish.seen is not None and known:
        clean = [np.flatnonzero(state.good) for state in known]
        copies = find_copies(*_sketches(known, clean), seen=wish.seen)
        _mark_copies(known, clean, copies)
        if wish.seen.limit:
            unchecked = max(0, sum(map(len, clean)) - wish.seen.limit)
    if wish.holdout > 0 and known:
        clean = [np.flatnonzero(state.good) for state in known]
        _hold_out(known, clean, wish)
    return unchecked


def _by_priority(states: Sequence[Looked], wish: Wish) -> list[Looked]:
    rank = {source: place for place, source in enumerate(wish.priority)}
    return sorted(states, key=lambda state: rank.get(state.shard.source, len(rank)))


def _sketches(
    states: Sequence[Looked], clean: Sequence[Ints]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint16], Ints]:
    facts = [(state.facts, places) for state, places in zip(states, clean, strict=True)]
    return (
        np.concatenate([each.value[places] for each, places in facts if each]),
        np.concatenate([each.signature[places] for each, places in facts if each]),
        np.concatenate([each.shingles[places] for each, places in facts if each]),
    )


def _mark_copies(states: Sequence[Looked], clean: Sequence[Ints], copies: Copies) -> None:
    owner = np.repeat(np.arange(len(states)), [len(places) for places in clean])
    place = np.concatenate(list(clean))
    for text in np.flatnonzero(copies.kept != np.arange(len(copies.kept))).tolist():
        kept = int(copies.kept[text])
        state, other = states[owner[text]], states[owner[kept]]
        state.good[place[text]] = False
        kind = "exact" if copies.exact[text] else "near"
        name = _name(other, int(place[kept]))
        state.copies_of[int(place[text])] = (kind, name, float(copies.overlap[text]))


def _hold_out(states: Sequence[Looked], clean: Sequence[Ints], wish: Wish) -> None:
    """Set groups of like documents aside; the smallest number in a group decides."""
    values, signatures, shingles = _sketches(states, clean)
    groups = alike_groups(values, signatures, shingles)
    smallest = np.full(int(groups.max(initial=-1)) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, groups, values)
    shift = np.uint64(wish.seed * 0x9E3779B97F4A7C15 % 2**64)  # numpy warns of what it cuts off
    drawn = mixed(smallest + shift) / 2.0**64
    aside = (drawn < wish.holdout)[groups]
    start = 0
    for state, places in zip(states, clean, strict=True):
        mine = aside[start : start + len(places)]
        state.held[places[mine]] = True
        state.good[places[mine]] = False
        start += len(places)


def _name(state: Looked, place: int) -> str:
    facts = state.facts
    assert facts is not None
    digest, record = facts.home_of(place, state.shard)
    return f"{state.shard.source}:{digest[:8]}:{record}"
