"""How many seeds would show a drop: what they differ by, and what the eval items add."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from curate.records import NEVER, Forecast, Run
from curate.verification.measured import nats_of
from curate.verification.outcome import CERTAINTY

if TYPE_CHECKING:
    from curate.records import Counts, Floats

POWER = 0.9
"""How often a drop of the size that is forecast is to be seen."""


def item_error(differences: Floats, tokens: Counts) -> float:
    """Return the standard error of a drop from the choice of the eval items alone, nats/token.

    Of a quotient, linearised: more seeds do not lower it, more items do.

    Args:
        differences: (n_items,) nats of the control minus those of the mix, paired.
        tokens: (n_items,), > 0.

    Returns:
        0 for a single item, of which it is not known.
    """
    apart, tokens = np.asarray(differences, np.float64), np.asarray(tokens, np.float64)
    n, total = len(apart), float(tokens.sum())
    residual = apart - tokens * apart.sum() / total
    return math.sqrt(float(residual @ residual) * n / (n - 1)) / total if n > 1 else 0.0


def seeds_needed(losses: Floats, drop: float, *, of_items: float = 0.0) -> int:
    """Return the seeds an arm with which `drop` is seen at 95 % confidence, 90 % power.

    The smallest n at which a one-sided test of n paired differences finds the drop nine times
    in ten (noncentral t; degrees of freedom by Welch and Satterthwaite, those of the items
    without end): the seeds' spread is √2 times that of one arm's, as if the pairing took
    nothing away.

    Args:
        losses: (n_seeds,) of one arm, at least two.
        drop: nats/token, > 0.
        of_items: standard error from the choice of items, which no seed lowers (`item_error`).

    Returns:
        At least 2; `NEVER` where the items alone hide the drop, or so many seeds would not do.
    """
    spread = math.sqrt(2) * float(np.std(losses, ddof=1))
    if drop <= of_items * float(stats.norm.ppf(CERTAINTY) + stats.norm.ppf(POWER)):
        return NEVER

    def shows(n: int) -> bool:
        of_seeds = spread**2 / n
        error = math.sqrt(of_seeds + of_items**2)
        df = (n - 1) * (error**2 / of_seeds) ** 2 if of_seeds else math.inf
        away = drop / error if error else math.inf
        power = stats.nct.sf(stats.t.ppf(CERTAINTY, df), min(df, 1e6), away)
        return away > 40 or bool(power >= POWER)

    return 2 + bisect_left(range(2, NEVER), True, key=shows)


def needed_seeds(runs: Sequence[Run], forecast: Forecast) -> int:
    """Return the seeds that show the forecast drop at 90 % power; 0 where that is not known.

    What the choice of items adds is that of the mix against random; before the mix trains, that
    of the calibration mix that came nearest to the target.
    """
    controls = [run for run in runs if run.arm == "random"]
    if len(controls) < 2 or forecast.drop <= 0:
        return 0
    losses = np.array([run.loss for run in controls])
    like = [run for run in runs if run.arm == "mix"] or [
        run for run in runs if run.arm.startswith("calibration")
    ]
    if not like:
        return seeds_needed(losses, forecast.drop)
    best = min(like, key=lambda run: run.loss)
    apart = np.subtract(nats_of(runs, "random").mean(axis=0), nats_of(runs, best.arm).mean(axis=0))
    error = item_error(apart, np.array(best.item_tokens))
    return seeds_needed(losses, forecast.drop, of_items=error)
