"""The map of shards and target as inline SVG: records in, text out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from curate.records import RankedShard, Ranking
from curate.report.numbers import format_number
from curate.report.plots import hover
from curate.report.svg import WIDE, Box, chart, dot, empty_chart, label_text, place_label
from curate.report.text import show_middle

_MOST_POINTS = 1_500
_TARGET = 8.0  # radius of the target's ring, pixels


def map_chart(ranking: Ranking, *, width: float = WIDE, standalone: bool = False) -> str:
    """Return the 2-D map of shards and target: near is alike, fuller colour is better aligned.

    Every point has its name on hover; each source is named once, at its best shard, where
    there is room. One unit is equally long in both directions.

    Args:
        ranking: its `map` ends with the target.
        width: CSS pixels.
        standalone: for a file of its own.
    """
    points = _map_points(ranking)
    if not points:
        return empty_chart(
            "no map of this ranking", width=width, label="No map", standalone=standalone
        )
    height, places = _layout(points, width)
    ranked = {shard.shard: shard for shard in ranking.shards}
    finite = [s.alignment for s in ranking.shards if math.isfinite(s.alignment)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    marks: list[str] = []
    taken = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    x, y = places[-1]
    taken[-1] = Box(x - _TARGET, y - _TARGET, x + _TARGET, y + _TARGET)
    for (name, _, _), (x, y) in reversed(list(zip(points[:-1], places[:-1], strict=True))):
        shard = ranked.get(name)
        deep = 0.2 if shard is None else 0.2 + 0.8 * _share(shard.alignment, low, high)
        title = hover(name, shard)
        marks.append(dot(x, y, 5, "fill-main line-main", title=title, opacity=deep))
    x, y = places[-1]
    marks += [
        dot(x, y, _TARGET, "ring line-warm"),
        dot(x, y, 4, "fill-warm", title=f"target {points[-1][0]}"),
    ]
    frame = Box(2, 2, width - 2, height - 2)
    labels = _map_labels(points, places, ranked, taken=taken, frame=frame)
    label = f"Map of {format_number(len(points) - 1, 'shard')} and the target {ranking.target}"
    return chart([*marks, *labels], width=width, height=height, label=label, standalone=standalone)


def _map_points(ranking: Ranking) -> list[tuple[str, float, float]]:
    """Return the points that can be drawn, the target last; of very many shards every n-th."""
    known = [point for point in ranking.map if math.isfinite(point[1] + point[2])]
    if not known or known[-1] != ranking.map[-1]:
        return []
    every = 1 + (len(known) - 2) // _MOST_POINTS if len(known) > 1 else 1
    return [*known[:-1:every], known[-1]]


def _layout(
    points: Sequence[tuple[str, float, float]], width: float
) -> tuple[float, list[tuple[float, float]]]:
    """Return the height, and each point's pixel with one scale for both directions."""
    xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
    wide, tall = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    edge = 34.0
    height = min(max(width * tall / wide, 0.42 * width), 0.72 * width)
    scale = min((width - 2 * edge) / wide, (height - 2 * edge) / tall)
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return height, [
        (width / 2 + (x - middle_x) * scale, height / 2 - (y - middle_y) * scale)
        for x, y in zip(xs, ys, strict=True)
    ]


def _map_labels(
    points: Sequence[tuple[str, float, float]],
    places: Sequence[tuple[float, float]],
    ranked: dict[str, RankedShard],
    *,
    taken: list[Box],
    frame: Box,
) -> list[str]:
    """Return the target's label, then each source's once, best first, where there is room."""
    position = {name: places[number] for number, (name, _, _) in enumerate(points[:-1])}
    wanted = [(f"target: {show_middle(points[-1][0], 22)}", places[-1], "strong halo", 11.0)]
    named: set[str] = set()
    for shard in sorted(ranked.values(), key=lambda shard: shard.rank):
        if shard.source not in named and shard.shard in position:
            named.add(shard.source)
            wanted.append((show_middle(shard.source, 22), position[shard.shard], "halo", 8.0))
    parts: list[str] = []
    for words, (x, y), classes, reach in wanted:
        found = place_label(x, y, words, taken=taken, frame=frame, reach=reach)
        if found is None and "strong" in classes:  # the target is named whatever it covers
            found = place_label(x, y, words, taken=[], frame=frame, reach=reach)
        if found is not None:
            taken.append(found[0])
            parts.append(label_text(words, *found, classes=classes))
    return parts


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low and math.isfinite(value) else 0.5
