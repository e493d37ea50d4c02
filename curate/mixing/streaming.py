"""Shards that mosaicml-streaming reads: its MDS format, version 2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from curate.mixing.arrows import staged

COLUMNS = {"id": "str", "source": "str", "text": "str", "tokens": "int"}
"""Column → encoding, in the order of their names, as in every sample."""

BATCH_ROWS = 1024


def write_mds(path: Path, rows: Any) -> None:
    """Write rows as one uncompressed shard.

    The number of samples and where each begins, as uint32, the description as JSON, then the
    samples: the sizes of their three texts as uint32, the texts, the tokens as int64.

    Args:
        path: ends in `.mds`.
        rows: a table of the columns `COLUMNS`.
    """
    head = json.dumps(_description(), sort_keys=True).encode()
    lengths = np.sum([_byte_lengths(rows[name]) for name in ("id", "source", "text")], axis=0)
    sizes = lengths + 3 * 4 + 8
    first = 4 + 4 * (len(rows) + 1) + len(head)
    offsets = np.concatenate([[0], np.cumsum(sizes)]) + first
    with staged(path) as temporary, temporary.open("wb") as stream:
        stream.write(np.uint32(len(rows)).tobytes() + offsets.astype("<u4").tobytes() + head)
        for batch in rows.select(list(COLUMNS)).to_batches(max_chunksize=BATCH_ROWS):
            for name, source, text, tokens in zip(*map(_values, batch.columns), strict=True):
                parts = [name.encode(), source.encode(), text.encode()]
                stream.write(np.array([len(part) for part in parts], "<u4").tobytes())
                stream.writelines([*parts, np.int64(tokens).tobytes()])


def write_mds_index(folder: Path, shards: Sequence[tuple[str, int]]) -> None:
    """Write `index.json` for the shards (name, samples) that lie in `folder`."""
    described = [
        {
            **_description(),
            "raw_data": {"basename": name, "bytes": (folder / name).stat().st_size, "hashes": {}},
            "samples": samples,
            "zip_data": None,
        }
        for name, samples in shards
    ]
    with staged(folder / "index.json") as temporary:
        temporary.write_text(json.dumps({"shards": described, "version": 2}, sort_keys=True))


def _description() -> dict[str, Any]:
    return {
        "column_encodings": list(COLUMNS.values()),
        "column_names": list(COLUMNS),
        "column_sizes": [8 if kind == "int" else None for kind in COLUMNS.values()],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": None,
        "version": 2,
    }


def _byte_lengths(column: Any) -> Any:
    return pc.binary_length(column).to_numpy().astype(np.int64)


def _values(column: Any) -> list[Any]:
    found: list[Any] = column.to_pylist()
    return found
