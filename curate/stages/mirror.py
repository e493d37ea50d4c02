"""A workspace on an object store: a copy here, worked in as in any folder, and published back.

Every stage locks, renames and maps files, which no object store can do; so it works in the copy.
What the store has that the copy lacks is fetched before, what the copy has made is published
after: each object by a conditional put, each `meta.json` after the files that it stands for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from curate.corpus.objects import fetch_object, is_plain, list_objects, put_object
from curate.corpus.remote import Object, Store, open_store
from curate.errors import USAGE, CurateError
from curate.records import Notify, silent
from curate.stages.workspace import WORKSPACE
from curate.store.fingerprint import digest_file
from curate.store.lock import locked
from curate.store.publish import publish_json, read_json_if_whole

T = TypeVar("T")

AT_ONCE = 8
"""Objects that are fetched or sent at the same time."""

OWN = frozenset({"sources", "batch", "mixes", "stores", "mix.json", "history.jsonl"})
"""At the top of a workspace, and not published: copies of inputs, and what is of this machine."""

UNFINISHED = (".state", ".checkpoint.safetensors")
"""Of a training run that goes on: whoever trains it keeps them, and removes them with its end."""

STATE = ".mirror.json"
"""In the copy: which objects it is a copy of."""


@dataclass(frozen=True, slots=True)
class Known:
    """An object as it was when copy and store agreed."""

    mark: str  # the store's word for its bytes; "" where it was not told: it is fetched again
    digest: str  # blake2b


@dataclass(slots=True)
class Mirror:
    """A workspace on a store, and its copy."""

    store: Store
    address: str
    here: Path
    known: dict[str, Known] = field(default_factory=dict)  # by the name below the address


_open: ContextVar[Mirror | None] = ContextVar("mirror", default=None)


@contextmanager
def mirrored(address: str, *, here: Path | None = None, notify: Notify = silent) -> Iterator[Path]:
    """Give the copy of a workspace that lies at an address; publish what has changed in the end.

    Where the stage inside fails, what it had finished is published all the same, and the error
    goes on; after an interrupt it waits in the copy for the next run. Of two runs on different
    machines, the second to publish the same artefact is refused and overwrites nothing.

    Args:
        address: `s3://BUCKET/FOLDER`.
        here: the copy; None takes a folder in `.curate/stores`, by the address.
        notify: told the objects fetched and sent.

    Raises:
        CurateError: no such kind of address, no access, a connection that broke, or another
            run that has published in the meantime (exit code 5).
    """
    mirror = open_mirror(address, here)
    with locked(mirror.here, notify=notify):
        pull(mirror, notify)
        token = _open.set(mirror)
        try:
            yield mirror.here
        except Exception:
            publish(mirror, notify)
            raise
        finally:
            _open.reset(token)
        publish(mirror, notify)


def copied_from(place: Path) -> str:
    """Return the address of the workspace whose copy `place` is, "" where it is none."""
    mirror = _open.get()
    return mirror.address if mirror is not None and mirror.here == place else ""


def catch_up(place: Path, notify: Notify = silent) -> None:
    """Fetch what others have published since the copy was opened; nothing where it is none."""
    mirror = _open.get()
    if mirror is not None and mirror.here == place:
        pull(mirror, notify)


def open_mirror(address: str, here: Path | None = None) -> Mirror:
    """Return the copy of a workspace as it is; nothing is asked of the store.

    Raises:
        CurateError: not `s3://BUCKET/FOLDER`, or its package is missing.
    """
    bucket, *parts = [part for part in address.partition("://")[2].split("/") if part] or [""]
    if not address.startswith("s3://") or not parts or any(part[0] == "." for part in parts):
        raise CurateError(
            f"{address}: a workspace is a local folder or s3://BUCKET/FOLDER", exit_code=USAGE
        )
    store = open_store(address)
    place = here or Path(WORKSPACE, "stores", store.scheme, bucket, *parts)
    known = read_json_if_whole(place / STATE, dict[str, dict[str, Known]]) or {}
    whole = f"{store.scheme}://{'/'.join([bucket, *parts])}"
    return Mirror(store, whole, place, known.get("objects", {}))


def pull(mirror: Mirror, notify: Notify = silent) -> int:
    """Fetch what the store has and the copy lacks; return how many objects.

    What the store had and has no more goes here too. Files that no object ever stood for are
    those of a run that was cut short: they stay, and are published with the next.
    """
    found = _listed(mirror)
    for name in set(mirror.known) - set(found):
        (mirror.here / name).unlink(missing_ok=True)
        del mirror.known[name]
    wanted = [name for name in sorted(found, key=_turn) if not _is_here(mirror, name, found[name])]
    fetched = _at_once(lambda name: _fetch(mirror, name, found[name]), wanted, "fetching", notify)
    mirror.known.update(zip(wanted, fetched, strict=True))
    _keep_state(mirror)
    return len(wanted)


def publish(mirror: Mirror, notify: Notify = silent) -> int:
    """Put what has changed in the copy, manifests after what they stand for; return how many.

    Raises:
        CurateError: an object is not any more what the copy was made from (exit code 5).
    """
    digests = {name: digest_file(mirror.here / name) for name in _names(mirror.here)}
    changed = [
        name
        for name, digest in sorted(digests.items(), key=lambda each: _turn(each[0]))
        if name not in mirror.known or mirror.known[name].digest != digest
    ]
    for turn in sorted({_turn(name)[0] for name in changed}):
        now = [name for name in changed if _turn(name)[0] == turn]
        _at_once(lambda name: _put(mirror, name, digests[name]), now, "publishing", notify)
    if changed:
        _agree(mirror, {name: digests[name] for name in changed})
    return len(changed)


def _names(here: Path) -> list[str]:
    """Return the files of a copy that are published, as names below the address."""
    found = (path.relative_to(here) for path in here.rglob("*") if path.is_file())
    return [name.as_posix() for name in found if _is_published(name.as_posix())]


def _is_published(name: str) -> bool:
    if not is_plain(name):
        return False
    parts = PurePosixPath(name).parts
    if parts[0] in OWN or parts[:2] == ("index", "items"):
        return False
    return not (parts[:2] == ("verify", "runs") and name.endswith(UNFINISHED))


def _turn(name: str) -> tuple[int, str]:
    """Return when a file is published: what it stands for comes first."""
    if name.endswith("/meta.json"):
        return 1, name
    return (2 if "/" not in name or name.endswith("/latest.json") else 0), name


def _listed(mirror: Mirror) -> dict[str, Object]:
    start = len(mirror.address) + 1
    named = {each.address[start:]: each for each in list_objects(mirror.store, mirror.address)}
    return {name: each for name, each in named.items() if _is_published(name)}


def _is_here(mirror: Mirror, name: str, found: Object) -> bool:
    known = mirror.known.get(name)
    return known is not None and known.mark == found.mark != "" and (mirror.here / name).is_file()


def _fetch(mirror: Mirror, name: str, found: Object) -> Known:
    return Known(found.mark, fetch_object(mirror.store, found, mirror.here / name))


def _put(mirror: Mirror, name: str, digest: str) -> None:
    """Put a file where nothing stands, or in place of just what the copy was made from."""
    known = mirror.known.get(name)
    put_object(
        mirror.store,
        mirror.here / name,
        f"{mirror.address}/{name}",
        digest=digest,
        mark=known.mark if known else "",
    )


def _agree(mirror: Mirror, sent: dict[str, str]) -> None:
    """Take down what the store calls the objects that were sent."""
    found = _listed(mirror)
    for name, digest in sent.items():
        mark = found[name].mark if name in found else ""
        # Another run may have put its own in between; it shows in the next listing.
        with (mirror.here / name).open("rb") as stream:
            plain = hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False))
        mirror.known[name] = Known(mark if plain.hexdigest() in mark else "", digest)
    _keep_state(mirror)


def _keep_state(mirror: Mirror) -> None:
    publish_json(mirror.here / STATE, {"objects": mirror.known})


def _at_once(work: Callable[[str], T], names: Sequence[str], what: str, notify: Notify) -> list[T]:
    done: list[T] = []
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        waiting = [pool.submit(work, name) for name in names]
        try:
            for each in waiting:
                done.append(each.result())
                notify(what, float(len(done)), float(len(names)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done
