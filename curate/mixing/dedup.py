"""The same text once: exact duplicates by digest, near ones by MinHash."""

from __future__ import annotations

import hashlib
import unicodedata
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from datasketch import MinHash, MinHashLSH

from curate.mixing.decontaminate import split_words

SHINGLE = 5
"""Words of a shingle: texts are near where their sets of shingles are."""

NEAR = 0.8
"""Estimated Jaccard overlap of the shingle sets from which two texts are near-duplicates."""

PERMUTATIONS = 64
BANDS = (8, 8)
"""Bands × rows: texts of overlap 0.8 meet in some band with probability 0.77, of 0.9 with 0.99."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Which earlier text a text repeats."""

    kept: str  # name of the text that stays
    kind: str  # exact or near
    overlap: float  # Jaccard overlap of their shingles, estimated; 1 for exact


@dataclass(slots=True)
class Seen:
    """The texts kept so far: what a new one is held against."""

    near: bool = True
    limit: int = 0  # texts kept for near-duplicates; 0 is all, about 3 KB each
    digests: dict[bytes, str] = field(default_factory=dict)
    signatures: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    lsh: Any = field(default_factory=lambda: MinHashLSH(num_perm=PERMUTATIONS, params=BANDS))
    unchecked: int = 0  # texts not held against all earlier ones because of `limit`


def find_duplicate(text: str, name: str, seen: Seen) -> Duplicate | None:
    """Return what `text` repeats; where it repeats nothing, remember it under `name`.

    Exact: equal after NFKC, lower case and one space for any run of them. Near: an overlap
    of at least `NEAR` between sets of `SHINGLE`-word shingles, estimated by MinHash
    (Broder 1997) with `PERMUTATIONS` permutations; texts of fewer words than a shingle
    are compared exactly only.

    Example:
        >>> seen = Seen()
        >>> find_duplicate("To be, or not", "a", seen)
        >>> find_duplicate("to be,  or NOT", "b", seen).kept
        'a'
    """
    digest = hashlib.blake2b(normalise(text).encode("utf-8", "surrogatepass"), digest_size=16)
    if (kept := seen.digests.get(digest.digest())) is not None:
        return Duplicate(kept=kept, kind="exact", overlap=1.0)
    if seen.near and (signature := minhash(text)) is not None:
        near = _nearest(signature, seen)
        if near is not None:
            return near
        _remember(signature, name, seen)
    seen.digests[digest.digest()] = name
    return None


def normalise(text: str) -> str:
    """Return a text as exact duplicates are compared: NFKC, lower case, single spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.lower().split())


def minhash(text: str) -> MinHash | None:
    """Return the MinHash of a text's shingles; None where it is shorter than one shingle."""
    words = split_words(text)
    count = len(words) - SHINGLE + 1
    if count <= 0:
        return None
    encoded = (word.encode("utf-8", "surrogatepass") for word in words)
    numbers = np.fromiter(map(zlib.crc32, encoded), np.uint64)
    shingles = np.zeros(count, np.uint64)
    for start in range(SHINGLE):
        shingles = shingles * np.uint64(0x9E3779B97F4A7C15) + numbers[start : start + count]
    shingles ^= shingles >> np.uint64(32)
    distinct = np.unique(shingles & np.uint64(0xFFFFFFFF))
    signature = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int)
    for start in range(0, len(distinct), 65_536):  # the permuted values of one slice: 32 MB
        signature.update_batch(distinct[start : start + 65_536])
    return signature


def _nearest(signature: MinHash, seen: Seen) -> Duplicate | None:
    """Return the kept text of the largest overlap, if that reaches `NEAR`."""
    values = signature.hashvalues
    best, kept = 0.0, ""
    for name in sorted(seen.lsh.query(signature)):
        overlap = float(np.mean(seen.signatures[name] == values))
        if overlap > best:
            best, kept = overlap, name
    return Duplicate(kept=kept, kind="near", overlap=best) if best >= NEAR else None


def _remember(signature: MinHash, name: str, seen: Seen) -> None:
    if seen.limit and len(seen.signatures) >= seen.limit:
        seen.unchecked += 1
        return
    seen.signatures[name] = signature.hashvalues
    seen.lsh.insert(name, signature)
