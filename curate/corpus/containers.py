"""The bytes of a file, compressed or not → blocks and lines; a cut or damaged one is an error."""

from __future__ import annotations

import gzip
import lzma
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import msgspec
import pyarrow as pa

from curate.corpus.xz import open_xz

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""A longer line is passed over without being kept; the record is rejected as too_long."""

MAX_JSON_BYTES = 128 * 1024 * 1024
MAX_JSON_COMMAS = 6_000_000
"""A JSON file that is one value must be held whole; a larger one, or more parts, is refused."""

CHUNK_BYTES = 1024 * 1024
MAX_RATIO = 1_000
RATIO_FROM_BYTES = 100 * 1024 * 1024

Compression = Literal["none", "gzip", "zstd", "bz2", "xz"]

STREAM_ERRORS = (
    OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, msgspec.MsgspecError
)  # fmt: skip
"""What the libraries raise on a damaged container."""


class BrokenFileError(Exception):
    """A container that cannot be read to its end; the reader turns it into a ledger entry.

    Args:
        message: what is wrong, without the path.
        reason: where the whole file stands for one rejected record, its reason.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def open_bytes(path: Path, compression: Compression) -> Iterator[Any]:
    """Open a file for reading its decompressed bytes; a cut stream raises when its end is read."""
    with path.open("rb") as raw, _unpacked(raw, compression) as stream:
        yield stream


Span = tuple[int, int]
"""A part of a file, start and stop: whole lines by their bytes, or row groups by their numbers."""


def read_blocks(
    path: Path, compression: Compression, *, span: Span | None = None, capped: bool = True
) -> Iterator[bytes]:
    """Yield a file's decompressed bytes in blocks of about 1 MiB, the byte-order mark stripped.

    Args:
        path: the file.
        compression: from `detect_format`.
        span: of a file that is not compressed, only these bytes.
        capped: False for a file that we wrote, of documents that were held to the caps.

    Raises:
        BrokenFileError: the stream is cut or damaged, or it unpacks to more than 1,000 times its
            size (past 100 MiB). What can be unpacked before that has been yielded.
    """
    packed = max(1, path.stat().st_size)
    start, stop = span or (0, 0)
    left = stop - start
    unpacked = 0
    try:
        with open_bytes(path, compression) as stream:
            if start:
                stream.seek(start)
            while block := stream.read(min(CHUNK_BYTES, left) if span else CHUNK_BYTES):
                left -= len(block)
                if not unpacked and not start and block.startswith(b"\xef\xbb\xbf"):
                    block = block[3:]
                unpacked += len(block)
                if capped and unpacked > max(RATIO_FROM_BYTES, MAX_RATIO * packed):
                    raise BrokenFileError(f"unpacks to more than {MAX_RATIO} times its size")
                yield block
    except STREAM_ERRORS as error:
        if compression != "none":
            yield from before_damage(path, compression, skip=unpacked)
        raise BrokenFileError(one_line(error)) from None


def before_damage(path: Path, compression: Compression, *, skip: int = 0) -> Iterator[bytes]:
    """Yield what the block holds in which a stream breaks; a read that fails gives none of it.

    Args:
        path: the file, read anew.
        compression: not none.
        skip: unpacked bytes before that block.

    Yields:
        1 MiB at most, at once.
    """
    found = bytearray()
    with suppress(*STREAM_ERRORS), open_bytes(path, compression) as stream:
        while skip and (passed := stream.read(min(CHUNK_BYTES, skip))):
            skip -= len(passed)
        # byte by byte: the read that meets the damage gives nothing
        while len(found) < CHUNK_BYTES and (byte := stream.read(1)):
            found += byte
    yield bytes(found)


def find_line(path: Path, offset: int) -> int:
    r"""Return where the first line begins that does not begin before a byte of a file.

    Lines end with `\n` only, as in `read_lines`; the length of the file where there is none.
    """
    if offset <= 0:
        return 0
    with path.open("rb") as stream:
        place = stream.seek(offset - 1)
        while block := stream.read(1 << 16):
            found = block.find(b"\n")
            if found >= 0:
                return place + found + 1
            place += len(block)
    return place


def read_lines(
    path: Path, compression: Compression, *, span: Span | None = None, capped: bool = True
) -> Iterator[bytes | str]:
    r"""Yield lines, split on `\n` only; in place of a line that is none, its reason.

    Blank lines are no records and are left out.

    Yields:
        The bytes of a line without its end, or "too_long", or "truncated" for the rest before
        a cut.

    Raises:
        BrokenFileError: as `read_blocks`, after all the whole lines before the damage.
    """
    return chain.from_iterable(_line_lists(path, compression, span, capped))


def _line_lists(
    path: Path, compression: Compression, span: Span | None, capped: bool
) -> Iterator[list[bytes | str]]:
    """Yield the lines of `read_lines` as lists, one for each block that is read."""
    for head, block, first, last in _pieces(path, compression, span, capped=capped):
        found: list[bytes | str] = [head] if isinstance(head, str) else split_lines(head)
        if last > first:  # split where it stands: a copy of each block is a tenth of the time
            found += [line for line in block.split(b"\n")[1:-1] if line and not line.isspace()]
        yield found


def split_lines(block: bytes) -> list[bytes | str]:
    """Return the lines of a block of `read_line_blocks`, without their ends and blank ones."""
    return [line for line in block.split(b"\n") if line and not line.isspace()]


def read_line_blocks(path: Path, compression: Compression) -> Iterator[bytes | str]:
    """Yield the lines of `read_lines` many at a time, as they stand, ends and blank lines too.

    Yields:
        The bytes of whole lines; or, in place of one line that is none, its reason.
    """
    for head, block, first, last in _pieces(path, compression, None):
        if last == first:
            yield head
        elif isinstance(head, str):
            yield head
            yield block[first:last]
        else:
            yield b"".join((head, memoryview(block)[first:last]))


def _pieces(
    path: Path, compression: Compression, span: Span | None, *, capped: bool = True
) -> Iterator[tuple[bytes | str, bytes, int, int]]:
    """Yield the line that a block ends, or its reason; the block; where its own lines are."""
    longest = MAX_RECORD_BYTES if capped else sys.maxsize
    held: list[bytes] = []
    held_bytes = 0
    try:
        for block in read_blocks(path, compression, span=span, capped=capped):
            first, last = block.find(b"\n") + 1, block.rfind(b"\n") + 1
            if last:
                long = held_bytes + first - 1 > longest
                head = "too_long" if long else b"".join((*held, block[:first]))
                # a bomb of line breaks is no block of a million lines
                yield head, block, first, first if block.isspace() else last
                held, held_bytes = [], 0
            held_bytes += len(block) - last
            if held_bytes <= longest:
                held.append(block[last:])
            else:
                held = []
    except BrokenFileError:
        if held_bytes:
            yield "truncated", b"", 0, 0
        raise
    yield "too_long" if held_bytes > longest else b"".join(held), b"", 0, 0


def read_whole(path: Path, compression: Compression, *, limit: int) -> bytes | None:
    """Return all the bytes of a file, or None where they are more than `limit`.

    Raises:
        BrokenFileError: the stream is cut or damaged; reason "truncated".
    """
    held: list[bytes] = []
    size = 0
    try:
        for block in read_blocks(path, compression):
            size += len(block)
            if size > limit:
                return None
            held.append(block)
    except BrokenFileError as error:
        raise BrokenFileError(str(error), reason="truncated") from None
    return b"".join(held)


def read_head(path: Path, compression: Compression, *, limit: int) -> tuple[bytes, float]:
    """Return up to about `limit` unpacked bytes, and how many times as much the file holds.

    The factor is exact up to 64 times `limit`; beyond, it is that of the packed bytes.

    Raises:
        BrokenFileError: the stream is damaged before.
    """
    size = path.stat().st_size
    kept: list[bytes] = []
    n_kept = n_read = 0
    try:
        with path.open("rb") as raw, _unpacked(raw, compression) as stream:
            while block := stream.read(CHUNK_BYTES if n_kept >= limit else limit - n_kept):
                n_read += len(block)
                if n_kept < limit:
                    kept.append(block)
                    n_kept += len(block)
                elif n_read >= 64 * limit or compression == "none":
                    return b"".join(kept), max(1.0, size / raw.tell() * n_read / n_kept)
    except STREAM_ERRORS as error:
        if not kept:
            raise BrokenFileError(one_line(error)) from None
    return b"".join(kept), n_read / max(1, n_kept)


@contextmanager
def _unpacked(raw: Any, compression: Compression) -> Iterator[Any]:
    """Open what an open file unpacks to, by readers that raise on a truncated stream.

    Python's own passes over the zeros that blocks of a tape leave after gzip, as gzip(1) does;
    pyarrow's does not.
    """
    if compression == "none":
        yield raw
    elif compression == "xz":
        with open_xz(raw) as stream:
            yield stream
    elif compression == "gzip":
        with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
            yield stream
    else:
        with pa.CompressedInputStream(pa.PythonFile(raw, "r"), compression) as stream:
            yield stream


def one_line(error: BaseException) -> str:
    """Return an exception's message as one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"
