"""Shards that are embedded on machines which share no folder: tokens and embeddings on a store.

The driver puts a shard's tokens (and the lengths of its documents) there, a worker fetches them,
embeds in a folder of its own, and puts what it made: what describes an embedding comes last.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from curate.corpus.objects import fetch_object, list_objects, put_object
from curate.corpus.remote import Store, explain_failure, open_store
from curate.errors import CurateError
from curate.store.fingerprint import digest_file


def hand_over(index: str, *, tokens: Path, lengths: Path) -> None:
    """Put what a worker needs of a shard, and what stays beside its embedding.

    Args:
        index: address of the index, `s3://BUCKET/FOLDER/index`.
        tokens: file of the tokens that are drawn.
        lengths: file with the tokens of each document.

    Raises:
        CurateError: no access, or the store does not answer.
    """
    _put(index, "shards", lengths)
    _put(index, "items", tokens)


@contextmanager
def fetched(index: str, tokens: Path) -> Iterator[tuple[Path, Path]]:
    """Give the file of a shard's tokens and an empty folder, both on this machine for a while.

    All that lies in the folder in the end is put beside the embeddings, `*.json` after the
    others. What an earlier try put there, on a machine that rounds otherwise, is replaced.

    Raises:
        CurateError: there are no tokens, no access, or the connection broke.
    """
    address = f"{index}/items/{tokens.name}"
    found = list_objects(_store(index), address)
    if not found:
        raise CurateError(f"{address}: not there any more; run the same command again")
    with tempfile.TemporaryDirectory(prefix="curate-") as scratch:
        here, made = Path(scratch, tokens.name), Path(scratch, "shards")
        made.mkdir()
        fetch_object(_store(index), found[0], here)
        yield here, made
        for path in sorted(made.iterdir(), key=lambda path: path.suffix == ".json"):
            _put(index, "shards", path)


def fetch_beside(index: str, path: Path) -> None:
    """Fetch a file that lies beside the embeddings, under its name; nothing where there is none.

    Raises:
        CurateError: no access, or the connection broke.
    """
    for found in list_objects(_store(index), f"{index}/shards/{path.name}"):
        fetch_object(_store(index), found, path)


def drop_tokens(index: str, tokens: Path | None = None) -> None:
    """Remove the tokens of a shard from the store; of all, those of killed runs too, by None.

    Raises:
        CurateError: no access, or the store does not answer.
    """
    store = _store(index)
    named = [f"{index}/items/{tokens.name}"] if tokens else []
    found = named or [each.address for each in list_objects(store, f"{index}/items")]
    for address in found:
        try:
            store.files.rm_file(address)
        except store.failures as error:
            raise explain_failure(store, address, error, verb="removed") from None


def _put(index: str, folder: str, path: Path) -> None:
    address = f"{index}/{folder}/{path.name}"
    put_object(_store(index), path, address, digest=digest_file(path), replace=True)


@lru_cache(maxsize=1)
def _store(index: str) -> Store:
    return open_store(index)
