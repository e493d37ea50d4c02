"""Which process something belongs to, and whether that process is still there."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from curate.store.fingerprint import digest_texts


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from every other on every machine that shares the disk."""

    host: str
    boot: str  # changes when the machine starts, and from container to container
    pid: int
    started: int  # clock ticks after the machine started; 0 where the system does not say

    @property
    def mark(self) -> str:
        """Short enough for a file's name: machine, process, its start."""
        return f"{_place(self.host, self.boot)}-{self.pid}-{self.started}"


@lru_cache(maxsize=8)
def _place(host: str, boot: str) -> str:
    return digest_texts([host, boot])[:8]


def this_owner() -> Owner:
    """Return the owner that this process is."""
    return _owner(os.getpid())


def is_gone(owner: Owner) -> bool | None:
    """Say whether a process has ended; None where it cannot be seen from here.

    It is of another machine, an earlier start of this one or another container (which may all
    have one name), or of another user whom this system hides. A number that another process has
    by now does not pass for the one that had it before.
    """
    if (owner.host, owner.boot) != _machine():
        return None
    return _ended(owner.pid, owner.started)


def is_mark_gone(mark: str) -> bool | None:
    """Say the same from the mark of an owner."""
    try:
        machine, pid, started = mark.split("-")
        if machine != this_owner().mark.split("-")[0]:
            return None
        return _ended(int(pid), int(started))
    except ValueError:
        return None


def _ended(pid: int, started: int) -> bool | None:
    """Say whether the process of a number that started then has ended; None where it is hidden."""
    now = _started(pid)
    return None if now == 0 != started else now != started


@lru_cache(maxsize=1)
def _owner(pid: int) -> Owner:
    """Return the owner that this process is; a fork has another number, and asks anew."""
    host, boot = _machine()
    return Owner(host, boot, pid, max(0, _started(pid)))


@lru_cache(maxsize=1)
def _machine() -> tuple[str, str]:
    """Return the host's name, and what changes when it or its container starts anew."""
    try:
        space = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        space = ""
    boot = boot_id()
    return socket.gethostname(), f"{boot} {space}" if boot and space else ""


def boot_id() -> str:
    """Return what changes when the machine starts anew; "" where the system does not say it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> int:
    """Return when a process started; -1 where there is none, 0 where that is all that is known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *rest = stat.rpartition(")")[2].split()
        return -1 if state in "ZX" else int(rest[18])
    except (OSError, ValueError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except (OSError, OverflowError):
        return 0
    return 0
