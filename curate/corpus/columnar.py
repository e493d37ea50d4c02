"""Parquet and Arrow files → the values of the fields that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus.columns import BATCH_BYTES, batch_rows, is_text
from curate.corpus.containers import (
    MAX_RATIO,
    MAX_RECORD_BYTES,
    RATIO_FROM_BYTES,
    STREAM_ERRORS,
    BrokenFileError,
    Span,
    one_line,
)
from curate.corpus.fields import Row, row_names
from curate.corpus.formats import Format
from curate.corpus.ipc import check_batches


def column_names(path: Path, form: Format) -> tuple[str, ...]:
    """Return the names of the columns from the schema.

    Raises:
        STREAM_ERRORS: damaged.
    """
    if form.kind == "parquet":
        return tuple(pq.read_schema(path).names)
    with pa.OSFile(str(path), "rb") as stream:
        return tuple(_arrow_reader(stream, form).schema.names)


def count_rows(path: Path, form: Format) -> int:
    """Return the rows of a parquet or arrow file, from its footer where it has one.

    Raises:
        BrokenFileError: damaged.
    """
    try:
        if form.kind == "parquet":
            return int(pq.read_metadata(path).num_rows)
        check_batches(path, stream=form.kind == "arrow_stream")
        with pa.memory_map(str(path), "rb") as stream:
            return sum(batch.num_rows for batch in _batches(_arrow_reader(stream, form)))
    except STREAM_ERRORS as error:
        raise BrokenFileError(one_line(error)) from None


def parquet_rows(
    path: Path, fields: Sequence[str], start: int, span: Span | None
) -> Iterator[Row | str]:
    """Yield rows, a row group after the other, so that damage in one does not reach back.

    Args:
        path: a parquet file.
        fields: names of columns.
        start: first row, from 0, of the row groups of `span`.
        span: numbers of the row groups to read; None reads all.

    Raises:
        BrokenFileError: damage, or a column that unpacks to too much; everything before it has
            been yielded.
    """
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
                    yield from batch_rows(batch.slice(min(skip, batch.num_rows)), fields)
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
    shared = [field.name for field in schema if is_text(field.type)]
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


def _batches(reader: Any) -> Iterator[Any]:
    """Return the batches of a file's reader, which counts them, or of a stream's."""
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def arrow_rows(path: Path, form: Format, fields: Sequence[str]) -> Iterator[Row | str]:
    """Yield rows of an Arrow file or stream, a checked batch after the other.

    Raises:
        BrokenFileError: damage; everything before it has been yielded.
    """
    done = 0
    try:
        check_batches(path, stream=form.kind == "arrow_stream")
        with pa.memory_map(str(path), "rb") as stream:
            for batch in _batches(_arrow_reader(stream, form)):
                yield from batch_rows(_validated(batch), fields)
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
            if is_text(column.type)
            else column
            for column in batch.columns
        ]
        batch = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
        batch.validate(full=True)
    return batch


def _wanted(fields: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the columns to read; none where not one of the fields is there."""
    known = set(names)
    if not any(field in known for field in fields):
        return []
    return [name for name in row_names(fields) if name in known]
