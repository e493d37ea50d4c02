"""What a verification will take, and whether it is enough: measured here, before it starts."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curate.mixing.opened import read_mix_texts
from curate.records import Mix, Target, VerificationPlan
from curate.settings import VerifySettings
from curate.task2vec.probe import Probe, encode_texts, load_probe
from curate.verification.blocks import IntArray
from curate.verification.chain import learner_of
from curate.verification.checks import check_settings, check_start
from curate.verification.conduct import MOST_TOKENS, draw_items
from curate.verification.evaluate import item_nats
from curate.verification.measured import whole_points
from curate.verification.outcome import loss_at, tokens_to_reach
from curate.verification.pilot import run_pilot
from curate.verification.published import open_verification
from curate.verification.schedule import share_out
from curate.verification.small_model import count_parameters
from curate.verification.start import Start, find_start, load_start, train_settings
from curate.verification.tasks import Outcomes, find_outcomes, foresee
from curate.verification.train import Progress, TrainSettings, train_models

STEPS = 6
"""Steps that are timed, after one that is not."""

PILOT_TOKENS = 500_000
"""Of the mix that are read for the pilot, at most."""

PILOT_ITEMS = 64
"""Eval items of the pilot, at most."""

FORWARD = 1 / 3
"""Time of a token that is evaluated, per token that is trained on."""


def estimate_verification(
    mix: Mix,
    target: Target,
    settings: VerifySettings,
    *,
    workspace: Path,
    device: str = "auto",
    workers: int = 0,
) -> VerificationPlan:
    """Time a few steps of the small model here and say what all runs will take.

    Runs that are published already are not taken off: the time is an upper one.

    Args:
        mix: what would be verified.
        target: of the mix.
        settings: as of `verify_mix`.
        workspace: an earlier verification in it tells which number of tokens would be enough.
        device: auto, cpu or cuda.
        workers: processes; 0 chooses as `verify_mix` does.

    Raises:
        CurateError: a setting out of its range, a task that cannot be asked, or an empty eval
            split.
    """
    check_settings(settings)
    probe = load_probe(settings.model or settings.tokenizer, device=device)
    check_start(settings, probe)
    outcomes = find_outcomes(settings)
    tokens = settings.tokens or min(mix.tokens, MOST_TOKENS)
    train = train_settings(settings, probe, tokens=tokens, seed=settings.seed)
    start = find_start(settings, probe.info.revision)
    step_tokens = max(1, settings.batch_tokens // settings.block_tokens) * settings.block_tokens
    stages = [
        settings.calibration,
        2 * settings.seeds,
        (1 + len(settings.against)) * settings.seeds,
    ]
    shared = [share_out(train.size, probe.device.type, n, workers) for n in stages]
    side_by_side = max(most for _, most in shared)
    seconds_a_step = _time_steps(train, start, step_tokens, probe.device.type, side_by_side)
    _, items = draw_items(target, settings, probe)
    evaluated = sum(map(len, items)) + settings.control_items * settings.block_tokens
    steps = math.ceil(tokens / step_tokens)
    asked = _time_tasks(outcomes, train, FORWARD * seconds_a_step / step_tokens)
    seconds_a_run = (
        seconds_a_step * (steps + FORWARD * evaluated / step_tokens) + side_by_side * asked
    )
    known = _from_last(workspace, learner_of(target, settings, probe.info), tokens)
    if known is None:
        some = items[:PILOT_ITEMS]
        a_token = seconds_a_step / step_tokens
        known = _from_pilot(mix, some, settings, probe, train, seconds_a_token=a_token)
    at_once = [crew * most for crew, most in shared]
    rounds = sum(math.ceil(n / size) for n, size in zip(stages, at_once, strict=True))
    return VerificationPlan(
        runs=sum(stages),
        at_once=max(at_once),
        tokens=tokens,
        steps=steps,
        parameters=probe.info.n_parameters
        if start
        else count_parameters(train.size, vocab=train.vocab),
        seconds_a_step=seconds_a_step,
        seconds=rounds * seconds_a_run,
        task_seconds=asked,
        model=settings.model,
        **known,
    )


def _time_steps(
    settings: TrainSettings, start: Start | None, step_tokens: int, device: str, n_runs: int
) -> float:
    """Return the seconds of one step of `n_runs` runs side by side, on random documents.

    The median of some steps.
    """
    short = (STEPS + 1) * step_tokens
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, settings.vocab, size=short).astype(np.int32)]
    at: list[float] = []

    def on_step(progress: Progress) -> None:
        at.append(time.perf_counter())

    train_models(
        [documents] * n_runs,
        [dataclasses.replace(settings, tokens=short)] * n_runs,
        start=load_start(start, settings),
        device=device,
        on_step=on_step,
    )
    return float(np.median(np.diff(at)))


def _time_tasks(
    outcomes: Outcomes | None, train: TrainSettings, seconds_a_position: float
) -> float:
    """Return the seconds that a model is asked its tasks for, about; 0 without any."""
    if outcomes is None:
        return 0.0
    found = foresee(outcomes, train)
    return found.seconds + found.positions * seconds_a_position


def _from_last(workspace: Path, learner: str, tokens: int) -> dict[str, Any] | None:
    """Return what the last verification tells of the loss at the end of a run of so many tokens.

    None where there is none, or other models learned in it, or for another target.
    """
    verified = (workspace / "verify" / "meta.json").is_file()
    last = open_verification(workspace) if verified else None
    if last is None or last.learner != learner:
        return None
    points = whole_points(last.runs, "mix")
    return {
        "enough_tokens": tokens_to_reach(points, last.unigram_entropy - 1.0),
        "unigram_entropy": last.unigram_entropy,
        "expected_loss": loss_at(points, tokens),
    }


def _from_pilot(
    mix: Mix,
    items: Sequence[IntArray],
    settings: VerifySettings,
    probe: Probe,
    train: TrainSettings,
    *,
    seconds_a_token: float,
) -> dict[str, Any]:
    """Return what a pilot on the mix tells of that loss, and the loss before the first step."""
    pilot = run_pilot(
        _first_documents(mix, probe, min(train.tokens, PILOT_TOKENS)),
        items,
        train,
        find_start(settings, probe.info.revision),
        seconds_a_token=seconds_a_token,
        device=probe.device.type,
    )
    return {
        "enough_tokens": pilot.enough_tokens,
        "unigram_entropy": pilot.unigram_entropy,
        "expected_loss": pilot.loss,
        "start_loss": pilot.start_loss if settings.model else _loss_of_builtin(settings, items),
        "from_pilot": True,
    }


def _first_documents(mix: Mix, probe: Probe, tokens: int) -> list[IntArray]:
    """Return the first documents of a mix, which is shuffled, up to so many tokens."""
    texts, seen = [], 0
    for text, n_tokens in read_mix_texts(mix):
        texts.append(text)
        seen += n_tokens
        if seen >= tokens:
            break
    return encode_texts(probe, texts)


def _loss_of_builtin(settings: VerifySettings, items: Sequence[IntArray]) -> float:
    """Return the loss of the built-in model as it is; NaN where the tokens are not its own."""
    if settings.tokenizer != "builtin":
        return math.nan
    probe = load_probe("builtin", device="cpu")
    train = train_settings(dataclasses.replace(settings, model="builtin"), probe, tokens=1, seed=0)
    model = load_start(Start("builtin", probe.info.revision, 0), train)
    if model is None:  # pragma: no cover - it is named
        raise ValueError("no start")
    nats = item_nats(model, items, eos=train.eos, block_tokens=settings.block_tokens)
    return float(nats.sum()) / sum(map(len, items))
