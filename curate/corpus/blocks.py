"""Documents of a file many at a time: number, name and text of each, at the speed of parsing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from curate.corpus.containers import BrokenFileError, read_line_blocks, split_lines
from curate.corpus.fields import (
    KEPT,
    MAX_DOCUMENT_CHARS,
    MISSING,
    Template,
    parse_template,
    row_names,
)
from curate.corpus.formats import Format, detect_format
from curate.corpus.groups import read_group
from curate.corpus.inputs import InputFile
from curate.corpus.json_rows import json_lines
from curate.corpus.ledger import LedgerBuilder, check_disk
from curate.corpus.ranges import check_unchanged
from curate.corpus.reader import (
    MAX_NAME_BYTES,
    name_and_describe,
    plain_name,
    read_documents,
    to_document,
)
from curate.engine.ahead import ahead
from curate.records import Document, RecordRange

BLOCK_CHARS = 1_000_000
BLOCK_RECORDS = 2_048
"""Documents that come one by one make a block of this size at most."""

AHEAD_BYTES = 250_000
"""A larger packed file is unpacked in a thread of its own, ahead of its parsing."""


@dataclass(frozen=True, slots=True)
class Block:
    """Documents that follow each other in a file."""

    records: npt.NDArray[np.int64]  # (n,) rising; of a regrouped file, the place in it
    ids: Sequence[str]
    texts: Sequence[str]
    homes: Sequence[tuple[str, int]] = ()  # of regrouped documents: their file's digest, record
    about: Sequence[tuple[str, str]] = ()  # url and meta, where any document has one

    def part(self, first: int, last: int) -> Block:
        """Return the documents `first` to `last` (not included)."""
        here = slice(first, last)
        return Block(
            self.records[here], self.ids[here], self.texts[here], self.homes[here],
            self.about[here],
        )  # fmt: skip


def read_blocks(
    part: RecordRange, *, source: str, text: str, grouped: bool = False
) -> Iterator[Block]:
    """Read a range of a file: the documents that `read_documents` gives.

    JSON lines whose text is one field take no step of Python for each document but its parsing.

    Args:
        part: of an index; the file is held against its digest.
        source: names documents that have no id.
        text: field or template of the index.
        grouped: whether the file was written by regrouping.

    Raises:
        CurateError: the file changed.
    """
    path = check_unchanged(part)
    if grouped:
        found = read_group(path, source=source, start=part.start, stop=part.stop)
        yield from _gathered(found, first=part.start)
        return
    form = _format(path)
    if form is not None and form.kind == "jsonl":
        yield from _line_blocks(path, form, part, source=source, template=parse_template(text))
        return
    ledger = LedgerBuilder()
    documents = read_documents(
        InputFile(path=path, source=source), text=text, ledger=ledger,
        start=part.start, stop=part.stop, digest=part.file_digest,
    )  # fmt: skip
    yield from _gathered(documents)
    check_disk(ledger)


def _format(path: Path) -> Format | None:
    try:
        return detect_format(path)
    except BrokenFileError:
        return None  # the reader says so


def _batched(documents: Iterable[Document]) -> Iterator[list[Document]]:
    held: list[Document] = []
    chars = 0
    for document in documents:
        held.append(document)
        chars += len(document.text)
        if chars >= BLOCK_CHARS or len(held) >= BLOCK_RECORDS:
            yield held
            held, chars = [], 0
    if held:
        yield held


def _gathered(documents: Iterable[Document], *, first: int | None = None) -> Iterator[Block]:
    """Give documents in blocks; `first` is the place of the first in a regrouped file."""
    for held in _batched(documents):
        if first is None:
            records, homes = [each.record for each in held], []
        else:
            records = list(range(first, first + len(held)))
            homes = [(each.file_digest, each.record) for each in held]
            first += len(held)
        ids, texts = [each.id for each in held], [each.text for each in held]
        about = [(each.url, each.meta) for each in held]
        yield Block(np.array(records, np.int64), ids, texts, homes, about)


def _line_blocks(
    path: Path, form: Format, part: RecordRange, *, source: str, template: Template
) -> Iterator[Block]:
    """Give the documents of JSON lines; what is odd about a block is settled line by line."""
    field = template.fields[0]
    parse = _line_parser(field) if template.is_field else None
    first = 0  # record of the first line that is at hand
    try:
        packed = path.stat().st_size > AHEAD_BYTES and form.compression != "none"
        blocks = read_line_blocks(path, form.compression)
        for lines in ahead(blocks, most=1) if packed else blocks:
            begin, end = max(part.start - first, 0), part.stop - first
            rows = parse(lines) if parse and _may_hold(lines, begin) else None
            alone = [] if rows else _lines_of(lines)
            count = len(rows or alone)
            if begin < count:
                block = rows and _block_at_once(rows[begin:end], field, first + begin, source)
                yield block or _block_by_line(
                    (alone or _lines_of(lines))[begin:end], template, first + begin, source=source
                )
            first += count
            if first >= part.stop:
                return
    except BrokenFileError as error:
        # The documents before the damage were indexed, and these are all; but of a disk that
        # refuses nothing follows.
        check_disk(LedgerBuilder(path=str(path), error=str(error)))


def _may_hold(lines: bytes | str, record: int) -> bool:
    """Say whether there may be so many lines that one of this number is among them."""
    return isinstance(lines, bytes) and (not record or lines.count(b"\n") >= record)


def _lines_of(lines: bytes | str) -> list[bytes | str]:
    return [lines] if isinstance(lines, str) else split_lines(lines)


Parse = Callable[[bytes | str], list[Any] | None]


def _line_parser(field: str) -> Parse | None:
    """Return a function that takes whole lines apart, each one record; None for odd names.

    It returns a record of `field` and `KEPT` as attributes for each line, or None where any line
    is not one object of the usual kinds: which one, and why, is found line by line.
    """
    names = row_names([field])
    if not all(name.isprintable() and not {'"', "\\"} & {*name} for name in names):
        return None
    kinds = {"id": str | int, **dict.fromkeys(KEPT[1:], msgspec.Raw), field: str}
    slots = {name: f"f{place}" for place, name in enumerate(names)}
    record = msgspec.defstruct(
        "Record",
        [(slots[name], kinds[name], msgspec.field(default=MISSING)) for name in names],
        rename={slot: name for name, slot in slots.items()},
        gc=False,
    )
    decode = msgspec.json.Decoder(record).decode_lines

    def parse(lines: bytes | str) -> list[Any] | None:
        try:
            rows = decode(lines)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return rows if isinstance(lines, bytes) and _one_a_line(lines, len(rows)) else None

    return parse


def _one_a_line(lines: bytes, count: int) -> bool:
    """Say whether `count` objects that follow each other stand one a line, with no blank line.

    Between two objects, and nowhere inside one, "}" and "{" have only blanks between them.
    """
    signs = np.frombuffer(lines, np.uint8)
    ends = np.flatnonzero(signs == ord("\n"))
    if not lines.endswith(b"\n"):
        ends = np.append(ends, len(lines))
    if len(ends) != count or not count:
        return False
    last = signs[ends - 1]
    last = np.where(last == ord("\r"), signs[ends - 2], last)
    return bool((last == ord("}")).all() and (signs[ends[:-1] + 1] == ord("{")).all())


def _block_at_once(rows: Sequence[Any], field: str, first: int, source: str) -> Block | None:
    """Return a block in which every line is a document; None where one is not."""
    names = row_names([field])
    texts, ids, *about = ([*map(attrgetter(f"f{names.index(name)}"), rows)]
                          for name in (field, *KEPT))  # fmt: skip
    if {*map(type, texts)} != {str} or not all(texts) or any(map(str.isspace, texts)):
        return None
    if max(map(len, texts)) > MAX_DOCUMENT_CHARS:
        return None
    if {*map(type, ids)} != {str} or not all(ids) or max(map(len, ids)) > MAX_NAME_BYTES:
        ids = [plain_name(name) or f"{source}:{n}" for n, name in enumerate(ids, start=first)]
    described = [] if all(column.count(MISSING) == len(rows) for column in about) else [
        name_and_describe(*each) for each in zip(*about, strict=True)
    ]  # fmt: skip
    return Block(np.arange(first, first + len(texts)), ids, texts, (), described)


def _block_by_line(
    lines: Sequence[bytes | str], template: Template, first: int, *, source: str
) -> Block:
    names = row_names(template.fields)
    places = tuple(names.index(name) for name in KEPT)
    file = InputFile(path=Path(), source=source)
    documents = []
    for record, row in enumerate(json_lines(lines, template.fields), start=first):
        document = row if isinstance(row, str) else to_document(
            row, template, places, file, "", record
        )  # fmt: skip
        if not isinstance(document, str):
            documents.append(document)
    return Block(
        np.array([each.record for each in documents], np.int64),
        [each.id for each in documents],
        [each.text for each in documents],
        (),
        [(each.url, each.meta) for each in documents],
    )
