"""What the compressed batches of an Arrow file say that they unpack to, before any is unpacked.

pyarrow unpacks a batch whole, and asks for as much memory as its buffers say. Only the few fields
are read that hold sizes; the layout is Arrow's IPC format (Message.fbs, File.fbs), in FlatBuffers.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from struct import error as StructError
from struct import unpack_from

from curate.corpus.containers import MAX_RATIO, RATIO_FROM_BYTES, BrokenFileError

MAX_BATCH_BYTES = 512 * 1024 * 1024
"""Of one batch, unpacked; and of all dictionaries that a reader holds at a time."""

_DICTIONARY, _BATCH = 2, 3  # kinds of messages


def check_batches(path: Path, *, stream: bool) -> None:
    """Refuse a file with a batch that unpacks to very much.

    A file whose sizes cannot be found is damaged, and left to the reader to say so.

    Args:
        path: an Arrow file or stream.
        stream: which of the two.

    Raises:
        BrokenFileError: a batch says that it unpacks to more than 512 MiB, or past 100 MiB to
            more than 1,000 times its size; or the dictionaries together to more than 512 MiB.
        OSError: unreadable.
    """
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        held: dict[int, int] = {}
        try:
            for start in _stream_messages(data) if stream else _file_messages(data):
                packed, unpacked = _sizes(data, start)
                if unpacked > min(MAX_BATCH_BYTES, max(RATIO_FROM_BYTES, MAX_RATIO * packed)):
                    raise BrokenFileError(
                        f"a batch of {packed:,} bytes unpacks to {unpacked:,}; write smaller ones"
                    )
                _hold(data, start, unpacked, held)
                if (whole := sum(held.values())) > MAX_BATCH_BYTES:
                    raise BrokenFileError(
                        f"its dictionaries unpack to {whole:,} bytes; write smaller ones"
                    )
        except (StructError, IndexError, OverflowError):
            return


def _file_messages(data: mmap.mmap) -> Iterator[int]:
    """Yield where each dictionary and batch begins, as the footer says."""
    (n_footer,) = unpack_from("<i", data, len(data) - 10)
    footer = _root(data, len(data) - 10 - n_footer)
    for number in (2, 3):
        start, count = _vector(data, footer, number)
        for place in range(min(count, len(data) // 24)):
            yield unpack_from("<q", data, start + 24 * place)[0]


def _stream_messages(data: mmap.mmap) -> Iterator[int]:
    """Yield where each message begins, up to the end of the stream."""
    start = 0
    while start + 8 <= len(data):
        lead, n_bytes = _framed(data, start)
        if n_bytes <= 0:
            return
        yield start
        body = _field(data, _root(data, start + lead), 3)
        start += lead + n_bytes + (max(0, unpack_from("<q", data, body)[0]) if body else 0)


def _framed(data: mmap.mmap, start: int) -> tuple[int, int]:
    """Return how far into a message its table begins, and how long that is.

    Before Arrow 0.15 no mark stood before the length; Arrow reads both.
    """
    mark, n_bytes = unpack_from("<Ii", data, start)
    return (8, n_bytes) if mark == 0xFFFFFFFF else (4, unpack_from("<i", data, start)[0])


def _hold(data: mmap.mmap, start: int, unpacked: int, held: dict[int, int]) -> None:
    """Note the size of a dictionary: it stays in memory until another takes its place."""
    message = _root(data, start + _framed(data, start)[0])
    kind, header = _field(data, message, 1), _field(data, message, 2)
    if not kind or data[kind] != _DICTIONARY or not header:
        return
    batch = _follow(data, header)
    number, more = _field(data, batch, 0), _field(data, batch, 2)
    name = unpack_from("<q", data, number)[0] if number else 0
    held[name] = unpacked + (held.get(name, 0) if more and data[more] else 0)


def _sizes(data: mmap.mmap, start: int) -> tuple[int, int]:
    """Return the bytes of a message's compressed buffers, packed and unpacked."""
    lead, n_bytes = _framed(data, start)
    message = _root(data, start + lead)
    kind, header = _field(data, message, 1), _field(data, message, 2)
    of_kind = data[kind] if kind else 0
    if of_kind not in (_DICTIONARY, _BATCH) or not header:
        return 0, 0
    batch = _follow(data, header)
    if of_kind == _DICTIONARY:
        batch = _follow(data, _field(data, batch, 1))
    if not _field(data, batch, 3):  # not compressed: no larger than the file
        return 0, 0
    first, count = _vector(data, batch, 2)
    packed = unpacked = 0
    for place in range(min(count, len(data) // 16)):
        offset, length = unpack_from("<qq", data, first + 16 * place)
        if length >= 8:
            packed += length
            unpacked += max(0, unpack_from("<q", data, start + lead + n_bytes + offset)[0])
    return packed, unpacked


def _root(data: mmap.mmap, start: int) -> int:
    """Return where the table of a FlatBuffer begins."""
    return start + int(unpack_from("<I", data, start)[0])


def _field(data: mmap.mmap, table: int, number: int) -> int:
    """Return where a table's field is, 0 where it has none."""
    entries = table - unpack_from("<i", data, table)[0]
    place = 4 + 2 * number
    if place >= unpack_from("<H", data, entries)[0]:
        return 0
    offset = int(unpack_from("<H", data, entries + place)[0])
    return table + offset if offset else 0


def _follow(data: mmap.mmap, place: int) -> int:
    return place + int(unpack_from("<I", data, place)[0])


def _vector(data: mmap.mmap, table: int, number: int) -> tuple[int, int]:
    """Return where the entries of a vector begin, and how many there are."""
    place = _field(data, table, number)
    if not place:
        return 0, 0
    start = _follow(data, place)
    return start + 4, int(unpack_from("<I", data, start)[0])
