"""What ran in a workspace, when, with which settings and at what cost: one line a stage."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from curate.records import StageRun
from curate.settings import Settings

NAME = "history.jsonl"
PACKAGES = (
    "curate", "torch", "transformers", "datasets", "numpy", "scipy", "scikit-learn", "faiss-cpu",
    "pyarrow", "safetensors",
)  # fmt: skip


@dataclass(slots=True)
class Note:
    """What a stage says of itself while it runs."""

    fingerprint: str = ""  # of what it published


@contextlib.contextmanager
def noting(
    workspace: Path, *, stage: str, command: str, settings: Settings, device: str = "cpu"
) -> Iterator[Note]:
    """Append one line to the workspace's history when the block ends, also by an error.

    Args:
        workspace: where the history lies; a run that fails before there is one leaves nothing.
        stage: index, rank, build-mix or verify.
        command: that repeats it, given the settings in a `curate.toml`.
        settings: the sections that the stage used; the others at their defaults.
        device: as asked for.

    Yields:
        A note; its fingerprint ties the line to what was published.
    """
    note, at = Note(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    started, busy = time.monotonic(), _processor_seconds()
    ended, there = False, workspace.is_dir()
    try:
        yield note
        ended = True
    finally:
        run = StageRun(
            stage=stage,
            command=command,
            at=at,
            seconds=time.monotonic() - started,
            cpu_seconds=_processor_seconds() - busy,
            peak_bytes=_peak_bytes(),
            ended=ended,
            fingerprint=note.fingerprint,
            device=device,
            settings=settings,
            versions=_versions(),
        )
        # an account is no result: a full disk must not make an error of a finished stage
        with contextlib.suppress(OSError):
            if workspace.is_dir() and (ended or there):
                _append(workspace / NAME, run)


def read_history(workspace: Path) -> list[StageRun]:
    """Return every line that can be read, oldest first; a line that a kill cut is left out."""
    path = workspace / NAME
    runs = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
            runs.append(msgspec.json.decode(line, type=StageRun))
    return runs


def _append(path: Path, run: StageRun) -> None:
    line = msgspec.json.encode(run) + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, (b"\n" if cut else b"") + line)
    finally:
        os.close(descriptor)


def _processor_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return unit * max(resource.getrusage(kind).ru_maxrss for kind in kinds)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
