"""Is the device busy? One pass of `curate index` over many shards, the time on the device logged.

    python benchmarks/pipeline.py --shards 1000 --device-ms 100 --json
    python benchmarks/pipeline.py --shards 1000 --device cuda --data FOLDER --json

Without a GPU the device is a sleep: everything else (reading, cutting, tokenising, drawing, the
work item's file, quantising, publishing with its syncs) is what `curate index` does, in the same
processes. The share is that of the wall time between the 11th shard and the last, of each device.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np

from curate.engine.run import run_items, visible_gpus, working_on
from curate.records import Embedding
from curate.settings import CorpusSettings, EmbedSettings, RunSettings
from curate.task2vec import embed, items, making
from curate.task2vec.items import Embedded, EmbedItem

WARM_UP = 10
LOG, SLEEP = "PIPELINE_LOG", "PIPELINE_SLEEP_S"  # how a worker process learns of them

_embed_parts = items.embed_parts


def timed_item(item: EmbedItem) -> Embedded:
    """Do what `embed_item` does, and log when the device began and ended."""
    items.embed_parts = _timed_parts
    return items.embed_item(item)


def _timed_parts(
    what: str, parts: Any, unigrams: Any, probe: Any, settings: Any, **rest: Any
) -> Any:
    began = time.monotonic()
    if seconds := float(os.environ[SLEEP]):
        time.sleep(seconds)
        found = (_made_up(what, len(parts), unigrams, probe, settings), None)
    else:
        found = _embed_parts(what, parts, unigrams, probe, settings, **rest)
    with Path(os.environ[LOG]).open("a", encoding="ascii") as log:
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        log.write(f"{gpu} {began} {time.monotonic()}\n")
    return found


def _made_up(what: str, count: int, unigrams: Any, probe: Any, settings: Any) -> Embedding:
    """Return numbers in the shape of an embedding."""
    rng = np.random.default_rng(abs(hash(what)))
    dim = items.check_probe(probe, settings)[-1].stop
    vectors = rng.random((count, dim)).astype(np.float32) + 0.1
    hidden = np.zeros((count, probe.model.config.hidden_size), np.float32)
    return Embedding(vectors, (1,) * count, unigrams, hidden, 1.0)


def write_corpus(folder: Path, *, shards: int, shard_tokens: int, files: int = 20) -> None:
    """Write documents of about 300 words, of the words of Python's manual."""
    words = sorted({word for text in topics.topics.values() for word in text.split()})
    rng = np.random.default_rng(0)
    n_documents = int(1.05 * 0.75 * shards * shard_tokens / (300 * 3.87 * files)) + 1
    for number in range(files):
        with (folder / f"{number:03d}.jsonl").open("w", encoding="utf-8") as stream:
            for _ in range(n_documents):
                text = " ".join(words[n] for n in rng.integers(0, len(words), 300))
                stream.write(json.dumps({"text": text}) + "\n")


def busy_share(log: Path) -> tuple[float, float, int]:
    """Return the lowest share of a device's time, its mean seconds a shard, and the devices."""
    rows = [line.split() for line in log.read_text(encoding="ascii").splitlines()]
    shares, means = [], []
    for gpu in sorted({row[0] for row in rows}):
        spans = sorted((float(a), float(b)) for name, a, b in rows if name == gpu)[WARM_UP:]
        inside = sum(b - a for a, b in spans)
        shares.append(inside / (max(b for _, b in spans) - spans[0][0]))
        means.append(inside / len(spans))
    return min(shares), sum(means) / len(means), len(shares)


def main() -> None:
    """Run the pipeline and print how busy the device was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--shard-tokens", type=int, default=16_384)
    parser.add_argument("--device", choices=["sleep", "cuda"], default="sleep")
    parser.add_argument("--device-ms", type=float, default=100.0)
    parser.add_argument("--slots", type=int, choices=[1, 2], default=2)
    parser.add_argument("--probe", default="builtin")
    parser.add_argument("--data", type=Path, help="a corpus, instead of a written one")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    import pipeline  # this file as a module, which worker processes can import

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ[LOG] = str(place / "log")
        os.environ[SLEEP] = str(given.device_ms / 1000 if given.device == "sleep" else 0.0)
        if given.data is None:
            (place / "in").mkdir()
            write_corpus(place / "in", shards=given.shards, shard_tokens=given.shard_tokens)
        making.embed_item = pipeline.timed_item
        gpus = max(1, len(visible_gpus())) if given.device == "cuda" else 1
        kind = "cuda" if given.device == "cuda" else "cpu"
        making.choose_crew = lambda *_: making.Crew(gpus, kind, here=False)
        making.run_items = partial(_with_slots, slots=given.slots)
        settings = replace(EmbedSettings(probe=given.probe), batch_tokens=given.shard_tokens // 4)
        began = time.monotonic()
        with working_on(RunSettings(), folder=place):
            index = embed.build_index(
                CorpusSettings((str(given.data or place / "in"),), shard_tokens=given.shard_tokens),
                settings,
                workspace=place / "ws",
            )
        seconds = time.monotonic() - began
        share, mean, devices = busy_share(place / "log")
    found = {
        "device": _name(given.device), "devices": devices, "shards": len(index.shards),
        "tokens": sum(one.shard.n_tokens for one in index.shards), "slots": given.slots,
        "device_ms_a_shard": round(1000 * mean, 1), "busy": round(share, 3),
        "wall_s": round(seconds, 1), "load": round(os.getloadavg()[0], 1), "cores": os.cpu_count(),
    }  # fmt: skip
    print(json.dumps(found) if given.json else "\n".join(f"{k:20} {v}" for k, v in found.items()))


def _with_slots(*rest: Any, slots: int, **named: Any) -> Any:
    return run_items(*rest, **(named | {"slots": slots}))


def _name(device: str) -> str:
    if device == "sleep":
        return f"a sleep, on {platform.machine()}"
    import torch

    return torch.cuda.get_device_name()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
