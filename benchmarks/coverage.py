"""How often the forecast's 90 % interval holds the loss, in worlds whose law is known.

Worlds of twelve shards in which loss follows alignment, words, three features, a log-linear law
of the shares, or the embedding; the best mix is predicted from n others.
Run: python benchmarks/coverage.py --worlds 400 --json
With --verifications FOLDER it counts what published verifications in any folder below measured:
every arm that was forecast before it trained. Copies of one verification are counted once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from curate.mixing.laws import forecast_losses
from tests.mixture_worlds import TRUTHS, draw_world


def measure(truth: str, *, n: int, worlds: int, seed: int) -> dict[str, float | int | str]:
    """Return the coverage of the interval, its median width, and the median error."""
    rng = np.random.default_rng([seed, n, TRUTHS.index(truth)])
    rows = []
    for _ in range(worlds):
        views, losses = draw_world(rng, truth, n=n)
        _, (there,) = forecast_losses(views, losses[:n], confidence=0.9)
        rows.append(
            (there.low <= losses[n] <= there.high, there.high - there.low, losses[n] - there.loss)
        )
    covered, width, error = np.array(rows, dtype=float).T
    return {
        "truth": truth,
        "mixes": n,
        "coverage": round(float(covered.mean()), 3),
        "width": round(float(np.median(width)), 3),
        "error": round(float(np.median(np.abs(error))), 3),
    }


def count_published(folder: Path) -> list[dict[str, float | str]]:
    """Return a line for each arm of each verification below a folder that was forecast."""
    found = {}
    for path in sorted(folder.rglob("verification.json")):
        verification = msgspec.json.decode(path.read_bytes())
        for arm in verification["arms"]:
            if arm.get("forecast_low") is None:
                continue
            found[verification["forecast_digest"], arm["arm"]] = {
                "target": verification["target"],
                "arm": arm["arm"],
                "loss": round(arm["loss"], 3),
                "low": round(arm["forecast_low"], 3),
                "high": round(arm["forecast_high"], 3),
                "held": float(arm["forecast_low"] <= arm["loss"] <= arm["forecast_high"]),
            }
    return list(found.values())


def main() -> None:
    """Measure, and print a line each, or JSON lines with the whole last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=400)
    parser.add_argument("--mixes", type=int, nargs="*", default=[4, 6, 8, 12])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verifications", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.verifications:
        counted = count_published(given.verifications)
        held = sum(float(row["held"]) for row in counted)
        for line in [*counted, {"held": held, "of": len(counted)}]:
            print(
                json.dumps(line) if given.json else "  ".join(f"{k} {v}" for k, v in line.items())
            )
        return
    found = [
        measure(truth, n=n, worlds=given.worlds, seed=given.seed)
        for n in given.mixes
        for truth in TRUTHS
    ]
    whole = {"coverage": round(float(np.mean([row["coverage"] for row in found])), 3)}
    show([*found, whole], as_json=given.json)


def show(rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Print a line a row."""
    for row in rows:
        print(json.dumps(row) if as_json else "  ".join(f"{k} {v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
