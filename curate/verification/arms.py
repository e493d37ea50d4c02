"""Which mixtures are trained: the mix, its controls, its rivals, and mixes that calibrate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from curate.mixing.fill import fill_by_share, fill_in_order

if TYPE_CHECKING:
    from curate.records import Counts, Floats

Role = Literal["mix", "control", "calibration", "rival"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One mixture of shards; every arm trains on the same number of tokens."""

    name: str
    role: Role
    tokens: tuple[int, ...]  # of each shard
    seeds: int

    @property
    def shares(self) -> tuple[float, ...]:
        """Tokens of the shard per token of the arm, sum 1."""
        return tuple(count / sum(self.tokens) for count in self.tokens)


def plan_arms(
    alignments: Floats,
    room: Counts,
    mix_tokens: Counts,
    *,
    tokens: int,
    calibration: int,
    seeds: int,
    rivals: Mapping[str, Floats] | None = None,
    all_tokens: int = 0,
) -> tuple[Arm, ...]:
    """Return the mix, `random`, `worst`, calibration mixes between worst and mix, and rivals.

    `random` takes shards in natural proportions, `worst` those of lowest alignment. The
    calibration mixes have mean alignments at even steps from the worst to the mix, the mix's
    own left out: in turn the few shards nearest to that alignment, and a broad exponential
    tilt of the natural proportions, so that alignment and breadth are not confounded. A rival
    takes the best shards by a ranking of its own.

    Args:
        alignments: (n,), finite, higher is closer.
        room: (n,) tokens that a shard can give without repeating, >= 0.
        mix_tokens: (n,) tokens of each shard in the mix, >= 0, sum > 0.
        tokens: of each arm but the mix, at most the sum of `room`.
        calibration: number of calibration mixes, >= 0.
        seeds: of all arms but the calibration mixes, which have one.
        rivals: method → (n,) values, finite, higher is closer.
        all_tokens: of the arm `all`, which draws from the whole pool; 0 leaves it out.

    Returns:
        The mix first, then random, worst, calibration-1 and so on by rising alignment, then the
        rivals, named `by-METHOD`, and `all`.

    Raises:
        ValueError: lengths differ, too little room, or a value out of its range.
    """
    alignments, room = np.asarray(alignments, np.float64), np.asarray(room, np.int64)
    mix_tokens = np.asarray(mix_tokens, np.int64)
    values = [np.asarray(each, np.float64) for each in (rivals or {}).values()]
    if not all(each.shape == room.shape for each in (alignments, mix_tokens, *values)):
        raise ValueError(f"{alignments.shape}, {room.shape}, {mix_tokens.shape}: one length needed")
    if not np.isfinite([alignments, *values]).all() or mix_tokens.sum() <= 0 or seeds < 1:
        raise ValueError("alignments must be finite, the mix not empty, seeds at least 1")
    worst = fill_in_order(room, np.argsort(alignments, kind="stable"), budget=tokens)
    low, high = (float(alignments @ part / part.sum()) for part in (worst, mix_tokens))
    natural = room.astype(float)
    arms = [
        _arm("mix", "mix", mix_tokens, seeds),
        _arm("random", "control", fill_by_share(room, natural, budget=tokens), seeds),
        _arm("worst", "control", worst, seeds),
    ]
    for number in range(1, calibration + 1):
        level = low + (high - low) * number / (calibration + 0.5)
        fill = _nearest if number % 2 else _tilted
        part = fill(alignments, room, level=level, tokens=tokens)
        arms.append(_arm(f"calibration-{number}", "calibration", part, 1))
    for name, value in zip(rivals or {}, values, strict=True):
        part = fill_in_order(room, np.argsort(-value, kind="stable"), budget=tokens)
        arms.append(_arm(f"by-{name}", "rival", part, seeds))
    if all_tokens:
        part = fill_by_share(room, natural, budget=min(all_tokens, int(room.sum())))
        arms.append(_arm("all", "rival", part, seeds))
    return tuple(arms)


def _arm(name: str, role: Role, tokens: Counts, seeds: int) -> Arm:
    return Arm(name, role, tuple(int(count) for count in tokens), seeds)


def _nearest(
    alignments: Floats, room: Counts, *, level: float, tokens: int
) -> npt.NDArray[np.int64]:
    order = np.argsort(np.abs(alignments - level), kind="stable")
    return fill_in_order(room, order, budget=tokens)


def _tilted(
    alignments: Floats, room: Counts, *, level: float, tokens: int
) -> npt.NDArray[np.int64]:
    """Fill by room × exp(tilt × alignment), the tilt being such that the mean is `level`."""
    spread = float(np.ptp(alignments)) or 1.0
    centred = (alignments - alignments.max()) / spread

    def fill(tilt: float) -> npt.NDArray[np.int64]:
        return fill_by_share(room, room * np.exp(tilt * (centred + (tilt < 0))), budget=tokens)

    return fill(_bisect(lambda tilt: float(alignments @ fill(tilt)) / tokens - level))


def _bisect(rising: Callable[[float], float]) -> float:
    low, high = -60.0, 60.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
