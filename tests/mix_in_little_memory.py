"""Write a mix many times the memory that it may take; the last line says how much it took.

What counts is the process's own memory: pages of files that it has mapped belong to the page
cache, which the kernel takes back when anyone needs memory.

Run: python tests/mix_in_little_memory.py FOLDER MEGABYTES
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.mixing.draw import draw_rows
from curate.mixing.filters import Wish
from curate.mixing.formats import Choice
from curate.mixing.look import Look
from curate.mixing.weights import Spread
from curate.mixing.write import Layout, write_files
from curate.records import RecordRange, Shard
from curate.store.fingerprint import digest_file

DOCUMENT = 8_000  # characters
FILE = 8_000_000


class Watch(threading.Thread):
    """Look at this process's own memory a hundred times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0

    def run(self) -> None:
        while True:
            self.most = max(self.most, own_memory())
            time.sleep(0.01)


def own_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def make(folder: Path, megabytes: int, *, file: int = FILE) -> list[Shard]:
    rng = np.random.default_rng(0)
    letters = rng.choice(np.frombuffer(b"etaoin shrdlu cmfwyp", np.uint8), 1_000_000)
    pool = letters.tobytes().decode("ascii")
    shards = []
    for number in range(max(1, megabytes * 1_000_000 // file)):
        path = folder / f"s{number}.jsonl"
        with path.open("w") as stream:
            for start in rng.integers(0, len(pool) - DOCUMENT, file // DOCUMENT).tolist():
                stream.write(json.dumps({"text": pool[start : start + DOCUMENT]}) + "\n")
        digest, n = digest_file(path), file // DOCUMENT
        ranges = (RecordRange(str(path), digest, 0, n),)
        shards.append(Shard(f"s{number}", "s", ranges, n, n * DOCUMENT // 4, digest))
    return shards


def count(texts: list[str]) -> list[int]:
    return [len(text) // 4 for text in texts]


def build(shards: list[Shard], folder: Path) -> int:
    names = tuple(shard.name for shard in shards)
    budget = sum(shard.n_tokens for shard in shards)
    drawn = draw_rows(
        dict(zip(names, shards, strict=True)),
        Wish(budget=budget, names=names, spread=Spread(order=np.arange(len(names)))),
        Look(text="text", seed=0, count=count, counted_by="characters"),
        embedding=lambda shard: None,
        read=lambda homes: [""] * len(homes),
        cut=lambda *_: (0, 0),
        folder=folder / "facts",
    )
    choices = [Choice(s.name, s.source, s.ranges, 0.5, "all") for s in drawn.shards]
    (folder / "out").mkdir()
    layout = Layout(part_tokens=150_000, chunk_chars=2_000_000)
    files, _ = write_files(
        drawn, choices, text="text", folder=folder / "out", layout=layout, seed=0
    )
    return sum(file.tokens for file in files)


def main() -> None:
    folder, megabytes = Path(sys.argv[1]), int(sys.argv[2])
    pa.set_memory_pool(pa.system_memory_pool())
    (folder / "warm").mkdir()
    warm = make(folder / "warm", 8)
    build(warm, folder / "warm")  # what libraries load and keep is not the mix's
    shards = make(folder, megabytes)
    before, watch = own_memory(), Watch()
    watch.start()
    tokens = build(shards, folder)
    sys.stdout.write(json.dumps({"text": tokens * 4, "taken": watch.most - before}) + "\n")


if __name__ == "__main__":
    main()
