"""What is known of each document before it is chosen: tokens, leaks, what copies are found by."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curate.corpus.prints import read_prints, tabulate, write_prints
from curate.mixing.facts import Facts, draw_order, facts_of
from curate.mixing.leaks import Ids, find_leaks, is_searched, read_leaked_tokens, read_leaks
from curate.mixing.look import Look, Task, run_steps, tasks_for, tokens_of
from curate.mixing.reading import read_blocks_of
from curate.records import Notify, Shard, silent
from curate.store.failpoint import failpoint
from curate.store.fingerprint import fingerprint
from curate.store.publish import is_sealed, publish_sealed
from curate.task2vec.vectors import read_lengths


def survey(
    shards: Sequence[Shard],
    depths: Sequence[int],
    embeddings: Sequence[Path | None],
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
        embeddings: file of a shard's embedding, which has the tokens of each document; None where
            they are counted here.
        look: what to look for.
        folder: where facts are kept, by what decides them.
        workers: processes; their number changes nothing.
        notify: progress in tokens.

    Raises:
        CurateError: an input changed since the index.
    """
    tasks = tasks_for(shards, depths, embeddings, look, folder)
    run_steps((PRINTS, (count_documents, _is_counted), LEAKS), tasks, workers, notify)
    return [_facts(task) for task in tasks]


def leaked_tokens(
    shards: Sequence[Shard], *, look: Look, folder: Path, workers: int = 1, notify: Notify = silent
) -> list[list[Ids]]:
    """Return the token ids of the documents of each shard that hold an item of the target.

    Args:
        shards: of one index.
        look: what to look for; its `encode` is asked for the tokens.
        folder: as for `survey`, which then finds what was found here.
        workers: processes; their number changes nothing.
        notify: progress in tokens.

    Raises:
        CurateError: an input changed since the index.
    """
    tasks = tasks_for(shards, [0] * len(shards), [None] * len(shards), look, folder)
    run_steps((PRINTS, LEAKS), tasks, workers, notify)
    return [read_leaked_tokens(task) for task in tasks]


def write_missing(tasks: Sequence[Task]) -> int:
    """Publish what the documents of these shards are known by; return their tokens.

    `curate index` has done so for an index of this version.
    """
    parts: list[list[Any]] = [[] for _ in tasks]
    for found in read_blocks_of([task.shard for task in tasks], text=tasks[0].look.text):
        task, block = tasks[found.shard], found.block
        parts[found.shard].append(tabulate(found.file, block))
        if found.number + len(block.texts) == task.shard.n_documents:
            write_prints(Path(task.prints), parts[found.shard])
            parts[found.shard] = []
            failpoint("mix.facts")
    return tokens_of(tasks)


def count_documents(tasks: Sequence[Task]) -> int:
    """Publish the tokens of the documents that are drawn of each shard, by another tokenizer."""
    look, drawn, sizes = tasks[0].look, [], []
    for task in tasks:
        drawn.append(np.zeros(task.shard.n_documents, np.bool_))
        drawn[-1][draw_order(task.shard, seed=look.seed)[: task.depth]] = True
        sizes.append(np.zeros(task.shard.n_documents, np.int64))
    for found in read_blocks_of([task.shard for task in tasks], text=look.text):
        texts = found.block.texts
        here = np.flatnonzero(drawn[found.shard][found.number : found.number + len(texts)])
        if look.count and len(here):
            sizes[found.shard][found.number + here] = look.count([texts[n] for n in here.tolist()])
    for task, counted in zip(tasks, sizes, strict=True):
        stream = io.BytesIO()
        np.save(stream, counted, allow_pickle=False)
        publish_sealed(_counts_path(task), stream.getvalue())
    return tokens_of(tasks)


def _facts(task: Task) -> Facts:
    """Return what is known of the documents of a draw, in its order."""
    look = task.look
    tokens = (
        read_lengths(Path(task.embedding))
        if task.embedding
        else np.load(_counts_path(task), allow_pickle=False)
    )
    order = draw_order(task.shard, seed=look.seed)[: task.depth]
    return facts_of(read_prints(Path(task.prints)), order, tokens, read_leaks(task))


def _has_prints(task: Task) -> bool:
    path = Path(task.prints)
    # Of the index's own files it has just been seen that they are whole.
    return path.parent == Path(task.look.kept) or is_sealed(path)


def _is_counted(task: Task) -> bool:
    return bool(task.embedding) or is_sealed(_counts_path(task))


def _tokens(tasks: Sequence[Task]) -> int:
    return sum(task.shard.n_tokens for task in tasks)


def _counts_path(task: Task) -> Path:
    seed = task.look.seed if task.depth < task.shard.n_documents else 0
    mark = fingerprint(
        prints=Path(task.prints).name, by=task.look.counted_by, seed=seed, depth=task.depth
    )
    return Path(task.folder) / "counts" / f"{mark[:40]}.npy"


PRINTS = write_missing, _has_prints
LEAKS = find_leaks, is_searched
