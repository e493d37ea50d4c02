"""The experiment: controls and calibration, then the forecast, then the mix, then the verdict."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.corpus.tokens import count_unigrams
from curate.errors import CurateError
from curate.mixing.forecast import fit_law, lexical_cross_entropy, predict
from curate.records import Forecast, Notify, Run, Verification, VerifySettings, silent
from curate.store.fingerprint import fingerprint
from curate.store.publish import publish_json, read_json
from curate.verification.arms import Arm
from curate.verification.runs import (
    RunItem,
    plan_run,
    publish_documents,
    read_documents,
    train_runs,
)
from curate.verification.train import IntArray, TrainSettings
from curate.verification.verdict import Measured, MeasuredArm, PublishedForecast, conclude

ArmDocuments = Callable[[Arm], Sequence[IntArray]]
"""Token ids of an arm's documents, in no particular order."""

FEATURES = ("alignment", "lexical cross-entropy")


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is trained, on what it is evaluated, and where the results lie."""

    target: str
    arms: tuple[Arm, ...]  # the mix first
    alignments: tuple[float, ...]  # of each arm's mixture
    select: Sequence[IntArray]  # token ids of the select split
    items: Sequence[IntArray]  # token ids of the eval split, none empty
    n_bytes: int  # UTF-8 bytes of those items
    vocab: int
    eos: int
    tokens: int  # labels a run trains on
    documents_key: str  # digest of what decides the documents of the arms
    fingerprint: str
    folder: Path  # of the verification
    device: str  # cpu or cuda
    notes: tuple[str, ...] = ()  # warnings about what it is set up from


def run_experiment(
    experiment: Experiment,
    arm_documents: ArmDocuments,
    settings: VerifySettings,
    *,
    workers: int = 0,
    notify: Notify = silent,
) -> Verification:
    """Train controls and calibration mixes, publish the forecast, train the mix, compare.

    Everything is published as it is finished: the same call after a crash goes on where it was.

    Args:
        experiment: arms and items.
        arm_documents: called once for each arm whose documents are not published yet.
        settings: sizes, seeds, confidence.
        workers: processes; 0 chooses.
        notify: progress.

    Raises:
        CurateError: an arm without documents, a run that diverged, a worker that died.
    """
    mix, *others = experiment.arms
    paths = {
        arm.name: _documents_of(experiment, arm, arm_documents, notify=notify)
        for arm in experiment.arms
    }
    items = experiment.folder / "arms" / f"items-{experiment.documents_key[:16]}.safetensors"
    publish_documents(items, experiment.items)

    def plan(arm: Arm) -> list[RunItem]:
        return _plan_arm(experiment, arm, settings, documents=paths[arm.name], items=items)

    before = [item for arm in others for item in plan(arm)]
    runs = train_runs(before, workers=workers, notify=notify, what="train controls")
    features = {
        arm.name: (alignment, _lexical(experiment, paths[arm.name]))
        for arm, alignment in zip(experiment.arms, experiment.alignments, strict=True)
    }
    forecast = _publish_forecast(
        experiment, runs, features, settings, blind=not _any_there(plan(mix))
    )
    runs = train_runs(plan(mix), workers=workers, notify=notify, what="train the mix") + runs
    documents = read_documents(paths["mix"])
    return conclude(
        Measured(
            target=experiment.target,
            arms=experiment.arms,
            alignments=experiment.alignments,
            runs=tuple(runs),
            forecast=forecast,
            unigram_entropy=unigram_entropy(experiment.items, documents, vocab=experiment.vocab),
            fingerprint=experiment.fingerprint,
            notes=experiment.notes,
        ),
        settings,
    )


# --- before the mix ---


def _documents_of(
    experiment: Experiment, arm: Arm, arm_documents: ArmDocuments, *, notify: Notify
) -> Path:
    """Publish an arm's documents once; return where they are."""
    key = fingerprint(documents=experiment.documents_key, tokens=arm.tokens, role=arm.role)
    path = experiment.folder / "arms" / f"{arm.name}-{key[:16]}.safetensors"
    if not path.is_file():
        notify(f"read the documents of {arm.name}", 0, 0)
        documents = arm_documents(arm)
        if not sum(map(len, documents)):
            raise CurateError(
                f"arm {arm.name}: no documents are left after decontamination; index more text"
            )
        publish_documents(path, documents)
    return path


def _plan_arm(
    experiment: Experiment, arm: Arm, settings: VerifySettings, *, documents: Path, items: Path
) -> list[RunItem]:
    return [
        plan_run(
            experiment.folder / "runs",
            arm=arm.name,
            settings=TrainSettings(
                size=settings.size,
                vocab=experiment.vocab,
                eos=experiment.eos,
                tokens=experiment.tokens,
                block_tokens=settings.block_tokens,
                batch_tokens=settings.batch_tokens,
                learning_rate=settings.learning_rate,
                seed=settings.seed + number,
            ),
            documents=documents,
            items=items,
            n_bytes=experiment.n_bytes,
            device=experiment.device,
        )
        for number in range(arm.seeds)
    ]


def _any_there(items: Sequence[RunItem]) -> bool:
    return any(item.path.is_file() for item in items)


def _lexical(experiment: Experiment, documents: Path) -> float:
    """Return the cross-entropy of the select split under an arm's unigrams, nats/token.

    The eval split has no part in what the forecast is computed from but the measured losses.
    """
    return unigram_entropy(experiment.select, read_documents(documents), vocab=experiment.vocab)


def unigram_entropy(
    target: Sequence[IntArray], documents: Sequence[IntArray], *, vocab: int
) -> float:
    """Return the cross-entropy of `target` under the unigrams of `documents`, nats/token."""
    counts = count_unigrams(documents, vocab)
    total = int(counts.sum())
    return lexical_cross_entropy(count_unigrams(target, vocab), counts / total, tokens=total)


def _publish_forecast(
    experiment: Experiment,
    runs: Sequence[Run],
    features: Mapping[str, tuple[float, ...]],
    settings: VerifySettings,
    *,
    blind: bool,
) -> PublishedForecast:
    """Fit the law on what is measured, and publish what it says of the mix; keep it if there."""
    path = experiment.folder / "forecast.json"
    losses = {
        arm.name: _mean([r.loss for r in runs if r.arm == arm.name]) for arm in experiment.arms[1:]
    }
    points = tuple(MeasuredArm(name, features[name], loss) for name, loss in losses.items())
    key = fingerprint(
        points=points,
        mix=features["mix"],
        confidence=settings.confidence,
        of=experiment.fingerprint,
    )
    if path.is_file() and (there := read_json(path, PublishedForecast)).fingerprint == key:
        return there
    law = fit_law(np.array([p.features for p in points]), np.array([p.loss for p in points]))
    mean, low, high = predict(law, np.array(features["mix"]), confidence=settings.confidence)
    used = " and ".join(FEATURES[number] for number in law.features) or "their mean alone"
    control = losses["random"]
    forecast = Forecast(
        drop=control - mean,
        low=control - high,
        high=control - low,
        basis=f"{len(runs)} runs on {len(points)} other mixtures; loss from {used}",
        made_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    published = PublishedForecast(
        forecast, mean, low, high, control, FEATURES, features["mix"], points, blind, key
    )
    publish_json(path, published)
    return published


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
