"""How far runs are, wherever they go on: each writes it beside its result, one thread reads it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from curate.corpus.afar import SEND_S, follow
from curate.errors import CurateError
from curate.records import Run, RunState, Watch, unwatched
from curate.store.publish import read_json_if_whole
from curate.verification.runs import RunItem

STATE = ".state"

EVERY_S = 1.0
"""Between two looks, and between two writings of a run."""


def state_path(item: RunItem) -> Path:
    """Return where a run writes how far it is, while it goes on."""
    return item.path.with_suffix(STATE)


def write_state(item: RunItem, *, tokens: int, loss: float) -> None:
    """Write how far a run is; nothing is lost with it, so it may be torn by a kill."""
    state = RunState(item.arm, item.settings.seed, tokens, item.settings.tokens, loss)
    with suppress(OSError):  # a disk that refuses is said by what matters
        state_path(item).write_bytes(msgspec.json.encode(state))


@contextmanager
def watched(items: Sequence[RunItem], watch: Watch) -> Iterator[None]:
    """Tell `watch` how far the runs are, now and then until the block ends, and at its end.

    Args:
        items: all runs of a step, those that have ended among them.
        watch: called from a thread of its own, and from this one.
    """
    if watch is unwatched:
        yield
        return
    ended: dict[Path, RunState] = {}
    seen: dict[str, str] = {}
    stop, afar = threading.Event(), next((item for item in items if item.store), None)

    def look() -> None:
        watch([state_of(item, ended) for item in items])

    def keep_looking() -> None:
        while not stop.wait(SEND_S if afar else EVERY_S):
            with suppress(CurateError):  # a store that fails now is said by what is fetched
                if afar:
                    follow(afar.store, afar.path.parent.parent, STATE, seen)
            look()

    look()
    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look()


def state_of(item: RunItem, ended: dict[Path, RunState]) -> RunState:
    """Return how far a run is; what has ended is read once, and kept in `ended`."""
    if item.path in ended:
        return ended[item.path]
    arm, seed, of = item.arm, item.settings.seed, item.settings.tokens
    if (run := read_json_if_whole(item.path, Run)) is not None:
        ended[item.path] = RunState(arm, seed, of, of, run.loss, ended=True)
        return ended[item.path]
    with suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
        return msgspec.json.decode(state_path(item).read_bytes(), type=RunState)
    return RunState(arm, seed, 0, of, float("nan"))
