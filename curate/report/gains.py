"""What the mix gains on each item of the target: how many are better for it, and by how much."""

from __future__ import annotations

import math
from statistics import fmean, median

from curate.records import Verification
from curate.report.numbers import format_number, format_share, format_value
from curate.report.svg import (
    WIDE,
    Scale,
    chart,
    empty_chart,
    is_narrow,
    line,
    padded,
    path,
    text,
    tick_text,
    ticks,
)


def item_gains(verification: Verification) -> list[float]:
    """Return the gain of each item, lowest first: nats/token of random minus those of the mix.

    Both are means over the seeds of their arm. Empty where either arm was not trained.
    """
    losses = []
    for name in ("random", "mix"):
        runs = [run for run in verification.runs if run.arm == name]
        if not runs:
            return []
        of_items = zip(*(run.item_nats for run in runs), strict=True)
        losses.append([fmean(nats) for nats in of_items])
    sizes = verification.runs[0].item_tokens
    return sorted((r - m) / n for r, m, n in zip(*losses, sizes, strict=True))


def token_worth(verification: Verification) -> str:
    """Return the tokens of random documents that one of the mix is worth; "" where not known.

    The curves begin after a part of the run: what is beyond their first point is "or more".
    """
    value = verification.multiplier
    if not math.isfinite(value):
        return ""
    points = next((run.points for run in verification.runs if run.points), ((1, 0.0),))
    most = points[-1][0] / points[0][0]
    beyond = ""
    if most > 1 and max(value, 1 / value) > most * (1 - 1e-9):  # it went through logarithms
        beyond = " or more" if value > 1 else " or less"
    return format_value(value, decimals=2) + beyond


def gains_chart(
    verification: Verification, *, width: float = WIDE, standalone: bool = False
) -> str:
    """Return the items in order of their gain: above the line what is better with the mix.

    Args:
        verification: any.
        width: CSS pixels.
        standalone: for a file of its own.
    """
    gains = item_gains(verification)
    if not gains:
        return empty_chart(
            "no items were measured", width=width, label="No gains", standalone=standalone
        )
    left, right, top, height = 48.0, 24.0, 22.0, max(0.34 * width, 190.0)
    bottom = height - 36
    x = Scale(0.0, 1.0, left, width - right)
    y = Scale(*padded([*gains, 0.0], 0.04), bottom, top)
    up = ticks(y.low, y.high, count=5)
    parts = [line(left, y(value), width - right, y(value), "grid") for value in up]
    for value in up:
        shown = tick_text(value, up)
        parts.append(text(shown, left - 8, y(value) + 4, classes="quiet", anchor="end"))
    for share in (0.0, 0.5, 1.0) if is_narrow(width) else (0.0, 0.25, 0.5, 0.75, 1.0):
        at = x(share)
        parts.append(text(format_share(share), at, bottom + 16, classes="quiet", anchor="middle"))
    steps = [
        (x((number + side) / len(gains)), y(gain))
        for number, gain in enumerate(gains)
        for side in (0, 1)
    ]
    ground = [(x(1.0), y(0)), (x(0.0), y(0))]
    parts.append(path([*steps, *ground], "band fill-main", closed=True))
    parts.append(path(steps, "curve line-main"))
    parts.append(line(left, y(0), width - right, y(0), "zero"))
    parts.append(text("gain, nats/token", left, top - 9, classes="quiet"))
    parts.append(text("items, least gain first", width - right, bottom + 31, classes="quiet",
                      anchor="end"))  # fmt: skip
    label = f"Gain of the mix on {format_number(len(gains), 'item')}: {better_items(gains)}"
    return chart(parts, width=width, height=height, label=label, standalone=standalone)


def better_items(gains: list[float]) -> str:
    """Return how many items gain, and the median of the gains, as a sentence's end."""
    better = sum(gain > 0 for gain in gains)
    return (
        f"{better} of {format_number(len(gains), 'item')} ({format_share(better / len(gains))}) "
        f"{'has' if better == 1 else 'have'} a lower loss after the mix than after random "
        f"documents; the median gain is {format_value(median(gains), signed=True)} nats/token"
    )
