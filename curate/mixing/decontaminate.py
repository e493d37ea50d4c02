"""No item of the target in the mix: runs of words that a document shares with an item."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.corpus.prints import Codes, word_codes
from curate.corpus.words import Places, Values, Words, number_words, windows_at
from curate.mixing.items import SIEVE_WORDS, TINY, Items, Sieve, Table, sieve_slots

GROUP_CHARS = 200_000
"""Characters that are looked through together."""

BLOCK = 1 << 18
"""Codes that one pass of arrays is made over: they stay in the cache."""

_NONE: Places = np.zeros(0, np.int64)
_LINE_END = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Leak:
    """A document that holds an item of the target, or a part of one."""

    item: str  # split and number from 0, e.g. eval:17
    words: str  # the words that both have, as normalised
    n_words: int
    kind: str  # run: of words; whole: the item; edited: but for one word; paraphrase
    place: str = ""  # of a paraphrase: the words of the document
    cosine: float = 0.0  # of a paraphrase with the item


def find_leaks(texts: Sequence[str], items: Items) -> list[Leak | None]:
    """Return for every text the first leak of an item in it, or None."""
    leaks: list[Leak | None] = []
    for group in _groups(texts):
        found = leaks_in(number_words(group), items)
        leaks += [found.get(number) for number in range(len(group))]
    return leaks


def leaks_in(words: Words, items: Items) -> dict[int, Leak]:
    """Return the first leak of each text that has one, by the number of the text.

    All texts are looked through at once: windows are found by the codes of their words, and
    then compared word by word.
    """
    leaks = _compare(word_codes(words.values), words.bounds, items, words)
    return _find_tiny(words, items, leaks) if items.tiny else leaks


def suspect(codes: Codes, bounds: npt.NDArray[np.int64], items: Items) -> list[int]:
    """Return the texts that may hold a leak, from the codes of their words alone.

    Each text in which `leaks_in` finds a leak is among them, others hardly ever: words of the
    same code would have to stand in the place of an item's. Tiny items are found by lines, of
    which codes know nothing: where a target has any, every text is suspect.

    Args:
        codes: of the words of all texts.
        bounds: (n_texts + 1,), where the words of each text begin.
        items: looked for.
    """
    if items.tiny:
        return list(range(len(bounds) - 1))
    return sorted(_compare(codes, bounds, items, None))


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


def _compare(
    codes: Codes, bounds: npt.NDArray[np.int64], items: Items, words: Words | None
) -> dict[int, Leak]:
    """Return the first leak of each text, by the words themselves or, with None, by their codes."""
    leaks: dict[int, Leak] = {}
    values = codes if words is None else words.values
    wanted = items.codes if words is None else items.words
    for table, (positions, lines) in zip(items.tables, _hits(codes, items), strict=True):
        compare = _run_leak if table is items.tables[0] else _whole_leak
        texts = np.searchsorted(bounds, positions, side="right") - 1
        hits = (positions, texts, table.item[lines], table.offset[lines])
        for position, text, item, offset in zip(*(each.tolist() for each in hits), strict=True):
            if text not in leaks:
                span = int(bounds[text]), int(bounds[text + 1])
                leak = compare(_Place(values, span, position, wanted[item], offset), item, items)
                if leak is not None:
                    leaks[text] = leak
    return leaks


def _hits(codes: Codes, items: Items) -> list[tuple[Places, Places]]:
    """Return of each table where its windows stand, and the line of each, from their codes."""
    found: list[list[tuple[Places, Places]]] = [[(_NONE, _NONE)] for _ in items.tables]
    if not any(len(table.keys) for table in items.tables):
        return [each[0] for each in found]
    longest = max(table.length for table in items.tables)
    for begin in range(0, len(codes), BLOCK):
        part = codes[begin : begin + BLOCK + longest]
        data = part.tobytes() + bytes(2 * SIEVE_WORDS)
        passed = [_sift(data, len(part), sieve) for sieve in items.sieves]
        for number, (table, hits) in enumerate(zip(items.tables, found, strict=True)):
            places = passed[min(number, 1)]
            here = places[: np.searchsorted(places, min(len(part) - table.length + 1, BLOCK))]
            hits.append(_matches(codes, begin + here, table))
    return [
        (np.concatenate([each[0] for each in hits]), np.concatenate([each[1] for each in hits]))
        for hits in found
    ]


def _matches(codes: Codes, places: Places, table: Table) -> tuple[Places, Places]:
    """Return where windows of a table stand, out of some places, and the line of each."""
    if not len(table.keys):
        return _NONE, _NONE
    keys = windows_at(codes, places, table.length)
    key = np.searchsorted(table.keys, keys).clip(max=len(table.keys) - 1)
    equal = np.flatnonzero(table.keys[key] == keys)
    if not len(equal):
        return _NONE, _NONE
    first, last = table.edges[key[equal]], table.edges[key[equal] + 1]
    places = np.repeat(places[equal], last - first)
    before = np.cumsum(last - first) - (last - first)
    lines = np.arange(len(places)) + np.repeat(first - before, last - first)
    inside = places + table.shift[lines] + table.length <= len(codes)
    places, lines = places[inside], lines[inside]
    second = windows_at(codes, places + table.shift[lines], table.length)
    both = second == table.second[lines]
    return places[both], lines[both]


def _sift(data: bytes, count: int, sieve: Sieve) -> npt.NDArray[np.int64]:
    """Return the places at which a window may begin, rising.

    Args:
        data: the codes, and `SIEVE_WORDS` of nothing.
        count: of the codes.
        sieve: of the windows.
    """
    mask = np.uint64((1 << 16 * sieve.words) - 1)
    found = []
    for lane in range(0, SIEVE_WORDS, sieve.stride):  # four codes are one number
        grams = np.frombuffer(data, "<u8", max(0, (count - lane + 3) // 4), 2 * lane)
        if sieve.words < SIEVE_WORDS:
            grams = grams & mask
        passed = sieve.slots[sieve_slots(grams, size=len(sieve.slots))]
        if sieve.twice:  # the last is no window's first: its next would stand in the same window
            passed = passed[:-1] & passed[1:]
        found.append(np.flatnonzero(passed) * SIEVE_WORDS + lane)
    held = np.sort(np.concatenate(found)) if len(found) > 1 else found[0]
    # A gram may be the window's at any of the places that the stride passes over.
    first = (held[:, None] - np.arange(sieve.stride - 1, -1, -1)).ravel()
    return first[first >= 0]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an item may lie in a text."""

    values: Values | Codes  # of all texts: words by their numbers, or by their codes
    span: tuple[int, int]  # the words of the text
    position: int  # of the window that was found
    wanted: Values | Codes  # the words of the item
    offset: int  # of the window in it


def _run_leak(place: _Place, item: int, items: Items) -> Leak | None:
    """Return the longest run around a hit; None across two texts, or where only signs agree."""
    values, wanted, offset, length = place.values, place.wanted, place.offset, items.ngram
    start, stop = place.span
    first, last = place.position, place.position + length
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
    shared = items.spelled[item][offset : offset + last - first]
    solid = sum(len(word) > 1 for word in shared)
    if kind == "run" and solid < length // 2 and len(shared) < 2 * length:
        return None
    return Leak(items.names[item], " ".join(shared), len(shared), kind)


def _whole_leak(place: _Place, item: int, items: Items) -> Leak | None:
    """Return the leak if the item lies there whole or, from `ngram` words on, but for one."""
    wanted, size, offset = place.wanted, len(place.wanted), place.offset
    begin, end = place.position - offset, place.position - offset + size
    spans = [(begin, end)]
    if size >= items.ngram:
        longer = [size - 1, size + 1]
        spans += [(begin, begin + n) if offset == 0 else (end - n, end) for n in longer]
        if offset:  # one word more or less before the anchor moves the beginning
            spans += [(begin + shift, end) for shift in (-1, 1)]
    for first, last in spans:
        if first < place.span[0] or last > place.span[1]:
            continue
        found, words = place.values[first:last], " ".join(items.spelled[item])
        if np.array_equal(found, wanted):
            return Leak(items.names[item], words, size, "whole")
        if size >= items.ngram and _one_edit(found, wanted):
            return Leak(items.names[item], words, size - 1, "edited")
    return None


def _one_edit(a: Values | Codes, b: Values | Codes) -> bool:
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
