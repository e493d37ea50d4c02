"""An index and a mix on a terminal: sources, tokens, what became of the rest."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from curate.records import Forecast, Index, Mix
from curate.report.grid import NAME_CELLS, Columns, bar, warning_lines
from curate.report.numbers import (
    MISSING,
    format_bytes,
    format_count,
    format_interval,
    format_number,
    format_share,
    format_tokens,
    format_value,
)
from curate.report.text import show

SMALL = 0.01  # of a mix: sources below it stand in one line
FOLDED = 3  # such sources at most stand in a line each


def index_table(index: Index) -> RenderableType:
    """Return shards by source, and what became of every record read."""
    totals: dict[str, list[int]] = {}
    for indexed in index.shards:
        total = totals.setdefault(indexed.shard.source, [0, 0, 0])
        for place, number in enumerate((1, indexed.shard.n_documents, indexed.shard.n_tokens)):
            total[place] += number
    largest = max((total[2] for total in totals.values()), default=0)
    rows = [
        (
            source,
            format_count(shards),
            format_count(documents),
            format_tokens(tokens),
            Text(bar(tokens / largest if largest else 0, 24), style="cyan"),
        )
        for source, (shards, documents, tokens) in sorted(totals.items())
    ]
    table = Columns(("source", "shards", "documents", "tokens", ""), rows, lost=("", "shards"))
    probe = index.probe
    line = f"probe {show(probe.name)}, {format_tokens(probe.n_parameters)} parameters"
    return Group(table, Text(line), *_ledger(index))


def ledger_table(index: Index, *, most: int = 40) -> RenderableType:
    """Return what became of the records of each file, those with rejected ones first.

    Args:
        index: any.
        most: files shown at most.
    """
    rows = []
    ledgers = sorted(index.ledgers, key=lambda ledger: (not ledger.error, -ledger.rejected_share))
    for ledger in ledgers[:most]:
        reasons = [f"{show(reason)}: {format_count(n)}" for reason, n in ledger.rejected.items()]
        row = (
            ledger.path,
            format_count(ledger.seen),
            format_count(ledger.accepted),
            format_count(ledger.seen - ledger.accepted),
            Text(", ".join([*reasons, *filter(None, [show(ledger.error)])])),
        )
        rows.append(row)
    table = Columns(
        ("file", "seen", "accepted", "rejected", "why"),
        rows,
        lost=("accepted",),
        name_cells=2 * NAME_CELLS,
        prose=("why",),
    )
    hidden = len(ledgers) - most
    note = [Text(format_number(hidden, "more file"), "dim")] if hidden > 0 else []
    return Group(table, *note, *_ledger(index))


def mix_table(mix: Mix) -> RenderableType:
    """Return what the mix holds, by source, and its forecast; `--json` names small sources too."""
    largest = max(mix.sources.values(), default=0)
    small = [tokens for tokens in mix.sources.values() if tokens < SMALL * mix.tokens]
    small = small if len(small) > FOLDED else []
    large = {name: n for name, n in mix.sources.items() if not small or n >= SMALL * mix.tokens}
    rows = [
        (
            source,
            format_tokens(tokens),
            format_share(tokens / mix.tokens) if mix.tokens else MISSING,
            Text(bar(tokens / largest if largest else 0, 24), style="cyan"),
            format_value(_epochs(mix, source), decimals=2),
        )
        for source, tokens in large.items()
    ]
    if small:
        given = sum(small)
        share = format_share(given / mix.tokens)
        rows.append((f"… {len(small)} others", format_tokens(given), share, Text(""), MISSING))
    table = Columns(("source", "tokens", "share", "", "epochs"), rows, lost=("",))
    lines = [
        f"{format_count(mix.tokens)} tokens of a budget of {format_count(mix.budget)}, "
        f"in {show(mix.folder)}",
        f"alignment to {show(mix.target)}: {format_value(mix.alignment)}"
        f" ({format_interval(mix.low, mix.high)})",
        f"taken out: {format_number(mix.decontaminated, 'document')} that"
        f" {'holds' if mix.decontaminated == 1 else 'hold'} an item of the target,"
        f" {format_number(mix.duplicates, 'duplicate')}",
        forecast_sentence(mix.forecast),
    ]
    if mix.held_out:
        lines.insert(-1, f"held out: {format_count(mix.held_out)} tokens beside them")
    return Group(table, *[Text(line) for line in lines], *warning_lines(mix.warnings))


def forecast_sentence(forecast: Forecast) -> str:
    """Return the forecast as a person would say it."""
    return (
        f"forecast drop {format_value(forecast.drop, signed=True)} nats/token"
        f" ({format_interval(forecast.low, forecast.high, signed=True)})"
    )


def rejections(index: Index) -> dict[str, int]:
    """Return rejected records by reason over all files, most first."""
    totals: dict[str, int] = {}
    for ledger in index.ledgers:
        for reason, count in ledger.rejected.items():
            totals[reason] = totals.get(reason, 0) + count
    return dict(sorted(totals.items(), key=lambda pair: (-pair[1], pair[0])))


def _ledger(index: Index) -> Iterable[Text]:
    seen = sum(ledger.seen for ledger in index.ledgers)
    accepted = sum(ledger.accepted for ledger in index.ledgers)
    size = format_bytes(sum(ledger.n_bytes for ledger in index.ledgers))
    yield Text(
        f"{format_number(len(index.ledgers), 'file')}, {size}: "
        f"{format_number(seen, 'record')} seen, "
        f"{format_count(accepted)} accepted, {format_count(seen - accepted)} rejected"
    )
    for reason, count in rejections(index).items():
        yield Text(f"  {show(reason)}: {format_count(count)}")
    for each in index.rejected:
        reason = f"  shard {show(each.shard.name)} rejected: {show(each.reason)}"
        yield Text(reason, style="yellow")
    for ledger in index.ledgers:
        if ledger.error:
            yield Text(f"  {show(ledger.path)}: {show(ledger.error)}", style="yellow")


def _epochs(mix: Mix, source: str) -> float:
    """Return the tokens of a source for each token of its shards that the mix draws from."""
    parts = [part for part in mix.parts if part.source == source and part.epochs > 0]
    held = sum(part.tokens / part.epochs for part in parts)
    return sum(part.tokens for part in parts) / held if held else 0.0
