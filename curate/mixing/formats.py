"""Rows to files: reproducible bytes, every row traceable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.errors import CurateError
from curate.mixing.arrows import checksum, is_done, note_done, open_arrow, staged, write_arrow
from curate.mixing.binary import TokenSpec, write_megatron, write_tokens
from curate.mixing.shuffle import PLAN_COLUMNS, Texts, gather, read_plan
from curate.mixing.streaming import write_mds
from curate.records import RecordRange
from curate.store.failpoint import failpoint

Format = Literal["parquet", "jsonl", "mds", "tokens", "megatron", "manifest"]

ENDINGS = {
    "parquet": "parquet", "jsonl": "jsonl", "mds": "mds", "tokens": "ds", "megatron": "bin",
}  # fmt: skip

PART_TOKENS = 16_000_000
"""Tokens a file, about 64 MB of text: as much as is held in memory at once."""

GROUP_CHARS = 16_000_000
"""Bytes of a row group at most (a longer row is one group)."""

ROW_SCHEMA = pa.schema(
    [("id", pa.string()), ("text", pa.string()), ("source", pa.string()), ("tokens", pa.int64())]
)
SELECTION_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("shard", pa.string()),
        ("path", pa.string()),
        ("file_digest", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("epoch", pa.int64()),
        ("tokens", pa.int64()),
        ("cut_at", pa.int64()),
        ("reason", pa.string()),
    ]
)
PROVENANCE_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("shard", pa.string()),
        ("file_digest", pa.string()),
        ("record", pa.int64()),
        ("alignment", pa.float64()),
        ("reason", pa.string()),
        ("epoch", pa.int64()),
        ("tokens", pa.int64()),
        ("cut", pa.bool_()),
        ("url", pa.string()),
        ("meta", pa.large_string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is known of a shard that rows come from."""

    shard: str
    source: str
    ranges: tuple[RecordRange, ...]
    alignment: float
    reason: str  # why it is in the mix


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One file of a mix."""

    path: str  # relative to the mix
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Writing:
    """One part of a mix, for a worker to write."""

    plan: str  # the file of `write_plan`
    chunks: str  # folder of `write_chunks`
    choices: str  # the file of `write_choices`
    first: int  # row
    last: int  # row after the last
    name: str  # relative to `folder`, with the ending that says the format
    folder: str
    spec: TokenSpec | None = None  # of tokenised formats


def write_part(writing: Writing) -> WrittenFile:
    """Write the rows of one part and, beside the chunks, their lines of the provenance."""
    folder, path = Path(writing.folder), Path(writing.folder) / writing.name
    trace = Path(writing.chunks) / "provenance" / f"{Path(writing.name).stem}.arrow"
    plan = read_plan(writing.plan)
    tokens = plan["tokens"][writing.first : writing.last]
    written = WrittenFile(writing.name, len(tokens), int(tokens.sum()))
    done = trace.with_suffix(".done")
    if is_done(done):
        return written
    known, texts = gather(Path(writing.chunks), writing.first, writing.last)
    if len(known) != len(tokens):
        raise CurateError(f"{folder}: {len(known)} of {len(tokens)} rows are there; run again")
    lines = _provenance(writing, plan, known)
    _write(path, _groups(lines.select(["id", "source", "tokens"]), texts), writing.spec)
    write_arrow(trace, lines)
    files = [trace, *path.parent.glob(f"{path.stem}.*")]
    note_done(done, {file: checksum(file) for file in files})
    failpoint("mix.parts")
    return written


def write_choices(path: Path, choices: Sequence[Choice]) -> None:
    """Write what is known of the shards of a mix, a line each: one file for all its parts.

    A part has rows of nearly every shard. Told in its work item, what is known of a million
    shards would go to a worker once for every part; from here it maps what it looks up.
    """
    columns = {
        "shard": pa.array([each.shard for each in choices], pa.string()),
        "source": pa.array([each.source for each in choices], pa.string()),
        "digests": pa.array(
            [[part.file_digest for part in each.ranges] for each in choices], pa.list_(pa.string())
        ),
        "alignment": pa.array([each.alignment for each in choices], pa.float64()),
        "reason": pa.array([each.reason for each in choices], pa.string()),
    }
    write_arrow(path, pa.table(columns))


def write_provenance(path: Path, chunks: Path, files: Sequence[WrittenFile]) -> None:
    """Write the provenance of all files in their order."""
    with staged(path) as temporary, _parquet(temporary, PROVENANCE_SCHEMA) as writer:
        for file in files:
            trace = chunks / "provenance" / f"{Path(file.path).stem}.arrow"
            writer.write_table(open_arrow(trace))


def write_selection(path: Path, plan: str, choices: Sequence[Choice]) -> None:
    """Write which records of which files a mix is made of: runs of records, in their order.

    `stop` is the record after the last; `cut_at` the character where a single record is cut, -1
    where it is whole; `epoch` counts from 0, -1 is the held-out slice.
    """
    rows = read_plan(plan)
    order = np.lexsort([rows[name] for name in ("record", "epoch", "file", "shard")])
    rows = {name: rows[name][order] for name in PLAN_COLUMNS}
    same = np.ones(max(len(order) - 1, 0), np.bool_)
    for name, step in (("shard", 0), ("file", 0), ("epoch", 0), ("record", 1)):
        same &= np.diff(rows[name]) == step
    same &= (rows["end"][1:] < 0) & (rows["end"][:-1] < 0)
    first = np.flatnonzero(np.concatenate([[True], ~same])) if len(order) else order
    last = np.append(first[1:], len(order)) - 1
    known = [
        (choices[n], f) for n, f in zip(rows["shard"][first], rows["file"][first], strict=True)
    ]
    columns = {
        "source": [choice.source for choice, _ in known],
        "shard": [choice.shard for choice, _ in known],
        "path": [choice.ranges[file].path for choice, file in known],
        "file_digest": [choice.ranges[file].file_digest for choice, file in known],
        "start": rows["record"][first],
        "stop": rows["record"][last] + 1,
        "epoch": rows["epoch"][first],
        "tokens": np.add.reduceat(rows["tokens"], first) if len(first) else first,
        "cut_at": rows["end"][first],
        "reason": [choice.reason for choice, _ in known],
    }
    with staged(path) as temporary, _parquet(temporary, SELECTION_SCHEMA) as writer:
        writer.write_table(pa.table(columns, SELECTION_SCHEMA))


def write_lines(path: Path, records: Iterable[Any]) -> int:
    """Write records as JSON lines; return how many."""
    count = 0
    encoder = msgspec.json.Encoder()
    with staged(path) as temporary, temporary.open("wb") as stream:
        for record in records:
            stream.write(encoder.encode(record) + b"\n")
            count += 1
    return count


def _write(path: Path, groups: Iterator[Any], spec: TokenSpec | None) -> None:
    """Write groups of rows in the format that the ending of `path` says."""
    if spec is not None:
        write = write_tokens if path.suffix == ".ds" else write_megatron
        write(path, pa.concat_tables(groups), spec)
    elif path.suffix == ".mds":
        write_mds(path, pa.concat_tables(groups))
    else:
        with staged(path) as temporary:
            (_write_parquet if path.suffix == ".parquet" else _write_jsonl)(temporary, groups)


def _parquet(path: Path, schema: pa.Schema) -> Any:
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=3,
        write_page_checksum=True,
        write_statistics=False,
        use_dictionary=[name for name in schema.names if name not in ("id", "text", "row")],
        version="2.6",
    )


def _write_parquet(path: Path, groups: Iterator[Any]) -> None:
    with _parquet(path, ROW_SCHEMA) as writer:
        for group in groups:
            writer.write_table(group)
            del group  # before the next one is made


def _write_jsonl(path: Path, groups: Iterator[Any]) -> None:
    encoder = msgspec.json.Encoder()
    with path.open("wb") as stream:
        for group in groups:
            for batch in group.to_batches(max_chunksize=1024):
                stream.writelines(encoder.encode(row) + b"\n" for row in batch.to_pylist())


def _groups(known: Any, texts: Texts) -> Iterator[Any]:
    """Give the rows as tables of `ROW_SCHEMA`, each of at most `GROUP_CHARS` bytes of text."""
    sizes = np.cumsum(texts.size)
    first = before = 0
    while first < len(sizes):
        last = max(first + 1, int(np.searchsorted(sizes, before + GROUP_CHARS, side="right")))
        rows = known.slice(first, last - first)
        yield rows.add_column(1, ROW_SCHEMA.field("text"), texts.read(first, last))
        first, before = last, int(sizes[last - 1])
    if not len(sizes):
        yield ROW_SCHEMA.empty_table()


def _provenance(writing: Writing, plan: Mapping[str, Any], table: Any) -> Any:
    """Return a line for each row; a regrouped document names the file that it came from first."""
    part = {name: column[writing.first : writing.last] for name, column in plan.items()}
    which = part["shard"]
    known = open_arrow(Path(writing.choices)).combine_chunks().to_batches()[0]

    def named(column: str) -> Any:
        """Return a value of each shard for every row."""
        return known[column].take(pa.array(which))

    starts = known["digests"].offsets.to_numpy()
    digests = known["digests"].values.take(pa.array(starts[which] + part["file"]))
    columns = {
        "file": pa.array([writing.name]).take(pa.array(np.zeros(len(which), np.int64))),
        "row": pa.array(np.arange(len(which))),
        "id": table["id"],
        "source": named("source"),
        "shard": named("shard"),
        "file_digest": pc.coalesce(table["home"], digests),
        "record": pc.coalesce(table["home_record"], pa.array(part["record"])),
        "alignment": named("alignment"),
        "reason": named("reason"),
        "epoch": pa.array(part["epoch"]),
        "tokens": pa.array(part["tokens"]),
        "cut": pa.array(part["end"] >= 0),
        "url": table["url"],
        "meta": table["meta"],
    }
    return pa.table(columns, schema=PROVENANCE_SCHEMA)
