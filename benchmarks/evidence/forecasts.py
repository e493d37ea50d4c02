"""Forecasts held against measured losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from curate.mixing.laws import Views, forecast_losses
from curate.verification.published import forecast_scalars
from evidence.plan import Arm

Floats = npt.NDArray[np.float64]
Scalars = Mapping[str, Floats]  # name → (mixes,)

FEW = (4, 6, 8, 12)
"""Measured mixes. `verify` measures six before it forecasts its mix: four to calibrate, random and
worst; those of earlier verifications come on top."""
DRAWS = 6
"""Of the measured mixes of each target."""


def kinds_of_scalars(
    ngrams: Mapping[str, Floats], fisher: Floats | None, breadth: Floats
) -> dict[str, Scalars]:
    """Return what the losses of mixes are forecast from, by name: what `verify` takes, first.

    Args:
        ngrams: "single tokens" and "token pairs" → (mixes,) cross-entropies of the target.
        fisher: (mixes,) Task2Vec alignment, if it was measured.
        breadth: (mixes,) entropy of the shares.
    """
    words, pairs = ngrams["single tokens"], ngrams["token pairs"]
    kinds: dict[str, Scalars] = {
        "token pairs, their logarithm": forecast_scalars(pairs),
        "token pairs": {"pairs": pairs},
        "token pairs, breadth": {"pairs": pairs, "breadth": breadth},
        "single tokens": {"words": words},
    }
    if fisher is not None:
        kinds["Task2Vec alignment"] = {"task2vec": fisher}
        kinds["Task2Vec alignment, single tokens, breadth"] = {
            "task2vec": fisher, "words": words, "breadth": breadth
        }  # fmt: skip
    return kinds


def shares_of(arms: Sequence[Arm]) -> Floats:
    """Return the shares (mixes, corpora) of the arms, sum 1 over corpora."""
    corpora = sorted({name for arm in arms for name in arm.shares})
    return np.array([[arm.shares.get(name, 0.0) for name in corpora] for arm in arms])


def breadth_of(shares: Floats) -> Floats:
    """Return the entropy (mixes,) of shares (mixes, corpora), nats."""
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    return np.asarray(-(shares * logs).sum(axis=1))


def hold_forecasts(scalars: Scalars, loss: Floats, *, confidence: float = 0.9) -> dict[str, float]:
    """Fit the product's law on all mixes but one, and forecast that one; each in turn.

    Args:
        scalars: name → (mixes,).
        loss: (mixes,), nats/token.
        confidence: of the intervals.

    Returns:
        coverage of the intervals, spearman of forecast and loss, rmse, mean width.
    """
    n = len(loss)
    found = []
    for number in range(n):
        order = np.append(np.delete(np.arange(n), number), number)
        views = Views(_rows(scalars, order), np.ones((n, 1)), np.ones((n, 0)))  # scalars alone
        _, (one,) = forecast_losses(views, loss[order[:-1]], confidence=confidence)
        found.append((one.loss, one.low, one.high))
    mean, low, high = np.array(found).T
    return {
        "coverage": float(((low <= loss) & (loss <= high)).mean()),
        "spearman": float(spearmanr(mean, loss).statistic),
        "rmse": float(np.sqrt(np.mean((mean - loss) ** 2))),
        "width": float((high - low).mean()),
    }


def hold_few(
    scalars: Scalars,
    shares: Floats,
    embeddings: Floats,
    loss: Floats,
    *,
    spread: Floats,
    mixes: int,
    draws: int = DRAWS,
    seed: int = 0,
    confidence: float = 0.9,
) -> dict[str, float]:
    """Fit every law of the product on a few mixes, and forecast all others.

    Args:
        scalars: name → (n,).
        shares: (n, corpora).
        embeddings: (n, dim), logarithms.
        loss: (n,), nats/token.
        spread: (n,) what the few are spread over, from near its least to near its greatest.
        mixes: how many are measured, at least 2.
        draws: of the few, which a seed moves a little.
        seed: of the draws.
        confidence: of the intervals.

    Returns:
        Means over the draws: error (median of one forecast), coverage, width (median), spearman.
    """
    n, rng, rows = len(loss), np.random.default_rng(seed), []
    for _ in range(draws):
        ranked = np.argsort(spread + rng.normal(0, 0.05, n))
        first, last = rng.integers(0, 3), n - 1 - rng.integers(0, 3)
        known = ranked[np.unique(np.linspace(first, last, mixes).round().astype(int))]
        order = np.concatenate([known, np.setdiff1d(np.arange(n), known)])
        views = Views(_rows(scalars, order), shares[order], embeddings[order])
        _, said = forecast_losses(views, loss[known], confidence=confidence)
        mean, low, high = np.array([(each.loss, each.low, each.high) for each in said]).T
        truth = loss[order[len(known) :]]
        ordered = float(spearmanr(mean, truth).statistic) if np.ptp(mean) > 0 else 0.0
        held = ((low <= truth) & (truth <= high)).mean()
        rows.append((np.median(np.abs(mean - truth)), held, np.median(high - low), ordered))
    names = ("error", "coverage", "width", "spearman")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def _rows(scalars: Scalars, order: npt.NDArray[np.intp]) -> dict[str, Floats]:
    return {name: values[order] for name, values in scalars.items()}
