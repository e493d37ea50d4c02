"""Stage: every shard to its embedding, each done once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from curate.corpus.copies import refresh_remote
from curate.corpus.inputs import InputFile, find_inputs
from curate.corpus.prints import prints_name
from curate.corpus.reader import disk_refused
from curate.corpus.regroup import drop_old_groups, groups_are_whole, open_corpus
from curate.corpus.tokens import count_unigrams
from curate.errors import CurateError
from curate.records import Embedding, FileLedger, Index, Notify, Target, silent
from curate.settings import CorpusSettings, EmbedSettings
from curate.store.fingerprint import digest_file
from curate.store.lock import locked
from curate.store.publish import is_damaged, read_json_if_whole, read_meta, sweep
from curate.task2vec.documents import DocumentVectors, read_documents
from curate.task2vec.embedding import check_probe, embed_parts, embed_texts, whole_batches
from curate.task2vec.items import digest_parts, shared_probe
from curate.task2vec.making import Making, choose_crew, embed_all, publish_index, shard_key
from curate.task2vec.probe import encode_texts, find_revision, load_probe
from curate.task2vec.vectors import (
    StoredEmbedding,
    check_embedding,
    documents_path,
    read_embedding,
    write_embedding,
)
from curate.task2vec.vectors import lengths_path as counts_path

__all__ = ["build_index", "embed_target", "embed_texts", "index_is_current", "open_index"]


def build_index(
    corpus: CorpusSettings,
    embed: EmbedSettings,
    *,
    workspace: Path,
    device: str = "auto",
    workers: int = 0,
    store: str = "",
    notify: Notify = silent,
) -> Index:
    """Embed every shard of a corpus and publish `workspace/index`.

    A shard whose embedding is published under its content key is not embedded again, so the
    same command resumes, and one changed shard costs one shard. A shard that cannot be embedded
    is tried again alone, then left out and named with its reason (`Index.rejected`).

    Args:
        corpus: which documents, and how they are cut into shards.
        embed: what the embedding is.
        workspace: folder for everything that is published.
        device: auto, cpu or cuda.
        workers: processes that embed; 0 takes one a GPU or core where the input is large.
        store: address of the workspace, where workers share no folder with this process: they
            publish embeddings there, and not in `workspace`.
        notify: told the tokens done; their total is not known before the end.

    Raises:
        CurateError: no documents, a probe that cannot be had or used, a lock, a full disk, or
            not one shard that can be embedded.
    """
    folder = workspace / "index"
    with locked(folder, notify=notify):
        sweep(folder)
        refresh_remote(corpus.inputs, workspace=workspace, notify=notify)
        if index_is_current(corpus, embed, workspace) and not open_index(workspace).rejected:
            return open_index(workspace)
        opened = open_corpus(corpus, workspace=workspace, notify=notify)
        crew = choose_crew(opened, device, workers)
        revision = find_revision(embed.probe)
        probe = shared_probe(embed.probe, revision, crew.device if crew.here else "cpu")
        blocks = check_probe(probe, embed)
        making = Making(
            folder, corpus, embed, probe.info, device=crew.device, here=crew.here,
            store=f"{store}/index" if store and not crew.here else "",
        )  # fmt: skip
        embed_all(making, opened, probe, crew, notify)
        found = publish_index(making, blocks, opened)
        drop_old_groups(workspace, opened)
        return found


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

    Compares settings, the probe's revision, the bytes of every input and of every embedding;
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
    if any(is_damaged(folder / "prints" / name) for name in names):
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
    inside = folder if (folder / "shards").is_dir() else folder / "index"
    return read_embedding(inside / "shards" / f"{key}.safetensors")


def lengths_path(folder: Path, key: str) -> Path | None:
    """Return the file with the tokens of each document of a shard; None where there is none.

    It holds (n_documents,) int32 in the order of the documents, counted by the probe's tokenizer.

    Raises:
        CurateError: it is not what was published.
    """
    path = folder / "shards" / f"{key}.safetensors"
    stored = read_json_if_whole(path.with_suffix(".json"), StoredEmbedding)
    if stored is None or not stored.lengths:
        return None
    lengths = counts_path(path)
    if not lengths.is_file():
        return None
    if digest_file(lengths) != stored.lengths:
        raise CurateError(f"{lengths}: changed since it was published; run curate index")
    return lengths


def load_documents(folder: Path, key: str) -> DocumentVectors:
    """Read the vectors of an indexed shard's documents.

    Args:
        folder: as in `load_embedding`.
        key: of the shard.

    Raises:
        CurateError: the index has none.
    """
    inside = folder if (folder / "shards").is_dir() else folder / "index"
    return read_documents(documents_path(inside / "shards" / f"{key}.safetensors"))


def embed_target(
    target: Target,
    index: Index,
    *,
    workspace: Path,
    device: str = "auto",
    notify: Notify = silent,
) -> Embedding:
    """Embed a target's select split with the probe of an index; kept by content.

    Every item goes to one of the sub-batches; of a target larger than all of them together,
    seeded ones do.

    Raises:
        CurateError: the probe is not the index's any more, or the target is too short.
    """
    key = shard_key(target.select_digest, index.embed, index.probe)
    path = workspace / "targets" / f"{key}.safetensors"
    if check_embedding(path) is None:
        notify(f"embedding target {target.name}", 0, 0)
        probe = load_probe(index.embed.probe, device=device)
        if (probe.info.revision, probe.info.tokenizer_digest) != (
            index.probe.revision,
            index.probe.tokenizer_digest,
        ):
            raise CurateError(
                f"probe {index.embed.probe}: changed since the index was made; run curate index"
            )
        tokens = encode_texts(probe, list(target.select))
        parts = whole_batches(tokens, index.embed)
        unigrams = count_unigrams(tokens, probe.info.vocab)
        found, _ = embed_parts(f"target {target.name}", parts, unigrams, probe, index.embed)
        write_embedding(path, found, blocks=index.blocks, text_digest=digest_parts(parts))
    return read_embedding(path)


def _inputs_unchanged(files: Sequence[InputFile], ledgers: Sequence[FileLedger]) -> bool:
    known = {ledger.path: ledger for ledger in ledgers}
    if {str(file.path) for file in files} != set(known):
        return False
    if any(file.path.stat().st_size != known[str(file.path)].n_bytes for file in files):
        return False
    return all(digest_file(file.path) == known[str(file.path)].digest for file in files)
