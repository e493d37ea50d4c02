"""What a verification will take, from a few steps measured on this machine, before it starts."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import numpy as np

from curate.records import Mix, Target, VerificationPlan
from curate.settings import VerifySettings
from curate.task2vec.probe import load_probe
from curate.verification.checks import check_settings
from curate.verification.outcome import tokens_to_reach
from curate.verification.runs import workers_for
from curate.verification.small_model import SHAPES
from curate.verification.train import Progress, TrainSettings, train_model
from curate.verification.verdict import mean_points
from curate.verification.verify import MOST_TOKENS, draw_items, open_verification

STEPS = 6
"""Steps that are timed, after one that is not."""

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
        CurateError: a setting out of its range, or an empty eval split.
    """
    check_settings(settings)
    probe = load_probe(settings.tokenizer, device=device)
    tokens = settings.tokens or min(mix.tokens, MOST_TOKENS)
    train = TrainSettings(
        size=settings.size,
        vocab=probe.info.vocab + 1,
        eos=probe.info.vocab,
        tokens=tokens,
        block_tokens=settings.block_tokens,
        batch_tokens=settings.batch_tokens,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
    )
    step_tokens = max(1, settings.batch_tokens // settings.block_tokens) * settings.block_tokens
    seconds_a_step = _time_steps(train, step_tokens, probe.device.type)
    _, items = draw_items(target, settings, probe)
    evaluated = sum(map(len, items)) + settings.control_items * settings.block_tokens
    steps = math.ceil(tokens / step_tokens)
    seconds_a_run = seconds_a_step * (steps + FORWARD * evaluated / step_tokens)
    stages = [
        settings.calibration,
        2 * settings.seeds,
        (1 + len(settings.against)) * settings.seeds,
    ]
    crew = [workers or workers_for(settings.size, probe.device.type, n) for n in stages]
    rounds = sum(math.ceil(n / size) for n, size in zip(stages, crew, strict=True))
    n_blocks, width, _ = SHAPES[settings.size]
    return VerificationPlan(
        runs=sum(stages),
        at_once=max(crew),
        tokens=tokens,
        steps=steps,
        parameters=12 * n_blocks * width**2 + train.vocab * width,
        seconds_a_step=seconds_a_step,
        seconds=rounds * seconds_a_run,
        enough_tokens=_enough_tokens(workspace),
    )


def _time_steps(settings: TrainSettings, step_tokens: int, device: str) -> float:
    """Return the seconds of one step: the median of some, on random documents."""
    short = (STEPS + 1) * step_tokens
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, settings.eos, size=short).astype(np.int32)]
    at: list[float] = []

    def on_step(progress: Progress) -> None:
        at.append(time.perf_counter())

    train_model(
        documents,
        dataclasses.replace(settings, tokens=short),
        device=device,
        on_step=on_step,
    )
    return float(np.median(np.diff(at)))


def _enough_tokens(workspace: Path) -> float:
    """Return the tokens that take the loss 1 nat below word frequencies; NaN where not known.

    Known from how the last verification's models learned.
    """
    if not (workspace / "verify" / "meta.json").is_file():
        return math.nan
    last = open_verification(workspace)
    points = mean_points(last.runs, "mix")
    return tokens_to_reach(points, last.unigram_entropy - 1.0)
