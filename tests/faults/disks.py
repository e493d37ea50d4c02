"""Disks that refuse: every open, write, fsync and rename in turn, and disks that are too small."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.kills import SHARES, spread
from tests.faults.world import DONE, STAGES, Ended, World

KINDS = ("open", "write", "fsync", "rename")
SHIM = Path(__file__).parent / "shim.c"

REFUSALS = {
    "open": (errno.ENOSPC, errno.EIO, errno.EACCES),
    "write": (errno.ENOSPC, errno.EIO, errno.EACCES),
    "fsync": (errno.ENOSPC, errno.EIO, errno.EACCES),
    "rename": (errno.ENOSPC, errno.EIO, errno.EACCES),
}


def build_shim(folder: Path) -> Path | None:
    """Compile the shim that fails system calls; None where there is no compiler or no Linux."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    path = folder / "shim.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(path), str(SHIM), "-ldl"]
    done = subprocess.run(command, capture_output=True, check=False)
    return path if done.returncode == 0 else None


def find_shim() -> ctypes.CDLL | None:
    """Return the shim that this process was started with, or None."""
    path = os.environ.get("LD_PRELOAD", "")
    return ctypes.CDLL(path) if path.endswith("shim.so") else None


def refuse_everywhere(world: World, *, trials: int) -> dict[str, Any]:
    """Fail one call of each kind after another with each error; run again without.

    All of them where `trials` is as many as there are or more, else so many, evenly spread. A
    third of it, by `world.parts`, is every call with one of the errors, in turn.
    Where this process has the shim, the calls are those of all libraries, reads of inputs
    included; else the failpoints of our own code stand for them.

    Fails unless the command ends with one line and exit code 1 (or goes on to the same result),
    nothing published is lost or half there, and the next run publishes what an unharmed one does.
    """
    shim = find_shim()
    plan = _calls(world, shim) if shim else _events(world)
    total = sum(len(REFUSALS[kind]) * count for _, kind, count, _ in plan)
    result: dict[str, Any] = {
        "by": "system calls" if shim else "failpoints", "possible": total, "trials": 0,
        "ended": Counter(), "by_kind": Counter(), "failures": [],
    }  # fmt: skip
    for stage in world.commands:
        calls = [
            (kind, arm, number, error)
            for where, kind, count, arm in plan
            if where == stage
            for number in range(1, count + 1)
            for turn, error in enumerate(REFUSALS[kind], start=number)
            if turn % world.parts[1] == world.parts[0] % world.parts[1]
        ]
        wanted = len(calls) if trials >= total else max(1, round(trials * SHARES[stage]))
        for place in spread(wanted, len(calls)):
            kind, arm, number, error = calls[place - 1]
            world.restore(stage)
            ended = arm(number, error)
            result["trials"] += 1
            result["by_kind"][kind] += 1
            result["ended"][ended.code] += 1
            if wrong := harm(world, stage, ended):
                name = errno.errorcode[error]
                result["failures"].append(f"{stage}, {kind} {number} {name}: {wrong}")
    result["states"] = len(world.recovered)
    return {**result, "ended": dict(result["ended"]), "by_kind": dict(result["by_kind"])}


Arm = Callable[[int, int], Ended]


def _calls(world: World, shim: ctypes.CDLL) -> list[tuple[str, str, int, Arm]]:
    """Count the calls of each command by kind, with the shim that only counts."""
    plan: list[tuple[str, str, int, Arm]] = []
    for stage in world.commands:
        world.restore(stage)
        ended = world.run(
            stage,
            before=lambda: shim.faults_arm(str(world.home).encode(), 0, ctypes.c_long(0), 0),
            tell=lambda: {kind: shim.faults_count(n) for n, kind in enumerate(KINDS)},
        )
        for number, kind in enumerate(KINDS):
            if ended.counts[kind]:
                arm = partial(_run_armed, world, stage, shim, number)
                plan.append((stage, kind, ended.counts[kind], arm))
    return plan


def _run_armed(
    world: World, stage: str, shim: ctypes.CDLL, kind: int, number: int, error: int
) -> Ended:
    def before() -> None:
        shim.faults_arm(str(world.home).encode(), kind, ctypes.c_long(number), error)

    return world.run(stage, before=before, tell=lambda: (shim.faults_disarm(), {})[1])


EVENTS = {
    "open": ("publish.open", "stage.open"),
    "write": ("publish.write",),
    "fsync": ("publish.fsync",),
    "rename": ("publish.before_rename", "stage.rename"),
}


def _events(world: World) -> list[tuple[str, str, int, Arm]]:
    """Count the failpoints of each command that stand for the calls of a kind."""
    plan: list[tuple[str, str, int, Arm]] = []
    for stage in world.commands:
        for kind, events in EVENTS.items():
            for event in events:
                world.restore(stage)
                count = world.run(stage, failpoint=f"{event}:0=kill").counts.get(event, 0)
                if count:
                    plan.append((stage, kind, count, partial(_run_event, world, stage, event)))
    return plan


def _run_event(world: World, stage: str, event: str, number: int, error: int) -> Ended:
    return world.run(stage, failpoint=f"{event}:{number}={errno.errorcode[error].lower()}")


def harm(world: World, stage: str, ended: Ended) -> str:
    """Judge a command that met a refusal, and its rerun; "" where all is as promised."""
    partial = 3 if stage == "index" else 1  # an input that cannot be read: the rest is indexed
    if ended.fell or ended.code not in (1, partial, *DONE[stage]):
        return f"exit {ended.code}: {ended.err[-600:]}"
    if ended.code in (1, partial) and len(ended.said) != 1:
        return f"said {ended.said}"
    if ended.code in DONE[stage] and (differing := world.differs(stage)):
        return f"ended well and published something else: {differing[:4]}"
    if left := [str(path) for path in world.home.rglob(".*.tmp")]:
        return f"left {left[:3]}"
    # Many a refusal leaves the same behind: its rerun is the same, and is seen once.
    if (stage, state := world.state()) in world.recovered:
        return ""
    again = world.run(stage)
    if again.code not in DONE[stage]:
        return f"the rerun ended with {again.code}: {again.err[-400:]}"
    if differing := world.differs(stage):
        return f"the rerun published something else: {differing[:4]}"
    world.recovered.add((stage, state))
    return ""


def small_disks(world: World, *, disks: int, seed: int = 0) -> dict[str, Any]:
    """Run all commands on file systems of growing sizes, then on one that is large enough.

    Each is a tmpfs of its own in a mount namespace of this process; skipped where this process
    may not mount.
    """
    if not _enter_namespace():
        return {"skipped": "not allowed to mount", "failures": []}
    failures: list[str] = []
    ended_at: Counter[str] = Counter()
    needed = _size(world.before["after"])
    for number in range(disks):
        size = max(1, round(needed * (number + 1) / (disks * 0.9)))
        wrong, where = _fill(world, size)
        ended_at[where] += 1
        if wrong:
            failures.append(f"{size} bytes: {wrong}")
    return {"disks": disks, "needed_bytes": needed, "full_at": dict(ended_at),
            "failures": failures}  # fmt: skip


def _fill(world: World, size: int) -> tuple[str, str]:
    """Run the commands on a disk of a size until one fails; grow it; run them again."""
    home, aside = world.home, world.home.parent / "inputs"
    for name in (".curate", "mix", ".mix.staging"):
        shutil.rmtree(home / name, ignore_errors=True)
    if not aside.exists():
        shutil.copytree(home, aside)
    inputs = _size(aside)
    _mount(home, inputs + size)
    try:
        shutil.copytree(aside, home, dirs_exist_ok=True)
        where = "nowhere"
        for stage in STAGES:
            ended = world.run(stage)
            if ended.code in DONE[stage]:
                continue
            where = stage
            if ended.fell or ended.code != 1 or len(ended.said) != 1:
                return f"{stage}: exit {ended.code} {ended.err[-500:]}", where
            if left := list(home.rglob(".*.tmp")):
                return f"{stage}: left {left[:2]}", where
            break
        _mount(home, inputs + 100_000_000, again=True)
        for stage in STAGES:
            ended = world.run(stage)
            if ended.code not in DONE[stage]:
                return f"then {stage}: exit {ended.code} {ended.err[-500:]}", where
        differing = world.differs("verify")
        return (f"then differs: {differing[:4]}" if differing else ""), where
    finally:
        _libc().umount2(str(home).encode(), 2)


def _size(folder: Path) -> int:
    """Return the bytes that a folder takes in pages of 4 KiB, folders included."""
    sizes = [path.stat().st_size for path in folder.rglob("*")]
    return sum(-(-max(size, 1) // 4096) * 4096 for size in sizes)


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _enter_namespace() -> bool:
    """Give this process mounts of its own."""
    clone_newns, private = 0x00020000, 1 << 18 | 1 << 14
    libc = _libc()
    if libc.unshare(clone_newns) != 0:
        return False
    return bool(libc.mount(b"none", b"/", None, private, None) == 0)


def _mount(home: Path, size: int, *, again: bool = False) -> None:
    flags = 32 if again else 0  # MS_REMOUNT
    options = f"size={size}".encode()
    if _libc().mount(b"tmpfs", str(home).encode(), b"tmpfs", flags, options) != 0:
        raise OSError(ctypes.get_errno(), "cannot mount")
