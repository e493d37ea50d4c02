"""The result as Markdown tables and as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.report.svg import (
    WIDE,
    Scale,
    chart,
    dot,
    interval,
    line,
    padded,
    text,
    text_width,
    x_axis,
)
from evidence.agreement import Interval

Floats = npt.NDArray[np.float64]
Found = Mapping[str, Mapping[str, Interval]]
COLUMNS = {
    "spearman": "within-target Spearman",
    "concordance": "pairs in order",
    "top_1": "top-1",
    "regret": "regret, nats",
    "r2": "r²",
    "r2_centred": "r² within targets",
    "spearman_minus": "Spearman minus reference",
}


def by_spearman(found: Found) -> list[str]:
    """Return the measures, the best first."""
    return sorted(found, key=lambda name: -np.nan_to_num(found[name]["spearman"].value, nan=-2))


def agreement_table(found: Found) -> str:
    """Return one row a measure, best first, as Markdown."""
    lines = [f"| measure | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name in by_spearman(found):
        lines.append(f"| {name} | {' | '.join(_cell(found[name][key]) for key in COLUMNS)} |")
    return "\n".join(lines)


def plain_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; numbers with three places."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def forecast_table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return one row a place (a target, a number of mixes) and kind of forecast."""
    rows = [(place, kind, row) for place, kinds in found.items() for kind, row in kinds.items()]
    head = ["", "forecast from", *rows[0][2]]
    return plain_table(head, [[place, kind, *row.values()] for place, kind, row in rows])


def agreement_chart(subsets: Mapping[str, Found], *, width: float = WIDE) -> str:
    """Return the within-target Spearman of every measure, one mark a subset of the cells."""
    first = next(iter(subsets.values()))
    names, hues = by_spearman(first), ("main", "warm", "gray")
    left, row, top = 20 + max(text_width(name) for name in names), 14.0 * len(subsets) + 8, 44.0
    ends = [e for f in subsets.values() for i in f.values() for e in _ends(i["spearman"])]
    scale = Scale(*padded(ends, 0.03), left, width - 12)
    bottom = top + row * len(names)
    parts = x_axis(scale, top - 6, bottom, width=width, words="within-target Spearman")
    at = left
    for hue, label in zip(hues, subsets, strict=False):
        parts += [dot(at, 14, 4.2, f"fill-{hue}"), text(label, at + 9, 18)]
        at += 30 + text_width(label)
    for number, name in enumerate(names):
        middle = top + row * (number + 0.5)
        parts.append(text(name, left - 10, middle + 4, anchor="end"))
        for turn, (hue, found) in enumerate(zip(hues, subsets.values(), strict=False)):
            each = found[name]["spearman"]
            y = middle + 12 * (turn - (len(subsets) - 1) / 2)
            parts += interval(each.value, each.low, each.high, y, scale, hue)
    label = "Within-target Spearman of each measure, with intervals"
    return chart(parts, width=width, height=bottom + 40, label=label, standalone=True)


def cells_chart(
    panels: Mapping[str, Floats], loss: Floats, near: npt.NDArray[np.bool_], *, width: float = WIDE
) -> str:
    """Return measure against loss, one panel a measure, one dot a cell, near ones in colour."""
    size, gap = (width - 46) / len(panels) - 24, 24.0
    up = Scale(*padded(loss[np.isfinite(loss)].tolist()), 24 + size, 24)
    parts: list[str] = []
    for number, (name, values) in enumerate(panels.items()):
        left = 46 + number * (size + gap)
        across = Scale(*padded(values[np.isfinite(values)].tolist()), left, left + size)
        parts.append(text(name, left + size / 2, 14, classes="strong", anchor="middle"))
        parts += x_axis(across, 24, 24 + size, width=400)
        for y in (up.low, (up.low + up.high) / 2, up.high):
            parts.append(line(left, up(y), left + size, up(y), "grid"))
            if not number:
                parts.append(text(f"{y:.1f}", left - 6, up(y) + 4, classes="quiet", anchor="end"))
        for value, nats, is_near in zip(values.flat, loss.flat, near.flat, strict=True):
            if np.isfinite(value + nats):
                hue = "fill-warm" if is_near else "fill-main"
                parts.append(dot(across(value), up(nats), 2.6, hue, opacity=0.6))
    parts.append(text("nats/token", 0, 14, classes="quiet"))
    label = "Measures against loss, one dot an arm and target; orange: the same family"
    return chart(parts, width=width, height=size + 60, label=label, standalone=True)


def selection_chart(
    arms: Mapping[str, Mapping[str, Mapping[str, Any]]], *, width: float = WIDE
) -> str:
    """Return what every arm saves against random, with its interval, one panel a target.

    Args:
        arms: target → arm → `drop`, `interval` of its loss against random, and `price`.
        width: CSS pixels.
    """
    targets = list(arms)
    means = {n: np.mean([arms[t][n]["drop"] for t in targets]) for n in arms[targets[0]]}
    names = sorted((name for name in means if name != "random"), key=lambda name: -means[name])
    left, gap, row, top = 20 + max(text_width(name) for name in names), 34.0, 19.0, 26.0
    size = (width - left - 12 - gap * (len(targets) - 1)) / len(targets)
    bottom = top + row * len(names)
    ends = [e for rows in arms.values() for name in names for e in rows[name]["interval"]]
    parts = [
        text(name, left - 10, top + row * (number + 0.5) + 4, anchor="end")
        for number, name in enumerate(names)
    ]
    for place, target in enumerate(targets):
        start = left + place * (size + gap)
        scale = Scale(*padded([0.0, *ends], 0.03), start, start + size)
        words = "nats/token below random" if target == targets[-1] else ""
        parts.append(text(target, start + size / 2, 14, classes="strong", anchor="middle"))
        parts += x_axis(scale, top, bottom, width=0, words=words)
        parts.append(line(scale(0), top, scale(0), bottom, "whisker line-gray"))
        for number, name in enumerate(names):
            each = arms[target][name]
            hue = "main" if name.endswith("by words") else "warm"
            y = top + row * (number + 0.5)
            parts += interval(each["drop"], *each["interval"], y, scale, hue)
    label = "What each mix saves against random, by target, with 90 % intervals; right is better"
    return chart(parts, width=width, height=bottom + 40, label=label, standalone=True)


def as_plain(value: Any) -> Any:
    """Return intervals and arrays as JSON knows them; what is not finite as null."""
    if isinstance(value, Interval):
        return [as_plain(value.value), as_plain(value.low), as_plain(value.high)]
    if isinstance(value, np.ndarray):
        return as_plain(value.tolist())
    if isinstance(value, Mapping):
        return {name: as_plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(each) for each in value]
    if isinstance(value, float):
        return round(value, 5) if np.isfinite(value) else None
    return value


def _cell(each: Interval) -> str:
    if not np.isfinite(each.value):
        return "–"
    return f"{each.value:.3f} ({each.low:.2f} to {each.high:.2f})".replace("-", "−")


def _ends(each: Interval) -> tuple[float, float]:
    return each.low, each.high
