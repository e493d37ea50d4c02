"""Temporary files say in their name whose they are, so that those of the dead can go."""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

from curate.store.owner import is_mark_gone, this_owner

FORGOTTEN_SECONDS = 3_600.0
"""After which a temporary file of another machine is taken for left behind."""

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<owner>[0-9a-f]{8}-\d+-\d+)\.[0-9a-f]{8}\.tmp")


def temporary_name(path: Path, folder: str) -> str:
    """Return a new name beside `path`, which lies in `folder`, for what is to take its place."""
    return f"{folder}/.{path.name}.{this_owner().mark}.{secrets.token_hex(4)}.tmp"


def sweep(folder: Path, *, held: bool = True) -> int:
    """Remove temporary files that killed runs left below `folder`; return how many.

    Args:
        folder: searched to its depth.
        held: this process holds its lock, so that every temporary file in it is left over;
            else those go whose process is gone.
    """
    count = 0
    for here, _, names in os.walk(folder):
        for name in names:
            if not (name.startswith(".") and name.endswith(".tmp")):
                continue
            path = Path(here) / name
            if held or _is_left_over(path):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                    count += 1
    return count


def _is_left_over(path: Path) -> bool:
    found = _TEMPORARY.fullmatch(path.name)
    if found is None:
        return False
    gone = is_mark_gone(found["owner"])
    if gone is None:
        with suppress(OSError):
            return time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS
    return bool(gone)
