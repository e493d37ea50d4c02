"""What was drawn: the rows of a mix, and the documents that the filters took out on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.mixing.choose import Ints, Rows, Taken, gather_rows
from curate.mixing.facts import Facts
from curate.mixing.filters import Looked
from curate.records import Shard


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document that a filter took out, and why."""

    shard: str
    source: str
    id: str
    file_digest: str
    record: int
    reason: str  # leak, exact, near
    of: str  # the item of the target, or the document that stays
    words: str = ""  # that document and item share
    n_words: int = 0
    overlap: float = 0.0  # of shingles, for duplicates
    kind: str = ""  # of a leak: run, whole, edited or paraphrase
    place: str = ""  # of a paraphrase: the words of the document
    cosine: float = 0.0  # of a paraphrase with the item


@dataclass(frozen=True, slots=True)
class Drawn:
    """The rows of a mix, and what was found on the way."""

    shards: tuple[Shard, ...]  # those looked at, in the order of reading
    facts: tuple[Facts, ...]  # of each
    rows: Rows
    held: Rows  # the held-out slice
    dropped: tuple[Dropped, ...]
    unchecked: int  # documents not held against all others because of a limit


def gather_drawn(states: Sequence[Looked], taken: Sequence[Taken], unchecked: int) -> Drawn:
    """Return what shards give: their rows, and what the filters took out as far as was drawn.

    Args:
        states: all shards that might have given something.
        taken: what each gives.
        unchecked: documents not held against all others.
    """
    looked = [number for number, state in enumerate(states) if state.facts is not None]
    shards = [states[number] for number in looked]
    took = [taken[number] for number in looked]
    dropped: list[Dropped] = []
    held: list[tuple[int, Ints]] = []
    for number, (state, each) in enumerate(zip(shards, took, strict=True)):
        reached = _reached(state, each)
        dropped += _dropped(state, reached)
        held.append((number, np.flatnonzero(state.held[:reached])))
    return Drawn(
        shards=tuple(state.shard for state in shards),
        facts=tuple(state.facts for state in shards if state.facts is not None),
        rows=gather_rows(took),
        held=_held_rows(shards, held),
        dropped=tuple(dropped),
        unchecked=unchecked,
    )


def _reached(state: Looked, taken: Taken) -> int:
    """Return how far in the draw documents were taken or passed over."""
    count = taken.whole + (taken.part > 0)
    if count >= len(taken.usable):
        return state.depth if count or not len(taken.usable) else 0
    return int(taken.usable[count - 1]) + 1 if count else 0


def _dropped(state: Looked, reached: int) -> list[Dropped]:
    facts = state.facts
    assert facts is not None
    found = []
    for place in sorted({*facts.leaks, *state.copies_of}):
        if place >= reached:
            continue
        what = (
            state.shard.name,
            state.shard.source,
            facts.id_of(place),
            *facts.home_of(place, state.shard),
        )
        if place in facts.leaks:
            leak = facts.leaks[place]
            found.append(
                Dropped(
                    *what, "leak", leak.item, leak.words, leak.n_words,
                    kind=leak.kind, place=leak.place, cosine=leak.cosine,
                )
            )  # fmt: skip
        else:
            kind, kept, overlap = state.copies_of[place]
            found.append(Dropped(*what, kind, kept, overlap=overlap))
    return found


def _held_rows(states: Sequence[Looked], held: Sequence[tuple[int, Ints]]) -> Rows:
    empty = np.zeros(0, np.int64)
    tokens = [
        state.facts.tokens[places]
        for state, (_, places) in zip(states, held, strict=True)
        if state.facts is not None
    ]
    shard = np.concatenate([empty, *(np.full(len(places), number) for number, places in held)])
    zeros = np.zeros_like(shard)
    return Rows(
        shard=shard,
        place=np.concatenate([empty, *(places for _, places in held)]),
        epoch=zeros,
        tokens=np.concatenate([empty, *tokens]),
        end=zeros - 1,
    )
