"""Stage: inputs → the sources of their documents: by file, folder, field or topic."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.corpus.cluster import (
    DIMENSIONS,
    FEATURES,
    HEAD_CHARS,
    STARTS,
    Topics,
    choose_count,
    fit_topics,
    name_topics,
    place_texts,
)
from curate.corpus.fields import parse_template
from curate.corpus.groups import GroupWriter, group_path
from curate.corpus.inputs import InputFile, find_inputs
from curate.corpus.ledger import LedgerBuilder, disk_refused
from curate.corpus.pieces import count_workers
from curate.corpus.reader import READING, check_inputs, describe_lack, read_labelled
from curate.corpus.topics import (
    SAMPLE,
    place_files,
    sample_files,
    write_topics,
)
from curate.errors import USAGE, CurateError
from curate.records import Document, FileLedger, Group, Notify, Shard, silent
from curate.settings import CorpusSettings
from curate.store.fingerprint import digest_file, fingerprint
from curate.store.leftovers import sweep
from curate.store.meta import is_current, publish_meta, read_meta
from curate.store.protect import refuse_own_artefacts

TOPICS = "topics.safetensors"
MAX_GROUPS = 10_000
EXAMPLES = 3
EXAMPLE_CHARS = 300


@dataclass(frozen=True, slots=True)
class Grouped:
    """What regrouping published: its groups, and the account of the inputs."""

    groups: tuple[Group, ...]
    ledgers: tuple[FileLedger, ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Files whose documents are ready to be cut into shards, source by source."""

    files: tuple[InputFile, ...]
    groups: tuple[Group, ...] = ()  # where documents were regrouped
    ledgers: tuple[FileLedger, ...] = ()  # of the inputs, where documents were regrouped


def open_corpus(
    settings: CorpusSettings, *, workspace: Path, notify: Notify = silent, workers: int = 0
) -> Corpus:
    """Find the inputs, check their fields, and regroup their documents where that is wanted.

    Regrouped documents are written once to `workspace/groups/<key>/`, one file a group; the key
    is the bytes of the inputs and the settings, so that the same command finds them there.

    Args:
        settings: all but `shard_tokens` and `max_rejected` (`shard_tokens` where the number of
            clusters is chosen).
        workspace: for what is written.
        notify: progress; also told which files no reader knows.
        workers: processes that find topics; 0 takes all cores where the input is large. Their
            number changes nothing.

    Raises:
        CurateError: no such input, no field of that name, an unknown grouping, or no document.
    """
    kind = check_grouping(settings)
    skipped: list[Path] = []
    files = find_inputs(
        settings.inputs, workspace=workspace, skipped=skipped, by_folder=kind == "folder"
    )
    refuse_own_artefacts(workspace, [file.path for file in files])
    if skipped:
        names = ", ".join(path.name for path in skipped[:5])
        more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        notify(f"{len(skipped)} skipped, no documents of a corpus: {names}{more}", 0, 0)
    check_inputs(files, text=settings.text)
    if kind in ("file", "folder"):
        return Corpus(files=tuple(files))
    return _regrouped(files, settings, kind, workspace, notify, workers or count_workers(files))


def check_grouping(settings: CorpusSettings) -> str:
    """Return file, folder, field or cluster.

    Raises:
        CurateError: `group_by` is none of them, or `clusters` is negative.
    """
    kind, _, name = settings.group_by.partition(":")
    if kind not in ("file", "folder", "field", "cluster") or (kind == "field") != bool(name):
        raise CurateError(
            f"group_by: {settings.group_by!r} is not file, folder, field:NAME or cluster",
            exit_code=USAGE,
        )
    if settings.clusters < 0 or settings.clusters == 1:
        raise CurateError("clusters: 2 or more, or 0 to choose their number", exit_code=USAGE)
    return kind


def groups_are_whole(shards: Iterable[Shard]) -> bool:
    """Say whether the group files that shards were cut from are still there, byte for byte."""
    known = {
        (part.path, part.file_digest) for shard in shards if shard.grouped for part in shard.ranges
    }
    return all(Path(path).is_file() and digest_file(Path(path)) == was for path, was in known)


def drop_old_groups(workspace: Path, corpus: Corpus) -> None:
    """Remove the group files that the published index no longer uses."""
    kept = {file.path.parent.name for file in corpus.files if file.grouped}
    folder = workspace / "groups"
    for old in folder.iterdir() if folder.is_dir() else ():
        if old.is_dir() and old.name not in kept:
            shutil.rmtree(old)


def _regrouped(
    files: Sequence[InputFile],
    settings: CorpusSettings,
    kind: str,
    workspace: Path,
    notify: Notify,
    workers: int,
) -> Corpus:
    ordered = sorted(files, key=lambda file: (file.source, str(file.path)))
    digests = [digest_file(file.path) for file in ordered]
    key = fingerprint(
        inputs=[[file.source, digest] for file, digest in zip(ordered, digests, strict=True)],
        paths=[str(file.path) for file in ordered],
        text=settings.text,
        group_by=settings.group_by,
        clusters=settings.clusters or -settings.shard_tokens if kind == "cluster" else 0,
        seed=settings.seed,
        reading=READING,
        limits=[SAMPLE, HEAD_CHARS, FEATURES, DIMENSIONS, STARTS],
    )
    folder = workspace / "groups" / key[:16]
    if not _is_whole(folder, key):
        sweep(folder)
        folder.mkdir(parents=True, exist_ok=True)
        grouped = (
            _group_by_topic(ordered, settings, folder, notify, workers)
            if kind == "cluster"
            else _group_by_field(ordered, settings, folder, notify)
        )
        names = [group_path(folder, number).name for number in range(len(grouped.groups))]
        names += [TOPICS] if (folder / TOPICS).is_file() else []
        publish_meta(folder, kind="groups", fingerprint=key, files=names, body=grouped)
    _, grouped = read_meta(folder, kind="groups", body=Grouped, check=False)
    group_files = tuple(
        InputFile(path=group_path(folder, number), source=group.name, grouped=True)
        for number, group in enumerate(grouped.groups)
    )
    return Corpus(files=group_files, groups=grouped.groups, ledgers=grouped.ledgers)


def _is_whole(folder: Path, key: str) -> bool:
    if not is_current(folder, kind="groups", fingerprint=key):
        return False
    return not disk_refused(read_meta(folder, kind="groups", body=Grouped, check=False)[1].ledgers)


def _group_by_field(
    files: Sequence[InputFile], settings: CorpusSettings, folder: Path, notify: Notify
) -> Grouped:
    """Write each document to the group that its record names."""
    name = settings.group_by.partition(":")[2]
    if lack := describe_lack(files, label=name):
        notify(f"{lack}; looking for it in all documents", 0, 0)
    numbers: dict[str, int] = {}
    found = False
    sizes: list[int] = []
    ledgers: list[FileLedger] = []
    with GroupWriter(folder) as writer:
        for document, label in _labelled(files, settings.text, name, ledgers, notify):
            found = found or bool(label)
            number = numbers.setdefault(label or f"no-{name}", len(numbers))
            if number == len(sizes):
                sizes.append(0)
            if len(sizes) > MAX_GROUPS:
                raise CurateError(
                    f"group_by: field {name} has more than {MAX_GROUPS:,} values; name a field "
                    "of few, or use cluster"
                )
            sizes[number] += 1
            writer.add(number, document)
        if numbers and not found:
            lack = lack or f"no field {name} that holds a word or a number"
            raise CurateError(f"group_by: {lack}", exit_code=USAGE)
    groups = tuple(Group(name=label, n_documents=sizes[n]) for label, n in numbers.items())
    return Grouped(groups=groups, ledgers=tuple(ledgers))


def _group_by_topic(
    files: Sequence[InputFile],
    settings: CorpusSettings,
    folder: Path,
    notify: Notify,
    workers: int,
) -> Grouped:
    """Fit topics to a sample in one pass, and write each document to its topic in a second."""
    heads, n_chars, ledgers = sample_files(
        files, text=settings.text, seed=settings.seed, workers=workers, notify=notify
    )
    if not heads:
        return Grouped(groups=(), ledgers=tuple(ledgers))
    notify("finding topics", 0, 0)
    count = settings.clusters or choose_count(n_chars, shard_tokens=settings.shard_tokens)
    topics = fit_topics(heads, count=count, seed=settings.seed)
    write_topics(folder / TOPICS, topics)
    placed = place_files(
        files, ledgers, text=settings.text, topics=folder / TOPICS, workers=workers, notify=notify
    )
    numbers: dict[int, int] = {}  # topic → group; a topic without a document is none
    sizes: list[int] = []
    again: list[FileLedger] = []
    with GroupWriter(folder) as writer:
        for document, _ in _labelled(files, settings.text, "", again, notify):
            topic = next(placed, -1)
            if topic < 0:
                break
            number = numbers.setdefault(topic, len(numbers))
            if number == len(sizes):
                sizes.append(0)
            sizes[number] += 1
            writer.add(number, document)
    if again != ledgers:
        raise CurateError("an input changed while it was read; run curate index again")
    return Grouped(groups=_described(heads, topics, numbers, sizes), ledgers=tuple(ledgers))


def _described(
    heads: Sequence[str], topics: Topics, numbers: dict[int, int], sizes: Sequence[int]
) -> tuple[Group, ...]:
    labels, gaps = place_texts(heads, topics)
    terms = name_topics(heads, labels, count=len(topics.centres))
    groups: list[Group] = []
    taken: set[str] = set()
    for topic, number in numbers.items():
        members = np.flatnonzero(labels == topic)
        nearest = members[np.argsort(gaps[members], kind="stable")][:EXAMPLES]
        plain = "-".join(terms[topic][:3]) or "topic"
        name, again = plain, 2
        while name in taken:
            name, again = f"{plain}.{again}", again + 1
        taken.add(name)
        groups.append(
            Group(
                name=name,
                n_documents=sizes[number],
                terms=terms[topic],
                examples=tuple(heads[place][:EXAMPLE_CHARS] for place in nearest.tolist()),
            )
        )
    return tuple(groups)


def _labelled(
    files: Sequence[InputFile],
    text: str,
    label: str,
    ledgers: list[FileLedger],
    notify: Notify,
) -> Iterator[tuple[Document, str]]:
    parse_template(text)
    total = float(sum(file.path.stat().st_size for file in files))
    done = 0.0
    for file in files:
        ledger = LedgerBuilder()
        yield from read_labelled(file, text=text, label=label, ledger=ledger)
        ledgers.append(ledger.finish())
        done += ledger.n_bytes
        notify("regrouping", done, total)
