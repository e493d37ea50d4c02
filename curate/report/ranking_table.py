"""A ranking on a terminal: bars, intervals, ties in brackets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from curate.records import RankedShard, Ranking
from curate.report.grid import Columns, Screenful, bar, warning_lines
from curate.report.numbers import (
    MISSING,
    format_alignment,
    format_number,
    format_ranks,
    format_share,
    format_tokens,
    format_value,
)
from curate.report.text import show, show_middle
from curate.settings import ALIGNMENTS


def ranking_table(ranking: Ranking, *, most: int = 40) -> RenderableType:
    """Return the ranking: bars, intervals, ties in brackets, share of the ceiling.

    Args:
        ranking: any method's.
        most: shards shown at most, fewer on a low terminal: the first three quarters of that
            many, and the last.
    """
    return Screenful(lambda rows: _ranking_rows(ranking, rows), most)


def has_ceiling(ranking: Ranking) -> bool:
    """Tell whether alignment is on the scale of a ceiling (only for the Fisher embeddings)."""
    return ranking.method == "task2vec" and math.isfinite(ranking.ceiling) and ranking.ceiling > 0


def _own_words_sentence(ranking: Ranking) -> str:
    """Say what an alignment by words, or by token pairs, is measured against."""
    half = ""
    if ranking.ceiling > 0:
        half = f"; half of the target reaches {format_value(ranking.ceiling)} on the other half"
    if ranking.method == "ngram-lm":
        return (
            "the first shard by its words (1: just as likely as in the target), the others below "
            f"it by their token pairs{half}"
        )
    return f"alignment 1: words just as likely as in the target{half}"


def _bar_range(ranking: Ranking) -> tuple[float, float]:
    """Return the alignments at which a bar is empty and full."""
    values = [v for s in ranking.shards for v in (s.low, s.high, s.alignment) if math.isfinite(v)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if ranking.method in ALIGNMENTS and low >= 0:
        return 0.0, max(1.0, high)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def tie_mark(shards: Sequence[RankedShard], rank: int) -> str:
    """Return the bracket that joins a shard to the ones its interval cannot tell it from."""
    before = rank > 1 and shards[rank - 2].tied_with_next
    after = rank < len(shards) and shards[rank - 1].tied_with_next
    return {(False, True): "╭", (True, True): "│", (True, False): "╰"}.get((before, after), " ")


def _ranking_rows(ranking: Ranking, most: int) -> RenderableType:
    wanted = ["", "rank", "shard", "source", "tokens", "alignment", " ", "interval", "ranks"]
    if all(shard.shard == shard.source for shard in ranking.shards):
        wanted.remove("source")
    if has_ceiling(ranking):
        wanted.append("of ceiling")
    reach = _bar_range(ranking)
    shown, hidden = _ends(ranking.shards, most)
    rows = [_ranking_cells(shard, ranking, reach) for shard in shown]
    if hidden:
        note: dict[str, str | Text] = {
            "rank": "…",
            "shard": Text(f"{format_number(hidden, 'shard')} between", "dim"),
        }
        rows.insert(len(shown) - most // 4, note)
    table = Columns(
        wanted,
        [[row.get(name, "") for name in wanted] for row in rows],
        lost=("source", "of ceiling", "tokens", " ", "ranks"),
        name="shard",
        short={"alignment": "align."},
    )
    return Group(table, *_ranking_notes(ranking))


def _ranking_cells(
    shard: RankedShard, ranking: Ranking, reach: tuple[float, float]
) -> dict[str, str | Text]:
    """Return the cell of every column by its header."""
    low, high = reach
    return {
        "": Text(tie_mark(ranking.shards, shard.rank), style="dim"),
        "rank": str(shard.rank),
        "shard": shard.shard,
        "source": Text(show_middle(shard.source, 20), style="dim"),
        "tokens": format_tokens(shard.tokens),
        "alignment": format_alignment(shard.alignment),
        " ": Text(bar((shard.alignment - low) / (high - low), 14), style="cyan"),
        "interval": f"{format_alignment(shard.low)} to {format_alignment(shard.high)}",
        "ranks": format_ranks(shard.rank_low, shard.rank_high),
        "of ceiling": Text(
            format_share(shard.alignment / ranking.ceiling) if has_ceiling(ranking) else MISSING
        ),
    }


def _ranking_notes(ranking: Ranking) -> Iterable[Text]:
    what = f"{ranking.method}, {ranking.measure}" if has_ceiling(ranking) else ranking.method
    line = f"target {show(ranking.target)} · {what}"
    if has_ceiling(ranking):
        line += f" · ceiling {format_value(ranking.ceiling)} · floor {format_value(ranking.floor)}"
    yield Text(line)
    if ranking.method in ("lexical", "ngram-lm"):
        yield Text(_own_words_sentence(ranking), style="dim")
    if any(shard.tied_with_next for shard in ranking.shards):
        yield Text("╭╰ joins shards that their intervals cannot tell apart", style="dim")
    yield from warning_lines(ranking.warnings)


def _ends(shards: Sequence[RankedShard], most: int) -> tuple[list[RankedShard], int]:
    """Return the first and last of a long ranking, and how many are left out between."""
    if len(shards) <= most:
        return list(shards), 0
    last = most // 4
    return [*shards[: most - last], *shards[-last:]], len(shards) - most
