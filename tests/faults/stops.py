"""Interrupts: out within five seconds, with the right exit code, and the same command goes on."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from tests.faults.kills import SHARES, rerun, spread
from tests.faults.world import DONE, STAGES, World

SECONDS = 5.0
ASKED = {"sigint": 130, "sigterm": 143}


def stop_everywhere(world: World, *, trials: int) -> dict[str, Any]:
    """Interrupt and terminate each command at places spread over its events; run it again."""
    failures: list[str] = []
    slowest, count = 0.0, 0
    for stage in STAGES:
        numbers = spread(max(1, round(trials * SHARES[stage])), world.events[stage])
        for number in numbers:
            name = ("sigint", "sigterm")[count % 2]
            world.restore(stage)
            stamp = world.home.parent / "asked"
            ended = world.run(
                stage, failpoint=f"*:{number}={name}", before=lambda s=stamp: note_time(s)
            )
            count += 1
            took = time.time() - stamp.stat().st_mtime if stamp.exists() else 0.0
            slowest = max(slowest, took)
            # an interrupt while the last byte of output is on its way may come too late
            late = number == numbers[-1] and ended.code in DONE[stage]
            if ended.code != ASKED[name] and not late:
                failures.append(f"{stage} {name} at {number}: exit {ended.code} {ended.err[-300:]}")
            elif name == "sigint" and not late and "goes on where it stopped" not in ended.err:
                failures.append(f"{stage} {name} at {number}: said {ended.said}")
            if took > SECONDS * crowd():
                failures.append(f"{stage} {name} at {number}: {took:.1f} s")
            if wrong := rerun(world, stage):
                failures.append(f"{stage} {name} at {number}: {wrong}")
    return {"signals": count, "slowest_s": round(slowest, 2), "failures": failures}


def crowd() -> float:
    """Return how many processes share a core, at least 1: seconds are longer where many do."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def note_time(path: Any) -> None:
    """Touch a file when the failpoint sends its signal."""
    from curate.store import failpoint

    real = os.kill

    def kill(pid: int, number: int) -> None:
        path.touch()
        real(pid, number)

    path.unlink(missing_ok=True)
    failpoint.os.kill = kill


def stop_rudely(world: World, *, trials: int) -> dict[str, Any]:
    """Two interrupts in a row, and signals that nothing handles, at places in time."""
    failures = []
    for number in range(trials):
        stage = STAGES[number % len(STAGES)]
        world.restore(stage)
        signals = (
            (signal.SIGINT, signal.SIGINT),
            (signal.SIGTERM, signal.SIGINT),
            (signal.SIGHUP,),
            (signal.SIGUSR1,),
        )[number // len(STAGES) % 4]

        def send(child: int, signals: tuple[int, ...] = signals, number: int = number) -> None:
            while not (world.home.parent / "logs" / "run.started").exists():
                time.sleep(0.01)
            time.sleep(0.05 + 0.03 * (number % 7))
            for each in signals:
                os.kill(child, each)
                time.sleep(0.01)

        began = time.monotonic()
        ended = world.run(stage, meanwhile=send)
        if time.monotonic() - began > 4 * SECONDS * crowd():
            failures.append(f"{stage} {signals}: {time.monotonic() - began:.1f} s")
        allowed = (130, 143, *(-each for each in signals), *DONE[stage])
        if ended.fell or ended.code not in allowed:
            failures.append(f"{stage} {signals}: exit {ended.code} {ended.err[-300:]}")
        if wrong := rerun(world, stage):
            failures.append(f"{stage} {signals}: {wrong}")
    return {"trials": trials, "failures": failures}
