"""A run between two steps, in one safetensors file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch

from curate.errors import CurateError
from curate.store.arrays import publish_arrays, read_arrays
from curate.verification.train import Snapshot


@dataclass(slots=True)
class Started:
    """What a run remembers besides its model; it grows while the run goes on."""

    at: str  # UTC, ISO 8601
    forecast: str  # digest of the forecast published before
    seconds: float = 0.0
    points: list[tuple[int, float]] = field(default_factory=list)  # (tokens, eval loss)


@dataclass(frozen=True, slots=True)
class _Header:
    step: int
    curve: list[tuple[int, float]]
    started: Started


def publish_checkpoint(path: Path, snapshot: Snapshot, started: Started) -> None:
    """Publish a run's state, whole or not at all."""
    header = msgspec.json.encode(_Header(snapshot.step, snapshot.curve, started)).decode()
    arrays = {name: tensor.detach().numpy() for name, tensor in snapshot.tensors.items()}
    publish_arrays(path, arrays, note=header)


def read_checkpoint(path: Path) -> tuple[Snapshot, Started] | None:
    """Read what `publish_checkpoint` wrote; None where there is none, or none that is whole."""
    try:
        arrays, note = read_arrays(path)
        header = msgspec.json.decode(note, type=_Header)
    except (CurateError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Snapshot(header.step, header.curve, tensors), header.started
