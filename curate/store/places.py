"""Where things lie, written so that a project can be moved with all that it holds."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(name: str | Path) -> Path:
    """Return the path that a user named; `~` is a home, and stands for itself where there is none.

    Example:
        >>> user_path("~nobody-of-that-name/a.jsonl")
        PosixPath('~nobody-of-that-name/a.jsonl')
    """
    return Path(os.path.expanduser(name))  # noqa: PTH111 - which raises RuntimeError


def note_path(path: Path, workspace: Path) -> str:
    """Return a path as an artefact of a workspace notes it.

    From the workspace on where it lies in the folder that holds the workspace, which may then be
    moved or renamed; whole elsewhere, because what lies there does not move along.

    Example:
        >>> note_path(Path("/project/mix"), Path("/project/.curate"))
        '../mix'
        >>> note_path(Path("/disk/mix"), Path("/project/.curate"))
        '/disk/mix'
    """
    whole, home = path.resolve(), workspace.resolve()
    return os.path.relpath(whole, home) if whole.is_relative_to(home.parent) else str(whole)


def noted_path(note: str, workspace: Path) -> Path:
    """Return the whole path that a note of `note_path` stands for now; a whole one is itself."""
    return (workspace.resolve() / note).resolve()
