"""The text that methods read: pieces of every shard's documents, drawn once and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus.ranges import read_ranges
from curate.records import Index, Notify
from curate.store.fingerprint import fingerprint
from curate.store.meta import is_current, publish_meta
from curate.store.publish import publishing

READ_SHARD = 200_000  # characters of each shard, at least, where it holds so many
READ_CHARACTERS = 4_000  # of a piece: longer documents are cut into several
READ_AT_ONCE = 64  # shards: some 20 MB
SCHEMA = pa.schema([("documents", pa.list_(pa.large_binary()))])


class Samples(Sequence[list[str]]):
    """Pieces of text of every shard, in the order of the index, read from a file when asked for.

    Of a pass from the first to the last, `READ_AT_ONCE` shards are in memory at a time.
    """

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        groups = range(self._file.metadata.num_row_groups)
        sizes = [self._file.metadata.row_group(group).num_rows for group in groups]
        self._ends = np.cumsum(sizes)

    def __len__(self) -> int:
        return self._file.metadata.num_rows

    def __iter__(self) -> Iterator[list[str]]:
        for group in range(len(self._ends)):
            yield from self._read(group)

    @overload
    def __getitem__(self, place: int) -> list[str]: ...
    @overload
    def __getitem__(self, place: slice) -> list[list[str]]: ...
    def __getitem__(self, place: int | slice) -> list[str] | list[list[str]]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        group = int(np.searchsorted(self._ends, number, side="right"))
        return self._read(group)[number - int(self._ends[group])]

    def _read(self, group: int) -> list[list[str]]:
        rows = self._file.read_row_group(group, columns=["documents"])["documents"].to_pylist()
        return [[text.decode("utf-8", "surrogatepass") for text in row] for row in rows]


def read_samples(index: Index, *, seed: int, workspace: Path, notify: Notify) -> Samples:
    """Return pieces of every shard's documents in a seeded order.

    All pieces of a shard are as likely, so that each of its sources is read by its share of the
    text. (The first piece of each document alone would show little of a source of long ones.)
    The shards are read once; what was drawn is kept in `workspace/ranking/texts`, so that
    another target or method reads no shard again.

    Raises:
        CurateError: an input changed since it was indexed.
    """
    folder = workspace / "ranking" / "texts"
    key = fingerprint(
        index=index.fingerprint,
        seed=seed,
        shard=READ_SHARD,
        piece=READ_CHARACTERS,
        at_once=READ_AT_ONCE,
    )
    path = folder / "texts.parquet"
    if not is_current(folder, kind="texts", fingerprint=key):
        with (
            publishing(path) as temporary,
            pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer,
        ):
            for first in range(0, len(index.shards), READ_AT_ONCE):
                last = min(first + READ_AT_ONCE, len(index.shards))
                drawn = [_draw(index, number, seed, notify) for number in range(first, last)]
                rows = [[text.encode("utf-8", "surrogatepass") for text in one] for one in drawn]
                writer.write_table(pa.table({"documents": rows}, SCHEMA))
        publish_meta(folder, kind="texts", fingerprint=key, files=[path.name], body={})
    return Samples(path)


def draw_items(items: tuple[str, ...], count: int, *, seed: int) -> list[str]:
    """Return `count` items of a target at most, in their order."""
    kept = np.sort(np.random.default_rng(seed).permutation(len(items))[:count])
    return [items[number] for number in kept]


def _draw(index: Index, number: int, seed: int, notify: Notify) -> list[str]:
    documents = read_ranges(index.shards[number].shard, text=index.corpus.text)
    texts = [
        document.text[start : start + READ_CHARACTERS]
        for document in documents
        for start in range(0, max(len(document.text), 1), READ_CHARACTERS)
    ]
    order = np.random.default_rng(seed).permutation(len(texts))
    sizes = np.cumsum([len(texts[place]) for place in order])
    notify("reading shards", number + 1, len(index.shards))
    return [texts[place] for place in order[: 1 + np.searchsorted(sizes, READ_SHARD)]]
