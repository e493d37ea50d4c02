"""Charts of a ranking and a mix as inline SVG: records in, text out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from curate.records import Index, Mix, RankedShard, Ranking
from curate.report.numbers import (
    format_interval,
    format_ranks,
    format_share,
    format_tokens,
    format_value,
)
from curate.report.svg import (
    FONT_SIZE,
    WIDE,
    Box,
    Scale,
    chart,
    dot,
    interval,
    is_narrow,
    line,
    padded,
    place_label,
    rect,
    text,
    text_width,
    x_axis,
)
from curate.report.text import show_middle

_MOST_POINTS = 1_500


def ranking_chart(
    ranking: Ranking, *, width: float = WIDE, most: int = 40, standalone: bool = False
) -> str:
    """Return every shard's alignment with its interval, ceiling and floor as lines.

    Args:
        ranking: any method's.
        width: CSS pixels.
        most: shards drawn; of a longer ranking the first three quarters of that many, and
            the last.
        standalone: for a file of its own.
    """
    shards = _ends(ranking.shards, most)
    narrow = is_narrow(width)
    cells = 17 if narrow else 32
    names = [show_middle(shard.shard, cells) for shard in shards]
    left = 36 + max((text_width(name) for name in names), default=0)
    right, top, row = (16.0 if narrow else 112.0), 26.0, 21.0
    bottom = top + row * len(shards)
    lines = _reference_lines(ranking)
    spread_ends = [end for shard in shards for end in (shard.low, shard.high, shard.alignment)]
    scale = Scale(*padded([*spread_ends, *lines.values()], 0.04), left, width - right)
    parts = x_axis(scale, top - 6, bottom + 2, width=width)
    for words, value in lines.items():
        parts.append(line(scale(value), top - 6, scale(value), bottom + 2, "zero dashed"))
        parts.append(
            text(words, scale(value), top - 11, classes="quiet", anchor=_side(scale, value))
        )
    for number, (shard, name) in enumerate(zip(shards, names, strict=True)):
        middle = top + row * (number + 0.5)
        parts += _ranking_row(shard, name, middle, left=left, scale=scale)
        if not narrow:
            amount, tokens = format_value(shard.alignment), format_tokens(shard.tokens)
            parts.append(text(amount, width - 50, middle + 4, anchor="end"))
            parts.append(text(tokens, width, middle + 4, classes="quiet", anchor="end"))
    label = f"Alignment of {len(ranking.shards)} shards to {ranking.target}, with intervals"
    return chart(parts, width=width, height=bottom + 24, label=label, standalone=standalone)


def interval_strip(shard: RankedShard, ranking: Ranking, *, width: float = 180.0) -> str:
    """Return one shard's alignment and interval as a strip for a table's cell."""
    values = [v for s in ranking.shards for v in (s.low, s.high, s.alignment)]
    scale = Scale(*padded([*values, *_reference_lines(ranking).values()], 0.03), 2, width - 2)
    parts = [line(2, 8, width - 2, 8, "grid")]
    parts += [
        line(scale(value), 1, scale(value), 15, "pillar")
        for value in _reference_lines(ranking).values()
    ]
    parts += interval(shard.alignment, shard.low, shard.high, 8, scale, "main")
    label = f"{format_value(shard.alignment)}, {format_interval(shard.low, shard.high)}"
    return chart(parts, width=width, height=16, label=label, standalone=False)


def map_chart(ranking: Ranking, *, width: float = WIDE, standalone: bool = False) -> str:
    """Return the 2-D map of shards and target: near is alike, deeper colour is better aligned.

    Every point has its name on hover; each source is named once, at its best shard, where
    there is room. One unit is equally long in both directions.

    Args:
        ranking: its `map` ends with the target.
        width: CSS pixels.
        standalone: for a file of its own.
    """
    points = _map_points(ranking)
    if not points:
        note = text("no map of this ranking", width / 2, 30, classes="quiet", anchor="middle")
        return chart([note], width=width, height=60, label="No map", standalone=standalone)
    height, places = _layout(points, width)
    ranked = {shard.shard: shard for shard in ranking.shards}
    finite = [s.alignment for s in ranking.shards if math.isfinite(s.alignment)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    marks: list[str] = []
    taken = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for (name, _, _), (x, y) in reversed(list(zip(points[:-1], places[:-1], strict=True))):
        shard = ranked.get(name)
        deep = 0.2 if shard is None else 0.2 + 0.8 * _share(shard.alignment, low, high)
        marks.append(dot(x, y, 5, "fill-main", title=_hover(name, shard), opacity=deep))
    x, y = places[-1]
    marks += [
        dot(x, y, 8, "ring line-warm"),
        dot(x, y, 4, "fill-warm", title=f"target {points[-1][0]}"),
    ]
    frame = Box(2, 2, width - 2, height - 2)
    labels = _map_labels(points, places, ranked, taken=taken, frame=frame)
    label = f"Map of {len(points) - 1} shards and the target {ranking.target}"
    return chart([*marks, *labels], width=width, height=height, label=label, standalone=standalone)


def mix_chart(
    mix: Mix,
    *,
    index: Index | None = None,
    width: float = WIDE,
    most: int = 24,
    standalone: bool = False,
) -> str:
    """Return each source's share of the mix; a tick marks its share of the whole corpus.

    Args:
        mix: any.
        index: of the corpus the mix was chosen from; None leaves the ticks out.
        width: CSS pixels.
        most: sources drawn, largest first; the rest are one bar.
        standalone: for a file of its own.
    """
    natural = _natural_shares(index) if index is not None else {}
    rows = _mix_rows(mix, natural, most)
    narrow = is_narrow(width)
    names = [show_middle(name, 17 if narrow else 32) for name, _, _, _ in rows]
    left = 12 + max((text_width(name) for name in names), default=0)
    right, row = (46.0 if narrow else 116.0), 24.0
    largest = max((max(share, usual) for _, _, share, usual in rows), default=1.0) or 1.0
    scale = Scale(0.0, largest, left, width - right)
    parts: list[str] = []
    for number, ((name, tokens, share, usual), shown) in enumerate(zip(rows, names, strict=True)):
        top = row * number + 4
        title = f"{name}: {format_tokens(tokens)} tokens, {format_share(share)} of the mix"
        parts.append(text(shown, left - 10, top + 12, anchor="end"))
        parts.append(rect(left, top + 1, scale(share) - left, 14, "fill-main", title=title))
        if usual > 0:
            parts.append(line(scale(usual), top - 2, scale(usual), top + 18, "whisker line-warm"))
        across = width if narrow else width - 50
        parts.append(text(format_share(share), across, top + 12, anchor="end"))
        if not narrow:
            parts.append(
                text(format_tokens(tokens), width, top + 12, classes="quiet", anchor="end")
            )
    label = f"Tokens of the mix by source, {len(mix.sources)} sources"
    height = row * len(rows) + 6
    return chart(parts, width=width, height=height, label=label, standalone=standalone)


def _ranking_row(
    shard: RankedShard, name: str, middle: float, *, left: float, scale: Scale
) -> list[str]:
    return [
        text(str(shard.rank), 20, middle + 4, classes="quiet", anchor="end"),
        text(name, left - 8, middle + 4, anchor="end"),
        line(left, middle, scale.stop, middle, "grid"),
        *interval(
            shard.alignment,
            shard.low,
            shard.high,
            middle,
            scale,
            "main",
            title=_hover(shard.shard, shard),
        ),
    ]


def _reference_lines(ranking: Ranking) -> dict[str, float]:
    """Return ceiling and floor, where the method has them."""
    lines = {"ceiling": ranking.ceiling, "floor": ranking.floor}
    known = ranking.method == "task2vec"
    return {name: value for name, value in lines.items() if known and math.isfinite(value)}


def _side(scale: Scale, value: float) -> str:
    """Return the anchor that keeps a label at `value` inside the chart."""
    share = (scale(value) - scale.start) / (scale.stop - scale.start)
    return "start" if share < 0.1 else "end" if share > 0.9 else "middle"


def _ends(shards: Sequence[RankedShard], most: int) -> list[RankedShard]:
    if len(shards) <= most:
        return list(shards)
    last = most // 4
    return [*shards[: most - last], *shards[-last:]]


def _hover(name: str, shard: RankedShard | None) -> str:
    if shard is None:
        return name
    return (
        f"{name}: alignment {format_value(shard.alignment)}"
        f" ({format_interval(shard.low, shard.high)}),"
        f" rank {format_ranks(shard.rank_low, shard.rank_high)},"
        f" {format_tokens(shard.tokens)} tokens"
    )


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
            box, anchor = found
            taken.append(box)
            at = {"start": box.x0, "end": box.x1, "middle": (box.x0 + box.x1) / 2}[anchor]
            parts.append(text(words, at, box.y0 + FONT_SIZE - 2.5, classes=classes, anchor=anchor))
    return parts


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low and math.isfinite(value) else 0.5


def _natural_shares(index: Index) -> dict[str, float]:
    totals: dict[str, float] = {}
    for indexed in index.shards:
        source = indexed.shard.source
        totals[source] = totals.get(source, 0.0) + indexed.shard.n_tokens
    whole = sum(totals.values()) or 1.0
    return {source: tokens / whole for source, tokens in totals.items()}


def _mix_rows(
    mix: Mix, natural: dict[str, float], most: int
) -> list[tuple[str, int, float, float]]:
    """Return (name, tokens, share of the mix, share of the corpus) of each bar."""
    whole = mix.tokens or 1
    rows = [
        (source, tokens, tokens / whole, natural.get(source, 0.0))
        for source, tokens in mix.sources.items()
    ]
    if len(rows) <= most:
        return rows
    rest = rows[most - 1 :]
    sums = (
        sum(tokens for _, tokens, _, _ in rest),
        sum(share for _, _, share, _ in rest),
        sum(usual for _, _, _, usual in rest),
    )
    return [*rows[: most - 1], (f"{len(rest)} more sources", *sums)]
