"""The shortlist: FAISS over stand-ins whose inner product orders shards as alignment does.

The measure `scaled` normalises each pair, so no index can hold it. But with t = (a-b)/(a+b) =
tanh(u/2), u = log a - log b, it falls with mean t², and 1 - t² = sech²(u/2) is a positive
definite function of a difference: an inner product of features (Rahimi and Recht, 2007). With
frequencies for each coordinate, drawn from its spectrum, the cosines and sines of the log embedding
have unit length and an inner product that estimates mean (1 - t²). They are then projected to
a width that an index can hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from curate.ranking.prepared import prepare
from curate.records import RowBlock
from curate.store.fingerprint import digest_bytes
from curate.store.publish import publish_bytes

if TYPE_CHECKING:
    from curate.records import Counts, Floats

WIDTH = 128  # of a stand-in
FIT_ON = 1_024  # embeddings that the projection is fitted on, at most
FLAT_UP_TO = 100_000  # stand-ins; above it an inverted file
FREQUENCIES = 4_096  # at least: with 512, recall was 0.93 on the spectrum of real embeddings
PRODUCT_ROWS = 1 << 20  # stand-ins on a GPU at a time: 512 MB
PROBED = 0.25  # share of the lists that a query reads; chosen on synthetic embeddings

Kind = Literal["flat", "ivf"]


@dataclass(frozen=True, slots=True)
class Projection:
    """From an embedding to its stand-in."""

    frequencies: Floats  # (k, dim) float32: k to a coordinate
    matrix: Floats  # (2 · k · dim, width) float32, orthonormal columns


def log_embedding(stack: Floats, *, blocks: Sequence[RowBlock] = ()) -> Floats:
    """Return the log of an embedding normalised as for `scaled`, (dim,) float32."""
    return np.log(prepare(stack, measure="scaled", blocks=blocks).mean[0]).astype(np.float32)


def draw_frequencies(dim: int, *, seed: int) -> Floats:
    """Draw frequencies from the spectrum of sech²(u/2), (k, dim) float32.

    sech²(u/2) is four times the density of the logistic distribution, whose characteristic
    function is πw/sinh(πw); the kernel's spectrum is that function, normalised. Drawn by the
    inverse of its distribution on a grid. k is 1 for embeddings of `FREQUENCIES` coordinates or
    more: the error of the kernel falls with the root of their number in all.
    """
    grid = np.linspace(1e-6, 6.0, 20_001)
    density = grid / np.sinh(np.pi * grid)
    total = np.cumsum(density)
    shape = (-(-FREQUENCIES // dim), dim)
    drawn = np.interp(np.random.default_rng(seed).random(shape), total / total[-1], grid)
    return drawn.astype(np.float32)


def features(logs: Floats, frequencies: Floats) -> Floats:
    """Return unit features (n, 2 · k · dim) of log embeddings (n, dim).

    The inner product of two rows estimates mean (1 - t²), 0 to 1.
    """
    angle = (logs[:, None, :] * frequencies).reshape(len(logs), -1)
    return np.asarray(
        np.concatenate([np.cos(angle), np.sin(angle)], axis=1) / np.sqrt(len(angle.T))
    )


def fit_projection(logs: Floats, *, width: int = WIDTH, seed: int = 0) -> Projection:
    """Fit the projection on embeddings of the corpus: the directions in which it varies most.

    Principal directions about the origin, because it is inner products that have to survive;
    with no more embeddings than `width` they survive exactly. Recall was measured
    with these directions; a random projection was not tried.

    Args:
        logs: (n, dim) of `log_embedding`; more than `FIT_ON` are thinned by the seed.
        width: columns, at most n.
        seed: of the frequencies and the thinning.

    Raises:
        ValueError: no embedding.
    """
    if logs.ndim != 2 or not len(logs):
        raise ValueError(f"log embeddings are (n, dim), not {logs.shape}")
    if len(logs) > FIT_ON:
        chosen = np.random.default_rng(seed).choice(len(logs), FIT_ON, replace=False)
        logs = logs[np.sort(chosen)]
    frequencies = draw_frequencies(logs.shape[1], seed=seed)
    rows = features(logs, frequencies)
    power, directions = np.linalg.eigh((rows @ rows.T).astype(np.float64))
    keep = np.flatnonzero(power > power[-1] * 1e-9)[::-1][:width]
    matrix = rows.T @ (directions[:, keep] / np.sqrt(power[keep])).astype(np.float32)
    return Projection(frequencies=frequencies, matrix=np.asarray(matrix, dtype=np.float32))


def stand_ins(logs: Floats, projection: Projection) -> Floats:
    """Return stand-ins (n, width) float32 of log embeddings (n, dim)."""
    rows = features(np.asarray(logs, np.float32), projection.frequencies) @ projection.matrix
    return np.ascontiguousarray(rows, dtype=np.float32)


def index_kind(count: int) -> Kind:
    """Return what holds `count` stand-ins: all compared up to 100,000, lists beyond."""
    return "flat" if count <= FLAT_UP_TO else "ivf"


def build_faiss(vectors: Floats, *, kind: Kind | None = None, seed: int = 0) -> Any:
    """Return a FAISS index of stand-ins by inner product.

    Args:
        vectors: (n, width) float32.
        kind: None chooses by size.
        seed: of the lists' centres.

    Raises:
        ValueError: not a matrix of finite numbers.
    """
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ValueError("stand-ins are a matrix of finite numbers")
    import faiss

    count, width = vectors.shape
    if (kind or index_kind(count)) == "flat":
        index: Any = faiss.IndexFlatIP(width)
    else:
        lists = max(1, min(int(2 * np.sqrt(count)), count // 39))  # 39 points a centre: FAISS
        quantizer = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFFlat(quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.niter = seed + 1, 8
        index.cp.max_points_per_centroid = 64
        chosen = np.random.default_rng(seed).permutation(count)[: 64 * lists]
        index.train(np.ascontiguousarray(vectors[np.sort(chosen)]))
        index.nprobe = max(1, int(np.ceil(PROBED * lists)))
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    return index


def shortlist(index: Any, query: Floats, *, count: int) -> Counts:
    """Return the numbers of the `count` shards nearest to a stand-in (width,), best first."""
    _, found = index.search(query.reshape(1, -1).astype(np.float32), min(count, index.ntotal))
    return np.asarray(found[0][found[0] >= 0])


def shortlist_by_product(vectors: Floats, query: Floats, *, count: int, device: str) -> Counts:
    """Return what `shortlist` does by one matrix product on a torch device.

    No list is passed over and nothing has to be built first. The device holds `PRODUCT_ROWS`
    stand-ins at a time; how many does not matter.

    Args:
        vectors: (n, width) float32.
        query: (width,).
        count: shards, at most.
        device: as torch names it.
    """
    import torch

    wanted = torch.from_numpy(query.astype(np.float32)).to(device)
    products = [
        (torch.from_numpy(vectors[start : start + PRODUCT_ROWS]).to(device) @ wanted).cpu().numpy()
        for start in range(0, len(vectors), PRODUCT_ROWS)
    ]
    return np.argsort(-np.concatenate(products), kind="stable")[:count]


def find_gpu(device: str) -> str:
    """Return torch's name of the GPU that a device is, as `find_device` finds it; "" if none."""
    if device == "cpu":
        return ""
    from curate.task2vec.probe import find_device  # loads torch, unnoticed among so many shards

    place = find_device(device)
    return str(place) if place.type == "cuda" else ""


def open_faiss(path: Path, vectors: Floats, *, seed: int = 0) -> Any:
    """Read the cached FAISS index of these stand-ins; build and cache it where it is not theirs.

    The name beside `path` carries the digest of the vectors and of the FAISS file: a file that
    was changed, cut, or made from other vectors is rebuilt, never trusted.
    """
    import faiss

    mark = path.with_suffix(".digest")
    wanted = digest_bytes(
        np.ascontiguousarray(vectors).tobytes() + f"{vectors.shape}{seed}".encode()
    )
    if path.is_file() and mark.is_file():
        data = path.read_bytes()
        if mark.read_bytes() == f"{wanted} {digest_bytes(data)}\n".encode():
            return faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
    index = build_faiss(vectors, seed=seed)
    data = faiss.serialize_index(index).tobytes()
    publish_bytes(path, data)
    publish_bytes(mark, f"{wanted} {digest_bytes(data)}\n".encode())
    return index
