"""Stage: every shard to its embedding, each done once."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.corpus.copies import refresh_remote
from curate.corpus.inputs import InputFile, find_inputs
from curate.corpus.reader import disk_refused
from curate.corpus.regroup import Corpus, drop_old_groups, groups_are_whole, open_corpus
from curate.corpus.shards import read_shards
from curate.corpus.tokens import draw_batches
from curate.errors import CurateError
from curate.records import (
    Embedding,
    FileLedger,
    Index,
    IndexedShard,
    Notify,
    ProbeInfo,
    RowBlock,
    ShardText,
    Target,
    silent,
)
from curate.settings import CorpusSettings, EmbedSettings
from curate.store.fingerprint import digest_bytes, digest_file, fingerprint
from curate.store.lock import locked
from curate.store.publish import (
    publish_bytes,
    publish_meta,
    read_json_if_whole,
    read_meta,
    sweep,
)
from curate.task2vec.documents import DocumentVectors, read_documents, write_documents
from curate.task2vec.embedding import check_probe, embed_parts, embed_texts, whole_batches
from curate.task2vec.probe import Probe, encode_texts, find_revision, load_probe
from curate.task2vec.quantity import CONTRAST
from curate.task2vec.vectors import (
    StoredEmbedding,
    check_embedding,
    documents_path,
    read_embedding,
    write_embedding,
)
from curate.task2vec.vectors import lengths_path as counts_path

if TYPE_CHECKING:
    from curate.records import Counts

__all__ = ["build_index", "embed_target", "embed_texts", "index_is_current", "open_index"]


def build_index(
    corpus: CorpusSettings,
    embed: EmbedSettings,
    *,
    workspace: Path,
    device: str = "auto",
    notify: Notify = silent,
) -> Index:
    """Embed every shard of a corpus and publish `workspace/index`.

    A shard whose embedding is published under its content key is not embedded again, so the
    same command resumes, and one changed shard costs one shard.

    Args:
        corpus: which documents, and how they are cut into shards.
        embed: what the embedding is.
        workspace: folder for everything that is published.
        device: auto, cpu or cuda.
        notify: told the tokens done; their total is not known before the end.

    Raises:
        CurateError: no documents, a probe that cannot be had or used, a lock, a full disk.
    """
    folder = workspace / "index"
    with locked(folder, notify=notify):
        sweep(folder)
        refresh_remote(corpus.inputs, workspace=workspace, notify=notify)
        if index_is_current(corpus, embed, workspace):
            return open_index(workspace)
        opened = open_corpus(corpus, workspace=workspace, notify=notify)
        probe = load_probe(embed.probe, device=device)
        blocks = check_probe(probe, embed)
        ledgers: list[FileLedger] = []
        shards: list[IndexedShard] = []
        owners: dict[str, tuple[str, StoredEmbedding]] = {}
        done = 0
        for text in read_shards(
            opened.files,
            corpus,
            encode=lambda texts: encode_texts(probe, texts),
            ledgers=ledgers,
            grouped=opened.ledgers,
            notify=notify,
        ):
            key = _shard_key(text.shard.digest, embed, probe.info)
            path = folder / "shards" / f"{key}.safetensors"
            stored = check_embedding(path) or _embed_shard(text, probe, embed, path)
            _check_distinct(text.shard.name, stored, owners)
            shards.append(IndexedShard(text.shard, key))
            done += text.shard.n_tokens
            notify("embedding", done, 0)
        if not shards:
            raise CurateError(
                f"{', '.join(corpus.inputs)}: no document in it; check the text setting "
                f"({corpus.text})"
            )
        found = _publish(folder, shards, probe.info, blocks, corpus, embed, ledgers, opened)
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
    except CurateError:
        return False
    paths = {folder / "shards" / f"{shard.key}.safetensors" for shard in index.shards}
    if not all(check_embedding(path) for path in paths):
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
    key = _shard_key(target.select_digest, index.embed, index.probe)
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
        found, _ = embed_parts(f"target {target.name}", parts, tokens, probe, index.embed)
        write_embedding(path, found, blocks=index.blocks, text_digest=_digest_parts(parts))
    return read_embedding(path)


def _embed_shard(
    text: ShardText, probe: Probe, settings: EmbedSettings, path: Path
) -> StoredEmbedding:
    what = f"shard {text.shard.name}"
    parts, owners = _draw_owned(text.tokens, settings)
    found, documents = embed_parts(
        what, parts, text.tokens, probe, settings, owners=owners if settings.documents else None
    )
    digest = write_documents(documents_path(path), documents) if documents else ""
    return write_embedding(
        path,
        found,
        blocks=check_probe(probe, settings),
        text_digest=_digest_parts(parts),
        documents=digest,
        lengths=_publish_lengths(counts_path(path), text.tokens),
    )


def _publish_lengths(path: Path, tokens: Sequence[Counts]) -> str:
    """Keep the tokens of each document, so that no later stage counts again; return the digest."""
    stream = io.BytesIO()
    np.save(stream, np.array([len(ids) for ids in tokens], np.int32), allow_pickle=False)
    publish_bytes(path, stream.getvalue())
    return digest_bytes(stream.getvalue())


def _draw_owned(
    tokens: Sequence[Counts], settings: EmbedSettings
) -> tuple[list[list[Counts]], list[list[int]]]:
    """Draw the sub-batches of a shard, and say of which document each sequence is."""
    stops = np.cumsum([len(ids) for ids in tokens])
    drawn = draw_batches(  # of places in the shard, from which both follow
        np.split(np.arange(stops[-1]), stops[:-1]),
        batches=settings.batches,
        batch_tokens=settings.batch_tokens,
        block_tokens=settings.block_tokens,
        seed=settings.seed,
    )
    flat = np.concatenate([np.asarray(ids) for ids in tokens])
    owners = [[int(np.searchsorted(stops, b[0], side="right")) for b in part] for part in drawn]
    return [[flat[block] for block in part] for part in drawn], owners


def _shard_key(digest: str, settings: EmbedSettings, info: ProbeInfo) -> str:
    """Return the name of an embedding: its text, the probe's bytes and the settings."""
    return fingerprint(
        text=digest,
        embed=dataclasses.replace(settings, probe=""),
        revision=info.revision,
        tokenizer=info.tokenizer_digest,
        contrast=CONTRAST,
    )


def _digest_parts(parts: Sequence[Sequence[Counts]]) -> str:
    return fingerprint(parts=[[block.tolist() for block in part] for part in parts])


def _check_distinct(
    name: str, stored: StoredEmbedding, owners: dict[str, tuple[str, StoredEmbedding]]
) -> None:
    owner, other = owners.setdefault(stored.vectors_digest, (name, stored))
    if other.text_digest != stored.text_digest:
        raise CurateError(
            f"shards {owner} and {name}: different text, identical embedding; this probe does "
            "not tell text apart"
        )


def _inputs_unchanged(files: Sequence[InputFile], ledgers: Sequence[FileLedger]) -> bool:
    known = {ledger.path: ledger for ledger in ledgers}
    if {str(file.path) for file in files} != set(known):
        return False
    if any(file.path.stat().st_size != known[str(file.path)].n_bytes for file in files):
        return False
    return all(digest_file(file.path) == known[str(file.path)].digest for file in files)


def _publish(
    folder: Path,
    shards: Sequence[IndexedShard],
    info: ProbeInfo,
    blocks: tuple[RowBlock, ...],
    corpus: CorpusSettings,
    embed: EmbedSettings,
    ledgers: Sequence[FileLedger],
    opened: Corpus,
) -> Index:
    """Publish `meta.json`, last of all."""
    ordered = tuple(sorted(ledgers, key=lambda ledger: ledger.path))
    mark = fingerprint(
        shards=list(shards), probe=info, corpus=corpus, embed=embed, ledgers=list(ordered)
    )
    index = Index("", mark, tuple(shards), info, blocks, corpus, embed, ordered, opened.groups)
    ends = [
        ".safetensors",
        ".json",
        ".lengths.npy",
        *([".documents.parquet"] if embed.documents else []),
    ]
    files = sorted({f"shards/{s.key}{end}" for s in shards for end in ends})
    publish_meta(folder, kind="index", fingerprint=mark, files=files, body=index)
    return dataclasses.replace(index, folder=str(folder))
