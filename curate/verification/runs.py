"""Runs as work items: documents in files, one published file a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.corpus.afar import is_there
from curate.records import Run
from curate.store.arrays import publish_arrays, read_arrays
from curate.store.fingerprint import digest_file, fingerprint
from curate.store.publish import read_json_if_whole
from curate.verification import arithmetic
from curate.verification.blocks import IntArray
from curate.verification.start import Start
from curate.verification.tasks import Outcomes
from curate.verification.train import TrainSettings

POINTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""Shares of a run after which some eval items are evaluated, for the compute multiplier."""

CHECKPOINT = ".checkpoint.safetensors"
"""How the name of a run's state ends while it is not finished."""

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
    outcomes: Outcomes | None = None  # tasks that the model is asked when it has been trained
    compiled: bool = False  # whether its operations are fused first
    store: str = ""  # address of the verification, where no folder is shared: paths are below it


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
    outcomes: Outcomes | None = None,
    store: str = "",
) -> RunItem:
    """Return the work item of a run; its path holds the digest of all that decides it."""
    key = fingerprint(
        settings=settings,
        points=(points, POINT_ITEMS),
        documents=digest_file(documents),
        items=digest_file(items),
        control=digest_file(control),
        **({"start": start} if start else {}),
        **({"outcomes": outcomes} if outcomes else {}),
        **({"arithmetic": arithmetic.TRAINED} if arithmetic.TRAINED else {}),
    )
    path = folder / f"{key[:32]}.json"
    return RunItem(
        arm, settings, documents, items, control, n_bytes, path, device, forecast,
        start=start, points=points, outcomes=outcomes, store=store,
    )  # fmt: skip


def is_done(item: RunItem) -> bool:
    """Say whether a run is published, and unchanged since."""
    return read_json_if_whole(item.path, Run) is not None


def has_begun(item: RunItem) -> bool:
    """Say whether a run is published, or lies half done."""
    if item.path.is_file() or checkpoint_path(item).is_file():
        return True
    return bool(item.store) and is_there(item.store, name_of(item, checkpoint_path(item)))


def checkpoint_path(item: RunItem) -> Path:
    """Return where the state of a run that is not finished lies."""
    return item.path.with_suffix(CHECKPOINT)


def name_of(item: RunItem, path: Path) -> str:
    """Return the name of a run's file below the folder of the verification, here or on a store."""
    return path.relative_to(item.path.parent.parent).as_posix()
