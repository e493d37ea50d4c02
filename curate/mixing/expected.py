"""What a mixture that is not drawn yet can be expected to hold.

A mixture takes a part of most of its shards. Each pair of tokens that a part of a text holds is
there as often as the part is large, on average, but of the rare ones, which are most, it holds
some and lacks the others; a model of the mean counts would know a little of them all and
be better than any model of a text of that size. So here, beside the mean, goes how likely it is
that a count is zero, and from both comes the count that has the expected logarithm.

A part of a shard is drawn by documents, and within a document words come back. A shard says how
much (`Pairs.repeats`, r): of n occurrences each after the first opens another document with
probability 1 - r, and so they lie in 1 + Bin(n - 1, 1 - r) documents, each drawn or not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from curate.ranking.lexical import FILLED, fill_gaps
from curate.ranking.ngram_lm import STRENGTH, Seen

if TYPE_CHECKING:
    from curate.records import Floats


@dataclass(slots=True)
class Expected:
    """Counts (n,) of a text of which only is known what parts of which shards make it."""

    n: int
    mean: npt.NDArray[np.float64] = field(init=False)
    variance: npt.NDArray[np.float64] = field(init=False)
    log_none: npt.NDArray[np.float64] = field(init=False)  # of the probability that it is zero

    def __post_init__(self) -> None:
        self.mean, self.variance, self.log_none = (np.zeros(self.n) for _ in range(3))

    def add(self, counts: Floats, *, share: float, repeats: float, times: float = 1.0) -> None:
        """Add a part of a shard.

        Args:
            counts: (n,) of the whole shard.
            share: of it that is drawn, >= 0; above 1 the whole comes again, and a part of it.
            repeats: `Pairs.repeats` of the shard.
            times: for how many shards like it this one stands.
        """
        whole, part = divmod(share, 1.0)
        there = counts > 0
        later = np.maximum(counts - 1.0, 0.0)
        self.mean += times * share * counts
        documents = 1.0 + later * (1.0 - repeats)
        self.variance += times * part * (1.0 - part) * counts**2 / documents
        none = there * np.log1p(-part) + later * np.log1p(-part * (1.0 - repeats))
        self.log_none += times * np.where(there & (whole > 0), -np.inf, none)

    def effective(self, added: Floats | float) -> npt.NDArray[np.float64]:
        """Return the counts c with log(c + added) = E log(count + added), each from 0 to its mean.

        Above zero the count is taken as log-normal, of its mean and variance.

        Args:
            added: > 0, (n,) or one for all.
        """
        some = -np.expm1(self.log_none)
        safe = np.where(some > 0, some, 1.0)
        mean = self.mean / safe
        variance = np.maximum((self.variance + self.mean**2) / safe - mean**2, 0.0)
        above = np.log(mean + added) - 0.5 * np.log1p(variance / (mean + added) ** 2)
        expected = np.exp(some * above + (1.0 - some) * np.log(added))
        return np.asarray(np.clip(expected - added, 0.0, self.mean))


class ExpectedSeen:
    """What a mixture can be expected to say about n pairs of a target."""

    def __init__(self, n: int) -> None:
        self.pairs, self.before, self.after = (Expected(n) for _ in range(3))
        self.tokens = 0.0

    def add(self, said: Seen, *, share: float, repeats: float, times: float = 1.0) -> None:
        """Add a part of a shard: what the whole of it says, and the rest as for `Expected`."""
        for mine, counts in (
            (self.pairs, said.pairs), (self.before, said.before), (self.after, said.after),
        ):  # fmt: skip
            mine.add(counts, share=share, repeats=repeats, times=times)
        self.tokens += times * share * said.tokens

    def seen(self, corpus: Floats) -> Seen:
        """Return what a text would say whose probabilities have the expected logarithms.

        Args:
            corpus: (n,) as for `pair_probabilities`.
        """
        after = self.after.effective(max(self.tokens, 1.0) * corpus * FILLED / (1.0 - FILLED))
        words = fill_gaps(after, self.tokens, corpus, FILLED)
        return Seen(
            self.pairs.effective(STRENGTH * words),
            self.before.effective(STRENGTH),
            after,
            self.tokens,
        )
