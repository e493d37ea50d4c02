"""Embeddings on disk: a file a shard, 16-bit levels of log2 values, held against its digests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.corpus.pairs import Pairs
from curate.corpus.tokens import DRAW
from curate.errors import CurateError
from curate.records import Embedding, ProbeInfo, RowBlock
from curate.settings import EmbedSettings
from curate.store.arrays import find_arrays, publish_arrays
from curate.store.fingerprint import digest_bytes, digest_file, fingerprint
from curate.task2vec.quantity import COINS, CONTRAST

if TYPE_CHECKING:
    from curate.records import Counts, Floats

LAYOUT = 3
"""State of what the file of an embedding holds, a part of its key: raise it with any change."""

_Arrays = dict[str, npt.NDArray[Any]]
_TOP = 65_535  # highest level
_UNIGRAMS = ("token_ids", "token_counts")
_EMBEDDING = ("levels", "low", "step", "stops", *_UNIGRAMS, "hidden", "gradients")
_LENGTHS = "document_tokens"
_PAIRS = "pairs"
_COLUMNS = ("before", "after", "counts")  # of token pairs
_NOTHING = np.zeros(0, np.uint8)
NO_PAIRS = Pairs(_NOTHING, _NOTHING, _NOTHING, by_document=0)
_PACKED = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=3))


@dataclass(frozen=True, slots=True)
class StoredEmbedding:
    """What describes an embedding: the note of its file."""

    vectors_digest: str  # of the levels: two texts may not share it
    text_digest: str  # of the token blocks that were embedded
    n_sequences: tuple[int, ...]
    loss: float
    vocab: int
    documents: str = ""  # blake2b of the documents' vectors beside it; "" where there are none


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
        layout=LAYOUT,
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
    lengths: Sequence[int] | Counts = (),
    pairs: npt.NDArray[np.uint8] | None = None,
) -> StoredEmbedding:
    """Publish an embedding, what describes it, and what else later stages ask for: one file.

    Args:
        path: ends in .safetensors.
        embedding: finite and positive.
        blocks: its coordinates.
        text_digest: of the token blocks that were embedded.
        documents: digest of the documents' vectors, which lie beside it already.
        lengths: (n_documents,) tokens of each document of a shard.
        pairs: the token pairs of a shard, packed.

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
        "gradients": np.asarray(
            np.zeros((0, 0)) if embedding.gradients is None else embedding.gradients, np.float32
        ),
        _LENGTHS: np.asarray(lengths, dtype=np.int32),
        _PAIRS: pack_pairs(NO_PAIRS) if pairs is None else pairs,
    }
    stored = StoredEmbedding(
        vectors_digest=digest_bytes(levels.tobytes() + low.tobytes() + step.tobytes()),
        text_digest=text_digest,
        n_sequences=embedding.n_sequences,
        loss=embedding.loss,
        vocab=len(embedding.unigrams),
        documents=documents,
    )
    publish_arrays(path, arrays, note=msgspec.json.encode(stored).decode())
    return stored


def read_embedding(path: Path) -> Embedding:
    """Read an embedding back, its arrays held against their digests.

    Raises:
        CurateError: missing, cut, or changed since it was published.
    """
    arrays, stored = _read(path, _EMBEDDING)
    return Embedding(
        vectors=restore(
            arrays["levels"], low=arrays["low"], step=arrays["step"], stops=arrays["stops"].tolist()
        ),
        n_sequences=stored.n_sequences,
        unigrams=_dense(arrays, stored.vocab),
        hidden=arrays["hidden"],
        loss=stored.loss,
        gradients=arrays["gradients"] if arrays["gradients"].size else None,
    )


def read_unigrams(path: Path) -> Counts:
    """Read only the token counts (vocab,) of an embedding, and hold only them against a digest.

    Raises:
        CurateError: as `read_embedding`.
    """
    arrays, stored = _read(path, _UNIGRAMS)
    return _dense(arrays, stored.vocab)


def pack_pairs(pairs: Pairs) -> npt.NDArray[np.uint8]:
    """Return token pairs as an Arrow stream, compressed: about 2 bytes a different pair."""
    note = {"by_document": str(pairs.by_document)}
    batch = pa.record_batch({name: getattr(pairs, name) for name in _COLUMNS}, metadata=note)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_PACKED) as stream:
        stream.write_batch(batch)
    return np.frombuffer(sink.getvalue(), np.uint8)


def read_pairs(path: Path) -> Pairs:
    """Read only the token pairs of a shard's embedding.

    Raises:
        CurateError: as `read_embedding`.
    """
    packed = _read(path, (_PAIRS,))[0][_PAIRS]
    with pa.ipc.open_stream(pa.py_buffer(packed)) as stream:
        batch = stream.read_next_batch()
    by_document = int(batch.schema.metadata[b"by_document"])
    before, after, counts = (batch[name].to_numpy() for name in _COLUMNS)
    return Pairs(before, after, counts, by_document)


def read_lengths(path: Path) -> Counts:
    """Read only the tokens of each document, (n_documents,) int32, in the order of the shard.

    Raises:
        CurateError: as `read_embedding`.
    """
    return _read(path, (_LENGTHS,))[0][_LENGTHS]


def read_stored(path: Path) -> StoredEmbedding | None:
    """Read what describes an embedding; None where it is missing or not what was published."""
    found = _find(path, ())
    return found[1] if found else None


def check_embedding(path: Path) -> StoredEmbedding | None:
    """Return what describes an embedding, if it and what lies beside it is there, unchanged."""
    found = _find(path)
    if found is None:
        return None
    stored = found[1]
    beside = documents_path(path)
    if stored.documents and not (beside.is_file() and digest_file(beside) == stored.documents):
        return None
    return stored


def documents_path(path: Path) -> Path:
    """Return where the documents' vectors of the embedding at `path` lie."""
    return path.with_suffix(".documents.parquet")


def _dense(arrays: _Arrays, vocab: int) -> Counts:
    unigrams = np.zeros(vocab, dtype=np.int64)
    unigrams[arrays["token_ids"]] = arrays["token_counts"]
    return unigrams


def _read(path: Path, names: Collection[str] | None = None) -> tuple[_Arrays, StoredEmbedding]:
    found = _find(path, names)
    if found is None:
        raise CurateError(f"{path}: missing or changed since it was published; run curate index")
    return found


def _find(
    path: Path, names: Collection[str] | None = None
) -> tuple[_Arrays, StoredEmbedding] | None:
    found = find_arrays(path, names)
    if found is None:
        return None
    try:
        return found[0], msgspec.json.decode(found[1], type=StoredEmbedding)
    except (msgspec.DecodeError, msgspec.ValidationError):  # whole, of another version
        return None
