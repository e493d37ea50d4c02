"""Work items of clustering: sample a file, place a range of its records; alone or in workers."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from curate.corpus.cluster import HEAD_CHARS, Topics, place_texts
from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.passes import read_records
from curate.corpus.reader import read_documents
from curate.engine.local import run_local
from curate.records import Document, FileLedger, Notify
from curate.store.arrays import publish_arrays, read_arrays
from curate.store.fingerprint import digest_bytes

SAMPLE = 20_000
"""Documents that topics are fitted to, at most."""

RANGE_RECORDS = 50_000
"""Of one file that a worker places at a time."""

PLACED_TOGETHER = 256

Keyed = tuple[int, str]  # minus a document's digest, its beginning


@dataclass(frozen=True, slots=True)
class SampleTask:
    """One file to be sampled."""

    file: InputFile
    text: str
    seed: int
    most: int


@dataclass(frozen=True, slots=True)
class FileSample:
    """The account of a file, its documents of lowest digest, and the characters of all."""

    ledger: FileLedger
    kept: list[Keyed]
    n_chars: int


@dataclass(frozen=True, slots=True)
class PlaceTask:
    """A range of records to be placed among the topics of a file."""

    file: InputFile
    text: str
    digest: str
    start: int
    stop: int
    topics: Path


def sample_files(
    files: Sequence[InputFile], *, text: str, seed: int, workers: int, notify: Notify
) -> tuple[list[str], int, list[FileLedger]]:
    """Return the beginnings of a sample of all documents, their characters, and the accounts.

    The sample is the documents of lowest digest (bottom-k sampling), so that it depends neither
    on the order of the files nor on the number of workers.
    """
    tasks = [SampleTask(file=file, text=text, seed=seed, most=SAMPLE) for file in files]
    kept: list[Keyed] = []
    ledgers: list[FileLedger] = []
    n_chars = 0
    for found in run_local(
        sample_file, tasks, workers=workers, notify=notify, what="sampling files"
    ):
        _keep(kept, found.kept, most=SAMPLE)
        ledgers.append(found.ledger)
        n_chars += found.n_chars
    return [head for _, head in sorted(kept, reverse=True)], n_chars, ledgers


def sample_file(task: SampleTask) -> FileSample:
    """Read one file, and keep its documents of lowest digest."""
    ledger = LedgerBuilder()
    kept: list[Keyed] = []
    n_chars = 0
    for document in read_documents(task.file, text=task.text, ledger=ledger):
        n_chars += len(document.text)
        name = f"{task.seed}:{document.file_digest}:{document.record}".encode()
        key = -int(digest_bytes(name)[:16], 16)
        _keep(kept, [(key, document.text[:HEAD_CHARS])], most=task.most)
    return FileSample(ledger=ledger.finish(), kept=kept, n_chars=n_chars)


def place_files(
    files: Sequence[InputFile],
    ledgers: Sequence[FileLedger],
    *,
    text: str,
    topics: Path,
    workers: int,
    notify: Notify,
) -> Iterator[int]:
    """Yield the topic of every document, file by file in order.

    Args:
        files: to be read.
        ledgers: of the files, in the same order: how many records each has.
        text: field or template.
        topics: written by `write_topics`.
        workers: processes; files and ranges of large files are shared out among them.
        notify: progress.
    """
    tasks = [
        PlaceTask(file, text, ledger.digest, start, start + RANGE_RECORDS, topics)
        for file, ledger in zip(files, ledgers, strict=True)
        for start in range(0, ledger.seen, RANGE_RECORDS)
    ]
    for found in run_local(
        place_range, tasks, workers=workers, notify=notify, what="placing documents"
    ):
        yield from found


def place_range(task: PlaceTask) -> list[int]:
    """Return the topics of the documents among a range of records."""
    topics = _topics(str(task.topics))
    found = read_records(
        task.file, text=task.text, digest=task.digest, start=task.start, stop=task.stop
    )
    labels: list[int] = []
    for batch in _batches(document for _, document in found):
        labels += place_texts(batch, topics)[0].tolist()
    return labels


def write_topics(path: Path, topics: Topics) -> None:
    """Publish fitted topics as arrays."""
    arrays = {
        "rarity": topics.rarity,
        "directions": topics.directions,
        "centres": topics.centres,
    }
    publish_arrays(path, arrays)


@lru_cache(maxsize=1)
def _topics(path: str) -> Topics:
    return Topics(**read_arrays(Path(path))[0])


def _keep(kept: list[Keyed], more: Iterable[Keyed], *, most: int) -> None:
    """Add to a heap that holds the `most` largest keys."""
    for entry in more:
        if len(kept) < most:
            heapq.heappush(kept, entry)
        elif entry > kept[0]:
            heapq.heapreplace(kept, entry)


def _batches(documents: Iterator[Document]) -> Iterator[list[str]]:
    """Yield texts some hundred, or about 16 million characters, at a time."""
    batch: list[str] = []
    chars = 0
    for document in documents:
        batch.append(document.text)
        chars += len(document.text)
        if len(batch) >= PLACED_TOGETHER or chars > 1 << 24:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
