"""Group files: documents of many inputs under one source, each with where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pyarrow as pa

from curate.corpus.containers import BrokenFileError, read_lines
from curate.errors import CurateError
from curate.records import Document
from curate.store.publish import publishing

GROUP_BYTES = 1024 * 1024
"""Of text that waits for its group before it is packed and written."""

WAITING_BYTES = 256 * 1024 * 1024
"""Of text that waits in all groups together."""


class GroupRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A document in a group file; its digest and record are those of its first home."""

    text: str
    id: str
    file: str
    record: int
    url: str = ""
    meta: str = ""


class GroupWriter:
    """Appends documents to their group's file, many groups at a time in bounded memory.

    Used as a context: the files appear, whole, when it ends without an error.

    Args:
        folder: gets `00000.jsonl.zst` for group 0, and so on.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._paths: dict[int, Path] = {}
        self._waiting: dict[int, list[bytes]] = {}
        self._sizes: dict[int, int] = {}
        self._waiting_bytes = 0

    def __enter__(self) -> GroupWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                for group in sorted(self._waiting):
                    self._flush(group)
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        self._stack.__exit__(kind, *rest)  # type: ignore[arg-type]

    def add(self, group: int, document: Document) -> None:
        """Write a document to the end of a group."""
        record = GroupRecord(
            text=document.text,
            id=document.id,
            file=document.file_digest,
            record=document.record,
            url=document.url,
            meta=document.meta,
        )
        line = msgspec.json.encode(record) + b"\n"
        self._waiting.setdefault(group, []).append(line)
        self._sizes[group] = self._sizes.get(group, 0) + len(line)
        self._waiting_bytes += len(line)
        if self._sizes[group] >= GROUP_BYTES:
            self._flush(group)
        elif self._waiting_bytes >= WAITING_BYTES:
            for other in sorted(self._waiting):
                self._flush(other)

    def _flush(self, group: int) -> None:
        if group not in self._paths:
            final = group_path(self._folder, group)
            self._paths[group] = self._stack.enter_context(publishing(final))
        packed = pa.compress(b"".join(self._waiting.pop(group)), codec="zstd", asbytes=True)
        self._waiting_bytes -= self._sizes.pop(group)
        try:
            with self._paths[group].open("ab") as stream:
                stream.write(packed)
        except OSError as error:
            raise CurateError(
                f"{self._folder}: cannot be written: {error.strerror or error}"
            ) from error


def group_path(folder: Path, group: int) -> Path:
    """Return the file of a group; its name holds nothing that came from data."""
    return folder / f"{group:05d}.jsonl.zst"


def read_group(
    path: Path, *, source: str, start: int = 0, stop: int | None = None
) -> Iterator[Document]:
    """Read a group file's documents back, as they were before they were regrouped.

    Args:
        path: written by `GroupWriter`; the caller has held it against its digest.
        source: the group's name.
        start: first document, from 0.
        stop: document to stop before; None reads to the end.

    Raises:
        CurateError: it is not what was written.
    """
    decode = msgspec.json.Decoder(GroupRecord).decode
    try:
        for number, line in enumerate(read_lines(path, "zstd", capped=False)):
            if stop is not None and number >= stop:
                return
            if number < start:
                continue
            record = decode(line)
            yield Document(
                text=record.text,
                id=record.id,
                source=source,
                file_digest=record.file,
                record=record.record,
                url=record.url,
                meta=record.meta,
            )
    except (BrokenFileError, msgspec.DecodeError) as error:
        raise CurateError(
            f"{path}: {error}; delete its folder and run curate index again"
        ) from None
