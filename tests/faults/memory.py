"""A GPU without memory, numbers that are none, and very many shards."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.world import World, make_probe, make_texts, run_forked

MESSAGES = (
    ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
    ("RuntimeError", "CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
    ("RuntimeError", "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 1.00 GiB total)"),
    ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ("RuntimeError", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ("RuntimeError", "NVML_SUCCESS == DriverAPI::get()->nvmlInit_v2_() INTERNAL ASSERT FAILED"),
    ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ("RuntimeError", "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    ("RuntimeError", "HIP out of memory. Tried to allocate 2.00 GiB"),
    ("MemoryError", "Unable to allocate 2.00 GiB for an array"),
)
"""How torch, its libraries and NumPy say that there is no memory."""


def run_out_of_memory(world: World, *, trials: int) -> dict[str, Any]:
    """Let every batch above a size fail for lack of memory: the ranking stays the same."""
    failures: list[str] = []
    wanted = _ranking(world.oracle["rank"])
    halved = 0
    for number in range(trials):
        kind, message = MESSAGES[number % len(MESSAGES)]
        most = (1, 2, 3, 5)[number // len(MESSAGES) % 4]
        world.restore("index")
        for stage in ("index", "rank"):
            ended = world.run(
                stage,
                before=lambda k=kind, m=message, n=most: _limit_batches(k, m, n),
                tell=lambda: {"halved": _limit_batches.halved},  # type: ignore[attr-defined]
            )
            halved += ended.counts.get("halved", 0)
            if ended.code != 0:
                failures.append(f"{message[:40]}: {stage} exit {ended.code} {ended.err[-400:]}")
        found = _ranking({".curate/ranking/docs-task2vec/ranking.json": _read_ranking(world)})
        if [name for name, _ in found] != [name for name, _ in wanted]:
            failures.append(f"{message[:40]}, at most {most}: another order")
        gaps = (abs(a - b) for (_, a), (_, b) in zip(found, wanted, strict=False))
        gap = max(gaps, default=0.0)
        if gap > 1e-4:
            failures.append(f"{message[:40]}, at most {most}: alignments differ by {gap:.1e}")
    if not halved:
        failures.append("no batch was ever halved")
    return {"trials": trials, "messages": len(MESSAGES), "halved": halved, "failures": failures}


def _limit_batches(kind: str, message: str, most: int) -> None:
    """In a child: fail every pass of more than `most` sequences."""
    import torch

    from curate.task2vec import fisher

    real = fisher.pass_and_back
    error = {"OutOfMemoryError": torch.OutOfMemoryError, "RuntimeError": RuntimeError,
             "MemoryError": MemoryError}[kind]  # fmt: skip
    _limit_batches.halved = 0  # type: ignore[attr-defined]

    def limited(model: Any, sites: Any, sequences: Any, **rest: Any) -> Any:
        if len(sequences) > most:
            _limit_batches.halved += 1  # type: ignore[attr-defined]
            raise error(message)
        return real(model, sites, sequences, **rest)

    fisher.pass_and_back = limited


def _read_ranking(world: World) -> bytes:
    path = world.home / ".curate/ranking/docs-task2vec/ranking.json"
    return path.read_bytes() if path.is_file() else b'{"shards": []}'


def _ranking(found: dict[str, Any]) -> list[tuple[str, float]]:
    lines = json.loads(found[".curate/ranking/docs-task2vec/ranking.json"])["shards"]
    return [(line["shard"], line["alignment"]) for line in lines]


def poison(world: World, *, trials: int) -> dict[str, Any]:
    """Let the model give NaN or infinity, once or from then on: nothing of it is published.

    Once is mended by trying the shard again; what lasts leaves shards out by name (exit code 3),
    or all of them (1).
    """
    failures = []
    for number in range(trials):
        what = ("rows", "hidden", "loss")[number % 3]
        value = (np.nan, np.inf, -np.inf)[number // 3 % 3]
        world.restore("index")
        ended = world.run(
            "index",
            before=lambda w=what, v=value, n=number: _give(w, v, after=n % 5, lasting=n % 2 == 1),
        )
        wanted = (1, 3) if number % 2 else (0,)
        if ended.code not in wanted or ended.fell:
            failures.append(f"{what} {value}: exit {ended.code} {ended.err[-400:]}")
        if ended.code == 0 and (wrong := world.differs("index")):
            failures.append(f"{what} {value}: tried again, {wrong[:3]} differ")
        if wrong := not_finite(world.home):
            failures.append(f"{what} {value}: {wrong} is published")
        again = world.run("index")
        if again.code != 0 or world.differs("index"):
            failures.append(f"{what} {value}: then {again.code}, {world.differs('index')[:3]}")
    return {"trials": trials, "failures": failures}


def _give(what: str, value: float, *, after: int, lasting: bool) -> None:
    """In a child: put a value into what the engine returns, after so many calls."""
    from curate.task2vec import embedding

    real, seen = embedding.fisher_rows, [0]

    def poisoned(*args: Any, **rest: Any) -> Any:
        import dataclasses

        found = real(*args, **rest)
        seen[0] += 1
        if seen[0] <= after or (seen[0] > after + 1 and not lasting):
            return found
        if what == "loss":
            return dataclasses.replace(found, loss=value)
        name = "values" if what == "rows" else "hidden"
        array = getattr(found, name).copy()
        array.flat[array.size // 2] = value
        return dataclasses.replace(found, **{name: array})

    embedding.fisher_rows = poisoned


def not_finite(home: Path) -> str:
    """Name a published embedding that holds a number that is none; "" where all are finite."""
    from curate.task2vec.vectors import read_embedding

    for path in home.glob(".curate/index/shards/*.safetensors"):
        found = read_embedding(path)
        values = [found.vectors, found.hidden, np.array([found.loss])]
        if not all(np.isfinite(value).all() for value in values):
            return path.name
    return ""


MANY = """\
[corpus]
inputs = ["corpus"]
shard_tokens = 24
[embed]
probe = "probe"
batches = 2
batch_tokens = 16
block_tokens = 16
"""


def index_many(folder: Path, *, shards: int, every: int) -> dict[str, Any]:
    """Index very many shards, each one document; watch memory and open files on the way.

    The first tenth is left out of the slope: allocators warm up.
    """
    home = folder / "many"
    home.mkdir()
    (home / "corpus").mkdir()
    with (home / "corpus" / "all.jsonl").open("w", encoding="utf-8") as stream:
        for text in make_texts("maths", shards, seed=5):
            stream.write(json.dumps({"text": text}) + "\n")
    make_probe(home / "probe")
    (home / "curate.toml").write_text(MANY, encoding="utf-8")
    ended = run_forked(
        home,
        ("index", "--json"),
        before=lambda: _watch(every),
        tell=lambda: {"seen": _watch.seen},  # type: ignore[attr-defined, dict-item]
    )
    seen = np.array(ended.counts.get("seen", []), dtype=np.float64).reshape(-1, 3)
    kept = seen[seen[:, 0] >= shards / 10]
    slope = float(np.polyfit(kept[:, 0], kept[:, 1], 1)[0]) * 1000 if len(kept) > 1 else 0.0
    failures = []
    if ended.code != 0:
        failures.append(f"exit {ended.code}: {ended.err[-500:]}")
    handles = sorted({int(n) for n in seen[:, 2]})
    if not handles or handles[-1] - handles[0] > 3:
        failures.append(f"open files between {handles[:1]} and {handles[-1:]}")
    shutil.rmtree(home)
    return {
        "shards": shards, "kb_a_1000": round(slope), "handles": handles,
        "rss_mb": [round(seen[0, 1] / 1024), round(seen[-1, 1] / 1024)] if len(seen) else [],
        "seconds": round(ended.seconds), "failures": failures,
    }  # fmt: skip


def _watch(every: int) -> None:
    """In a child: note memory (KiB) and open files whenever `every` shards are embedded."""
    from curate.task2vec import making

    real, count = making.embed_item, [0]
    _watch.seen = []  # type: ignore[attr-defined]

    def watched(*args: Any, **rest: Any) -> Any:
        count[0] += 1
        if count[0] % every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            handles = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
            _watch.seen.append([count[0], 4 * pages, handles])  # type: ignore[attr-defined]
        return real(*args, **rest)

    making.embed_item = watched
