"""Which format a file is: by its magic bytes, then by how it begins, by its name last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from curate.corpus.containers import (
    STREAM_ERRORS,
    BrokenFileError,
    Compression,
    before_damage,
    one_line,
    open_bytes,
)

HEAD_BYTES = 1 << 16
"""Of a file, unpacked, from which its format is told."""

Kind = Literal["jsonl", "json", "csv", "tsv", "whole", "parquet", "arrow_file", "arrow_stream"]

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

_BINARY = frozenset({".parquet", ".arrow", ".feather"})

_WHOLE = """
txt text md markdown rst tex bib adoc org html htm xml css js mjs ts tsx jsx py pyi pyx
pxd ipynb c h cc cpp cxx hpp hh cu cuh cs java kt scala go rs rb php pl pm lua swift m r
jl f f90 f95 hs ml mli lean v thy agda mm sql sh bash zsh ps1 bat cmake mk yaml yml toml
ini cfg conf po pot el lisp clj ex exs erl dart vue proto asm s log srt vtt
"""

WHOLE_SUFFIXES = frozenset(f".{ending}" for ending in _WHOLE.split())


@dataclass(frozen=True, slots=True)
class Format:
    """What a file is."""

    kind: Kind
    compression: Compression


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


def _compression(magic: bytes) -> Compression:
    for prefix, name in _MAGIC:
        if magic.startswith(prefix):
            return name
    # a frame to be passed over, with which pzstd begins its files
    return "zstd" if magic[1:4] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5 else "none"


def _head(path: Path, compression: Compression) -> bytes:
    """Return up to 64 KiB of the unpacked start, the byte-order mark stripped."""
    try:
        with open_bytes(path, compression) as stream:
            head: bytes = stream.read(HEAD_BYTES)
    except STREAM_ERRORS as error:
        if compression == "none":
            raise
        head = b"".join(before_damage(path, compression))[:HEAD_BYTES]
        if not head:
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
    if first.startswith(b"{") and (_is_json(first) or (len(head) >= HEAD_BYTES and first == head)):
        return "jsonl"
    return "json" if named == "json" else "whole"


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
