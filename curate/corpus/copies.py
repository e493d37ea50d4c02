"""Remote inputs → copies in the workspace: whole, resumable, current by their bytes alone."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from curate.corpus.remote import (
    BLOCK_BYTES,
    Object,
    Store,
    check_unchanged,
    copy_path,
    find_objects,
    is_remote,
    open_store,
    read_blocks,
)
from curate.errors import CurateError
from curate.records import Notify, silent
from curate.store.fingerprint import digest_bytes, digest_file
from curate.store.publish import publish_json, publishing, read_json

AT_ONCE = 8
"""Files that are copied at the same time."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What an address stood for when it was last copied; lies in the workspace as JSON."""

    address: str
    folder: str  # of the copies, relative to the workspace's `sources`; "" where files are named
    files: tuple[str, ...]  # copies, relative likewise
    skipped: tuple[str, ...] = ()  # addresses in the folder that no reader knows


@dataclass(frozen=True, slots=True)
class Copied:
    """A finished copy; lies beside it as JSON."""

    address: str
    digest: str  # blake2b of the copy
    mark: str  # what the store calls these bytes
    run: str  # of `refresh_remote`


@dataclass(frozen=True, slots=True)
class Begun:
    """A copy that is under way; lies beside its bytes as JSON."""

    mark: str
    n_bytes: int
    run: str


@dataclass(frozen=True, slots=True)
class Run:
    """One go over the files of an address, until all are copied."""

    name: str


def refresh_remote(inputs: Sequence[str], *, workspace: Path, notify: Notify = silent) -> None:
    """Bring the copies of all addresses among the inputs up to date.

    Every byte is read and held against the copy: only content decides whether a file changed.
    What the store calls a version joins the two halves of one interrupted run, and nothing else.

    Args:
        inputs: of a corpus; local ones are passed over.
        workspace: copies lie in `sources/SCHEME/BUCKET/KEY`.
        notify: told the bytes read.

    Raises:
        CurateError: another scheme, its package is missing, no such object, no access, or the
            connection broke; the same call goes on after the last whole block.
    """
    for given in inputs:
        if is_remote(given):
            _refresh(given, workspace / "sources", notify)


def find_copies(
    given: str, *, workspace: Path, skipped: list[Path] | None = None
) -> tuple[Path | None, list[Path]]:
    """Return the copies of an address, and make them where there are none.

    Args:
        given: the address of a file, a folder, or a glob of files.
        workspace: as in `refresh_remote`.
        skipped: receives the names in a folder that no reader knows; they are not copied.

    Returns:
        The folder of the copies where the address is one, else None; and the copies.

    Raises:
        CurateError: as `refresh_remote`.
    """
    sources = workspace / "sources"
    if not _listing_path(given, sources).is_file():
        _refresh(given, sources, silent)
    listing = read_json(_listing_path(given, sources), Listing)
    if skipped is not None:
        skipped.extend(map(Path, listing.skipped))
    files = [sources / name for name in listing.files]
    return (sources / listing.folder if listing.folder else None), files


def _refresh(given: str, sources: Path, notify: Notify) -> None:
    """Copy what an address names, drop copies of what is gone, publish the listing."""
    store = open_store(given)
    found = find_objects(store, given)
    listing = _listing_path(given, sources)
    marker = listing.with_suffix(".run")  # while it is there, a run is not finished
    if not marker.is_file():
        publish_json(marker, Run(secrets.token_hex(8)))
    run = read_json(marker, Run).name
    total, done = float(sum(each.n_bytes for each in found.objects)), 0.0
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        copies = [pool.submit(_copy, store, each, sources, run) for each in found.objects]
        try:
            for each, copy in zip(found.objects, copies, strict=True):
                copy.result()
                done += each.n_bytes
                notify("copying", done, total)
        except BaseException:
            store.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    names = tuple(str(copy_path(each.address)) for each in found.objects)
    folder = str(copy_path(found.folder)) if found.folder else ""
    if folder:
        _drop_others(sources / folder, {sources / name for name in names})
    publish_json(listing, Listing(given, folder, names, found.skipped))
    marker.unlink()


def _copy(store: Store, found: Object, sources: Path, run: str) -> None:
    """Read an object once; write only what differs from the copy that is there."""
    path = sources / copy_path(found.address)
    card = _beside(path, "copy.json")
    known = read_json(card, Copied) if card.is_file() and path.is_file() else None
    same_run = known is not None and found.mark and (known.run, known.mark) == (run, found.mark)
    if known and same_run and digest_file(path) == known.digest:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CurateError(
            f"{found.address}: {path.parent} is no folder ({error.strerror}); a name stands for a "
            "file and for a folder, name one of them"
        ) from None
    part, began = _beside(path, "part"), _beside(path, "part.json")
    start = _resume_at(part, began, found, run)
    digest = hashlib.blake2b(digest_size=32)
    if start:
        differs = _append(store, found, part, start, digest)
    else:
        publish_json(began, Begun(found.mark, found.n_bytes, run))
        differs = _compare(store, found, path, part, digest)
    check_unchanged(store, found)
    if differs:
        with publishing(path) as temporary:
            part.replace(temporary)
    part.unlink(missing_ok=True)
    publish_json(card, Copied(found.address, digest.hexdigest(), found.mark, run))
    began.unlink(missing_ok=True)


def _resume_at(part: Path, began: Path, found: Object, run: str) -> int:
    """Return the bytes of an object that a run before this one has written; 0 starts anew."""
    if not part.is_file() or not began.is_file() or not found.mark:
        part.unlink(missing_ok=True)
        return 0
    if read_json(began, Begun) != Begun(found.mark, found.n_bytes, run):
        part.unlink()
        return 0
    whole = min(part.stat().st_size, found.n_bytes) // BLOCK_BYTES * BLOCK_BYTES
    os.truncate(part, whole)
    return whole


def _append(store: Store, found: Object, part: Path, start: int, digest: Any) -> bool:
    with part.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    with part.open("ab") as out:
        for block in read_blocks(store, found, start):
            digest.update(block)
            _write(out, block, part)
    return True


def _compare(store: Store, found: Object, path: Path, part: Path, digest: Any) -> bool:
    """Read an object beside its copy; from the first difference on, write a new one."""
    if not path.is_file():
        part.touch()
        return _append(store, found, part, 0, digest)
    same = 0
    with path.open("rb") as old:
        blocks = read_blocks(store, found, 0)
        for block in blocks:
            digest.update(block)
            if old.read(len(block)) != block:
                break
            same += len(block)
        else:
            if not old.read(1):
                return False
            block = b""
        old.seek(0)
        with part.open("wb") as out:
            for start in range(0, same, BLOCK_BYTES):
                _write(out, old.read(min(BLOCK_BYTES, same - start)), part)
            _write(out, block, part)
            for block in blocks:
                digest.update(block)
                _write(out, block, part)
    return True


def _write(out: BinaryIO, block: bytes, path: Path) -> None:
    try:
        out.write(block)
    except OSError as error:
        raise CurateError(f"{path}: cannot be written: {error.strerror or error}") from error


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{ending}")


def _listing_path(given: str, sources: Path) -> Path:
    return sources / "listings" / f"{digest_bytes(given.encode())[:16]}.json"


def _drop_others(folder: Path, kept: set[Path]) -> None:
    """Remove the copies in a folder that are of no object any more."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and not path.name.startswith(".") and path not in kept:
            path.unlink()
            _beside(path, "copy.json").unlink(missing_ok=True)
