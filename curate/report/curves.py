"""Charts of a verification as inline SVG: loss curves, forecast and measurement, arms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from curate.records import ArmResult, Run, Verification
from curate.report.numbers import format_interval, format_number, format_tokens, format_value
from curate.report.svg import (
    FONT_SIZE,
    WIDE,
    Box,
    Scale,
    chart,
    dot,
    empty_chart,
    interval,
    is_narrow,
    label_text,
    line,
    padded,
    path,
    place_label,
    spread,
    text,
    text_width,
    tick_text,
    ticks,
    x_axis,
)
from curate.report.text import show_middle

_SKIPPED = 0.1  # share of the tokens at the start of training that is not drawn
_MOST_STEPS = 96
_HUES = {"mix": "main", "random": "gray", "worst": "warm"}

Curve = list[tuple[float, float, float, float]]  # tokens, mean, lowest and highest over seeds


def loss_chart(verification: Verification, *, width: float = WIDE, standalone: bool = False) -> str:
    """Return the loss of every arm as it trains: mean over its seeds, their range as a band.

    It is the loss on items of the target where every run measured it, else that on the arm's own
    training data. The first tenth of training, where all arms fall steeply alike, is left out.

    Args:
        verification: any; runs without a curve are left out.
        width: CSS pixels.
        standalone: for a file of its own.
    """
    curves, of_target = arm_curves(verification)
    if not curves:
        return empty_chart(
            "no curves were recorded", width=width, label="No curves", standalone=standalone
        )
    names = {arm: show_middle(arm, 16) for arm in curves}
    right = 14 + max(text_width(name) for name in names.values())
    left, top, height = 40.0, 12.0, max(0.46 * width, 220.0)
    bottom = height - 36
    last = max(curve[-1][0] for curve in curves.values())
    first = min(curve[0][0] for curve in curves.values())
    x = Scale(first, last, left, width - right)
    y = Scale(
        *padded([end for curve in curves.values() for step in curve for end in step[2:]], 0.03),
        bottom,
        top,
    )
    parts = _axes(x, y, width=width, bottom=bottom, words="tokens trained on")
    parts.append(text("nats/token", left, top - 1, classes="quiet"))
    ordered = sorted(curves, key=lambda arm: arm in _HUES)
    for arm in ordered:
        parts += _curve(curves[arm], x, y, _hue(arm))
    ends = [y(curves[arm][-1][1]) for arm in ordered]
    for arm, end, place in zip(
        ordered, ends, spread(ends, FONT_SIZE + 2, low=top, high=bottom), strict=True
    ):
        at = x(curves[arm][-1][0])
        parts.append(line(at + 2, end, at + 10, place, "link"))
        parts.append(text(names[arm], at + 13, place + 4, classes=_ink(arm)))
    what = "Loss on the target" if of_target else "Training loss"
    label = f"{what} of {len(curves)} arms against tokens"
    return chart(parts, width=width, height=height, label=label, standalone=standalone)


def forecast_chart(
    verification: Verification, *, width: float = WIDE, standalone: bool = False
) -> str:
    """Return the forecast drop above the measured one, each with its interval.

    Args:
        verification: any.
        width: CSS pixels.
        standalone: for a file of its own.
    """
    drop, forecast = verification.drop, verification.forecast
    rows = [
        ("forecast", forecast.drop, forecast.low, forecast.high, "gray"),
        ("measured", drop.value, drop.low, drop.high, "main"),
    ]
    left, right, top, row = 72.0, 16.0, 8.0, 44.0
    bottom = top + row * len(rows)
    ends = [end for _, value, low, high, _ in rows for end in (value, low, high)]
    scale = Scale(*padded([*ends, 0.0]), left, width - right)
    parts = x_axis(scale, top, bottom, width=width, words="drop in loss, nats/token")
    parts.append(line(scale(0), top, scale(0), bottom, "zero"))
    for number, (name, value, low, high, hue) in enumerate(rows):
        middle = top + row * (number + 0.5) + 6
        parts.append(text(name, left - 12, middle + 4, anchor="end"))
        parts += interval(value, low, high, middle, scale, hue, hollow=name == "forecast")
        words = format_value(value, signed=True)
        at = _inside(scale(value) if math.isfinite(value) else left + 20, words, left, width)
        parts.append(text(words, at, middle - 10, classes="strong halo", anchor="middle"))
    label = (
        f"Forecast drop {format_value(forecast.drop)}"
        f" ({format_interval(forecast.low, forecast.high)}),"
        f" measured {format_value(drop.value)} ({format_interval(drop.low, drop.high)})"
    )
    return chart(parts, width=width, height=bottom + 38, label=label, standalone=standalone)


def arms_chart(verification: Verification, *, width: float = WIDE, standalone: bool = False) -> str:
    """Return the measured loss of every arm with its interval, its forecast as a ring.

    Args:
        verification: any.
        width: CSS pixels.
        standalone: for a file of its own.
    """
    arms = sorted(verification.arms, key=lambda arm: arm.loss)
    names = [show_middle(arm.arm, 20) for arm in arms]
    left = 14 + max((text_width(name) for name in names), default=0)
    right, top, row = 54.0, 8.0, 26.0
    bottom = top + row * len(arms)
    ends = [end for arm in arms for end in (arm.loss, arm.low, arm.high, arm.forecast_loss)]
    scale = Scale(*padded(ends), left, width - right)
    parts = x_axis(scale, top, bottom, width=width, words="loss on the target, nats/token")
    for number, (arm, name) in enumerate(zip(arms, names, strict=True)):
        middle = top + row * (number + 0.5)
        parts.append(text(name, left - 10, middle + 4, anchor="end"))
        parts += interval(arm.loss, arm.low, arm.high, middle, scale, _hue(arm.arm))
        if math.isfinite(arm.forecast_loss):
            title = f"forecast {format_value(arm.forecast_loss)}"
            parts.append(dot(scale(arm.forecast_loss), middle, 6.5, "ring line-gray", title=title))
        parts.append(text(format_value(arm.loss), width, middle + 4, classes="quiet", anchor="end"))
    label = f"Measured loss of {len(arms)} arms with intervals"
    return chart(parts, width=width, height=bottom + 38, label=label, standalone=standalone)


def alignment_chart(
    verification: Verification, *, width: float = WIDE, standalone: bool = False
) -> str:
    """Return alignment against measured loss, a point an arm, and the fitted slope.

    Args:
        verification: any; arms whose alignment is not finite are left out.
        width: CSS pixels.
        standalone: for a file of its own.
    """
    arms = [arm for arm in verification.arms if math.isfinite(arm.alignment + arm.loss)]
    left, right, top, height = 44.0, 16.0, 14.0, max(0.46 * width, 220.0)
    bottom = height - 36
    x = Scale(*padded([arm.alignment for arm in arms], 0.1), left, width - right)
    y = Scale(*padded([v for a in arms for v in (a.loss, a.low, a.high)], 0.08), bottom, top)
    parts = _axes(x, y, width=width, bottom=bottom, words="alignment of the arm's tokens")
    parts.append(text("loss on the target, nats/token", left, top - 2, classes="quiet"))
    parts += _slope(verification.slope.value, arms, x, y)
    places = [(x(arm.alignment), y(arm.loss)) for arm in arms]
    taken = [Box(px - 5, py - 5, px + 5, py + 5) for px, py in places]
    frame = Box(left, top, width, bottom)
    labels: list[str] = []
    for arm, (px, py) in zip(arms, places, strict=True):
        hue = _hue(arm.arm)
        if math.isfinite(arm.low + arm.high):
            parts.append(line(px, y(arm.low), px, y(arm.high), f"whisker line-{hue}"))
        parts.append(dot(px, py, 4.5, f"fill-{hue}", title=_arm_title(arm)))
        name = show_middle(arm.arm, 16)
        found = place_label(px, py, name, taken=taken, frame=frame, reach=9)
        if found is not None:
            taken.append(found[0])
            labels.append(label_text(name, *found, classes="quiet halo"))
    label = f"Alignment against loss of {len(arms)} arms"
    return chart([*parts, *labels], width=width, height=height, label=label, standalone=standalone)


def arm_curves(verification: Verification) -> tuple[dict[str, Curve], bool]:
    """Return the curve of every arm that has one, and whether it is of items of the target."""
    of_target = all(run.points for run in verification.runs)
    by_arm = _by_arm(verification.runs)
    curves = {arm: mean_curve(runs, of_target=of_target) for arm, runs in by_arm.items()}
    return {arm: curve for arm, curve in curves.items() if len(curve) > 1}, of_target


def mean_curve(runs: Sequence[Run], *, of_target: bool = False) -> Curve:
    """Return mean, lowest and highest loss of an arm's seeds at common token counts.

    Args:
        runs: of one arm; their steps may differ, values between steps are interpolated.
        of_target: the loss on items of the target, not on the training data.

    Returns:
        (tokens, mean, lowest, highest) at most 96 times, in order; empty without a curve.
    """
    curves = [_binned(run.points if of_target else run.curve) for run in runs]
    curves = [curve for curve in curves if len(curve) > 1]
    if not curves:
        return []
    stop = min(curve[-1][0] for curve in curves)
    start = max(max(curve[0][0] for curve in curves), _SKIPPED * stop)
    grid = [tokens for tokens, _ in curves[0] if start <= tokens <= stop]
    rows: Curve = []
    for tokens in grid:
        losses = [_at(curve, tokens) for curve in curves]
        rows.append((tokens, fmean(losses), min(losses), max(losses)))
    return rows


def _binned(curve: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Return the finite part of a curve, neighbours averaged so that few steps are left."""
    finite = [(float(tokens), loss) for tokens, loss in curve if math.isfinite(loss)]
    size = -(-len(finite) // _MOST_STEPS) or 1
    groups = [finite[start : start + size] for start in range(0, len(finite), size)]
    return [(fmean(t for t, _ in group), fmean(loss for _, loss in group)) for group in groups]


def _at(curve: Sequence[tuple[float, float]], tokens: float) -> float:
    """Return the loss at `tokens`, between the two steps around it."""
    for (t0, loss0), (t1, loss1) in pairwise(curve):
        if t0 <= tokens <= t1:
            return loss0 + (loss1 - loss0) * (tokens - t0) / (t1 - t0) if t1 > t0 else loss1
    return curve[0][1] if tokens < curve[0][0] else curve[-1][1]


def _by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    arms: dict[str, list[Run]] = {}
    for run in runs:
        arms.setdefault(run.arm, []).append(run)
    return arms


def _hue(arm: str) -> str:
    return _HUES.get(arm, "pale")


def _ink(arm: str) -> str:
    """Return the class of an arm's name: the palest hue is too faint to read."""
    return f"fill-{_hue(arm)}" if arm in _HUES else "quiet"


def _arm_title(arm: ArmResult) -> str:
    return (
        f"{arm.arm}: loss {format_value(arm.loss)} ({format_interval(arm.low, arm.high)}),"
        f" alignment {format_value(arm.alignment)}, {format_number(arm.seeds, 'seed')}"
    )


def _curve(curve: Curve, x: Scale, y: Scale, hue: str) -> list[str]:
    mean = [(x(tokens), y(loss)) for tokens, loss, _, _ in curve]
    above = [(x(tokens), y(high)) for tokens, _, _, high in curve]
    below = [(x(tokens), y(low)) for tokens, _, low, _ in reversed(curve)]
    band = path([*above, *below], f"band fill-{hue}", closed=True)
    return [band, path(mean, f"curve line-{hue}")]


def _slope(slope: float, arms: Sequence[ArmResult], x: Scale, y: Scale) -> list[str]:
    """Return the fitted line through the arms' mean, cut at the chart's edges."""
    if not math.isfinite(slope) or len(arms) < 2:
        return []
    middle_x, middle_y = fmean(a.alignment for a in arms), fmean(a.loss for a in arms)
    ends = [min(a.alignment for a in arms), max(a.alignment for a in arms)]
    if slope:
        at_edges = sorted(middle_x + (edge - middle_y) / slope for edge in (y.low, y.high))
        ends = [max(ends[0], at_edges[0]), min(ends[1], at_edges[1])]
    points = [(x(end), y(middle_y + slope * (end - middle_x))) for end in ends]
    return [line(*points[0], *points[1], "zero dashed")]


def _axes(x: Scale, y: Scale, *, width: float, bottom: float, words: str) -> list[str]:
    """Return the grid and ticks of a chart whose x is tokens or alignment."""
    across = ticks(x.low, x.high, count=3 if is_narrow(width) else 6)
    up = ticks(y.low, y.high, count=5)
    parts = [line(x.start, y(value), x.stop, y(value), "grid") for value in up]
    for value in up:
        shown = tick_text(value, up)
        parts.append(text(shown, x.start - 8, y(value) + 4, classes="quiet", anchor="end"))
    for value in across:
        shown = format_tokens(value) if x.high > 100 else tick_text(value, across)
        parts.append(text(shown, x(value), bottom + 16, classes="quiet", anchor="middle"))
    parts.append(text(words, x.stop, bottom + 31, classes="quiet", anchor="end"))
    return parts


def _inside(at: float, words: str, left: float, width: float) -> float:
    """Return the middle of a label near `at` that stays in the chart."""
    half = text_width(words) / 2
    return min(max(at, left + half), width - half)
