"""Work items on machines that share no folder: their files lie on a store, under the same names.

The driver puts there what an item needs, a worker fetches it to a folder of its own, which goes
with the item, works in it as in the shared one, and puts what it has made.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from curate.corpus.objects import (
    fetch_object,
    is_plain,
    list_forgotten,
    list_objects,
    overwrite_object,
    remove_object,
)
from curate.corpus.remote import Store, open_store
from curate.errors import CurateError

SEND_S = 5.0
"""Between two looks at the files that are put while the work goes on."""

FORGOTTEN_S = 86_400.0
"""After which what another run had handed over is taken for left behind: nothing waits a day."""


def hand_over(address: str, folder: Path, *names: str) -> None:
    """Put files of the driver's folder where workers fetch them, whatever stands there.

    Args:
        address: of that folder on the store, `s3://BUCKET/FOLDER/index`.
        folder: here.
        names: of the files, below both.

    Raises:
        CurateError: no access, or the store does not answer.
    """
    for name in names:
        overwrite_object(_store(address), folder / name, f"{address}/{name}")


def bring(address: str, folder: Path, name: str) -> bool:
    """Fetch a file to its place in a folder; say whether there was one.

    Raises:
        CurateError: no access, or the connection broke.
    """
    found = list_objects(_store(address), f"{address}/{name}")
    for each in found:
        fetch_object(_store(address), each, folder / name)
    return bool(found)


def follow(address: str, folder: Path, suffix: str, seen: dict[str, str]) -> None:
    """Fetch the files of that suffix that have changed since the last call.

    Args:
        address: of the folder on the store.
        folder: here.
        suffix: of a file's name.
        seen: address → the store's word for its bytes; kept from call to call.

    Raises:
        CurateError: no access, or the connection broke.
    """
    for found in list_objects(_store(address), address):
        name = found.address[len(address) + 1 :]
        if name.endswith(suffix) and is_plain(name) and seen.get(found.address) != found.mark:
            fetch_object(_store(address), found, folder / name)
            seen[found.address] = found.mark


def is_there(address: str, name: str) -> bool:
    """Say whether a file lies on the store.

    Raises:
        CurateError: no access, or the store does not answer.
    """
    return bool(list_objects(_store(address), f"{address}/{name}"))


def drop(address: str, *names: str, forgotten: str = "") -> None:
    """Remove files from the store, those of killed runs too.

    Args:
        address: of the folder on the store.
        names: of files in it.
        forgotten: folder of which goes what has lain there for a day; "" is none.

    Raises:
        CurateError: no access, or the store does not answer.
    """
    store, found = _store(address), [f"{address}/{name}" for name in names]
    if forgotten:
        left = list_forgotten(store, f"{address}/{forgotten}", seconds=FORGOTTEN_S)
        found += [each.address for each in left]
    for each in found:
        remove_object(store, each)


@contextmanager
def scratch(
    address: str, needed: Sequence[str], *, kept: Sequence[str] = (), live: Sequence[str] = ()
) -> Iterator[Path]:
    """Give a folder of this machine with the files of an item; put what is made in it.

    What an item makes is put in the end, `*.json` after the others. What an earlier try put
    there, on a machine that rounds otherwise, is replaced. Where the item fails, nothing is put.

    Args:
        address: of the folder on the store.
        needed: names of files below it.
        kept: the same, of files that an earlier try may have left.
        live: as `kept`; they are put whenever they change, and removed where they are gone.

    Raises:
        CurateError: a file is not there, no access, or the connection broke.
    """
    with tempfile.TemporaryDirectory(prefix="curate-") as temporary:
        folder = Path(temporary)
        for name in needed:
            if not bring(address, folder, name):
                raise CurateError(
                    f"{address}/{name}: not there any more; run the same command again"
                )
        there = {name for name in (*kept, *live) if bring(address, folder, name)}
        before = _versions(folder)
        with _sending(address, folder, live) as sent:
            yield folder
        after = _versions(folder)
        made = [name for name, version in after.items() if before.get(name) != version]
        hand_over(address, folder, *sorted(made, key=lambda name: name.endswith(".json")))
        drop(address, *(name for name in live if name in there | sent and name not in after))


@contextmanager
def _sending(address: str, folder: Path, live: Sequence[str]) -> Iterator[set[str]]:
    """Put files as they change until the block ends; give the names of those that were put."""
    sent: set[str] = set()
    if not live:
        yield sent
        return
    stop, seen = threading.Event(), _versions(folder)

    def keep_sending() -> None:
        while not stop.wait(SEND_S):
            now = _versions(folder)
            for name in live:
                if name in now and seen.get(name) != now[name]:
                    seen[name] = now[name]
                    # a store that fails now is said by what is put in the end
                    with suppress(CurateError, OSError):
                        _send_as_it_is(address, folder, name)
                        sent.add(name)

    thread = threading.Thread(target=keep_sending, daemon=True)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


def _send_as_it_is(address: str, folder: Path, name: str) -> None:
    """Put a file, of which another may take the place in the meantime."""
    with tempfile.TemporaryDirectory(prefix="curate-") as aside:
        (Path(aside) / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / name, Path(aside) / name)
        hand_over(address, Path(aside), name)


def _versions(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what tells a file that was written anew from the one before, by name."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file() and not path.name.startswith("."):
                state = path.stat()
                version = (state.st_ino, state.st_mtime_ns, state.st_size)
                found[path.relative_to(folder).as_posix()] = version
    return found


@lru_cache(maxsize=4)
def _store(address: str) -> Store:
    return open_store(address)
