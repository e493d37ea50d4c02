"""Runs under way: a table of arms and seeds on a terminal, a line for each that ends off it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from curate.records import RunState
from curate.report.numbers import format_seconds, format_share
from curate.report.pace import Pace
from curate.report.text import show

_NAME_CELLS = 24


@dataclass(slots=True)
class RunsShown:
    """What is known of all runs of a verification; it grows while they go on."""

    clock: Callable[[], float]  # monotonic seconds
    states: dict[tuple[str, int], RunState] = field(default_factory=dict)  # (arm, seed)
    pace: Pace | None = None  # in tokens, all runs together; None: no look at them under way yet

    def update(self, states: Sequence[RunState]) -> list[str]:
        """Take in how far runs are; return a line for each that has ended since."""
        known = dict(self.states)
        self.states = known | {(state.arm, state.seed): state for state in states}
        if known:  # the first call names them all, before any trains
            self._keep_pace()
        fresh = [
            state
            for state in states
            if state.ended and not (known.get((state.arm, state.seed)) or state).ended
        ]
        return [self._line(state) for state in fresh]

    @property
    def left(self) -> float | None:
        """Seconds until all have ended; None while unknown."""
        return self.pace.left if self.pace else None

    def _keep_pace(self) -> None:
        seen, of = (sum(each) for each in zip(*map(_tokens, self.states.values()), strict=True))
        if self.pace is None:
            self.pace = Pace(self.clock(), seen, of)
        self.pace.move(seen, of, self.clock())

    def table(self) -> Table:
        """Return arms as rows and seeds as columns: loss, and how far a run is that goes on."""
        seeds = sorted({seed for _, seed in self.states})
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
        table.add_column("nats/token", style="dim", no_wrap=True)
        for seed in seeds:  # where it is narrow, how far a run is goes to a line of its own
            table.add_column(f"seed {seed}", justify="right")
        for arm in dict.fromkeys(arm for arm, _ in self.states):
            cells = [_cell(self.states.get((arm, seed))) for seed in seeds]
            table.add_row(Text(show(arm, _NAME_CELLS)), *cells)
        table.caption = Text(self._so_far())
        return table

    def _line(self, state: RunState) -> str:
        return (
            f"{show(state.arm)}, seed {state.seed}: {state.loss:.3f} nats/token ({self._so_far()})"
        )

    def _so_far(self) -> str:
        ended = sum(state.ended for state in self.states.values())
        said = f"{ended} of {len(self.states)} runs"
        left = self.left if ended < len(self.states) else None
        return said if left is None else f"{said}, {format_seconds(left)} left"


def _tokens(state: RunState) -> tuple[int, int]:
    return state.tokens, state.of


def _cell(state: RunState | None) -> Text:
    if state is None:
        return Text("")
    if state.ended:
        return Text(f"{state.loss:.3f}", style="bold")
    if not state.tokens:
        return Text("·", style="dim")
    return Text(f"{state.loss:.2f} at {format_share(state.tokens / state.of)}", style="cyan")
