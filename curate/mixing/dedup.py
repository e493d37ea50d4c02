"""The same text once: exact copies by number, near ones by MinHash and bands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curate.corpus.sketch import Places, Signatures
from curate.corpus.words import fold

NEAR = 0.8
"""Estimated Jaccard overlap of the shingle sets from which two texts are near-duplicates."""

ALIKE = 0.5
"""Overlap from which two texts may not stand on both sides of a held-out slice."""

ROUNDS = 16
"""Texts of one band that all the others in it are compared with, at most."""

_PAIRS = 1 << 18  # compared at once
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Seen:
    """How copies are looked for."""

    near: bool = True
    limit: int = 0  # texts that near ones are looked for among; 0 is all, 128 bytes each


@dataclass(frozen=True, slots=True)
class Copies:
    """Which texts repeat which: arrays over all texts."""

    kept: Places  # the text that stays in its place; its own number where it stays itself
    exact: npt.NDArray[np.bool_]  # word for word
    overlap: npt.NDArray[np.float64]  # of shingles with the one that stays, estimated


def normalise(text: str) -> str:
    """Return a text as exact duplicates are compared: NFKC, lower case, single spaces."""
    return " ".join(fold(text).split())


def overlaps(signatures: Signatures, one: Places, other: Places) -> npt.NDArray[np.float64]:
    """Return the estimated overlap of pairs of texts, (n_pairs,)."""
    found = np.empty(len(one))
    for start in range(0, len(one), _PAIRS):
        part = slice(start, start + _PAIRS)
        found[part] = (signatures[one[part]] == signatures[other[part]]).mean(axis=1)
    return found


def find_copies(
    values: npt.NDArray[np.uint64], signatures: Signatures, shingles: Places, *, seen: Seen
) -> Copies:
    """Return which texts repeat others; of each group the first stays.

    Exact: the same words and signs in the same order. Near: an estimated overlap of `NEAR` or
    more, or a chain of such overlaps.

    Args:
        values: (n,), of `sketch`; the texts in the order of their priority.
        signatures: (n, BINS).
        shingles: (n,).
        seen: whether near copies count, and among how many texts.

    Returns:
        Three arrays over the texts.
    """
    first = _first_of(values)
    groups = first
    if seen.near:
        texts = np.flatnonzero((first == np.arange(len(values))) & (shingles > 0))
        texts = texts[: seen.limit] if seen.limit else texts
        groups = join(len(values), _linked(signatures, texts, least=NEAR), also=first)
    kept = _first_of(groups)
    overlap = np.ones(len(values))
    copies = np.flatnonzero(kept != np.arange(len(values)))
    overlap[copies] = overlaps(signatures, copies, kept[copies])
    return Copies(kept, first == kept, overlap)


def alike_groups(
    values: npt.NDArray[np.uint64], signatures: Signatures, shingles: Places
) -> Places:
    """Return a group for each text, (n,): texts of overlap `ALIKE` or more share one."""
    first = _first_of(values)
    texts = np.flatnonzero((first == np.arange(len(values))) & (shingles > 0))
    return join(len(values), _linked(signatures, texts, least=ALIKE), also=first)


def join(n: int, links: tuple[Places, Places], *, also: Places) -> Places:
    """Return a group number for each of `n` texts, joined by links and by `also[i]` ~ i."""
    one = np.concatenate([links[0], np.arange(n)])
    other = np.concatenate([links[1], also])
    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _first_of(values: npt.NDArray[np.uint64] | Places) -> Places:
    """Return for each value the place of its first occurrence."""
    places, several = np.arange(len(values)), _several(values)
    _, first, inverse = np.unique(values[several], return_index=True, return_inverse=True)
    places[several] = several[first][inverse]
    return places


def _several(values: npt.NDArray[np.uint64] | Places) -> Places:
    """Return the places of the values that occur more than once, rising; a few others pass.

    Hardly any text has a copy: to sort those alone takes a fifth of the time.
    """
    bits = len(values).bit_length() + 2
    slots = ((values.view(np.uint64) * _ODD) >> np.uint64(64 - bits)).view(np.int64)
    return np.flatnonzero(np.bincount(slots)[slots] > 1)


def _linked(signatures: Signatures, texts: Places, *, least: float) -> tuple[Places, Places]:
    """Return pairs of overlap `least` or more among texts that share a band.

    In each band the first text is compared with all others, then the first of those that are
    not near it, and so on for `ROUNDS` rounds: groups come out whole, pairs stay few.
    """
    bands = np.ascontiguousarray(signatures[texts]).view(np.uint64)
    if not bands.shape[1] or not len(texts):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    with ThreadPoolExecutor(2) as threads:  # sorting leaves the interpreter to others
        linked = partial(_linked_by, signatures=signatures, texts=texts, least=least)
        found = [*threads.map(linked, bands.T)]
    return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])


def _linked_by(
    band: npt.NDArray[np.uint64], *, signatures: Signatures, texts: Places, least: float
) -> tuple[Places, Places]:
    """Return the pairs of `_linked` that share one band."""
    several = _several(band)
    order = several[np.argsort(band[several], kind="stable")]
    keys, members = band[order], texts[order]
    leading, following = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for _ in range(ROUNDS):
        fresh = np.concatenate([[True], keys[1:] != keys[:-1]]) if len(keys) else keys == keys
        leaders = members[np.flatnonzero(fresh)][np.cumsum(fresh) - 1]
        rest = np.flatnonzero(~fresh)
        if not len(rest):
            break
        near = overlaps(signatures, members[rest], leaders[rest]) >= least
        leading.append(leaders[rest[near]])
        following.append(members[rest[near]])
        keys, members = keys[rest[~near]], members[rest[~near]]
    return np.concatenate(leading), np.concatenate(following)
