"""Embeddings on disk: 16-bit levels of log2 values, checked against a digest when read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from curate.corpus.tokens import DRAW
from curate.errors import CurateError
from curate.records import Embedding, ProbeInfo, RowBlock
from curate.settings import EmbedSettings
from curate.store.arrays import publish_arrays
from curate.store.fingerprint import digest_bytes, digest_file, fingerprint
from curate.store.publish import publish_json, read_json_if_whole
from curate.task2vec.quantity import COINS, CONTRAST

if TYPE_CHECKING:
    from curate.records import Floats

_TOP = 65_535  # highest level


@dataclass(frozen=True, slots=True)
class StoredEmbedding:
    """What lies beside an embedding's arrays; published after them."""

    blake2b: str  # of the arrays' file
    vectors_digest: str  # of the levels: two texts may not share it
    text_digest: str  # of the token blocks that were embedded
    n_sequences: tuple[int, ...]
    loss: float
    vocab: int
    documents: str = ""  # blake2b of the documents' vectors; "" where there are none
    lengths: str = ""  # blake2b of the tokens of each document; "" where there are none


def shard_key(digest: str, settings: EmbedSettings, info: ProbeInfo) -> str:
    """Return the name of an embedding: its text, the probe's bytes and the settings."""
    return fingerprint(
        text=digest,
        embed=replace(settings, probe=""),
        revision=info.revision,
        tokenizer=info.tokenizer_digest,
        contrast=CONTRAST,
        coins=COINS,
        draw=DRAW,
    )


def quantise(
    vectors: Floats, *, stops: Sequence[int]
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Write each row block's log2 values as equal steps between its lowest and its highest.

    The largest relative error is (2^(range / 131,070) − 1): 0.02 % where the values of a
    block span a factor of 2^40. Float16 of the same logarithms would lose up to 0.5 %.

    Args:
        vectors: (n_batches, dim), > 0.
        stops: end of each block, ascending, the last is dim.

    Returns:
        Levels (n_batches, dim), lowest and step (n_batches, n_blocks) of log2.

    Raises:
        ValueError: a value is not finite or not positive.
    """
    if not np.all(np.isfinite(vectors)) or not np.all(vectors > 0):
        raise ValueError("an embedding must be finite and positive")
    logs = np.log2(vectors.astype(np.float64))
    starts = [0, *stops[:-1]]
    low = np.minimum.reduceat(logs, starts, axis=1)
    step = (np.maximum.reduceat(logs, starts, axis=1) - low) / _TOP
    widths = np.diff([0, *stops])
    safe = np.repeat(np.where(step > 0, step, 1.0), widths, axis=1)
    levels = np.rint((logs - np.repeat(low, widths, axis=1)) / safe)
    return levels.astype(np.uint16), low, step


def restore(
    levels: npt.NDArray[np.uint16],
    *,
    low: npt.NDArray[np.float64],
    step: npt.NDArray[np.float64],
    stops: Sequence[int],
) -> npt.NDArray[np.float32]:
    """Return the values of `quantise`, (n_batches, dim) float32."""
    widths = np.diff([0, *stops])
    logs = np.repeat(low, widths, axis=1) + levels * np.repeat(step, widths, axis=1)
    return np.exp2(logs).astype(np.float32)


def write_embedding(
    path: Path,
    embedding: Embedding,
    *,
    blocks: Sequence[RowBlock],
    text_digest: str,
    documents: str = "",
    lengths: str = "",
) -> StoredEmbedding:
    """Publish an embedding at `path` (.safetensors), and what describes it beside it (.json).

    Args:
        path: ends in .safetensors.
        embedding: finite and positive.
        blocks: its coordinates.
        text_digest: of the token blocks that were embedded.
        documents: digest of the documents' vectors, which lie there already.
        lengths: digest of the tokens of each document, which lie there already.

    Raises:
        CurateError: the file system refused.
        ValueError: the embedding is not finite and positive.
    """
    if not (np.isfinite(embedding.hidden).all() and np.isfinite(embedding.loss)):
        raise ValueError("hidden states and loss must be finite")
    stops = [block.stop for block in blocks]
    levels, low, step = quantise(embedding.vectors, stops=stops)
    ids = np.flatnonzero(embedding.unigrams)
    arrays: dict[str, npt.NDArray[Any]] = {
        "levels": levels,
        "low": low,
        "step": step,
        "stops": np.asarray(stops, dtype=np.int64),
        "token_ids": ids.astype(np.int32),
        "token_counts": embedding.unigrams[ids].astype(np.int64),
        "hidden": embedding.hidden.astype(np.float32),
    }
    if embedding.gradients is not None:
        arrays["gradients"] = embedding.gradients.astype(np.float32)
    publish_arrays(path, arrays)
    stored = StoredEmbedding(
        blake2b=digest_file(path),
        vectors_digest=digest_bytes(levels.tobytes() + low.tobytes() + step.tobytes()),
        text_digest=text_digest,
        n_sequences=embedding.n_sequences,
        loss=embedding.loss,
        vocab=len(embedding.unigrams),
        documents=documents,
        lengths=lengths,
    )
    publish_json(path.with_suffix(".json"), stored)
    return stored


def read_embedding(path: Path) -> Embedding:
    """Read an embedding back, after holding its file against its digest.

    Raises:
        CurateError: missing, cut, or changed since it was published.
    """
    stored = _check_arrays(path)
    if stored is None:
        raise CurateError(f"{path}: missing or changed since it was published; run curate index")
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CurateError(f"{path}: cannot be read ({error}); run curate index") from None
    unigrams = np.zeros(stored.vocab, dtype=np.int64)
    unigrams[arrays["token_ids"]] = arrays["token_counts"]
    return Embedding(
        vectors=restore(
            arrays["levels"], low=arrays["low"], step=arrays["step"], stops=arrays["stops"].tolist()
        ),
        n_sequences=stored.n_sequences,
        unigrams=unigrams,
        hidden=arrays["hidden"],
        loss=stored.loss,
        gradients=arrays.get("gradients"),
    )


def check_embedding(path: Path) -> StoredEmbedding | None:
    """Return what describes an embedding, if it and all that lies beside it is there, unchanged."""
    stored = _check_arrays(path)
    if stored is None:
        return None
    if stored.documents and not _is_whole(documents_path(path), stored.documents):
        return None
    if stored.lengths and not _is_whole(lengths_path(path), stored.lengths):
        return None
    return stored


def _check_arrays(path: Path) -> StoredEmbedding | None:
    stored = read_json_if_whole(path.with_suffix(".json"), StoredEmbedding)
    return stored if stored and _is_whole(path, stored.blake2b) else None


def documents_path(path: Path) -> Path:
    """Return where the documents' vectors of the embedding at `path` lie."""
    return path.with_suffix(".documents.parquet")


def lengths_path(path: Path) -> Path:
    """Return where the tokens of each document of the embedding at `path` lie."""
    return path.with_suffix(".lengths.npy")


def _is_whole(path: Path, digest: str) -> bool:
    return path.is_file() and digest_file(path) == digest
