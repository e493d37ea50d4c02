"""The work of a process that trains: some runs side by side, evaluated and published."""

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

from curate.corpus.afar import scratch
from curate.errors import CurateError
from curate.records import Run
from curate.store.failpoint import failpoint
from curate.store.publish import publish_json
from curate.verification.answers import alone
from curate.verification.blocks import IntArray
from curate.verification.checkpoint import Started, publish_checkpoint, read_checkpoint
from curate.verification.evaluate import item_nats
from curate.verification.runs import (
    POINT_ITEMS,
    RunItem,
    checkpoint_path,
    is_done,
    name_of,
    read_documents,
)
from curate.verification.start import load_start
from curate.verification.tasks import ask
from curate.verification.train import Curve, DivergedError, Progress, Snapshot, train_models
from curate.verification.watch import EVERY_S, state_path, write_state

CHECKPOINT_SECONDS = 30.0
"""Between two checkpoints of a run: what a kill costs, at most."""


@dataclass(frozen=True, slots=True)
class RunStack:
    """Runs that are trained side by side: they differ by arm, documents and seed alone."""

    items: tuple[RunItem, ...]


def train_stack(stack: RunStack) -> None:
    """Train small models side by side, evaluate them on every item, publish a file for each run.

    A checkpoint is published beside each run now and then: killed runs go on from theirs, to
    the same numbers. Those that were saved after the same step go on together.

    Raises:
        CurateError: a training diverged.
    """
    if stack.items[0].store:
        with _fetched(stack) as here:
            return train_stack(here)
    by_step: dict[int, list[tuple[RunItem, tuple[Snapshot, Started] | None]]] = {}
    for item in stack.items:
        if not is_done(item):
            kept = read_checkpoint(checkpoint_path(item))
            by_step.setdefault(kept[0].step if kept else 0, []).append((item, kept))
    for together in by_step.values():
        items, kept_there = zip(*together, strict=True)
        with _threads(items[0]):
            _train_together(items, [each for each in kept_there if each is not None])
    return None


@contextmanager
def _fetched(stack: RunStack) -> Iterator[RunStack]:
    """Give the same runs in a folder of this machine; what they leave there goes to the store."""
    items = stack.items
    needed = {name_of(i, path) for i in items for path in (i.documents, i.items, i.control)}
    live = [name_of(i, path) for i in items for path in (checkpoint_path(i), state_path(i))]
    kept = [name_of(item, item.path) for item in items]
    with scratch(items[0].store, sorted(needed), kept=kept, live=live) as folder:
        yield RunStack(tuple(_moved(item, folder) for item in items))


def _moved(item: RunItem, folder: Path) -> RunItem:
    def here(path: Path) -> Path:
        return folder / name_of(item, path)

    return dataclasses.replace(
        item, store="", path=here(item.path), documents=here(item.documents),
        items=here(item.items), control=here(item.control),
    )  # fmt: skip


def _train_together(items: Sequence[RunItem], kept: Sequence[tuple[Snapshot, Started]]) -> None:
    """Train from the checkpoints where there are any, else from the start; publish every run."""
    one = items[0]
    eval_items, control = read_documents(one.items), read_documents(one.control)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    started = [each for _, each in kept] or [Started(now, item.forecast) for item in items]
    watch = _Watch(items, started, eval_items[:POINT_ITEMS])
    try:
        model, curves = train_models(
            [read_documents(item.documents) for item in items],
            [item.settings for item in items],
            start=load_start(one.start, one.settings),
            device=one.device,
            compiled=one.compiled,
            on_step=watch.on_step,
            resume=[snapshot for snapshot, _ in kept] or None,
        )
    except DivergedError as error:
        raise _diverged(items[error.run], str(error)) from None
    nats, control_nats = (_nats(model, each, one) for each in (eval_items, control))
    for item, of_run in zip(items, np.hstack([nats, control_nats]), strict=True):
        if not np.isfinite(of_run).all():  # the last update was the one too far
            raise _diverged(item, "no finite loss after the last step")
    for run, (item, own) in enumerate(zip(items, alone(model), strict=True)):
        found = _as_run(
            item, curves[run], started[run], (eval_items, nats[run]), (control, control_nats[run])
        )
        if item.outcomes is not None:
            asked = ask(own, item.outcomes, item.settings)
            found = dataclasses.replace(found, outcomes=asked)
        publish_json(item.path, found)
        for path in (checkpoint_path(item), state_path(item)):
            path.unlink(missing_ok=True)


def _diverged(item: RunItem, how: str) -> CurateError:
    return CurateError(
        f"run {item.arm}, seed {item.settings.seed}: training diverged ({how}); lower "
        f"[verify] learning_rate, now {item.settings.learning_rate:g}"
    )


class _Watch:
    """What is done between two steps: losses on some items, checkpoints, a word of how far."""

    def __init__(
        self, items: Sequence[RunItem], started: Sequence[Started], some: Sequence[IntArray]
    ) -> None:
        self.items, self.started, self.some = items, started, some
        self.n_tokens = sum(map(len, some))
        self.began = self.saved = self.told = time.monotonic()
        self.before = started[0].seconds

    def on_step(self, progress: Progress) -> None:
        points = {max(1, round(share * progress.steps)) for share in self.items[0].points}
        if progress.step in points:
            nats = _nats(progress.model, self.some, self.items[0]).sum(axis=1)
            for each, value in zip(self.started, nats.tolist(), strict=True):
                each.points.append((progress.tokens, value / self.n_tokens))
        now = time.monotonic()
        for each in self.started:
            each.seconds = self.before + now - self.began
        if now - self.told >= EVERY_S:
            for item, loss in zip(self.items, progress.losses, strict=True):
                write_state(item, tokens=progress.tokens, loss=loss)
            self.told = now
        if now - self.saved >= CHECKPOINT_SECONDS:
            for run, (item, each) in enumerate(zip(self.items, self.started, strict=True)):
                publish_checkpoint(checkpoint_path(item), progress.snapshot(run), each)
            self.saved = time.monotonic()
        failpoint("train.step")


def _as_run(
    item: RunItem,
    curve: Curve,
    started: Started,
    on_items: tuple[Sequence[IntArray], Any],
    on_control: tuple[Sequence[IntArray], Any],
) -> Run:
    (items, nats), (control, control_nats) = on_items, on_control
    return Run(
        arm=item.arm,
        seed=item.settings.seed,
        tokens=curve[-1][0],
        loss=float(nats.sum()) / sum(map(len, items)),
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


def _nats(model: Any, items: Sequence[IntArray], item: RunItem) -> Any:
    """Return (G, n_items) nats."""
    return item_nats(model, items, eos=item.settings.eos, block_tokens=item.settings.block_tokens)


def _thinned(curve: Curve) -> Iterator[tuple[int, float]]:
    """Give at most about 200 points, the last one among them."""
    stride = -(-len(curve) // 200)
    yield from curve[len(curve) - 1 :: -stride][::-1]


@contextmanager
def _threads(item: RunItem) -> Iterator[None]:
    before = torch.get_num_threads()
    if item.device == "cpu":
        torch.set_num_threads(item.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
