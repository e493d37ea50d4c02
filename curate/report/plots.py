"""Charts of a ranking and a mix as inline SVG: records in, text out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from curate.records import Index, Mix, RankedShard, Ranking
from curate.report.numbers import (
    format_alignment,
    format_interval,
    format_number,
    format_ranks,
    format_share,
    format_tokens,
    format_value,
)
from curate.report.svg import (
    WIDE,
    Scale,
    chart,
    interval,
    is_narrow,
    line,
    padded,
    rect,
    text,
    text_width,
    x_axis,
)
from curate.report.text import show_middle


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
            amount, tokens = format_alignment(shard.alignment), format_tokens(shard.tokens)
            parts.append(text(amount, width - 50, middle + 4, anchor="end"))
            parts.append(text(tokens, width, middle + 4, classes="quiet", anchor="end"))
    ranked = format_number(len(ranking.shards), "shard")
    label = f"Alignment of {ranked} to {ranking.target}, with intervals"
    return chart(parts, width=width, height=bottom + 24, label=label, standalone=standalone)


def strip_ends(ranking: Ranking) -> tuple[float, float]:
    """Return the values at both ends of all strips of a ranking."""
    values = [v for s in ranking.shards for v in (s.low, s.high, s.alignment)]
    return padded([*values, *_reference_lines(ranking).values()], 0.03)


def interval_strip(
    shard: RankedShard, ranking: Ranking, ends: tuple[float, float], *, width: float = 180.0
) -> str:
    """Return one shard's alignment and interval as a strip for a table's cell."""
    scale = Scale(*ends, 2, width - 2)
    parts = [line(2, 8, width - 2, 8, "grid")]
    parts += [
        line(scale(value), 1, scale(value), 15, "pillar")
        for value in _reference_lines(ranking).values()
    ]
    parts += interval(shard.alignment, shard.low, shard.high, 8, scale, "main")
    label = f"{format_value(shard.alignment)}, {format_interval(shard.low, shard.high)}"
    return chart(parts, width=width, height=16, label=label, standalone=False)


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
    names = [show_middle(name, 20 if narrow else 32) for name, _, _, _ in rows]
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
    label = f"Tokens of the mix by source, {format_number(len(mix.sources), 'source')}"
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
            title=hover(shard.shard, shard),
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


def hover(name: str, shard: RankedShard | None) -> str:
    """Return what a mark of a shard says on hover."""
    if shard is None:
        return name
    return (
        f"{name}: alignment {format_alignment(shard.alignment)}"
        f" ({format_interval(shard.low, shard.high)}),"
        f" rank {format_ranks(shard.rank_low, shard.rank_high)},"
        f" {format_tokens(shard.tokens)} tokens"
    )


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
