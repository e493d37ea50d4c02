"""Digests of bytes and of settings: what decides whether a result may be reused."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

SCHEMA = 3
"""Version of every published layout; part of each fingerprint."""


def digest_bytes(data: bytes | memoryview) -> str:
    """Return the blake2b-256 of `data` as 64 hex digits."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def digest_file(path: Path) -> str:
    """Return the blake2b-256 of a file's bytes, read in blocks of 1 MiB."""
    with path.open("rb") as stream:
        return digest_stream(stream)


def digest_stream(stream: BinaryIO, length: int = sys.maxsize) -> str:
    """Return the blake2b-256 of the next `length` bytes, or of all there are."""
    state = hashlib.blake2b(digest_size=32)
    while block := stream.read(min(length, 1 << 20)):
        state.update(block)
        length -= len(block)
    return state.hexdigest()


def digest_texts(texts: list[str] | tuple[str, ...]) -> str:
    """Return one digest of texts in order; each is preceded by its length, so none can run over.

    Example:
        >>> digest_texts(["ab", "c"]) == digest_texts(["a", "bc"])
        False
    """
    state = hashlib.blake2b(digest_size=32)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def fingerprint(**parts: Any) -> str:
    """Return the digest of named parts: records, numbers, strings, lists of them.

    Two calls agree only if every part and the schema version agree; the order of the
    names does not matter.
    """
    canonical = msgspec.json.encode({"schema": SCHEMA, **parts}, order="sorted")
    return digest_bytes(canonical)
