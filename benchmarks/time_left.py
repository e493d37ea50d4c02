"""Is the time left right? A command's own progress lines, held against when its steps ended.

    python benchmarks/time_left.py --json -- index DATA/*.jsonl.zst --shard-tokens 100k

Runs `curate` with the words after `--`, notes when each line arrives, and compares what it says is
left with what was left. Lines count from the first tenth of a step to its last twentieth (then
one unit is all that is left), of steps that take ten seconds at least.

No estimate knows what other programs will do. So the same progress is also told to the estimate
on another clock, the processor seconds that the command itself has taken, and held against those
that it took until the end: `own` is the ratio that a machine would show which gives the command
the same share of its cores all the time. `mean` is that of a mean since the start of the step.
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

from curate.report.pace import Pace

AMOUNT = r"([\d.]+)([kMBT]?)"
LINE = re.compile(
    rf"^(?P<step>.+?): (?P<share>[\d.]+)% · {AMOUNT} of {AMOUNT} · .*?(?P<left>[^·]+) left$"
)
END = re.compile(r"^(?P<step>.+?): 100%.* · took ")
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
SHORTEST_S = 10.0

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
    for when, cpu, line in lines:
        found = LINE.match(line)
        if not found or found["step"] not in ends:
            continue
        step, share = found["step"], float(found["share"]) / 100
        done, total = amount(found[3], found[4]), amount(found[5], found[6])
        paces[step].move(done, total, cpu)
        (begin, _), (end, end_cpu) = begins[step], ends[step]
        if end - begin < SHORTEST_S or not 0.1 <= share <= 0.95 or end_cpu == cpu:
            continue
        said, true = seconds_of(found["left"]), end - when
        rows.append(
            {"step": step, "share": share, "said_s": said, "true_s": round(true, 1),
             "ratio": round(max(said, 1.0) / max(true, 1.0), 2),
             "mean": round((when - begin) * (1 - share) / share / true, 2),
             "own": round((paces[step].left or 0.0) / (end_cpu - cpu), 2)}
        )  # fmt: skip
    return rows


def summary(rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return how many lines held, and how far off the others were."""
    ratios = sorted(row[kind] for row in rows)
    return {
        f"{kind}_within_1_5": sum(1 / 1.5 <= ratio <= 1.5 for ratio in ratios),
        f"{kind}_lowest": ratios[0] if ratios else None,
        f"{kind}_highest": ratios[-1] if ratios else None,
    }


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--workspace", help="of a run before; left out: an empty one")
    parser.add_argument("words", nargs="+", help="of the command, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        code, lines = watch(given.words, given.workspace or empty)
    rows = held_against(lines)
    result = {
        "command": given.words[0], "exit_code": code, "lines": len(rows),
        **summary(rows, "ratio"), **summary(rows, "mean"), **summary(rows, "own"),
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
    print("{ratio_within_1_5} of {lines} lines within a factor of 1.5, "
          "{own_within_1_5} on the command's own clock".format(**result))  # fmt: skip


if __name__ == "__main__":
    main()
