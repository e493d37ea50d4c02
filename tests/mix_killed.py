"""Kill the writing of a mix at every kind of place, run it again, compare with one not killed.

At some places a bit of every file that the kill left is flipped before the next run.

Run: python tests/mix_killed.py FOLDER; prints a line for each kill.
"""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

from curate.mixing.choose import Ints
from curate.mixing.draw import draw_rows
from curate.mixing.filters import Wish
from curate.mixing.formats import Choice
from curate.mixing.look import Look
from curate.mixing.publish import clear, publish_files, staging_folder
from curate.mixing.reading import read_some
from curate.mixing.weights import Spread
from curate.mixing.write import Layout, write_files
from curate.records import Shard
from curate.store.meta import publish_meta
from tests.mix_in_little_memory import count, make

FLIPPED = ["mix.chunks:1", "mix.parts:1", "mix.parts:3"]
EVENTS = ["mix.facts:2", "mix.chunks:1", "mix.parts:1", "mix.parts:3",
          "publish.before_rename:6", "publish.after_rename:8"]  # fmt: skip


def build(shards: list[Shard], order: Ints, folder: Path, out: Path) -> None:
    names = tuple(shard.name for shard in shards)
    wish = Wish(budget=1_000_000, names=names, spread=Spread(order=order), holdout=0.05)
    drawn = draw_rows(
        dict(zip(names, shards, strict=True)),
        wish,
        Look(text="text", seed=0, count=count, counted_by="characters"),
        embedding=lambda shard: None,
        read=partial(read_some, text="text"),
        cut=lambda text, wanted: (4 * wanted, wanted),
        folder=folder / "facts",
    )
    choices = [Choice(s.name, s.source, s.ranges, 0.5, "all") for s in drawn.shards]
    with staging_folder(out, mark="m") as staging:
        layout = Layout(part_tokens=250_000, chunk_chars=1_000_000)
        write_files(drawn, choices, text="text", folder=staging, layout=layout, seed=0)
        clear(out)
        names = tuple(publish_files(staging / "mix", out))
        publish_meta(out, kind="mix", fingerprint="m", files=list(names), body={})


def in_child(event: str, *call: object) -> int:
    """Build in a forked process; return the signal that ended it, 0 for none."""
    child = os.fork()
    if child == 0:
        if event:
            os.environ["CURATE_FAILPOINT"] = f"{event}=kill"
        build(*call)  # type: ignore[arg-type]
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"the build failed: {status}")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def flip_all(staging: Path) -> None:
    """Flip a bit in the middle of every file that a killed run has left."""
    for path in staging.rglob("*"):
        if path.is_file() and path.name != "mark" and (data := bytearray(path.read_bytes())):
            data[len(data) // 2] ^= 1
            path.write_bytes(data)


def main() -> None:
    import numpy as np

    folder = Path(sys.argv[1])
    (folder / "in").mkdir()
    shards = make(folder / "in", 8, file=2_000_000)
    order = np.arange(len(shards))
    in_child("", shards, order, folder / "oracle", folder / "oracle" / "mix")
    oracle = contents(folder / "oracle" / "mix")
    for turn, event in enumerate([*EVENTS, *FLIPPED]):
        here = folder / f"{turn}-{event.replace(':', '-')}"
        call = (shards, order, here, here / "mix")
        killed = in_child(event, *call) == signal.SIGKILL
        if turn >= len(EVENTS):
            flip_all(here / ".mix.staging")
        half = (here / "mix" / "meta.json").exists()
        staged = [p for p in here.rglob("*") if p.name.startswith("part-") and ".tmp" not in p.name]
        stamps = {path.name: path.stat().st_mtime_ns for path in staged}
        again = in_child("", *call)
        found = contents(here / "mix")
        line = {
            "event": event, "killed": killed, "half": half, "again": again,
            "same": found == oracle, "clean": not list(here.glob(".*.staging")),
            "kept": [n for n, t in stamps.items()
                     if (here / "mix" / "data" / n).is_file()
                     and (here / "mix" / "data" / n).stat().st_mtime_ns == t],
        }  # fmt: skip
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
