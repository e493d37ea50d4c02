"""What becomes of a work item: a result, a second try alone, a rejection, or the end of the run."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from curate.errors import CannotWriteError, CurateError
from curate.harmless import hide_secrets

LINE = 300
"""Characters of a reason."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A work item that failed, was tried again alone, and failed again."""

    item: Any
    reason: str  # one line
    error: BaseException


Reject = Callable[[Failure], None]
"""Takes note of an item that is given up; it may raise, which ends the run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one try of one item gave; small enough for a pipe or an object store."""

    result: Any = None
    error: BaseException | None = None
    trace: str = ""
    died: bool = False  # the process, without an exception


def attempt(function: Callable[[Any], Any], item: Any) -> Outcome:
    """Apply a function to an item, and keep whatever it raises: the driver raises it again."""
    try:
        return Outcome(function(item))
    except BaseException as error:
        return Outcome(error=error)


def portable(outcome: Outcome) -> Outcome:
    """Return an outcome that any process can read: of a foreign exception, its text alone."""
    error = outcome.error
    if error is None:
        return outcome
    trace = "".join(traceback.format_exception(error))
    known = type(error).__module__.split(".")[0] in {"builtins", "curate"}
    if not known or not all(isinstance(each, str | int) for each in error.args):
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return replace(outcome, error=error.with_traceback(None), trace=trace)


def death(how: str) -> Outcome:
    """Return the outcome of an item whose process ended without an exception."""
    message = (
        f"a worker process ended by itself ({how}, often: out of memory); run the command "
        "again, it resumes"
    )
    return Outcome(error=CurateError(message), died=True)


def judge(
    item: Any, outcome: Outcome, *, alone: bool, reject: Reject | None
) -> Literal["done", "again", "rejected"]:
    """Say what follows from an outcome.

    Where items may be rejected, whatever failed is tried a second time with no other item
    beside it (which mends what too little memory did), then given up. Where none may, a process
    that died is tried again alone, and an exception ends the run at once.

    Raises:
        BaseException: that of the item, where it ends the run.
    """
    error = outcome.error
    if error is None:
        return "done"
    if isinstance(error, CannotWriteError) or not isinstance(error, Exception):
        raise _traced(outcome)  # a full disk, an interrupt: no other item can fare better
    if not alone and (outcome.died or reject is not None):
        return "again"
    if reject is None:
        raise _traced(outcome)
    reject(Failure(item, _reason(error), _traced(outcome)))
    return "rejected"


def _reason(error: BaseException) -> str:
    line = hide_secrets(str(error).strip()).partition("\n")[0][:LINE]
    if isinstance(error, CurateError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _traced(outcome: Outcome) -> BaseException:
    assert outcome.error is not None
    if outcome.trace:
        outcome.error.add_note(f"in a worker process:\n{outcome.trace}")
    return outcome.error
