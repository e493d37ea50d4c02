"""A verification on a terminal: the verdict, arms, tasks, what else was found."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.text import Text

from curate.records import Verification, seeds_that_show
from curate.report.gains import token_worth
from curate.report.grid import NAME_CELLS, Columns, warning_lines
from curate.report.numbers import format_alignment, format_interval, format_value, with_minus
from curate.report.tables import forecast_sentence
from curate.report.text import show

_VERDICT_STYLE = {"confirmed": "green", "better": "green", "worse": "yellow", "refuted": "red"}


def verification_table(verification: Verification) -> RenderableType:
    """Return the verdict, then every arm's loss with its interval."""
    verdict = Text(verification.verdict.upper(), style="bold")
    verdict.stylize(_VERDICT_STYLE[verification.verdict])
    verdict.append("  " + show(with_minus(verification.sentence)), style="not bold default")
    rows = [
        (
            arm.arm,
            format_value(arm.loss),
            format_interval(arm.low, arm.high),
            format_value(arm.forecast_loss),
            format_alignment(arm.alignment),
            str(arm.seeds),
        )
        for arm in sorted(verification.arms, key=lambda arm: arm.loss)
    ]
    table = Columns(
        ("arm", "loss", "interval", "forecast", "alignment", "seeds"),
        rows,
        lost=("seeds", "alignment"),
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
    return Group(
        verdict, table, *_tasks(verification), *said, *warning_lines(verification.warnings)
    )


def _tasks(verification: Verification) -> list[Columns]:
    """Return what the arms score on tasks of a harness, with intervals; nothing without any."""
    if not verification.outcomes:
        return []
    rows: list[tuple[str, ...]] = []
    for name, gain in verification.outcomes.items():
        arms = sorted(verification.arms, key=lambda arm: -arm.outcomes[name].value)
        for row, arm in enumerate(arms):
            found, is_mix = arm.outcomes[name], arm.arm == "mix"
            between = format_interval(gain.low, gain.high, signed=True)
            cells = (
                "" if row else name,
                show(arm.arm, NAME_CELLS),
                format_value(found.value),
                format_interval(found.low, found.high),
                f"{format_value(gain.value, signed=True)} ({between})" if is_mix else "",
            )
            rows.append(cells)
    headers = ("task, mean over items", "arm", "value", "interval", "mix minus random")
    return [Columns(headers, rows, lost=("interval",), name_cells=48)]


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
    if worth := token_worth(verification):
        lines.append(f"a token of the mix does what {worth} tokens of random documents do")
    if math.isfinite(verification.r2):
        slope = verification.slope
        lines.append(
            f"loss on alignment over the arms: slope {format_value(slope.value, decimals=2)}"
            f" ({format_interval(slope.low, slope.high, decimals=2)}), r² {verification.r2:z.2f}"
            f" ({format_interval(verification.r2_low, verification.r2_high, decimals=2)}), "
            f"p {verification.p_value:.2g}, Spearman {verification.spearman:z.2f}"
        )
    if verification.seeds_needed:
        lines.append(seeds_that_show(verification.seeds_needed))
    return lines
