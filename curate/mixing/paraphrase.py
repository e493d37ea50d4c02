"""Items told in other words: places that share an item's rare words, then compared by meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.corpus.prints import Codes
from curate.mixing.items import Items

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Embed = Callable[[Sequence[str]], Floats]
"""Texts → unit vectors (n, d)."""

RARE = 16
"""Words of an item that are looked for: those that are rarest in the shard."""

LEAST_WORDS = 6
"""An item of fewer different words has no paraphrase that could be told from other text."""

SHARE = 0.5
"""Of the weight of an item's rare words that a place has to hold before it is compared."""

STRETCH = 1.5
"""Words of a place for each word of the item."""

MOST = 3
"""Items that one document is compared with, those with most in common first."""


@dataclass(frozen=True, slots=True)
class Place:
    """Words of a text that may tell an item in other words."""

    text: int
    item: int  # place in `Items`
    first: int  # word of the text
    last: int  # word after the last
    share: float  # of the weight of the item's rare words, 0 to 1


def find_places(codes: Codes, bounds: Ints, items: Items) -> list[Place]:
    """Return places that hold at least `SHARE` of the weight of an item's rare words.

    A word weighs log(words / its count), counted in these texts and the items together
    (Spärck Jones 1972). Words are told by their codes; two words share one once in 65,536.

    Args:
        codes: of the words of all texts.
        bounds: (n_texts + 1,), where the words of each text begin.
        items: of the target.

    Returns:
        At most `MOST` places of each text, the best of each item.
    """
    counts = np.bincount(codes, minlength=1 << 16) + 1
    for words in items.codes:
        np.add.at(counts, words, 1)
    weights = np.log(counts.sum() / counts)
    item, code = _rare_words(items, weights)
    if not len(item):
        return []
    order = np.argsort(code, kind="stable")
    item, code = item[order], code[order]
    wanted = np.zeros(1 << 16, np.bool_)
    wanted[code] = True
    position = np.flatnonzero(wanted[codes])
    begin = np.searchsorted(code, codes[position])
    end = np.searchsorted(code, codes[position], side="right")
    sizes = end - begin
    which = np.repeat(begin - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
    return _best(item[which], np.repeat(position, sizes), code[which], weights, bounds, items)


def _rare_words(items: Items, weights: npt.NDArray[np.float64]) -> tuple[Ints, Ints]:
    """Return (item, code) of the rare words of every item."""
    pairs = []
    for number, words in enumerate(items.codes):
        codes = np.unique(words)
        if len(codes) >= LEAST_WORDS:
            rare = codes[np.argsort(-weights[codes], kind="stable")[:RARE]].astype(np.int64)
            pairs.append(np.stack([np.full(len(rare), number), rare]))
    found = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), np.int64)
    return found[0], found[1]


def _best(
    item: Ints,
    position: Ints,
    code: Ints,
    weights: npt.NDArray[np.float64],
    bounds: Ints,
    items: Items,
) -> list[Place]:
    """Return the best places from the events (item, position, code of a rare word)."""
    rare = _rare_words(items, weights)
    full = np.bincount(rare[0], weights[rare[1]], minlength=len(items.codes))
    length = np.ceil([STRETCH * len(words) for words in items.codes]).astype(np.int64)
    order = np.lexsort([position, code, item])
    item, position, code = item[order], position[order], code[order]
    # A word that stands twice in a place counts once.
    again = np.zeros(len(item), np.bool_)
    again[1:] = (
        (item[1:] == item[:-1])
        & (code[1:] == code[:-1])
        & (position[1:] - position[:-1] < length[item[1:]])
    )
    order = np.lexsort([position, item])
    item, position, code, again = item[order], position[order], code[order], again[order]
    sums = np.concatenate([[0.0], np.cumsum(np.where(again, 0.0, weights[code]))])
    text = np.searchsorted(bounds, position, side="right") - 1
    stop = np.minimum(position + length[item], bounds[text + 1])
    span = int(bounds[-1]) + 1
    last = np.searchsorted(item * span + position, item * span + stop)
    share = (sums[last] - sums[:-1]) / np.maximum(full[item], 1e-9)
    enough = np.flatnonzero(share >= SHARE)
    chosen: dict[int, dict[int, Place]] = {}
    for event in enough[np.argsort(-share[enough], kind="stable")].tolist():
        where, what = int(text[event]), int(item[event])
        held = chosen.setdefault(where, {})
        if what not in held and len(held) < MOST:
            first = int(position[event] - bounds[where])
            held[what] = Place(
                where, what, first, int(stop[event] - bounds[where]), float(share[event])
            )
    return [place for where in sorted(chosen) for place in chosen[where].values()]


def compare(snippets: Sequence[str], wanted: Sequence[str], *, embed: Embed) -> Floats:
    """Return the cosine of each snippet with its item, (n,), -1 to 1; equal texts pass once."""
    if not snippets:
        return np.zeros(0, np.float32)
    texts = list(dict.fromkeys([*snippets, *wanted]))
    vectors, place = embed(texts), {text: number for number, text in enumerate(texts)}
    one, other = ([place[text] for text in each] for each in (snippets, wanted))
    return np.asarray((vectors[one] * vectors[other]).sum(axis=1), np.float32)
