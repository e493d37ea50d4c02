"""Forecasts held against measured losses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from curate.mixing.laws import Views, forecast_losses

Floats = npt.NDArray[np.float64]


def hold_forecasts(
    features: Mapping[str, Floats], loss: Floats, *, confidence: float = 0.9
) -> dict[str, float]:
    """Fit the product's law on all mixes but one, and forecast that one; each in turn.

    Args:
        features: name → (mixes,).
        loss: (mixes,), nats/token.
        confidence: of the intervals.

    Returns:
        coverage of the intervals, spearman of forecast and loss, rmse, mean width.
    """
    n = len(loss)
    found = []
    for number in range(n):
        rest = np.delete(np.arange(n), number)
        order = np.append(rest, number)
        scalars = {name: values[order] for name, values in features.items()}
        views = Views(scalars, np.ones((n, 1)), np.ones((n, 0)))  # the scalars alone
        _, (one,) = forecast_losses(views, loss[rest], confidence=confidence)
        found.append((one.loss, one.low, one.high))
    mean, low, high = np.array(found).T
    return {
        "coverage": float(((low <= loss) & (loss <= high)).mean()),
        "spearman": float(spearmanr(mean, loss).statistic),
        "rmse": float(np.sqrt(np.mean((mean - loss) ** 2))),
        "width": float((high - low).mean()),
    }


def prior_line(gain: Floats, drop: Floats) -> dict[str, float]:
    """Return the slope through the origin of drop on lexical gain, and the spread around it.

    Args:
        gain: (n,) nats/token that the lexical cross-entropy falls against natural proportions.
        drop: (n,) nats/token that the loss falls.
    """
    slope = float(gain @ drop / (gain @ gain))
    residual = drop - slope * gain
    return {
        "slope": slope,
        "residual_sd": float(np.sqrt(residual @ residual / (len(drop) - 1))),
        "n": float(len(drop)),
    }
