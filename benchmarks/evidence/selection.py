"""Mixes that `build-mix` would choose, as arms; and forecasts held against measured losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from curate.mixing.laws import Views, forecast_losses
from curate.mixing.mixture import matched_shares
from curate.mixing.weights import choose_weights, spread_tokens
from curate.ranking.rank import rank_shards
from curate.records import Index, Target
from curate.settings import Method, RankSettings, Selection
from curate.task2vec.embed import embed_target
from evidence.plan import Arm, Settings

Floats = npt.NDArray[np.float64]


def selected_arms(
    pools: Index,
    targets: Sequence[Target],
    out: Path,
    settings: Settings,
    *,
    rankings: Sequence[Method] = ("task2vec", "lexical", "ngram-lm", "embedding", "classifier"),
) -> list[Arm]:
    """Return, for each target, the mixes that the product would build from each ranking.

    `temperature` and `match` are those of task2vec and lexical; what comes out the same is one
    arm.

    Args:
        pools: index of the pools.
        targets: to build mixes for.
        out: where the pools' index lies.
        settings: tokens, seed.
        rankings: methods whose best pool `top` takes.
    """
    workspace = out / "pools"
    arms: list[Arm] = []
    for target in targets:
        own = embed_target(target, pools, workspace=workspace, device="cpu")
        for method in rankings:
            ranking = rank_shards(
                pools, target, RankSettings(method=method), workspace=workspace, device="cpu"
            )
            tokens = np.array([line.tokens for line in ranking.shards])
            kinds: tuple[Selection, ...] = get_args(Selection)
            for kind in kinds if method in ("task2vec", "lexical") else ("top",):
                spread = choose_weights(
                    np.array([line.alignment for line in ranking.shards]),
                    tokens,
                    budget=settings.tokens,
                    selection=kind,
                    seed=settings.seed,
                    matched=matched_shares(
                        pools, ranking, target, own,
                        tokens=tokens, caps=tokens / settings.tokens, budget=settings.tokens,
                        seed=settings.seed,
                    ),
                )  # fmt: skip
                given = spread_tokens(spread, tokens, budget=settings.tokens).tolist()
                names = [line.shard for line in ranking.shards]
                shares = {n: g / settings.tokens for n, g in zip(names, given, strict=True) if g}
                arms.append(Arm(f"{target.name}-{kind}-{method}", shares))
    return arms


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
