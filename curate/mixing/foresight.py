"""What mixes will be before one is written, and which of them the target wants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from curate.mixing.descent import Fit, descend
from curate.mixing.forecast import forecast_without_runs
from curate.mixing.likelihood import Likelihood
from curate.mixing.look import FACTS
from curate.mixing.mixture import (
    Mixture,
    describe_mixtures,
    ranked_by,
    read_prior,
    seen_by,
    target_pairs,
)
from curate.mixing.stock import Stock, take_stock
from curate.mixing.sums import Sums, sum_up
from curate.ranking.lexical import shares_of
from curate.ranking.ngram_lm import ItemPairs, Seen, look_up, ngram_lm
from curate.records import Embedding, Index, IndexedShard, Notify, Ranking, Target, silent
from curate.settings import MixSettings

if TYPE_CHECKING:
    from curate.records import Floats

READ_ITEMS = 256
"""Of the target, from which mixes are told apart before one is chosen."""

FEW = 1_024
"""Shards whose pairs tell what natural proportions would give, about."""

LOOKED = 2_048
"""Shards whose pairs tell mixes apart: of more, every so-manieth of those of low rank."""

PULL = 0.1
"""Of `match` by pairs to natural proportions: nats/token that a nat of relative entropy to them
has to gain, by measurement (`docs/experiments.md`)."""

SOFTEST = 1.0
"""Pull from which the search for a mixture starts; each next one is 1 / √2 of the one before."""


def stock_for(
    index: Index,
    ranking: Ranking,
    target: Target,
    settings: MixSettings,
    *,
    workspace: Path,
    workers: int = 1,
    notify: Notify = silent,
) -> Stock:
    """Return what a mix can have; of very many shards, leaks are looked for in some.

    Args:
        index: of the shards.
        ranking: of them.
        target: kept out, if the settings say so.
        settings: of the mix.
        workspace: keeps what is found.
        workers: processes; their number changes nothing.
        notify: progress in tokens.
    """
    if not settings.decontaminate:
        return Stock(index)
    looked, _ = representatives(len(ranking.shards), most=LOOKED)
    names = [ranking.shards[place].shard for place in looked.tolist()]
    return take_stock(
        index, target, names, ngram=settings.ngram, folder=workspace / FACTS, workers=workers,
        notify=notify,
    )  # fmt: skip


class Foresight:
    """What mixes of one size for one target will be, by their tokens a shard."""

    def __init__(
        self, stock: Stock, ranking: Ranking, target: Target, own: Embedding | None, tokens: int
    ) -> None:
        """Take the target, its embedding where alignment is by embeddings, and the size of mixes.

        That is in tokens as the index counts them, and so are the parts of mixtures.
        """
        self.stock, self.ranking, self.target, self.own = stock, ranking, target, own
        self.tokens = tokens
        self.pairs = target_pairs(stock.index, target)
        self.kept: dict[int, Sums] = {}  # by tokens: of natural proportions and of the worst

    def drops(self, mixtures: Sequence[Mapping[str, int]]) -> list[float]:
        """Return the drop against natural proportions that is forecast for each.

        To choose among them: from some of the target's items, and of very many shards some.

        Args:
            mixtures: tokens of ranked shards.
        """
        names = [line.shard for line in self.ranking.shards]
        told, prior = self._told, read_prior()
        costs = []
        for parts in mixtures:
            given = np.array([parts.get(name, 0) for name in names], np.float64)
            costs.append(told.cost(given / given.sum())[0])
        return [forecast_without_runs(told.control - cost, prior).drop for cost in costs]

    def match(self, natural: Floats, fit: Fit, *, pull: float = PULL) -> npt.NDArray[np.float64]:
        """Return the shares of the mixture under whose token pairs the target is likeliest.

        Args:
            natural: (n,) shares of the ranked shards, sum 1.
            fit: shares that are wanted (n,) to those that a mix can have.
            pull: to natural proportions, > 0.

        Returns:
            (n,) shares that are wanted, sum 1.
        """
        told = self._told
        whole = told.in_groups(natural)
        own = np.divide(natural, whole[told.group], out=np.zeros(len(natural)), where=natural > 0)

        def fit_groups(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return told.in_groups(fit(own * shares[told.group]))

        *_, found = descend(told.cost_of_groups, whole, fit_groups, path_to(pull))
        return np.asarray(own * found[told.group])

    def compare(self, parts: Mapping[str, float]) -> dict[str, Mixture]:
        """Return a mix beside what `random` and `worst` of its size would be.

        Args:
            parts: its tokens by shard, as the index counts them.
        """
        tokens = max(round(sum(parts.values())), 1)
        kept = self.kept.setdefault(tokens, {})
        kept.pop("mix", None)
        natural, left = self.stock.natural(tokens), float(tokens)
        worst: dict[str, float] = {}
        for line in reversed(self.ranking.shards):
            worst[line.shard] = min(float(self.stock.room[line.shard]), left)
            left -= worst[line.shard]
        mixtures = {"mix": parts, "random": natural, "worst": worst}
        return describe_mixtures(
            self.stock, self.own, mixtures, tokens=tokens, pairs=self.pairs, kept=kept,
            **ranked_by(self.ranking),
        )  # fmt: skip

    @cached_property
    def _told(self) -> _Told:
        index, natural = self.stock.index, self.stock.natural(self.tokens)
        few = target_pairs(index, self.target, most=READ_ITEMS)
        sums = sum_up(self.stock, {"": natural}, tokens=self.tokens, pairs=few, most=FEW)
        seen, background = seen_by(self.stock, sums, [""], few)
        entries = {each.shard.name: each for each in index.shards}
        shards = [entries[line.shard] for line in self.ranking.shards]
        return _Told(
            few, shards, self.stock, self.tokens, background,
            control=-float(ngram_lm(few, seen, background=background)[0][0]),
        )  # fmt: skip


class _Told:
    """What mixtures of ranked shards cost a target, by its token pairs."""

    def __init__(
        self,
        pairs: ItemPairs,
        shards: Sequence[IndexedShard],
        stock: Stock,
        tokens: int,
        background: Floats,
        *,
        control: float,
    ) -> None:
        self.tokens, self.control = tokens, control
        self.weights = np.asarray(pairs.items.sum(axis=0)).ravel()
        looked, self.group = representatives(len(shards), most=LOOKED)
        sizes = np.maximum([float(stock.tokens(each)) for each in shards], 1.0)
        self.likelihood = Likelihood(
            pairs,
            _read([shards[place] for place in looked.tolist()], pairs, stock),
            stands_for=np.bincount(self.group, sizes) / sizes[looked],
            corpus=shares_of(background)[pairs.after],
        )

    def cost(self, shares: Floats) -> tuple[float, npt.NDArray[np.float64]]:
        """Return the cross-entropy of the target by the shards' shares (n,), sum 1."""
        return self.cost_of_groups(self.in_groups(shares))

    def in_groups(self, shares: Floats) -> npt.NDArray[np.float64]:
        """Return the sums of what shards have (n,), by those that they go by."""
        return np.bincount(self.group, shares).astype(np.float64)

    def cost_of_groups(self, shares: Floats) -> tuple[float, npt.NDArray[np.float64]]:
        """Return the same by shares of those that are looked at, and its gradient."""
        value, slopes = self.likelihood.cost(self.tokens * shares, self.weights)
        return value, self.tokens * slopes


def path_to(pull: float) -> list[float]:
    """Return the pulls by which a mixture is searched for, falling, the last as given.

    Example:
        >>> path_to(0.4)
        [1.0, 0.7071067811865476, 0.5, 0.4]
    """
    steps = max(0, math.ceil(2 * math.log2(SOFTEST / pull)))
    return [*(SOFTEST * 2.0 ** (-step / 2) for step in range(steps)), pull]


def representatives(n: int, *, most: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return which of n ranked shards are looked at, and which of those each goes by: (m,), (n,).

    The best half of `most` go by themselves; the others by one of their neighbours in rank.
    """
    best = n if n <= most else most // 2
    width = -(-(n - best) // (most - best)) if n > best else 1
    group = np.concatenate([np.arange(best), best + np.arange(n - best) // width])
    _, first, size = np.unique(group, return_index=True, return_counts=True)
    return first + size // 2, group


def _read(
    shards: Sequence[IndexedShard], pairs: ItemPairs, stock: Stock
) -> Iterator[tuple[Seen, float]]:
    for each in shards:
        own = stock.pairs(each)
        yield look_up(pairs, own, stock.words(each)), own.repeats
