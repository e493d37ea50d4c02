"""The documents of a shard again: ranges of files that are still what was indexed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from curate.corpus.inputs import InputFile
from curate.corpus.passes import read_records
from curate.errors import CurateError
from curate.records import Document, RecordRange, Shard
from curate.store.fingerprint import digest_file


def read_ranges(shard: Shard, *, text: str) -> Iterator[Document]:
    """Read a shard's documents again, after checking that its files are what was indexed.

    Shards of one file that are read one after the other, in their order, take one pass over it:
    the file stays open where a range ends, and the next range goes on from there.

    Args:
        shard: of an index.
        text: the same field or template as then.

    Raises:
        CurateError: a file is gone or its bytes changed.
    """
    for part in shard.ranges:
        found = read_records(
            InputFile(path=Path(part.path), source=shard.source, grouped=shard.grouped),
            text=text,
            digest=_checked_digest(part),
            start=part.start,
            stop=part.stop,
        )
        yield from (document for _, document in found)


def check_unchanged(part: RecordRange) -> Path:
    """Return the file of a range, which is still what was indexed.

    Raises:
        CurateError: it is gone, or changed.
    """
    _checked_digest(part)
    return Path(part.path)


def _checked_digest(part: RecordRange) -> str:
    """Return the digest of a range's file, which is still that of the index."""
    path = Path(part.path)
    try:
        status = path.stat()
        digest = _digest(part.path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise CurateError(
            f"{path}: {error.strerror or error}; put it back or run curate index again"
        ) from None
    if digest != part.file_digest:
        raise CurateError(f"{path}: changed since it was indexed; run curate index again")
    return digest


@lru_cache(maxsize=100_000)
def _digest(path: str, n_bytes: int, mtime_ns: int) -> str:
    """Return a file's digest; kept in this process so that 1,000 shards hash their file once."""
    return digest_file(Path(path))
