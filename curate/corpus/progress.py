"""How far the reading of a corpus is, in bytes on disk, also within a large file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curate.corpus.inputs import InputFile
from curate.corpus.survey import survey_file
from curate.records import Notify

LARGE_BYTES = 1 << 20
"""A smaller file is one step."""

STEPS = 1_000
"""Of the whole: a notice for each document would cost more than reading it."""


@dataclass(slots=True)
class BytesRead:
    """What is read of all files; within one, by the characters that its head lets expect.

    Bytes on disk do not say how much text a compressed file holds, and what reads it may be in
    another process. Its first 4 MiB, unpacked, say it well enough for a time left.
    """

    total: int  # bytes of all files
    text: str  # field or template
    notify: Notify
    done: float = 0.0  # bytes, of files that are read to their end
    size: int = 0  # bytes of the file that is read
    expected: float = 0.0  # its characters; 0: not known
    seen: int = 0  # its characters so far
    said: float = 0.0  # bytes, when last told

    def begin(self, file: InputFile) -> None:
        """Begin a file; look into it where it is a large part of all."""
        self.size = file.path.stat().st_size if file.path.is_file() else 0
        self.seen, self.expected = 0, 0.0
        if not file.grouped and self.size >= max(LARGE_BYTES, self.total / STEPS):
            self.expected = survey_file(file, text=self.text, encode=_none, samples=[]).chars

    def add(self, n_chars: int) -> None:
        """Count a document of the file."""
        self.seen += n_chars
        share = min(self.seen / self.expected, 0.99) if self.expected else 0.0
        now = self.done + share * self.size
        if now - self.said >= self.total / STEPS:
            self._tell(now)

    def end(self) -> None:
        """End the file."""
        self.done += self.size
        self._tell(self.done)

    def _tell(self, now: float) -> None:
        self.said = now
        self.notify("bytes read", now, float(self.total))


def _none(texts: list[str]) -> Sequence[Sequence[int]]:
    """Count no tokens."""
    return [()] * len(texts)
