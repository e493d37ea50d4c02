"""Run the fault suites and print their counts: `python -m tests.faults [--small] [SUITE ...]`.

`make faults` runs all of them; the default tests run `--small`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import damage, disks, kills, memory, stops, together
from tests.faults.world import SETTINGS, STAGES, World, open_world

Suite = Callable[[World, int], dict[str, Any]]

SUITES: dict[str, tuple[Suite, int, int]] = {
    "kill": (lambda w, n: kills.kill_everywhere(w, trials=n), 8, 500),
    "kill again": (lambda w, n: kills.kill_recovery(w, chains=n), 1, 100),
    "refuse": (lambda w, n: disks.refuse_everywhere(w, trials=n), 6, 10_000),
    "stop": (lambda w, n: stops.stop_everywhere(w, trials=n), 4, 100),
    "stop rudely": (lambda w, n: stops.stop_rudely(w, trials=n), 1, 32),
    "flip": (lambda w, n: damage.flip_bits(w, flips=n), 12, 1000),
    "delete": (lambda w, n: damage.delete_outputs(w, deletions=n), 2, 100),
    "change": (lambda w, n: damage.change_bytes(w, changes=n), 2, 100),
    "change nothing": (lambda w, n: damage.change_nothing(w, rounds=n), 2, 50),
    "together": (lambda w, n: together.run_together(w, rounds=n), 1, 200),
    "stale locks": (lambda w, n: together.stale_locks(w, rounds=n), 3, 50),
    "out of memory": (lambda w, n: memory.run_out_of_memory(w, trials=n), 1, 40),
    "not a number": (lambda w, n: memory.poison(w, trials=n), 1, 50),
    "many shards": (
        lambda w, n: memory.index_many(w.home.parent, shards=n, every=max(2, n // 20)),
        60,
        10_000,
    ),
    # last: it gives this process mounts of its own
    "small disks": (lambda w, n: disks.small_disks(w, disks=n), 2, 25),
}
"""What each does, how often in the default tests, how often by `make faults`; of `refuse` all."""


def main() -> int:
    """Run, print one JSON line a suite, and say by the exit code whether anything failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}; all by default")
    parser.add_argument("--small", action="store_true", help="as the default tests run it")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts")
    parser.add_argument("--grouped", action="store_true", help="a corpus grouped by a field")
    parser.add_argument(
        "--commands", default=",".join(STAGES), help="to kill and to refuse, of %(default)s"
    )
    parser.add_argument("--part", default="1/1", help="of refuse: such as 2/3, every third refusal")
    arguments = parser.parse_args()
    settings = SETTINGS
    if arguments.grouped:
        settings = SETTINGS.replace("[embed]", 'group_by = "field:topic"\n[embed]', 1)
    # In memory where that can be: a sync costs nothing there, and a kill is a kill.
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shm if os.access(shm, os.W_OK) else None))
    try:
        _with_shim(folder)
        return _run(folder, settings, arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(os.environ.get("CURATE_FAULTS", folder), ignore_errors=True)


def _with_shim(folder: Path) -> None:
    """Start this process anew with the shim that fails system calls, where it can be built."""
    if "CURATE_FAULTS" in os.environ:
        return
    shim = disks.build_shim(folder)
    if shim is not None:
        lasting = Path(tempfile.mkdtemp()) / "shim.so"
        shutil.copy(shim, lasting)
        shutil.rmtree(folder)
        os.environ.update(LD_PRELOAD=str(lasting), CURATE_FAULTS=str(lasting.parent))
        os.execv(sys.executable, [sys.executable, "-m", "tests.faults", *sys.argv[1:]])


def _run(folder: Path, settings: str, arguments: argparse.Namespace) -> int:
    import torch

    torch.set_num_threads(1)  # a fork with more threads than one may wait for ever
    os.environ["TMPDIR"] = str(folder)  # temporary files of the commands: in memory as well
    tempfile.tempdir = None
    world = open_world(folder, settings=settings)
    part, parts = map(int, arguments.part.split("/"))
    world.parts = (part, parts)
    world.commands = tuple(arguments.commands.split(","))
    failed = False
    for name in arguments.suites or SUITES:
        suite, small, full = SUITES[name]
        began, before = time.monotonic(), os.times()
        count = small if arguments.small else max(1, round(full * arguments.share))
        found = suite(world, count)
        after = os.times()
        spent = sum(after[:4]) - sum(before[:4])
        failed |= bool(found["failures"])
        line = {"suite": name, **found, "cpu_s": round(spent, 1),
                "wall_s": round(time.monotonic() - began)}  # fmt: skip
        print(json.dumps(line), flush=True)  # noqa: T201
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
