"""Is the time left right? A command's own progress lines, held against when its steps ended.

    python benchmarks/time_left.py --json -- index DATA/*.jsonl.zst --shard-tokens 100k

Runs `curate` with the words after `--` in a folder of its own, notes when each line arrives, and
compares what it says is left with what was left. Lines count from the first tenth of a step to
its last twentieth (then one unit is all that is left), of steps that take ten seconds at least.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

LINE = re.compile(r"^(?P<step>.+?): (?P<share>[\d.]+)%.* · (?P<left>[^·]+) left$")
END = re.compile(r"^(?P<step>.+?): 100%.* · took ")
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
SHORTEST_S = 10.0


def watch(words: list[str]) -> tuple[int, list[tuple[float, str]]]:
    """Run a command; return its exit code, and (seconds since its start, line) of its stderr."""
    began, lines = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen(
            [sys.executable, "-m", "curate", *words, "--workspace", folder],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stderr is not None
        for line in child.stderr:
            lines.append((time.monotonic() - began, line.rstrip("\n")))
        return child.wait(), lines


def seconds_of(text: str) -> float:
    """Return the seconds of `1 min 20 s`."""
    return sum(int(n) * SECONDS[unit] for n, unit in re.findall(r"(\d+) (s|min|h|d)\b", text))


def held_against(lines: list[tuple[float, str]]) -> list[dict[str, Any]]:
    """Return step, share, seconds left said and true, and their ratio, of each line that counts."""
    ends = {found["step"]: when for when, line in lines if (found := END.match(line))}
    begins: dict[str, float] = {}
    for when, line in lines:
        begins.setdefault(line.split(":")[0], when)
    rows = []
    for when, line in lines:
        found = LINE.match(line)
        if not found or found["step"] not in ends:
            continue
        step, share = found["step"], float(found["share"]) / 100
        true = ends[step] - when
        if ends[step] - begins[step] < SHORTEST_S or not 0.1 <= share <= 0.95:
            continue
        said = seconds_of(found["left"])
        rows.append(
            {"step": step, "share": share, "said_s": said, "true_s": round(true, 1),
             "ratio": round(max(said, 1.0) / max(true, 1.0), 2)}
        )  # fmt: skip
    return rows


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("words", nargs="+", help="of the command, after --")
    given = parser.parse_args()
    code, lines = watch(given.words)
    rows = held_against(lines)
    ratios = sorted(row["ratio"] for row in rows)
    within = sum(1 / 1.5 <= ratio <= 1.5 for ratio in ratios)
    result = {
        "command": given.words[0], "exit_code": code, "lines": len(rows), "within_1_5": within,
        "lowest_ratio": ratios[0] if ratios else None,
        "highest_ratio": ratios[-1] if ratios else None,
        "first_output_s": round(lines[0][0], 2) if lines else None,
    }  # fmt: skip
    if given.json:
        for row in rows:
            print(json.dumps(row))
        print(json.dumps(result))
        return
    for row in rows:
        print(f"{row['step']:24} {row['share']:5.0%}  said {row['said_s']:5.0f} s, "
              f"true {row['true_s']:6.1f} s, ratio {row['ratio']:.2f}")  # fmt: skip
    print(f"{within} of {len(rows)} lines within a factor of 1.5")


if __name__ == "__main__":
    main()
