"""Runs as work items: documents in files, one process a run, one published file a run."""

from __future__ import annotations

import dataclasses
import datetime
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curate.engine.local import count_cores
from curate.engine.run import run_items, visible_gpus
from curate.errors import CurateError
from curate.records import Notify, Run, silent
from curate.store.arrays import publish_arrays, read_arrays
from curate.store.failpoint import failpoint
from curate.store.fingerprint import digest_file, fingerprint
from curate.store.publish import publish_json, read_json, read_json_if_whole
from curate.verification.checkpoint import Started, publish_checkpoint, read_checkpoint
from curate.verification.evaluate import item_nats
from curate.verification.start import PRETRAINED, Start, load_start
from curate.verification.train import IntArray, Progress, TrainSettings, train_model

RUNS_A_GPU = {"tiny": 8, "1M": 8, "3M": 6, "15M": 3, "50M": 1, "124M": 1}
"""Runs that share a GPU: small models cannot fill one."""

MOST_THREADS = {"tiny": 1, "1M": 1, "3M": 4, "15M": 8}
"""Threads that a run can use: those of a small model would only wait for each other."""

CHECKPOINT_SECONDS = 30.0
"""Between two checkpoints of a run: what a kill costs, at most."""

POINTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""Shares of a run after which some eval items are evaluated, for the compute multiplier."""

POINT_ITEMS = 32
"""Items of such an evaluation."""


@dataclass(frozen=True, slots=True)
class RunItem:
    """What one run needs; arrays lie in files."""

    arm: str
    settings: TrainSettings
    documents: Path  # of `publish_documents`: what the arm trains on
    items: Path  # of `publish_documents`: the eval split
    control: Path  # of `publish_documents`: the control set, may be empty
    n_bytes: int  # UTF-8 bytes of the eval split
    path: Path  # where the run is published
    device: str  # cpu or cuda
    forecast: str = ""  # digest of the forecast published before it trains
    threads: int = 1  # of a CPU
    start: Start | None = None  # the pretrained model that it goes on from
    points: tuple[float, ...] = POINTS  # shares of the run after which some items are evaluated


def publish_documents(path: Path, documents: Sequence[IntArray]) -> None:
    """Publish token ids of documents as one safetensors file: tokens, then lengths."""
    lengths = np.array([len(document) for document in documents], dtype=np.int32)
    tokens = np.concatenate([np.zeros(0, np.int32), *documents]).astype(np.int32)
    publish_arrays(path, {"tokens": tokens, "lengths": lengths})


def read_documents(path: Path) -> list[IntArray]:
    """Read what `publish_documents` wrote.

    Raises:
        CurateError: absent, or changed since it was published.
    """
    arrays, _ = read_arrays(path)
    if not len(arrays["lengths"]):
        return []
    return np.split(arrays["tokens"], np.cumsum(arrays["lengths"])[:-1])


def plan_run(
    folder: Path,
    *,
    arm: str,
    settings: TrainSettings,
    documents: Path,
    items: Path,
    control: Path,
    n_bytes: int,
    device: str,
    forecast: str = "",
    start: Start | None = None,
    points: tuple[float, ...] = POINTS,
) -> RunItem:
    """Return the work item of a run; its path holds the digest of all that decides it."""
    key = fingerprint(
        settings=settings,
        points=(points, POINT_ITEMS),
        documents=digest_file(documents),
        items=digest_file(items),
        control=digest_file(control),
        **({"start": start} if start else {}),
    )
    path = folder / f"{key[:32]}.json"
    return RunItem(
        arm, settings, documents, items, control, n_bytes, path, device, forecast,
        start=start, points=points,
    )  # fmt: skip


def train_runs(
    items: Sequence[RunItem], *, workers: int = 0, notify: Notify = silent, what: str = "train"
) -> list[Run]:
    """Train what is not published yet, in parallel, and return all runs in order.

    Runs of a CPU share its cores: one a core, and more threads each where cores are left. A run's
    numbers depend on neither.

    Args:
        items: of `plan_run`.
        workers: processes; 0 takes one a core, or on a GPU as many as share it well.
        notify: progress, in runs.
        what: the step's name for `notify`.

    Raises:
        CurateError: a run diverged, or a worker died.
    """
    # Two arms of the same documents (a corpus of one shard) are one run.
    missing = list({item.path: item for item in items if not _is_done(item)}.values())
    n_there = len(items) - len(missing)
    one = missing[0] if missing else None
    crew = workers or (workers_for(one.settings.size, one.device, len(missing)) if one else 1)
    for _ in run_items(
        train_run,
        [dataclasses.replace(item, threads=_thread_count(item, crew)) for item in missing],
        workers=crew,
        device=one.device if one else "cpu",
        notify=lambda step, done, total: notify(step, done + n_there, total + n_there),
        what=what,
    ):
        pass
    return [dataclasses.replace(read_json(item.path, Run), arm=item.arm) for item in items]


def train_run(item: RunItem) -> None:
    """Train one small model, evaluate it on every item, publish the run.

    A checkpoint is published beside the run now and then: a killed run goes on from it, to the
    same numbers.

    Raises:
        CurateError: the training diverged.
    """
    items, control = read_documents(item.items), read_documents(item.control)
    with _threads(item):
        model, curve, started = _train(item, items[:POINT_ITEMS])
        nats, control_nats = (_nats(model, each, item) for each in (items, control))
    n_tokens = sum(map(len, items))
    run = Run(
        arm=item.arm,
        seed=item.settings.seed,
        tokens=curve[-1][0],
        loss=float(nats.sum()) / n_tokens,
        bpb=float(nats.sum()) / math.log(2) / item.n_bytes,
        item_nats=tuple(nats.tolist()),
        item_tokens=tuple(map(len, items)),
        curve=tuple(_thinned(curve)),
        seconds=started.seconds,
        started_at=started.at,
        forecast=started.forecast,
        points=tuple(started.points),
        control_nats=tuple(control_nats.tolist()),
        control_tokens=tuple(map(len, control)),
    )
    publish_json(item.path, run)
    checkpoint_path(item).unlink(missing_ok=True)


def _train(
    item: RunItem, some_items: Sequence[IntArray]
) -> tuple[Any, list[tuple[int, float]], Started]:
    """Train from the checkpoint where there is one, else from the start."""
    began = saved = time.monotonic()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    snapshot, started = read_checkpoint(checkpoint_path(item)) or (
        None,
        Started(now, item.forecast),
    )
    before = started.seconds

    def on_step(progress: Progress) -> None:
        nonlocal saved
        if progress.step in {max(1, round(share * progress.steps)) for share in item.points}:
            nats = _nats(progress.model, some_items, item)
            started.points.append((progress.tokens, float(nats.sum()) / sum(map(len, some_items))))
        started.seconds = before + time.monotonic() - began
        if time.monotonic() - saved >= CHECKPOINT_SECONDS:
            publish_checkpoint(checkpoint_path(item), progress.snapshot(), started)
            saved = time.monotonic()
        failpoint("train.step")

    try:
        model, curve = train_model(
            read_documents(item.documents),
            item.settings,
            start=load_start(item.start, seed=item.settings.seed),
            device=item.device,
            on_step=on_step,
            resume=snapshot,
        )
    except FloatingPointError as error:
        raise CurateError(
            f"run {item.arm}, seed {item.settings.seed}: training diverged ({error}); lower "
            f"[verify] learning_rate, now {item.settings.learning_rate:g}"
        ) from None
    return model, curve, started


def checkpoint_path(item: RunItem) -> Path:
    """Return where the state of a run that is not finished lies."""
    return item.path.with_suffix(".checkpoint.safetensors")


def _nats(model: Any, items: Sequence[IntArray], item: RunItem) -> Any:
    return item_nats(model, items, eos=item.settings.eos, block_tokens=item.settings.block_tokens)


def _thinned(curve: Sequence[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    """Give at most about 200 points, the last one among them."""
    stride = -(-len(curve) // 200)
    yield from curve[len(curve) - 1 :: -stride][::-1]


def _is_done(item: RunItem) -> bool:
    """Say whether a run is published, and unchanged since."""
    return read_json_if_whole(item.path, Run) is not None


def has_begun(item: RunItem) -> bool:
    """Say whether a run is published, or lies half done."""
    return item.path.is_file() or checkpoint_path(item).is_file()


def workers_for(size: str, device: str, n_runs: int) -> int:
    """Return how many of `n_runs` runs go at once: one a core, few on each GPU."""
    if size == PRETRAINED:  # large: its own arithmetic fills every core
        return 1
    most = count_cores()
    if device != "cpu":
        most = min(most, RUNS_A_GPU[size] * max(1, len(visible_gpus())))
    return max(1, min(most, n_runs))


def _thread_count(item: RunItem, crew: int) -> int:
    cores = count_cores()
    return max(1, min(cores // max(1, crew), MOST_THREADS.get(item.settings.size, cores)))


@contextmanager
def _threads(item: RunItem) -> Iterator[None]:
    before = torch.get_num_threads()
    if item.device == "cpu":
        torch.set_num_threads(item.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
