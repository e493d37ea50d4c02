"""The loss of a mix as a function of the mix: candidate laws, chosen by cross-validation.

Every candidate is least squares, with or without a ridge, on one view of the mixtures (their
alignment, their shares, their embedding), so that one kernel form serves all: errors of left-out
mixes and variances of predictions have closed forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

if TYPE_CHECKING:
    from curate.records import Floats

Array = npt.NDArray[Any]  # float64, or positions

PENALTIES = (0.01, 0.1, 1.0)
"""Of the ridge laws, in units of the mean squared distance of the mixes from their centre."""

FLOORS = (0.0, 0.5)
"""Of the log-linear law, as a share of the lowest loss measured."""

GAIN = 0.8
"""A law replaces a simpler one where its squared error on left-out mixes is below that share."""


@dataclass(frozen=True, slots=True)
class Views:
    """Mixtures as the laws see them, the measured ones first."""

    scalars: Mapping[str, Floats]  # name → (n,), such as alignment: least squares on up to two
    shares: Floats  # (n, p), sum 1 over p: the log-linear mixture law
    embeddings: Floats  # (n, d): ridge regression; d may be 0


@dataclass(frozen=True, slots=True)
class Predicted:
    """The loss of one mix, with its prediction interval, nats/token."""

    loss: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Law:
    """Which law was chosen, and how well it knows a mix that it has not seen."""

    name: str
    error: float  # root mean square over left-out mixes, nats/token, the choice made without each
    mean_error: float  # the same for the mean of the others
    df: float  # measured mixes minus the law's effective parameters


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    gram: Array  # (n, n) inner products of all mixtures
    penalty: float  # 0: least squares
    floor: float | None = None  # share of the lowest loss; None: a law of the loss itself


@dataclass(frozen=True, slots=True)
class _Fits:
    """A candidate fitted on b sets of mixtures; all in nats/token."""

    error: Array  # (b,) root mean square over left-out mixes; infinite where it cannot be fitted
    df: Array  # (b,)
    values: Array  # (b, k) predicted at the others
    spread: Array  # (b, k) their standard errors per standard deviation of a loss, at `values`
    floor: Array  # (b,) −inf for a law of the loss itself


def forecast_losses(
    views: Views, loss: Floats, *, confidence: float = 0.9
) -> tuple[Law, tuple[Predicted, ...]]:
    """Predict the losses of mixtures from those of measured ones, with prediction intervals.

    Candidates, simplest first: the mean; least squares on one or two scalars; loss = floor +
    exp(k + Σ t_j share_j) (the mixture law of Ye et al. 2024, arXiv 2403.16952) with a ridge;
    ridge regression on the embedding. The smallest squared error on left-out mixes wins (PRESS,
    Allen 1974: e_i = r_i / (1 − h_ii)), a later candidate only if it lowers that by a fifth.

    The interval counts the choice: each measured mix is predicted by what would have been
    chosen without it, and the errors, divided by their own standard errors, give the standard
    deviation that Student's t is multiplied with.

    Args:
        views: of n measured mixtures, then of the k to predict.
        loss: (n,), n >= 2, nats/token.
        confidence: of the intervals, 0 to 1.

    Returns:
        The law, and (k,) predictions in the order of the views.

    Raises:
        ValueError: fewer than two mixes, lengths that differ, or a value that is not finite.

    Example:
        >>> x = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
        >>> views = Views({"x": x}, np.ones((5, 1)), np.ones((5, 0)))
        >>> law, (there,) = forecast_losses(views, np.array([4.0, 3.0, 2.0, 1.0]))
        >>> law.name, round(there.loss, 6)
        ('x', 0.0)
    """
    loss = np.asarray(loss, np.float64)
    candidates = _candidates(views, n=len(loss))
    if loss.ndim != 1 or len(loss) < 2 or not np.isfinite(loss).all():
        raise ValueError(f"loss {loss.shape}: at least two finite values are needed")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    n = len(loss)
    new = np.arange(n, len(candidates[0].gram))
    chosen, fit = _choose(candidates, loss, np.arange(n)[None], new[None])
    left_out = _left_out_errors(candidates, loss)
    sd = float(np.sqrt(np.mean(left_out[:, 1] ** 2)))
    # One mix that was missed by far is not averaged away: such errors have heavy tails.
    widest = _quantile(np.abs(left_out[:, 1]), confidence * (1 + 1 / n))
    reach = max(float(stdtrit(fit.df[0], 0.5 + confidence / 2)) * sd, widest) * fit.spread[0]
    mean = _fit(candidates[0], loss, np.arange(n)[None], new[None, :0])
    law = Law(
        name=candidates[chosen[0]].name,
        error=float(np.sqrt(np.mean(left_out[:, 0] ** 2))),
        mean_error=float(mean.error[0]),
        df=float(fit.df[0]),
    )
    return law, tuple(
        Predicted(value, *_interval(value, half, float(fit.floor[0])))
        for value, half in zip(fit.values[0].tolist(), reach.tolist(), strict=True)
    )


def _candidates(views: Views, *, n: int) -> list[_Candidate]:
    """Return every law, simplest first."""
    columns = {name: _finite(values)[:, None] for name, values in views.scalars.items()}
    shares, embeddings = _finite(views.shares), _finite(views.embeddings)
    total = len(shares)
    if any(len(rows) != total for rows in (*columns.values(), embeddings)) or total < n:
        raise ValueError(
            "the views hold different numbers of mixtures, or fewer than were measured"
        )
    found = [_Candidate("the mean of the others", np.zeros((total, total)), 0.0)]
    for size in (1, 2, 3):
        for names in combinations(columns, size):
            rows = [_standard(columns[name], n) for name in names]
            found.append(_Candidate(" and ".join(names), _gram(np.hstack(rows), n), 0.0))
    by_share = _gram(shares, n)
    by_embedding = _gram(embeddings, n)
    found += [
        _Candidate("a log-linear law of the shares", by_share, penalty, floor)
        for floor in FLOORS
        for penalty in PENALTIES
        if by_share.any()
    ]
    found += [
        _Candidate("a regression on the embedding", by_embedding, penalty)
        for penalty in PENALTIES
        if by_embedding.any()
    ]
    return found


def _choose(
    candidates: Sequence[_Candidate], loss: Array, known: Array, new: Array
) -> tuple[Array, _Fits]:
    """Return which candidate predicts left-out mixes best, (b,), and what it says of `new`."""
    chosen = np.zeros(len(known), int)
    best = _fit(candidates[0], loss, known, new)
    for number, candidate in enumerate(candidates[1:], start=1):
        fit = _fit(candidate, loss, known, new)
        # another penalty of one law is not more complex
        same = np.array([candidate.name == candidates[place].name for place in chosen])
        better = fit.error**2 < np.where(same, 1.0, GAIN) * best.error**2 - 1e-18
        chosen[better] = number
        best = _Fits(
            error=np.where(better, fit.error, best.error),
            df=np.where(better, fit.df, best.df),
            values=np.where(better[:, None], fit.values, best.values),
            spread=np.where(better[:, None], fit.spread, best.spread),
            floor=np.where(better, fit.floor, best.floor),
        )
    return chosen, best


def _left_out_errors(candidates: Sequence[_Candidate], loss: Array) -> Array:
    """Return (n, 2): the error at each mix of what is chosen without it, and in standard errors."""
    n = len(loss)
    if n < 3:
        apart = float(loss[0] - loss[1])
        return np.array([[apart, apart / np.sqrt(2.0)]] * n)
    rest = np.array([np.delete(np.arange(n), i) for i in range(n)])
    _, fit = _choose(candidates, loss, rest, np.arange(n)[:, None])
    errors = loss - fit.values[:, 0]
    return np.stack([errors, errors / fit.spread[:, 0]], axis=1)


def _fit(candidate: _Candidate, loss: Array, known: Array, new: Array) -> _Fits:
    """Fit a candidate on the mixtures `known` (b, m) and predict `new` (b, k).

    With K the centred inner products and λ the penalty, H = 11ᵀ/m + K (K + λ)⁻¹. A prediction's
    variance is σ² (1 + 1/m + (k** − k*ᵀ (K + λ)⁻¹ k*) / λ), the posterior's under the prior that
    the ridge stands for; without a ridge σ² (1 + 1/m + k*ᵀ K⁻² k*).
    """
    y, floor = _transformed(loss[known], candidate.floor)  # (b, m), (b,)
    m, mean = known.shape[1], y.mean(axis=1, keepdims=True)
    inner, cross, own = _centred(candidate.gram, known, new)
    values, vectors = np.linalg.eigh(inner)  # (b, m), (b, m, m)
    kept = values > 1e-9 * np.maximum(values[:, -1:], 1e-300)
    values = np.where(kept, values, 1.0)
    penalty = candidate.penalty * np.trace(inner, axis1=1, axis2=2)[:, None] / m
    shrink = kept * values / (values + penalty)  # 0 for what is not in the span
    turned = np.einsum("bji,bj->bi", vectors, y - mean)
    projected = cross @ vectors  # (b, k, m)
    predicted = mean + np.einsum("bki,bi->bk", projected, shrink / values * turned)
    if candidate.penalty:
        inside = np.einsum("bki,bi->bk", projected**2, shrink / values)
        variance = np.maximum(own - inside, 0.0) / np.maximum(penalty, 1e-300)
        df = np.full(len(known), m - 1.0)  # the ridge's prior scales with σ
    else:
        variance = np.einsum("bki,bi->bk", projected**2, kept / values**2)
        df = m - 1.0 - kept.sum(axis=1)
    leverage = 1 / m + np.einsum("bji,bi->bj", vectors**2, shrink)
    residual = y - mean - np.einsum("bji,bi->bj", vectors, shrink * turned)
    left = residual / (1 - np.minimum(leverage, 1 - 1e-9))
    free = (df >= 1) & (leverage < 1 - 1e-9).all(axis=1)
    scale = np.ones_like(predicted)
    if candidate.floor is not None:
        left = loss[known] - floor[:, None] - np.exp(np.minimum(y - left, 50.0))
        predicted = floor[:, None] + np.exp(np.minimum(predicted, 50.0))
        scale = (predicted - floor[:, None]) / (loss[known].mean(axis=1) - floor)[:, None]
    error = np.where(free, np.sqrt(np.mean(left**2, axis=1)), np.inf)
    return _Fits(error, df, predicted, scale * np.sqrt(1 + 1 / m + variance), floor)


def _transformed(loss: Array, floor_share: float | None) -> tuple[Array, Array]:
    if floor_share is None:
        return loss, np.full(len(loss), -np.inf)
    floor = floor_share * loss.min(axis=1)
    return np.log(np.maximum(loss - floor[:, None], 1e-12)), floor


def _interval(value: float, half: float, floor: float) -> tuple[float, float]:
    """Return the ends; a law of the log has them at equal factors above the floor."""
    if not np.isfinite(floor):
        return value - half, value + half
    factor = float(np.exp(min(half / max(value - floor, 1e-12), 50.0)))
    return floor + (value - floor) / factor, floor + (value - floor) * factor


def _centred(gram: Array, known: Array, new: Array) -> tuple[Array, Array, Array]:
    """Return inner products of the known, of new with known, of new with itself, centred."""
    inner = gram[known[:, :, None], known[:, None, :]]  # (b, m, m)
    cross = gram[new[:, :, None], known[:, None, :]]  # (b, k, m)
    row = inner.mean(axis=1, keepdims=True)  # (b, 1, m)
    total = row.mean(axis=2, keepdims=True)
    middle = cross.mean(axis=2, keepdims=True)
    own = gram[new, new] - 2 * middle[:, :, 0] + total[:, 0]
    return inner - row - row.swapaxes(1, 2) + total, cross - middle - row + total, own


def _gram(rows: Array, n: int) -> Array:
    """Return inner products around the centre of the n measured mixtures."""
    rows = rows - rows[:n].mean(axis=0)
    return rows @ rows.T


def _standard(column: Array, n: int) -> Array:
    """Scale a scalar by its spread over the measured, so that two are weighed alike."""
    spread = float(column[:n].std())
    return (column - column[:n].mean()) / spread if spread > 1e-12 else np.zeros_like(column)


def _finite(rows: Floats) -> Array:
    rows = np.asarray(rows, np.float64)
    if not np.isfinite(rows).all():
        raise ValueError("a feature of a mixture is not finite")
    return rows


def _quantile(values: Array, share: float) -> float:
    """Return the smallest of the values that is at least as large as `share` of them."""
    return float(np.quantile(values, min(1.0, share), method="higher"))
