"""The forecast held against the losses: arms, verdict, the sentence that says it, warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.ranking.stats import spearman
from curate.records import (
    ArmResult,
    Forecast,
    Interval,
    Run,
    Verdict,
    Verification,
    VerifySettings,
)
from curate.verification.arms import Arm
from curate.verification.outcome import (
    alignment_slope,
    judge,
    loss_interval,
    measured_drop,
    seeds_needed,
)


@dataclass(frozen=True, slots=True)
class MeasuredArm:
    """One point that the forecast was fitted on."""

    arm: str
    features: tuple[float, ...]
    loss: float  # nats/token


@dataclass(frozen=True, slots=True)
class PublishedForecast:
    """What `forecast.json` holds: made, and published, before the mix is trained on."""

    forecast: Forecast
    mix_loss: float  # nats/token
    mix_low: float
    mix_high: float
    random_loss: float  # measured
    features: tuple[str, ...]
    mix_features: tuple[float, ...]
    points: tuple[MeasuredArm, ...]
    blind: bool  # no run of the mix was there when it was made
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Measured:
    """All that the verdict follows from."""

    target: str
    arms: tuple[Arm, ...]
    alignments: tuple[float, ...]  # of each arm's mixture
    runs: tuple[Run, ...]  # mix and random among them, with the same seeds
    forecast: PublishedForecast
    unigram_entropy: float  # nats/token of the eval split under the mix's unigrams
    fingerprint: str
    notes: tuple[str, ...] = ()


def conclude(measured: Measured, settings: VerifySettings) -> Verification:
    """Compare the measured drop with the forecast."""
    runs, forecast = measured.runs, measured.forecast.forecast
    drop = measured_drop(
        _nats(runs, "random"),
        _nats(runs, "mix"),
        np.array(runs[0].item_tokens),
        confidence=settings.confidence,
        seed=settings.seed,
    )
    arms = tuple(
        _arm_result(measured, arm, alignment, settings)
        for arm, alignment in zip(measured.arms, measured.alignments, strict=True)
    )
    verdict = judge(drop, forecast)
    alignments, losses = (np.array([(arm.alignment, arm.loss) for arm in arms])).T
    return Verification(
        target=measured.target,
        verdict=verdict,
        sentence=_sentence(measured, arms, drop.interval, settings, verdict=verdict),
        drop=drop.interval,
        forecast=forecast,
        arms=arms,
        runs=runs,
        slope=alignment_slope(alignments, losses, confidence=settings.confidence),
        spearman=spearman(-alignments, losses),
        unigram_entropy=measured.unigram_entropy,
        warnings=tuple(_warnings(measured, settings)),
        fingerprint=measured.fingerprint,
    )


def _nats(runs: Sequence[Run], arm: str) -> npt.NDArray[np.float64]:
    """Return (n_seeds, n_items) nats of an arm, in the order of its seeds."""
    return np.array([run.item_nats for run in runs if run.arm == arm])


def _arm_result(
    measured: Measured, arm: Arm, alignment: float, settings: VerifySettings
) -> ArmResult:
    runs = measured.runs
    interval = loss_interval(
        _nats(runs, arm.name),
        np.array(runs[0].item_tokens),
        confidence=settings.confidence,
        seed=settings.seed,
    )
    return ArmResult(
        arm=arm.name,
        loss=interval.value,
        low=interval.low,
        high=interval.high,
        seeds=arm.seeds,
        alignment=alignment,
        forecast_loss=measured.forecast.mix_loss if arm.role == "mix" else float("nan"),
    )


def _sentence(
    measured: Measured,
    arms: Sequence[ArmResult],
    drop: Interval,
    settings: VerifySettings,
    *,
    verdict: Verdict,
) -> str:
    loss = {arm.arm: arm.loss for arm in arms}
    forecast = measured.forecast.forecast
    told = {
        "confirmed": "as forecast",
        "better": "a larger drop than forecast",
        "worse": "a smaller drop than forecast",
        "refuted": "not better than random beyond doubt",
    }[verdict]
    return (
        f"{verdict.capitalize()}: trained on the mix, small models reach {loss['mix']:.2f} "
        f"nats/token on {measured.target}, on random documents {loss['random']:.2f}: a drop of "
        f"{drop.value:.2f} ({settings.confidence:.0%} interval {drop.low:.2f} to "
        f"{drop.high:.2f}), forecast {forecast.drop:.2f} ({forecast.low:.2f} to "
        f"{forecast.high:.2f}) before it was trained; {told}."
    )


def _warnings(measured: Measured, settings: VerifySettings) -> list[str]:
    found = list(measured.notes)
    runs, forecast, entropy = measured.runs, measured.forecast, measured.unigram_entropy
    mix_loss = float(np.mean([run.loss for run in runs if run.arm == "mix"]))
    if mix_loss > entropy - 1.0:
        found.append(
            f"the small models ({mix_loss:.2f} nats/token) are within 1 nat/token of word "
            f"frequencies alone ({entropy:.2f}): this tests which words a mix has, hardly more; "
            "give [verify] more tokens or a larger size"
        )
    if not forecast.blind:
        found.append("runs on this mix were there before the forecast was made: it is not blind")
    controls = [run.loss for run in runs if run.arm == "random"]
    if len(controls) == 1:
        found.append("one seed an arm: the intervals leave out what seeds differ by")
    elif forecast.forecast.drop > 0:
        needed = seeds_needed(np.array(controls), forecast.forecast.drop)
        if needed > settings.seeds:
            found.append(
                f"to see the forecast drop at 90 % power would take {needed} seeds an arm, "
                f"not {settings.seeds}"
            )
    n_items = len(runs[0].item_tokens)
    if n_items < 30:
        found.append(f"only {n_items} eval items: the intervals are rough")
    return found
