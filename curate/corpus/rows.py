"""Records of each format → the values of the fields that are asked for."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus.containers import (
    MAX_JSON_BYTES,
    MAX_RECORD_BYTES,
    STREAM_ERRORS,
    BrokenFileError,
    Format,
    one_line,
    read_lines,
    read_whole,
)
from curate.corpus.fields import MISSING, Row

BATCH_BYTES = 16 * 1024 * 1024


def read_rows(
    path: Path, form: Format, fields: Sequence[str], *, start: int = 0, stop: int | None = None
) -> Iterator[Row | str]:
    """Yield each record as the values of `fields` and then of `id`, or as a reason.

    Args:
        path: the file.
        form: from `detect_format`.
        fields: names; a whole-file document gives its text for each of them.
        start: first record, from 0.
        stop: record to stop before; None reads to the end.

    Raises:
        BrokenFileError: damage; everything before it has been yielded.
    """
    match form.kind:
        case "jsonl":
            lines = islice(read_lines(path, form.compression), start, stop)
            return _json_lines(lines, fields)
        case "json":
            return islice(_json_file(path, form, fields), start, stop)
        case "csv" | "tsv":
            return islice(_csv_rows(path, form, fields), start, stop)
        case "parquet":
            return islice(_parquet_rows(path, fields), start, stop)
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


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _record_decoder(fields: Sequence[str]) -> msgspec.json.Decoder[Any]:
    """Return a decoder that keeps `fields` and `id` and passes over the rest unread."""
    names = [*fields, "id"] if "id" not in fields else list(fields)
    attributes = [f"f{number}" for number in range(len(names))]
    kind = msgspec.defstruct(
        "Record",
        [(attribute, Any, msgspec.field(default=MISSING)) for attribute in attributes],
        rename=dict(zip(attributes, names, strict=True)),
    )
    return msgspec.json.Decoder(kind)


def _json_lines(lines: Iterable[bytes | str], fields: Sequence[str]) -> Iterator[Row | str]:
    decode = _record_decoder(fields).decode
    values = msgspec.structs.astuple
    for line in lines:
        if isinstance(line, str):
            yield line
            continue
        try:
            yield values(decode(line))
        except msgspec.ValidationError:
            yield "wrong_type"
        except UnicodeDecodeError:
            yield "bad_utf8"
        except msgspec.DecodeError:
            yield _why_not_json(line)
        except RecursionError:
            yield "too_deep"


def _why_not_json(line: bytes) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return "bad_utf8"
    return "bad_json"


def _json_file(path: Path, form: Format, fields: Sequence[str]) -> Iterator[Row | str]:
    """Yield the objects of one JSON array, or the one object that a file is."""
    data = read_whole(path, form.compression, limit=MAX_JSON_BYTES)
    if data is None:
        raise BrokenFileError(
            f"one JSON value of more than {MAX_JSON_BYTES >> 20} MiB; write it as JSON lines",
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
    yield from _json_lines((bytes(item) for item in raw), fields)


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
    yield (*(text for _ in fields), path.name)


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
        wanted = [*fields, *(("id",) if "id" not in fields else ())]
        places = [header.index(name) if name in header else -1 for name in wanted]
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


def _parquet_rows(path: Path, fields: Sequence[str]) -> Iterator[Row | str]:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
    except STREAM_ERRORS as error:
        raise BrokenFileError(one_line(error)) from None
    done = 0
    try:
        with file:
            wanted = _wanted(fields, file.schema_arrow.names)
            total = file.metadata.num_rows
            n_bytes = sum(
                file.metadata.row_group(number).total_byte_size
                for number in range(file.metadata.num_row_groups)
            )
            rows = max(1, min(4096, BATCH_BYTES * max(1, total) // max(1, n_bytes)))
            if not wanted:
                yield from ("missing_field" for _ in range(total))
                return
            for batch in file.iter_batches(batch_size=rows, columns=wanted, use_threads=False):
                done += batch.num_rows
                yield from _batch_rows(batch, fields)
    except STREAM_ERRORS as error:
        raise BrokenFileError(f"damaged after {done} rows: {one_line(error)}") from None


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
                batch.validate(full=True)
                yield from _batch_rows(batch, fields)
                done += batch.num_rows
    except STREAM_ERRORS as error:
        raise BrokenFileError(f"damaged after {done} rows: {one_line(error)}") from None


def _wanted(fields: Sequence[str], names: Sequence[str]) -> list[str]:
    known = set(names)
    if not all(field in known for field in fields):
        return []
    return list(dict.fromkeys([*fields, *(("id",) if "id" in known else ())]))


def _batch_rows(batch: Any, fields: Sequence[str]) -> Iterator[Row | str]:
    names = [*fields, *(("id",) if "id" not in fields else ())]
    known = set(batch.schema.names)
    for first in range(0, batch.num_rows, 1024):
        part = batch.slice(first, 1024)
        columns = [
            _values(part.column(name)) if name in known else [MISSING] * part.num_rows
            for name in names
        ]
        yield from zip(*columns, strict=True)


def _values(column: Any) -> list[object]:
    """Return Python values; bytes stand for a string that is not UTF-8."""
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    try:
        values: list[object] = column.to_pylist()
    except UnicodeDecodeError:
        kind = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
        values = [_decoded(value) for value in column.view(kind).to_pylist()]
    if not text and (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        values = [_decoded(value) for value in values]
    return values


def _decoded(value: Any) -> object:
    if value is None:
        return None
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        return bytes(value)
