"""Records of every format → the values of the fields that are asked for."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from curate.corpus.columnar import arrow_rows, column_names, parquet_rows
from curate.corpus.containers import (
    MAX_RECORD_BYTES,
    STREAM_ERRORS,
    BrokenFileError,
    Span,
    one_line,
    read_line_blocks,
    read_lines,
    read_whole,
)
from curate.corpus.fields import KEPT, MISSING, Row, row_names
from curate.corpus.formats import Format
from curate.corpus.json_rows import json_file, json_lines, object_names


def read_rows(
    path: Path,
    form: Format,
    fields: Sequence[str],
    *,
    start: int = 0,
    stop: int | None = None,
    span: Span | None = None,
) -> Iterator[Row | str]:
    """Yield each record as the values of `row_names(fields)`, or as a reason.

    Args:
        path: the file.
        form: from `detect_format`.
        fields: names; a whole-file document gives its text for each of them.
        start: first record, from 0.
        stop: record to stop before; None reads to the end.
        span: of lines that are not compressed, or of parquet, only the records of this part;
            `start` and `stop` count from its first.

    Raises:
        BrokenFileError: damage; everything before it has been yielded.
    """
    match form.kind:
        case "jsonl":
            lines = read_lines(path, form.compression, span=span)
            part = lines if start == 0 and stop is None else islice(lines, start, stop)
            return json_lines(part, fields)
        case "json":
            return islice(json_file(path, form, fields), start, stop)
        case "csv" | "tsv":
            return islice(_csv_rows(path, form, fields), start, stop)
        case "parquet":
            rows = parquet_rows(path, fields, start, span)
            return rows if stop is None else islice(rows, max(0, stop - start))
        case "arrow_file" | "arrow_stream":
            return islice(arrow_rows(path, form, fields), start, stop)
        case _:
            return islice(_whole_row(path, form, fields), start, stop)


def field_names(path: Path, form: Format) -> tuple[str, ...] | None:
    """Return the fields of the schema or of the first record, None where there is no saying.

    Cheap: no text is read beyond the first record.
    """
    try:
        if form.kind in ("parquet", "arrow_file", "arrow_stream"):
            return column_names(path, form)
        if form.kind == "jsonl":
            line = next(read_lines(path, form.compression), "")
            return object_names(line) if isinstance(line, bytes) else None
        if form.kind in ("csv", "tsv"):
            return tuple(next(_csv_records(path, form), ()))
    except (*STREAM_ERRORS, BrokenFileError, ValueError, RecursionError, csv.Error):
        return None
    return None


def _whole_row(path: Path, form: Format, fields: Sequence[str]) -> Iterator[Row | str]:
    data = read_whole(path, form.compression, limit=MAX_RECORD_BYTES)
    if data is None:
        yield "too_long"
        return
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        yield "bad_utf8"
        return
    yield (*(text for _ in fields), path.name, *[MISSING] * (len(KEPT) - 1))


def _csv_records(path: Path, form: Format) -> Iterator[list[str]]:
    """Yield the records; a blank line between them is none."""
    csv.field_size_limit(MAX_RECORD_BYTES)
    delimiter = "\t" if form.kind == "tsv" else ","
    for record in csv.reader(_csv_lines(path, form), delimiter=delimiter, strict=True):
        if record and not delimiter.join(record).isspace():
            yield record


def _csv_lines(path: Path, form: Format) -> Iterator[str]:
    """Yield all lines, blank ones too: between quotes they part the paragraphs of a text."""
    for block in read_line_blocks(path, form.compression):
        if isinstance(block, str):
            raise BrokenFileError(f"a line that is {block.replace('_', ' ')}")
        *whole, rest = block.split(b"\n")
        for line in (*whole, rest) if rest else whole:
            yield line.decode("utf-8", "surrogateescape") + "\n"


def _csv_rows(path: Path, form: Format, fields: Sequence[str]) -> Iterator[Row | str]:
    records = _csv_records(path, form)
    try:
        header = next(records, None)
        if header is None:
            return
        places = [header.index(name) if name in header else -1 for name in row_names(fields)]
        for record in records:
            if len(record) != len(header):
                yield "wrong_columns"
                continue
            yield tuple(_csv_value(record, place) for place in places)
    except csv.Error as error:
        raise BrokenFileError(f"csv: {one_line(error)}", reason="truncated") from None


def _csv_value(record: list[str], place: int) -> object:
    if place < 0:
        return MISSING
    value = record[place]
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape")
    return value
