"""Bits that flip in our files, bytes that change in inputs, and what must change nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.world import DONE, Ended, World, run_forked, stamps

EMBEDDINGS = ".curate/index/shards/*.safetensors"

OWNERS = (
    (".curate/index/", "index"),
    (".curate/groups/", "index"),
    (".curate/configured.json", "index"),
    (".curate/target", "rank"),
    (".curate/ranking/", "rank"),
    (".curate/verify/", "verify"),
    (".curate/facts/", "build-mix"),
    (".curate/mix.json", "build-mix"),
    ("mix/", "build-mix"),
)
"""The command that makes a file: the one that has to notice, and to make it again."""

SHARES = {"index": 0.45, "rank": 0.15, "build-mix": 0.3, "verify": 0.1}

FINAL = {
    "rank": (".curate/targets/", ".curate/ranking/*/meta.json"),
    "build-mix": (".curate/facts/", "mix/meta.json"),
    "verify": (".curate/verify/", ".curate/verify/meta.json"),
}
"""Files that are read only while a result is made, and what to remove so that it is made again."""


def owner(name: str) -> str:
    """Return the command that makes a published file."""
    return next(stage for start, stage in OWNERS if name.startswith(start))


def flip_bits(world: World, *, flips: int, seed: int = 0) -> dict[str, Any]:
    """Flip one bit in one published file; the command that made it has to make it again.

    Fails where the file is not back, byte for byte, or anything else differs.
    """
    draw = random.Random(seed)
    names: dict[str, list[str]] = {}
    for name in sorted(world.oracle["verify"]):
        if (world.before["after"] / name).stat().st_size:
            names.setdefault(owner(name), []).append(name)
    result: dict[str, Any] = {"flips": 0, "by_command": Counter(), "failures": []}
    kinds: Counter[str] = Counter()
    for stage, share in SHARES.items():
        for number in range(max(1, round(flips * share))):
            name = names[stage][number % len(names[stage])]
            world.restore("after")
            where = flip_bit(world.home / name, draw)
            wrong = noticed(world, stage, name)
            result["flips"] += 1
            result["by_command"][stage] += 1
            kinds["".join(Path(name).suffixes[-2:])] += 1
            if wrong:
                result["failures"].append(f"{name}, bit {where}: {wrong}")
    return {**result, "by_command": dict(result["by_command"]), "kinds": dict(kinds)}


def flip_bit(path: Path, draw: random.Random) -> int:
    """Flip one bit of a file, its time stamp kept; return which."""
    data, status = bytearray(path.read_bytes()), path.stat()
    bit = draw.randrange(8 * len(data))
    data[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return bit


def noticed(world: World, stage: str, name: str) -> str:
    """Run the command again over a damaged file; return what is wrong, "" where nothing is."""
    start, final = FINAL.get(stage, ("", ""))
    if start and name.startswith(start):
        for path in world.home.glob(final):
            if str(path.relative_to(world.home)) != name:
                path.unlink()
    ended = world.run(stage)
    if ended.fell or ended.code not in DONE[stage]:
        return f"ended with {ended.code}: {ended.err[-300:]}"
    differing = world.differs("verify")
    return f"not as before: {differing[:3]}" if differing else ""


def delete_outputs(world: World, *, deletions: int, seed: int = 0) -> dict[str, Any]:
    """Delete one published file; the command that made it has to make it again."""
    draw = random.Random(seed)
    names = sorted(world.oracle["verify"])
    failures = []
    for name in draw.sample(names, min(deletions, len(names))):
        world.restore("after")
        (world.home / name).unlink()
        wrong = noticed(world, owner(name), name)
        if wrong:
            failures.append(f"{name} deleted: {wrong}")
    return {"deletions": min(deletions, len(names)), "failures": failures}


def change_bytes(world: World, *, changes: int, seed: int = 0) -> dict[str, Any]:
    """Change one letter of one document, size and time stamp kept: its shard is embedded again.

    Half of the changes are to files of one shard each. In the others the changed document may be
    the one that its shard ends with, or become it: then the cut moves, and two shards change.
    """
    draw = random.Random(seed)
    redone: Counter[str] = Counter()
    failures = []
    for number in range(changes):
        words = ("index", "--shard-tokens", "100k") if number % 2 else ("index",)
        world.restore("after")
        if number % 2:
            run_words(world, words)
        path = world.home / "corpus" / ("maths.jsonl", "ships.jsonl")[number // 2 % 2]
        before, cuts = stamps(world.home, EMBEDDINGS), cut_at(world.home)
        with one_byte_changed(path, draw) as at:
            ended = run_words(world, words)
        now = stamps(world.home, EMBEDDINGS)
        new = [name for name, stamp in now.items() if before.get(name) != stamp]
        moved = cut_at(world.home) != cuts
        redone[f"{len(new)} shard{'s' * (len(new) > 1)}{', the cut moved' * moved}"] += 1
        if ended.code != 0 or len(new) != 1 + moved or (moved and number % 2):
            failures.append(f"{path.name}, byte {at}: exit {ended.code}, {len(new)} shards redone")
    return {"changes": changes, "redone": dict(redone), "failures": failures}


@contextmanager
def one_byte_changed(path: Path, draw: random.Random) -> Iterator[int]:
    """Change the last letter of one document of a file, its size and time stamp kept."""
    original, status = path.read_bytes(), path.stat()
    data = bytearray(original)
    ends = [at for at in range(len(data) - 12) if data[at : at + 11] == b'", "topic":']
    at = draw.choice(ends) - 1
    data[at] = ord("q") if data[at] != ord("q") else ord("z")
    try:
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        yield at
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut_at(home: Path) -> list[tuple[str, int]]:
    """Return where the published index cuts its corpus: shards and their documents."""
    body = json.loads((home / ".curate/index/meta.json").read_bytes())["body"]
    return [(each["shard"]["name"], each["shard"]["n_documents"]) for each in body["shards"]]


def change_nothing(world: World, *, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Rename and reorder inputs, change time stamps and workers: nothing is embedded again."""
    draw = random.Random(seed)
    failures = []
    folder, aside = world.home / "corpus", world.home.parent / "corpus-as-it-was"
    shutil.copytree(folder, aside)
    for number in range(rounds):
        world.restore("after")
        what = ("names", "order", "times", "workers")[number % 4]
        words: tuple[str, ...] = ("index",)
        if what == "names":
            for path in sorted(folder.iterdir()):
                path.rename(path.with_name(f"{draw.randrange(10**6)}-{path.name}"))
        elif what == "order":
            paths = [str(path.relative_to(world.home)) for path in sorted(folder.iterdir())]
            draw.shuffle(paths)
            words = ("index", *paths)
        elif what == "times":
            for path in folder.iterdir():
                os.utime(path, (draw.randrange(10**9), draw.randrange(10**9)))
        else:
            words = ("build-mix", "--workers", str(draw.randrange(1, 4)))
        before = {**stamps(world.home, EMBEDDINGS), **stamps(world.home, "mix/**/*.parquet")}
        ended = run_words(world, words)
        now = {**stamps(world.home, EMBEDDINGS), **stamps(world.home, "mix/**/*.parquet")}
        again = [name for name, stamp in before.items() if now.get(name) != stamp]
        if ended.code != 0 or again or len(now) != len(before):
            failures.append(f"{what}: exit {ended.code}, {len(again)} redone {ended.err[-200:]}")
        if what == "names":
            shutil.rmtree(folder)
            shutil.copytree(aside, folder)
    return {"rounds": rounds, "failures": failures}


def run_words(world: World, words: tuple[str, ...]) -> Ended:
    """Run any command of the command line in the world's folder."""
    return run_forked(world.home, words)
