"""What tables on a terminal are made of: bars, columns, what fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from curate.report.text import show

NAME_CELLS = 34
_NAMES = {"shard", "source", "arm", "file"}
_NUMBERS = {
    *("rank", "ranks", "tokens", "alignment", "of ceiling", "share", "epochs", "loss", "forecast"),
    *("seeds", "shards", "documents", "seen", "accepted", "rejected"),
}
_EIGHTHS = " ▏▎▍▌▋▊▉"


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


def grid(*headers: str) -> Table:
    """Return an empty table with these columns: numbers to the right, names cut where narrow."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
        header_style="bold",
    )
    for header in headers:
        table.add_column(
            header,
            justify="right" if header in _NUMBERS else "left",
            overflow="ellipsis" if header in _NAMES else "fold",
            no_wrap=True,
        )
    return table


def warning_lines(warnings: Sequence[str]) -> list[Text]:
    """Return each warning as a line that stands out."""
    return [Text(f"! {show(warning)}", style="yellow") for warning in warnings]


def result_console() -> Console:
    """Return a console that reads nothing as markup and, off a terminal, does not squeeze."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal and console.width < 140:
        console.width = 140
    return console
