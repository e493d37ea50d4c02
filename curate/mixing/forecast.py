"""The loss drop predicted before training, from word counts and from calibration runs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import stats

from curate.records import Forecast

if TYPE_CHECKING:
    from curate.records import Counts, Floats


@dataclass(frozen=True, slots=True)
class Prior:
    """What earlier experiments say about the drop per nat of lexical cross-entropy."""

    slope: float  # drop in loss per drop in lexical cross-entropy
    residual_sd: float  # nats/token around that line
    n: int  # measured mixes it was fitted on; 0 where there are none yet
    command: str  # that made the numbers


@dataclass(frozen=True, slots=True)
class Law:
    """Loss as a linear function of some features of a mix, from measured mixes."""

    features: tuple[int, ...]  # columns that leave-one-out kept
    center: tuple[float, ...]  # their means
    coefficients: tuple[float, ...]  # intercept at the means, then one a feature
    covariance: tuple[tuple[float, ...], ...]  # (XᵀX)⁻¹ of the centred design
    residual_sd: float  # nats/token
    df: int  # measured mixes minus coefficients
    loo_sd: float  # root mean square of the leave-one-out errors, nats/token


def mixture_unigrams(unigrams: Counts | Floats, shares: Floats) -> npt.NDArray[np.float64]:
    """Return the token distribution of a mix from the counts of its shards.

    Args:
        unigrams: (n, vocab), >= 0; a shard of no tokens counts as uniform.
        shares: (n,), >= 0, sum 1; of the mix's tokens.

    Returns:
        (vocab,), sum 1.

    Raises:
        ValueError: lengths differ or shares do not sum to 1.

    Example:
        >>> mixture_unigrams(np.array([[4, 0], [1, 1]]), np.array([0.5, 0.5]))
        array([0.75, 0.25])
    """
    counts, shares = np.asarray(unigrams), np.asarray(shares, np.float64)
    if counts.ndim != 2 or len(counts) != len(shares):
        raise ValueError(f"unigrams {counts.shape} and shares {shares.shape} do not fit")
    if (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError("shares must not be negative and must sum to 1")
    mixture = np.zeros(counts.shape[1])
    for row, share in zip(counts, shares, strict=True):  # one row at a time: vocab may be large
        total = row.sum()
        mixture += share * (row / total if total else 1.0 / len(row))
    return mixture


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


def fit_law(x: Floats, loss: Floats) -> Law:
    """Fit loss = a + b·x by least squares on the features that predict left-out mixes best.

    Every subset of features that leaves a degree of freedom is tried; the smallest sum of
    squared leave-one-out errors e_i / (1 − h_ii) wins (PRESS, Allen 1974), a larger subset
    only if it lowers that by a fifth. With few mixes that often is the mean alone.

    Args:
        x: (n, k) features of the measured mixes, such as alignment, lexical cross-entropy.
        loss: (n,), nats/token.

    Raises:
        ValueError: fewer than two mixes, lengths differ, or a value is not finite.

    Example:
        >>> law = fit_law(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([4.0, 3.0, 2.0, 1.0]))
        >>> [round(c, 6) for c in law.coefficients]
        [2.5, -1.0]
    """
    x, loss = np.asarray(x, np.float64), np.asarray(loss, np.float64)
    if x.ndim != 2 or loss.shape != (len(x),) or len(x) < 2:
        raise ValueError(f"x {x.shape} and loss {loss.shape}: need (n, k) and (n,), n >= 2")
    if not (np.isfinite(x).all() and np.isfinite(loss).all()):
        raise ValueError("a feature or a loss is not finite")
    best = _fit(x, loss, ())
    for size in range(1, min(x.shape[1], len(x) - 2) + 1):
        laws = [_fit(x, loss, columns) for columns in combinations(range(x.shape[1]), size)]
        law = min((law for law in laws if law), key=lambda law: law.loo_sd, default=None)
        if law and best and law.loo_sd**2 < 0.8 * best.loo_sd**2:
            best = law
    if best is None:  # pragma: no cover - the mean alone always fits
        raise ValueError("no subset of features can be fitted")
    return best


def predict(law: Law, x: Floats, *, confidence: float = 0.9) -> tuple[float, float, float]:
    """Return the loss of a new mix with its prediction interval (Student's t).

    Args:
        law: of `fit_law`.
        x: (k,), the features that the law was fitted on, all of them.
        confidence: of the interval, 0 to 1.

    Returns:
        mean, low, high, nats/token.
    """
    row = _row(law, x)
    mean = float(row @ np.array(law.coefficients))
    half = _half(law, 1.0 + _leverage(law, row), confidence=confidence)
    return mean, mean - half, mean + half


def predict_drop(
    law: Law, control: Floats, mix: Floats, *, confidence: float = 0.9
) -> tuple[float, float, float]:
    """Return the loss of `control` minus that of `mix`, both new, with its interval.

    What the two share (the intercept) cancels; each brings its own residual.

    Returns:
        mean, low, high, nats/token.
    """
    difference = _row(law, control) - _row(law, mix)
    mean = float(difference @ np.array(law.coefficients))
    half = _half(law, 2.0 + _leverage(law, difference), confidence=confidence)
    return mean, mean - half, mean + half


def forecast_without_runs(
    target: Counts,
    mix: Floats,
    control: Floats,
    *,
    tokens: float,
    prior: Prior,
    confidence: float = 0.9,
) -> Forecast:
    """Forecast the drop of a mix against a control when no model has been trained here.

    drop = slope × (cross-entropy of the target under the control's unigrams − under the
    mix's), with the spread that earlier experiments had around that line.

    Args:
        target: (vocab,) counts of the select split.
        mix: (vocab,) token distribution of the mix, sum 1.
        control: (vocab,) of the natural mix, sum 1.
        tokens: size of both mixes.
        prior: coefficients of earlier experiments.
        confidence: of the interval, 0 to 1.
    """
    gain = lexical_cross_entropy(target, control, tokens=tokens) - lexical_cross_entropy(
        target, mix, tokens=tokens
    )
    quantile = stats.t.ppf(0.5 + confidence / 2, prior.n - 1) if prior.n > 1 else None
    half = float(quantile or stats.norm.ppf(0.5 + confidence / 2)) * prior.residual_sd
    drop = prior.slope * gain
    known = (
        f"from {prior.n} measured mixes ({prior.command})"
        if prior.n
        else "assumed, no measured runs yet"
    )
    basis = (
        f"the target's unigram cross-entropy falls by {gain:.3f} nats/token against natural "
        f"proportions, × {prior.slope:.2f} ± {prior.residual_sd:.2f}, {known}"
    )
    return Forecast(drop=drop, low=drop - half, high=drop + half, basis=basis)


def _fit(x: Floats, loss: Floats, columns: tuple[int, ...]) -> Law | None:
    """Return the law on these columns, or None where they are constant or dependent."""
    chosen = x[:, list(columns)]
    center = chosen.mean(0) if columns else np.zeros(0)
    design = np.hstack([np.ones((len(x), 1)), chosen - center])
    if np.linalg.matrix_rank(design, tol=1e-9 * max(1.0, np.abs(design).max())) < design.shape[1]:
        return None
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ loss
    residual = loss - design @ coefficients
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    if (leverage > 1 - 1e-9).any():  # a mix that decides a coefficient alone tells no error
        return None
    df = len(x) - design.shape[1]
    return Law(
        features=columns,
        center=tuple(center.tolist()),
        coefficients=tuple(coefficients.tolist()),
        covariance=tuple(tuple(row) for row in inverse.tolist()),
        residual_sd=float(np.sqrt(residual @ residual / df)),
        df=df,
        loo_sd=float(np.sqrt(np.mean((residual / (1 - leverage)) ** 2))),
    )


def _row(law: Law, x: Floats) -> npt.NDArray[np.float64]:
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or not np.isfinite(x).all() or (law.features and max(law.features) >= len(x)):
        raise ValueError(f"x {x.shape} lacks a feature of the law, or is not finite")
    return np.concatenate([[1.0], x[list(law.features)] - np.array(law.center)])


def _leverage(law: Law, row: Floats) -> float:
    return float(row @ np.array(law.covariance) @ row)


def _half(law: Law, variance: float, *, confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    return float(stats.t.ppf(0.5 + confidence / 2, law.df) * law.residual_sd * variance**0.5)
