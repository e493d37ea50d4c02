"""Plan, index, rank and mix very many shards: time and memory of each stage.

    python benchmarks/scale.py --shards 1000000 --json

The shards are real (records of files, read, cut, counted, digested) and short; their vectors are
drawn at random and published as any embedding is. The syncs of the disk are left out: they cost
the disk's latency, three an item, and hide what the program itself does. Each stage runs in a
process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STAGES = ("write", "plan", "index", "rank", "rank_by_fisher", "mix", "again")
WORDS = 14  # a document
DOCUMENTS = 2  # a shard, about


def stage_write(place: Path, shards: int) -> None:
    """Write the corpus: files of 10,000 shards; the first source is like the target."""
    import numpy as np

    rng = np.random.default_rng(0)
    (place / "in").mkdir()
    for first in range(0, shards, 10_000):
        count = DOCUMENTS * min(10_000, shards - first)
        kind = first // 10_000 % 4
        words = rng.integers(200 * kind, 200 * kind + 300, (count, WORDS))
        with (place / "in" / f"{first // 10_000:05d}.jsonl").open("w") as stream:
            for row in words.tolist():
                stream.write('{"text": "' + " ".join(f"w{word}" for word in row) + '"}\n')
    for name in ("select", "eval"):
        items = [" ".join(f"w{word}" for word in rng.integers(0, 300, 40)) for _ in range(60)]
        lines = [json.dumps({"text": item}) for item in items]
        (place / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def settings_of(place: Path) -> Any:
    """Return small shards and small embeddings; nothing else is unusual."""
    from curate.settings import CorpusSettings, EmbedSettings, MixSettings, Settings, TargetSettings

    return Settings(
        corpus=CorpusSettings(inputs=(str(place / "in"),), shard_tokens=120),
        embed=EmbedSettings(batches=2, batch_tokens=64, block_tokens=64, sketch=64),
        target=TargetSettings(name=f"toy={place / 'select.jsonl'},{place / 'eval.jsonl'}"),
        mix=MixSettings(budget=100_000),
    )


def stage_plan(place: Path, shards: int) -> Any:
    """Plan the index."""
    from curate.stages import plan

    return plan(settings=settings_of(place), workspace=place / "ws", device="cpu").shards


def stage_index(place: Path, shards: int) -> Any:
    """Read, cut, count and publish; only the vectors are made up."""
    import numpy as np

    from curate.records import Embedding
    from curate.stages import index
    from curate.store.fingerprint import digest_bytes
    from curate.task2vec import items

    dims: list[int] = []

    def made_up(what: str, parts: Any, unigrams: Any, probe: Any, settings: Any, **_: Any) -> Any:
        if not dims:
            dims.append(items.check_probe(probe, settings)[-1].stop)
        # by name: a run that resumes draws the others, and no two alike
        rng = np.random.default_rng(int(digest_bytes(what.encode())[:32], 16))
        vectors = rng.random((len(parts), dims[0]), np.float32) + np.float32(0.1)
        hidden = np.zeros((len(parts), 8), np.float32)
        return Embedding(vectors, (1,) * len(parts), unigrams, hidden, 1.0), None

    items.embed_parts = made_up
    return len(index(settings=settings_of(place), workspace=place / "ws", device="cpu").shards)


def stage_rank(place: Path, shards: int) -> Any:
    """Rank by words, then those first by token pairs; index and settings are taken as current."""
    from curate.stages import rank

    return len(rank(settings=settings_of(place), workspace=place / "ws", device="cpu").shards)


def stage_rank_by_fisher(place: Path, shards: int) -> Any:
    """Rank all shards by Task2Vec, then go back to the ranking by counts."""
    import dataclasses

    from curate.settings import RankSettings
    from curate.stages import rank

    settings = dataclasses.replace(settings_of(place), rank=RankSettings(method="task2vec"))
    found = rank(settings=settings, workspace=place / "ws", device="cpu")
    stage_rank(place, shards)
    return len(found.shards)


def stage_mix(place: Path, shards: int) -> Any:
    """Mix by manifest."""
    from curate.stages import build_mix

    made = build_mix(
        settings=settings_of(place), workspace=place / "ws", out=place / "mix", fmt="manifest"
    )
    return made.tokens


def stage_again(place: Path, shards: int) -> Any:
    """Index once more: nothing has changed."""
    return stage_index(place, shards)


def run_stage(name: str, place: Path, shards: int) -> None:
    """Run one stage in this process and print what it took."""
    os.fsync = lambda descriptor: None
    began, cpu = time.monotonic(), time.process_time()
    found = globals()[f"stage_{name}"](place, shards)
    print(
        json.dumps(
            {
                "stage": name,
                "found": found,
                "wall_s": round(time.monotonic() - began, 1),
                "cpu_s": round(time.process_time() - cpu, 1),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        )
    )


def main() -> None:
    """Run the stages one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="kept; a temporary one by default")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.stage:
        run_stage(given.stage, given.folder, given.shards)
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = given.folder or Path(temporary)
        place.mkdir(exist_ok=True)
        for name in STAGES:
            words = [sys.executable, __file__, "--stage", name, "--shards", str(given.shards)]
            done = subprocess.run([*words, "--folder", str(place)], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr[-2000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            line = "{stage:6} {found:>10} {wall_s:>8} s {cpu_s:>8} s CPU {peak_mb:>6} MB"
            print(json.dumps(found) if given.json else line.format(**found), flush=True)


if __name__ == "__main__":
    main()
