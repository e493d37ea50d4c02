"""What every record is made of: arrays, a value with its interval, progress."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line imports this module and must not load numpy
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]
    Counts = npt.NDArray[np.integer[Any]]
else:
    Floats = Counts = Any

Notify = Callable[[str, float, float], None]
"""`notify(what, done, total)`: progress of one step; `total` 0 where it is not known."""


def silent(what: str, done: float, total: float) -> None:
    """Ignore progress: the default of every stage."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval."""

    value: float
    low: float
    high: float


NOT_MEASURED = Interval(math.nan, math.nan, math.nan)
