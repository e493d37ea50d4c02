"""JSON, a line or a whole file → the values of the fields that are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from curate.corpus.containers import (
    MAX_JSON_BYTES,
    MAX_JSON_COMMAS,
    BrokenFileError,
    one_line,
    read_whole,
)
from curate.corpus.fields import MISSING, Row, row_names
from curate.corpus.formats import Format

MAX_NESTED_BYTES = 1024 * 1024
"""Of JSON text: a longer list or object is not taken apart for a template."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])

Plain = str | int | float | bool | None

_NO_ATTRIBUTE = re.compile(r'["\\\x00-\x1f]')
"""What a name may not hold that msgspec looks for; such names are looked up instead."""


def object_names(line: bytes) -> tuple[str, ...]:
    """Return the names of an object's fields, unread.

    Raises:
        msgspec.DecodeError: no JSON object.
    """
    return tuple(_OBJECT.decode(line))


def record_decoder(fields: Sequence[str], kind: Any) -> Callable[[bytes], Row]:
    """Return a decoder that keeps the fields of a row and passes over the rest unread.

    The fields of the text and its names are of `kind`; what describes it stays as it stands.
    """
    names = row_names(fields)
    if any(map(_NO_ATTRIBUTE.search, names)):
        return partial(_look_up, names=names, of_kind=(*fields, "id", "url"), kind=kind)
    attributes = [f"f{number}" for number in range(len(names))]
    kinds = [kind if name in (*fields, "id", "url") else msgspec.Raw for name in names]
    record = msgspec.defstruct(
        "Record",
        [
            (attribute, of, msgspec.field(default=MISSING))
            for attribute, of in zip(attributes, kinds, strict=True)
        ],
        rename=dict(zip(attributes, names, strict=True)),
    )
    decode, values = msgspec.json.Decoder(record).decode, msgspec.structs.astuple
    return lambda line: values(decode(line))


def _look_up(line: bytes, *, names: Sequence[str], of_kind: Sequence[str], kind: Any) -> Row:
    """Return the row of a record whose fields have names that no decoder can be made for."""
    record = _OBJECT.decode(line)
    return tuple(
        MISSING if name not in record
        else msgspec.json.decode(record[name], type=kind) if name in of_kind
        else record[name]
        for name in names
    )  # fmt: skip


def json_lines(lines: Iterable[bytes | str], fields: Sequence[str]) -> Iterator[Row | str]:
    """Yield each line of `read_lines` as the values of `row_names(fields)`, or as a reason."""
    decode = record_decoder(fields, Plain)
    in_part = record_decoder(fields, msgspec.Raw)
    for line in lines:
        if isinstance(line, str):
            yield line
            continue
        try:
            try:
                yield decode(line)
            except msgspec.ValidationError:
                yield _nested(in_part(line), len(fields))
        except msgspec.ValidationError:
            yield "wrong_type"
        except UnicodeDecodeError:
            yield "bad_utf8"
        except msgspec.DecodeError:
            yield _why_not_json(line)
        except RecursionError:
            yield "too_deep"


def _nested(row: Row, n_fields: int) -> Row | str:
    """Return a row whose lists and objects are taken apart, unless they are too large for it."""
    found: list[object] = []
    for value in row[:n_fields]:
        if isinstance(value, msgspec.Raw):
            text = bytes(value)
            if text[:1] in b"[{" and len(text) > MAX_NESTED_BYTES:
                return "wrong_type"
            found.append(msgspec.json.decode(text))
        else:
            found.append(value)
    return (*found, *row[n_fields:])


def _why_not_json(line: bytes) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return "bad_utf8"
    return "bad_json"


def json_file(path: Path, form: Format, fields: Sequence[str]) -> Iterator[Row | str]:
    """Yield the objects of one JSON array, or the one object that a file is.

    Raises:
        BrokenFileError: no JSON, or more than is held at once.
    """
    data = read_whole(path, form.compression, limit=MAX_JSON_BYTES)
    if data is None or data.count(b",") > MAX_JSON_COMMAS:
        raise BrokenFileError(
            f"one JSON value of more than {MAX_JSON_BYTES >> 20} MiB or {MAX_JSON_COMMAS:,} parts; "
            "write it as JSON lines",
            reason="too_long",
        )
    if not data or data.isspace():
        return
    try:
        raw: list[msgspec.Raw] = (
            msgspec.json.decode(data, type=list[msgspec.Raw])
            if data.lstrip().startswith(b"[")
            else [msgspec.Raw(data)]
        )
    except (msgspec.DecodeError, RecursionError) as error:
        raise BrokenFileError(one_line(error), reason="bad_json") from None
    yield from json_lines((bytes(item) for item in raw), fields)
