"""One writer a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from curate.errors import LOCKED, CurateError
from curate.records import Notify, silent
from curate.store.leftovers import temporary_name
from curate.store.owner import Owner, is_gone, this_owner
from curate.store.publish import make_folder

BEAT_SECONDS = 10.0
"""Between two signs of life of a lock on a file system that has no locks of its own."""

SILENT_SECONDS = 60.0
"""Without such a sign, the owner on another machine is taken for dead."""

SIGN_TRIES = 20

_NO_FLOCK = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def locked(folder: Path, *, notify: Notify = silent) -> Iterator[None]:
    """Hold `folder` for this process; who dies lets go.

    The kernel's lock on `.lock` decides, and the file says who holds it. Where the file system
    has no such locks, the file `.lock.owner` is created by whoever comes first, and is taken
    over when its process is gone or, on another machine, has not touched it for a minute.

    Args:
        folder: is made where it is not there.
        notify: told when the run that held the folder before was killed.

    Raises:
        CurateError: a live run holds it (exit code 5), or the file system refused.
    """
    try:
        make_folder(folder)
        stream = (folder / ".lock").open("a+b")
    except OSError as error:
        raise CurateError(
            f"{folder}: cannot be locked: {error.strerror or error}; make it writable, or name "
            "another folder"
        ) from error
    with stream:
        if _flocked(stream, folder):
            stream.seek(0)
            before = _read_owner(stream.read())
            _sign(stream, this_owner())
            if before is not None:
                notify(_told(folder, before), 0, 0)
            try:
                yield
            finally:
                _sign(stream, None)
        else:
            with _own_file(folder / ".lock.owner", notify):
                yield


def _flocked(stream: IO[bytes], folder: Path) -> bool:
    """Take the kernel's lock; False where the file system has none.

    Who has just taken it signs in a moment, and who is done wipes the sign before letting go.
    """
    for _ in range(SIGN_TRIES):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            if owner := _read_owner(stream.read()):
                raise _in_use(folder, owner) from None
            time.sleep(0.05)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise CurateError(f"{folder}: cannot be locked: {error.strerror}") from error
            return False
        else:
            return True
    raise _in_use(folder, None)


def _sign(stream: IO[bytes], owner: Owner | None) -> None:
    """Write who holds the lock, or nobody; what is written there only informs."""
    with suppress(OSError):
        stream.truncate(0)
        stream.write(msgspec.json.encode(owner) if owner else b"")
        stream.flush()


@contextmanager
def _own_file(path: Path, notify: Notify) -> Iterator[None]:
    """Hold a folder by a file that exists, with a heartbeat."""
    here = this_owner()
    if not _create(path, here):
        before = _take_over(path)
        if not _create(path, here):  # another came first
            raise _in_use(path.parent, None)
        if before is not None:
            notify(_told(path.parent, before), 0, 0)
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        with suppress(OSError):  # a process that slept may have been taken for dead
            if _read_owner(path.read_bytes()) == here:
                path.unlink()


def _create(path: Path, owner: Owner) -> bool:
    """Create the lock; False where it is there."""
    try:
        stream = path.open("xb", buffering=0)
    except FileExistsError:
        return False
    except OSError as error:
        raise CurateError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with stream:
            stream.write(msgspec.json.encode(owner))
    except OSError as error:
        with suppress(OSError):  # naming nobody it would keep the next run out for a minute
            path.unlink()
        raise CurateError(f"{path}: cannot be written: {error.strerror}") from error
    return True


def _take_over(path: Path) -> Owner | None:
    """Remove the lock of an owner that is gone; return who that was, where it says so.

    Raises:
        CurateError: it is alive (exit code 5).
    """
    owner = None
    with suppress(FileNotFoundError):  # let go of, or taken over by another, meanwhile
        found = path.read_bytes()
        owner = _read_owner(found)
        gone = is_gone(owner) if owner else None
        if not (_is_silent(path) if gone is None else gone):
            raise _in_use(path.parent, owner)
        # Two that both found it stale: who renames has it; the other finds another's file.
        aside = Path(temporary_name(path, str(path.parent)))
        path.rename(aside)
        if aside.read_bytes() != found:
            aside.rename(path)
            raise _in_use(path.parent, None)
        aside.unlink()
    return owner


def _is_silent(path: Path) -> bool:
    """Say whether a lock was not touched for long, by the clock of the disk that says so.

    That of this machine may be minutes off, and then a live owner elsewhere would look dead.
    """
    beside = path.with_name(".lock")
    beside.touch()
    return beside.stat().st_mtime - path.stat().st_mtime > SILENT_SECONDS


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(path)


def _read_owner(data: bytes) -> Owner | None:
    try:
        return msgspec.json.decode(data, type=Owner)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


def _in_use(folder: Path, owner: Owner | None) -> CurateError:
    who = f"process {owner.pid} on {owner.host}" if owner else "another process"
    return CurateError(
        f"{folder}: in use by {who}; wait for it, or name another folder", exit_code=LOCKED
    )


def _told(folder: Path, before: Owner) -> str:
    return (
        f"{folder}: process {before.pid} on {before.host} held it and ended without letting go; "
        "going on where it stopped"
    )
