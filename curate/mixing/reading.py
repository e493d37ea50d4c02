"""The documents of many shards, each file read once from its start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from curate.corpus.blocks import Block, read_blocks
from curate.errors import CurateError
from curate.records import RecordRange, Shard

TASK_TOKENS = 8_000_000
"""Tokens of the shards that one worker reads in one go, at least; a file is never divided."""


@dataclass(frozen=True, slots=True)
class Found:
    """Documents of one shard on their way."""

    shard: int  # its place in the list of shards
    number: int  # of the first document in its shard
    file: int  # the shard's range that they are in
    block: Block


def divide(shards: Sequence[Shard], *, task_tokens: int = TASK_TOKENS) -> list[list[int]]:
    """Divide shards in tasks for workers, given by their places; the order is that of files.

    Shards that lie in one file stay together: whoever reads the last of them has to unpack
    the first.
    """
    order = sorted(range(len(shards)), key=lambda place: _first(shards[place]))
    tasks: list[list[int]] = []
    tokens = 0
    for place in order:
        shard = shards[place]
        if tasks and (tokens < task_tokens or _share_file(shards[tasks[-1][-1]], shard)):
            tasks[-1].append(place)
            tokens += shard.n_tokens
        else:
            tasks.append([place])
            tokens = shard.n_tokens
    return tasks


def read_blocks_of(shards: Sequence[Shard], *, text: str) -> Iterator[Found]:
    """Read all documents of some shards, in the order of files and records.

    Args:
        shards: of one index; their files are held against the digests of then.
        text: the field or template of the index.

    Raises:
        CurateError: a file changed, or a shard has not as many documents as when it was indexed.
    """
    counts = [0] * len(shards)
    for merged, members in _merge(shards):
        first, grouped = shards[members[0][0]], shards[members[0][0]].grouped
        for block in read_blocks(merged, source=first.source, text=text, grouped=grouped):
            for shard, part, number in members:
                begin, end = np.searchsorted(block.records, [part.start, part.stop]).tolist()
                if end > begin:
                    yield Found(shard, counts[shard], number, block.part(begin, end))
                    counts[shard] += end - begin
    for known, count in zip(shards, counts, strict=True):
        if count != known.n_documents:
            raise CurateError(
                f"shard {known.name}: {count} documents, {known.n_documents} when it was indexed; "
                "run curate index again"
            )


Home = tuple[Shard, int, int]
"""Where one document is: its shard, the number of the shard's range, the record."""


def read_some(homes: Sequence[Home], *, text: str) -> list[str]:
    """Read the texts of some documents, each file once.

    Raises:
        CurateError: a file changed.
    """
    by_file: dict[tuple[str, str], list[int]] = {}
    for number, (shard, file, _) in enumerate(homes):
        part = shard.ranges[file]
        by_file.setdefault((part.path, part.file_digest), []).append(number)
    texts = [""] * len(homes)
    for numbers in by_file.values():
        numbers.sort(key=lambda number: homes[number][2])
        records = [homes[number][2] for number in numbers]
        shard, file, first = homes[numbers[0]]
        part = replace(shard.ranges[file], start=first, stop=records[-1] + 1)
        for block in read_blocks(part, source=shard.source, text=text, grouped=shard.grouped):
            places = np.searchsorted(block.records, records)
            for number, record, place in zip(numbers, records, places.tolist(), strict=True):
                if place < len(block.records) and block.records[place] == record:
                    texts[number] = block.texts[place]
    for (shard, _, record), found in zip(homes, texts, strict=True):
        if not found:  # no document is empty
            raise CurateError(
                f"shard {shard.name}: record {record} is gone; run curate index again"
            )
    return texts


Member = tuple[int, RecordRange, int]  # place of the shard, its range, number of that range


def _merge(shards: Sequence[Shard]) -> Iterator[tuple[RecordRange, list[Member]]]:
    """Give each file once: one range over all that is wanted of it, and its parts."""
    by_file: dict[tuple[str, str], list[Member]] = {}
    for place, shard in enumerate(shards):
        for number, part in enumerate(shard.ranges):
            by_file.setdefault((part.path, part.file_digest), []).append((place, part, number))
    for (path, digest), members in by_file.items():
        members.sort(key=lambda member: member[1].start)
        yield RecordRange(path, digest, members[0][1].start, members[-1][1].stop), members


def _first(shard: Shard) -> tuple[str, str, int]:
    part = shard.ranges[0]
    return shard.source, part.path, part.start


def _share_file(one: Shard, other: Shard) -> bool:
    return one.ranges[-1].path == other.ranges[0].path
