"""Addresses of object stores and of the hub's file system → objects, and their bytes."""

from __future__ import annotations

import importlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any
from urllib.parse import quote, urlsplit

import fsspec

from curate.corpus.containers import BrokenFileError, one_line
from curate.corpus.formats import RECORD_SUFFIXES, WHOLE_SUFFIXES, detect_format, inner_suffix
from curate.errors import USAGE, CurateError
from curate.store.failpoint import failpoint
from curate.store.fingerprint import digest_bytes

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
"""The schemes that are read, and what reads each."""

BLOCK_BYTES = 8 * 1024 * 1024
"""Of one request; an interrupted copy goes on after its last whole block."""

LONGEST_NAME = 200
"""Bytes of a copy's name: a file system takes 255, and temporary files are named after it."""

_HIDDEN = re.compile(r"/(\.|__pycache__|_[^/]*$)")
_MARKS = ("ETag", "etag", "generation", "md5Hash", "blob_id")
_AGAIN = {"hf": {"refresh": True, "expand_info": True}}
"""How a store is asked past the listing that its library has kept, and told of the bytes' mark."""

_ERRORS = {
    "s3": (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError")),
    "gs": (
        ("gcsfs.retry", "HttpError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("aiohttp", "ClientError"),
    ),
    "hf": (("huggingface_hub.errors", "HfHubHTTPError"),),
}
"""What a store's library raises besides OSError, by name: it is loaded only where it is used."""


@dataclass(frozen=True, slots=True)
class Object:
    """A file of a store."""

    address: str
    n_bytes: int
    mark: str  # what the store calls these bytes (etag, generation, …), "" where it says nothing


@dataclass(frozen=True, slots=True)
class Store:
    """A file system, opened."""

    scheme: str
    files: Any  # of fsspec
    failures: tuple[type[BaseException], ...]  # that it raises
    stop: Event = field(default_factory=Event)  # set where a run is given up


@dataclass(frozen=True, slots=True)
class Found:
    """What an address stands for now."""

    objects: tuple[Object, ...]
    folder: str = ""  # the address again where it is a folder's
    skipped: tuple[str, ...] = ()  # addresses in the folder that no reader knows


def is_remote(given: str) -> bool:
    """Say whether an input is an address."""
    return "://" in given


def open_store(given: str) -> Store:
    """Open the store of an address; nothing is asked of it yet.

    Raises:
        CurateError: a scheme that is not on the list, credentials in the address, or the
            scheme's package is missing.
    """
    parts = urlsplit(given)
    if parts.scheme not in PACKAGES:
        raise CurateError(
            f"{parts.scheme}://: not a scheme that is read; name local paths, hf:org/name, or "
            f"{', '.join(f'{scheme}://' for scheme in PACKAGES)}",
            exit_code=USAGE,
        )
    if "@" in parts.netloc or "signature" in parts.query.lower():
        raise CurateError(
            f"{parts.scheme}://: an address may not carry credentials, it is written down; give "
            "them to the library that reads it (environment, or its configuration file)",
            exit_code=USAGE,
        )
    try:
        files = fsspec.filesystem(parts.scheme, use_listings_cache=False, skip_instance_cache=True)
        named = [
            getattr(importlib.import_module(module), name) for module, name in _ERRORS[parts.scheme]
        ]
    except ImportError:
        package = PACKAGES[parts.scheme]
        raise CurateError(f"{given}: needs the package {package}: pip install {package}") from None
    if parts.scheme == "hf":  # and its HTTP library's own, whichever that library is
        named += [base for base in named[0].__bases__ if issubclass(base, Exception)]
    return Store(parts.scheme, files, (OSError, TimeoutError, ValueError, *named))


def find_objects(store: Store, given: str) -> Found:
    """Return the objects that an address names: a file, those of a glob, or those of a folder.

    Raises:
        CurateError: none, no access, or the store does not answer.
    """
    try:
        info = _info(store, given)
        if info is not None and not _is_folder(info):
            return Found((_as_object(store, given, info),))
        if info is None and has_magic(given):
            found = _matches(store, given)
        else:
            found = _in_folder(store, given.rstrip("/"))
    except store.failures as error:
        raise explain_failure(store, given, error) from None
    if not found.objects:
        raise CurateError(f"{given}: no such file, and no folder with files that can be read")
    return found


def _matches(store: Store, pattern: str) -> Found:
    """Take the files that a glob matches; a folder of which it matches none is skipped."""
    matches = store.files.glob(pattern, detail=True)
    taken = tuple(as_objects(store, matches))
    within = {str(parent) for each in taken for parent in PurePosixPath(each.address).parents}
    folders = [_address(store, name) for name, info in matches.items() if _is_folder(info)]
    skipped = [each for each in sorted(folders) if str(PurePosixPath(each)) not in within]
    if skipped and not taken:
        raise CurateError(
            f"{pattern}: matches folders alone, such as {skipped[0]}; name one, or the files in "
            f"them: {pattern.rstrip('/')}/*"
        )
    return Found(taken, skipped=tuple(skipped))


def _in_folder(store: Store, folder: str) -> Found:
    """Leave out what `find_inputs` leaves out of a local folder, before it is copied."""
    taken: list[Object] = []
    skipped: list[Object] = []
    for each in as_objects(store, store.files.find(folder, detail=True)):
        if not _HIDDEN.search(each.address[len(folder) :]) and not each.address.endswith("/"):
            (taken if _has_reader(store, each) else skipped).append(each)
    return Found(tuple(taken), folder, tuple(each.address for each in skipped))


def read_blocks(store: Store, found: Object, start: int) -> Iterator[bytes]:
    """Yield the bytes of an object from `start` on, a request each.

    Raises:
        CurateError: the connection broke, or the object is of another length now.
    """
    for begin in range(start, found.n_bytes, BLOCK_BYTES):
        end = min(begin + BLOCK_BYTES, found.n_bytes)
        try:
            failpoint("remote.block")
            if store.stop.is_set():
                raise InterruptedError("given up")
            block = bytes(store.files.cat_file(found.address, start=begin, end=end))
        except store.failures as error:
            so_far = f" after {begin / 1e6:.1f} of {found.n_bytes / 1e6:.1f} MB"
            raise explain_failure(store, found.address, error, so_far=so_far) from None
        if len(block) != end - begin:
            raise CurateError(f"{found.address}: changed while it was read; run the command again")
        yield block


def check_unchanged(store: Store, found: Object) -> None:
    """Hold an object against its listing again, so that its blocks are of one version.

    Raises:
        CurateError: they are not, or the store does not answer.
    """
    try:
        info = store.files.info(found.address, **_AGAIN.get(store.scheme, {}))
    except store.failures as error:
        raise explain_failure(store, found.address, error) from None
    if (info.get("size"), _mark(info)) != (found.n_bytes, found.mark):
        raise CurateError(f"{found.address}: changed while it was read; run the command again")


def copy_path(address: str) -> Path:
    """Return where an address's copy lies, below the workspace's `sources`."""
    scheme, _, rest = address.partition("://")
    return Path(scheme, *map(_safe, rest.split("/")))


def _info(store: Store, given: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = store.files.info(given)
    except FileNotFoundError:
        return None
    return found


def as_objects(store: Store, infos: dict[str, Any]) -> Iterator[Object]:
    """Yield what a listing names, but folders."""
    for name, info in sorted(infos.items()):
        if not _is_folder(info):
            yield _as_object(store, _address(store, name), info)


def _is_folder(info: dict[str, Any]) -> bool:
    return info.get("type") == "directory"


def _address(store: Store, name: str) -> str:
    return name if "://" in name else f"{store.scheme}://{name}"


def _as_object(store: Store, address: str, info: dict[str, Any]) -> Object:
    return Object(address, int(info.get("size") or 0), _mark(info))


def _mark(info: dict[str, Any]) -> str:
    return next((str(info[name]) for name in _MARKS if info.get(name)), "")


def _has_reader(store: Store, found: Object) -> bool:
    """Say whether a reader knows an object, by its name or else by its first 64 KiB."""
    suffix = inner_suffix(Path(found.address))
    if suffix in RECORD_SUFFIXES or suffix in WHOLE_SUFFIXES:
        return True
    head = store.files.cat_file(found.address, start=0, end=min(1 << 16, found.n_bytes))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _safe(found.address.rpartition("/")[2])
        path.write_bytes(head)
        try:
            return detect_format(path).kind != "whole"
        except BrokenFileError as error:
            return "no reader knows" not in str(error)


def explain_failure(
    store: Store, address: str, error: BaseException, *, verb: str = "read", so_far: str = ""
) -> CurateError:
    """Return the one line that a store's error becomes; nothing in it is a secret."""
    if isinstance(error, FileNotFoundError):
        return CurateError(f"{address}: no such file or folder")
    what = _redacted(one_line(error))
    if isinstance(error, PermissionError) or "credentials" in what.lower():
        return CurateError(
            f"{address}: no access ({what}); give credentials to {PACKAGES[store.scheme]} "
            "(environment, or its configuration file)"
        )
    return CurateError(
        f"{address}: cannot be {verb}{so_far} ({what}); run the command again, it goes on there"
    )


def _redacted(message: str) -> str:
    """Take the values of the environment's keys and tokens out of a message."""
    for name, value in os.environ.items():
        if re.search("SECRET|TOKEN|KEY|PASSWORD", name.upper()) and len(value) >= 8:
            message = message.replace(value, "…")
    return message


def _safe(part: str) -> str:
    """Return a part of a key as a file name: `..` leads nowhere, and no two parts are one."""
    name = quote(part, safe=" !#$&'()+,;=@[]{}~^`") or "%"
    if len(name) > LONGEST_NAME:  # three bytes for each of most signs; the ending tells the kind
        name = f"{name[:100]}%%{digest_bytes(part.encode())[:32]}{name[-40:]}"
    return name.replace(".", "%2E") if not name.strip(".") else name
