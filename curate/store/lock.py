"""One writer a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.errors import LOCKED, CurateError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the kernel lets go when the process dies.

    Raises:
        CurateError: a live run holds it (exit code 5).
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            owner = stream.read().strip() or "another process"
            raise CurateError(
                f"{folder}: in use by {owner}; wait for it, or name another folder",
                exit_code=LOCKED,
            ) from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()}")
        stream.flush()
        yield
