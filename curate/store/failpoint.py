"""Faults on purpose: die or fail at the N-th time a named event happens."""

from __future__ import annotations

import errno
import os
import signal

_counts: dict[str, int] = {}


def failpoint(event: str) -> None:
    """Kill or fail here if `CURATE_FAILPOINT` says so; free when it is not set.

    `CURATE_FAILPOINT=publish.after_tmp:17=kill` sends SIGKILL to this process at the
    17th `publish.after_tmp`; `=enospc`, `=eio` and `=eacces` raise that OSError.
    """
    order = os.environ.get("CURATE_FAILPOINT")
    if not order:
        return
    where, _, action = order.partition("=")
    name, _, number = where.partition(":")
    if name != event:
        return
    _counts[event] = _counts.get(event, 0) + 1
    if _counts[event] != int(number or 1):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    code = getattr(errno, action.upper())
    raise OSError(code, os.strerror(code), f"failpoint {event}")
