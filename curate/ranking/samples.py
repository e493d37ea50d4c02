"""The text that methods read: pieces of every shard's documents, drawn once and kept."""

from __future__ import annotations

from pathlib import Path

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


def read_samples(index: Index, *, seed: int, workspace: Path, notify: Notify) -> list[list[str]]:
    """Return pieces of every shard's documents in a seeded order.

    All pieces of a shard are as likely, so that each of its sources is read by its share of the
    text. (The first piece of each document alone would show little of a source of long ones.)
    The shards are read once; what was drawn is kept in `workspace/ranking/texts`, so that
    another target or method reads no shard again. All of it is in memory: about 0.2 MB a shard.

    Raises:
        CurateError: an input changed since it was indexed.
    """
    folder = workspace / "ranking" / "texts"
    key = fingerprint(index=index.fingerprint, seed=seed, shard=READ_SHARD, piece=READ_CHARACTERS)
    path = folder / "texts.parquet"
    if not is_current(folder, kind="texts", fingerprint=key):
        texts = [_draw(index, number, seed, notify) for number in range(len(index.shards))]
        column = [[text.encode("utf-8", "surrogatepass") for text in one] for one in texts]
        table = pa.table({"documents": pa.array(column, pa.list_(pa.large_binary()))})
        with publishing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        publish_meta(folder, kind="texts", fingerprint=key, files=[path.name], body={})
        return texts
    rows = pq.read_table(path)["documents"].to_pylist()
    return [[text.decode("utf-8", "surrogatepass") for text in row] for row in rows]


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
