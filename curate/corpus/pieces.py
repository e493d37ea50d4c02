"""Files → pieces that several processes read at once; what comes out is that of one reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from curate.corpus.containers import STREAM_ERRORS, BrokenFileError, Span, find_line
from curate.corpus.formats import detect_format
from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.reader import read_documents
from curate.engine.local import count_cores, run_local
from curate.records import Document, FileLedger
from curate.store.fingerprint import digest_file

PIECE_BYTES = 16 * 1024 * 1024
"""Of a file, about, that one process reads at a time."""

SMALL_BYTES = 4 * 1024 * 1024
"""A file that cannot be divided is given to another process up to this size."""

PARALLEL_BYTES = 256 * 1024 * 1024
"""Of input; below it a second process costs more than it saves."""

WAITING = 3
"""Pieces for each process that are read or wait for an earlier one: a digest takes long."""

HELD_CHARS = 64 * 1024 * 1024
"""Of text that one piece may hold; what a bomb holds beyond is read where it is wanted."""


Opened = tuple[LedgerBuilder, Iterator[Document]]
"""A file's account, and its documents, which fill it while they are taken."""


UNKNOWN = "\0unknown\0"
"""Stands for the source and the digest in a part of a file, until the parts are joined."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file, or all of it; or only its digest."""

    file: InputFile
    text: str  # field or template
    span: Span | None = None
    only_digest: bool = False


@dataclass(frozen=True, slots=True)
class PieceRead:
    """What a piece holds; records count from its first."""

    documents: tuple[Document, ...]
    ledger: FileLedger
    whole: bool  # False: more documents follow


def count_workers(files: Sequence[InputFile]) -> int:
    """Return how many processes are worth it: all cores for a large input, else this one."""
    n_bytes = sum(file.path.stat().st_size for file in files if file.path.is_file())
    return count_cores() if n_bytes >= PARALLEL_BYTES else 1


def divide_file(file: InputFile) -> list[Span]:
    """Return the spans that a file falls into: they hold all its records, each once, in order.

    Lines that are not compressed are divided by bytes, parquet by row groups. Anything else is
    none: its records can only be found by reading what stands before them.
    """
    try:
        form = detect_format(file.path)
        if form.kind == "parquet":
            return _group_rows(pq.read_metadata(file.path))
        size = file.path.stat().st_size
    except (BrokenFileError, *STREAM_ERRORS):
        return []  # the reader says what is wrong with it
    if form.kind != "jsonl" or form.compression != "none" or size < 2 * PIECE_BYTES:
        return []
    edges = [find_line(file.path, begin) for begin in range(0, size, PIECE_BYTES)]
    ends = [*edges[1:], size]
    return [(begin, end) for begin, end in zip(edges, ends, strict=True) if begin < end]


def read_in_pieces(files: Sequence[InputFile], *, text: str, workers: int) -> Iterator[Opened]:
    """Yield each file's account and documents: those of `read_documents`, read by `workers`.

    A file's documents have to be taken to their end before the next file is.

    Args:
        files: in the order of reading.
        text: field or template.
        workers: processes; 1 reads everything here.
    """
    planned = [_plan(file, text) if workers > 1 else [] for file in files]
    tasks = [piece for pieces in planned for piece in pieces]
    # Documents are bulk: they stay on this machine, whatever engine the stage works on.
    results = run_local(read_piece, tasks, workers=workers, what="reading", most=WAITING * workers)
    for file, pieces in zip(files, planned, strict=True):
        ledger = LedgerBuilder()
        if not pieces:
            yield ledger, read_documents(file, text=text, ledger=ledger)
        elif pieces[0].only_digest:
            yield ledger, _joined(file, pieces, results, ledger)
        else:
            yield ledger, _alone(pieces[0], results, ledger)


def read_piece(piece: Piece) -> PieceRead:
    """Read one piece, up to `HELD_CHARS` of its text."""
    ledger = LedgerBuilder()
    documents: list[Document] = []
    held = 0
    if piece.only_digest:
        return PieceRead((), _digested(piece.file), True)
    for document in _read(piece, ledger, start=0):
        documents.append(document)
        held += len(document.text)
        if held > HELD_CHARS:
            break
    return PieceRead(tuple(documents), ledger.finish(), held <= HELD_CHARS)


def _read(piece: Piece, ledger: LedgerBuilder, *, start: int) -> Iterator[Document]:
    """Read a piece; of a divided file the digest is another piece's task."""
    digest = UNKNOWN if piece.span else ""
    file = replace(piece.file, source=UNKNOWN) if piece.span else piece.file
    return read_documents(
        file, text=piece.text, ledger=ledger, start=start, digest=digest, span=piece.span
    )


def _digested(file: InputFile) -> FileLedger:
    ledger = LedgerBuilder(path=str(file.path))
    try:
        ledger.n_bytes, ledger.digest = file.path.stat().st_size, digest_file(file.path)
    except OSError as error:
        ledger.error = error.strerror or str(error)
    return ledger.finish()


def _plan(file: InputFile, text: str) -> list[Piece]:
    spans = divide_file(file)
    if len(spans) > 1:
        return [Piece(file, text, None, True), *(Piece(file, text, span) for span in spans)]
    small = file.path.is_file() and file.path.stat().st_size <= SMALL_BYTES
    return [Piece(file, text)] if small else []


def _alone(piece: Piece, results: Iterator[PieceRead], ledger: LedgerBuilder) -> Iterator[Document]:
    """Yield the documents of a file that is one piece."""
    found = next(results)
    ledger.path = found.ledger.path
    yield from found.documents
    _account(ledger, found.ledger)
    if not found.whole:
        yield from read_documents(
            piece.file, text=piece.text, ledger=ledger, start=ledger.seen, digest=ledger.digest
        )


def _joined(
    file: InputFile, pieces: Sequence[Piece], results: Iterator[PieceRead], ledger: LedgerBuilder
) -> Iterator[Document]:
    """Yield the documents of a file's pieces under the names that they have in the file.

    Where a piece is damaged, those after it are passed over: nobody reads on there.
    """
    _account(ledger, next(results).ledger)
    for piece in pieces[1:]:
        found = next(results)
        if ledger.error:
            continue
        base = ledger.seen
        yield from (_named(each, file, ledger.digest, base) for each in found.documents)
        _account(ledger, found.ledger)
        if not found.whole:
            rest = LedgerBuilder()
            for each in _read(piece, rest, start=found.ledger.seen):
                yield _named(each, file, ledger.digest, base)
            _account(ledger, rest.finish())


def _named(document: Document, file: InputFile, digest: str, base: int) -> Document:
    number = base + document.record
    unnamed = document.id == f"{UNKNOWN}:{document.record}"
    name = f"{file.source}:{number}" if unnamed else document.id
    return replace(document, id=name, source=file.source, file_digest=digest, record=number)


def _account(ledger: LedgerBuilder, part: FileLedger) -> None:
    ledger.path = part.path
    if part.digest != UNKNOWN:
        ledger.digest, ledger.n_bytes = part.digest, part.n_bytes
    ledger.seen += part.seen
    ledger.accepted += part.accepted
    ledger.rejected.update(part.rejected)
    ledger.error = ledger.error or part.error


def _group_rows(metadata: pq.FileMetaData) -> list[Span]:
    """Put row groups together until they hold about `PIECE_BYTES` unpacked."""
    spans: list[Span] = []
    first, held = 0, 0
    for number in range(metadata.num_row_groups):
        held += metadata.row_group(number).total_byte_size
        if held >= PIECE_BYTES:
            spans.append((first, number + 1))
            first, held = number + 1, 0
    return [*spans, (first, metadata.num_row_groups)] if held else spans
