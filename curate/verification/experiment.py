"""The experiment: calibration, controls, the mix; what is forecast of each is published before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from curate.corpus.afar import hand_over
from curate.records import Notify, Run, Verification, Watch, seeds_that_show, silent, unwatched
from curate.settings import VerifySettings
from curate.store.fingerprint import digest_file
from curate.verification.arms import Arm
from curate.verification.measured import Measured
from curate.verification.power import needed_seeds
from curate.verification.prepared import (
    ArmDocuments,
    Experiment,
    Prepared,
    prepare,
    unigram_entropy,
)
from curate.verification.published import (
    Look,
    MeasuredArm,
    PublishedForecast,
    forecast_copy,
    keep_points,
    publish_forecast,
)
from curate.verification.runs import (
    RunItem,
    has_begun,
    plan_run,
    read_documents,
)
from curate.verification.schedule import train_runs
from curate.verification.verdict import conclude, places_for
from curate.verification.watch import state_of

STAGES = (
    ("calibration", "forecast-calibration.json", ("calibration",)),
    ("controls", "forecast-controls.json", ("control",)),
    ("the mix", "forecast.json", ("mix", "rival")),
)
"""What trains together: its name, the forecast published before, the roles."""


def run_experiment(
    experiment: Experiment,
    arm_documents: ArmDocuments,
    settings: VerifySettings,
    *,
    workers: int = 0,
    compiled: bool = False,
    notify: Notify = silent,
    watch: Watch = unwatched,
    on_run: Callable[[Run], None] | None = None,
) -> Verification:
    """Train calibration mixes, then controls, then the mix; forecast each before; compare.

    Everything is published as it is finished: the same call after a crash goes on where it was.

    Args:
        experiment: arms and items.
        arm_documents: called once for each arm whose documents are not published yet.
        settings: sizes, seeds, confidence.
        workers: processes; 0 chooses.
        compiled: fuse the operations of the models first.
        notify: progress.
        watch: told now and then how far each run is.
        on_run: told of each run that ends now.

    Raises:
        CurateError: an arm without documents, a run that diverged, a worker that died, a
            forecast that was changed after it was published.
    """
    ready = prepare(experiment, arm_documents, settings, notify=notify)
    watch([state_of(item, {}) for arm in experiment.arms for item in _plan_arm(ready, arm, None)])
    runs: list[Run] = []
    forecasts: list[PublishedForecast] = []
    for what, file, roles in STAGES:
        arms = [arm for arm in experiment.arms if arm.role in roles]
        points = (*ready.earlier, *_measured(ready, runs))
        forecast = _forecast(ready, arms, points, runs, file) if len(points) > 1 else None
        items = [item for arm in arms for item in _plan_arm(ready, arm, forecast)]
        if forecast is not None:
            forecasts.append(forecast)
            for line in _aloud(forecast, runs, settings.seeds, earlier=len(ready.earlier)):
                notify(line, 0, 0)
        runs += train_runs(
            [dataclasses.replace(item, compiled=compiled) for item in items],
            workers=workers,
            notify=notify,
            watch=watch,
            on_run=on_run,
            what=f"train {what}",
        )
        keep_points(experiment.folder / "measured", _measured(ready, runs))
    return conclude(
        Measured(
            target=experiment.target,
            arms=experiment.arms,
            sources=experiment.sources,
            alignments=tuple(_look(ready, experiment.arms).alignments.tolist()),
            runs=tuple(runs),
            forecasts=tuple(forecasts),
            unigram_entropy=unigram_entropy(
                experiment.items,
                read_documents(ready.documents["mix"]),
                vocab=experiment.train.vocab,
            ),
            fingerprint=experiment.fingerprint,
            notes=experiment.notes,
        ),
        settings,
    )


# --- a stage ---


def _plan_arm(ready: Prepared, arm: Arm, forecast: PublishedForecast | None) -> list[RunItem]:
    experiment = ready.experiment
    return [
        plan_run(
            experiment.folder / "runs",
            arm=arm.name,
            settings=dataclasses.replace(experiment.train, seed=experiment.train.seed + number),
            start=experiment.start,
            documents=ready.documents[arm.name],
            items=ready.items,
            control=ready.control,
            n_bytes=experiment.n_bytes,
            device=experiment.device,
            forecast=forecast.digest if forecast else "",
            outcomes=experiment.outcomes,
            store=experiment.store,
        )
        for number in range(arm.seeds)
    ]


def _forecast(
    ready: Prepared,
    arms: Sequence[Arm],
    points: Sequence[MeasuredArm],
    runs: Sequence[Run],
    file: str,
) -> PublishedForecast:
    """Publish what the points say of these arms, or keep what was published of the same."""
    mixtures = [*(point.shares for point in points), *(_shares(ready, arm) for arm in arms)]
    random = [run.loss for run in runs if run.arm == "random"]
    experiment = ready.experiment
    # A rival may be an arm of before: it has no part in the fit, nor in the verdict on the mix.
    judged = [arm for arm in arms if arm.role != "rival"]
    unseen = [item for arm in judged for item in _plan_arm(ready, arm, None)]
    forecast = publish_forecast(
        experiment.folder / file,
        points=points,
        arms={arm.name: ready.pairs[arm.name] for arm in arms},
        look=experiment.look(mixtures),
        random_loss=float(np.mean(random)) if random else None,
        confidence=ready.settings.confidence,
        blind=not any(has_begun(item) for item in unseen),
    )
    if experiment.store:  # so that it lies there before any of these runs
        copy = forecast_copy(Path(file), forecast.key).as_posix()
        hand_over(experiment.store, experiment.folder, file, copy)
    return forecast


def _measured(ready: Prepared, runs: Sequence[Run]) -> tuple[MeasuredArm, ...]:
    """Return the arms that have trained, as points of later forecasts."""
    losses = {
        arm.name: [run.loss for run in runs if run.arm == arm.name] for arm in ready.experiment.arms
    }
    return tuple(
        MeasuredArm(
            arm=arm.name,
            documents=digest_file(ready.documents[arm.name]),
            shares=_shares(ready, arm),
            pairs=ready.pairs[arm.name],
            loss=float(np.mean(losses[arm.name])),
            seeds=arm.seeds,
            context=ready.context,
        )
        for arm in ready.experiment.arms
        if losses[arm.name] and arm.name != "all"  # of other tokens: no point of these fits
    )


def _aloud(
    forecast: PublishedForecast, runs: Sequence[Run], seeds: int, *, earlier: int
) -> Iterator[str]:
    """Yield the lines that are shown before the arms train."""
    said = ", ".join(
        f"{arm.arm} {arm.loss:.3f} ({arm.low:.3f} to {arm.high:.3f})" for arm in forecast.arms
    )
    yield f"forecast of {forecast.made_at}, digest {forecast.digest[:16]}: {said}"
    if earlier:
        yield (
            f"it rests on {len(forecast.points)} measured mixtures, {earlier} of them of earlier "
            "verifications of this corpus"
        )
    if forecast.drop is not None and (needed := needed_seeds(runs, forecast.drop)):
        drop = forecast.drop.drop
        show = seeds_that_show(needed, size=f"{drop:.{places_for(drop)}f}")
        yield (
            f"by the spread of random's seeds and of the eval items, {show}; {seeds} are trained"
        )


def _look(ready: Prepared, arms: Sequence[Arm]) -> Look:
    return ready.experiment.look([_shares(ready, arm) for arm in arms])


def _shares(ready: Prepared, arm: Arm) -> dict[str, float]:
    named = zip(ready.experiment.shards, arm.shares, strict=True)
    return {name: share for name, share in named if share > 0}
