"""A published folder → an object store: payload first, `meta.json` last, nothing overwritten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from curate.corpus.objects import object_digest
from curate.corpus.remote import Store, explain_failure, open_store
from curate.errors import USAGE, CurateError
from curate.records import Notify, silent
from curate.store.fingerprint import digest_bytes
from curate.store.publish import read_json

AT_ONCE = 8
"""Files that are sent at the same time."""


def check_address(address: str) -> None:
    """Check that a folder can be published at an address, before any work is done.

    Raises:
        CurateError: not `s3://BUCKET/KEY`, credentials in it, or its package is missing.
    """
    store = open_store(address)
    bucket, _, key = address.partition("://")[2].partition("/")
    if store.scheme != "s3" or not bucket or not key.strip("/"):
        raise CurateError(
            f"{address}: a mix is published to s3://BUCKET/FOLDER or to a local folder",
            exit_code=USAGE,
        )


def upload_folder(folder: Path, address: str, *, notify: Notify = silent) -> None:
    """Publish a copy of a complete folder at an address.

    Every object is created only where none stands (If-None-Match), so that of two writers one
    is refused. What stands there already is held against the digests of `meta.json`: the same
    call goes on after an interruption, and a finished copy is checked. `meta.json` comes last;
    where it is not, the copy is not complete.

    Args:
        folder: published, with its `meta.json`.
        address: `s3://BUCKET/FOLDER`.
        notify: told the files sent.

    Raises:
        CurateError: something else stands at the address, no access, or the connection broke.
    """
    store, place = open_store(address), address.rstrip("/")
    files = read_json(folder / "meta.json", dict[str, Any])["files"]
    wanted = {name: str(each["blake2b"]) for name, each in sorted(files.items())}
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        sent = [
            pool.submit(_create, store, folder / name, f"{place}/{name}", digest)
            for name, digest in wanted.items()
        ]
        try:
            for number, each in enumerate(sent, start=1):
                each.result()
                notify("publishing", float(number), float(len(sent)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    data = (folder / "meta.json").read_bytes()
    _create(store, folder / "meta.json", f"{place}/meta.json", digest_bytes(data))


def _create(store: Store, path: Path, address: str, digest: str) -> None:
    """Create an object; one that stands there must hold the same bytes."""
    try:
        if not store.files.exists(address):
            store.files.put_file(str(path), address, mode="create")
            return
    except store.failures as error:
        if not _stands(store, address):
            raise explain_failure(store, address, error, verb="written") from None
    if object_digest(store, address) != digest:
        raise CurateError(f"{address}: holds something else; name another address, or remove it")


def _stands(store: Store, address: str) -> bool:
    try:
        return bool(store.files.exists(address))
    except store.failures:
        return False
