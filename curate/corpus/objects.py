"""Objects of a store: listed, fetched whole, put where nothing stands."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path, PurePosixPath

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


def is_plain(name: str) -> bool:
    """Say whether a name below an address is one below a folder too: no `..`, nothing hidden.

    Whoever may write to a store decides how its objects are called.

    Example:
        >>> [is_plain(name) for name in ("runs/a.json", "../a.json", "/etc/a.json", "runs/.a")]
        [True, False, False, False]
    """
    parts = PurePosixPath(name).parts
    return bool(parts) and name == "/".join(parts) and not any(p.startswith(".") for p in parts)


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


def put_object(store: Store, path: Path, address: str, *, digest: str, mark: str = "") -> None:
    """Put a file where nothing stands, or in place of the very object that is known.

    Args:
        store: of the address.
        path: the file.
        address: of the object.
        digest: blake2b-256 of the file; where the store has these bytes already, all is well.
        mark: the store's word for what the file stands in place of; "" where nothing was.

    Raises:
        CurateError: something else stands there (exit code 5), no access, or no answer.
    """
    how = {"IfMatch": mark} if mark else {"mode": "create"}
    try:
        store.files.put_file(str(path), address, **how)
    except store.failures as error:
        if address not in {each.address for each in list_objects(store, address)}:
            raise explain_failure(store, address, error, verb="written") from None
        if object_digest(store, address) != digest:
            raise CurateError(
                f"{address}: another run has published it since this one began; run the same "
                "command again",
                exit_code=LOCKED,
            ) from None


def overwrite_object(store: Store, path: Path, address: str) -> None:
    """Put a file, whatever stands there.

    Raises:
        CurateError: no access, or no answer.
    """
    try:
        store.files.put_file(str(path), address)
    except store.failures as error:
        raise explain_failure(store, address, error, verb="written") from None


def remove_object(store: Store, address: str) -> None:
    """Remove an object; nothing where there is none.

    Raises:
        CurateError: no access, or no answer.
    """
    try:
        store.files.rm_file(address)
    except FileNotFoundError:
        return
    except store.failures as error:
        raise explain_failure(store, address, error, verb="removed") from None


def list_forgotten(store: Store, address: str, *, seconds: float) -> list[Object]:
    """Return the objects below an address that were put so long ago, as the store dates them.

    Raises:
        CurateError: no access, or no answer.
    """
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    try:
        infos = store.files.find(address, detail=True)
    except FileNotFoundError:
        return []
    except store.failures as error:
        raise explain_failure(store, address, error) from None
    old = {name: info for name, info in infos.items() if info.get("LastModified", then) < then}
    return list(as_objects(store, old))
