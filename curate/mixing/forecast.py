"""The loss drop predicted before anything is trained, from token counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from curate.records import Floats, Forecast


@dataclass(frozen=True, slots=True)
class Prior:
    """What earlier experiments say about the drop per nat of cross-entropy."""

    slope: float  # drop in loss per drop in cross-entropy by token pairs
    residual_sd: float  # nats/token around that line
    n: int  # measured mixes it was fitted on; 0 where there are none yet
    command: str  # that made the numbers


def forecast_without_runs(
    gain: float, prior: Prior, *, moves: Floats | None = None, confidence: float = 0.9
) -> Forecast:
    """Forecast the drop of a mix against a control when no model has been trained here.

    drop = slope × (cross-entropy of the target under the control's token pairs − under the
    mix's), with the spread that earlier experiments had around that line and, where it is known,
    that of the gain over the target's items: those of the eval split are taken to differ from
    those that are counted as two draws of as many do.

    Args:
        gain: that difference, nats/token.
        prior: coefficients of earlier experiments.
        moves: (m,) influences of the target's items, or groups of them, on the gain.
        confidence: of the interval, 0 to 1.
    """
    upper = 0.5 + confidence / 2
    line = float(stdtrit(prior.n - 1, upper) if prior.n > 1 else ndtri(upper)) * prior.residual_sd
    half = math.hypot(line, prior.slope * _reach(moves, upper))
    drop = prior.slope * gain
    known = (
        f"from {prior.n} measured mixes ({prior.command})"
        if prior.n
        else "assumed, no measured runs yet"
    )
    basis = (
        f"the target's cross-entropy by token pairs falls by {gain:z.3f} nats/token against "
        f"natural proportions, × {prior.slope:.2f} ± {prior.residual_sd:.2f}, {known}"
    )
    return Forecast(drop=drop, low=drop - half, high=drop + half, basis=basis)


def _reach(moves: Floats | None, upper: float) -> float:
    """Return how far a mean of other items may be off; 0 where fewer than two are known."""
    m = 0 if moves is None else len(moves)
    if moves is None or m < 2:
        return 0.0
    variance = 2.0 * float(np.square(moves).sum()) / (m * (m - 1))
    return float(stdtrit(m - 1, upper)) * math.sqrt(variance)
