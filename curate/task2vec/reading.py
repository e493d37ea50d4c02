"""An index read back: is it current, and what does it hold; no model is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curate.corpus.inputs import InputFile, find_inputs
from curate.corpus.ledger import disk_refused
from curate.corpus.pairs import Pairs
from curate.corpus.prints import prints_name
from curate.corpus.regroup import groups_are_whole
from curate.errors import CurateError
from curate.records import Embedding, FileLedger, Index
from curate.settings import CorpusSettings, EmbedSettings
from curate.store.fingerprint import digest_file
from curate.store.meta import read_meta
from curate.store.publish import is_sealed
from curate.task2vec.model_files import find_revision
from curate.task2vec.vectors import (
    check_embedding,
    read_embedding,
    read_pairs,
    read_unigrams,
    shard_key,
)

if TYPE_CHECKING:
    from curate.records import Counts


def open_index(workspace: Path) -> Index:
    """Read a published index; its embeddings are checked when they are read.

    Raises:
        CurateError: there is none, or it is of another version.
    """
    folder = workspace / "index"
    if not (folder / "meta.json").is_file():
        raise CurateError(f"{workspace}: no index in it; run curate index first")
    _, index = read_meta(folder, kind="index", body=Index, check=False)
    return dataclasses.replace(index, folder=str(folder))


def index_is_current(corpus: CorpusSettings, embed: EmbedSettings, workspace: Path) -> bool:
    """Say whether the published index is what `build_index` would publish now.

    Compares settings, the probe's revision, the bytes of every input and of what is kept of shards;
    loads no model. Of remote inputs the copies count that `build_index` made.

    Raises:
        CurateError: an input is not there.
    """
    folder = workspace / "index"
    if not (folder / "meta.json").is_file():
        return False
    try:
        index = open_index(workspace)
        if (index.corpus, index.embed) != (corpus, embed):
            return False
        if find_revision(embed.probe) != index.probe.revision:
            return False
        one = next(iter(index.shards))
        if one.key != shard_key(one.shard.digest, embed, index.probe):  # an older version's
            return False
    except CurateError:
        return False
    paths = {folder / "shards" / f"{shard.key}.safetensors" for shard in index.shards}
    if not all(check_embedding(path) for path in paths):
        return False
    names = (prints_name(one.shard, text=corpus.text) for one in index.shards)
    if not all(is_sealed(folder / "prints" / name) for name in names):
        return False
    if disk_refused(index.ledgers):
        return False
    if not groups_are_whole([one.shard for one in index.shards]):
        return False
    return _inputs_unchanged(find_inputs(corpus.inputs, workspace=workspace), index.ledgers)


def load_embedding(folder: Path, key: str) -> Embedding:
    """Read the embedding of an indexed shard.

    Args:
        folder: the index's folder (`Index.folder`), or the workspace that holds it.
        key: of the shard (`IndexedShard.key`).

    Raises:
        CurateError: missing, or changed since it was published.
    """
    return read_embedding(embedding_path(folder, key))


def load_unigrams(folder: Path, key: str) -> Counts:
    """Read the token counts (vocab,) of an indexed shard, and nothing else of its embedding.

    Args:
        folder: as in `load_embedding`.
        key: of the shard.

    Raises:
        CurateError: as `load_embedding`.
    """
    return read_unigrams(embedding_path(folder, key))


def load_pairs(folder: Path, key: str) -> Pairs:
    """Read the token pairs of an indexed shard, and nothing else of its embedding.

    Args:
        folder: as in `load_embedding`.
        key: of the shard.

    Raises:
        CurateError: as `load_embedding`.
    """
    return read_pairs(embedding_path(folder, key))


def embedding_path(folder: Path, key: str) -> Path:
    """Return where the embedding of an indexed shard lies; `folder` as in `load_embedding`."""
    inside = folder if (folder / "shards").is_dir() else folder / "index"
    return inside / "shards" / f"{key}.safetensors"


def _inputs_unchanged(files: Sequence[InputFile], ledgers: Sequence[FileLedger]) -> bool:
    known = {ledger.path: ledger for ledger in ledgers}
    if {str(file.path) for file in files} != set(known):
        return False
    if any(file.path.stat().st_size != known[str(file.path)].n_bytes for file in files):
        return False
    return all(digest_file(file.path) == known[str(file.path)].digest for file in files)
