"""Items of one split → a select and an eval half that share no near-identical item."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence

SHINGLE_WORDS = 5
STOCK_ITEMS = 50
"""A run of words that more items share is a stock phrase and joins none of them."""


def split_items(items: Sequence[str], *, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split items in halves; items that read alike stay together.

    Items are alike if they are equal but for case, digits and punctuation, or if half of the
    five-word runs of the shorter one stand in the other. Groups of alike items are shuffled by
    a digest of the seed and their text, so the order of the items does not matter, and dealt to
    the half with fewer items, largest first.

    Args:
        items: rendered items.
        seed: of the shuffle.

    Returns:
        (select, eval), each in the order of `items`; eval is empty where all are alike.
    """
    plain = [_normalised(item) for item in items]
    groups: dict[int, list[int]] = defaultdict(list)
    for item, group in enumerate(_groups(plain)):
        groups[group].append(item)

    def place(members: list[int]) -> tuple[int, bytes]:
        return -len(members), _draw_key(min(items[member] for member in members), seed)

    halves: tuple[list[int], list[int]] = ([], [])
    for members in sorted(groups.values(), key=place):
        halves[len(halves[0]) > len(halves[1])].extend(members)
    select, held_out = (tuple(items[member] for member in sorted(half)) for half in halves)
    return select, held_out


def draw_items(
    parts: Sequence[Sequence[str]], *, weights: Sequence[float], seed: int
) -> tuple[tuple[str, ...], ...]:
    """Draw from lists of items so that their characters stand in the ratio of the weights.

    No item is repeated: the list that is shortest for its weight is taken whole, of the others
    a seeded draw. Each list that has an item gives at least one.

    Args:
        parts: items of each target.
        weights: (n_parts,) > 0.
        seed: of the draw.

    Returns:
        The items drawn from each list, in its own order.
    """
    sizes = [sum(map(len, part)) for part in parts]
    scale = min(
        (size / weight for size, weight in zip(sizes, weights, strict=True) if size), default=0.0
    )
    drawn: list[tuple[str, ...]] = []
    for part, size, weight in zip(parts, sizes, weights, strict=True):
        wanted, taken = scale * weight, 0
        chosen: set[int] = set()
        for place in sorted(range(len(part)), key=lambda n: _draw_key(part[n], seed)):
            if chosen and taken + len(part[place]) / 2 > wanted and wanted < size:
                break
            chosen.add(place)
            taken += len(part[place])
        drawn.append(tuple(part[place] for place in sorted(chosen)))
    return tuple(drawn)


def read_alike(items: Sequence[str], others: Sequence[str], *, alike: bool) -> tuple[str, ...]:
    """Return the items that are (or are not) equal to another but for case, digits and signs."""
    plain = {_normalised(other) for other in others}
    return tuple(item for item in items if (_normalised(item) in plain) == alike)


def _draw_key(item: str, seed: int) -> bytes:
    data = f"{seed}\n{item}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).digest()


def _normalised(text: str) -> str:
    words = re.sub(r"[\W\d_]+", " ", text.lower()).strip()
    return words or text.strip()


def _groups(plain: Sequence[str]) -> list[int]:
    """Return a group number for each item: equal texts and large overlaps are joined."""
    parent = list(range(len(plain)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    first: dict[str, int] = {}
    for item, text in enumerate(plain):
        parent[item] = first.setdefault(text, item)
    unique = sorted(first.values())
    for one, other in _overlapping({item: _shingles(plain[item]) for item in unique}):
        high, low = sorted((root(one), root(other)), reverse=True)
        parent[high] = low
    return [root(item) for item in range(len(plain))]


def _shingles(text: str) -> set[int]:
    words = text.split()
    runs = range(len(words) - SHINGLE_WORDS + 1)
    return {
        int.from_bytes(
            hashlib.blake2b(
                " ".join(words[start : start + SHINGLE_WORDS]).encode("utf-8", "surrogatepass"),
                digest_size=8,
            ).digest(),
            "little",
        )
        for start in runs
    }


def _overlapping(shingles: dict[int, set[int]]) -> list[tuple[int, int]]:
    holders: dict[int, list[int]] = defaultdict(list)
    for item, runs in shingles.items():
        for run in runs:
            holders[run].append(item)
    pairs: list[tuple[int, int]] = []
    for item, runs in shingles.items():
        shared: dict[int, int] = defaultdict(int)
        for run in runs:
            if len(holders[run]) <= STOCK_ITEMS:
                for other in holders[run]:
                    if other > item:
                        shared[other] += 1
        for other, number in shared.items():
            if 2 * number >= min(len(runs), len(shingles[other])):
                pairs.append((item, other))
    return pairs
