"""How documents are looked at before a mix is chosen, and where what is found lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from curate.corpus.prints import prints_name
from curate.corpus.tokens import Encode
from curate.engine.run import run_items
from curate.mixing.items import Items
from curate.mixing.reading import divide
from curate.mixing.weights import ARITHMETIC
from curate.records import Notify, Shard, Target
from curate.store.fingerprint import fingerprint
from curate.store.publish import is_sealed, publish_json, read_json_if_whole

FACTS = "facts"
"""Folder of a workspace that keeps what is known of documents."""

Step = tuple[Callable[[Sequence["Task"]], int], Callable[["Task"], bool]]
"""What is done to the shards that lie in the same files, and whether it is done for one."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """How items in other words are told."""

    encoder: str  # a folder or hub id
    digest: str  # of its files
    cosine: float  # with an item, from which a place is its paraphrase


@dataclass(frozen=True, slots=True)
class Look:
    """How documents are looked at; all of it decides what is found."""

    text: str  # field or template of the index
    seed: int  # of the order in which documents are drawn
    count: Callable[[list[str]], list[int]] | None = None  # None: the index has counted
    counted_by: str = "index"  # digest of what counts
    encode: Encode | None = None  # as the index does; None: the tokens of leaks are not kept
    target: str = ""  # file with the target to keep out; "" keeps nothing out
    ngram: int = 13
    items: Items | None = None  # instead of `target`, where the facts are not kept
    kept: str = ""  # folder in which the index keeps what documents are known by
    meaning: Meaning | None = None  # None: paraphrases are not looked for


@dataclass(frozen=True, slots=True)
class Task:
    """A shard to look at."""

    shard: Shard
    prints: str  # file of what its documents are known by
    embedding: str  # file of the index with the tokens of each document, "" where not counted
    depth: int  # documents that are drawn
    look: Look
    folder: str  # of what is found
    leaks: str  # file of the leaks


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


def tasks_for(
    shards: Sequence[Shard],
    depths: Sequence[int],
    embeddings: Sequence[Path | None],
    look: Look,
    folder: Path,
) -> list[Task]:
    """Return a task a shard; arguments as of `curate.mixing.survey.survey`."""
    names = [prints_name(shard, text=look.text) for shard in shards]
    kept = [Path(look.kept) / name if look.kept else folder / name for name in names]
    prints = [
        path if is_sealed(path) else folder / "prints" / name
        for path, name in zip(kept, names, strict=True)
    ]
    found_in = [_leaks_path(path, look, folder) for path in prints]
    return [
        Task(shard, str(path), str(embedding or ""), depth, look, str(folder), str(leaks))
        for shard, path, embedding, depth, leaks in zip(
            shards, prints, embeddings, depths, found_in, strict=True
        )
    ]


def run_steps(
    steps: Sequence[Step],
    tasks: Sequence[Task],
    workers: int,
    notify: Notify,
) -> None:
    """Run what is not done yet of each step."""
    for step, is_done in steps:
        left = [task for task in tasks if not is_done(task)]
        groups = [[left[n] for n in group] for group in divide([task.shard for task in left])]
        done, total = 0, sum(task.shard.n_tokens for task in left)
        for tokens in run_items(step, groups, workers=workers):
            done += tokens
            notify("look at the documents", float(done), float(total))


def tokens_of(tasks: Sequence[Task]) -> int:
    """Return the tokens of the tasks' shards."""
    return sum(task.shard.n_tokens for task in tasks)


def _leaks_path(prints: Path, look: Look, folder: Path) -> Path:
    meaning = {"meaning": look.meaning} if look.meaning else {}
    mark = fingerprint(
        prints=prints.name,
        target=Path(look.target).name,
        ngram=look.ngram,
        arithmetic=ARITHMETIC,
        **meaning,
    )
    return folder / "leaks" / f"{mark[:40]}.json"
