"""Outputs that would replace an input, or cannot be written, are refused before work starts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from curate.errors import USAGE, CannotWriteError, CurateError

_WRITTEN_FOLDERS = ("index", "targets", "ranking", "facts", "verify", "groups")
_WRITTEN_FILES = ("configured.json", "target.json", "mix.json", "report.html")


def refuse_input(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write the file `out` where an input is.

    A relative path, a link, a second mount, another name of the same file (a hard link) and,
    on file systems that ignore it, another case are all the same file.

    Args:
        out: file that is about to be written, there or not.
        inputs: files that have to stay as they are; folders, with all that is in them.

    Raises:
        CurateError: which input it is.
    """
    for path in inputs:
        if _is_same(out, path) or (path.is_dir() and out.exists() and _is_inside(out, path)):
            raise CurateError(
                f"{out}: is an input ({path}), which nothing may replace; name another output",
                exit_code=USAGE,
            )


def refuse_holding(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write into the folder `out` where an input lies in it, or is it.

    Raises:
        CurateError: which input it is.
    """
    if not out.exists():
        return
    place, known = out.resolve(), out.stat()
    checked: dict[Path, bool] = {}
    for path in inputs:
        for folder in (path.resolve(), *path.resolve().parents):
            if folder not in checked:
                checked[folder] = folder == place or _is_that(folder, known)
            if checked[folder]:
                raise CurateError(
                    f"{out}: the input {path} is in it; name another folder", exit_code=USAGE
                )


def refuse_own_artefacts(workspace: Path, inputs: Iterable[Path]) -> None:
    """Refuse inputs where the stages write; `sources/` holds those that come from the hub.

    Raises:
        CurateError: which input it is.
    """
    inputs = list(inputs)
    for name in _WRITTEN_FOLDERS:
        refuse_holding(workspace / name, inputs)
    for name in _WRITTEN_FILES:
        if (workspace / name).exists():
            refuse_input(workspace / name, inputs)


def refuse_new_input(out: Path, inputs: Iterable[str], workspace: Path) -> None:
    """Refuse to write documents into the folder `out` where it is read as an input.

    Args:
        out: folder, there or not; below the workspace nothing is read.
        inputs: as named in the settings; of these the folders.
        workspace: of that index.

    Raises:
        CurateError: which input it is in.
    """
    if _is_inside(out, workspace):
        return
    for folder in map(Path, inputs):
        if folder.is_dir() and (_is_same(out, folder) or _is_inside(out, folder)):
            raise CurateError(
                f"{out}: is in the input {folder}, so that what is written there would be read as "
                "documents; name another folder",
                exit_code=USAGE,
            )


def refuse_unwritable(folder: Path, *, option: str) -> None:
    """Refuse a folder that nothing can be written to, or that cannot be made.

    Args:
        folder: there or not.
        option: that names another.

    Raises:
        CannotWriteError: which folder stands in the way, of it and those above it.
    """
    above = (folder, *folder.parents)
    there = next(each for each in above if os.path.exists(each))  # noqa: PTH110 - Path's may raise
    if not there.is_dir():
        raise CannotWriteError(f"{there}: is no folder; name another {option}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise CannotWriteError(
            f"{there}: cannot be written to; make it writable, or name another {option}"
        )


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or (one.exists() and _is_that(other, one.stat()))


def _is_inside(path: Path, folder: Path) -> bool:
    return any(_is_same(folder, place) for place in path.resolve().parents)


def _is_that(path: Path, known: os.stat_result) -> bool:
    """Say whether a path is the file or folder of that number, whatever it is called."""
    try:
        return os.path.samestat(path.stat(), known)
    except OSError:
        return False
