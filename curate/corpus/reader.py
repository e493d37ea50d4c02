"""Any file → documents, every record accounted for in a ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from operator import itemgetter

import msgspec

from curate.corpus.containers import BrokenFileError, Span, one_line
from curate.corpus.fields import KEPT, MISSING, Template, parse_template, render, row_names
from curate.corpus.formats import detect_format
from curate.corpus.guess import propose_text
from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.rows import field_names, read_rows
from curate.errors import CurateError
from curate.records import Document
from curate.store.fingerprint import digest_file

READING = 4
"""State of how files become documents, a part of what is kept of them: raise it with any change."""

MAX_NAME_BYTES = 4096
"""Of an id or url; a longer one is no name and is left out."""

MAX_META_BYTES = 65_536
"""Of the JSON text of `meta`; a longer one is left out, the document is kept."""

EXAMPLE = "--text '{question} {answer}'"

MAX_LABEL = 100
"""Characters of a value that documents are grouped by."""

_NAME = msgspec.json.Decoder(str | int)
_ENCODER = msgspec.json.Encoder(enc_hook=str)


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
        raise CurateError(
            f"{file.path}: no field {missing}; it has {known}; name the field with --text, "
            f"or several as a template: {propose_text(file.path) or EXAMPLE}"
        )


def describe_lack(files: Sequence[InputFile], *, label: str) -> str:
    """Return what to say of files whose schemas and first records lack a field to group by.

    "" where one has it, or where there is no saying. Later records may still have it.
    """
    lacking = ""
    for file in files:
        try:
            names = field_names(file.path, detect_format(file.path))
        except (BrokenFileError, OSError):
            continue
        if names is None or label in names:
            return ""
        known = ", ".join(names[:12]) or "none"
        lacking = lacking or f"no field {label} to group by in {file.path}; it has {known}"
    return lacking


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
