"""Shortlist of many shards: recall of the exact top 100, time of a query, memory.

Embeddings are synthetic. With --data DIR their mean and covariance are those of real ones: pieces
of 1,024 tokens of DIR/corpora/*.jsonl.zst, embedded by the built-in probe, `--dim` of their
coordinates. Without, factors have a power that falls by an assumed law (rank to the -0.7), with
noise of each shard's own. None is kept: a chunk of them is drawn, turned into stand-ins and
compared exactly.
Run: python benchmarks/index.py --shards 100000 --data DIR --json
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from evidence.estimators import ROW, load_domains

from curate.ranking.alignment import align_all
from curate.ranking.index import (
    FIT_ON,
    build_faiss,
    fit_projection,
    index_kind,
    log_embedding,
    shortlist,
    stand_ins,
)
from curate.records import Embedding, RowBlock
from curate.task2vec.fisher import fisher_rows
from curate.task2vec.probe import load_probe
from curate.task2vec.vectors import read_embedding, write_embedding

CHUNK = 4_096
FACTORS = 48
SHORTLIST = 1_000
TOP = 100
TIMED = 200  # queries
PIECE = 1_024  # tokens of a real embedding
PIECES = 10  # of each corpus, at most


@dataclass(frozen=True, slots=True)
class World:
    """Where embeddings are drawn from: log embedding = mean + latent @ loadings + own noise."""

    mean: np.ndarray  # (dim,) float32
    loadings: np.ndarray  # (r, dim) float32: r latent numbers of unit variance
    own: float  # standard deviation of each coordinate's own noise


def assumed_world(dim: int) -> World:
    """Return factors whose power falls as rank to the -0.7."""
    drawn = np.random.default_rng(3).standard_normal((FACTORS, dim), dtype=np.float32)
    power = np.arange(1, FACTORS + 1, dtype=np.float32) ** -0.7
    loadings = 0.35 * power[:, None] * drawn
    return World(np.zeros(dim, np.float32), loadings.astype(np.float32), own=0.1)


def real_world(data: Path, dim: int) -> World:
    """Return mean and principal directions of the log embeddings of real text."""
    probe = load_probe("builtin", device="cpu")
    rows, groups = [], []
    per_piece = PIECE // ROW
    for blocks in load_domains(data, probe, most=100, tokens=PIECE * PIECES).values():
        count = min(len(blocks) // per_piece, PIECES)
        first = groups[-1] + 1 if groups else 0
        rows += blocks[: count * per_piece]
        groups += np.repeat(np.arange(first, first + count), per_piece).tolist()
    found = fisher_rows(probe.model, rows, groups=groups)
    values = np.maximum(found.values, np.finfo(np.float32).tiny)
    logs = np.stack([log_embedding(row[None], blocks=found.blocks) for row in values])
    chosen = np.random.default_rng(4).permutation(logs.shape[1])[:dim]
    logs = logs[:, np.sort(chosen)]
    mean = logs.mean(axis=0)
    _, sizes, directions = np.linalg.svd(logs - mean, full_matrices=False)
    loadings = (sizes[:-1, None] / np.sqrt(len(logs) - 1)) * directions[:-1]
    return World(mean, loadings.astype(np.float32), own=0.0)


def draw_logs(number: int, rows: int, world: World) -> np.ndarray:
    """Return log embeddings (rows, dim) float32 of one chunk, mean 1."""
    generator = np.random.default_rng([7, number])
    latent = generator.standard_normal((rows, len(world.loadings)), dtype=np.float32)
    logs = world.mean + latent @ world.loadings
    if world.own:
        logs += world.own * generator.standard_normal(logs.shape, dtype=np.float32)
    return logs - np.log(np.exp(logs).mean(axis=1, keepdims=True))


def chunks(shards: int, world: World) -> Iterator[np.ndarray]:
    """Yield all log embeddings, a chunk at a time."""
    for number, start in enumerate(range(0, shards, CHUNK)):
        yield draw_logs(number, min(CHUNK, shards - start), world)


def align_plain(query: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Return the measure `scaled` of one log embedding with many, (rows,)."""
    t = np.tanh((query - logs) / 2)
    first = t.mean(axis=1)
    second = np.einsum("rd,rd->r", t, t) / t.shape[1]
    return (1 - second) / np.sqrt((1 + second) ** 2 - 4 * first**2)


def rescore(target: np.ndarray, logs: np.ndarray) -> tuple[float, float]:
    """Return wall and processor seconds to read the shortlist's embeddings and align them."""
    generator = np.random.default_rng(5)
    blocks = (RowBlock("all", 0, "all", 0, len(target)),)

    def stack(row: np.ndarray) -> np.ndarray:
        return (np.exp(row) * generator.gamma(50, 1 / 50, size=(4, len(row)))).astype(np.float32)

    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{number}.safetensors" for number in range(len(logs))]
        for path, row in zip(paths, logs, strict=True):
            found = Embedding(stack(row), (9,) * 4, np.ones(4_096, int), stack(row)[:, :192], 3.0)
            write_embedding(path, found, blocks=blocks, text_digest=path.name)
        began, cpu = time.perf_counter(), time.process_time()
        align_all(stack(target), (read_embedding(path).vectors for path in paths), blocks=blocks)
        return time.perf_counter() - began, time.process_time() - cpu


def measure(shards: int, dim: int, queries: int, data: Path | None) -> dict[str, float | int | str]:
    """Return recall, milliseconds, seconds and megabytes for one corpus size."""
    world = real_world(data, dim) if data else assumed_world(dim)
    dim = len(world.mean)
    # Of a chunk that no corpus reaches; all are timed, the first have the exact answer to hold to.
    timed = draw_logs(10**6, max(queries, TIMED), world)
    targets = timed[:queries]

    projection = fit_projection(draw_logs(0, min(FIT_ON, shards), world))
    vectors = np.empty((shards, projection.matrix.shape[1]), dtype=np.float32)
    best = np.full((queries, TOP), -1)
    values = np.full((queries, TOP), -np.inf)
    start = 0
    for logs in chunks(shards, world):
        vectors[start : start + len(logs)] = stand_ins(logs, projection)
        for row, target in enumerate(targets):
            found = align_plain(target, logs)
            both = np.concatenate([values[row], found])
            names = np.concatenate([best[row], start + np.arange(len(found))])
            kept = np.argsort(-both)[:TOP]
            best[row], values[row] = names[kept], both[kept]
        start += len(logs)

    began = time.perf_counter()
    index = build_faiss(vectors)
    build_s = time.perf_counter() - began
    times, recalls = [], []
    for row, target in enumerate(timed):
        began = time.perf_counter()
        found = shortlist(index, stand_ins(target[None], projection)[0], count=SHORTLIST)
        times.append(1e3 * (time.perf_counter() - began))
        if row < queries:
            recalls.append(float(np.isin(best[row][best[row] >= 0], found).mean()))
    rescore_s, rescore_cpu_s = rescore(targets[0], draw_logs(0, min(SHORTLIST, shards), world))
    return {
        "shards": shards,
        "dim": dim,
        "factors": len(world.loadings),
        "spectrum": "real" if data else "assumed",
        "width": vectors.shape[1],
        "kind": index_kind(shards),
        "queries": queries,
        "shortlist": SHORTLIST,
        "recall_at_100": round(float(np.mean(recalls)), 4),
        "lowest_recall": round(float(np.min(recalls)), 4),
        "p50_ms": round(float(np.percentile(times, 50)), 2),
        "p99_ms": round(float(np.percentile(times, 99)), 2),
        "rescore_s": round(rescore_s, 2),
        "rescore_cpu_s": round(rescore_cpu_s, 2),
        "build_s": round(build_s, 1),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1_024, help="coordinates of an embedding")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--data", type=Path, help="folder whose corpora/*.jsonl.zst are embedded")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    arguments = parser.parse_args()
    found = measure(arguments.shards, arguments.dim, arguments.queries, arguments.data)
    if arguments.json:
        print(json.dumps(found))
    else:
        print("  ".join(f"{name} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
