"""Ranges of records of a file: those that are asked for in their order take one pass over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from curate.corpus.groups import read_group
from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder, check_disk
from curate.corpus.reader import read_documents
from curate.records import Document

OPEN_PASSES = 4
"""Files that stay open between two ranges, at most."""


def read_records(
    file: InputFile, *, text: str, digest: str, start: int, stop: int
) -> Iterator[tuple[int, Document]]:
    """Yield the documents among records `start` to `stop` (not included), with their numbers.

    The file stays open where a range ends; a range that begins there or later goes on from
    there, another one begins at the start of the file. In a file that regrouping wrote the
    number is the place there, while a document names the record of its first home.

    Args:
        file: what to read.
        text: field or template.
        digest: of the file's bytes, which the caller has just held against the file.
        start: first record, from 0.
        stop: record to stop before.

    Raises:
        CurateError: the disk refused, or a group file is not what was written.
    """
    key = (file, text, digest)
    passed = _passes.pop(key, None)
    if passed is None or passed.position > start:
        passed = _open_pass(file, text, digest, start)
    try:
        for number, document in passed.until(stop):
            if number >= start:
                yield number, document
    except GeneratorExit:  # whoever reads has had enough, and may go on from there
        raise
    except BaseException:
        passed = None  # nobody goes on from where it failed: there nothing follows
        raise
    finally:
        if passed is not None:
            _passes[key] = passed
        while len(_passes) > OPEN_PASSES:
            _passes.pop(next(iter(_passes)))


@dataclass(slots=True)
class _Pass:
    """A file that is being read from some record on."""

    records: Iterator[tuple[int, Document]]
    position: int  # records before it have been given
    waiting: tuple[int, Document] | None = None

    def until(self, stop: int) -> Iterator[tuple[int, Document]]:
        """Yield the documents before a record; the first one after it waits."""
        while True:
            found = self.waiting or next(self.records, None)
            self.waiting = None
            if found is not None and found[0] >= stop:
                self.waiting = found
            if found is None or self.waiting:
                self.position = max(self.position, stop)
                return
            self.position = found[0] + 1
            yield found


_passes: dict[tuple[InputFile, str, str], _Pass] = {}


def _open_pass(file: InputFile, text: str, digest: str, start: int) -> _Pass:
    if file.grouped:
        found = read_group(file.path, source=file.source, start=start)
        return _Pass(enumerate(found, start=start), start)
    ledger = LedgerBuilder()
    documents = read_documents(file, text=text, ledger=ledger, start=start, digest=digest)
    return _Pass(_numbered(documents, ledger), start)


def _numbered(
    documents: Iterable[Document], ledger: LedgerBuilder
) -> Iterator[tuple[int, Document]]:
    """Yield each document with its record; a disk that refuses is no end of the file."""
    for document in documents:
        yield document.record, document
    check_disk(ledger)
