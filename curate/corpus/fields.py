"""How a record becomes a text: one field, or a template of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter

from curate.errors import USAGE, CurateError

MAX_DOCUMENT_CHARS = 64 * 1024 * 1024
"""A longer text is rejected: one document may not fill the memory."""

MISSING = object()
"""Stands for a field that a record does not have."""

KEPT = ("id", "url", "meta", "metadata")
"""What a document keeps of its record beside the text, where the record has it."""

Row = tuple[object, ...]
"""The values of `row_names(fields)`, in order."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text setting, taken apart."""

    fields: tuple[str, ...]  # each named once, in order of first use
    parts: tuple[tuple[str, int, tuple[str, ...]], ...]  # literal, field or -1, path inside it
    in_braces: bool = True  # False: written as a field's name alone, which holds strings only

    @property
    def is_field(self) -> bool:
        """Say whether it is one field and nothing else."""
        return len(self.parts) == 1 and not self.parts[0][0] and not self.parts[0][2]


def row_names(fields: Sequence[str]) -> tuple[str, ...]:
    """Return the fields that a row holds: those asked for, then those that documents keep."""
    return tuple(dict.fromkeys([*fields, *KEPT]))


def parse_template(text: str) -> Template:
    """Take a text setting apart: a plain field name, or a template with `{field}`s.

    `{field.inner}` reads inside a nested field, of a list of objects inside each of them.

    Raises:
        CurateError: empty, unbalanced braces, or anything but field names in them.

    Example:
        >>> parse_template("{question}: {answer.text}").fields
        ('question', 'answer')
    """
    if not text:
        raise CurateError("text: empty; name a field such as text", exit_code=USAGE)
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise CurateError(f"text: {text!r} is no UTF-8, as no field's name is", exit_code=USAGE)
    if "{" not in text and "}" not in text:
        return Template(fields=(text,), parts=(("", 0, ()),), in_braces=False)
    fields: list[str] = []
    parts: list[tuple[str, int, tuple[str, ...]]] = []
    try:
        pieces = list(Formatter().parse(text))
    except ValueError as error:
        raise CurateError(f"text: template {text!r}: {error}", exit_code=USAGE) from None
    for literal, name, spec, conversion in pieces:
        if name is None:
            parts.append((literal, -1, ()))
            continue
        field, *path = name.split(".")
        if not all([field, *path]) or spec or conversion or any(sign in name for sign in "[]{}"):
            raise CurateError(
                f"text: template {text!r}: braces hold one field name each, such as {{question}}",
                exit_code=USAGE,
            )
        if field not in fields:
            fields.append(field)
        parts.append((literal, fields.index(field), tuple(path)))
    if not fields:
        raise CurateError(f"text: template {text!r} names no field", exit_code=USAGE)
    return Template(fields=tuple(fields), parts=tuple(parts))


def render(template: Template, row: Row) -> tuple[str, str]:
    """Return a record's text and no reason, or no text and the reason of its rejection.

    A field named without braces must be a string; a template also takes numbers, and lists of
    both, one a line. What is read inside a list of objects is such a list, of those that have it.

    Args:
        template: from `parse_template`.
        row: values of `template.fields`, in order; more may follow.

    Returns:
        (text, "") or ("", one of missing_field, null, wrong_type, empty, too_long, bad_utf8).
    """
    if template.is_field and not template.in_braces:
        value = row[0]
        return _checked(value) if type(value) is str else ("", _reason(value))
    pieces: list[str] = []
    any_text = False
    for literal, field, path in template.parts:
        pieces.append(literal)
        if field < 0:
            continue
        value = _inside(row[field], path)
        text = _written(value)
        if text is None:
            return "", _reason(value)
        any_text = any_text or bool(text.strip())
        pieces.append(text)
    return _checked("".join(pieces)) if any_text else ("", "empty")


def _inside(value: object, path: tuple[str, ...]) -> object:
    for place, name in enumerate(path):
        if isinstance(value, list):
            return _inside_each(value, path[place:])
        if not isinstance(value, dict):
            return value if value is None or value is MISSING else False
        value = value.get(name, MISSING)
    return value


def _inside_each(objects: list[object], path: tuple[str, ...]) -> object:
    """Return what each object has there; a turn of a chat that calls a tool has no words."""
    held: list[object] = []
    lack: object = None if objects else []
    for one in objects:
        value = _inside(one, path) if isinstance(one, dict) else False
        if value is None or value is MISSING:
            lack = value
        else:
            held += value if isinstance(value, list) else [value]
    return held or lack


def _written(value: object) -> str | None:
    """Return a value as it stands in a text, None where it cannot stand there."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        lines = [_written(part) if not isinstance(part, list) else None for part in value]
        return None if None in lines else "\n".join(line or "" for line in lines)
    return None


def _checked(text: str) -> tuple[str, str]:
    if not text or text.isspace():
        return "", "empty"
    if len(text) > MAX_DOCUMENT_CHARS:
        return "", "too_long"
    return text, ""


def _reason(value: object) -> str:
    if value is MISSING:
        return "missing_field"
    if value is None:
        return "null"
    return "bad_utf8" if isinstance(value, bytes) else "wrong_type"
