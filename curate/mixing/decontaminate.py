"""No item of the target in the mix: runs of words that a document shares with an item."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.records import Target

Words = npt.NDArray[np.int64]

WORD = re.compile(r"\w+|[^\w\s]")
ANCHOR = 6
"""Words that find where an item may lie before it is compared whole."""

MAX_SHARED = 3
"""Items of one split that may share a run of words; a run of more is the target's own wording."""

TINY = 4
"""Items of fewer words are no leak inside a sentence: they are matched to whole lines."""

_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Leak:
    """A document that holds an item of the target, or a part of one."""

    item: str  # split and number from 0, e.g. eval:17
    words: str  # the words that both have, as normalised
    n_words: int
    kind: str  # run: a long run of words; whole: the item; edited: the item but for one word


@dataclass(frozen=True, slots=True)
class Items:
    """Items of a target as word numbers, and where to look for them."""

    names: tuple[str, ...]
    words: tuple[Words, ...]
    vocabulary: Mapping[str, int]
    ngram: int
    runs: Mapping[int, tuple[tuple[int, int], ...]]  # hash of a run → (item, offset)
    anchors: Mapping[int, Mapping[int, tuple[tuple[int, int], ...]]]  # length → the same
    tiny: Mapping[str, int]  # items of fewer than `TINY` words: the line → item


def split_words(text: str) -> list[str]:
    """Return the words and signs of a text: NFKC, lower case, spaces gone.

    Example:
        >>> split_words("Let  G be: x^2 = 1")
        ['let', 'g', 'be', ':', 'x', '^', '2', '=', '1']
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return WORD.findall(text.lower())


def index_items(splits: Mapping[str, Sequence[str]], *, ngram: int = 13) -> Items:
    """Make the items of all splits ready to be looked for.

    An item of `ngram` words or more is found by any run of `ngram` words, a shorter one
    only whole. Runs that more than `MAX_SHARED` items of a split share are wording, not
    content, and do not count; nor does a run that is mostly signs (fewer than `ngram` // 2
    words of two letters) until it is twice as long, as `( x ) >= 0 $ for all $ x in {`
    is in any text. Items up to 4 · `ngram` words, which one changed word could hide from
    these rules, and those without a run of their own are also looked for whole, from
    `ngram` words on with one word changed, added or missing.

    Args:
        splits: name of the split → its items.
        ngram: words of a run, >= 2.

    Raises:
        ValueError: `ngram` below 2.

    Example:
        >>> items = index_items({"eval": ["every finite group of odd order is solvable"]})
        >>> find_leaks(["Note: every finite group of odd order is solvable."], items)[0].item
        'eval:0'
    """
    if ngram < 2:
        raise ValueError(f"ngram {ngram} is below 2")
    vocabulary: dict[str, int] = {}
    names: list[str] = []
    words: list[Words] = []
    tiny: dict[str, int] = {}
    for split, texts in splits.items():
        for number, text in enumerate(texts):
            found = split_words(text)
            if 0 < len(found) < TINY:
                tiny.setdefault(" ".join(found), len(names))
            names.append(f"{split}:{number}")
            words.append(
                np.array([vocabulary.setdefault(w, len(vocabulary)) for w in found], np.int64)
            )
    runs, bare = _index_runs(names, words, ngram=ngram)
    anchors = _index_anchors(words, bare, ngram=ngram)
    return Items(tuple(names), tuple(words), vocabulary, ngram, runs, anchors, tiny)


def index_target(target: Target, *, ngram: int = 13) -> Items:
    """Make both splits of a target ready to be looked for."""
    return index_items({"select": target.select, "eval": target.eval}, ngram=ngram)


def find_leaks(texts: Sequence[str], items: Items) -> list[Leak | None]:
    """Return for every text the first leak of an item in it, or None.

    All texts are looked through at once: word numbers in one array, a gap between two
    texts, windows compared by hash and then word by word.
    """
    split = [split_words(text) for text in texts]
    get = items.vocabulary.get
    stream = np.array([n for part in split for n in (*(get(w, -1) for w in part), -1)], np.int64)
    ends = np.cumsum([len(part) + 1 for part in split])
    leaks: list[Leak | None] = [None] * len(texts)
    for position, item, offset in _hits(stream, items.runs, items.ngram):
        number = int(np.searchsorted(ends, position, side="right"))
        if leaks[number] is None:
            leaks[number] = _run_leak(stream, position, item, offset, items, split[number], ends)
    for length, table in items.anchors.items():
        for position, item, offset in _hits(stream, table, length):
            number = int(np.searchsorted(ends, position, side="right"))
            if leaks[number] is None:
                start = int(ends[number]) - len(split[number]) - 1
                leaks[number] = _whole_leak(
                    stream[start : ends[number] - 1], position - start, item, offset, items,
                    split[number],
                )  # fmt: skip
    return _find_tiny(texts, items, leaks) if items.tiny else leaks


def _index_runs(
    names: Sequence[str], words: Sequence[Words], *, ngram: int
) -> tuple[dict[int, tuple[tuple[int, int], ...]], set[int]]:
    """Return the runs that mark an item, and the long items that have none."""
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for item, found in enumerate(words):
        for offset, value in enumerate(_hashes(found, ngram).tolist()):
            places[value].append((item, offset))
    kept = {}
    marked: set[int] = set()
    for value, where in places.items():
        per_split: dict[str, set[int]] = defaultdict(set)
        for item, _ in where:
            per_split[names[item].split(":")[0]].add(item)
        if max(map(len, per_split.values())) <= MAX_SHARED:
            kept[value] = tuple(where)
            marked.update(item for item, _ in where)
    bare = {item for item, found in enumerate(words) if len(found) >= ngram} - marked
    return kept, bare


def _index_anchors(
    words: Sequence[Words], bare: set[int], *, ngram: int
) -> dict[int, dict[int, tuple[tuple[int, int], ...]]]:
    """Return where items that are compared whole may begin: a run in each of their halves."""
    tables: dict[int, dict[int, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for item, found in enumerate(words):
        if len(found) < TINY or (len(found) > 4 * ngram and item not in bare):
            continue
        length = min(ANCHOR, len(found) if len(found) < ngram else len(found) // 2)
        offsets = {0} if len(found) < ngram else {0, len(found) - length}
        values = _hashes(found, length)
        for offset in sorted(offsets):
            tables[length][int(values[offset])].append((item, offset))
    return {n: {value: tuple(p) for value, p in t.items()} for n, t in sorted(tables.items())}


def _hits(
    stream: Words, table: Mapping[int, tuple[tuple[int, int], ...]], length: int
) -> list[tuple[int, int, int]]:
    """Return (position, item, offset) of every window of `stream` whose hash is in the table."""
    if not table or len(stream) < length:
        return []
    known = np.cumsum(np.concatenate([[0], stream >= 0]))
    whole = np.flatnonzero(known[length:] - known[:-length] == length)
    if not len(whole):
        return []
    keys = np.sort(np.fromiter(table, np.uint64, len(table)))
    values = _hashes(stream, length)[whole]
    found = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    return [
        (int(position), item, offset)
        for position, value in zip(
            whole[keys[found] == values], values[keys[found] == values].tolist(), strict=True
        )
        for item, offset in table[value]
    ]


def _hashes(words: Words, length: int) -> npt.NDArray[np.uint64]:
    """Return the polynomial hash modulo 2^64 of every window of `length` words."""
    count = len(words) - length + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    spread = (words.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)
    spread ^= spread >> np.uint64(29)
    values = np.zeros(count, np.uint64)
    for start in range(length):
        values = values * _BASE + spread[start : start + count]
    return values


def _run_leak(
    stream: Words, position: int, item: int, offset: int, items: Items, text: list[str], ends: Words
) -> Leak | None:
    """Return the longest run around a hit, or None where only the hashes agree."""
    words, length = items.words[item], items.ngram
    if not np.array_equal(stream[position : position + length], words[offset : offset + length]):
        return None
    start = int(ends[np.searchsorted(ends, position, side="right")]) - len(text) - 1
    first, last = position, position + length
    while offset and first > start and stream[first - 1] == words[offset - 1]:
        first, offset = first - 1, offset - 1
    while offset + last - first < len(words) and stream[last] == words[offset + last - first]:
        last += 1
    kind = "whole" if last - first == len(words) else "run"
    shared = text[first - start : last - start]
    solid = sum(len(word) > 1 for word in shared)
    if kind == "run" and solid < length // 2 and len(shared) < 2 * length:
        return None
    return Leak(items.names[item], " ".join(shared), len(shared), kind)


def _whole_leak(
    words: Words, position: int, item: int, offset: int, items: Items, text: list[str]
) -> Leak | None:
    """Return the leak if the item lies there whole or, from `ngram` words on, but for one."""
    wanted = items.words[item]
    size = len(wanted)
    spans = [(position - offset, position - offset + size)]
    if size >= items.ngram:
        longer = [size - 1, size + 1]
        begin, end = position - offset, position - offset + size
        spans += [(begin, begin + n) if offset == 0 else (end - n, end) for n in longer]
        if offset:  # one word more or less before the anchor moves the beginning
            spans += [(begin + shift, end) for shift in (-1, 1)]
    for first, last in spans:
        if first < 0 or last > len(words):
            continue
        if np.array_equal(words[first:last], wanted):
            return Leak(items.names[item], " ".join(text[first:last]), size, "whole")
        if size >= items.ngram and _one_edit(words[first:last], wanted):
            return Leak(items.names[item], " ".join(text[first:last]), size - 1, "edited")
    return None


def _one_edit(a: Words, b: Words) -> bool:
    """Say whether one word changed, added or missing turns `a` into `b`."""
    shorter = min(len(a), len(b))
    if abs(len(a) - len(b)) > 1:
        return False
    same_front = a[:shorter] == b[:shorter]
    same_back = a[len(a) - shorter :] == b[len(b) - shorter :]
    front = shorter if same_front.all() else int(same_front.argmin())
    back = shorter if same_back.all() else int(same_back[::-1].argmin())
    return front + back >= max(len(a), len(b)) - 1


def _find_tiny(texts: Sequence[str], items: Items, leaks: list[Leak | None]) -> list[Leak | None]:
    for number, text in enumerate(texts):
        for line in text.splitlines() if leaks[number] is None else ():
            words = " ".join(split_words(line)) if len(line) < 256 else ""
            if words in items.tiny:
                size = words.count(" ") + 1
                leaks[number] = Leak(items.names[items.tiny[words]], words, size, "whole")
                break
    return leaks
