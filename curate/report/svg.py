"""Pieces of SVG as text: escaped elements, axes, intervals, labels kept apart."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from curate.report.numbers import format_interval, format_value
from curate.report.text import show, show_middle
from curate.report.theme import CHART_STYLE, PALETTE_STYLE

WIDE, NARROW = 760.0, 360.0  # CSS pixels of a chart on a desk and on a phone
_NARROW_BELOW = 520.0
_EDGE = 12.0  # pixels around a chart that is a file of its own
FONT_SIZE = 12.0  # CSS pixels at full width
_AIR = 1.0  # pixels above and below a label that nothing else may take
_CELL = 0.62  # width of a letter or digit of the widest of the sans fonts, in font sizes
_NARROW, _SLIM = frozenset("fijlrtI.,:;'|!()[]{}- "), 0.4
_BROAD, _WIDE_CELL = frozenset("mwMWQOG@%&+=…—"), 0.98


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map of values `low` to `high` onto pixels `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`, kept within the scale."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle that a label or a mark takes, in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def meets(self, other: Box) -> bool:
        """Tell whether two rectangles overlap."""
        return (
            self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1
        )


def chart(
    parts: Sequence[str], *, width: float, height: float, label: str, standalone: bool
) -> str:
    """Return the `<svg>` of `parts`.

    Args:
        parts: elements, escaped.
        width: CSS pixels at full size.
        height: the same.
        label: what it shows, for those who do not see it; from data or not.
        standalone: bring style and background, for a file of its own.
    """
    style = f"<style>{PALETTE_STYLE}{CHART_STYLE}</style>" if standalone else ""
    edge = _EDGE if standalone else 0.0
    view = f"{_n(-edge)} {_n(-edge)} {_n(width + 2 * edge)} {_n(height + 2 * edge)}"
    ground = (
        f'<rect x="{_n(-edge)}" y="{_n(-edge)}" width="100%" height="100%" fill="var(--paper)"/>'
        if standalone
        else ""
    )
    space = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    size = f' width="{_n(width + 2 * edge)}" height="{_n(height + 2 * edge)}"' if standalone else ""
    return (
        f'<svg{space} class="chart" viewBox="{view}"{size} role="img"'
        f' aria-label="{escape(label)}">{style}{ground}{"".join(parts)}</svg>'
    )


def empty_chart(words: str, *, width: float, label: str, standalone: bool) -> str:
    """Return the chart of nothing: a line that says what is not there."""
    note = text(words, width / 2, 30, classes="quiet", anchor="middle")
    return chart([note], width=width, height=60, label=label, standalone=standalone)


def escape(text: str) -> str:
    """Return text from data, shown and escaped for an element or a quoted attribute."""
    return html.escape(show(text), quote=True)


def text(
    words: str, x: float, y: float, *, classes: str = "", anchor: str = "start", most: int = 0
) -> str:
    """Return a line of text; `most` > 0 cuts it in the middle at that many cells."""
    cut = show_middle(words, most) if most else show(words)
    named = f' class="{classes}"' if classes else ""
    side = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{_n(x)}" y="{_n(y)}"{named}{side}>{html.escape(cut)}</text>'


def line(x0: float, y0: float, x1: float, y1: float, classes: str) -> str:
    """Return a straight line."""
    return f'<line class="{classes}" x1="{_n(x0)}" y1="{_n(y0)}" x2="{_n(x1)}" y2="{_n(y1)}"/>'


def rect(x: float, y: float, width: float, height: float, classes: str, *, title: str = "") -> str:
    """Return a rectangle with round corners, its title shown on hover."""
    return (
        f'<rect class="{classes}" x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0))}"'
        f' height="{_n(height)}" rx="1.5">{title_element(title)}</rect>'
    )


def dot(
    x: float, y: float, radius: float, classes: str, *, title: str = "", opacity: float = 1.0
) -> str:
    """Return a disc, its title shown on hover."""
    seen = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
    return (
        f'<circle class="{classes}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"{seen}>'
        f"{title_element(title)}</circle>"
    )


def path(points: Sequence[tuple[float, float]], classes: str, *, closed: bool = False) -> str:
    """Return a line through `points`, or the area in them."""
    steps = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
    return f'<path class="{classes}" d="M{steps}{"Z" if closed else ""}"/>'


def title_element(title: str) -> str:
    """Return the hover title, or nothing."""
    return f"<title>{escape(title)}</title>" if title else ""


def x_axis(scale: Scale, top: float, bottom: float, *, width: float, words: str = "") -> list[str]:
    """Return grid lines from `top` to `bottom` with their values below, then what they are."""
    values = ticks(scale.low, scale.high, count=3 if is_narrow(width) else 6)
    parts = [line(scale(value), top, scale(value), bottom, "grid") for value in values]
    for value in values:
        shown = tick_text(value, values)
        parts.append(text(shown, scale(value), bottom + 15, classes="quiet", anchor="middle"))
    if words:
        parts.append(text(words, scale.stop, bottom + 31, classes="quiet", anchor="end"))
    return parts


def interval(
    value: float,
    low: float,
    high: float,
    y: float,
    scale: Scale,
    hue: str,
    *,
    title: str = "",
    hollow: bool = False,
) -> list[str]:
    """Return a value as a dot on the line of its interval; what is not finite is left out."""
    parts: list[str] = []
    if math.isfinite(low) and math.isfinite(high):
        parts.append(line(scale(low), y, scale(high), y, f"whisker line-{hue}"))
    if math.isfinite(value):
        classes = f"hollow line-{hue}" if hollow else f"fill-{hue}"
        said = title or f"{format_value(value)} ({format_interval(low, high)})"
        parts.append(dot(scale(value), y, 4.2, classes, title=said))
    return parts


def is_narrow(width: float) -> bool:
    """Tell whether a chart of that width has to be frugal with names and ticks."""
    return width < _NARROW_BELOW


def ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Return round values from `low` to `high`, about `count` of them.

    Example:
        >>> ticks(0, 1)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / count))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(span / (factor * power) - count))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    places = 2 - math.floor(math.log10(step))
    # of values hardly apart, some are one number; 0 has no sign
    return list(dict.fromkeys(round(i * step, places) + 0.0 for i in range(first, last + 1)))


def tick_text(value: float, values: Sequence[float]) -> str:
    """Return a tick's value with the places that its neighbours need."""
    step = abs(values[1] - values[0]) if len(values) > 1 else abs(value) or 1.0
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:z.{places}f}".replace("-", "−")


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """Return the range of what is finite in `values`, with room at both ends, never empty."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    room = (high - low) * share or abs(high) * share or 0.5
    return low - room, high + room


def text_width(words: str) -> float:
    """Return about how many pixels a line of text takes, hardly less: no font is at hand."""
    ems = (
        _SLIM if char in _NARROW else _WIDE_CELL if char in _BROAD else cell_len(char) * _CELL
        for char in words
    )
    return FONT_SIZE * sum(ems)


def spread(positions: Sequence[float], gap: float, *, low: float, high: float) -> list[float]:
    """Return positions near the given ones, in their order, at least `gap` apart where it fits.

    Args:
        positions: pixels.
        gap: pixels.
        low: first pixel allowed.
        high: last pixel allowed.
    """
    if not positions:
        return []
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    gap = min(gap, (high - low) / max(len(order) - 1, 1))
    placed = [min(max(positions[i], low), high) for i in order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    over = max(0.0, placed[-1] - high)
    placed[-1] -= over
    for i in range(len(placed) - 2, -1, -1):
        placed[i] = min(placed[i], placed[i + 1] - gap)
    result = [0.0] * len(positions)
    for place, i in zip(placed, order, strict=True):
        result[i] = place
    return result


def place_label(
    x: float, y: float, words: str, *, taken: Sequence[Box], frame: Box, reach: float = 7
) -> tuple[Box, str] | None:
    """Return the box and anchor of a label beside (x, y) that meets nothing, or None.

    Args:
        x: the mark's pixel.
        y: the same.
        words: the label.
        taken: boxes of marks and labels already there.
        frame: where labels may be.
        reach: pixels from the mark to its label.
    """
    width, height = text_width(words), FONT_SIZE + 2 * _AIR
    middle = y - height / 2
    tries = [
        (x + reach, middle, "start"),
        (x - reach - width, middle, "end"),
        (x - width / 2, y - reach - height, "middle"),
        (x - width / 2, y + reach, "middle"),
        (x + reach * 0.7, y - reach * 0.7 - height, "start"),
        (x + reach * 0.7, y + reach * 0.7, "start"),
        (x - reach * 0.7 - width, y - reach * 0.7 - height, "end"),
        (x - reach * 0.7 - width, y + reach * 0.7, "end"),
    ]
    for left, top, anchor in tries:
        box = Box(left, top, left + width, top + height)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 <= box.y1
        if inside and box.y1 <= frame.y1 and not any(box.meets(other) for other in taken):
            return box, anchor
    return None


def label_text(words: str, box: Box, anchor: str, *, classes: str) -> str:
    """Return the label that `place_label` found a box and an anchor for."""
    at = {"start": box.x0, "end": box.x1, "middle": (box.x0 + box.x1) / 2}[anchor]
    return text(words, at, box.y0 + _AIR + FONT_SIZE - 2.5, classes=classes, anchor=anchor)


def _n(value: float) -> str:
    """Return a coordinate with a tenth of a pixel."""
    return f"{value:z.1f}".removesuffix(".0")
