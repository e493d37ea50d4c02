"""A global shuffle in bounded memory: rows are dealt to chunks as they are read, then gathered."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.corpus.blocks import Block
from curate.corpus.prints import home_columns
from curate.mixing.arrows import open_arrow, write_arrow
from curate.mixing.draw import Drawn
from curate.mixing.reading import read_blocks_of
from curate.records import Shard
from curate.store.failpoint import failpoint

Ints = npt.NDArray[np.int64]

CHUNK_CHARS = 64_000_000
"""Characters that are held while a chunk is filled."""

PLAN_COLUMNS = ("shard", "number", "file", "record", "epoch", "tokens", "end")
CHUNK_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # rising
        ("place", pa.int64()),  # of that row in the columns that follow
        ("id", pa.string()),
        ("text", pa.large_string()),
        ("home", pa.string()),  # of regrouped documents: the file they come from; else null
        ("home_record", pa.int64()),
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
    mine = mine[np.lexsort([plan["number"][mine], plan["shard"][mine]])]
    numbers = plan["number"][mine]
    places = np.array(reading.places)
    edges = np.searchsorted(plan["shard"][mine], np.stack([places, places + 1]))
    chunk, count = _Chunk(), 0
    for found in read_blocks_of(reading.shards, text=reading.text):
        begin, end = edges[:, found.shard].tolist()
        wanted = [found.number, found.number + len(found.block.texts)]
        first, last = (np.searchsorted(numbers[begin:end], wanted) + begin).tolist()
        if last > first:
            rows = mine[first:last]
            chunk.add(rows, numbers[first:last] - found.number, plan["end"][rows], found.block)
        if chunk.chars >= reading.chunk_chars:
            chunk.write(Path(reading.folder) / f"{reading.name}-{count:05d}.arrow")
            chunk, count = _Chunk(), count + 1
    if chunk.rows:
        chunk.write(Path(reading.folder) / f"{reading.name}-{count:05d}.arrow")
    (Path(reading.folder) / f"{reading.name}.done").touch()
    failpoint("mix.chunks")
    return int(plan["tokens"][mine].sum())


def gather(folder: Path, first: int, last: int) -> Any:
    """Return the rows `first` to `last` (not included) as a table of `CHUNK_SCHEMA`, in order."""
    tables, rows = [], []
    for path in sorted(folder.glob("*.arrow")):
        table = open_arrow(path)
        here = table["row"].to_numpy()
        begin, end = np.searchsorted(here, [first, last]).tolist()
        if end > begin:
            # Of one mapped file at a time: taken from several together, all would be copied.
            places = table["place"].to_numpy()[begin:end]
            tables.append(table.drop_columns(["row", "place"]).take(places))
            rows.append(here[begin:end])
    if not tables:
        return CHUNK_SCHEMA.empty_table()
    order = np.argsort(np.concatenate(rows), kind="stable")
    return pa.concat_tables(tables).take(order)


@dataclass(slots=True)
class _Chunk:
    """Rows while they are collected."""

    rows: list[Ints] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    homes: list[tuple[str, int]] = field(default_factory=list)
    about: list[tuple[str, str]] = field(default_factory=list)
    chars: int = 0

    def add(self, rows: Ints, places: Ints, ends: Ints, block: Block) -> None:
        """Add rows: documents of a block by their places in it, cut at `ends` that are not -1."""
        taken = places.tolist()
        texts = [block.texts[place] for place in taken]
        for cut in np.flatnonzero(ends >= 0).tolist():
            texts[cut] = texts[cut][: int(ends[cut])]
        self.rows.append(rows)
        self.ids += [block.ids[place] for place in taken]
        self.texts += texts
        self.homes += [block.homes[place] for place in taken] if block.homes else []
        about = block.about or [("", "")] * len(block.texts)
        self.about += [about[place] for place in taken]
        self.chars += sum(map(len, texts)) + sum(len(meta) for _, meta in block.about)

    def write(self, path: Path) -> None:
        """Publish the rows: their texts as they came, and in which order they are wanted."""
        rows = np.concatenate(self.rows)
        order = np.argsort(rows)
        columns = [
            pa.array(rows[order]),
            pa.array(order),
            pa.array(self.ids, pa.string()),
            pa.array(self.texts, pa.large_string()),
            *home_columns(self.homes, len(rows)),
            pa.array([url for url, _ in self.about], pa.string()),
            pa.array([meta for _, meta in self.about], pa.large_string()),
        ]
        write_arrow(path, pa.table(columns, CHUNK_SCHEMA))


def read_plan(path: str) -> dict[str, Ints]:
    """Read a plan: its columns as arrays that lie in the file."""
    table = open_arrow(Path(path))
    return {name: table[name].to_numpy() for name in PLAN_COLUMNS}
