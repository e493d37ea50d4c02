"""A global shuffle in bounded memory: rows are dealt to chunks as they are read, then gathered."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.mixing.arrows import open_arrow, write_arrow
from curate.mixing.draw import Drawn
from curate.mixing.reading import read_documents_of
from curate.records import Document, Shard
from curate.store.failpoint import failpoint

Ints = npt.NDArray[np.int64]

CHUNK_CHARS = 64_000_000
"""Characters that are held while a chunk is filled."""

PLAN_COLUMNS = ("shard", "number", "file", "record", "epoch", "tokens", "end")
CHUNK_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("text", pa.large_string()),
        ("file_digest", pa.string()),
        ("record", pa.int64()),
        ("url", pa.string()),
        ("meta", pa.large_string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Reading:
    """Shards whose rows one worker writes to chunks."""

    plan: str  # the file of `write_plan`
    shards: tuple[Shard, ...]
    places: tuple[int, ...]  # of these shards in the plan
    text: str  # field or template of the index
    folder: str  # gets `NAME.arrow` for each chunk, `NAME.done` last
    name: str
    chunk_chars: int = CHUNK_CHARS


def write_plan(path: Path, drawn: Drawn, *, seed: int) -> None:
    """Publish the rows of a mix in their final order: all of them shuffled together.

    Args:
        path: gets a table of `PLAN_COLUMNS`, a line for each row of the mix; the held-out rows
            follow, in an order of their own, with an epoch of -1.
        drawn: the rows.
        seed: of the order.
    """
    columns: dict[str, list[Ints]] = {name: [] for name in PLAN_COLUMNS}
    for turn, rows in enumerate((drawn.rows, drawn.held)):
        order = np.random.default_rng([seed, turn]).permutation(len(rows.shard))
        shard, place = rows.shard[order], rows.place[order]
        known = {name: np.empty(len(order), np.int64) for name in ("number", "file", "record")}
        for number, facts in enumerate(drawn.facts):
            mine = np.flatnonzero(shard == number)
            for name, column in known.items():
                column[mine] = getattr(facts, name)[place[mine]]
        epoch = rows.epoch[order] if turn == 0 else np.full(len(order), -1)
        found = {"shard": shard, "epoch": epoch, "tokens": rows.tokens[order],
                 "end": rows.end[order], **known}  # fmt: skip
        for name in PLAN_COLUMNS:
            columns[name].append(found[name])
    write_arrow(path, pa.table({name: np.concatenate(parts) for name, parts in columns.items()}))


def divide_rows(tokens: Ints, *, part_tokens: int) -> list[tuple[int, int]]:
    """Divide rows in parts of about `part_tokens`: (first row, row after the last).

    Example:
        >>> divide_rows(np.array([5, 5, 5, 5]), part_tokens=10)
        [(0, 2), (2, 4)]
    """
    ends = np.cumsum(tokens)
    total = int(ends[-1]) if len(ends) else 0
    n_parts = max(1, round(total / part_tokens))
    marks = [total * number // n_parts for number in range(1, n_parts)]
    edges = [0, *np.searchsorted(ends, marks).tolist(), len(tokens)]
    edges[1:-1] = [edge + 1 for edge in edges[1:-1]]
    return [(a, b) for a, b in itertools.pairwise(edges) if b > a]


def write_chunks(reading: Reading) -> int:
    """Read the shards once and write the texts of their rows; return the tokens of these rows."""
    plan = read_plan(reading.plan)
    mine = np.flatnonzero(np.isin(plan["shard"], reading.places))
    shards, numbers = plan["shard"][mine], plan["number"][mine]
    wanted: list[dict[int, list[int]]] = []
    for place in reading.places:
        rows: dict[int, list[int]] = {}
        here = np.flatnonzero(shards == place)
        for number, row in zip(numbers[here].tolist(), mine[here].tolist(), strict=True):
            rows.setdefault(number, []).append(row)
        wanted.append(rows)
    chunk, chars, count = _Chunk(), 0, 0
    for found in read_documents_of(reading.shards, text=reading.text):
        for row in wanted[found.shard].get(found.number, ()):
            end = int(plan["end"][row])
            text = found.document.text if end < 0 else found.document.text[:end]
            chunk.add(row, found.document, text)
            chars += len(text) + len(found.document.meta)
            if chars >= reading.chunk_chars:
                chunk.write(Path(reading.folder) / f"{reading.name}-{count:05d}.arrow")
                chunk, chars, count = _Chunk(), 0, count + 1
    if chunk.rows:
        chunk.write(Path(reading.folder) / f"{reading.name}-{count:05d}.arrow")
    (Path(reading.folder) / f"{reading.name}.done").touch()
    failpoint("mix.chunks")
    return int(plan["tokens"][mine].sum())


def gather(folder: Path, first: int, last: int) -> Any:
    """Return the rows `first` to `last` (not included) as a table of `CHUNK_SCHEMA`, in order."""
    slices = []
    for path in sorted(folder.glob("*.arrow")):
        table = open_arrow(path)
        rows = table["row"].to_numpy()
        begin, end = np.searchsorted(rows, [first, last]).tolist()
        if end > begin:
            slices.append(table.slice(begin, end - begin))
    whole = pa.concat_tables(slices) if slices else CHUNK_SCHEMA.empty_table()
    return whole.take(np.argsort(whole["row"].to_numpy(), kind="stable"))


@dataclass(slots=True)
class _Chunk:
    """Rows while they are collected: the values of `CHUNK_SCHEMA`."""

    rows: list[tuple[int, str, str, str, int, str, str]] = field(default_factory=list)

    def add(self, row: int, of: Document, text: str) -> None:
        self.rows.append((row, of.id, text, of.file_digest, of.record, of.url, of.meta))

    def write(self, path: Path) -> None:
        """Publish the rows in their final order, so that any run of them lies together."""
        columns = zip(*sorted(self.rows), strict=True)
        typed = [pa.array(c, f.type) for c, f in zip(columns, CHUNK_SCHEMA, strict=True)]
        write_arrow(path, pa.table(typed, CHUNK_SCHEMA))


def read_plan(path: str) -> dict[str, Ints]:
    """Read a plan: its columns as arrays that lie in the file."""
    table = open_arrow(Path(path))
    return {name: table[name].to_numpy() for name in PLAN_COLUMNS}
