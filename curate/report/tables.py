"""Terminal tables of the records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from curate.records import Forecast, Index, Mix, RankedShard, Ranking, Verification
from curate.report.numbers import (
    MISSING,
    format_bytes,
    format_count,
    format_interval,
    format_ranks,
    format_share,
    format_tokens,
    format_value,
)
from curate.report.text import show, show_middle
from curate.settings import ALIGNMENTS

_NAME_CELLS = 34
_EIGHTHS = " ▏▎▍▌▋▊▉"
_VERDICT_STYLE = {"confirmed": "green", "better": "green", "worse": "yellow", "refuted": "red"}


def bar(share: float, cells: int) -> str:
    """Return a bar of `cells` cells filled to `share`, 0 to 1, in eighths of a cell.

    Example:
        >>> bar(0.5, 4)
        '██  '
    """
    if not math.isfinite(share):
        return " " * cells
    eighths = round(min(max(share, 0.0), 1.0) * cells * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(cells)


@dataclass(frozen=True, slots=True)
class Fitting:
    """The same content from wide to narrow: the first that the terminal holds is printed."""

    choices: tuple[RenderableType, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the first choice that fits, or the last."""
        endless = options.update(max_width=10_000)
        for choice in self.choices[:-1]:
            if Measurement.get(console, endless, choice).maximum <= options.max_width:
                yield choice
                return
        yield self.choices[-1]


@dataclass(frozen=True, slots=True)
class Screenful:
    """A table of so many rows that it fits the terminal; off a terminal, of `most`."""

    build: Callable[[int], RenderableType]  # rows → table
    most: int
    around: int = 8  # lines that are not rows: head, notes, the prompt

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table with as many rows as there is height for, eight at least."""
        room = max(8, console.height - self.around) if console.is_terminal else self.most
        yield self.build(min(self.most, room))


def ranking_table(ranking: Ranking, *, most: int = 40) -> RenderableType:
    """Return the ranking: bars, intervals, ties in brackets, share of the ceiling.

    Args:
        ranking: any method's.
        most: shards shown at most, fewer on a low terminal: the first three quarters of that
            many, and the last.
    """
    return Screenful(lambda rows: _ranking_rows(ranking, rows), most)


def _ranking_rows(ranking: Ranking, most: int) -> RenderableType:
    wanted = ["", "rank", "shard", "source", "tokens", "alignment", " ", "interval", "ranks"]
    if all(shard.shard == shard.source for shard in ranking.shards):
        wanted.remove("source")
    if has_ceiling(ranking):
        wanted.append("of ceiling")
    order = ("source", "of ceiling", "tokens", " ")  # what a narrow terminal loses first
    tables = [
        _ranking_columns(ranking, [name for name in wanted if name not in order[:lost]], most)
        for lost in range(len(order) + 1)
    ]
    return Group(Fitting(tuple(tables)), *_ranking_notes(ranking))


def mix_table(mix: Mix) -> RenderableType:
    """Return what the mix holds, by source, and its forecast."""
    table = _table("source", "tokens", "share", "", "epochs")
    largest = max(mix.sources.values(), default=0)
    for source, tokens in mix.sources.items():
        table.add_row(
            Text(show_middle(source, _NAME_CELLS)),
            format_tokens(tokens),
            format_share(tokens / mix.tokens) if mix.tokens else MISSING,
            Text(bar(tokens / largest if largest else 0, 24), style="cyan"),
            format_value(_epochs(mix, source), decimals=2),
        )
    lines = [
        f"{format_count(mix.tokens)} tokens of a budget of {format_count(mix.budget)}, "
        f"in {show(mix.folder)}",
        f"alignment to {show(mix.target)}: {format_value(mix.alignment)}"
        f" ({format_interval(mix.low, mix.high)})",
        f"taken out: {format_count(mix.decontaminated)} documents that hold an item of the target,"
        f" {format_count(mix.duplicates)} duplicates",
        forecast_sentence(mix.forecast),
    ]
    bad = [
        "this mix is forecast to do worse than natural proportions: compare with "
        "--selection match, or rank by --method lexical"
    ]
    warnings = _warnings(bad if mix.forecast.high < 0 else [])
    return Group(table, *[Text(line) for line in lines], *warnings)


def verification_table(verification: Verification) -> RenderableType:
    """Return the verdict, then every arm's loss with its interval."""
    verdict = Text(verification.verdict.upper(), style="bold")
    verdict.stylize(_VERDICT_STYLE[verification.verdict])
    verdict.append("  " + show(verification.sentence), style="not bold default")
    table = _table("arm", "loss", "interval", "forecast", "alignment", "seeds")
    for arm in sorted(verification.arms, key=lambda arm: arm.loss):
        table.add_row(
            Text(show(arm.arm, _NAME_CELLS)),
            format_value(arm.loss),
            format_interval(arm.low, arm.high),
            format_value(arm.forecast_loss),
            format_value(arm.alignment),
            str(arm.seeds),
        )
    drop = verification.drop
    lines = [
        f"measured drop {format_value(drop.value, signed=True)} nats/token"
        f" ({format_interval(drop.low, drop.high, signed=True)})",
        forecast_sentence(verification.forecast)
        + (f", from {show(verification.law)}" if verification.law else ""),
        *_more(verification),
    ]
    said = [Text(line) for line in lines]
    return Group(verdict, table, *_tasks(verification), *said, *_warnings(verification.warnings))


def _tasks(verification: Verification) -> list[Table]:
    """Return what the arms score on tasks of a harness, with intervals; nothing without any."""
    if not verification.outcomes:
        return []
    table = _table("task, mean over items", "arm", "value", "interval", "mix minus random")
    for name, gain in verification.outcomes.items():
        arms = sorted(verification.arms, key=lambda arm: -arm.outcomes[name].value)
        for row, arm in enumerate(arms):
            found, is_mix = arm.outcomes[name], arm.arm == "mix"
            between = format_interval(gain.low, gain.high, signed=True)
            table.add_row(
                Text("" if row else show(name, 48)),
                Text(show(arm.arm, _NAME_CELLS)),
                format_value(found.value),
                format_interval(found.low, found.high),
                f"{format_value(gain.value, signed=True)} ({between})" if is_mix else "",
            )
    return [table]


def _more(verification: Verification) -> list[str]:
    """Return lines on the price, the compute multiplier and the fit, where they are known."""
    lines = []
    price = verification.price
    if math.isfinite(price.value):
        lines.append(
            f"on held-out documents of the natural mix the mix costs "
            f"{format_value(price.value, signed=True)} nats/token"
            f" ({format_interval(price.low, price.high, signed=True)})"
        )
    if math.isfinite(verification.multiplier):
        lines.append(
            f"a token of the mix does what {format_value(verification.multiplier, decimals=2)} "
            "tokens of random documents do"
        )
    if math.isfinite(verification.r2):
        slope = verification.slope
        lines.append(
            f"loss on alignment over the arms: slope {format_value(slope.value, decimals=2)}"
            f" ({format_interval(slope.low, slope.high, decimals=2)}), r² {verification.r2:.2f}"
            f" ({format_interval(verification.r2_low, verification.r2_high, decimals=2)}), "
            f"p {verification.p_value:.2g}, Spearman {verification.spearman:.2f}"
        )
    if verification.seeds_needed:
        lines.append(
            f"{verification.seeds_needed} seeds an arm show the forecast drop at 90 % power"
        )
    return lines


def index_table(index: Index) -> RenderableType:
    """Return shards by source, and what became of every record read."""
    table = _table("source", "shards", "documents", "tokens", "")
    totals: dict[str, list[int]] = {}
    for indexed in index.shards:
        total = totals.setdefault(indexed.shard.source, [0, 0, 0])
        for place, number in enumerate((1, indexed.shard.n_documents, indexed.shard.n_tokens)):
            total[place] += number
    largest = max((total[2] for total in totals.values()), default=0)
    for source, (shards, documents, tokens) in sorted(totals.items()):
        table.add_row(
            Text(show_middle(source, _NAME_CELLS)),
            format_count(shards),
            format_count(documents),
            format_tokens(tokens),
            Text(bar(tokens / largest if largest else 0, 24), style="cyan"),
        )
    probe = index.probe
    line = f"probe {show(probe.name)}, {format_tokens(probe.n_parameters)} parameters"
    return Group(table, Text(line), *_ledger(index))


def result_console(*, stderr: bool = False) -> Console:
    """Return a console that reads nothing as markup and, off a terminal, does not squeeze."""
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal and console.width < 140:
        console.width = 140
    return console


def forecast_sentence(forecast: Forecast) -> str:
    """Return the forecast as a person would say it."""
    return (
        f"forecast drop {format_value(forecast.drop, signed=True)} nats/token"
        f" ({format_interval(forecast.low, forecast.high, signed=True)})"
    )


def has_ceiling(ranking: Ranking) -> bool:
    """Tell whether alignment is on the scale of a ceiling (only for the Fisher embeddings)."""
    return ranking.method == "task2vec" and math.isfinite(ranking.ceiling) and ranking.ceiling > 0


def own_words_sentence(ranking: Ranking) -> str:
    """Say what a lexical alignment is measured against."""
    half = ""
    if math.isfinite(ranking.ceiling):
        half = f"; half of the target reaches {format_value(ranking.ceiling)} on the other half"
    return f"alignment 1: words just as likely as in the target{half}"


def bar_range(ranking: Ranking) -> tuple[float, float]:
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


def rejections(index: Index) -> dict[str, int]:
    """Return rejected records by reason over all files, most first."""
    totals: dict[str, int] = {}
    for ledger in index.ledgers:
        for reason, count in ledger.rejected.items():
            totals[reason] = totals.get(reason, 0) + count
    return dict(sorted(totals.items(), key=lambda pair: (-pair[1], pair[0])))


def _ranking_columns(ranking: Ranking, names: Sequence[str], most: int) -> Table:
    table = _table(*names)
    reach = bar_range(ranking)
    shown, hidden = _ends(ranking.shards, most)
    for position, shard in enumerate(shown):
        if hidden and position == len(shown) - most // 4:
            note: dict[str, RenderableType] = {
                "rank": "…",
                "shard": Text(f"{format_count(hidden)} shards between", "dim"),
            }
            table.add_row(*[note.get(name, "") for name in names])
        cells = _ranking_cells(shard, ranking, reach)
        table.add_row(*[cells[name] for name in names])
    return table


def _ranking_cells(
    shard: RankedShard, ranking: Ranking, reach: tuple[float, float]
) -> dict[str, RenderableType]:
    """Return the cell of every column by its header."""
    low, high = reach
    return {
        "": Text(tie_mark(ranking.shards, shard.rank), style="dim"),
        "rank": str(shard.rank),
        "shard": Text(show_middle(shard.shard, _NAME_CELLS)),
        "source": Text(show_middle(shard.source, 20), style="dim"),
        "tokens": format_tokens(shard.tokens),
        "alignment": format_value(shard.alignment),
        " ": Text(bar((shard.alignment - low) / (high - low), 14), style="cyan"),
        "interval": format_interval(shard.low, shard.high),
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
    if ranking.method == "lexical":
        yield Text(own_words_sentence(ranking), style="dim")
    if any(shard.tied_with_next for shard in ranking.shards):
        yield Text("╭╰ joins shards that their intervals cannot tell apart", style="dim")
    yield from _warnings(ranking.warnings)


def _ledger(index: Index) -> Iterable[Text]:
    seen = sum(ledger.seen for ledger in index.ledgers)
    accepted = sum(ledger.accepted for ledger in index.ledgers)
    size = format_bytes(sum(ledger.n_bytes for ledger in index.ledgers))
    yield Text(
        f"{format_count(len(index.ledgers))} files, {size}: {format_count(seen)} records seen, "
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


def _warnings(warnings: Sequence[str]) -> list[Text]:
    return [Text(f"! {show(warning)}", style="yellow") for warning in warnings]


def _table(*headers: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
        header_style="bold",
    )
    right = {
        "rank",
        "tokens",
        "alignment",
        "ranks",
        "share",
        "epochs",
        "loss",
        "forecast",
        "of ceiling",
    }
    for header in headers:
        justify = header in right | {"forecast", "seeds", "shards", "documents"}
        names = header in {"shard", "source", "arm"}
        table.add_column(
            header,
            justify="right" if justify else "left",
            overflow="ellipsis" if names else "fold",
            no_wrap=True,
        )
    return table


def _ends(shards: Sequence[RankedShard], most: int) -> tuple[list[RankedShard], int]:
    """Return the first and last of a long ranking, and how many are left out between."""
    if len(shards) <= most:
        return list(shards), 0
    last = most // 4
    return [*shards[: most - last], *shards[-last:]], len(shards) - most


def _epochs(mix: Mix, source: str) -> float:
    """Return how often the source's own tokens are passed, the most over its shards."""
    return max(part.epochs for part in mix.parts if part.source == source)
