"""How a record becomes a text: one field, or a template of several."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter

from curate.errors import USAGE, CurateError

MAX_DOCUMENT_CHARS = 64 * 1024 * 1024
"""A longer text is rejected: one document may not fill the memory."""

MISSING = object()
"""Stands for a field that a record does not have."""

Row = tuple[object, ...]
"""The values of a template's fields in order, then the record's `id`."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text setting, taken apart."""

    fields: tuple[str, ...]  # each named once, in order of first use
    parts: tuple[tuple[str, int], ...]  # (literal before, field number or -1 for none)


def parse_template(text: str) -> Template:
    """Take a text setting apart: a plain field name, or a template with `{field}`s.

    Raises:
        CurateError: empty, unbalanced braces, or anything but plain field names in them.

    Example:
        >>> parse_template("{question}: {answer}").fields
        ('question', 'answer')
    """
    if not text:
        raise CurateError("text: empty; name a field such as text", exit_code=USAGE)
    if "{" not in text and "}" not in text:
        return Template(fields=(text,), parts=(("", 0),))
    fields: list[str] = []
    parts: list[tuple[str, int]] = []
    try:
        pieces = list(Formatter().parse(text))
    except ValueError as error:
        raise CurateError(f"text: template {text!r}: {error}", exit_code=USAGE) from None
    for literal, name, spec, conversion in pieces:
        if name is None:
            parts.append((literal, -1))
            continue
        if not name or spec or conversion or any(sign in name for sign in ".[]{}"):
            raise CurateError(
                f"text: template {text!r}: braces hold one field name each, such as {{question}}",
                exit_code=USAGE,
            )
        if name not in fields:
            fields.append(name)
        parts.append((literal, fields.index(name)))
    if not fields:
        raise CurateError(f"text: template {text!r} names no field", exit_code=USAGE)
    return Template(fields=tuple(fields), parts=tuple(parts))


def render(template: Template, row: Row) -> tuple[str, str]:
    """Return a record's text and no reason, or no text and the reason of its rejection.

    A field of its own must be a string; a template also takes numbers.

    Args:
        template: from `parse_template`.
        row: values of `template.fields`, in order; more may follow.

    Returns:
        (text, "") or ("", one of missing_field, null, wrong_type, empty, too_long, bad_utf8).
    """
    if len(template.parts) == 1 and not template.parts[0][0]:
        value = row[0]
        if type(value) is str:
            return _checked(value)
        return "", _reason(value)
    pieces: list[str] = []
    for literal, field in template.parts:
        pieces.append(literal)
        if field < 0:
            continue
        value = row[field]
        if isinstance(value, str):
            pieces.append(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            pieces.append(str(value))
        else:
            return "", _reason(value)
    if not any(str(value).strip() for value in row[: len(template.fields)]):
        return "", "empty"
    return _checked("".join(pieces))


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
