"""How well a measure forecasts losses: statistics of (arms, targets) tables, and intervals.

A table has one row an arm and one column a target; `values` are higher for closer, `loss` is
lower for better, and a cell that is NaN in either is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Statistic = Callable[[Floats, Floats], float]

FEWEST = 3
"""Cells that a target needs to have an order worth a correlation, and two for a choice."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its bootstrap interval."""

    value: float
    low: float
    high: float


def r_squared(values: Floats, loss: Floats) -> float:
    """Return the squared correlation over all cells, as the paper reports it; 0 if constant."""
    kept = np.isfinite(values + loss)
    return _correlation(values[kept], loss[kept]) ** 2


def r_squared_centred(values: Floats, loss: Floats) -> float:
    """Return the same after each target's means are taken out: what choice of data explains.

    Without it, that some targets are harder than others counts as an achievement.
    """
    kept = np.isfinite(values + loss)
    x, y = (np.where(kept, table, np.nan) for table in (values, loss))
    with np.errstate(invalid="ignore"):
        x, y = x - _column_means(x), y - _column_means(y)
    return _correlation(x[kept], y[kept]) ** 2


def within_spearman(values: Floats, loss: Floats) -> float:
    """Return Spearman's correlation of values and -loss within each target, mean over targets."""
    kept = np.isfinite(values + loss)
    columns = kept.sum(axis=0) >= FEWEST
    if not columns.any():
        return float("nan")
    # A cell left out is ranked last in its column, and then taken out of sums by its weight.
    x, y = (
        rankdata(np.where(kept, table, np.inf)[:, columns], axis=0) for table in (-values, loss)
    )
    weight = kept[:, columns].astype(float)
    x, y = (rank - (rank * weight).sum(0) / weight.sum(0) for rank in (x, y))
    covariance = (weight * x * y).sum(0)
    norms = np.sqrt((weight * x * x).sum(0) * (weight * y * y).sum(0))
    return float(np.divide(covariance, norms, out=np.zeros_like(norms), where=norms > 0).mean())


def concordance(values: Floats, loss: Floats) -> float:
    """Return the share of pairs of arms within a target that are in the right order.

    A pair of equal values counts half; a pair of equal losses is no pair.
    """
    kept = np.isfinite(values + loss)
    left, right = np.triu_indices(len(values), k=1)
    both = kept[left] & kept[right]
    with np.errstate(invalid="ignore"):
        wanted = np.sign(loss[right] - loss[left])
        given = np.sign(values[left] - values[right])
    counted = both & (wanted != 0)
    if not counted.any():
        return float("nan")
    return float(((1 + (wanted * given)[counted]) / 2).mean())


def top_one(values: Floats, loss: Floats) -> float:
    """Return the share of targets whose first arm by value is the one of lowest loss.

    Of arms that share the first place each is as likely to be taken.
    """
    first, above = _choices(values, loss)
    return _mean((first * (above <= 0)).sum(axis=0))


def regret(values: Floats, loss: Floats) -> float:
    """Return the loss of the first arm by value above the lowest, nats/token, mean of targets."""
    first, above = _choices(values, loss)
    return _mean((first * above).sum(axis=0))


STATISTICS: dict[str, Statistic] = {
    "r2": r_squared,
    "r2_centred": r_squared_centred,
    "spearman": within_spearman,
    "concordance": concordance,
    "top_1": top_one,
    "regret": regret,
}


def compare(
    measures: Mapping[str, Floats],
    loss: Floats,
    *,
    kept: Flags,
    reference: str,
    draws: int = 400,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, dict[str, Interval]]:
    """Return every statistic of every measure on some cells, with bootstrap intervals.

    Arms and targets are both drawn anew (the pigeonhole bootstrap: Owen 2007), as cells that
    share an arm or a target are not independent; an interval over cells alone would be too
    narrow. The same draws serve all measures, so that differences are paired.

    Args:
        measures: name → (arms, targets), higher is closer.
        loss: (arms, targets), nats/token.
        kept: (arms, targets), the cells that count.
        reference: the measure whose Spearman and concordance are subtracted from the others'.
        draws: bootstrap resamples.
        seed: of the draws.
        confidence: 0 to 1.

    Returns:
        name → statistic → interval; "spearman_minus" and "concordance_minus" are the paired
        differences to the reference.
    """
    rng = np.random.default_rng(seed)
    masked = np.where(kept, loss, np.nan)
    n_arms, n_targets = loss.shape
    picks = [
        (rng.integers(0, n_arms, n_arms), rng.integers(0, n_targets, n_targets))
        for _ in range(draws)
    ]
    drawn: dict[str, dict[str, Floats]] = {}
    whole: dict[str, dict[str, float]] = {}
    for name, values in measures.items():
        whole[name] = {key: work(values, masked) for key, work in STATISTICS.items()}
        rows = [
            [work(values[np.ix_(*pick)], masked[np.ix_(*pick)]) for work in STATISTICS.values()]
            for pick in picks
        ]
        drawn[name] = dict(zip(STATISTICS, np.array(rows).T, strict=True))
    for key in ("spearman", "concordance"):
        base, base_drawn = whole[reference][key], drawn[reference][key].copy()
        for name in measures:
            whole[name][f"{key}_minus"] = whole[name][key] - base
            drawn[name][f"{key}_minus"] = drawn[name][key] - base_drawn
    tail = (1 - confidence) / 2
    return {
        name: {
            key: Interval(value, *_quantiles(drawn[name][key], tail)) for key, value in row.items()
        }
        for name, row in whole.items()
    }


def learn_combination(
    measures: Mapping[str, Floats], loss: Floats, *, folds: int = 5, seed: int = 0
) -> tuple[Floats, dict[str, float]]:
    """Return what a weighted sum of measures forecasts for cells that it was not fitted on.

    Measures and -loss are standardised within each target; weights are >= 0 (non-negative
    least squares). A cell is forecast from the cells of other targets and other arms: each
    target is left out in turn, and with it one fold of the arms.

    Args:
        measures: name → (arms, targets).
        loss: (arms, targets).
        folds: of the arms.
        seed: of the folds.

    Returns:
        (arms, targets), higher is closer, and the weights from all cells, sum 1.
    """
    x = np.stack([_standardised(values) for values in measures.values()], axis=-1)
    y = -_standardised(loss)
    kept = np.isfinite(x).all(axis=-1) & np.isfinite(y)
    n_arms, n_targets = loss.shape
    fold = np.random.default_rng(seed).permutation(n_arms) % folds
    result = np.full(loss.shape, np.nan)
    for target in range(n_targets):
        for number in range(folds):
            seen = kept & (np.arange(n_targets) != target) & (fold != number)[:, None]
            weights, _ = nnls(x[seen], y[seen])
            rows = fold == number
            result[rows, target] = x[rows, target] @ weights
    weights, _ = nnls(x[kept], y[kept])
    shares = weights / max(float(weights.sum()), 1e-12)
    return result, dict(zip(measures, shares.tolist(), strict=True))


def mean_of_ranks(measures: Mapping[str, Floats]) -> Floats:
    """Return the mean of the measures, each standardised within its target: nothing is fitted."""
    return np.mean([_standardised(values) for values in measures.values()], axis=0)


def _standardised(table: Floats) -> Floats:
    spread = np.nanstd(table, axis=0)
    return (table - np.nanmean(table, axis=0)) / np.where(spread > 0, spread, 1.0)


def _column_means(table: Floats) -> Floats:
    count = np.isfinite(table).sum(axis=0)
    return np.nansum(table, axis=0) / np.maximum(count, 1)


def _choices(values: Floats, loss: Floats) -> tuple[Floats, Floats]:
    """Return the chance that each arm is taken, and its loss above the lowest, where two are."""
    kept = np.isfinite(values + loss)
    kept, values, loss = (table[:, kept.sum(axis=0) > 1] for table in (kept, values, loss))
    if not kept.size:
        return np.zeros((0, 0)), np.zeros((0, 0))
    shown = np.where(kept, values, -np.inf)
    first = (kept & (shown == shown.max(axis=0))).astype(float)
    paid = np.where(kept, loss, np.inf)
    return first / first.sum(axis=0), np.where(kept, loss - paid.min(axis=0), 0.0)


def _mean(numbers: npt.NDArray[Any]) -> float:
    return float(numbers.mean()) if numbers.size else float("nan")


def _correlation(x: Floats, y: Floats) -> float:
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _quantiles(drawn: Floats, tail: float) -> tuple[float, float]:
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)
