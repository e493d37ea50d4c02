"""Runs as work items: documents in files, one process a run, one published file a run."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch

from curate.engine.local import count_cores, run_items
from curate.errors import CurateError
from curate.records import Notify, Run, silent
from curate.store.fingerprint import digest_file, fingerprint
from curate.store.publish import publish_json, publishing, read_json
from curate.verification.evaluate import item_nats
from curate.verification.train import IntArray, TrainSettings, train_model

RUNS_A_GPU = {"tiny": 8, "1M": 8, "3M": 6, "15M": 3, "50M": 1, "124M": 1}
"""Runs that share a GPU: small models cannot fill one."""


@dataclass(frozen=True, slots=True)
class RunItem:
    """What one run needs; arrays lie in files."""

    arm: str
    settings: TrainSettings
    documents: Path  # of `publish_documents`: what the arm trains on
    items: Path  # of `publish_documents`: the eval split
    n_bytes: int  # UTF-8 bytes of the eval split
    path: Path  # where the run is published
    device: str  # cpu or cuda


def publish_documents(path: Path, documents: Sequence[IntArray]) -> None:
    """Publish token ids of documents as one safetensors file: tokens, then lengths."""
    lengths = np.array([len(document) for document in documents], dtype=np.int32)
    tokens = np.concatenate([np.zeros(0, np.int32), *documents]).astype(np.int32)
    with publishing(path) as temporary:
        safetensors.numpy.save_file({"tokens": tokens, "lengths": lengths}, temporary)


def read_documents(path: Path) -> list[IntArray]:
    """Read what `publish_documents` wrote.

    Raises:
        CurateError: absent, or not such a file.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CurateError(f"{path}: cannot be read ({error}); delete it and run again") from None
    return np.split(arrays["tokens"], np.cumsum(arrays["lengths"])[:-1])


def plan_run(
    folder: Path,
    *,
    arm: str,
    settings: TrainSettings,
    documents: Path,
    items: Path,
    n_bytes: int,
    device: str,
) -> RunItem:
    """Return the work item of a run; its path holds the digest of all that decides it."""
    key = fingerprint(settings=settings, documents=digest_file(documents), items=digest_file(items))
    path = folder / f"{key[:32]}.json"
    return RunItem(arm, settings, documents, items, n_bytes, path, device)


def train_runs(
    items: Sequence[RunItem], *, workers: int = 0, notify: Notify = silent, what: str = "train"
) -> list[Run]:
    """Train what is not published yet, in parallel, and return all runs in order.

    Args:
        items: of `plan_run`.
        workers: processes; 0 takes one a core, or on a GPU as many as share it well.
        notify: progress, in runs.
        what: the step's name for `notify`.

    Raises:
        CurateError: a run diverged, or a worker died.
    """
    # Two arms of the same documents (a corpus of one shard) are one run.
    missing = list({item.path: item for item in items if not item.path.is_file()}.values())
    n_there = len(items) - len(missing)
    for _ in run_items(
        train_run,
        missing,
        workers=workers or _worker_count(missing),
        notify=lambda step, done, total: notify(step, done + n_there, total + n_there),
        what=what,
    ):
        pass
    return [_named(read_json(item.path, Run), item) for item in items]


def train_run(item: RunItem) -> None:
    """Train one small model, evaluate it on every item, publish the run.

    Raises:
        CurateError: the training diverged.
    """
    started = time.monotonic()
    items = read_documents(item.items)
    with _one_thread(item.device):
        try:
            model, curve = train_model(
                read_documents(item.documents), item.settings, device=item.device
            )
        except FloatingPointError as error:
            raise CurateError(
                f"run {item.arm}, seed {item.settings.seed}: training diverged ({error}); lower "
                f"[verify] learning_rate, now {item.settings.learning_rate:g}"
            ) from None
        nats = item_nats(
            model, items, eos=item.settings.eos, block_tokens=item.settings.block_tokens
        )
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
        seconds=time.monotonic() - started,
    )
    publish_json(item.path, run)


def _named(run: Run, item: RunItem) -> Run:
    """Give a run its arm's name: arms of one content share a file."""
    return Run(
        item.arm,
        run.seed,
        run.tokens,
        run.loss,
        run.bpb,
        run.item_nats,
        run.item_tokens,
        run.curve,
        run.seconds,
    )


def _thinned(curve: Sequence[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    """Give at most about 200 points, the last one among them."""
    stride = -(-len(curve) // 200)
    yield from curve[len(curve) - 1 :: -stride][::-1]


def _worker_count(items: Sequence[RunItem]) -> int:
    if not items:
        return 1
    if items[0].device == "cpu":
        return count_cores()
    return min(count_cores(), RUNS_A_GPU[items[0].settings.size])


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """Compute on one thread, so that a run is the same in any number of processes."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
