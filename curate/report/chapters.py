"""The parts of the HTML report below its first screen: records in, template values out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from curate.records import (
    Comparison,
    FileLedger,
    Index,
    LeftOut,
    Mix,
    MixContents,
    Ranking,
    StageRun,
    Verification,
)
from curate.report.curves import alignment_chart, arm_curves, arms_chart, forecast_chart, loss_chart
from curate.report.gains import better_items, gains_chart, item_gains
from curate.report.numbers import format_alignment, format_share, format_value
from curate.report.plots import interval_strip, mix_chart, strip_ends
from curate.report.ranking_table import has_ceiling, tie_mark
from curate.report.shard_map import map_chart
from curate.report.svg import NARROW, WIDE
from curate.report.tables import rejections

MOST_SHARDS = 60
MOST_FILES = 40
HEATS = 10  # colours of the heat map: the style sheet has as many
REJECTED = {  # reason in the ledger: what it says of a record
    "bad_json": "not valid JSON",
    "bad_utf8": "not valid UTF-8",
    "too_deep": "JSON nested too deep",
    "missing_field": "the field of the text is missing",
    "null": "the text is null",
    "wrong_type": "the text is no string",
    "empty": "the text is empty",
    "too_long": "longer than 64 MiB",
    "truncated": "cut off with its file",
    "wrong_columns": "more or fewer fields than the header",
    "lfs_pointer": "a pointer of git lfs, not the data",
    "html_page": "a web page, not the data",
}
_TIES = {" ": "", "╭": "start", "│": "mid", "╰": "end"}


def ranking_part(ranking: Ranking) -> dict[str, Any]:
    """Return the table of a ranking, its longest cut in the middle, and the map."""
    shards = list(ranking.shards)
    last = MOST_SHARDS // 4
    hidden = max(0, len(shards) - MOST_SHARDS)
    drawn = [*shards[: MOST_SHARDS - last], *shards[-last:]] if hidden else shards
    ceiling, ends = has_ceiling(ranking), strip_ends(ranking)
    rows = [
        {
            "shard": shard,
            "tie": _TIES[tie_mark(ranking.shards, shard.rank)],
            "strip": both(interval_strip, shard, ranking, ends, widths=(180, 104)),
            "share": shard.alignment / ranking.ceiling if ceiling else math.nan,
        }
        for shard in drawn
    ]
    return {
        "record": ranking,
        "rows": rows,
        "hidden": hidden,
        "cut": MOST_SHARDS - last if hidden else -1,
        "ceiling": ceiling,
        "ties": any(shard.tied_with_next for shard in shards),
        "map": both(map_chart, ranking) if ranking.map else None,
        "drawn": len(drawn),
    }


def heat_part(comparison: Comparison) -> dict[str, Any]:
    """Return the heat map of shards and targets (alignments), or methods (ranks), as a table.

    All targets share one scale of colours; ranks are darkest at the first.
    """
    by_rank = comparison.what == "methods"
    cells = comparison.ranks if by_rank else comparison.values
    finite = [value for row in cells for value in row if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)

    def cell(value: float) -> tuple[str, str]:
        share = (value - low) / (high - low) if high > low else 0.0
        words = str(value) if by_rank else format_alignment(value)
        return words, _heat(1 - share if by_rank else share)

    columns = list(zip(*cells, strict=True))[:MOST_SHARDS]
    return {
        "record": comparison,
        "rows": [
            (shard, [cell(value) for value in values])
            for shard, values in zip(comparison.shards, columns, strict=False)
        ],
        "hidden": max(0, len(comparison.shards) - MOST_SHARDS),
        "agreement": [
            (name, [(format_value(value, decimals=2), _heat(value)) for value in row])
            for name, row in zip(comparison.columns, comparison.agreement, strict=True)
        ],
    }


def mix_part(mix: Mix, index: Index, contents: MixContents | None) -> dict[str, Any]:
    """Return what a mix holds: sources, topics, documents, and what was left out."""
    parts = sorted(mix.parts, key=lambda part: -part.tokens)
    return {
        "record": mix,
        "chart": both(mix_chart, mix, index=index),
        "parts": parts[:MOST_SHARDS],
        "hidden": max(0, len(parts) - MOST_SHARDS),
        "contents": contents,
        "left_out": [(_why(one), one) for one in contents.left_out] if contents else [],
    }


def verification_part(verification: Verification) -> dict[str, Any]:
    """Return what was measured: arms, curves, alignment against loss."""
    runs = verification.runs
    curves, of_target = arm_curves(verification)
    return {
        "record": verification,
        "curves": both(loss_chart, verification) if curves else None,
        "of_target": of_target,
        "arms_chart": both(arms_chart, verification),
        "gains": both(gains_chart, verification) if (gains := item_gains(verification)) else None,
        "better": better_items(gains) if gains else "",
        "alignment": both(alignment_chart, verification) if len(verification.arms) > 2 else None,
        "arms": sorted(verification.arms, key=lambda arm: arm.loss),
        "seconds": sum(run.seconds for run in runs),
        "tokens": max((run.tokens for run in runs), default=0),
        "n_items": len(runs[0].item_nats) if runs else 0,
    }


def forecast_part(verification: Verification) -> Markup:
    """Return the forecast beside the measured drop."""
    return both(forecast_chart, verification)


def corpus_part(index: Index) -> dict[str, Any]:
    """Return what was read: records by fate, topics, files in trouble."""
    ledgers = index.ledgers
    troubled = [ledger for ledger in ledgers if ledger.error or ledger.rejected]
    troubled.sort(key=_trouble, reverse=True)
    return {
        "index": index,
        "files": len(ledgers),
        "bytes": sum(ledger.n_bytes for ledger in ledgers),
        "seen": sum(ledger.seen for ledger in ledgers),
        "accepted": sum(ledger.accepted for ledger in ledgers),
        "reasons": rejections(index),
        "troubled": troubled[:MOST_FILES],
        "hidden": max(0, len(troubled) - MOST_FILES),
        "topics": [group for group in index.groups if group.examples][:MOST_SHARDS],
    }


def cost_part(
    history: Sequence[StageRun], verification: Verification | None
) -> dict[str, Any] | None:
    """Return what each stage cost, all its runs together; None where nothing was noted."""
    if not history:
        return None
    rows = []
    for stage in dict.fromkeys(run.stage for run in history):
        runs = [run for run in history if run.stage == stage]
        rows.append(
            {
                "stage": stage,
                "runs": len(runs),
                "broken": sum(not run.ended for run in runs),
                "seconds": sum(run.seconds for run in runs),
                "cpu": sum(run.cpu_seconds for run in runs),
                "peak": max(run.peak_bytes for run in runs),
            }
        )
    trained = sum(run.tokens for run in verification.runs) if verification else 0
    return {"rows": rows, "seconds": sum(row["seconds"] for row in rows), "trained": trained}


def both(
    draw: Callable[..., str],
    *records: Any,
    widths: tuple[float, float] = (WIDE, NARROW),
    **more: Any,
) -> Markup:
    """Return a chart drawn twice, for a desk and for a phone; the style shows one of them."""
    wide, narrow = (draw(*records, width=width, **more) for width in widths)
    # the charts escape everything that they show
    return Markup(f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>')


def _heat(share: float) -> str:
    """Return the class of a cell whose value is `share` of the way to the highest."""
    if not math.isfinite(share):
        return ""
    return f"h{min(HEATS - 1, max(0, int(share * HEATS)))}"


def _why(one: LeftOut) -> str:
    if one.reason == "leak":
        return f"holds {one.of} of the target: {one.words}"
    if one.reason == "near":
        return f"like {one.of} ({format_share(one.overlap)} alike)"
    return f"the same as {one.of}"


def _trouble(ledger: FileLedger) -> tuple[bool, int]:
    return bool(ledger.error), sum(ledger.rejected.values())
