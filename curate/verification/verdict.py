"""The forecast held against the losses: arms, verdict, the sentence that says it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from curate.errors import CurateError
from curate.ranking.stats import spearman
from curate.records import (
    NOT_MEASURED,
    ArmResult,
    Forecast,
    Interval,
    Run,
    Verdict,
    Verification,
)
from curate.settings import VerifySettings
from curate.verification.arms import Arm
from curate.verification.caveats import find_caveats, learners
from curate.verification.measured import Measured, mean_points, nats_of, scores_of
from curate.verification.outcome import (
    alignment_fit,
    alignment_slope,
    compute_multiplier,
    judge,
    loss_interval,
    mean_loss,
    measured_drop,
)
from curate.verification.power import needed_seeds

TOO_WIDE = 2.0
"""Widths of the measured drop from which on a forecast's interval says little."""


def conclude(measured: Measured, settings: VerifySettings) -> Verification:
    """Compare the measured drop with the forecast."""
    runs, published = measured.runs, measured.forecasts[-1]
    forecast = _forecast_of_the_mix(measured)
    drop = measured_drop(
        nats_of(runs, "random"),
        nats_of(runs, "mix"),
        np.array(runs[0].item_tokens),
        confidence=settings.confidence,
        seed=settings.seed,
    )
    arms = tuple(
        _arm_result(measured, arm, alignment, settings)
        for arm, alignment in zip(measured.arms, measured.alignments, strict=True)
    )
    verdict = judge(drop, forecast)
    needed = needed_seeds(runs, forecast)
    alignments, losses = (np.array([(arm.alignment, arm.loss) for arm in arms])).T
    fit = alignment_fit(alignments, losses, confidence=settings.confidence)
    return Verification(
        target=measured.target,
        verdict=verdict,
        sentence=_sentence(
            measured.target, arms, drop.interval, forecast, settings, verdict=verdict
        ),
        drop=drop.interval,
        forecast=forecast,
        arms=arms,
        runs=runs,
        slope=alignment_slope(alignments, losses, confidence=settings.confidence),
        spearman=spearman(-alignments, losses),
        unigram_entropy=measured.unigram_entropy,
        warnings=tuple(find_caveats(measured, settings, seeds_needed=needed)),
        fingerprint=measured.fingerprint,
        law=published.law,
        forecast_digest=published.digest,
        price=_price(runs, settings),
        multiplier=compute_multiplier(mean_points(runs, "mix"), mean_points(runs, "random")),
        r2=fit.r2,
        p_value=fit.p_value,
        seeds_needed=needed,
        r2_low=fit.low,
        r2_high=fit.high,
        outcomes=_outcomes(runs, settings),
    )


def _forecast_of_the_mix(measured: Measured) -> Forecast:
    """Return the forecast of the drop, published before the mix trained.

    Raises:
        CurateError: the mix trained under another forecast than the one that lies there.
    """
    published = measured.forecasts[-1]
    if published.drop is None:  # pragma: no cover - random trains before
        raise ValueError("the last forecast holds no drop")
    others = {run.forecast for run in measured.runs if run.arm == "mix"} - {published.digest}
    if published.blind and others:
        raise CurateError(
            f"forecast.json has the digest {published.digest[:16]}, but the mix trained after "
            f"{min(others)[:16] or 'none'} was published: it was replaced; delete the folder of "
            "the verification and run again"
        )
    return published.drop


def _price(runs: Sequence[Run], settings: VerifySettings) -> Interval:
    """Return the loss of the mix minus that of random on the control set, NaN without one."""
    tokens = np.array(runs[0].control_tokens)
    if not len(tokens):
        return NOT_MEASURED
    mix, random = (
        np.array([run.control_nats for run in runs if run.arm == arm]) for arm in ("mix", "random")
    )
    found = measured_drop(mix, random, tokens, confidence=settings.confidence, seed=settings.seed)
    return found.interval


def _outcomes(runs: Sequence[Run], settings: VerifySettings) -> dict[str, Interval]:
    """Return what the mix scores on each task more than random, paired by seed and item."""
    names = [name for run in runs[:1] for name in run.outcomes]
    return {
        name: measured_drop(
            scores_of(runs, "mix", name),
            scores_of(runs, "random", name),
            np.ones(len(runs[0].outcomes[name]), int),
            confidence=settings.confidence,
            seed=settings.seed,
        ).interval
        for name in names
    }


def _arm_result(
    measured: Measured, arm: Arm, alignment: float, settings: VerifySettings
) -> ArmResult:
    runs = measured.runs
    interval = loss_interval(
        nats_of(runs, arm.name),
        np.array(runs[0].item_tokens),
        confidence=settings.confidence,
        seed=settings.seed,
    )
    own = [run for run in runs if run.arm == arm.name]
    published = next((each for each in measured.forecasts if each.of(arm.name)), None)
    said = published.of(arm.name) if published else None
    control = np.array([run.control_nats for run in own])
    return ArmResult(
        arm=arm.name,
        loss=interval.value,
        low=interval.low,
        high=interval.high,
        seeds=arm.seeds,
        alignment=alignment,
        forecast_loss=said.loss if said else math.nan,
        forecast_low=said.low if said else math.nan,
        forecast_high=said.high if said else math.nan,
        forecast_at=published.made_at if published else "",
        trained_at=min(run.started_at for run in own),
        bpb=float(np.mean([run.bpb for run in own])),
        control_loss=mean_loss(control, np.array(own[0].control_tokens))
        if control.size
        else math.nan,
        sources=_by_source(measured.sources, arm),
        outcomes={
            name: loss_interval(
                scores_of(runs, arm.name, name),
                np.ones(len(values), int),
                confidence=settings.confidence,
                seed=settings.seed,
            )
            for name, values in own[0].outcomes.items()
        },
    )


def _by_source(sources: Sequence[str], arm: Arm) -> dict[str, float]:
    """Return each source's share of an arm, all sources in one order."""
    shares = dict.fromkeys(sources, 0.0)
    for source, share in zip(sources, arm.shares, strict=True):
        shares[source] += share
    return shares


def _sentence(
    target: str,
    arms: Sequence[ArmResult],
    drop: Interval,
    forecast: Forecast,
    settings: VerifySettings,
    *,
    verdict: Verdict,
) -> str:
    loss = {arm.arm: arm.loss for arm in arms}
    told = {
        "confirmed": _how_wide(forecast, drop) if verdict == "confirmed" else "",
        "better": "; a larger drop than forecast",
        "worse": "; a smaller drop than forecast",
        "refuted": "; not better than random beyond doubt",
    }[verdict]
    n, trained = places_for(drop.value), "Trained further" if settings.model else "Trained"
    return (  # z: what rounds to 0 has no sign
        f"{trained} on the mix, {learners(settings)} reach {loss['mix']:.{n}f} "
        f"nats/token on {target}, on random documents {loss['random']:.{n}f}: a drop of "
        f"{drop.value:z.{n}f} ({100 * settings.confidence:g}% interval {drop.low:z.{n}f} to "
        f"{drop.high:z.{n}f}), forecast {forecast.drop:z.{n}f} ({forecast.low:z.{n}f} to "
        f"{forecast.high:z.{n}f}) before it was trained{told}."
    )


def _how_wide(forecast: Forecast, drop: Interval) -> str:
    """Say of a confirmed forecast that it could hardly have missed; nothing where it could.

    An interval twice as wide as the drop, around that drop, reaches from none to the double.
    """
    times = (forecast.high - forecast.low) / drop.value
    if times < TOO_WIDE:
        return ""
    return (
        f"; but its interval is {math.floor(times):,} times as wide as the drop: it could hardly "
        "have missed"
    )


def places_for(drop: float) -> int:
    """Return the places after the point that a drop is said with: two, or all that it needs.

    A drop of a continued model may be a hundredth of a nat, of which two places leave nothing.
    """
    return 2 if abs(drop) >= 0.1 else 3 if abs(drop) >= 0.01 else 4
