"""What each document is known by, kept beside the index: its words as numbers, its sketch.

A mix looks for leaks and copies in these files instead of reading the text again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.corpus.blocks import Block
from curate.corpus.reader import READING
from curate.corpus.sketch import BINS, Signatures, sketch
from curate.corpus.words import Values, number_words
from curate.records import Document, RecordRange, Shard, ShardText
from curate.store.fingerprint import fingerprint
from curate.store.publish import is_sealed, publish_sealed

VERSION = 2
"""Of what is in a file: another one is made where this changes."""

GROUP_CHARS = 200_000
"""Characters whose words are numbered together: the arrays stay in the cache."""

Codes = npt.NDArray[np.uint16]
"""Words by the first 16 bits of their numbers: two words share a code once in 65,536."""

SCHEMA = pa.schema(
    [
        ("file", pa.int32()),
        ("record", pa.int64()),
        ("id", pa.string()),
        ("home", pa.string()),
        ("home_record", pa.int64()),
        ("value", pa.uint64()),
        ("signature", pa.binary(2 * BINS)),
        ("shingles", pa.int64()),
        ("words", pa.large_list(pa.uint16())),
    ]
)


@dataclass(frozen=True, slots=True)
class Prints:
    """The documents of a shard, in its order: arrays (n,) that lie in the file."""

    file: npt.NDArray[np.int32]  # of the shard's ranges
    record: npt.NDArray[np.int64]
    value: Values  # of all words
    signature: Signatures  # (n, BINS)
    shingles: npt.NDArray[np.int64]
    codes: Codes  # of the words of all documents
    bounds: npt.NDArray[np.int64]  # (n + 1,) where each document's words begin in `codes`
    ids: Any  # a pyarrow array
    homes: Any  # of regrouped documents: digest of the file they come from; else null
    home_records: Any


def word_codes(values: Values) -> Codes:
    """Return the codes of words from their numbers."""
    return (values >> np.uint64(48)).astype(np.uint16)


def prints_name(shard: Shard, *, text: str) -> str:
    """Return the name of a shard's file: of its text, where its records are, and how it is read."""
    ranges = [(part.file_digest, part.start, part.stop) for part in shard.ranges]
    mark = fingerprint(
        version=[VERSION, READING], digest=shard.digest, ranges=ranges, source=shard.source,
        text=text,
    )  # fmt: skip
    return f"{mark[:40]}.arrows"


def tabulate(file: int, block: Block) -> Any:
    """Return what documents that follow each other in a range of a shard are known by.

    Args:
        file: number of the range.
        block: the documents.

    Returns:
        A table of `SCHEMA`.
    """
    found = []
    first = chars = 0
    for last, text in enumerate(block.texts, start=1):
        chars += len(text)
        if chars >= GROUP_CHARS or last == len(block.texts):
            found.append(_batch(file, block.part(first, last)))
            first, chars = last, 0
    return pa.Table.from_batches(found, SCHEMA)


def write_prints(path: Path, tables: Sequence[Any]) -> None:
    """Publish the file of a shard from `tabulate`'s tables of all its documents, in order."""
    batches = [batch for table in tables for batch in table.to_batches()]
    table, stream = pa.Table.from_batches(batches, SCHEMA), pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, SCHEMA) as writer:
        writer.write_table(table if len(batches) == 1 else table.combine_chunks())
    publish_sealed(path, memoryview(stream.getvalue()).cast("B"))


def keep_prints(folder: Path, text: ShardText, *, setting: str) -> Path | None:
    """Publish the file of a shard whose text is at hand; None where a mix has to make it.

    Args:
        folder: of these files.
        text: shard and documents.
        setting: field or template of the text.
    """
    path = folder / prints_name(text.shard, text=setting)
    if is_sealed(path):
        return path
    places = _places(text)
    if places is None:
        return None
    files, records = np.array(places, np.int64).T
    edges = [0, *(np.flatnonzero(np.diff(files)) + 1).tolist(), len(files)]
    documents = text.documents
    tables = [
        tabulate(int(files[a]), _block(documents[a:b], records[a:b], text.shard.grouped))
        for a, b in itertools.pairwise(edges)
    ]
    write_prints(path, tables)
    return path


def home_columns(homes: Sequence[tuple[str, int]], count: int) -> list[Any]:
    """Return the columns `home` and `home_record`; null where documents are at home."""
    if not homes:
        return [pa.nulls(count, pa.string()), pa.nulls(count, pa.int64())]
    return [
        pa.array([home for home, _ in homes], pa.string()),
        pa.array([record for _, record in homes], pa.int64()),
    ]


def read_prints(path: Path) -> Prints:
    """Read a published file in place."""
    table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    if not len(table):
        table = SCHEMA.empty_table()
    columns = {
        name: table[name].chunk(0) if table[name].num_chunks else pa.array([], kind)
        for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True)
    }
    signature = np.frombuffer(columns["signature"].buffers()[1] or b"", np.uint16)
    words = columns["words"]
    return Prints(
        file=columns["file"].to_numpy(),
        record=columns["record"].to_numpy(),
        value=columns["value"].to_numpy(),
        signature=signature[: len(table) * BINS].reshape(-1, BINS),
        shingles=columns["shingles"].to_numpy(),
        codes=words.values.to_numpy(),
        bounds=words.offsets.to_numpy() if len(table) else np.zeros(1, np.int64),
        ids=columns["id"],
        homes=columns["home"],
        home_records=columns["home_record"],
    )


def _block(documents: Sequence[Document], records: npt.NDArray[np.int64], grouped: bool) -> Block:
    homes = [(each.file_digest, each.record) for each in documents] if grouped else []
    ids, texts = [each.id for each in documents], [each.text for each in documents]
    return Block(records, ids, texts, homes)


def _places(text: ShardText) -> list[tuple[int, int]] | None:
    """Return range and record of each document; None where documents do not tell."""
    ranges = text.shard.ranges
    if text.shard.grouped:  # documents name their first home, not their place in the group file
        places = [(n, record) for n, part in enumerate(ranges) for record in _records(part)]
        return places if len(places) == text.shard.n_documents else None
    found, number = [], 0
    for document in text.documents:
        while not _holds(ranges[number], document.file_digest, document.record):
            number += 1
            if number == len(ranges):
                return None
        found.append((number, document.record))
    return found


def _records(part: RecordRange) -> range:
    return range(part.start, part.stop)


def _holds(part: RecordRange, digest: str, record: int) -> bool:
    return part.file_digest == digest and part.start <= record < part.stop


def _batch(file: int, block: Block) -> Any:
    words, count = number_words(block.texts), len(block.ids)
    values, signatures, shingles = sketch(words)
    codes = pa.LargeListArray.from_arrays(
        pa.array(words.bounds), pa.array(word_codes(words.values))
    )
    columns = [
        pa.array(np.full(count, file, np.int32)),
        pa.array(block.records),
        pa.array(block.ids, pa.string()),
        *home_columns(block.homes, count),
        pa.array(values),
        pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(2 * BINS), count, [None, pa.py_buffer(signatures.tobytes())]
        ),
        pa.array(shingles),
        codes,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
