"""From shares of shards to rows: looked at, filtered, chosen; no text is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from curate.errors import UNREACHABLE, CurateError
from curate.mixing.bounds import ceilings_bind, check_rooms, short_sources
from curate.mixing.checks import epochs_for
from curate.mixing.choose import Ints, Taken, choose_by_source
from curate.mixing.drawn import Drawn, gather_drawn
from curate.mixing.filters import Looked, Wish, filter_documents
from curate.mixing.look import Look
from curate.mixing.reading import Home
from curate.mixing.survey import survey
from curate.mixing.weights import spread_tokens
from curate.records import Notify, Shard, silent

DEPTHS = tuple(2.0**-k for k in range(6, -1, -1))
"""Shares of a shard's documents that are looked at: the smallest that its part needs."""

SPARE = 1.05
"""Tokens that are looked at for each token of a part: filters take some out."""

HELD_TOKENS = 16_000_000
"""Tokens of the texts that are held to be cut, at most."""

Read = Callable[[Sequence[Home]], list[str]]
CutText = Callable[[str, int], tuple[int, int]]


def draw_rows(
    shards: Mapping[str, Shard],
    wish: Wish,
    look: Look,
    *,
    embedding: Callable[[Shard], Path | None],
    read: Read,
    cut: CutText,
    folder: Path,
    workers: int = 1,
    notify: Notify = silent,
) -> Drawn:
    """Look at as many documents as the wish needs, filter them, and choose.

    Shards are looked at in waves: the documents that the parts need, then more of those
    shards (or of the next) that lost so many to the filters that they cannot give their part.

    Args:
        shards: by name.
        wish: what is asked.
        look: how documents are looked at.
        embedding: file of the index with the tokens of a shard's documents, or None.
        read: the texts of some documents, by where they are.
        cut: `cut(text, wanted)`: where a text is cut, and its tokens then.
        folder: where facts are kept.
        workers: processes; their number changes nothing.
        notify: progress.

    Raises:
        CurateError: an unknown shard, an input that changed, or too few tokens (exit code 6).
    """
    states = [Looked(_known(name, shards), None, 0.0) for name in wish.names]
    for state in states:
        state.embedding = embedding(state.shard)
        state.size = state.shard.n_tokens / max(state.shard.n_documents, 1)
    unchecked = 0
    while True:
        parts = _split(states, wish)
        needed = {
            place: depth
            for place, (state, part) in enumerate(zip(states, parts.tolist(), strict=True))
            if (depth := _needed(state, part)) > state.depth
        }
        if not needed:
            taken = _choose(states, parts, wish, read, cut)
            if taken is not None:
                return gather_drawn(states, taken, unchecked)
            needed = _deeper(states, parts)
        if not needed:
            raise _too_few(states, wish)
        _look_deeper(states, needed, look, folder, workers, notify)
        unchecked = filter_documents(states, wish)


def _known(name: str, shards: Mapping[str, Shard]) -> Shard:
    if name not in shards:
        raise CurateError(f"shard {name}: not in the index; run curate rank again")
    return shards[name]


def _split(states: Sequence[Looked], wish: Wish) -> Ints:
    """Split the budget among the shards; what is not looked at yet counts as clean."""
    room = np.array([_room(state, wish) for state in states], np.int64)
    if room.sum() < wish.budget and all(state.complete for state in states):
        if wish.at_most:
            return room
        raise _too_few(states, wish)
    # What there is of the others is a guess, which must not refuse: it asks for a deeper look.
    most = np.where([state.complete for state in states], room, wish.budget)
    check_rooms(wish.spread, [state.shard for state in states], most, budget=wish.budget)
    room = most if room.sum() < wish.budget else room
    for _, mine, _ in short_sources(wish.spread, room, budget=wish.budget):
        room[mine] = most[mine]
    for known in (room, most):
        with suppress(ValueError):  # ceilings leave too little of what is clean
            return spread_tokens(wish.spread, known, budget=wish.budget)
    raise ceilings_bind(wish.budget)


def _room(state: Looked, wish: Wish) -> int:
    rest = 0.0 if state.complete else (state.shard.n_documents - state.depth) * state.size
    return math.floor((state.clean + rest) * wish.max_epochs)


def _needed(state: Looked, part: int) -> int:
    """Return how many documents have to be looked at so that they give `part` tokens."""
    if part <= 0 or state.complete or (state.clean >= part and state.depth):
        return 0
    total = state.shard.n_documents
    if not state.depth:
        documents = SPARE * part / max(state.size, 1e-9) + 1
    else:
        documents = state.depth * max(2.0, SPARE * part / max(state.clean, 1))
    for share in DEPTHS:
        if (depth := math.ceil(share * total)) >= documents and depth > state.depth:
            return depth
    return total


def _deeper(states: Sequence[Looked], parts: Ints) -> dict[int, int]:
    """Return shards that have documents not looked at, and how many to look at.

    Those with a part come first. They are as many as are looked at to their end, for each round
    filters all again: one shard a round would make that quadratic.
    """
    order = [
        place
        for place in np.argsort(parts <= 0, kind="stable").tolist()
        if not states[place].complete
    ]
    return {
        place: min(states[place].shard.n_documents, max(2 * states[place].depth, 64))
        for place in order[: max(1, len(states) - len(order))]
    }


def _look_deeper(
    states: Sequence[Looked],
    needed: Mapping[int, int],
    look: Look,
    folder: Path,
    workers: int,
    notify: Notify,
) -> None:
    found = survey(
        [states[place].shard for place in needed],
        list(needed.values()),
        [states[place].embedding for place in needed],
        look=look,
        folder=folder,
        workers=workers,
        notify=notify,
    )
    for (place, depth), facts in zip(needed.items(), found, strict=True):
        states[place].facts, states[place].depth = facts, depth
        if depth:
            states[place].size = max(float(facts.tokens.mean()), 1.0)


def _choose(
    states: Sequence[Looked], parts: Ints, wish: Wish, read: Read, cut: CutText
) -> list[Taken] | None:
    """Return what each shard gives, or None where it is too little."""
    taken = []
    for state in states:
        usable = np.flatnonzero(state.good)
        tokens = state.facts.tokens[usable] if state.facts is not None else usable
        room = math.floor(state.clean * (wish.max_epochs if state.complete else 1.0))
        taken.append(Taken(usable, np.cumsum(tokens), room))

    held = _read_ahead(states, taken, parts, wish, read)

    def cut_one(shard: int, place: int, wanted: int) -> tuple[int, int]:
        text = held.get((shard, place)) or read([_home(states, shard, place)])[0]
        return cut(text, wanted)

    given = choose_by_source(taken, parts, wish.spread, cut=cut_one, whole=wish.whole)
    return taken if given == parts.sum() or (wish.whole and given) else None


def _read_ahead(
    states: Sequence[Looked], taken: Sequence[Taken], parts: Ints, wish: Wish, read: Read
) -> dict[tuple[int, int], str]:
    """Return the texts that will be cut, by shard and place: all that are foreseen and fit.

    Which they are is known but for the few tokens by which a cut misses what it should give. Read
    one by one, each would cost a pass over a packed file.
    """
    wanted: dict[tuple[int, int], int] = {}

    def note(shard: int, place: int, tokens: int) -> tuple[int, int]:
        facts = states[shard].facts
        assert facts is not None
        wanted[shard, place] = int(facts.tokens[place])
        return 1, tokens

    trial = [replace(each) for each in taken]
    choose_by_source(trial, parts, wish.spread, cut=note, whole=wish.whole)
    sizes = np.cumsum([*wanted.values()])
    keys = [*wanted][: int(np.searchsorted(sizes, HELD_TOKENS, side="right"))]
    texts = read([_home(states, *key) for key in keys]) if keys else []
    return dict(zip(keys, texts, strict=True))


def _home(states: Sequence[Looked], shard: int, place: int) -> Home:
    facts = states[shard].facts
    assert facts is not None
    return states[shard].shard, int(facts.file[place]), int(facts.record[place])


def _too_few(states: Sequence[Looked], wish: Wish) -> CurateError:
    given = sum(math.floor(state.clean * wish.max_epochs) for state in states)
    if given >= wish.budget:
        return _no_end(wish)
    leaks = sum(len(state.facts.leaks) for state in states if state.facts is not None)
    copies = sum(len(state.copies_of) for state in states)
    held = sum(int(state.held.sum()) for state in states)
    aside = f", {held} are held out" if held else ""
    need = epochs_for(np.array([state.clean for state in states]), wish.budget) if given else 0.0
    passes = "epoch" if wish.max_epochs == 1 else "epochs"
    helps = {
        f"allow --max-epochs {need:g}": given,
        "keep copies with --no-dedup": copies,
        "hold out less": held,
        "index more data": True,
        f"ask for at most {given:,}": given,
    }
    *some, last = (what for what, does in helps.items() if does)
    return CurateError(
        f"budget {wish.budget:,}: the corpus gives {given:,} tokens at {wish.max_epochs:g} "
        f"{passes} ({leaks} documents hold items of the target, {copies} are copies{aside}); "
        f"{', '.join(some)}{', or ' if some else ''}{last}",
        exit_code=UNREACHABLE,
    )


def _no_end(wish: Wish) -> CurateError:
    """Return the one line for tokens that there are, in documents that do not end there."""
    why = (
        "every document is more than twice as long; ask for more, or let one be cut (without "
        "--whole-documents)"
        if wish.whole
        else "no document can be cut to exactly what is missing (a sign may be several tokens); "
        "ask for a few more or fewer, or for --whole-documents"
    )
    return CurateError(f"budget {wish.budget:,}: {why}", exit_code=UNREACHABLE)
