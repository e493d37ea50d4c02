"""Several runs on one folder at once, and locks that a dead run has left."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import msgspec

from tests.faults.world import DONE, STAGES, World, start_forked, wait_forked

LOCKS = {
    "index": ".curate/index/.lock",
    "rank": ".curate/ranking/.lock",
    "build-mix": "mix/.lock",
    "verify": ".curate/verify/.lock",
}


def run_together(world: World, *, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Start two to eight runs of one command: one does it, the others say that it is locked."""
    draw = random.Random(seed)
    failures: list[str] = []
    codes: Counter[int] = Counter()
    for number in range(rounds):
        stage = STAGES[(0, 1, 2, 0, 1, 2, 3)[number % 7]]
        world.restore(stage)
        crew = {
            f"run{n}": start_forked(world.home, (stage, "--json"), name=f"run{n}")
            for n in range(draw.randrange(2, 9))
        }
        ended = [wait_forked(world.home, child, name=name) for name, child in crew.items()]
        codes.update(each.code for each in ended)
        done = sum(each.code in DONE[stage] for each in ended)
        odd = [each for each in ended if each.code not in (*DONE[stage], 5)]
        if odd:
            failures.append(f"{stage}: exit {odd[0].code} {odd[0].err[-300:]}")
        unsaid = [each for each in ended if each.code == 5 and "in use by process" not in each.err]
        if unsaid or not done:
            failures.append(f"{stage}: {done} done, {[each.said for each in unsaid][:2]}")
        if done and (differing := world.differs(stage)):
            failures.append(f"{stage}: published something else: {differing[:4]}")
    return {"rounds": rounds, "runs": sum(codes.values()), "codes": dict(codes),
            "failures": failures}  # fmt: skip


def stale_locks(world: World, *, rounds: int) -> dict[str, Any]:
    """Leave the lock of a process that is gone: the next run takes it over and says so."""
    from curate.store.owner import this_owner

    here = this_owner()
    failures = []
    for number in range(rounds):
        stage = STAGES[number % 3]  # of verify it is the same code
        world.restore(stage)
        lock = world.home / LOCKS[stage]
        lock.parent.mkdir(parents=True, exist_ok=True)
        kind = ("dead", "reused", "earlier boot", "other host", "nonsense")[number // 3 % 5]
        owner = {
            "dead": {"host": here.host, "boot": here.boot, "pid": 2**22 + 1, "started": 1},
            "reused": {"host": here.host, "boot": here.boot, "pid": os.getpid(), "started": 1},
            "earlier boot": {"host": here.host, "boot": "x", "pid": 1, "started": 1},
            "other host": {"host": "elsewhere", "boot": "x", "pid": 1, "started": 1},
            "nonsense": None,
        }[kind]
        lock.write_bytes(msgspec.json.encode(owner) if owner else b"\xff\x00{")
        ended = world.run(stage)
        told = "ended without letting go" in ended.err
        if ended.code not in DONE[stage] or told != (owner is not None):
            failures.append(f"{stage}, {kind}: exit {ended.code} {ended.err[-300:]}")
        if differing := world.differs(stage):
            failures.append(f"{stage}, {kind}: published something else: {differing[:4]}")
    return {"rounds": rounds, "failures": failures}
