"""From natural proportions towards the mixture of least cost, as far as each pull allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from curate.mixing.fill import share_out

if TYPE_CHECKING:
    from curate.records import Floats

Array = npt.NDArray[np.float64]
Cost = Callable[[Array], tuple[float, Array]]
"""Shares (n,) → cost, and its derivatives by the shares (n,), up to a constant."""

Fit = Callable[[Array], Array]
"""Shares that are wanted (n,) → those that can be had, sum 1."""

STEPS = 2
"""For each pull, at most: the next one starts where this one ends."""

SHORTEST = 1 / 64
"""Step that is tried last, of the way to the mixture that the gradient asks for."""


def descend(
    cost: Cost, natural: Floats, fit: Fit, pulls: Sequence[float], *, steps: int = STEPS
) -> list[Array]:
    """Return for each pull the mixture of least cost + pull × relative entropy to natural shares.

    Where all can be had, such a mixture takes of each shard in proportion to
    natural × exp(gain / pull), with the gain of a little more of that shard in the mixture
    itself; each step goes part of the way there (mirror descent with relative entropy:
    Kivinen and Warmuth, 1997, Information and Computation 132), as far as it pays.

    Args:
        cost: of a mixture by its shares; need not be convex, and what is found is then a mixture
            that small changes do not mend.
        natural: (n,) shares of the pool, sum 1.
        fit: to caps and whatever else binds a mixture; the cost is that of what it returns.
        pulls: > 0, in units of the cost, falling: the first mixture is the softest.
        steps: for each pull, at most.

    Returns:
        Shares that are wanted (n,), sum 1: fitted, they are the mixtures.
    """
    logs = np.zeros(len(natural))  # of what is wanted relative to natural shares
    shares = fit(_tilted(natural, logs))
    value, slopes = cost(shares)
    found = []
    for pull in pulls:
        step = 1.0
        for _ in range(steps):
            wanted = (shares @ slopes - slopes) / pull
            now = value + pull * divergence(shares, natural)
            while step >= SHORTEST:
                tried = (1.0 - step) * logs + step * wanted
                there = fit(_tilted(natural, tried))
                at, new_slopes = cost(there)
                if at + pull * divergence(there, natural) < now:
                    logs, shares, value, slopes = tried, there, at, new_slopes
                    break
                step /= 2
        found.append(_tilted(natural, logs))
    return found


def within(caps: Floats) -> Fit:
    """Return what fits shares to a largest one of each: caps (n,), sum at least 1."""
    return lambda shares: share_out(caps, shares, total=1.0)


def _tilted(natural: Floats, logs: Array) -> Array:
    highest = logs[natural > 0].max()  # of what there is: nothing of it may be lost
    shares = natural * np.exp(np.minimum(logs - highest, 0.0))
    return np.asarray(shares / shares.sum())


def divergence(shares: Floats, natural: Floats) -> float:
    """Return the relative entropy of shares to natural ones, in nats."""
    some = shares > 0
    return float(shares[some] @ np.log(shares[some] / natural[some]))
