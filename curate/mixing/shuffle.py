"""A global shuffle in bounded memory: rows are dealt to chunks as they are read, then gathered."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.corpus.blocks import Block
from curate.corpus.prints import home_columns
from curate.mixing.arrows import checksum, note_done, open_arrow, staged, write_arrow
from curate.mixing.reading import read_blocks_of
from curate.records import Shard
from curate.store.failpoint import failpoint

if TYPE_CHECKING:  # a worker process draws nothing, and its start is what many of them cost
    from curate.mixing.drawn import Drawn

Ints = npt.NDArray[np.int64]

CHUNK_CHARS = 64_000_000
"""Characters of a chunk, about; what is known of its rows beside their text is held in memory."""

PLAN_COLUMNS = ("shard", "number", "file", "record", "epoch", "tokens", "end")
BY_SHARD = "by_shard"
CHUNK_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # rising
        ("start", pa.int64()),  # first byte of its text in the file beside this one
        ("size", pa.int64()),  # bytes of its text
        ("id", pa.string()),
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
    folder: str  # gets a text and an Arrow file for each chunk, `NAME.done` last
    name: str
    chunk_chars: int = CHUNK_CHARS


def write_plan(path: Path, drawn: Drawn, *, seed: int) -> None:
    """Publish the rows of a mix in their final order: all of them shuffled together.

    Args:
        path: gets a table of `PLAN_COLUMNS`, a line for each row of the mix; the held-out rows
            follow, in an order of their own, with an epoch of -1. Beside them `BY_SHARD`: the
            rows as their shards are read, so that who reads some looks through no others.
        drawn: the rows.
        seed: of the order.
    """
    starts = np.cumsum([0, *(len(each.number) for each in drawn.facts)])
    known = {
        name: np.concatenate([starts[:0], *(getattr(each, name) for each in drawn.facts)])
        for name in ("number", "file", "record")
    }
    columns: dict[str, list[Ints]] = {name: [] for name in PLAN_COLUMNS}
    for turn, rows in enumerate((drawn.rows, drawn.held)):
        order = np.random.default_rng([seed, turn]).permutation(len(rows.shard))
        shard = rows.shard[order]
        document = starts[shard] + rows.place[order]  # among all that were looked at
        epoch = rows.epoch[order] if turn == 0 else np.full(len(order), -1)
        found = {"shard": shard, "epoch": epoch, "tokens": rows.tokens[order],
                 "end": rows.end[order],
                 **{name: column[document] for name, column in known.items()}}  # fmt: skip
        for name in PLAN_COLUMNS:
            columns[name].append(found[name])
    plan = {name: np.concatenate(parts) for name, parts in columns.items()}
    write_arrow(path, pa.table({**plan, BY_SHARD: np.lexsort([plan["number"], plan["shard"]])}))


def divide_rows(tokens: Ints, *, part_tokens: int) -> list[tuple[int, int]]:
    """Divide rows in parts of about `part_tokens`: (first row, row after the last).

    They are an even number, so that two that are packed beside each other end together; only
    what is less than a quarter of a part is one.

    Example:
        >>> divide_rows(np.array([5, 5, 5, 5]), part_tokens=10)
        [(0, 2), (2, 4)]
    """
    ends = np.cumsum(tokens)
    total = int(ends[-1]) if len(ends) else 0
    n_parts = max(1, round(total / part_tokens))
    n_parts += n_parts % 2 if 4 * total >= part_tokens else 0
    marks = [total * number // n_parts for number in range(1, n_parts)]
    edges = [0, *np.searchsorted(ends, marks).tolist(), len(tokens)]
    edges[1:-1] = [edge + 1 for edge in edges[1:-1]]
    return [(a, b) for a, b in itertools.pairwise(edges) if b > a]


def write_chunks(reading: Reading) -> int:
    """Read the shards once and write the texts of their rows; return the tokens of these rows."""
    plan = read_plan(reading.plan)
    places, by_shard = np.sort(reading.places), plan[BY_SHARD]
    spans = np.searchsorted(plan["shard"], np.stack([places, places + 1], 1), sorter=by_shard)
    mine = np.concatenate([by_shard[first:last] for first, last in spans.tolist()])
    folder, pieces = Path(reading.folder), _pieces(reading, plan, mine)
    written: dict[Path, int] = {}
    for count in itertools.count():
        path = folder / f"{reading.name}-{count:05d}.arrow"
        files = _write_chunk(path, pieces, chars=reading.chunk_chars)
        if not files:
            break
        written |= files
    note_done(folder / f"{reading.name}.done", written)
    failpoint("mix.chunks")
    return int(plan["tokens"][mine].sum())


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of some rows, in their order, in the files of chunks."""

    files: tuple[memoryview, ...]
    file: Ints  # (n,) number of the file of each
    start: Ints  # (n,) first byte in it
    size: Ints  # (n,) bytes

    def read(self, first: int, last: int) -> Any:
        """Return the texts `first` to `last` (not included) as an Arrow array, copied once."""
        span = slice(first, last)
        places = (self.file[span], self.start[span], self.start[span] + self.size[span])
        data = b"".join(
            [
                self.files[file][start:end]
                for file, start, end in zip(*(place.tolist() for place in places), strict=True)
            ]
        )
        offsets = np.concatenate([[0], np.cumsum(self.size[span])]).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)


def gather(folder: Path, first: int, last: int) -> tuple[Any, Texts]:
    """Return the rows `first` to `last` (not included) in order: what is known of them, and texts.

    The table has the columns of `CHUNK_SCHEMA` from `id` on.
    """
    files: list[memoryview] = []
    tables, which = [CHUNK_SCHEMA.empty_table()], [np.zeros(0, np.int64)]
    for path in sorted(folder.glob("*.arrow")):
        table = open_arrow(path)
        begin, end = np.searchsorted(table["row"].to_numpy(), [first, last]).tolist()
        if end > begin:
            tables.append(table.slice(begin, end - begin))
            which.append(np.full(end - begin, len(files)))
            files.append(_map(path.with_suffix(".text")))
    table = pa.concat_tables(tables)
    order = np.argsort(table["row"].to_numpy(), kind="stable")
    known = table.select(CHUNK_SCHEMA.names[3:]).combine_chunks().take(order)
    places = (np.concatenate(which), table["start"].to_numpy(), table["size"].to_numpy())
    return known, Texts(tuple(files), *(place[order] for place in places))


def _map(path: Path) -> memoryview:
    """Map a file; its pages are the kernel's, to keep or to drop."""
    return memoryview(pa.memory_map(str(path)).read_buffer())


Piece = tuple[Ints, Ints, Ints, Block]  # rows, their documents' places in the block, cuts or -1


def _pieces(reading: Reading, plan: Mapping[str, Ints], mine: Ints) -> Iterator[Piece]:
    """Give the rows `mine` as their documents are read."""
    numbers, places = plan["number"][mine], np.array(reading.places)
    edges = np.searchsorted(plan["shard"][mine], np.stack([places, places + 1]))
    for found in read_blocks_of(reading.shards, text=reading.text):
        begin, end = edges[:, found.shard].tolist()
        wanted = [found.number, found.number + len(found.block.texts)]
        first, last = (np.searchsorted(numbers[begin:end], wanted) + begin).tolist()
        if last > first:
            rows = mine[first:last]
            yield rows, numbers[first:last] - found.number, plan["end"][rows], found.block


def _write_chunk(path: Path, pieces: Iterator[Piece], *, chars: int) -> dict[Path, int]:
    """Write rows, at least one piece and about `chars`; return the files and their checksums.

    Of the text it is that of what was to be written. None where no rows are left.
    """
    piece, chunk, check = next(pieces, None), _Chunk(), 0
    if piece is None:
        return {}
    texts = path.with_suffix(".text")
    with staged(texts) as temporary, temporary.open("wb") as stream:
        while piece is not None:
            check = _write(stream, chunk.add(*piece), check)
            piece = next(pieces, None) if chunk.chars < chars else None
    write_arrow(path, chunk.table())
    return {texts: check, path: checksum(path)}


def _write(stream: BinaryIO, data: bytes, check: int) -> int:
    """Write bytes, which nobody holds after it, and return the checksum that goes on with them."""
    stream.write(data)
    return zlib.crc32(data, check)


@dataclass(slots=True)
class _Chunk:
    """What is known of rows while their texts are written."""

    rows: list[Ints] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    homes: list[tuple[str, int]] = field(default_factory=list)
    about: list[tuple[str, str]] = field(default_factory=list)
    chars: int = 0

    def add(self, rows: Ints, places: Ints, ends: Ints, block: Block) -> bytes:
        """Add rows: documents of a block by their places in it, cut at `ends` that are not -1.

        Returns:
            Their texts.
        """
        taken = places.tolist()
        texts = [block.texts[place] for place in taken]
        for cut in np.flatnonzero(ends >= 0).tolist():
            texts[cut] = texts[cut][: int(ends[cut])]
        encoded = [text.encode() for text in texts]
        about = block.about or [("", "")] * len(block.texts)
        self.rows.append(rows)
        self.sizes += map(len, encoded)
        self.ids += [block.ids[place] for place in taken]
        self.homes += [block.homes[place] for place in taken] if block.homes else []
        self.about += [about[place] for place in taken]
        self.chars += sum(map(len, texts)) + sum(len(meta) for _, meta in block.about)
        return b"".join(encoded)

    def table(self) -> Any:
        """Return the rows in their order as a table of `CHUNK_SCHEMA`."""
        rows, sizes = np.concatenate(self.rows), np.array(self.sizes, np.int64)
        columns = [
            pa.array(rows),
            pa.array(np.cumsum(sizes) - sizes),
            pa.array(sizes),
            pa.array(self.ids, pa.string()),
            *home_columns(self.homes, len(rows)),
            pa.array([url for url, _ in self.about], pa.string()),
            pa.array([meta for _, meta in self.about], pa.large_string()),
        ]
        return pa.table(columns, CHUNK_SCHEMA).take(np.argsort(rows))


def read_plan(path: str) -> dict[str, Ints]:
    """Read a plan: its columns as arrays that lie in the file."""
    table = open_arrow(Path(path))
    return {name: table[name].to_numpy() for name in (*PLAN_COLUMNS, BY_SHARD)}
