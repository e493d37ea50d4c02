"""Kill -9 at counted places, and again while the rerun recovers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.faults.world import DONE, KILLED, World, stamps

SHARES = {"index": 0.45, "rank": 0.1, "build-mix": 0.3, "verify": 0.15}
"""Of the trials; a run of verify costs most and has few kinds of events."""

ITEMS = {
    "index": (".curate/index/shards/*.json",),
    "rank": (".curate/ranking/*/meta.json",),
    "build-mix": (".curate/facts/*.blake2b",),
    "verify": (".curate/verify/runs/*.json",),
}
"""The files whose presence says that an item of a command is done."""


def kill_everywhere(world: World, *, trials: int) -> dict[str, Any]:
    """Kill each command at places spread evenly over its events; run it again; compare.

    Fails where the rerun does not succeed, where a published byte differs from an unharmed run,
    where an item that was done is done again, or where a temporary file is left.
    """
    result: dict[str, Any] = {"trials": 0, "mid_run": 0, "by_command": {}, "failures": []}
    for stage in world.commands:
        numbers = spread(max(1, round(trials * SHARES[stage])), world.events[stage])
        for number in numbers:
            world.restore(stage)
            ended = world.run(stage, failpoint=f"*:{number}=kill")
            result["trials"] += 1
            result["mid_run"] += ended.code == KILLED
            wrong = rerun(world, stage)
            if wrong:
                result["failures"].append(f"{stage} killed at event {number}: {wrong}")
        result["by_command"][stage] = {"trials": len(numbers), "events": world.events[stage]}
    return result


def kill_recovery(world: World, *, chains: int, seed: int = 0) -> dict[str, Any]:
    """Kill a command, kill its rerun, and so on two to five times; then let it finish."""
    draw = random.Random(seed)
    result: dict[str, Any] = {"chains": chains, "kills": 0, "failures": []}
    for chain in range(chains):
        stage = world.commands[chain % len(world.commands)]
        world.restore(stage)
        places = [draw.randrange(1, world.events[stage] + 1) for _ in range(draw.randrange(2, 6))]
        for place in places:
            # what is done already has no events any more: a later place may not be reached
            ended = world.run(stage, failpoint=f"*:{place}=kill")
            result["kills"] += ended.code == KILLED
            if ended.code not in (KILLED, *DONE[stage]):
                result["failures"].append(f"{stage} {places}: {ended.code} {ended.err[-300:]}")
        wrong = rerun(world, stage)
        if wrong:
            result["failures"].append(f"{stage} killed at {places}: {wrong}")
    return result


def rerun(world: World, stage: str) -> str:
    """Run a command again after harm; return what is wrong then, "" where nothing is."""
    done = {k: v for pattern in ITEMS[stage] for k, v in stamps(world.home, pattern).items()}
    ended = world.run(stage)
    if ended.code not in DONE[stage]:
        return f"the rerun ended with {ended.code}: {ended.err[-500:]}"
    differing = world.differs(stage)
    if differing:
        return f"the rerun published something else: {differing[:5]}"
    now = {k: v for pattern in ITEMS[stage] for k, v in stamps(world.home, pattern).items()}
    again = [Path(path).name for path, stamp in done.items() if now.get(path) != stamp]
    if again:
        return f"{len(again)} items that were done were done again: {again[:3]}"
    if (world.home / ".mix.staging").exists():
        return "the staging folder is left"
    return ""


def spread(count: int, total: int) -> list[int]:
    """Return `count` different numbers from 1 to `total`, evenly spread; all where it is less."""
    count = min(count, total)
    return sorted({1 + round(step * (total - 1) / max(1, count - 1)) for step in range(count)})
