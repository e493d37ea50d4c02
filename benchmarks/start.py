"""How long does a command take that has nothing to compute: the start, and what it loads.

    python benchmarks/start.py --json

Makes a small job in a temporary folder (index, ranking, mix, verification of the reference that
Python carries), then runs each command on it again, in turn, and takes the least of its processor
seconds. `modules` are the libraries that took longest to load, with their milliseconds. To compare
with another state of the program, run the file with that state first in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from pydoc_data import topics

SETTINGS = """\
[corpus]
inputs = ["corpus"]
shard_tokens = "20k"
[embed]
batches = 4
batch_tokens = "512"
[target]
name = "target.jsonl"
[mix]
budget = "16k"
[verify]
size = "tiny"
tokens = "4k"
seeds = 2
calibration = 2
[run]
workers = 1
"""
COMMANDS = {
    "--help": ["--help"],
    "index, unchanged": ["index"],
    "rank, read back": ["rank"],
    "rank, measured": ["rank", "--measure-again"],
    "build-mix, read back": ["build-mix"],
    "build-mix": ["build-mix", "--make-again"],
    "show ranking": ["show", "ranking"],
    "report": ["report"],
    "verify, read back": ["verify"],
}
LOADED = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\w+)")


def curate(words: list[str], folder: Path, *, timed: bool = False) -> tuple[float, str]:
    """Run a command; return its processor seconds, and what it wrote on stderr."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python = [sys.executable, *(["-X", "importtime"] if timed else [])]
    done = subprocess.run(
        [*python, "-m", "curate", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 4):
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, done.stderr


def make_job(folder: Path) -> None:
    """Write a corpus of two sources and a target, and run the four commands once."""
    texts = [text for text in topics.topics.values() if len(text) > 300]
    (folder / "corpus").mkdir()
    items = [text[:600] for text in texts[2:100:3]]  # verify reads half of them in every run
    parts = {"corpus/one": texts[::3], "corpus/two": texts[1::3], "target": items}
    for name, part in parts.items():
        lines = (json.dumps({"text": text[:3_000]}) for text in part)
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "curate.toml").write_text(SETTINGS)
    for command in ("rank", "build-mix", "verify"):
        curate([command], folder)


def run(words: list[str], folder: Path, turn: int) -> list[str]:
    """Return the words of a command that `--…-again` lets compute in this turn."""
    if "--measure-again" in words:
        settings = SETTINGS + f"[rank]\nseed = {turn + 1}\n"
        (folder / "again.toml").write_text(settings)
        return ["rank", "--config", "again.toml"]
    if "--make-again" in words:
        return ["build-mix", "--budget", f"{9_000 + turn}", "--out", "other"]
    return words


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_job(folder)
        took: dict[str, list[float]] = {command: [] for command in COMMANDS}
        for turn in range(given.repeats):
            for command, words in COMMANDS.items():
                took[command].append(curate(run(words, folder, turn), folder)[0])
        for command, words in COMMANDS.items():
            _, heard = curate(run(words, folder, given.repeats), folder, timed=True)
            loaded: Counter[str] = Counter()
            for own, module in LOADED.findall(heard):
                loaded[module] += int(own)
            slowest = {name: round(own / 1000) for name, own in loaded.most_common(5)}
            least = round(min(took[command]), 2)
            if given.json:
                row = {"command": command, "cpu_s": least, "modules": slowest}
                print(json.dumps(row))
            else:
                print(f"{command:22} {least:5.2f} s   {slowest}")


if __name__ == "__main__":
    main()
