"""What tables on a terminal are made of: bars, columns, what fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from curate.report.text import show, show_middle

NAME_CELLS = 34
_SHORT_NAME, _SHORTEST_NAME = 16, 8  # cells left to a name before columns go; after they went
_LINE_OF_PROSE = 20
_WORDS = {"", " ", "source", "arm", "what", "interval"}  # other columns are numbers, to the right
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
class Columns:
    """A table that shows no number in part: where it is narrow columns go, then names are cut.

    What still does not fit stands in a table below, beside the names once more.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str | Text]]
    lost: Sequence[str] = ()  # headers of columns that may go, of least worth first
    name: str = ""  # header of the column of names, whole as the data has them; else the first
    name_cells: int = NAME_CELLS  # of a name at most
    prose: Sequence[str] = ()  # headers of columns whose text goes on in the next line
    short: Mapping[str, str] = field(default_factory=dict)  # header → what stands where it is tight

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the widest choice of columns that the terminal holds."""
        room, widths = options.max_width, self._widths()
        whole = widths[self._name]
        for count in range(len(self.lost) + 1):
            gone = self.lost[:count]
            kept = [place for place, header in enumerate(self.headers) if header not in gone]
            cells = room - self._beside(kept, widths, gap=2)
            if cells >= min(whole, _SHORT_NAME):
                yield self._table(kept, min(cells, whole))
                return
        least, widths = min(whole, _SHORTEST_NAME), self._widths(self.short)
        for number, part in enumerate(self._parts(kept, widths, room - least)):
            yield from [Text("")] if number else []
            cells = max(least, room - self._beside(part, widths, gap=1))
            yield self._table(part, min(cells, whole), tight=True)

    @property
    def _name(self) -> int:
        return list(self.headers).index(self.name) if self.name else 0

    def _widths(self, short: Mapping[str, str] | None = None) -> list[int]:
        """Return the cells that each column takes; of prose those that it needs."""
        widths = []
        for place, header in enumerate(self.headers):
            most = {self._name: self.name_cells}.get(place, 10_000)
            most = _LINE_OF_PROSE if header in self.prose else most
            texts = [Text(cell) if isinstance(cell, str) else cell for cell in
                     (row[place] for row in self.rows)]  # fmt: skip
            widest = max((text.cell_len for text in texts), default=0)
            widths.append(max(min(widest, most), cell_len((short or {}).get(header, header))))
        return widths

    def _beside(self, kept: Sequence[int], widths: Sequence[int], *, gap: int) -> int:
        """Return the cells of the columns beside that of the names."""
        return sum(widths[place] + gap for place in kept if place != self._name)

    def _parts(self, kept: Sequence[int], widths: Sequence[int], room: int) -> list[list[int]]:
        """Return columns that fit side by side, part by part, each with that of the names."""
        parts: list[list[int]] = []
        for place in kept:
            if place == self._name:
                continue
            if not parts or self._beside([*parts[-1], place], widths, gap=1) > room:
                parts.append([self._name])
            parts[-1] = sorted([*parts[-1], place])
        return parts

    def _table(self, kept: Sequence[int], name_cells: int, *, tight: bool = False) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD,
            padding=(0, 0 if tight else 1),
            pad_edge=False,
            show_edge=False,
            show_header=any(self.headers),
            collapse_padding=True,
            header_style="bold",
        )
        for place in kept:
            header = self.headers[place]
            words = place == self._name or header in self.prose or header in _WORDS
            table.add_column(
                self.short.get(header, header) if tight else header,
                max_width=name_cells if place == self._name else None,
                justify="left" if words else "right",
                overflow="fold",
                no_wrap=not (tight or place == self._name or header in self.prose),
            )
        for row in self.rows:
            if not any(str(row[place]) for place in kept if place != self._name):
                continue  # a row of which this part says nothing
            cells = list(row)
            cells[self._name] = _cut_name(row[self._name], name_cells)
            table.add_row(*[cells[place] for place in kept])
        return table


def _cut_name(name: str | Text, cells: int) -> Text:
    style = name.style if isinstance(name, Text) else ""
    return Text(show_middle(str(name), cells), style)


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


def warning_lines(warnings: Sequence[str]) -> list[Text]:
    """Return each warning as a line that stands out."""
    return [Text(f"! {show(warning)}", style="yellow") for warning in warnings]


def result_console() -> Console:
    """Return a console that reads nothing as markup and, off a terminal, does not squeeze."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal and console.width < 140:
        console.width = 140
    return console
