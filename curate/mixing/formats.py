"""Rows to files: shuffled, reproducible bytes, every row traceable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.mixing.documents import Chosen

Format = Literal["parquet", "jsonl"]

PART_TOKENS = 16_000_000
"""Tokens a file, about 64 MB of text: as much as is held in memory to shuffle."""

MAX_PARTS = 512
GROUP_CHARS = 16_000_000
"""Characters of a row group at most (a longer row is one group)."""

ROW_SCHEMA = pa.schema(
    [("id", pa.string()), ("text", pa.string()), ("source", pa.string()), ("tokens", pa.int64())]
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
    ]
)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a mix on its way to a file."""

    id: str
    text: str
    source: str
    shard: str
    file_digest: str
    record: int
    epoch: int
    tokens: int
    cut: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """Why a shard is in the mix."""

    alignment: float
    reason: str


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One file of a mix."""

    path: str  # relative to the mix
    rows: int
    tokens: int


def write_rows(
    chosen: Iterable[Chosen],
    folder: Path,
    *,
    budget: int,
    choices: Mapping[str, Choice],
    fmt: Format = "parquet",
    part_tokens: int = PART_TOKENS,
    seed: int = 0,
) -> list[WrittenFile]:
    """Write the rows of a mix in random order, and `provenance.parquet` with a line for each.

    Every row is dealt to one of the parts at random and each part is then shuffled: an
    exact shuffle that holds one part in memory. The bytes depend on the rows, their order
    and the seed alone.

    Args:
        chosen: rows, in an order that the seed decides.
        folder: gets `data/`, `provenance.parquet`; the parts wait in `spool/`.
        budget: tokens in all, to decide the number of parts.
        choices: shard → why it is in the mix.
        fmt: parquet or jsonl.
        part_tokens: tokens a part, on average.
        seed: of the shuffle.

    Returns:
        The files under `data/`, none empty.
    """
    n_parts = int(np.clip(-(-budget // part_tokens), 1, MAX_PARTS))
    spool, data = folder / "spool", folder / "data"
    spool.mkdir(parents=True)
    data.mkdir()
    _deal(chosen, spool, n_parts=n_parts, seed=seed)
    written: list[WrittenFile] = []
    with _parquet(folder / "provenance.parquet", PROVENANCE_SCHEMA) as provenance:
        for part in range(n_parts):
            path = spool / f"{part}"
            rows = list(_read_spool(path))
            path.unlink()
            if not rows:
                continue
            order = np.random.default_rng([seed, part]).permutation(len(rows)).tolist()
            rows = [rows[number] for number in order]
            name = f"data/part-{len(written):05d}.{fmt}"
            (_write_parquet if fmt == "parquet" else _write_jsonl)(folder / name, rows)
            provenance.write_table(_provenance(rows, name, choices))
            written.append(WrittenFile(name, len(rows), sum(row.tokens for row in rows)))
    spool.rmdir()
    return written


def read_rows(folder: Path, files: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Read the text and the number of tokens of every row, in the order of the files."""
    for name in files:
        path = folder / name
        if path.suffix == ".jsonl":
            with path.open("rb") as stream:
                for line in stream:
                    row = msgspec.json.decode(line)
                    yield row["text"], row["tokens"]
            continue
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(columns=["text", "tokens"], batch_size=256):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def write_lines(path: Path, records: Iterable[Any]) -> int:
    """Write records as JSON lines; return how many."""
    count = 0
    encoder = msgspec.json.Encoder()
    with path.open("wb") as stream:
        for record in records:
            stream.write(encoder.encode(record) + b"\n")
            count += 1
    return count


def _deal(chosen: Iterable[Chosen], spool: Path, *, n_parts: int, seed: int) -> None:
    rng = np.random.default_rng([seed, n_parts])
    encoder = msgspec.msgpack.Encoder()
    with ExitStack() as stack:
        streams: list[BinaryIO] = [
            stack.enter_context((spool / f"{part}").open("wb")) for part in range(n_parts)
        ]
        for each in chosen:
            data = encoder.encode(_row(each))
            stream = streams[int(rng.integers(n_parts))]
            stream.write(len(data).to_bytes(8, "little"))
            stream.write(data)


def _read_spool(path: Path) -> Iterator[Row]:
    decoder = msgspec.msgpack.Decoder(Row)
    with path.open("rb") as stream:
        while head := stream.read(8):
            yield decoder.decode(stream.read(int.from_bytes(head, "little")))


def _row(each: Chosen) -> Row:
    document = each.document
    return Row(
        id=document.id,
        text=each.text,
        source=document.source,
        shard=each.shard,
        file_digest=document.file_digest,
        record=document.record,
        epoch=each.epoch,
        tokens=each.n_tokens,
        cut=each.cut,
    )


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


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    with _parquet(path, ROW_SCHEMA) as writer:
        for group in _groups(rows):
            columns = {name: [getattr(row, name) for row in group] for name in ROW_SCHEMA.names}
            writer.write_table(pa.table(columns, schema=ROW_SCHEMA))


def _write_jsonl(path: Path, rows: Sequence[Row]) -> None:
    names = ROW_SCHEMA.names
    write_lines(path, ({name: getattr(row, name) for name in names} for row in rows))


def _groups(rows: Sequence[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    chars = 0
    for row in rows:
        if group and chars + len(row.text) > GROUP_CHARS:
            yield group
            group, chars = [], 0
        group.append(row)
        chars += len(row.text)
    yield group


def _provenance(rows: Sequence[Row], name: str, choices: Mapping[str, Choice]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        "file": [name] * len(rows),
        "row": list(range(len(rows))),
        "alignment": [choices[row.shard].alignment for row in rows],
        "reason": [choices[row.shard].reason for row in rows],
    }
    for field in ("id", "source", "shard", "file_digest", "record", "epoch", "tokens", "cut"):
        columns[field] = [getattr(row, field) for row in rows]
    return pa.table({n: columns[n] for n in PROVENANCE_SCHEMA.names}, schema=PROVENANCE_SCHEMA)
