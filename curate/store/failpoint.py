"""Faults on purpose: die or fail at the N-th time a named event happens."""

from __future__ import annotations

import errno
import os
import signal

_counts: dict[str, int] = {}

_SIGNALS = {"kill": signal.SIGKILL, "sigint": signal.SIGINT, "sigterm": signal.SIGTERM}


def failpoint(event: str) -> None:
    """Kill or fail here if `CURATE_FAILPOINT` says so; free when it is not set.

    `CURATE_FAILPOINT=publish.after_tmp:17=kill` sends SIGKILL to this process at the
    17th `publish.after_tmp`; `sigint` and `sigterm` send those; `enospc`, `eio`, `eacces` and
    every other name of an error number raise that OSError. `publish.*` counts all events that
    begin so, `*` all there are; the number 0 only counts.
    """
    order = os.environ.get("CURATE_FAILPOINT")
    if not order:
        return
    where, _, action = order.partition("=")
    name, _, number = where.partition(":")
    if not (event.startswith(name[:-1]) if name.endswith("*") else event == name):
        return
    _counts[name] = _counts.get(name, 0) + 1
    if _counts[name] != int(number or 1):
        return
    if action in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[action])
        return
    code = getattr(errno, action.upper())
    raise OSError(code, os.strerror(code), f"failpoint {event}")


def count_events() -> dict[str, int]:
    """Return how often each name in `CURATE_FAILPOINT` was met in this process."""
    return dict(_counts)
