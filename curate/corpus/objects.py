"""Objects of a store: listed, fetched whole, put where nothing stands."""

from __future__ import annotations

import hashlib
from pathlib import Path

from curate.corpus.remote import Object, Store, as_objects, explain_failure, read_blocks
from curate.errors import LOCKED, CurateError
from curate.store.publish import publishing


def list_objects(store: Store, address: str) -> list[Object]:
    """Return the objects at an address and below it; none where nothing stands.

    Raises:
        CurateError: no access, or the store does not answer.
    """
    try:
        return list(as_objects(store, store.files.find(address, detail=True)))
    except FileNotFoundError:
        return []
    except store.failures as error:
        raise explain_failure(store, address, error) from None


def object_digest(store: Store, address: str) -> str:
    """Return the blake2b-256 of the bytes of an object, as 64 hex digits.

    Raises:
        CurateError: it is not there, no access, or the connection broke.
    """
    try:
        size = int(store.files.info(address)["size"])
    except store.failures as error:
        raise explain_failure(store, address, error) from None
    state = hashlib.blake2b(digest_size=32)
    for block in read_blocks(store, Object(address, size, ""), 0):
        state.update(block)
    return state.hexdigest()


def fetch_object(store: Store, found: Object, path: Path) -> str:
    """Publish an object's bytes at `path`; return their blake2b-256, 64 hex digits.

    Raises:
        CurateError: as `read_blocks`, or the file system refused.
    """
    state = hashlib.blake2b(digest_size=32)
    with publishing(path) as temporary, temporary.open("wb") as stream:
        for block in read_blocks(store, found, 0):
            state.update(block)
            stream.write(block)
    return state.hexdigest()


def put_object(
    store: Store, path: Path, address: str, *, digest: str, mark: str = "", replace: bool = False
) -> None:
    """Put a file where nothing stands, or in place of the very object that is known.

    Args:
        store: of the address.
        path: the file.
        address: of the object.
        digest: blake2b-256 of the file; where the store has these bytes already, all is well.
        mark: the store's word for what the file stands in place of; "" where nothing was.
        replace: take the place of whatever else stands there.

    Raises:
        CurateError: something else stands there (exit code 5), no access, or no answer.
    """
    how = {"IfMatch": mark} if mark else {"mode": "create"}
    try:
        store.files.put_file(str(path), address, **how)
    except store.failures as error:
        there = {each.address: each for each in list_objects(store, address)}
        if address not in there:
            raise explain_failure(store, address, error, verb="written") from None
        if object_digest(store, address) == digest:
            return
        if not (replace and there[address].mark not in ("", mark)):
            raise CurateError(
                f"{address}: another run has published it since this one began; run the same "
                "command again",
                exit_code=LOCKED,
            ) from None
        put_object(store, path, address, digest=digest, mark=there[address].mark)
