"""The loss drop predicted before anything is trained, from token counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri, stdtrit

from curate.records import Forecast

if TYPE_CHECKING:
    from curate.records import Counts, Floats


@dataclass(frozen=True, slots=True)
class Prior:
    """What earlier experiments say about the drop per nat of cross-entropy."""

    slope: float  # drop in loss per drop in cross-entropy by token pairs
    residual_sd: float  # nats/token around that line
    n: int  # measured mixes it was fitted on; 0 where there are none yet
    command: str  # that made the numbers


def lexical_cross_entropy(
    target: Counts, mixture: Floats, *, tokens: float = 1e6, pseudo: float = 0.5
) -> float:
    """Return the cross-entropy of the target's tokens under a mixture's unigrams.

    The mixture is smoothed as `tokens` counts drawn from it would be with `pseudo` added
    to every word (Lidstone), so that a word that it lacks costs a finite amount.

    Args:
        target: (vocab,) counts, sum > 0.
        mixture: (vocab,), sum 1.
        tokens: size of the mix; more tokens need less smoothing.
        pseudo: count added to every word, > 0.

    Returns:
        nats/token.

    Raises:
        ValueError: shapes differ, the target is empty, or a number is not above 0.
    """
    target, mixture = np.asarray(target, np.float64), np.asarray(mixture, np.float64)
    if target.shape != mixture.shape or target.sum() <= 0 or tokens <= 0 or pseudo <= 0:
        raise ValueError("target and mixture must have one shape, tokens and pseudo be above 0")
    smoothed = (mixture * tokens + pseudo) / (tokens + pseudo * len(mixture))
    return float(-(target @ np.log(smoothed)) / target.sum())


def forecast_without_runs(gain: float, prior: Prior, *, confidence: float = 0.9) -> Forecast:
    """Forecast the drop of a mix against a control when no model has been trained here.

    drop = slope × (cross-entropy of the target under the control's token pairs − under the
    mix's), with the spread that earlier experiments had around that line.

    Args:
        gain: that difference, nats/token.
        prior: coefficients of earlier experiments.
        confidence: of the interval, 0 to 1.
    """
    quantile = stdtrit(prior.n - 1, 0.5 + confidence / 2) if prior.n > 1 else None
    half = float(quantile or ndtri(0.5 + confidence / 2)) * prior.residual_sd
    drop = prior.slope * gain
    known = (
        f"from {prior.n} measured mixes ({prior.command})"
        if prior.n
        else "assumed, no measured runs yet"
    )
    basis = (
        f"the target's cross-entropy by token pairs falls by {gain:.3f} nats/token against natural "
        f"proportions, × {prior.slope:.2f} ± {prior.residual_sd:.2f}, {known}"
    )
    return Forecast(drop=drop, low=drop - half, high=drop + half, basis=basis)
