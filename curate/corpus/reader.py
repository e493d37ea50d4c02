"""Any file → documents, and a ledger in which every record is accounted for."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter

import msgspec

from curate.corpus.containers import BrokenFileError, Span, one_line
from curate.corpus.fields import KEPT, MISSING, Template, parse_template, render, row_names
from curate.corpus.formats import detect_format
from curate.corpus.inputs import InputFile, find_inputs
from curate.corpus.rows import field_names, read_rows
from curate.errors import REJECTED, CurateError
from curate.records import Document, FileLedger
from curate.store.fingerprint import digest_file

__all__ = [
    "InputFile",
    "LedgerBuilder",
    "check_inputs",
    "check_ledgers",
    "find_inputs",
    "read_documents",
    "read_labelled",
]

MAX_NAME_BYTES = 4096
"""Of an id or url; a longer one is no name and is left out."""

MAX_META_BYTES = 65_536
"""Of the JSON text of `meta`; a longer one is left out, the document is kept."""

MAX_LABEL = 100
"""Characters of a value that documents are grouped by."""

_NAME = msgspec.json.Decoder(str | int)
_ENCODER = msgspec.json.Encoder(enc_hook=str)
_REFUSALS = tuple(
    os.strerror(number)
    for number in (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EPERM, errno.ESTALE, errno.EMFILE)
)
_FEW_RECORDS = 10
"""A file of at least so many records that gives none is an error, whatever the others gave."""


@dataclass(slots=True)
class LedgerBuilder:
    """The account of one file while it is read."""

    path: str = ""
    digest: str = ""
    n_bytes: int = 0
    seen: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    error: str = ""

    @staticmethod
    def of(ledger: FileLedger) -> LedgerBuilder:
        """Return a builder that goes on from a finished account."""
        return LedgerBuilder(
            path=ledger.path,
            digest=ledger.digest,
            n_bytes=ledger.n_bytes,
            seen=ledger.seen,
            accepted=ledger.accepted,
            rejected=Counter(ledger.rejected),
            error=ledger.error,
        )

    def reject(self, reason: str) -> None:
        """Count one record that is seen and rejected."""
        self.seen += 1
        self.rejected[reason] += 1

    def withdraw(self, reason: str) -> None:
        """Count a document as rejected that was accepted before."""
        self.accepted -= 1
        self.rejected[reason] += 1

    def finish(self) -> FileLedger:
        """Return the account as a record."""
        return FileLedger(
            path=self.path,
            digest=self.digest,
            n_bytes=self.n_bytes,
            seen=self.seen,
            accepted=self.accepted,
            rejected=dict(sorted(self.rejected.items())),
            error=self.error,
        )


def read_documents(
    file: InputFile,
    *,
    text: str,
    ledger: LedgerBuilder,
    start: int = 0,
    stop: int | None = None,
    digest: str = "",
    span: Span | None = None,
) -> Iterator[Document]:
    """Yield a file's documents one by one, and account for every record in `ledger`.

    A bad record is rejected alone; a broken container gives what could be salvaged and sets
    `ledger.error`. The bytes are hashed first, so that every document carries the digest.

    Args:
        file: what to read.
        text: a field name, or a template with `{field}`s; files that are one document ignore it.
        ledger: filled as documents are yielded; its seen = accepted + rejected at every moment.
        start: first record, from 0.
        stop: record to stop before; None reads to the end.
        digest: of the file's bytes, where the caller has just computed it.
        span: only this part of the file (`divide_file`); records count from its first.

    Raises:
        CurateError: the text setting is no field and no template.
    """
    found = read_labelled(
        file, text=text, ledger=ledger, start=start, stop=stop, digest=digest, span=span
    )
    return map(itemgetter(0), found)


def read_labelled(
    file: InputFile,
    *,
    text: str,
    ledger: LedgerBuilder,
    label: str = "",
    start: int = 0,
    stop: int | None = None,
    digest: str = "",
    span: Span | None = None,
) -> Iterator[tuple[Document, str]]:
    """Yield documents as `read_documents` does, each with the value of the field `label`.

    That value is "" where the record has none that is a word or number, and the file's source
    for a file that is one document.
    """
    template = parse_template(text)
    ledger.path = str(file.path)
    try:
        ledger.n_bytes = file.path.stat().st_size
        ledger.digest = digest or digest_file(file.path)
        form = detect_format(file.path)
        if form.kind == "whole":
            template = parse_template("text")
        fields = _with_label(template.fields, label if form.kind != "whole" else "")
        rows = read_rows(file.path, form, fields, start=start, stop=stop, span=span)
        names = row_names(fields)
        places = tuple(names.index(name) for name in KEPT)
        place = names.index(label) if label in names else -1
        for record in count(start):
            row = next(rows, None)
            if row is None:
                return
            if isinstance(row, str):
                ledger.reject(row)
                continue
            document = to_document(row, template, places, file, ledger.digest, record)
            if isinstance(document, str):
                ledger.reject(document)
                continue
            ledger.seen += 1
            ledger.accepted += 1
            yield document, (file.source if form.kind == "whole" else _label(row, place))
    except BrokenFileError as error:
        ledger.error = str(error)
        if error.reason:
            ledger.reject(error.reason)
    except OSError as error:
        ledger.error = error.strerror or one_line(error)


def disk_refused(ledgers: Iterable[FileLedger | LedgerBuilder]) -> bool:
    """Say whether a file was not read for a reason that may be gone now, its content apart."""
    return any(reason in ledger.error for ledger in ledgers for reason in _REFUSALS)


def _with_label(fields: tuple[str, ...], label: str) -> tuple[str, ...]:
    return fields if not label or label in row_names(fields) else (*fields, label)


def _label(row: tuple[object, ...], place: int) -> str:
    if place < 0:
        return ""
    value = row[place]
    return (
        str(value)[:MAX_LABEL]
        if isinstance(value, float)
        else plain_name(value)[:MAX_LABEL].strip()
    )


def check_inputs(files: Sequence[InputFile], *, text: str) -> None:
    """Check that the fields exist, from schemas and first records, before anything costly.

    Raises:
        CurateError: no readable file has the fields; the message names those that it has.
    """
    template = parse_template(text)
    lacking: tuple[InputFile, tuple[str, ...]] | None = None
    for file in files:
        try:
            form = detect_format(file.path)
        except (BrokenFileError, OSError):
            continue
        names = field_names(file.path, form)
        if names is None or all(name in names for name in template.fields):
            return
        lacking = lacking or (file, names)
    if lacking is not None:
        file, names = lacking
        missing = ", ".join(name for name in template.fields if name not in names)
        known = ", ".join(names[:12]) or "none"
        example = " ".join(f"{{{name}}}" for name in names[:2]) or "{question} {answer}"
        raise CurateError(
            f"{file.path}: no field {missing}; it has {known}; name the field with --text, "
            f"or several as a template: --text '{example}'"
        )


def check_ledgers(ledgers: Sequence[FileLedger], max_rejected: float) -> CurateError | None:
    """Return the error with which a run ends that lost too much, or None.

    Args:
        ledgers: one for each file that was read.
        max_rejected: 0 to 1, share of the records seen that may be rejected.

    Returns:
        A CurateError with exit code 3 where a container is broken, a file of many records gave
        none, or more than `max_rejected` of all the records were rejected.
    """
    for ledger in ledgers:
        if ledger.error:
            message = f"{ledger.path}: {ledger.error}; {ledger.accepted} documents were salvaged"
            return CurateError(message, exit_code=REJECTED)
        if ledger.seen >= _FEW_RECORDS and not ledger.accepted and max_rejected < 1:
            message = f"{ledger.path}: all {ledger.seen} records rejected: {_reasons([ledger])}"
            return CurateError(message, exit_code=REJECTED)
    seen = sum(ledger.seen for ledger in ledgers)
    rejected = sum(sum(ledger.rejected.values()) for ledger in ledgers)
    if seen and rejected / seen > max_rejected:
        return CurateError(
            f"{rejected} of {seen} records rejected ({_reasons(ledgers)}), more than "
            f"{max_rejected:.2%}; mend the input, or raise --max-rejected",
            exit_code=REJECTED,
        )
    return None


def to_document(
    row: tuple[object, ...],
    template: Template,
    places: tuple[int, ...],
    file: InputFile,
    digest: str,
    record: int,
) -> Document | str:
    """Return the document of a row, its `KEPT` values at `places`, or why it is rejected."""
    text, reason = render(template, row)
    if reason:
        return reason
    name, url, meta, metadata = places
    known = plain_name(row[name]) or f"{file.source}:{record}"
    if row[url] is row[meta] is row[metadata] is MISSING:  # as most are: worth a tenth of the time
        return Document(text, known, file.source, digest, record)
    about = name_and_describe(row[url], row[meta], row[metadata])
    return Document(text, known, file.source, digest, record, *about)


def name_and_describe(url: object, meta: object, metadata: object) -> tuple[str, str]:
    """Return the address of a record and what describes it as JSON, "" where it has none."""
    return plain_name(url), _as_json(meta if meta is not MISSING else metadata)


def plain_name(value: object) -> str:
    """Return a name, address or number as text; "" for anything else, or longer than 4 KiB."""
    if isinstance(value, msgspec.Raw):
        try:
            value = _NAME.decode(value if len(memoryview(value)) <= MAX_NAME_BYTES else b"")
        except (msgspec.DecodeError, UnicodeDecodeError):
            return ""
    if type(value) is not str:
        if not isinstance(value, int) or isinstance(value, bool):
            return ""
        value = str(value)
    return value if len(value) <= MAX_NAME_BYTES else ""


def _as_json(value: object) -> str:
    """Return what describes a document as JSON text, "" where there is none or too much."""
    if value is MISSING or value is None:
        return ""
    try:
        data = bytes(value) if isinstance(value, msgspec.Raw) else _ENCODER.encode(value)
        text = data.decode("utf-8")
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return ""
    return text if len(data) <= MAX_META_BYTES and text != "null" else ""


def _reasons(ledgers: Sequence[FileLedger]) -> str:
    total: Counter[str] = Counter()
    for ledger in ledgers:
        total.update(ledger.rejected)
    return ", ".join(f"{reason} {number}" for reason, number in total.most_common(5))
