"""Is one measure better than the others over several series of trained models together?

    python benchmarks/pooled.py --results A.json B.json --measure ngram-lm --json
    python benchmarks/pooled.py --results A.json B.json --measure "pairs, strength 100" --prior

Reads what `alignment_vs_loss.py` (its NAME.json) or `smoothing.py --save` wrote, and gives the
mean over series of the differences in within-target Spearman and in pairs in order, with intervals:
training sets are drawn anew in each series, targets by name in all of them at once, for the
same target is no other one in another series. With --prior instead the line that `build-mix`
forecasts by (`prior.json`): the drop in loss against natural proportions on the gain in the
measure, of all cells that gain; and how many drops its interval of 90 % holds of a target, and of
a series, that it was not fitted on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence.agreement import concordance, within_spearman
from scipy.special import stdtrit

STATISTICS = {"spearman": within_spearman, "pairs": concordance}


def read_series(path: Path) -> dict[str, Any]:
    """Return the sets, targets, losses (sets, targets) and values by measure of a series."""
    details = json.loads(path.read_text(encoding="utf-8"))["details"]
    values = {name: np.array(table) for name, table in details["values"].items()}
    names = [arm["name"] for arm in details["arms"]]
    return {
        "sets": names, "targets": details["targets"], "loss": np.array(details["loss"]),
        "values": values,
    }  # fmt: skip


def differences(
    series: Sequence[Mapping[str, Any]], measure: str, other: str, *, draws: int, seed: int
) -> dict[str, dict[str, float]]:
    """Return by how much a measure is ahead of another one, mean of the series, with intervals.

    Series hold the same corpora. Sources drawn by name in all of them at once, as targets are,
    would be dependent too; it was tried, and moves no interval by more than 0.002.

    Args:
        series: of `read_series`, of the same targets.
        measure: a name of their values.
        other: likewise.
        draws: of training sets and targets.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    n = len(series[0]["targets"])

    def ahead(picks: Sequence[Any], targets: Any) -> list[float]:
        rows = []
        for one, pick in zip(series, picks, strict=True):
            cells = np.ix_(pick, targets)
            mine, theirs = (one["values"][name][cells] for name in (measure, other))
            loss = one["loss"][cells]
            rows.append([f(mine, loss) - f(theirs, loss) for f in STATISTICS.values()])
        return np.mean(rows, axis=0).tolist()

    whole = ahead([np.arange(len(one["loss"])) for one in series], np.arange(n))
    drawn = [
        ahead(
            [rng.integers(0, len(one["loss"]), len(one["loss"])) for one in series],
            rng.integers(0, n, n),
        )
        for _ in range(draws)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return {
        name: {"ahead": value, "low": float(a), "high": float(b)}
        for name, value, a, b in zip(STATISTICS, whole, low, high, strict=True)
    }


def read_gains(series: Sequence[Mapping[str, Any]], measure: str) -> dict[str, Any]:
    """Return every cell that gains on natural proportions: its gain, drop, target and series.

    Args:
        series: of `read_series`; one training set of each is `natural`.
        measure: a name of their values, in -nats/token; only what it gains by is counted.
    """
    parts: list[tuple[Any, ...]] = []
    for number, one in enumerate(series):
        natural = one["sets"].index("natural")
        gain, drop = (
            np.delete(table, natural, axis=0) - table[natural]
            for table in (one["values"][measure], -one["loss"])
        )
        rows, targets = np.nonzero(gain > 0)
        parts.append(
            (gain[rows, targets], drop[rows, targets], targets, np.full(len(rows), number))
        )
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return dict(zip(("gain", "drop", "target", "series"), columns, strict=True))


def fit_line(gain: Any, drop: Any) -> tuple[float, float]:
    """Return the slope through the origin of drop on gain, and the spread around it."""
    slope = float(gain @ drop / (gain @ gain))
    residual = drop - slope * gain
    return slope, float(np.sqrt(residual @ residual / (len(drop) - 1)))


def prior_line(series: Sequence[Mapping[str, Any]], measure: str) -> dict[str, Any]:
    """Return the line of drop on gain, and how often its interval of 90 % holds a single drop.

    `held` counts the cells that the line was fitted on, `held_target` and `held_series` those of
    each target and of each series by the line of all others: cells that share one are alike.

    Args:
        series: of `read_series`; one training set of each is `natural`.
        measure: a name of their values, in -nats/token; only what it gains by is counted.
    """
    cells = read_gains(series, measure)
    gain, drop = cells["gain"], cells["drop"]

    def inside(fitted: Any, asked: Any) -> list[bool]:
        slope, spread = fit_line(gain[fitted], drop[fitted])
        half = stdtrit(fitted.sum() - 1, 0.95) * spread
        return (np.abs(drop - slope * gain)[asked] <= half).tolist()

    every = np.ones(len(gain), dtype=bool)
    slope, spread = fit_line(gain, drop)
    found = {"slope": slope, "residual_sd": spread, "n": len(drop)}
    found["held"] = float(np.mean(inside(every, every)))
    for what in ("target", "series"):
        groups = [cells[what] == each for each in np.unique(cells[what])]
        if len(groups) > 1:
            held = [inside(~group, group) for group in groups]
            found[f"held_{what}"] = float(np.concatenate(held).mean())
            found[f"least_{what}"] = min(float(np.mean(each)) for each in held)
    return found


def main() -> None:
    """Read the arguments and print a line for each other measure, or that of `--prior`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, nargs="+", required=True)
    parser.add_argument("--measure", default="ngram-lm")
    parser.add_argument("--prior", action="store_true", help="the line of prior.json")
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args()
    series = [read_series(path) for path in given.results]
    if any(one["targets"] != series[0]["targets"] for one in series):
        parser.error("the series have other targets")
    shared = set.intersection(*(set(one["values"]) for one in series))
    if given.measure not in shared:
        parser.error(f"{given.measure} is not in all of them")
    if given.prior:
        print(json.dumps(prior_line(series, given.measure)))
        return
    found = {
        other: differences(series, given.measure, other, draws=given.draws, seed=0)
        for other in sorted(shared - {given.measure})
    }
    if given.json:
        print(json.dumps({"measure": given.measure, "ahead": found}))
        return
    for other, row in found.items():
        parts = (
            f"{k} {v['ahead']:+.4f} ({v['low']:+.4f} to {v['high']:+.4f})" for k, v in row.items()
        )
        print(f"{other}: {', '.join(parts)}")


if __name__ == "__main__":
    main()
