"""Stage: of very many shards, those that are worth exact alignment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.ranking.index import (
    FIT_ON,
    FREQUENCIES,
    WIDTH,
    Projection,
    fit_projection,
    log_embedding,
    open_faiss,
    shortlist,
    shortlist_by_product,
    stand_ins,
)
from curate.records import Index, Notify
from curate.store.arrays import publish_arrays, read_arrays
from curate.store.fingerprint import fingerprint
from curate.store.meta import is_current, publish_meta

if TYPE_CHECKING:
    from curate.records import Floats

CHUNK = 1_024  # embeddings in memory at a time


def find_candidates(
    index: Index,
    target: Floats,
    *,
    load: Callable[[str], Floats],
    count: int,
    workspace: Path,
    seed: int,
    notify: Notify,
    gpu: str = "",
) -> list[int]:
    """Return the numbers of the `count` shards that the stand-ins put nearest to the target.

    Nearest by the measure `scaled`, and by no other.

    The stand-ins are computed once an index and kept in `workspace/ranking/shortlist` with their
    digest, so that another target reads no embedding but those of its candidates; what was cut
    or changed there is computed again.

    Args:
        index: of the corpus.
        target: (m, dim) sub-batches.
        load: key of a shard → its sub-batches.
        count: candidates, at most.
        workspace: where the stand-ins are kept.
        seed: of the projection and the lists.
        notify: progress.
        gpu: torch's name of one, that compares all stand-ins; "" leaves it to FAISS.
    """
    folder = workspace / "ranking" / "shortlist"
    key = fingerprint(
        index=index.fingerprint, width=WIDTH, fit_on=FIT_ON, frequencies=FREQUENCIES, seed=seed
    )
    path = folder / "stand_ins.safetensors"
    if is_current(folder, kind="shortlist", fingerprint=key):
        tensors = read_arrays(path)[0]
    else:
        tensors = _compute(index, load, seed, notify)
        publish_arrays(path, tensors)
        publish_meta(folder, kind="shortlist", fingerprint=key, files=[path.name], body={})
    projection = Projection(frequencies=tensors["frequencies"], matrix=tensors["matrix"])
    (query,) = stand_ins(log_embedding(target, blocks=index.blocks)[None], projection)
    vectors = tensors["vectors"]
    if gpu:
        return shortlist_by_product(vectors, query, count=count, device=gpu).tolist()
    found = open_faiss(path.with_suffix(".faiss"), vectors, seed=seed)
    return shortlist(found, query, count=count).tolist()


def _compute(
    index: Index, load: Callable[[str], Floats], seed: int, notify: Notify
) -> dict[str, Any]:
    total = len(index.shards)
    chosen = np.random.default_rng(seed).permutation(total)[:FIT_ON]

    def logs_of(numbers: Sequence[int]) -> Floats:
        keys = (index.shards[number].key for number in numbers)
        return np.stack([log_embedding(load(key), blocks=index.blocks) for key in keys])

    projection = fit_projection(logs_of(np.sort(chosen).tolist()), seed=seed)
    parts = []
    for start in range(0, total, CHUNK):
        stop = min(start + CHUNK, total)
        parts.append(stand_ins(logs_of(range(start, stop)), projection))
        notify("preparing the shortlist", stop, total)
    return {
        "frequencies": projection.frequencies,
        "matrix": projection.matrix,
        "vectors": np.concatenate(parts),
    }
