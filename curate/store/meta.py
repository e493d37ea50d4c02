"""`meta.json` makes a folder an artefact: it is published last, and lists what belongs to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from curate.errors import CurateError
from curate.store.fingerprint import SCHEMA, digest_file
from curate.store.publish import begins_sealed, publish_json, read_json, read_json_if_whole

T = TypeVar("T")


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


class _Meta(msgspec.Struct):
    """A `meta.json` whose parts are not made objects of before they are wanted."""

    kind: str = ""
    schema: int = 0
    fingerprint: str = ""
    files: msgspec.Raw = msgspec.Raw(b"{}")
    body: msgspec.Raw = msgspec.Raw(b"null")


def read_meta(folder: Path, *, kind: str, body: type[T], check: bool = True) -> tuple[str, T]:
    """Read a folder's `meta.json`, holding every listed file against its digest.

    Returns:
        The fingerprint and the body.

    Raises:
        CurateError: absent, of another kind or schema, or a payload file differs.
    """
    path = folder / "meta.json"
    meta = read_json(path, _Meta)
    if meta.kind != kind or meta.schema != SCHEMA:
        raise CurateError(
            f"{path}: holds {meta.kind or None} of schema {meta.schema or None}, "
            f"this version reads {kind} of schema {SCHEMA}; run the command again"
        )
    files = msgspec.json.decode(meta.files, type=dict[str, dict[str, Any]]) if check else {}
    for name, expected in files.items():
        file = folder / name
        if not file.is_file() or digest_file(file) != expected["blake2b"]:
            raise CurateError(f"{file}: missing or changed since it was published; run again")
    try:
        return meta.fingerprint, msgspec.json.decode(meta.body, type=body)
    except msgspec.ValidationError as error:
        raise CurateError(f"{path}: {error}; run the command again") from None


def kind_of(folder: Path) -> str:
    """Return the kind of artefact that a folder says it is; "" for any other folder.

    Of a file of that name that is not ours, however large, only the beginning is read.
    """
    path = folder / "meta.json"
    try:
        meta = read_json_if_whole(path, _Meta) if begins_sealed(path) else None
    except OSError:
        return ""
    return meta.kind if meta else ""


def is_current(folder: Path, *, kind: str, fingerprint: str) -> bool:
    """Say whether a complete artefact with this fingerprint lies in `folder`."""
    if not (folder / "meta.json").is_file():
        return False
    try:
        found, _ = read_meta(folder, kind=kind, body=dict[str, Any])
    except CurateError:
        return False
    return found == fingerprint
