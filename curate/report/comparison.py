"""Tables of rankings side by side, and of what explains one shard's place."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from curate.harmless import csv_cell
from curate.records import (
    AlignmentCheck,
    Comparison,
    Contribution,
    Explanation,
    Interval,
    Ranking,
)
from curate.report.grid import Columns, bar, warning_lines
from curate.report.json_lines import to_json
from curate.report.numbers import (
    format_alignment,
    format_interval,
    format_ranks,
    format_share,
    format_tokens,
    format_value,
)
from curate.report.ranking_table import has_ceiling
from curate.report.text import show

_MOST = 40  # shards shown


def ranking_csv(ranking: Ranking) -> str:
    """Return the ranking as CSV with a header, best first, without a last line break."""
    names = ["rank", "shard", "source", "tokens", "alignment", "low", "high"]
    names += ["rank_low", "rank_high", "tied_with_next"]
    rows = []
    for shard in ranking.shards:
        share = shard.alignment / ranking.ceiling if has_ceiling(ranking) else ""
        rows.append([*(getattr(shard, name) for name in names), share])
    return _csv([*names, "share_of_ceiling"], rows)


def comparison_csv(comparison: Comparison) -> str:
    """Return one line a shard, one column a method or target, as CSV with a header."""
    columns = zip(*comparison.values, strict=True)
    rows = [
        [shard.shard, shard.source, shard.tokens, *values]
        for shard, values in zip(comparison.shards, columns, strict=True)
    ]
    return _csv(["shard", "source", "tokens", *comparison.columns], rows)


def comparison_json(comparison: Comparison) -> str:
    """Return one JSON object a shard, then one with the agreement of the columns."""
    lines = []
    for place, shard in enumerate(comparison.shards):
        values = {c: v[place] for c, v in zip(comparison.columns, comparison.values, strict=True)}
        ranks = {c: r[place] for c, r in zip(comparison.columns, comparison.ranks, strict=True)}
        lines.append(
            {
                "shard": shard.shard,
                "source": shard.source,
                "tokens": shard.tokens,
                "values": values,
                "ranks": ranks,
            }
        )
    table = {
        row: dict(zip(comparison.columns, numbers, strict=True))
        for row, numbers in zip(comparison.columns, comparison.agreement, strict=True)
    }
    return "\n".join(map(to_json, [*lines, {"agreement": table}]))


def comparison_table(comparison: Comparison) -> RenderableType:
    """Return ranks of each shard under every method, or alignments to every target."""
    by_method = comparison.what == "methods"
    cells = comparison.ranks if by_method else comparison.values
    headers = [show(column, 18) for column in comparison.columns]
    rows = []
    for place, shard in enumerate(comparison.shards[:_MOST]):
        numbers = [str(row[place]) if by_method else format_alignment(row[place]) for row in cells]
        rows.append([shard.shard, format_tokens(shard.tokens), *numbers])
    table = Columns(("shard", "tokens", *headers), rows, lost=("tokens",))
    notes = [Text(f"ranks by each method, target {show(comparison.target)}")] if by_method else []
    if len(comparison.shards) > _MOST:
        notes.append(Text(f"the first {_MOST} of {len(comparison.shards):,} shards", "dim"))
    agreement = [
        [name, *[format_value(number, decimals=2) for number in row]]
        for name, row in zip(headers, comparison.agreement, strict=True)
    ]
    matrix = Columns(("Spearman", *headers), agreement)
    return Group(table, *notes, Text(""), matrix, *warning_lines(comparison.warnings))


def check_table(check: AlignmentCheck) -> RenderableType:
    """Return alignment before and after a change of the data, the whole corpus first."""
    rows: list[list[str | Text]] = []
    for change in check.changes:
        cells = [_value_cells(found) for found in (change.before, change.after)]
        note = "fell" if change.fell else ""
        if change.before is None or change.after is None:
            note = "new" if change.before is None else "gone"
        mark = Text(note, "red" if change.fell else "dim")
        rows.append([change.source or "(the corpus)", *cells[0], *cells[1], mark])
    table = Columns(("source", "before", "interval", "after", "interval", ""), rows)
    return Group(table, Text(show(check.summary()), "bold red" if check.fell else "bold"))


def check_json(check: AlignmentCheck) -> str:
    """Return one JSON object a source, the whole corpus (source "") first."""
    return "\n".join(map(to_json, check.changes))


def _value_cells(found: Interval | None) -> tuple[str, str]:
    if found is None:
        return "–", ""
    return format_value(found.value), format_interval(found.low, found.high)


def explanation_table(found: Explanation) -> RenderableType:
    """Return a shard's place, what takes away from it, its documents and its terms."""
    shard, ranking = found.shard, found.ranking
    ranks = format_ranks(shard.rank_low, shard.rank_high)
    allowed = "" if ranks == str(shard.rank) else f" (ranks {ranks})"
    line = (
        f"{show(shard.shard)}: rank {shard.rank} of {len(ranking.shards)}{allowed}, alignment to "
        f"{show(ranking.target)} {format_value(shard.alignment)} "
        f"({format_interval(shard.low, shard.high)})"
    )
    if has_ceiling(ranking):
        line += f", {format_share(shard.alignment / ranking.ceiling)} of the ceiling"
    rows = Columns(
        ("row" if found.layers else "word", "share", "usual", "target", "shard"),
        [[part.name, *_numbers(part)] for part in found.rows],
        name_cells=44,
    )
    documents = Columns(
        ("document", "alignment", "begins"),
        [
            (label, format_value(value), show(text, 84))
            for label, pairs in (("nearest", found.nearest), ("farthest", found.farthest))
            for value, text in pairs
        ],
        prose=("begins",),
    )
    notes = [
        f"{found.documents} documents, each alone and not corrected for noise",
        f"terms of the shard:  {_terms(found.shard_terms, found.target_terms)}",
        f"terms of the target: {_terms(found.target_terms, found.shard_terms)}",
        "* in both" if set(found.shard_terms) & set(found.target_terms) else "",
    ]
    if not found.layers:
        notes.insert(0, "target, shard: how often in 1,000 tokens; share: of what is missing")
    said = [Text(note) for note in notes if note]
    layers: list[RenderableType] = [_layers(found), Text("")] if found.layers else []
    return Group(Text(line), Text(""), *layers, rows, Text(""), documents, *said)


def _layers(found: Explanation) -> Columns:
    most = max((part.share for part in found.layers), default=1.0)
    rows: list[list[str | Text]] = []
    for part in found.layers:
        drawn = Text(bar(part.share / most if most > 0 else 0, 24), style="cyan")
        rows.append([part.name, format_share(part.share), drawn, format_share(part.usual)])
    return Columns(("layer", "share of what is missing", "", "usual"), rows, lost=("",))


def explanation_json(found: Explanation) -> str:
    """Return the explanation as one JSON object."""
    shard = found.shard
    names = ("shard", "source", "tokens", "rank", "alignment", "low", "high")
    parts = ("name", "share", "usual", "target", "shard")

    def listed(rows: Iterable[Contribution]) -> list[dict[str, object]]:
        return [{name: getattr(row, name) for name in parts} for row in rows]

    return to_json(
        {
            **{name: getattr(shard, name) for name in names},
            "layers": listed(found.layers),
            "rows": listed(found.rows),
            "nearest": [{"alignment": value, "text": text} for value, text in found.nearest],
            "farthest": [{"alignment": value, "text": text} for value, text in found.farthest],
            "documents": found.documents,
            "shard_terms": list(found.shard_terms),
            "target_terms": list(found.target_terms),
        }
    )


def _numbers(part: Contribution) -> list[str]:
    values = [format_value(value, decimals=2) for value in (part.target, part.shard)]
    return [f"{100 * part.share:.2f}%", f"{100 * part.usual:.2f}%", *values]


def _terms(terms: Sequence[str], others: Sequence[str]) -> str:
    return ", ".join(show(term, 30) + ("*" if term in others else "") for term in terms)


def _csv(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for row in (names, *rows):
        writer.writerow([_cell(cell) for cell in row])
    return stream.getvalue().rstrip("\n")


def _cell(value: object) -> object:
    if isinstance(value, str):
        return csv_cell(value)
    return "" if isinstance(value, float) and not math.isfinite(value) else value
