"""Is the time left right? A command's own progress lines, held against when its steps ended.

    python benchmarks/time_left.py --json -- index DATA/*.jsonl.zst --shard-tokens 100k
    python benchmarks/time_left.py --simulated --json

Runs `curate` with the words after `--`, notes when each line arrives, and compares what it says is
left with what was left. Lines count from the first tenth of a step to its last twentieth (then
one unit is all that is left), of steps that take ten seconds at least.

No estimate knows what other programs will do. So the same progress is also told to the estimate
on another clock, the processor seconds that the command itself has taken, and held against those
that it took until the end: `own` is the ratio that a machine would show which gives the command
the same share of its cores all the time. The others are the ratios of other estimates that are
told the same lines.

`--simulated` runs nothing: steps of 200 units, under loads that stay, change once, drift or come
and go, are told to the estimate and to others; printed is the share of lines that hold.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from curate.report.pace import Pace

AMOUNT = r"([\d.]+)([kMBT]?)"
LINE = re.compile(
    rf"^(?P<step>.+?): (?P<share>[\d.]+)% · {AMOUNT} of {AMOUNT} · .*?(?P<left>[^·]+) left$"
)
END = re.compile(r"^(?P<step>.+?): 100%.* · took ")
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
SHORTEST_S = 10.0

UNITS_DONE = 200  # of a simulated step
WALKS = 40  # simulated steps of each kind of load
LOADS = ("constant", "doubles", "halves", "comes and goes", "falls", "rises", "drifts")

Heard = tuple[float, float, str]
"""Seconds since the start, processor seconds of the command so far, line."""


def watch(words: list[str], folder: str) -> tuple[int, list[Heard]]:
    """Run a command; return its exit code, and what was heard on its stderr."""
    began, lines = time.monotonic(), []
    child = subprocess.Popen(
        [sys.executable, "-m", "curate", *words, "--workspace", folder],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert child.stderr is not None
    for line in child.stderr:
        lines.append((time.monotonic() - began, processor_seconds(child.pid), line.rstrip("\n")))
    return child.wait(), lines


def processor_seconds(session: int) -> float:
    """Return what all processes of a session took, those included that they waited for."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == session:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def seconds_of(text: str) -> float:
    """Return the seconds of `1 min 20 s`."""
    return sum(int(n) * SECONDS[unit] for n, unit in re.findall(r"(\d+) (s|min|h|d)\b", text))


def amount(number: str, unit: str) -> float:
    """Return 2500000.0 for `2.5` and `M`."""
    return float(number) * UNITS[unit]


def held_against(lines: list[Heard]) -> list[dict[str, Any]]:
    """Return step, share, seconds left said and true, and their ratio, of each line that counts."""
    ends = {found["step"]: (when, cpu) for when, cpu, line in lines if (found := END.match(line))}
    begins: dict[str, tuple[float, float]] = {}
    for when, cpu, line in lines:
        begins.setdefault(line.split(":")[0], (when, cpu))
    rows, paces = [], {step: Pace(cpu, 0.0, 1.0) for step, (_, cpu) in begins.items()}
    others = {step: Pace(when, 0.0, 1.0) for step, (when, _) in begins.items()}
    for when, cpu, line in lines:
        found = LINE.match(line)
        if not found or found["step"] not in ends:
            continue
        step, share = found["step"], float(found["share"]) / 100
        done, total = amount(found[3], found[4]), amount(found[5], found[6])
        paces[step].move(done, total, cpu)
        others[step].move(done, total, when)
        (begin, _), (end, end_cpu) = begins[step], ends[step]
        if end - begin < SHORTEST_S or not 0.1 <= share <= 0.95 or end_cpu == cpu:
            continue
        said, true = seconds_of(found["left"]), end - when
        rows.append(
            {"step": step, "share": share, "said_s": said, "true_s": round(true, 1),
             "ratio": round(max(said, 1.0) / max(true, 1.0), 2),
             "own": round((paces[step].left or 0.0) / (end_cpu - cpu), 2),
             **{name: round(left / true, 2) for name, left in estimates(others[step]).items()}}
        )  # fmt: skip
    return rows


def summary(rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return how many lines held, and how far off the others were."""
    ratios = sorted(row[kind] for row in rows)
    return {
        f"{kind}: within 1.5": sum(1 / 1.5 <= ratio <= 1.5 for ratio in ratios),
        f"{kind}: lowest": ratios[0] if ratios else None,
        f"{kind}: highest": ratios[-1] if ratios else None,
    }


def slowness(load: str, rng: np.random.Generator) -> Any:
    """Return how many times longer each unit takes under a load, (200,)."""
    n = UNITS_DONE
    slow = np.ones(n)
    change = int(n * rng.uniform(0.2, 0.7))
    if load == "doubles":
        slow[change:] = 2.0
    elif load == "halves":
        slow[:change] = 2.0
    elif load == "falls":
        slow = np.linspace(3.0, 1.0, n)
    elif load == "rises":
        slow = np.linspace(1.0, 3.0, n)
    elif load == "drifts":
        slow = np.exp(np.cumsum(rng.normal(0, 0.06, n)))
    elif load == "comes and goes":
        times = [1.0, 1.0, 1.0, 1.5, 2.0, 3.0]
        turns = [np.full(int(rng.exponential(n / 12)) + 1, rng.choice(times)) for _ in range(n)]
        slow = np.concatenate(turns)[:n]
    return slow


def estimates(pace: Pace) -> dict[str, float]:
    """Return the seconds left by the estimate as it is, and by others."""
    rates = {share: pace._rate_over(share) for share in (1.0, 1 / 2, 1 / 4, 1 / 8)}
    each = {
        "as it is": pace.rate,
        "all, half, eighth": (rates[1.0] * rates[1 / 2] * rates[1 / 8]) ** (1 / 3),
        "all, quarter, eighth": (rates[1.0] * rates[1 / 4] * rates[1 / 8]) ** (1 / 3),
        "median of all, quarter, eighth": float(np.median([rates[s] for s in (1.0, 1 / 4, 1 / 8)])),
        "last quarter": rates[1 / 4],
        "mean since the start": (pace.done - pace.first) / (pace.now - pace.started),
    }
    return {name: (pace.total - pace.done) / rate for name, rate in each.items() if rate > 0}


def simulate(load: str, spread: float) -> dict[str, float]:
    """Return the share of lines within a factor of 1.5, by estimate.

    Args:
        load: one of `LOADS`.
        spread: standard deviation of a unit's time under a constant load, of its mean.
    """
    held: dict[str, list[bool]] = {}
    for seed in range(WALKS):
        rng = np.random.default_rng(seed)
        steps = rng.gamma(spread**-2, spread**2, UNITS_DONE) * slowness(load, rng)
        moments = np.cumsum(steps) + rng.choice([0.0, 0.1]) * steps.sum()
        pace = Pace(0.0, 0.0, UNITS_DONE)
        for done, now in enumerate(moments.tolist(), start=1):
            pace.move(done, UNITS_DONE, now)
            if 0.1 <= done / UNITS_DONE <= 0.95:
                for name, left in estimates(pace).items():
                    true = moments[-1] - now
                    held.setdefault(name, []).append(bool(true / 1.5 <= left <= true * 1.5))
    return {name: round(float(np.mean(each)), 3) for name, each in held.items()}


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--workspace", help="of a run before; left out: an empty one")
    parser.add_argument("--simulated", action="store_true", help="run nothing")
    parser.add_argument("words", nargs="*", help="of the command, after --")
    given = parser.parse_args()
    if given.simulated:
        for load in LOADS:
            for spread in (0.25, 0.5):
                print(json.dumps({"load": load, "spread": spread, **simulate(load, spread)}))
        return
    if not given.words:
        parser.error("name the words of a command after --")
    with tempfile.TemporaryDirectory() as empty:
        code, lines = watch(given.words, given.workspace or empty)
    rows = held_against(lines)
    kinds = [key for key in (rows[0] if rows else ()) if key not in ("step", "share")]
    kinds = [key for key in kinds if not key.endswith("_s")]
    result = {
        "command": given.words[0], "exit_code": code, "lines": len(rows),
        **{key: value for kind in kinds for key, value in summary(rows, kind).items()},
        "first_output_s": round(lines[0][0], 2) if lines else None,
    }  # fmt: skip
    if given.json:
        for row in rows:
            print(json.dumps(row))
        print(json.dumps(result))
        return
    for row in rows:
        print(f"{row['step']:24} {row['share']:5.0%}  said {row['said_s']:5.0f} s, "
              f"true {row['true_s']:6.1f} s, ratio {row['ratio']:.2f}, "
              f"on the command's own clock {row['own']:.2f}")  # fmt: skip
    print(f"{result['ratio: within 1.5']} of {len(rows)} lines within a factor of 1.5, "
          f"{result['own: within 1.5']} on the command's own clock")  # fmt: skip


if __name__ == "__main__":
    main()
