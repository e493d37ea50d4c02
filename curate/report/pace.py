"""How fast a step goes, and how long it will take."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from operator import itemgetter

_SHARES = (1 / 2, 1 / 8)  # of what was done: rates over these are weighed
_FEWEST_MOVES = 8  # that a rate rests on, where there were as many
_LONGEST_TRAIL = 1_000  # moves that are remembered


@dataclass(slots=True)
class Pace:
    """One step under way, and how it came to where it is."""

    started: float  # seconds, of the clock
    first: float  # `done` then: a resumed step does not start at 0
    total: float
    done: float = -1.0
    now: float = 0.0  # when last heard of
    trail: list[tuple[float, float]] = field(default_factory=list)  # (seconds, done) of its moves

    def move(self, done: float, total: float, now: float) -> None:
        """Take in how far the step is."""
        if done > max(self.done, self.first):
            self.trail.append((now, done))
            if len(self.trail) > _LONGEST_TRAIL:
                del self.trail[1::2]
        self.done, self.total, self.now = done, total, now

    @property
    def rate(self) -> float:
        """Units a second; 0 while unknown.

        The geometric mean of the rates over the last half and the last eighth of what was done:
        the first is steady, the other follows a machine that others leave or join. What a step
        does before it is at speed (models and workers are loaded) is left behind.
        """
        return math.prod(map(self._rate_over, _SHARES)) ** (1 / len(_SHARES))

    def _rate_over(self, share: float) -> float:
        """Units a second over the last `share` of what was done, eight moves of it at least."""
        since = self.trail[0] if len(self.trail) > 3 else (self.started, self.first)
        wanted = self.done - (self.done - since[1]) * share
        place = bisect_left(self.trail, wanted, key=itemgetter(1))
        place = min(place, len(self.trail) - 1 - _FEWEST_MOVES)
        when, at = self.trail[place] if place > 0 else since
        return (self.done - at) / (self.now - when) if self.now > when else 0.0

    @property
    def left(self) -> float | None:
        """Seconds left at this rate; None while unknown."""
        return (self.total - self.done) / self.rate if self.total and self.rate > 0 else None

    @property
    def took(self) -> float:
        """Seconds since the start."""
        return self.now - self.started
