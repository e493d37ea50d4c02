"""Where things lie, written so that a project can be moved with all that it holds."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
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


def is_file(name: str) -> bool:
    """Say whether a user's path is a file; False of one that no disk could hold."""
    return os.path.isfile(os.path.expanduser(name))  # noqa: PTH111, PTH113 - Path's may raise


def also_there(name: str) -> str:
    """Return a clause on what lies where a missing path should, and reads like it; "" for nothing.

    A name may be written with other letters' cases, or an accented letter as one sign or two:
    on a screen the two are the same, on most disks they are not.
    """
    path = Path(os.path.expanduser(name))  # noqa: PTH111
    while not os.path.exists(path.parent):  # noqa: PTH110 - Path's may raise
        path = path.parent
    with suppress(OSError):
        for other in sorted(os.listdir(path.parent)):  # noqa: PTH208
            if other != path.name and _read_alike(other) == _read_alike(path.name):
                same = _composed(other) == _composed(path.name)
                how = "with accents in another Unicode form" if same else "with other capitals"
                return f" (there is {path.parent / other}, {how})"
    return ""


def _read_alike(name: str) -> str:
    return _composed(_composed(name).casefold())


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def split_target(name: str, there: Callable[[str], bool] = is_file) -> tuple[str, list[str]]:
    """Return label and files of a target as it is written: `NAME=FILE,FILE`, or a file.

    A path may hold commas and equals signs: it is cut where every file is there, else at the
    last equals sign and every comma.

    Args:
        name: without a weight.
        there: whether a path is that of a file.

    Example:
        >>> split_target("mine=a,b/valid.jsonl,a,b/test.jsonl", lambda path: path[:4] == "a,b/")
        ('mine', ['a,b/valid.jsonl', 'a,b/test.jsonl'])
        >>> split_target("mine=valid.jsonl,test.jsonl", lambda path: False)
        ('mine', ['valid.jsonl', 'test.jsonl'])
    """
    if there(name):
        return "", [name]
    for label, rest in _cuts(name, "="):
        if there(rest):
            return label, [rest]
        for pair in _cuts(rest, ","):
            if all(map(there, pair)):
                return label, list(pair)
    label, _, rest = name.rpartition("=")
    return label, rest.split(",")


def _cuts(text: str, sign: str) -> Iterator[tuple[str, str]]:
    """Yield what stands before and after each sign, from the first on."""
    parts = text.split(sign)
    for place in range(1, len(parts)):
        yield sign.join(parts[:place]), sign.join(parts[place:])
