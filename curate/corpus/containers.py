"""Bytes of a file → records: which format it is, and how each one is taken apart."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import msgspec
import pyarrow as pa

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""A longer line is passed over without being kept; the record is rejected as too_long."""

MAX_JSON_BYTES = 128 * 1024 * 1024
MAX_JSON_COMMAS = 6_000_000
"""A JSON file that is one value must be held whole; a larger one, or more parts, is refused."""

CHUNK_BYTES = 1024 * 1024
MAX_RATIO = 1_000
RATIO_FROM_BYTES = 100 * 1024 * 1024

Kind = Literal["jsonl", "json", "csv", "tsv", "whole", "parquet", "arrow_file", "arrow_stream"]
Compression = Literal["none", "gzip", "zstd", "bz2", "xz"]

STREAM_ERRORS = (OSError, EOFError, lzma.LZMAError, pa.ArrowException, msgspec.MsgspecError)
"""What the libraries raise on a damaged container."""

_MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
)
COMPRESSED_SUFFIXES = frozenset({".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz"})
RECORD_SUFFIXES: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow_file",
    ".feather": "arrow_file",
}
_WHOLE = """
txt text md markdown rst tex bib adoc org html htm xml css js mjs ts tsx jsx py pyi pyx
pxd ipynb c h cc cpp cxx hpp hh cu cuh cs java kt scala go rs rb php pl pm lua swift m r
jl f f90 f95 hs ml mli lean v thy agda mm sql sh bash zsh ps1 bat cmake mk yaml yml toml
ini cfg conf po pot el lisp clj ex exs erl dart vue proto asm s log srt vtt
"""
WHOLE_SUFFIXES = frozenset(f".{ending}" for ending in _WHOLE.split())


class BrokenFileError(Exception):
    """A container that cannot be read to its end; the reader turns it into a ledger entry.

    Args:
        message: what is wrong, without the path.
        reason: where the whole file stands for one rejected record, its reason.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Format:
    """What a file is."""

    kind: Kind
    compression: Compression


def inner_suffix(path: Path) -> str:
    """Return the ending that tells the content: .jsonl of `a.jsonl.zst`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def inner_stem(path: Path) -> str:
    """Return the file name without the endings of compression and format."""
    name = path.name
    for _ in range(3):
        stem, dot, ending = name.rpartition(".")
        suffix = f".{ending.lower()}"
        known = suffix in COMPRESSED_SUFFIXES or suffix in RECORD_SUFFIXES
        if not stem or not dot or not (known or suffix in WHOLE_SUFFIXES):
            break
        name = stem
        if suffix not in COMPRESSED_SUFFIXES:
            break
    return name


def detect_format(path: Path) -> Format:
    """Say what a file is: containers by their magic bytes, text by its head, then its name.

    Raises:
        BrokenFileError: empty where a container was promised, a large-file pointer, an HTML page
            in place of data, UTF-16, or bytes that no reader knows.
        OSError: unreadable.
    """
    with path.open("rb") as stream:
        magic = stream.read(8)
    suffix = inner_suffix(path)
    compression = _compression(magic)
    if magic[:4] == b"PAR1":
        return Format("parquet", "none")
    if magic[:6] == b"ARROW1":
        return Format("arrow_file", "none")
    if magic[:4] == b"\xff\xff\xff\xff" and magic[4:]:
        return Format("arrow_stream", "none")
    if not magic and (path.suffix.lower() in COMPRESSED_SUFFIXES or suffix in _BINARY):
        raise BrokenFileError("an empty file where a container was promised")
    head = _head(path, compression)
    _refuse_strangers(head, suffix)
    return Format(_text_kind(head, suffix, compression), compression)


@contextmanager
def open_bytes(path: Path, compression: Compression) -> Iterator[Any]:
    """Open a file for reading its decompressed bytes; a cut stream raises when its end is read.

    pyarrow's streams are used because they raise on a truncated frame.
    """
    if compression == "none":
        with path.open("rb") as plain:
            yield plain
    elif compression == "xz":
        with lzma.open(path, "rb") as unpacked:
            yield unpacked
    else:
        with (
            pa.OSFile(str(path), "rb") as raw,
            pa.CompressedInputStream(raw, compression) as stream,
        ):
            yield stream


Span = tuple[int, int]
"""A part of a file, start and stop: whole lines by their bytes, or row groups by their numbers."""


def read_blocks(
    path: Path, compression: Compression, *, span: Span | None = None
) -> Iterator[bytes]:
    """Yield a file's decompressed bytes in blocks of about 1 MiB, the byte-order mark stripped.

    Args:
        path: the file.
        compression: from `detect_format`.
        span: of a file that is not compressed, only these bytes.

    Raises:
        BrokenFileError: the stream is cut or damaged, or it unpacks to more than 1,000 times its
            size (past 100 MiB). The blocks before that have been yielded.
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
                if unpacked > max(RATIO_FROM_BYTES, MAX_RATIO * packed):
                    raise BrokenFileError(f"unpacks to more than {MAX_RATIO} times its size")
                yield block
    except STREAM_ERRORS as error:
        raise BrokenFileError(one_line(error)) from None


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
    path: Path, compression: Compression, *, span: Span | None = None
) -> Iterator[bytes | str]:
    r"""Yield lines, split on `\n` only; in place of a line that is none, its reason.

    Blank lines are no records and are left out.

    Yields:
        The bytes of a line without its end, or "too_long", or "truncated" for the rest before
        a cut.

    Raises:
        BrokenFileError: as `read_blocks`, after all the whole lines before the damage.
    """
    return chain.from_iterable(read_line_lists(path, compression, span=span))


def read_line_lists(
    path: Path, compression: Compression, *, span: Span | None = None
) -> Iterator[list[bytes | str]]:
    """Yield the lines of `read_lines` as lists, one for each block that is read."""
    held: list[bytes] = []
    held_bytes = 0
    broken: BrokenFileError | None = None
    blocks = read_blocks(path, compression, span=span)
    while True:
        try:
            block = next(blocks, None)
        except BrokenFileError as error:
            block, broken = None, error
        if block is None:
            break
        lines = block.split(b"\n") if not block.isspace() else _blank_lines(block)
        if len(lines) > 1:
            first = b"".join([*held, lines[0]])
            found = _line(first, held_bytes + len(lines[0]))
            found += [line for line in lines[1:-1] if line and not line.isspace()]
            yield found
            held, held_bytes = [], 0
        held_bytes += len(lines[-1])
        if held_bytes <= MAX_RECORD_BYTES:
            held.append(lines[-1])
        else:
            held = []
    if broken is not None:
        if held_bytes:
            yield ["truncated"]
        raise broken
    yield _line(b"".join(held), held_bytes)


def _blank_lines(block: bytes) -> list[bytes]:
    """Return the ends of a block of blank lines: a bomb of line breaks is no list of a million."""
    first, found, rest = block.partition(b"\n")
    return [first, rest.rpartition(b"\n")[2]] if found else [first]


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
    if compression == "none":
        yield raw
    elif compression == "xz":
        with lzma.open(raw, "rb") as stream:
            yield stream
    else:
        with pa.CompressedInputStream(pa.PythonFile(raw, "r"), compression) as stream:
            yield stream


def one_line(error: BaseException) -> str:
    """Return an exception's message as one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


_BINARY = frozenset({".parquet", ".arrow", ".feather"})


def _compression(magic: bytes) -> Compression:
    for prefix, name in _MAGIC:
        if magic.startswith(prefix):
            return name
    return "none"


def _head(path: Path, compression: Compression) -> bytes:
    """Return up to 64 KiB of the unpacked start, the byte-order mark stripped."""
    try:
        with open_bytes(path, compression) as stream:
            head: bytes = stream.read(1 << 16)
    except STREAM_ERRORS as error:
        if compression == "none":
            raise
        raise BrokenFileError(one_line(error)) from None
    return head[3:] if head.startswith(b"\xef\xbb\xbf") else head


def _refuse_strangers(head: bytes, suffix: str) -> None:
    start = head.lstrip()[:64].lower()
    if start.startswith(b"version https://git-lfs"):
        raise BrokenFileError(
            "a Git LFS pointer, not the data; run git lfs pull", reason="lfs_pointer"
        )
    if suffix not in WHOLE_SUFFIXES and start.startswith((b"<!doctype html", b"<html")):
        raise BrokenFileError("an HTML page, not the data; download it again", reason="html_page")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BrokenFileError("UTF-16 text; convert it to UTF-8", reason="bad_utf8")
    if suffix in _BINARY:
        raise BrokenFileError(f"not a {suffix[1:]} file, or its start is damaged")
    if suffix not in WHOLE_SUFFIXES and suffix not in RECORD_SUFFIXES and b"\x00" in head:
        raise BrokenFileError("no reader knows this kind of file")


def _text_kind(head: bytes, suffix: str, compression: Compression) -> Kind:
    named = RECORD_SUFFIXES.get(suffix)
    if head.startswith(b"PAR1"):
        raise BrokenFileError(f"parquet inside {compression}; unpack it first")
    if named is not None and named != "json":
        return named
    if suffix in WHOLE_SUFFIXES and suffix not in (".txt", ".text"):
        return "whole"
    first = head.lstrip().split(b"\n", 1)[0]
    if first.startswith(b"{") and (_is_json(first) or (len(head) >= 1 << 16 and first == head)):
        return "jsonl"
    return "json" if named == "json" else "whole"


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _line(line: bytes, size: int) -> list[bytes | str]:
    if size > MAX_RECORD_BYTES:
        return ["too_long"]
    return [line] if line and not line.isspace() else []
