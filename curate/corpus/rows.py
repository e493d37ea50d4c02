"""Records of each format → the values of the fields that are asked for."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus.containers import (
    MAX_JSON_BYTES,
    MAX_JSON_COMMAS,
    MAX_RATIO,
    MAX_RECORD_BYTES,
    RATIO_FROM_BYTES,
    STREAM_ERRORS,
    BrokenFileError,
    Format,
    Span,
    one_line,
    read_lines,
    read_whole,
)
from curate.corpus.fields import MISSING, Row, row_names

BATCH_BYTES = 16 * 1024 * 1024

MAX_NESTED_BYTES = 1024 * 1024
"""Of JSON text: a longer list or object is not taken apart for a template."""


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
            return islice(_json_file(path, form, fields), start, stop)
        case "csv" | "tsv":
            return islice(_csv_rows(path, form, fields), start, stop)
        case "parquet":
            rows = _parquet_rows(path, fields, start, span)
            return rows if stop is None else islice(rows, max(0, stop - start))
        case "arrow_file" | "arrow_stream":
            return islice(_arrow_rows(path, form, fields), start, stop)
        case _:
            return islice(_whole_row(path, form, fields), start, stop)


def field_names(path: Path, form: Format) -> tuple[str, ...] | None:
    """Return the fields of the schema or of the first record, None where there is no saying.

    Cheap: no text is read beyond the first record.
    """
    try:
        if form.kind == "parquet":
            return tuple(pq.read_schema(path).names)
        if form.kind in ("arrow_file", "arrow_stream"):
            with pa.OSFile(str(path), "rb") as stream:
                return tuple(_arrow_reader(stream, form).schema.names)
        if form.kind == "jsonl":
            line = next(read_lines(path, form.compression), "")
            return tuple(_OBJECT.decode(line)) if isinstance(line, bytes) else None
        if form.kind in ("csv", "tsv"):
            return tuple(next(_csv_records(path, form), ()))
    except (*STREAM_ERRORS, BrokenFileError, ValueError, RecursionError, csv.Error):
        return None
    return None


def count_rows(path: Path, form: Format) -> int:
    """Return the rows of a parquet or arrow file, from its footer where it has one.

    Raises:
        BrokenFileError: damaged.
    """
    try:
        if form.kind == "parquet":
            return int(pq.read_metadata(path).num_rows)
        with pa.memory_map(str(path), "rb") as stream:
            reader = _arrow_reader(stream, form)
            batches = (
                (reader.get_batch(number) for number in range(reader.num_record_batches))
                if form.kind == "arrow_file"
                else reader
            )
            return sum(batch.num_rows for batch in batches)
    except STREAM_ERRORS as error:
        raise BrokenFileError(one_line(error)) from None


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


Plain = str | int | float | bool | None

_NO_ATTRIBUTE = re.compile(r'["\\\x00-\x1f]')
"""What a name may not hold that msgspec looks for; such names are looked up instead."""


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


def _json_file(path: Path, form: Format, fields: Sequence[str]) -> Iterator[Row | str]:
    """Yield the objects of one JSON array, or the one object that a file is."""
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
    yield (*(text for _ in fields), path.name, *[MISSING] * (len(row_names(fields)) - 2))


def _csv_records(path: Path, form: Format) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    delimiter = "\t" if form.kind == "tsv" else ","
    return csv.reader(_csv_lines(path, form), delimiter=delimiter, strict=True)


def _csv_lines(path: Path, form: Format) -> Iterator[str]:
    for line in read_lines(path, form.compression):
        if isinstance(line, str):
            raise BrokenFileError(f"a line that is {line.replace('_', ' ')}")
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


def _parquet_rows(
    path: Path, fields: Sequence[str], start: int, span: Span | None
) -> Iterator[Row | str]:
    """Yield rows, a row group after the other, so that damage in one does not reach back."""
    done = 0
    try:
        with _open_parquet(path) as file:
            wanted = _wanted(fields, file.schema_arrow.names)
            groups, skip = _row_groups(file.metadata, start, span)
            sizes = [file.metadata.row_group(n).num_rows for n in range(groups.stop)]
            if not wanted:
                yield from ("missing_field" for _ in range(sum(sizes[groups.start :]) - skip))
                return
            rows = _batch_size(file.metadata, wanted)
            done = sum(sizes[: groups.start])
            for number in groups:
                for batch in file.iter_batches(
                    batch_size=rows, row_groups=[number], columns=wanted, use_threads=False
                ):
                    yield from _batch_rows(batch.slice(min(skip, batch.num_rows)), fields)
                    skip = max(0, skip - batch.num_rows)
                    done += batch.num_rows
    except STREAM_ERRORS as error:
        raise BrokenFileError(f"damaged after {done} rows: {one_line(error)}") from None


def _row_groups(metadata: Any, start: int, span: Span | None) -> tuple[range, int]:
    """Return the row groups to read, and how many rows of the first are not wanted."""
    first, end = span or (0, metadata.num_row_groups)
    while first < end and start >= (rows := metadata.row_group(first).num_rows):
        first, start = first + 1, start - rows
    return range(first, end), start


def _open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file so that a value that many rows share is held once."""
    schema = pq.read_schema(path)
    shared = [field.name for field in schema if _is_text(field.type)]
    return pq.ParquetFile(
        path, page_checksum_verification=True, pre_buffer=False, read_dictionary=shared
    )


def _batch_size(metadata: Any, wanted: Sequence[str]) -> int:
    """Return how many rows to read at a time.

    Raises:
        BrokenFileError: a column of a row group unpacks to very much more than its size, or
            its values are longer than a document may be.
    """
    n_bytes = n_rows = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        n_rows += group.num_rows
        for place in range(group.num_columns):
            column = group.column(place)
            if column.path_in_schema.split(".")[0] not in wanted:
                continue
            size, packed = column.total_uncompressed_size, max(1, column.total_compressed_size)
            if size > max(RATIO_FROM_BYTES, MAX_RATIO * packed):
                raise BrokenFileError(f"unpacks to more than {MAX_RATIO} times its size")
            if size > MAX_RECORD_BYTES * max(1, group.num_rows):
                raise BrokenFileError(f"row group {number}: longer than a document may be")
            n_bytes += size
    return max(1, min(4096, BATCH_BYTES * max(1, n_rows) // max(1, n_bytes)))


def _arrow_reader(stream: Any, form: Format) -> Any:
    return pa.ipc.open_file(stream) if form.kind == "arrow_file" else pa.ipc.open_stream(stream)


def _arrow_rows(path: Path, form: Format, fields: Sequence[str]) -> Iterator[Row | str]:
    done = 0
    try:
        with pa.memory_map(str(path), "rb") as stream:
            reader = _arrow_reader(stream, form)
            batches = (
                (reader.get_batch(number) for number in range(reader.num_record_batches))
                if form.kind == "arrow_file"
                else reader
            )
            for batch in batches:
                yield from _batch_rows(_validated(batch), fields)
                done += batch.num_rows
    except STREAM_ERRORS as error:
        raise BrokenFileError(f"damaged after {done} rows: {one_line(error)}") from None


def _validated(batch: Any) -> Any:
    """Check every offset of a batch, so that no value is read outside of it.

    A text that is not UTF-8 is its row's fault, not the batch's: columns become bytes instead.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        columns = [
            column.view(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())
            if _is_text(column.type)
            else column
            for column in batch.columns
        ]
        batch = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
        batch.validate(full=True)
    return batch


def _wanted(fields: Sequence[str], names: Sequence[str]) -> list[str]:
    known = set(names)
    if not all(field in known for field in fields):
        return []
    return [name for name in row_names(fields) if name in known]


def _batch_rows(batch: Any, fields: Sequence[str]) -> Iterator[Row | str]:
    known = set(batch.schema.names)
    for first in range(0, batch.num_rows, 1024):
        part = batch.slice(first, 1024)
        columns = [
            _values(part.column(name)) if name in known else [MISSING] * part.num_rows
            for name in row_names(fields)
        ]
        yield from zip(*columns, strict=True)


def _is_text(kind: Any) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _values(column: Any) -> list[object]:
    """Return Python values; bytes stand for a string that is not UTF-8."""
    if pa.types.is_dictionary(column.type):
        column.validate()
        shared, places = _values(column.dictionary), column.indices.to_pylist()
        if any(place is not None and not 0 <= place < len(shared) for place in places):
            raise pa.ArrowInvalid("a value that its dictionary does not hold")
        return [None if place is None else shared[place] for place in places]
    try:
        values: list[object] = column.to_pylist()
    except UnicodeDecodeError:
        kind = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
        values = [_decoded(value) for value in column.view(kind).to_pylist()]
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        values = [_decoded(value) for value in values]
    return values


def _decoded(value: Any) -> object:
    if value is None:
        return None
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        return bytes(value)
