"""What the losses of the arms say: intervals, the drop, the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import stats

from curate.records import Forecast, Interval, Verdict

if TYPE_CHECKING:
    from curate.records import Counts, Floats

CERTAINTY = 0.95
"""Confidence with which a mix must beat random, one-sided."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A measured drop."""

    interval: Interval  # nats/token, random minus mix
    certain: bool  # above 0 with 95 % confidence


def loss_draws(
    nats: Floats, tokens: Counts, *, draws: int = 2_000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return the mean loss as other items and other seeds might have given it.

    Items are resampled with replacement. Seeds are too few to resample (three of them would
    give intervals a fifth too narrow): their mean is moved by Student's t with n − 1 degrees
    of freedom times its standard error.

    Args:
        nats: (n_seeds, n_items) of each item; or paired differences of two arms.
        tokens: (n_items,), > 0.
        draws: > 0.
        seed: of the resampling.

    Returns:
        (draws,) nats/token.

    Raises:
        ValueError: shapes do not fit, or nothing is there.
    """
    nats, tokens = np.asarray(nats, np.float64), np.asarray(tokens, np.float64)
    if nats.ndim != 2 or nats.shape[1] != len(tokens) or not nats.size or (tokens <= 0).any():
        raise ValueError(f"nats {nats.shape}, tokens {tokens.shape}: need (S, I) and (I,), > 0")
    rng = np.random.default_rng(seed)
    n_seeds, n_items = nats.shape
    together = np.stack([nats.mean(axis=0), tokens], axis=1)  # (I, 2)
    part = max(1, 2**18 // n_items)  # draws at a time: memory is bounded
    sums = [
        together[rng.integers(n_items, size=(min(part, draws - start), n_items))].sum(axis=1)
        for start in range(0, draws, part)
    ]
    values = np.concatenate([drawn[:, 0] / drawn[:, 1] for drawn in sums])
    if n_seeds > 1:
        by_seed = nats.sum(axis=1) / tokens.sum()
        error = by_seed.std(ddof=1) / math.sqrt(n_seeds)
        values = values + error * rng.standard_t(n_seeds - 1, size=draws)
    return values


def mean_loss(nats: Floats, tokens: Counts) -> float:
    """Return nats/token of (n_seeds, n_items) nats: all nats per token, mean over seeds."""
    return float(np.mean(np.sum(nats, axis=1)) / np.sum(tokens))


def loss_interval(nats: Floats, tokens: Counts, *, confidence: float, seed: int = 0) -> Interval:
    """Return the loss of one arm, nats/token, with its interval over items and seeds."""
    drawn = loss_draws(nats, tokens, seed=seed)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean_loss(nats, tokens), float(low), float(high))


def measured_drop(
    control: Floats, mix: Floats, tokens: Counts, *, confidence: float, seed: int = 0
) -> Drop:
    """Return the loss of the control minus that of the mix, paired by seed and item.

    Args:
        control: (n_seeds, n_items) nats.
        mix: the same shape; seed k of one shares initialisation with seed k of the other.
        tokens: (n_items,).
        confidence: of the interval, 0 to 1.
        seed: of the resampling.
    """
    difference = np.asarray(control, np.float64) - np.asarray(mix, np.float64)
    drawn = loss_draws(difference, tokens, seed=seed)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    interval = Interval(mean_loss(difference, tokens), float(low), float(high))
    return Drop(interval, bool(np.quantile(drawn, 1 - CERTAINTY) > 0))


def judge(drop: Drop, forecast: Forecast) -> Verdict:
    """Hold the measured drop against the forecast: refuted unless it beats random for sure."""
    if not drop.certain:
        return "refuted"
    if drop.interval.value > forecast.high:
        return "better"
    return "worse" if drop.interval.value < forecast.low else "confirmed"


def alignment_slope(alignments: Floats, losses: Floats, *, confidence: float) -> Interval:
    """Return the change in loss per unit of alignment over arms, with Student's interval.

    Zero, with an unknown interval (NaN), where the alignments are all the same; NaN too for
    two arms.
    """
    x, y = np.asarray(alignments, np.float64), np.asarray(losses, np.float64)
    if len(x) < 2 or np.ptp(x) == 0:
        return Interval(0.0, math.nan, math.nan)
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    if len(x) == 2:
        return Interval(slope, math.nan, math.nan)
    residual = y - y.mean() - slope * centred
    error = math.sqrt(residual @ residual / (len(x) - 2) / (centred @ centred))
    reach = float(stats.t.ppf(0.5 + confidence / 2, len(x) - 2)) * error
    return Interval(slope, slope - reach, slope + reach)


def seeds_needed(losses: Floats, drop: float) -> int:
    """Return the seeds an arm with which `drop` is seen at 95 % confidence, 90 % power.

    n = 2 (z_0.95 + z_0.90)² s² / drop², for two arms whose seeds vary alike.

    Args:
        losses: (n_seeds,) of one arm, at least two.
        drop: nats/token, > 0.
    """
    spread = float(np.std(losses, ddof=1))
    reach = float(stats.norm.ppf(0.95) + stats.norm.ppf(0.90))
    return max(2, math.ceil(2 * (reach * spread / drop) ** 2))
