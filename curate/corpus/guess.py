"""Where the text of a file is likely to be: what `init` writes and what error messages propose."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from curate.corpus.containers import STREAM_ERRORS, BrokenFileError
from curate.corpus.formats import detect_format
from curate.corpus.rows import field_names, read_rows

TEXTS = ("text", "content", "body", "document")
"""What fields with a text are often called."""

TURNS = ("content", "value", "text")
"""What the words of one turn of a chat are called."""

_TOGETHER = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "chosen"),
    ("instruction", "input", "output"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("problem", "solution"),
    ("query", "response"),
)
"""Fields that make a text together, first in this order."""


def guess_text(path: Path) -> str:
    """Return the text setting that the first record of a file asks for, "" where none is clear.

    A usual name, else the turns of a chat, else fields that belong together, else the longest
    string.
    """
    return guess_of(first_record(path))


def propose_text(path: Path | str) -> str:
    """Return the option that reads a file's text, as a shell takes it; "" where none is clear."""
    found = guess_text(Path(path))
    return found and "--text '" + found.replace("\n", r"\n") + "'"


def guess_of(record: Mapping[str, object]) -> str:
    r"""Return the text setting for a record.

    Example:
        >>> guess_of({"id": "a", "messages": [{"role": "user", "content": "Why?"}]})
        '{messages.content}'
        >>> guess_of({"prompt": "Why?", "completion": "Because.", "source": "a long name of it"})
        '{prompt}\\n{completion}'
    """
    strings = {name: value for name, value in record.items() if isinstance(value, str)}
    usual = next((name for name in TEXTS if name in strings), "")
    if usual:
        return usual
    read = {name: part for name, value in record.items() if (part := _part(name, value))}
    for names in _TOGETHER:
        if all(name in read for name in names):
            return "\n".join(read[name] for name in names)
    inner = next((part for part in read.values() if "." in part), "")
    plain = {name: value for name, value in strings.items() if not {*name} & {*"{}"}}
    return inner or max(plain, key=lambda name: len(plain[name]), default="")


def _part(name: str, value: object) -> str:
    """Return how a template reads a field: a string, or what turns of a chat say; else ""."""
    if {*name} & {*".[]{}!:"}:
        return ""
    if isinstance(value, str):
        return f"{{{name}}}"
    held = value if isinstance(value, list) else [value]
    turns = [turn for turn in held if isinstance(turn, dict)]
    if len(turns) < len(held):
        return ""
    for inner in TURNS:
        said = [turn.get(inner) for turn in turns]
        if any(said) and all(words is None or isinstance(words, str) for words in said):
            return f"{{{name}.{inner}}}"
    return ""


def first_record(path: Path) -> dict[str, object]:
    """Return the fields of a file's first record; none where it is a text or cannot be read."""
    try:
        form = detect_format(path)
        names = field_names(path, form) or ()
        row = next(read_rows(path, form, names), "") if names else ""
    except (*STREAM_ERRORS, BrokenFileError, OSError, ValueError, csv.Error):
        return {}
    return {} if isinstance(row, str) else dict(zip(names, row, strict=False))
