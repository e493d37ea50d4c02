"""The items of a target, ready to be looked for: by runs of their words."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from curate.corpus.prints import Codes, word_codes
from curate.corpus.words import Places, Values, number_words, split_words, window_values
from curate.records import Target

ANCHOR = 6
"""Words that find where an item may lie before it is compared whole."""

MAX_SHARED = 3
"""Items of one split that may share a run of words; a run of more is the target's own wording."""

TINY = 4
"""Items of fewer words are no leak inside a sentence: they are matched to whole lines."""

PASSAGE = re.compile(r"(?i)passage|context|document|article|story|support|background|evidence")
"""Fields of a template that hold what a question is about: text that anyone may quote."""

_FIELD = r"\{(\w+(?:\.\w+)*)\}"  # a field of a template, or a path inside one

SIEVE_WORDS = 4
"""Words by which most places are passed over; their codes are one number of 64 bits, a gram."""

_SIEVE_BITS = (18, 23)
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Table:
    """Where windows of one length stand in the items: a line for each place, by its number.

    A place that counts only where a second window stands too says how many words further it is.
    """

    length: int
    keys: Values  # (k,) rising: the number of the codes of each window
    edges: Places  # (k + 1,) lines of keys[i]: edges[i] to edges[i + 1]
    item: Places  # (lines,)
    offset: Places  # (lines,) of the window in its item
    shift: Places  # (lines,) words from the window to the second; 0: there is none
    second: Values  # (lines,) number of the second window


@dataclass(frozen=True, slots=True)
class Sieve:
    """What tells most places of a text at which no window of some tables begins.

    Only the grams at every `stride`-th word of a text are looked at: each window holds one of
    them, whatever its place, and where it is long enough the next one too.
    """

    slots: npt.NDArray[np.bool_]  # by the hash of a gram: false where no window holds it there
    words: int  # of a gram, 1 to `SIEVE_WORDS`
    stride: int  # 1, 2 or 4
    twice: bool  # the next gram has to be there too


@dataclass(frozen=True, slots=True)
class Items:
    """Items of a target as words, and where to look for them."""

    names: tuple[str, ...]
    words: tuple[Values, ...]  # of each item: the numbers of its words
    codes: tuple[Codes, ...]  # the first bits of these
    spelled: tuple[tuple[str, ...], ...]
    ngram: int
    tables: tuple[Table, ...]  # the runs, then the anchors by length
    sieves: tuple[Sieve, ...]  # of the runs, then of all the anchors
    tiny: Mapping[str, int]  # items of fewer than `TINY` words: the line → item


def sieve_slots(grams: Values, *, size: int) -> npt.NDArray[np.int64]:
    """Return where packed codes of words stand in a sieve of `size` entries, a power of 2."""
    shift = np.uint64(65 - size.bit_length())
    return ((grams * _ODD) >> shift).view(np.int64)


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
    spans = list(itertools.pairwise(edges))
    words = [found.values[a:b] for a, b in spans]
    codes = [word_codes(each) for each in words]
    spelled = [tuple(found.spelled(a, b)) for a, b in spans]
    tiny = {" ".join(each): item for item, each in reversed([*enumerate(spelled)])
            if 0 < len(each) < TINY}  # fmt: skip
    names = [name for name, _ in named]
    runs, bare = _index_runs(names, codes, ngram=ngram)
    anchors = _index_anchors(codes, bare, ngram=ngram)
    sieves = tuple(_sieve(codes, tables) for tables in ([runs], anchors) if tables)
    return Items(
        tuple(names), tuple(words), tuple(codes), tuple(spelled), ngram, (runs, *anchors),
        sieves, tiny,
    )  # fmt: skip


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


def _index_runs(
    names: Sequence[str], words: Sequence[Codes], *, ngram: int
) -> tuple[Table, set[int]]:
    """Return the runs that mark an item, and the long items that have none."""
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for item, found in enumerate(words):
        for offset, value in enumerate(window_values(found.astype(np.uint64), ngram).tolist()):
            places[value].append((item, offset))
    lines: list[Line] = []
    marked: set[int] = set()
    for value, where in places.items():
        per_split: dict[str, set[str]] = defaultdict(set)
        for item, _ in where:
            per_split[names[item].split(":")[0]].add(names[item])
        if max(map(len, per_split.values())) <= MAX_SHARED:
            lines += [(value, item, offset, 0, value) for item, offset in where]
            marked.update(item for item, _ in where)
    bare = {item for item, found in enumerate(words) if len(found) >= ngram} - marked
    return _table(lines, ngram), bare


def _index_anchors(words: Sequence[Codes], bare: set[int], *, ngram: int) -> list[Table]:
    """Return where items that are compared whole may begin: both ends of each of their halves.

    One changed word leaves a half as it was; an item that has to be whole is one half.
    """
    lines: dict[int, list[Line]] = defaultdict(list)
    for item, found in enumerate(words):
        if len(found) < TINY or (len(found) > 4 * ngram and item not in bare):
            continue
        half = len(found) if len(found) < ngram else len(found) // 2
        length = min(ANCHOR, half)
        values = window_values(found.astype(np.uint64), length).tolist()
        for offset in sorted({0, len(found) - half}):
            shift = half - length
            lines[length].append((values[offset], item, offset, shift, values[offset + shift]))
    return [_table(found, length) for length, found in sorted(lines.items())]


Line = tuple[int, int, int, int, int]  # of a table: key, item, offset, shift, second


def _table(lines: Sequence[Line], length: int) -> Table:
    """Return a table of lines in the order of their keys."""
    lines = sorted(lines, key=itemgetter(0))
    places = np.array([line[1:4] for line in lines], np.int64).reshape(-1, 3)
    keys, first = np.unique(np.array([line[0] for line in lines], np.uint64), return_index=True)
    second = np.array([line[4] for line in lines], np.uint64)
    edges = np.append(first, len(lines))
    return Table(length, keys, edges, places[:, 0], places[:, 1], places[:, 2], second)


def _sieve(codes: Sequence[Codes], tables: Sequence[Table]) -> Sieve:
    """Return the sieve of some tables: as few grams of a text as their shortest window allows."""
    shortest = min(table.length for table in tables)
    words = min(SIEVE_WORDS, shortest)
    stride = next((step for step in (4, 2) if shortest >= step + words - 1), 1)
    twice = shortest >= 2 * stride + words - 1 and stride == SIEVE_WORDS
    starts = np.cumsum([0, *map(len, codes)])
    item = np.concatenate([table.item for table in tables])
    offset = np.concatenate([table.offset for table in tables])
    shifts = np.arange(2 * stride if twice else stride)
    first = np.unique((starts[item] + offset)[:, None] + shifts)
    flat = np.concatenate([np.zeros(0, np.uint16), *codes])
    grams = sum(
        (flat[first + n].astype(np.uint64) << np.uint64(16 * n) for n in range(words)),
        start=np.zeros(len(first), np.uint64),
    )
    low, high = _SIEVE_BITS
    slots = np.zeros(1 << min(max((24 * len(first)).bit_length(), low), high), np.bool_)
    slots[sieve_slots(grams, size=len(slots))] = True
    return Sieve(slots, words, stride, twice)
