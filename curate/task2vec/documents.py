"""A short vector for every embedded document, from the pass that embeds its shard."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from curate.store.fingerprint import digest_bytes
from curate.store.publish import publish_bytes
from curate.task2vec.fisher import SequenceRows
from curate.task2vec.sketch import Projection, project_rows


@dataclass(frozen=True, slots=True, eq=False)
class DocumentVectors:
    """A short vector for each document that was embedded."""

    documents: npt.NDArray[np.int32]  # (n,) its number in the shard, from 0, ascending
    tokens: npt.NDArray[np.int32]  # (n,) of it that were embedded
    vectors: npt.NDArray[np.float16]  # (n, width)


@dataclass(frozen=True, slots=True, eq=False)
class Gathering:
    """What is gathered while the sequences of a shard pass by."""

    projection: Projection
    owner: tuple[int, ...]  # document of each sequence
    lengths: tuple[int, ...]  # tokens of each sequence
    which: list[int] = field(default_factory=list)
    parts: list[Tensor] = field(default_factory=list)  # (n, width) each, in that order


def gather(gathering: Gathering, part: SequenceRows) -> None:
    """Project the rows of a micro-batch and keep them."""
    gathering.which.extend(part.which)
    gathering.parts.append(project_rows(gathering.projection, part.rows))


def gathered(gathering: Gathering) -> DocumentVectors:
    """Return each document's mean over its sequences, by their tokens."""
    owner = np.array(gathering.owner)[gathering.which]
    weight = np.array(gathering.lengths, np.float32)[gathering.which]
    documents, row = np.unique(owner, return_inverse=True)
    values = torch.cat(gathering.parts).cpu().numpy()
    sums = np.zeros((len(documents), values.shape[1]), np.float32)
    np.add.at(sums, row, values * weight[:, None])
    tokens = np.bincount(row, weights=weight)
    vectors = sums / tokens[:, None]
    return DocumentVectors(
        documents.astype(np.int32), tokens.astype(np.int32), vectors.astype(np.float16)
    )


def write_documents(path: Path, found: DocumentVectors) -> str:
    """Publish the vectors as parquet (columns document, tokens, vector); return its digest."""
    width = found.vectors.shape[1]
    values = pa.array(found.vectors.ravel())
    table = pa.table(
        {
            "document": pa.array(found.documents),
            "tokens": pa.array(found.tokens),
            "vector": pa.FixedSizeListArray.from_arrays(values, width),
        }
    )
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
    data = stream.getvalue().to_pybytes()
    publish_bytes(path, data)
    return digest_bytes(data)
