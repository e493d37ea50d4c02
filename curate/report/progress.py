"""Progress on stderr: bars on a terminal, a plain line now and then off it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID
from rich.text import Text

from curate.records import Notify, RunState, Watch
from curate.report.numbers import format_seconds, format_share, format_tokens
from curate.report.pace import Pace
from curate.report.runs import RunsShown
from curate.report.text import show

_MOST_BARS = 6
_NAME_CELLS = 36
_BESIDE_BAR, _SHORTEST_BAR = 74, 6  # cells of a step's name and amount; of a bar worth drawing


@dataclass(slots=True)
class _Step(Pace):
    """The pace of one step, and when its last plain line was written."""

    said: float = 0.0  # seconds, of the clock


@contextmanager
def progress_notify(
    console: Console | None = None,
    *,
    every: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Notify]:
    """Give a `notify(what, done, total)` that shows progress until the block ends.

    A call with `done` and `total` both 0 is a remark and becomes a line of its own. Rate and
    time left are means over what was done of late (`Pace`): steady, right after a resume, and
    soon right again where the machine's load changes.

    Args:
        console: where to; None is stderr. NO_COLOR is the console's own affair.
        every: seconds between two plain lines of one step, off a terminal.
        clock: monotonic seconds.

    Yields:
        The Notify; it may be called from any thread.
    """
    with progress_of_runs(console, every=every, clock=clock) as (notify, _):
        yield notify


@contextmanager
def progress_of_runs(
    console: Console | None = None,
    *,
    every: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[Notify, Watch]]:
    """Give a `notify`, and a `watch` that shows how far training runs are.

    On a terminal `watch` keeps a table of arms and seeds below the bars; off it, a line is
    written for each run that ends.

    Args:
        console: as of `progress_notify`.
        every: as there.
        clock: as there.
    """
    console = console or Console(stderr=True, markup=False, emoji=False, highlight=False)
    runs = RunsShown(clock)
    on_terminal = console.is_terminal and not console.is_dumb_terminal

    def watch(states: Sequence[RunState]) -> None:
        for line in runs.update(states):
            if not on_terminal:
                _print_line(console, line)

    if on_terminal:
        with _bars(console, clock, runs) as notify:
            yield notify, watch
    else:
        yield _plain_lines(console, every, clock), watch


def _plain_lines(console: Console, every: float, clock: Callable[[], float]) -> Notify:
    steps: dict[str, _Step] = {}

    def notify(what: str, done: float, total: float) -> None:
        now = clock()
        if not done and not total:
            _print_line(console, show(what))
            return
        new = what not in steps
        step = _advance(steps, what, done, total, now)
        ended = total > 0 and done >= total
        if ended or (new and not done) or now - step.said >= every:
            step.said = now
            _print_line(console, _line(what, step))
        if ended:
            del steps[what]

    return notify


@contextmanager
def _bars(console: Console, clock: Callable[[], float], runs: RunsShown) -> Iterator[Notify]:
    steps: dict[str, _Step] = {}
    tasks: dict[str, TaskID] = {}
    room = console.width - _BESIDE_BAR
    # stdout is the result: rich must not send it to this console
    progress = _BarsAndRuns(
        SpinnerColumn(finished_text="[green]✓[/]"),
        _StepColumn(),
        *([BarColumn(bar_width=min(24, room))] if room >= _SHORTEST_BAR else []),
        _AmountColumn(),
        console=console,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    progress.runs = runs

    def notify(what: str, done: float, total: float) -> None:
        if not done and not total:
            _print_line(console, show(what))
            return
        step = _advance(steps, what, done, total, clock())
        if what not in tasks:
            tasks[what] = progress.add_task("", total=None, what=show(what), amount="")
            _drop_ended(progress)
        progress.update(
            tasks[what], completed=done, total=total or None, amount=_amount(step, bar=True)
        )
        if total > 0 and done >= total:
            del steps[what], tasks[what]

    with progress:
        yield notify


class _BarsAndRuns(Progress):
    """Bars, and below them the table of runs, where there are any."""

    runs: RunsShown | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.runs is not None and self.runs.states:
            yield self.runs.table()


class _StepColumn(ProgressColumn):
    """The name of a step, never read as markup."""

    def render(self, task: Task) -> Text:
        return Text(show(task.fields["what"], _NAME_CELLS).ljust(20))


class _AmountColumn(ProgressColumn):
    """Amount, rate and time left of a step."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["amount"], style="dim" if task.finished else "")


def _advance(steps: dict[str, _Step], what: str, done: float, total: float, now: float) -> _Step:
    step = steps.setdefault(what, _Step(now, done, total, said=now))
    step.move(done, total, now)
    return step


def _drop_ended(progress: Progress) -> None:
    """Keep the newest bars: a long verification has dozens of steps."""
    surplus = len(progress.tasks) - _MOST_BARS
    for task in [task for task in progress.tasks if task.finished][: max(surplus, 0)]:
        progress.remove_task(task.id)


def _amount(step: _Step, *, bar: bool) -> str:
    of = f" of {format_tokens(step.total)}" if step.total else ""
    parts = [f"{format_tokens(step.done)}{of}"]
    if step.total and not bar:
        parts.insert(0, format_share(step.done / step.total))
    if step.rate > 0:
        each = f"{format_seconds(1 / step.rate)} each"
        parts.append(f"{format_tokens(step.rate)}/s" if step.rate >= 0.5 else each)
    if step.total and step.done >= step.total:
        parts.append(f"took {format_seconds(step.took)}")
    elif step.left is not None:
        parts.append(f"{format_seconds(step.left)} left")
    return " · ".join(parts)


def _line(what: str, step: _Step) -> str:
    return f"{show(what)}: {_amount(step, bar=False)}"


def _print_line(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True, highlight=False)
