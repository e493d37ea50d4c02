"""The content of an .xz file to its end: streams one after the other, padding between them."""

from __future__ import annotations

import io
import lzma
from typing import Any, BinaryIO

PACKED_BYTES = 64 * 1024


def open_xz(packed: BinaryIO) -> io.BufferedReader:
    """Return what a file unpacks to.

    Python's own reader takes what it cannot unpack after the first stream for the end, without
    a word: padding, which the format allows, with all that follows it, and damage.

    Args:
        packed: open for reading, at its beginning.
    """
    return io.BufferedReader(_Streams(packed))


class _Streams(io.RawIOBase):
    """What `io.BufferedReader` reads from; LZMAError and EOFError are of a damaged or cut file."""

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__()
        self._packed = packed
        self._waiting = b""  # of the file, read before the stream that it belongs to began
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ)

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while not self._stream.eof or self._begin_next():
            packed = self._take() if self._stream.needs_input else b""
            if not packed and self._stream.needs_input:
                raise EOFError("ends before the end of its stream")
            found = self._stream.decompress(packed, len(into))
            into[: len(found)] = found
            if found:
                return len(found)
        return 0

    def _take(self) -> bytes:
        waiting, self._waiting = self._waiting, b""
        return waiting or self._packed.read(PACKED_BYTES)

    def _begin_next(self) -> bool:
        """Pass over padding to the next stream; False at the end of the file."""
        rest = self._stream.unused_data
        while not (rest := rest.lstrip(b"\0")):
            if not (rest := self._packed.read(PACKED_BYTES)):
                return False
        self._waiting, self._stream = rest, lzma.LZMADecompressor(lzma.FORMAT_XZ)
        return True
