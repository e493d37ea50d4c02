"""What is known of each document before it is chosen: tokens, leaks, what copies are found by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.engine.run import run_items
from curate.mixing.arrows import arrow_bytes, open_arrow
from curate.mixing.decontaminate import GROUP_CHARS, Items, Leak, index_target, leaks_in
from curate.mixing.dedup import BINS, sketch
from curate.mixing.reading import divide, read_documents_of
from curate.mixing.words import number_words
from curate.records import Document, Notify, Shard, Target, silent
from curate.store.failpoint import failpoint
from curate.store.fingerprint import digest_bytes, fingerprint
from curate.store.publish import (
    is_sealed,
    publish_json,
    publish_sealed,
    read_json,
    read_json_if_whole,
)

SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("file", pa.int32()),
        ("record", pa.int64()),
        ("id", pa.string()),
        ("tokens", pa.int64()),
        ("value", pa.uint64()),
        ("signature", pa.binary(2 * BINS)),
        ("shingles", pa.int64()),
        ("leak", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Look:
    """How documents are looked at; all of it decides what is found."""

    text: str  # field or template of the index
    seed: int  # of the order in which documents are drawn
    count: Callable[[list[str]], list[int]] | None = None  # None: the index has counted
    counted_by: str = "index"  # digest of what counts
    target: str = ""  # file with the target to keep out; "" keeps nothing out
    ngram: int = 13
    copies: bool = True  # whether to find what copies are found by
    items: Items | None = None  # instead of `target`, where the facts are not kept


@dataclass(frozen=True, slots=True)
class Task:
    """Shards that one worker looks at."""

    shards: tuple[Shard, ...]
    depths: tuple[int, ...]  # documents of each, the first of its draw
    lengths: tuple[str, ...]  # file with the tokens of each document, "" where not counted
    paths: tuple[str, ...]  # where the facts of each go
    look: Look


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the documents of one shard, in the order of the draw: arrays (n,)."""

    number: npt.NDArray[np.int64]  # of the document in its shard
    file: npt.NDArray[np.int32]  # of the shard's ranges
    record: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    value: npt.NDArray[np.uint64]
    signature: npt.NDArray[np.uint16]  # (n, BINS)
    shingles: npt.NDArray[np.int64]
    leaks: dict[int, Leak]  # place in these arrays → leak
    table: Any  # the pyarrow table behind them

    def id_of(self, place: int) -> str:
        """Return the id of a document by its place in the draw."""
        row = int(np.searchsorted(self.table["number"].to_numpy(), self.number[place]))
        return str(self.table["id"][row].as_py())


def draw_order(shard: Shard, *, seed: int) -> npt.NDArray[np.int64]:
    """Return the documents of a shard in the order in which a mix takes them."""
    number = int(digest_bytes(shard.digest.encode())[:16], 16)
    return np.random.default_rng([seed, number]).permutation(shard.n_documents)


def write_target(folder: Path, target: Target) -> str:
    """Keep a target's items where workers find them; return the path."""
    mark = fingerprint(
        items=(target.select, target.eval, target.spare),
        template=target.template or target.templates,
    )
    path = folder / f"target-{mark[:24]}.json"
    if read_json_if_whole(path, Target) is None:
        publish_json(path, target)
    return str(path)


def survey(
    shards: Sequence[Shard],
    depths: Sequence[int],
    lengths: Sequence[Path | None],
    *,
    look: Look,
    folder: Path,
    workers: int = 1,
    notify: Notify = silent,
) -> list[Facts]:
    """Look at the first `depths` documents of each shard's draw; what is known already is read.

    Args:
        shards: of one index.
        depths: documents of each, > 0.
        lengths: file with the tokens of each document of a shard, from the index.
        look: what to look for.
        folder: where facts are kept, by what decides them.
        workers: processes; their number changes nothing.
        notify: progress in tokens.

    Raises:
        CurateError: an input changed since the index.
    """
    paths = [
        folder / f"{_key(shard, depth, look)}.arrow"
        for shard, depth in zip(shards, depths, strict=True)
    ]
    missing = [place for place, path in enumerate(paths) if not is_sealed(path)]
    tasks = []
    for group in divide([shards[place] for place in missing]):
        places = [missing[number] for number in group]
        tasks.append(
            Task(
                tuple(shards[place] for place in places),
                tuple(int(depths[place]) for place in places),
                tuple(str(lengths[place] or "") for place in places),
                tuple(str(paths[place]) for place in places),
                look,
            )
        )
    done, total = 0, sum(shards[place].n_tokens for place in missing)
    for tokens in run_items(look_at, tasks, workers=workers):
        done += tokens
        notify("look at the documents", float(done), float(total))
    return [
        read_facts(path, draw_order(shard, seed=look.seed)[:depth])
        for path, shard, depth in zip(paths, shards, depths, strict=True)
    ]


def look_at(task: Task) -> int:
    """Publish the facts of each shard of a task; return the tokens of the shards."""
    wanted = []
    for shard, depth in zip(task.shards, task.depths, strict=True):
        mask = np.zeros(shard.n_documents, np.bool_)
        mask[draw_order(shard, seed=task.look.seed)[:depth]] = True
        wanted.append(mask)
    rows: list[list[tuple[Any, ...]]] = [[] for _ in task.shards]
    for group in _groups(task, wanted):
        for (which, *_), row in zip(group, _look_at_group(group, task.look), strict=True):
            rows[which].append(row)
    for place, path in enumerate(task.paths):
        _write_facts(Path(path), rows[place], task.lengths[place])
    return sum(shard.n_tokens for shard in task.shards)


def read_facts(path: Path, order: npt.NDArray[np.int64]) -> Facts:
    """Read published facts, put in the order of the draw; arrays are views of the file."""
    table = open_arrow(path)
    number = table["number"].to_numpy()
    places = np.searchsorted(number, order)
    signatures = np.frombuffer(table["signature"].chunk(0).buffers()[1], np.uint16)
    leaks = table["leak"].to_numpy(zero_copy_only=False)[places]
    found = {
        int(place): msgspec.json.decode(leaks[place], type=Leak)
        for place in np.flatnonzero(leaks != "")
    }
    columns = (table[name].to_numpy()[places] for name in ("file", "record", "tokens", "value"))
    file, record, tokens, value = columns
    return Facts(
        number=number[places],
        file=file,
        record=record,
        tokens=tokens,
        value=value,
        signature=signatures[: len(number) * BINS].reshape(-1, BINS)[places],
        shingles=table["shingles"].to_numpy()[places],
        leaks=found,
        table=table,
    )


Entry = tuple[int, int, int, int, Document]  # shard of the task, document, range, record, text


def _groups(task: Task, wanted: Sequence[npt.NDArray[np.bool_]]) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    chars = 0
    for found in read_documents_of(task.shards, text=task.look.text):
        mask = wanted[found.shard]
        if found.number < len(mask) and mask[found.number]:
            group.append((found.shard, found.number, found.file, found.record, found.document))
            chars += len(found.document.text)
            if chars >= GROUP_CHARS:
                yield group
                group, chars = [], 0
    if group:
        yield group


def _look_at_group(group: Sequence[Entry], look: Look) -> Iterator[tuple[Any, ...]]:
    """Give (number, file, record, id, tokens, value, signature, shingles, leak) of each."""
    texts = [document.text for *_, document in group]
    sizes = look.count(texts) if look.count else [0] * len(texts)
    values, signatures = np.zeros(len(texts), np.uint64), np.zeros((len(texts), BINS), np.uint16)
    shingles, leaks = np.zeros(len(texts), np.int64), dict[int, Leak]()
    items = look.items or (_items(look.target, look.ngram) if look.target else None)
    if look.copies or items:
        words = number_words(texts)
        leaks = leaks_in(words, items) if items else {}
        if look.copies:
            values, signatures, shingles = sketch(words)
    for place, (_, number, file, record, document) in enumerate(group):
        leak = msgspec.json.encode(leaks[place]).decode() if place in leaks else ""
        yield (
            number, file, record, document.id, sizes[place], values[place],
            signatures[place].tobytes(), shingles[place], leak,
        )  # fmt: skip


def _write_facts(path: Path, rows: Sequence[tuple[Any, ...]], lengths: str) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA)
    if lengths:
        counted = np.load(lengths, allow_pickle=False)[table["number"].to_numpy()]
        place = SCHEMA.get_field_index("tokens")
        table = table.set_column(place, "tokens", pa.array(counted.astype(np.int64)))
    publish_sealed(path, arrow_bytes(table))
    failpoint("mix.facts")


@lru_cache(maxsize=2)
def _items(path: str, ngram: int) -> Items:
    return index_target(read_json(Path(path), Target), ngram=ngram)


def _key(shard: Shard, depth: int, look: Look) -> str:
    return fingerprint(
        shard=shard.digest,
        text=look.text,
        seed=look.seed if depth < shard.n_documents else 0,
        depth=depth,
        counted_by=look.counted_by,
        target=Path(look.target).name,
        ngram=look.ngram,
        copies=look.copies,
        # the records are part of what is known; two shards may hold the same text
        ranges=[(part.file_digest, part.start, part.stop) for part in shard.ranges],
    )[:40]
