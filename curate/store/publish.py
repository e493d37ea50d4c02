"""A file at its final path is complete: written beside it, synced, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from curate.errors import CurateError
from curate.store.failpoint import failpoint
from curate.store.fingerprint import SCHEMA, digest_file

T = TypeVar("T")


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success it becomes `path`.

    The bytes are synced before the rename and the folder after it, so that after a
    power loss the file is either absent or whole. On failure the temporary file goes.

    Raises:
        CurateError: the file system refused (full, read-only, no permission).
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        failpoint("publish.after_tmp")
        _sync(temporary)
        failpoint("publish.before_rename")
        temporary.replace(path)
        failpoint("publish.after_rename")
        _sync(path.parent)
    except OSError as error:
        raise CurateError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def publish_bytes(path: Path, data: bytes) -> None:
    """Publish `data` at `path`, whole or not at all."""
    with publishing(path) as temporary:
        temporary.write_bytes(data)


def publish_json(path: Path, value: Any) -> None:
    """Publish a record (or plain data) as indented JSON with sorted keys."""
    encoded = msgspec.json.encode(value, order="sorted")
    publish_bytes(path, msgspec.json.format(encoded, indent=1) + b"\n")


def read_json(path: Path, kind: type[T]) -> T:
    """Read a published record.

    Raises:
        CurateError: absent, cut, or of another shape.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise CurateError(f"{path}: not there; run the command that makes it first") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CurateError(
            f"{path}: not what this version writes ({error}); delete it and run again"
        ) from None


def publish_meta(folder: Path, *, kind: str, fingerprint: str, files: list[str], body: Any) -> None:
    """Publish `meta.json` of a folder: its presence means that the folder is complete.

    Args:
        folder: an artefact whose payload `files` are already published in it.
        kind: index, ranking, mix, verification.
        fingerprint: of everything that decided the content.
        files: payload, relative to `folder`; size and digest of each are recorded.
        body: the record that describes the artefact.
    """
    listed = {
        name: {"bytes": (folder / name).stat().st_size, "blake2b": digest_file(folder / name)}
        for name in sorted(files)
    }
    publish_json(
        folder / "meta.json",
        {"kind": kind, "schema": SCHEMA, "fingerprint": fingerprint, "files": listed, "body": body},
    )


def read_meta(folder: Path, *, kind: str, body: type[T], check: bool = True) -> tuple[str, T]:
    """Read a folder's `meta.json`, holding every listed file against its digest.

    Returns:
        The fingerprint and the body.

    Raises:
        CurateError: absent, of another kind or schema, or a payload file differs.
    """
    path = folder / "meta.json"
    meta = read_json(path, dict[str, Any])
    if meta.get("kind") != kind or meta.get("schema") != SCHEMA:
        raise CurateError(
            f"{path}: holds {meta.get('kind')} of schema {meta.get('schema')}, "
            f"this version reads {kind} of schema {SCHEMA}; run the command again"
        )
    for name, expected in meta["files"].items() if check else ():
        file = folder / name
        if not file.is_file() or digest_file(file) != expected["blake2b"]:
            raise CurateError(f"{file}: missing or changed since it was published; run again")
    try:
        return str(meta["fingerprint"]), msgspec.convert(meta["body"], body)
    except msgspec.ValidationError as error:
        raise CurateError(f"{path}: {error}; run the command again") from None


def is_current(folder: Path, *, kind: str, fingerprint: str) -> bool:
    """Say whether a complete artefact with this fingerprint lies in `folder`."""
    if not (folder / "meta.json").is_file():
        return False
    try:
        found, _ = read_meta(folder, kind=kind, body=dict[str, Any])
    except CurateError:
        return False
    return found == fingerprint


def sweep(folder: Path) -> int:
    """Remove temporary files that a killed run left in `folder`; return how many."""
    leftovers = list(folder.rglob(".*.tmp")) if folder.is_dir() else []
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
