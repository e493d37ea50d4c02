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
from curate.verification.checks import check_settings, check_start
from curate.verification.outcome import tokens_to_reach
from curate.verification.schedule import share_out
from curate.verification.small_model import count_parameters
from curate.verification.start import Start, find_start, load_start, train_settings
from curate.verification.train import Progress, TrainSettings, train_models
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
    probe = load_probe(settings.model or settings.tokenizer, device=device)
    check_start(settings, probe)
    tokens = settings.tokens or min(mix.tokens, MOST_TOKENS)
    train = train_settings(settings, probe, tokens=tokens, seed=settings.seed)
    start = find_start(settings, probe)
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
    seconds_a_run = seconds_a_step * (steps + FORWARD * evaluated / step_tokens)
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
        enough_tokens=_enough_tokens(workspace),
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
        start=load_start(start, seed=settings.seed),
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
