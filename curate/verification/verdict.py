"""The forecast held against the losses: arms, verdict, the sentence that says it, warnings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.errors import CurateError
from curate.ranking.stats import spearman
from curate.records import (
    NEVER,
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
from curate.verification.outcome import (
    alignment_fit,
    alignment_slope,
    compute_multiplier,
    judge,
    loss_interval,
    mean_loss,
    measured_drop,
    tokens_to_reach,
)
from curate.verification.power import item_error, seeds_needed
from curate.verification.published import PublishedForecast


@dataclass(frozen=True, slots=True)
class Measured:
    """All that the verdict follows from."""

    target: str
    arms: tuple[Arm, ...]
    sources: tuple[str, ...]  # of the shards that each arm's tokens are of
    alignments: tuple[float, ...]  # of each arm's mixture
    runs: tuple[Run, ...]  # mix and random among them, with the same seeds
    forecasts: tuple[PublishedForecast, ...]  # in the order of publication, the mix's last
    unigram_entropy: float  # nats/token of the eval split under the mix's unigrams
    fingerprint: str
    notes: tuple[str, ...] = ()


def conclude(measured: Measured, settings: VerifySettings) -> Verification:
    """Compare the measured drop with the forecast."""
    runs, published = measured.runs, measured.forecasts[-1]
    forecast = _forecast_of_the_mix(measured)
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
    fit = alignment_fit(alignments, losses, confidence=settings.confidence)
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
        law=published.law,
        forecast_digest=published.digest,
        price=_price(runs, settings),
        multiplier=compute_multiplier(mean_points(runs, "mix"), mean_points(runs, "random")),
        r2=fit.r2,
        p_value=fit.p_value,
        seeds_needed=needed_seeds(runs, forecast),
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
            _scores(runs, "mix", name),
            _scores(runs, "random", name),
            np.ones(len(runs[0].outcomes[name]), int),
            confidence=settings.confidence,
            seed=settings.seed,
        ).interval
        for name in names
    }


def _scores(runs: Sequence[Run], arm: str, task: str) -> npt.NDArray[np.float64]:
    """Return (n_seeds, n_items) scores of an arm on a task."""
    return np.array([run.outcomes[task] for run in runs if run.arm == arm])


def mean_points(runs: Sequence[Run], arm: str) -> npt.NDArray[np.float64]:
    """Return (n, 2) tokens and loss on some eval items, the mean over the seeds of an arm."""
    return np.mean([run.points for run in runs if run.arm == arm], axis=0)


def needed_seeds(runs: Sequence[Run], forecast: Forecast) -> int:
    """Return the seeds that show the forecast drop at 90 % power; 0 where that is not known.

    What the choice of items adds is that of the mix against random; before the mix trains, that
    of the calibration mix that came nearest to the target.
    """
    controls = [run for run in runs if run.arm == "random"]
    if len(controls) < 2 or forecast.drop <= 0:
        return 0
    losses = np.array([run.loss for run in controls])
    like = [run for run in runs if run.arm == "mix"] or [
        run for run in runs if run.arm.startswith("calibration")
    ]
    if not like:
        return seeds_needed(losses, forecast.drop)
    best = min(like, key=lambda run: run.loss)
    apart = np.subtract(_nats(runs, "random").mean(axis=0), _nats(runs, best.arm).mean(axis=0))
    error = item_error(apart, np.array(best.item_tokens))
    return seeds_needed(losses, forecast.drop, of_items=error)


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
                _scores(runs, arm.name, name),
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
    measured: Measured,
    arms: Sequence[ArmResult],
    drop: Interval,
    settings: VerifySettings,
    *,
    verdict: Verdict,
) -> str:
    loss = {arm.arm: arm.loss for arm in arms}
    forecast = _forecast_of_the_mix(measured)
    told = {
        "confirmed": "",
        "better": "; a larger drop than forecast",
        "worse": "; a smaller drop than forecast",
        "refuted": "; not better than random beyond doubt",
    }[verdict]
    n, trained = places_for(drop.value), "Trained further" if settings.model else "Trained"
    return (
        f"{trained} on the mix, {_learners(settings)} reach {loss['mix']:.{n}f} "
        f"nats/token on {measured.target}, on random documents {loss['random']:.{n}f}: a drop of "
        f"{drop.value:.{n}f} ({settings.confidence:.0%} interval {drop.low:.{n}f} to "
        f"{drop.high:.{n}f}), forecast {forecast.drop:.{n}f} ({forecast.low:.{n}f} to "
        f"{forecast.high:.{n}f}) before it was trained{told}."
    )


def places_for(drop: float) -> int:
    """Return the places after the point that a drop is said with: two, or all that it needs.

    A drop of a continued model may be a hundredth of a nat, of which two places leave nothing.
    """
    return 2 if abs(drop) >= 0.1 else 3 if abs(drop) >= 0.01 else 4


def _learners(settings: VerifySettings) -> str:
    return "pretrained models" if settings.model else "small models"


def _warnings(measured: Measured, settings: VerifySettings) -> list[str]:
    found = list(measured.notes)
    runs, published, entropy = measured.runs, measured.forecasts[-1], measured.unigram_entropy
    mix_loss = float(np.mean([run.loss for run in runs if run.arm == "mix"]))
    if mix_loss > entropy - 1.0:
        found.append(
            f"the {_learners(settings)} ({mix_loss:.2f} nats/token) are within 1 nat/token of word "
            f"frequencies alone ({entropy:.2f}): this tests which words a mix has, hardly more; "
            + _enough(runs, entropy - 1.0, settings)
        )
    if not published.blind:
        found.append("runs on this mix were there before the forecast was made: it is not blind")
    controls = [run.loss for run in runs if run.arm == "random"]
    if len(controls) == 1:
        found.append("one seed an arm: the intervals leave out what seeds differ by")
    elif (needed := needed_seeds(runs, _forecast_of_the_mix(measured))) == NEVER:
        found.append(
            "no number of seeds shows the forecast drop at 90 % power: it is too small beside what "
            "the choice of eval items adds; more of them would help"
        )
    elif needed > settings.seeds:
        found.append(
            f"to see the forecast drop at 90 % power would take {needed} seeds an arm, "
            f"not {settings.seeds}"
        )
    same = {arm.tokens for arm in measured.arms if arm.name in ("all", "random")}
    if len(same) == 1 and any(arm.name == "all" for arm in measured.arms):
        found.append("all holds the documents of random here: its runs are those of random")
    n_items = len(runs[0].item_tokens)
    if n_items < 30:
        found.append(f"only {n_items} eval items: the intervals are rough")
    return found


def _enough(runs: Sequence[Run], goal: float, settings: VerifySettings) -> str:
    """Return what to do to get below `goal`, from how the mix's loss fell with its tokens."""
    needed = tokens_to_reach(mean_points(runs, "mix"), goal)
    if not math.isfinite(needed):
        other = (
            "another --model may know the words already"
            if settings.model
            else "give [verify] a larger size, or a pretrained model to go on from (--model)"
        )
        return f"as the loss fell, more tokens would not be enough; {other}"
    needed = round(needed, 1 - math.floor(math.log10(needed)))
    other = "another --model may know" if settings.model else "a pretrained start (--model) knows"
    return (
        f"about {needed:,.0f} tokens a run ([verify] tokens) would be enough if the "
        f"loss goes on falling as it did; {other} the words already"
    )
