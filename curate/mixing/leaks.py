"""Which documents of shards hold an item of the target, and what tokens they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curate.corpus.prints import read_prints
from curate.corpus.words import Words, number_words
from curate.mixing.decontaminate import Leak, leaks_in, suspect
from curate.mixing.items import Items, index_target
from curate.mixing.look import Meaning, Task, tokens_of
from curate.mixing.paraphrase import Embed, Place, compare, find_places
from curate.mixing.reading import read_blocks_of
from curate.records import Target
from curate.store.arrays import arrays_are_whole, publish_arrays, read_arrays
from curate.store.publish import publish_json, read_json, read_json_if_whole

Ids = npt.NDArray[np.int32]
"""Token ids of a document, (n,)."""

_Leaks = dict[str, dict[int, Leak]]


def find_leaks(tasks: Sequence[Task]) -> int:
    """Publish the leaks of each shard: looked for by the codes of words, compared in the text.

    Where the look can encode, the tokens of the documents that leak are published before them.
    """
    look = tasks[0].look
    items = look.items or _items(look.target, look.ngram)
    suspects = [_suspects(task, items) for task in tasks]
    found: list[dict[int, Leak]] = [{} for _ in tasks]
    held: list[list[Ids]] = [[] for _ in tasks]
    touched = [place for place, (numbers, _) in enumerate(suspects) if len(numbers)]
    shards = [tasks[place].shard for place in touched]
    for each in read_blocks_of(shards, text=look.text) if touched else ():
        place, texts = touched[each.shard], each.block.texts
        numbers, near = suspects[place]
        first, last = np.searchsorted(numbers, [each.number, each.number + len(texts)])
        here = {}
        for number in numbers[first:last].tolist():
            leak = _leak(texts[number - each.number], near.get(number, []), items, look.meaning)
            if leak:
                here[number] = leak
        found[place] |= here
        if look.encode and here:
            held[place] += look.encode([texts[number - each.number] for number in here])
        if held[place] and each.number + len(texts) == tasks[place].shard.n_documents:
            _publish_tokens(_tokens_path(tasks[place]), held[place])
            held[place] = []  # of a file that is all leaks no more than a shard is held
    for task, leaks in zip(tasks, found, strict=True):
        by_number = {str(number): leak for number, leak in leaks.items()}
        # Two syncs a shard took as long as the search: what a power loss takes is made again.
        publish_json(Path(task.leaks), {"leaks": by_number}, durable=False)
    return tokens_of(tasks)


def is_searched(task: Task) -> bool:
    """Say whether what `find_leaks` publishes is there."""
    look = task.look
    if not (look.items or look.target):
        return True
    known = read_json_if_whole(Path(task.leaks), _Leaks)
    if known is None:
        return False
    return not (look.encode and known["leaks"]) or arrays_are_whole(_tokens_path(task))


def read_leaks(task: Task) -> Mapping[int, Leak]:
    """Return the leaks of a shard by the number of the document."""
    look = task.look
    return read_json(Path(task.leaks), _Leaks)["leaks"] if look.items or look.target else {}


def read_leaked_tokens(task: Task) -> list[Ids]:
    """Return the token ids of the documents of a shard that leak."""
    if not read_leaks(task):
        return []
    arrays, _ = read_arrays(_tokens_path(task))
    return np.split(arrays["tokens"], np.cumsum(arrays["lengths"])[:-1])


def _publish_tokens(path: Path, documents: Sequence[Ids]) -> None:
    lengths = np.array([len(ids) for ids in documents], np.int32)
    tokens = np.concatenate(documents).astype(np.int32)
    publish_arrays(path, {"tokens": tokens, "lengths": lengths})


def _tokens_path(task: Task) -> Path:
    return Path(task.leaks).with_suffix(".safetensors")


def _leak(text: str, near: Sequence[Place], items: Items, meaning: Meaning | None) -> Leak | None:
    words = number_words([text])
    leak = leaks_in(words, items).get(0)
    return _paraphrase(words, near, items, meaning) if leak is None and meaning else leak


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


@lru_cache(maxsize=1)
def _embed(name: str) -> Embed:
    # Here, for it loads a tensor library: seconds of the start of each worker process.
    from curate.ranking.encoder import encode, load_encoder

    return partial(encode, load_encoder(name))


@lru_cache(maxsize=2)
def _items(path: str, ngram: int) -> Items:
    return index_target(read_json(Path(path), Target), ngram=ngram)
