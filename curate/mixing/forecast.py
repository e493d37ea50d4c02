"""The loss drop predicted before anything is trained, from token counts."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import ndtri, stdtrit

from curate.records import Forecast


@dataclass(frozen=True, slots=True)
class Prior:
    """What earlier experiments say about the drop per nat of cross-entropy."""

    slope: float  # drop in loss per drop in cross-entropy by token pairs
    residual_sd: float  # nats/token around that line
    n: int  # measured mixes it was fitted on; 0 where there are none yet
    command: str  # that made the numbers


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
