"""Columns of parquet and Arrow → rows of Python values, a bounded part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from curate.corpus.containers import MAX_RECORD_BYTES
from curate.corpus.fields import MISSING, Row, row_names
from curate.corpus.json_rows import MAX_NESTED_BYTES

BATCH_BYTES = 16 * 1024 * 1024
BATCH_ROWS = 1024
"""What is made Python values of at a time: the fewer of the two, but one row at least."""


def batch_rows(batch: Any, fields: Sequence[str]) -> Iterator[Row | str]:
    """Yield each row of a record batch as the values of `row_names(fields)`, or as a reason.

    Values of a type whose size nothing bounds are not taken apart: of a field of the text the
    record is then of the wrong type, of any other it has none.
    """
    columns_of = batch.schema.names
    known = {name: columns_of.index(name) for name in columns_of}  # the first of each name
    names = row_names(fields)
    for part in _parts(batch.select([known[name] for name in names if name in known])):
        if part.num_rows == 1 and _too_long(part):
            yield "too_long"
            continue
        columns = [
            values(part.column(name), odd=False if name in fields else None)
            if name in known
            else [MISSING] * part.num_rows
            for name in names
        ]
        yield from zip(*columns, strict=True)


def _parts(batch: Any) -> Iterator[Any]:
    """Cut a batch into parts that are small enough, down to one row."""
    for first in range(0, batch.num_rows, BATCH_ROWS):
        yield from _halved(batch.slice(first, BATCH_ROWS))


def _halved(part: Any) -> Iterator[Any]:
    if part.num_rows > 1 and _size(part) > BATCH_BYTES:
        for start, stop in pairwise((0, part.num_rows // 2, part.num_rows)):
            yield from _halved(part.slice(start, stop - start))
    else:
        yield part


def _size(part: Any) -> int:
    """Return the bytes of all values; more than any cap where one part may stand for many."""
    if any(_is_view(column.type) for column in part.columns):
        return BATCH_BYTES + 1
    return sum(c.nbytes for c in part.columns if not pa.types.is_dictionary(c.type))


def _too_long(row: Any) -> bool:
    """Say whether one row holds a text that is longer than a document may be."""
    texts = (column for column in row.columns if is_text(column.type))
    return any(column.nbytes > MAX_RECORD_BYTES + 64 for column in texts)  # 64: its offsets


def values(column: Any, *, odd: Any = False) -> list[Any]:
    """Return Python values; bytes stand for a string that is not UTF-8.

    Args:
        column: an array.
        odd: stands for what is nested and too large, or of a type whose size nothing bounds.

    Raises:
        pa.ArrowInvalid: an index outside of its dictionary.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _shared_values(column, odd)
    if is_text(kind) or _is_binary(kind):
        return _texts(column)
    if _is_view(kind) and not pa.types.is_nested(kind) and not _is_run(kind):
        plain = pa.large_binary() if kind == pa.binary_view() else pa.large_string()
        return _texts(column.cast(plain))
    if _is_flat(kind):
        return list(column.to_pylist())
    return _nested_values(column, odd)


def _shared_values(column: Any, odd: Any) -> list[Any]:
    """Return the values of a column that holds each once: only those that are used."""
    column.validate()
    places = column.indices.to_pylist()
    used = sorted({place for place in places if place is not None})
    if used and not 0 <= used[0] <= used[-1] < len(column.dictionary):
        raise pa.ArrowInvalid("a value that its dictionary does not hold")
    found = values(column.dictionary.take(pa.array(used, pa.int64())), odd=odd)
    by_place = dict(zip(used, found, strict=True))
    return [None if place is None else by_place[place] for place in places]


def _texts(column: Any) -> list[Any]:
    try:
        found = column.to_pylist()
    except UnicodeDecodeError:
        wide = pa.types.is_large_string(column.type)
        found = column.view(pa.large_binary() if wide else pa.binary()).to_pylist()
    return [_decoded(value) if isinstance(value, bytes) else value for value in found]


def _decoded(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _nested_values(column: Any, odd: Any) -> list[Any]:
    """Return lists and objects, `odd` in place of each that is too large to be taken apart."""
    if not _is_bounded(column.type):
        return [odd] * len(column)
    if column.nbytes <= MAX_NESTED_BYTES:
        return list(column.to_pylist())
    if len(column) == 1:
        return [odd]
    half = len(column) // 2
    return _nested_values(column.slice(0, half), odd) + _nested_values(column.slice(half), odd)


def is_text(kind: Any) -> bool:
    """Say whether a type is that of text, of which every value is stored for itself."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_flat(kind: Any) -> bool:
    """Say whether a type is that of a number, a time, a truth value or nothing."""
    return bool(pa.types.is_primitive(kind) or pa.types.is_null(kind) or pa.types.is_decimal(kind))


def _is_view(kind: Any) -> bool:
    """Say whether many values of a type may stand on the same bytes."""
    views = (pa.string_view(), pa.binary_view())
    lists = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return bool(kind in views or lists or _is_run(kind))


def _is_run(kind: Any) -> bool:
    return bool(pa.types.is_run_end_encoded(kind))


def _is_bounded(kind: Any) -> bool:
    """Say whether every value of a nested type takes bytes of its own, so that bytes bound it."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_bounded(kind.value_type)
    if pa.types.is_map(kind):
        return _is_bounded(kind.key_type) and _is_bounded(kind.item_type)
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_is_bounded(field.type) for field in kind)
    flat = _is_flat(kind) and not pa.types.is_null(kind)
    return bool(flat or is_text(kind) or _is_binary(kind))
