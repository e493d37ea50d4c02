"""No item of the target in the mix: runs of words that a document shares with an item."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.mixing.words import Values, Words, number_words, split_words, window_values
from curate.records import Target

ANCHOR = 6
"""Words that find where an item may lie before it is compared whole."""

MAX_SHARED = 3
"""Items of one split that may share a run of words; a run of more is the target's own wording."""

TINY = 4
"""Items of fewer words are no leak inside a sentence: they are matched to whole lines."""

GROUP_CHARS = 200_000
"""Characters that are looked through together."""

PASSAGE = re.compile(r"(?i)passage|context|document|article|story|support|background|evidence")
"""Fields of a template that hold what a question is about: text that anyone may quote."""

_FIELD = r"\{(\w+(?:\.\w+)*)\}"  # a field of a template, or a path inside one
_SIEVE_BITS = 20
_LINE_END = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Leak:
    """A document that holds an item of the target, or a part of one."""

    item: str  # split and number from 0, e.g. eval:17
    words: str  # the words that both have, as normalised
    n_words: int
    kind: str  # run: a long run of words; whole: the item; edited: the item but for one word


@dataclass(frozen=True, slots=True)
class Table:
    """Where windows of one length stand in the items."""

    keys: Values  # sorted
    sieve: npt.NDArray[np.bool_]  # by the first bits of a key: false where none begins so
    places: Mapping[int, tuple[tuple[int, int], ...]]  # key → (item, offset)


@dataclass(frozen=True, slots=True)
class Items:
    """Items of a target as word numbers, and where to look for them."""

    names: tuple[str, ...]
    words: tuple[Values, ...]
    ngram: int
    runs: Table
    anchors: Mapping[int, Table]  # by length
    tiny: Mapping[str, int]  # items of fewer than `TINY` words: the line → item


def index_items(splits: Mapping[str, Sequence[str | Sequence[str]]], *, ngram: int = 13) -> Items:
    """Make the items of all splits ready to be looked for.

    An item of `ngram` words or more is found by any run of `ngram` words, a shorter one
    only whole. Runs that more than `MAX_SHARED` items of a split share are wording, not
    content, and do not count; nor does a run that is mostly signs (fewer than `ngram` // 2
    words of two letters) until it is twice as long, as `( x ) >= 0 $ for all $ x in {`
    is in any text. Items up to 4 · `ngram` words, which one changed word could hide from
    these rules, and those without a run of their own are also looked for whole, from
    `ngram` words on with one word changed, added or missing.

    Args:
        splits: name of the split → its items: each a text, or several that are each looked
            for (`item_parts`).
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
    named = [
        (f"{split}:{number}", part)
        for split, texts in splits.items()
        for number, item in enumerate(texts)
        for part in ([item] if isinstance(item, str) else item)
    ]
    found = number_words([text for _, text in named])
    edges = found.bounds.tolist()
    words = [found.values[a:b] for a, b in itertools.pairwise(edges)]
    names = [name for name, _ in named]
    tiny: dict[str, int] = {}
    for item, part in enumerate(words):
        if 0 < len(part) < TINY:
            tiny.setdefault(" ".join(found.spelled(edges[item], edges[item + 1])), item)
    runs, bare = _index_runs(names, words, ngram=ngram)
    anchors = _index_anchors(words, bare, ngram=ngram)
    return Items(tuple(names), tuple(words), ngram, runs, anchors, tiny)


def item_parts(text: str, template: str, *, ngram: int = 13) -> tuple[str, ...]:
    """Return what of a rendered item is looked for: the item, its question, its long answers.

    The fields of a template are found again between its literals. A field that is named as a
    passage is left out: to quote the passage is not to leak the question. A field stands for
    itself from `ngram` words on, the first one (the question) from `TINY` words on; a short
    answer alone is in any text.

    Args:
        text: a rendered item.
        template: that rendered it; a plain field name has no parts.
        ngram: words from which an answer tells the item.

    Example:
        >>> item_parts("Q: why is the sky blue? A: light", "Q: {question} A: {answer}")
        ('Q: why is the sky blue? A: light', 'why is the sky blue?')
    """
    fields = re.findall(_FIELD, template)
    if len(fields) < 2:
        return (text,)
    pattern = r"(.*?)".join(re.escape(part) for part in re.split(_FIELD, template)[::2])
    match = re.fullmatch(pattern, text, re.DOTALL)
    if match is None:
        return (text,)
    asked = [
        value for name, value in zip(fields, match.groups(), strict=True)
        if not PASSAGE.search(name)
    ]  # fmt: skip
    whole = text if len(asked) == len(fields) else "\n".join(asked)
    parts = [
        value for place, value in enumerate(asked)
        if len(split_words(value)) >= (ngram if place else TINY)
    ]  # fmt: skip
    return tuple(dict.fromkeys([whole, *parts]))


def index_target(target: Target, *, ngram: int = 13) -> Items:
    """Make the items of a target ready to be looked for, also those in neither split."""
    splits = {"select": target.select, "eval": target.eval, "spare": target.spare}
    rendered = {
        name: [target.template] * len(items)
        if not target.templates
        else [each[0] for each in target.templates for _ in range(each[1:][place])]
        for place, (name, items) in enumerate(splits.items())
    }
    return index_items(
        {
            name: [
                item_parts(item, template, ngram=ngram)
                for item, template in zip(items, rendered[name], strict=True)
            ]
            for name, items in splits.items()
        },
        ngram=ngram,
    )


def find_leaks(texts: Sequence[str], items: Items) -> list[Leak | None]:
    """Return for every text the first leak of an item in it, or None."""
    leaks: list[Leak | None] = []
    for group in _groups(texts):
        found = leaks_in(number_words(group), items)
        leaks += [found.get(number) for number in range(len(group))]
    return leaks


def leaks_in(words: Words, items: Items) -> dict[int, Leak]:
    """Return the first leak of each text that has one, by the number of the text.

    All texts are looked through at once: windows are found by their number, and then
    compared word by word.
    """
    leaks: dict[int, Leak] = {}
    for position, item, offset in _hits(words.values, items.runs, items.ngram):
        text = int(np.searchsorted(words.bounds, position, side="right")) - 1
        if text not in leaks:
            leak = _run_leak(words, text, position, item, offset, items)
            if leak is not None:
                leaks[text] = leak
    for length, table in items.anchors.items():
        for position, item, offset in _hits(words.values, table, length):
            text = int(np.searchsorted(words.bounds, position, side="right")) - 1
            if text not in leaks:
                leak = _whole_leak(words, text, position, item, offset, items)
                if leak is not None:
                    leaks[text] = leak
    return _find_tiny(words, items, leaks) if items.tiny else leaks


def _groups(texts: Sequence[str]) -> Iterable[list[str]]:
    group: list[str] = []
    chars = 0
    for text in texts:
        group.append(text)
        chars += len(text)
        if chars >= GROUP_CHARS:
            yield group
            group, chars = [], 0
    if group:
        yield group


def _table(places: Mapping[int, Sequence[tuple[int, int]]]) -> Table:
    keys = np.sort(np.fromiter(places, np.uint64, len(places)))
    sieve = np.zeros(1 << _SIEVE_BITS, np.bool_)
    sieve[keys >> np.uint64(64 - _SIEVE_BITS)] = True
    return Table(keys, sieve, {value: tuple(where) for value, where in places.items()})


def _index_runs(
    names: Sequence[str], words: Sequence[Values], *, ngram: int
) -> tuple[Table, set[int]]:
    """Return the runs that mark an item, and the long items that have none."""
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for item, found in enumerate(words):
        for offset, value in enumerate(window_values(found, ngram).tolist()):
            places[value].append((item, offset))
    kept = {}
    marked: set[int] = set()
    for value, where in places.items():
        per_split: dict[str, set[str]] = defaultdict(set)
        for item, _ in where:
            per_split[names[item].split(":")[0]].add(names[item])
        if max(map(len, per_split.values())) <= MAX_SHARED:
            kept[value] = where
            marked.update(item for item, _ in where)
    bare = {item for item, found in enumerate(words) if len(found) >= ngram} - marked
    return _table(kept), bare


def _index_anchors(words: Sequence[Values], bare: set[int], *, ngram: int) -> dict[int, Table]:
    """Return where items that are compared whole may begin: a run in each of their halves."""
    tables: dict[int, dict[int, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for item, found in enumerate(words):
        if len(found) < TINY or (len(found) > 4 * ngram and item not in bare):
            continue
        length = min(ANCHOR, len(found) if len(found) < ngram else len(found) // 2)
        offsets = {0} if len(found) < ngram else {0, len(found) - length}
        values = window_values(found, length)
        for offset in sorted(offsets):
            tables[length][int(values[offset])].append((item, offset))
    return {length: _table(table) for length, table in sorted(tables.items())}


def _hits(values: Values, table: Table, length: int) -> list[tuple[int, int, int]]:
    """Return (position, item, offset) of every window whose number is in the table."""
    if not len(table.keys) or len(values) < length:
        return []
    windows = window_values(values, length)
    passed = np.flatnonzero(table.sieve[windows >> np.uint64(64 - _SIEVE_BITS)])
    wanted = windows[passed]
    found = np.searchsorted(table.keys, wanted).clip(max=len(table.keys) - 1)
    equal = table.keys[found] == wanted
    return [
        (position, item, offset)
        for position, value in zip(passed[equal].tolist(), wanted[equal].tolist(), strict=True)
        for item, offset in table.places[value]
    ]


def _run_leak(
    words: Words, text: int, position: int, item: int, offset: int, items: Items
) -> Leak | None:
    """Return the longest run around a hit; None across two texts, or where only signs agree."""
    wanted, values, length = items.words[item], words.values, items.ngram
    start, stop = int(words.bounds[text]), int(words.bounds[text + 1])
    first, last = position, position + length
    if last > stop or not np.array_equal(values[first:last], wanted[offset : offset + length]):
        return None
    while offset and first > start and values[first - 1] == wanted[offset - 1]:
        first, offset = first - 1, offset - 1
    while (
        offset + last - first < len(wanted)
        and last < stop
        and values[last] == wanted[offset + last - first]
    ):
        last += 1
    kind = "whole" if last - first == len(wanted) else "run"
    shared = words.spelled(first, last)
    solid = sum(len(word) > 1 for word in shared)
    if kind == "run" and solid < length // 2 and len(shared) < 2 * length:
        return None
    return Leak(items.names[item], " ".join(shared), len(shared), kind)


def _whole_leak(
    words: Words, text: int, position: int, item: int, offset: int, items: Items
) -> Leak | None:
    """Return the leak if the item lies there whole or, from `ngram` words on, but for one."""
    wanted, size = items.words[item], len(items.words[item])
    begin, end = position - offset, position - offset + size
    spans = [(begin, end)]
    if size >= items.ngram:
        longer = [size - 1, size + 1]
        spans += [(begin, begin + n) if offset == 0 else (end - n, end) for n in longer]
        if offset:  # one word more or less before the anchor moves the beginning
            spans += [(begin + shift, end) for shift in (-1, 1)]
    for first, last in spans:
        if first < words.bounds[text] or last > words.bounds[text + 1]:
            continue
        found = words.values[first:last]
        if np.array_equal(found, wanted):
            return Leak(items.names[item], " ".join(words.spelled(first, last)), size, "whole")
        if size >= items.ngram and _one_edit(found, wanted):
            shared = " ".join(words.spelled(first, last))
            return Leak(items.names[item], shared, size - 1, "edited")
    return None


def _one_edit(a: Values, b: Values) -> bool:
    """Say whether one word changed, added or missing turns `a` into `b`."""
    shorter = min(len(a), len(b))
    if abs(len(a) - len(b)) > 1:
        return False
    same_front = a[:shorter] == b[:shorter]
    same_back = a[len(a) - shorter :] == b[len(b) - shorter :]
    front = shorter if same_front.all() else int(same_front.argmin())
    back = shorter if same_back.all() else int(same_back[::-1].argmin())
    return front + back >= max(len(a), len(b)) - 1


def _find_tiny(words: Words, items: Items, leaks: dict[int, Leak]) -> dict[int, Leak]:
    """Add the texts in which a tiny item is a line of its own."""
    breaks = np.array([found.start() for found in _LINE_END.finditer(words.text)], np.int64)
    line_of = np.searchsorted(breaks, words.starts)
    first_of = np.flatnonzero(np.diff(line_of, prepend=-1))
    sizes = np.diff(np.append(first_of, len(words.starts)))
    for first, size in zip(
        first_of[sizes < TINY].tolist(), sizes[sizes < TINY].tolist(), strict=True
    ):
        spelled = " ".join(words.spelled(first, first + size))
        text = int(np.searchsorted(words.bounds, first, side="right")) - 1
        if spelled in items.tiny and text not in leaks:
            leaks[text] = Leak(items.names[items.tiny[spelled]], spelled, size, "whole")
    return leaks
