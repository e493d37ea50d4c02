"""Documents → shards: record ranges of one source, cut at a number of tokens."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from curate.corpus.groups import read_group
from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder, check_ledgers
from curate.corpus.pieces import Opened, count_workers, read_in_pieces
from curate.corpus.progress import BytesRead
from curate.corpus.reader import check_inputs
from curate.corpus.tokens import Encode
from curate.errors import USAGE, CurateError
from curate.records import Document, FileLedger, Notify, RecordRange, Shard, ShardText, silent
from curate.settings import CorpusSettings
from curate.store.fingerprint import digest_file, digest_texts

if TYPE_CHECKING:
    from curate.records import Counts

ENCODE_DOCUMENTS = 256
ENCODE_CHARS = 2_000_000
"""So many documents or characters, whichever is first, go to the tokenizer together."""


Placed = tuple[Document, RecordRange, "Counts", bool]
"""A document, the one record that it is, its token ids; whether none was taken out before it."""


def read_shards(
    inputs: Sequence[InputFile],
    settings: CorpusSettings,
    *,
    encode: Encode,
    ledgers: list[FileLedger],
    grouped: Sequence[FileLedger] = (),
    notify: Notify = silent,
    workers: int = 0,
) -> Iterator[ShardText]:
    """Read files and cut their documents into shards, one or two of them in memory at a time.

    A shard holds documents of one source, in the order of files and records: at least half of
    `shard_tokens`, its source's last one excepted, and no more than that; a longer document is
    a shard of its own. A source of one shard gives it its name, others are numbered
    `source-00000`. The order of `inputs` does not matter.

    Args:
        inputs: from `find_inputs`.
        settings: `text` and `shard_tokens` are used.
        encode: texts to token ids, without special tokens.
        ledgers: receives the account of each file when it is read to its end.
        grouped: where `inputs` are group files, the accounts of the files they were made of;
            they go to `ledgers` in the end, less the documents that have no token.
        notify: told the bytes read.
        workers: processes that read; 0 takes all cores where the input is large. Their number
            changes nothing.

    Raises:
        CurateError: the text field is in none of the files, or nothing at all was accepted.
    """
    if settings.shard_tokens <= 0:
        raise CurateError("shard_tokens: must be positive", exit_code=USAGE)
    check_inputs([file for file in inputs if not file.grouped], text=settings.text)
    ordered = sorted(inputs, key=lambda file: (file.source, str(file.path)))
    total = sum(file.path.stat().st_size for file in ordered if file.path.is_file())
    progress = BytesRead(total, settings.text, notify)
    if total:
        notify("bytes read", 0, total)
    builders = [LedgerBuilder.of(ledger) for ledger in grouped]
    origins: dict[str, list[LedgerBuilder]] = {}
    for builder in builders:
        origins.setdefault(builder.digest, []).append(builder)
    plain = [file for file in ordered if not file.grouped]
    opened = read_in_pieces(plain, text=settings.text, workers=workers or count_workers(plain))
    names: set[str] = set()
    for source, group in groupby(ordered, key=lambda file: file.source):
        encoded = _encoded(group, opened, encode, ledgers, origins, progress)
        parts = _cut(encoded, settings.shard_tokens)
        for name, part in _numbered(parts, source, names):
            yield _as_shard(part, name=name, source=source, grouped=bool(grouped))
    ledgers += [builder.finish() for builder in builders]
    if not names:
        raise check_ledgers(ledgers, 0.0) or CurateError(
            f"{_named(inputs)}: no document in it; name other inputs"
        )


def _encoded(
    files: Iterable[InputFile],
    opened: Iterator[Opened],
    encode: Encode,
    ledgers: list[FileLedger],
    origins: dict[str, list[LedgerBuilder]],
    progress: BytesRead,
) -> Iterator[Placed]:
    """Yield the documents of one source; file the ledgers."""
    for file in files:
        progress.begin(file)
        ledger = LedgerBuilder()
        if file.grouped:
            placed = _grouped(file)
        else:
            ledger, documents = next(opened)
            placed = _plain(documents, ledger)
        follows = True
        for batch in _batches(placed):
            encoded = encode([document.text for document, _ in batch])
            for (document, place), ids in zip(batch, encoded, strict=True):
                if len(ids) == 0:
                    alike = origins.get(document.file_digest, [ledger])  # each has such a text
                    max(alike, key=attrgetter("accepted")).withdraw("empty")
                else:
                    yield document, place, ids, follows
                follows = len(ids) > 0
                progress.add(len(document.text))
        if not file.grouped:
            ledgers.append(ledger.finish())
        progress.end()


def _plain(
    documents: Iterable[Document], ledger: LedgerBuilder
) -> Iterator[tuple[Document, RecordRange]]:
    for document in documents:
        start = document.record
        yield document, RecordRange(ledger.path, document.file_digest, start, start + 1)


def _grouped(file: InputFile) -> Iterator[tuple[Document, RecordRange]]:
    digest = digest_file(file.path)
    for number, document in enumerate(read_group(file.path, source=file.source)):
        yield document, RecordRange(str(file.path), digest, number, number + 1)


def _batches(
    documents: Iterable[tuple[Document, RecordRange]],
) -> Iterator[list[tuple[Document, RecordRange]]]:
    waiting: list[tuple[Document, RecordRange]] = []
    chars = 0
    for document, place in documents:
        waiting.append((document, place))
        chars += len(document.text)
        if len(waiting) >= ENCODE_DOCUMENTS or chars >= ENCODE_CHARS:
            yield waiting
            waiting, chars = [], 0
    if waiting:
        yield waiting


def _cut(encoded: Iterable[Placed], shard_tokens: int) -> Iterator[list[Placed]]:
    """Cut where a text says so: in its second half, each shard ends with its lowest checksum.

    Shards that end at the same documents whatever stands before them (content-defined chunking:
    Muthitacharoen et al. 2001) stay what they are when documents are added or taken out
    elsewhere in the file: the two ways of cutting meet again after a few shards.
    """
    held: list[Placed] = []
    n_tokens = 0
    for one in encoded:
        while held and n_tokens + len(one[2]) > shard_tokens:
            end = _end_of_shard(held, shard_tokens)
            yield held[:end]
            held = held[end:]
            n_tokens = sum(len(ids) for _, _, ids, _ in held)
        held.append(one)
        n_tokens += len(one[2])
    if held:
        yield held


def _end_of_shard(held: Sequence[Placed], shard_tokens: int) -> int:
    """Return how many documents go into the next shard: all, where none is in its second half."""
    ends: list[tuple[int, int]] = []
    n_tokens = 0
    for number, (document, _, ids, _) in enumerate(held, start=1):
        n_tokens += len(ids)
        if 2 * n_tokens >= shard_tokens:
            ends.append((zlib.crc32(document.text.encode("utf-8", "surrogatepass")), number))
    return min(ends)[1] if ends else len(held)


def _numbered(
    parts: Iterator[list[Placed]], source: str, names: set[str]
) -> Iterator[tuple[str, list[Placed]]]:
    """Name the shards of a source; the first waits until it is known whether it is the only one."""
    first = next(parts, None)
    if first is None:
        return
    second = next(parts, None)
    if second is None:
        yield _free(source, names), first
        return
    yield _free(f"{source}-{0:05d}", names), first
    del first
    yield _free(f"{source}-{1:05d}", names), second
    del second
    for number, part in enumerate(parts, start=2):
        yield _free(f"{source}-{number:05d}", names), part


def _free(name: str, names: set[str]) -> str:
    """Return a name no shard has yet: a file `a-00000` must not pass for the first part of `a`."""
    free, number = name, 2
    while free in names:
        free, number = f"{name}.{number}", number + 1
    names.add(free)
    return free


def _as_shard(part: Sequence[Placed], *, name: str, source: str, grouped: bool) -> ShardText:
    documents, places, tokens, joined = zip(*part, strict=True)
    ranges: list[RecordRange] = []
    for place, follows in zip(places, joined, strict=True):
        # a record that was rejected is so when it is read again, a text without a token is not
        if ranges and ranges[-1].path == place.path and follows:
            ranges[-1] = replace(ranges[-1], stop=place.stop)
        else:
            ranges.append(place)
    shard = Shard(
        name=name,
        source=source,
        ranges=tuple(ranges),
        n_documents=len(documents),
        n_tokens=sum(map(len, tokens)),
        digest=digest_texts([document.text for document in documents]),
        grouped=grouped,
    )
    return ShardText(shard=shard, documents=documents, tokens=tokens)


def _named(inputs: Sequence[Any]) -> str:
    first = ", ".join(str(file.path) for file in inputs[:3])
    return f"{first}, …" if len(inputs) > 3 else first or "the inputs"
