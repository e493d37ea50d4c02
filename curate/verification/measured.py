"""What the runs of a verification measured: all of it, and arm by arm as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.records import Run
from curate.verification.arms import Arm
from curate.verification.published import PublishedForecast


@dataclass(frozen=True, slots=True)
class Measured:
    """All that the verdict follows from."""

    target: str
    arms: tuple[Arm, ...]
    sources: tuple[str, ...]  # of the shards that each arm's tokens are of
    alignments: tuple[float, ...]  # of each arm's mixture
    runs: tuple[Run, ...]  # mix and random among them, with the same seeds
    forecasts: tuple[PublishedForecast, ...]  # in the order of publication, the mix's last
    unigram_entropy: float  # nats/token of the eval split under the mix's unigrams
    fingerprint: str
    notes: tuple[str, ...] = ()


def nats_of(runs: Sequence[Run], arm: str) -> npt.NDArray[np.float64]:
    """Return (n_seeds, n_items) nats of an arm, in the order of its seeds."""
    return np.array([run.item_nats for run in runs if run.arm == arm])


def scores_of(runs: Sequence[Run], arm: str, task: str) -> npt.NDArray[np.float64]:
    """Return (n_seeds, n_items) scores of an arm on a task."""
    return np.array([run.outcomes[task] for run in runs if run.arm == arm])


def mean_points(runs: Sequence[Run], arm: str) -> npt.NDArray[np.float64]:
    """Return (n, 2) tokens and loss on some eval items, the mean over the seeds of an arm."""
    return np.mean([run.points for run in runs if run.arm == arm], axis=0)


def whole_points(runs: Sequence[Run], arm: str) -> npt.NDArray[np.float64]:
    """Return `mean_points` as of all eval items: moved by what those lose more at the end."""
    points = mean_points(runs, arm).reshape(-1, 2)
    if len(points):
        points[:, 1] += np.mean([run.loss for run in runs if run.arm == arm]) - points[-1, 1]
    return points
