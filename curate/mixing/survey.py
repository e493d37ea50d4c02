"""What is known of each document before it is chosen: tokens, leaks, what copies are found by."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.corpus.prints import prints_name, read_prints, tabulate, write_prints
from curate.corpus.words import Words, number_words
from curate.engine.run import run_items
from curate.mixing.decontaminate import Leak, leaks_in, suspect
from curate.mixing.facts import Facts, draw_order, facts_of
from curate.mixing.items import Items, index_target
from curate.mixing.paraphrase import Embed, Place, compare, find_places
from curate.mixing.reading import divide, read_blocks_of
from curate.mixing.weights import ARITHMETIC
from curate.records import Notify, Shard, Target, silent
from curate.store.failpoint import failpoint
from curate.store.fingerprint import fingerprint
from curate.store.publish import (
    is_sealed,
    publish_json,
    publish_sealed,
    read_json,
    read_json_if_whole,
)
from curate.task2vec.vectors import read_lengths


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
    names = [prints_name(shard, text=look.text) for shard in shards]
    kept = [Path(look.kept) / name if look.kept else folder / name for name in names]
    prints = [
        path if is_sealed(path) else folder / "prints" / name
        for path, name in zip(kept, names, strict=True)
    ]
    found_in = [_leaks_path(path, look, folder) for path in prints]
    tasks = [
        Task(shard, str(path), str(embedding or ""), depth, look, str(folder), str(leaks))
        for shard, path, embedding, depth, leaks in zip(
            shards, prints, embeddings, depths, found_in, strict=True
        )
    ]
    steps = ((write_missing, _has_prints), (count_documents, _is_counted), (find_leaks, _is_clean))
    for step, is_done in steps:
        left = [task for task in tasks if not is_done(task)]
        groups = [[left[n] for n in group] for group in divide([task.shard for task in left])]
        done, total = 0, sum(task.shard.n_tokens for task in left)
        for tokens in run_items(step, groups, workers=workers):
            done += tokens
            notify("look at the documents", float(done), float(total))
    return [_facts(task) for task in tasks]


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
    return _tokens(tasks)


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
    return _tokens(tasks)


def find_leaks(tasks: Sequence[Task]) -> int:
    """Publish the leaks of each shard: looked for by the codes of words, compared in the text."""
    look = tasks[0].look
    items = look.items or _items(look.target, look.ngram)
    suspects = [_suspects(task, items) for task in tasks]
    found: list[dict[int, Leak]] = [{} for _ in tasks]
    touched = [place for place, (numbers, _) in enumerate(suspects) if len(numbers)]
    shards = [tasks[place].shard for place in touched]
    for each in read_blocks_of(shards, text=look.text) if touched else ():
        place, texts = touched[each.shard], each.block.texts
        numbers, near = suspects[place]
        first, last = np.searchsorted(numbers, [each.number, each.number + len(texts)])
        for number in numbers[first:last].tolist():
            words = number_words([texts[number - each.number]])
            leak = leaks_in(words, items).get(0)
            if leak is None and look.meaning:
                leak = _paraphrase(words, near.get(number, []), items, look.meaning)
            if leak:
                found[place][number] = leak
    for task, leaks in zip(tasks, found, strict=True):
        by_number = {str(number): leak for number, leak in leaks.items()}
        # Two syncs a shard took as long as the search: what a power loss takes is made again.
        publish_json(Path(task.leaks), {"leaks": by_number}, durable=False)
    return _tokens(tasks)


def _suspects(task: Task, items: Items) -> tuple[npt.NDArray[np.int64], dict[int, list[Place]]]:
    """Return the documents that may leak, rising, and the places that may tell items anew."""
    prints = read_prints(Path(task.prints))
    places = find_places(prints.codes, prints.bounds, items) if task.look.meaning else []
    near = {text: list(each) for text, each in groupby(places, lambda place: place.text)}
    numbers = {*suspect(prints.codes, prints.bounds, items), *near}
    return np.array(sorted(numbers), np.int64), near


def _paraphrase(
    words: Words, places: Sequence[Place], items: Items, meaning: Meaning
) -> Leak | None:
    """Return the item that a text tells in other words: the nearest in meaning, if near enough."""
    if not places:
        return None
    embed = _embed(meaning.encoder)
    snippets = [" ".join(words.spelled(place.first, place.last)) for place in places]
    cosines = compare(snippets, [" ".join(items.spelled[p.item]) for p in places], embed=embed)
    best = int(cosines.argmax())
    if cosines[best] < meaning.cosine:
        return None
    place = places[best]
    mine = words.spelled(place.first, place.last)
    both = [word for word in mine if word in items.spelled[place.item]]
    cosine = round(float(cosines[best]), 3)
    name = items.names[place.item]
    return Leak(name, " ".join(both), len(both), "paraphrase", " ".join(mine), cosine)


def _facts(task: Task) -> Facts:
    """Return what is known of the documents of a draw, in its order."""
    look = task.look
    tokens = (
        read_lengths(Path(task.embedding))
        if task.embedding
        else np.load(_counts_path(task), allow_pickle=False)
    )
    known = read_json(Path(task.leaks), _Leaks) if look.items or look.target else {}
    order = draw_order(task.shard, seed=look.seed)[: task.depth]
    return facts_of(read_prints(Path(task.prints)), order, tokens, known.get("leaks", {}))


def _has_prints(task: Task) -> bool:
    path = Path(task.prints)
    # Of the index's own files it has just been seen that they are whole.
    return path.parent == Path(task.look.kept) or is_sealed(path)


def _is_counted(task: Task) -> bool:
    return bool(task.embedding) or is_sealed(_counts_path(task))


def _is_clean(task: Task) -> bool:
    look = task.look
    if not (look.items or look.target):
        return True
    return read_json_if_whole(Path(task.leaks), _Leaks) is not None


def _tokens(tasks: Sequence[Task]) -> int:
    return sum(task.shard.n_tokens for task in tasks)


def _counts_path(task: Task) -> Path:
    seed = task.look.seed if task.depth < task.shard.n_documents else 0
    mark = fingerprint(
        prints=Path(task.prints).name, by=task.look.counted_by, seed=seed, depth=task.depth
    )
    return Path(task.folder) / "counts" / f"{mark[:40]}.npy"


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


_Leaks = dict[str, dict[int, Leak]]


@lru_cache(maxsize=1)
def _embed(name: str) -> Embed:
    # Here, for it loads a tensor library: seconds of the start of each worker process.
    from curate.ranking.encoder import encode, load_encoder

    return partial(encode, load_encoder(name))


@lru_cache(maxsize=2)
def _items(path: str, ngram: int) -> Items:
    return index_target(read_json(Path(path), Target), ngram=ngram)
