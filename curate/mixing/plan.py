"""How much of each shard: the selection, within what the shards hold and the rules of sources."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curate.corpus.ranges import read_ranges
from curate.corpus.tokens import Encode
from curate.mixing.bounds import bound_spread, ceilings_bind
from curate.mixing.checks import check_room
from curate.mixing.descent import Fit, within
from curate.mixing.foresight import PULL, Foresight
from curate.mixing.matching import match_embeddings
from curate.mixing.sums import sequences_a_token
from curate.mixing.weights import Spread, choose_weights, softest, spread_tokens, temperatures
from curate.records import Floats, Index
from curate.settings import MixSettings
from curate.task2vec.reading import load_embedding
from curate.task2vec.tokenizer import encode_as_indexed

__all__ = ["plan_shards", "token_ratio"]

RATIO_DOCUMENTS = 64
"""Documents of the best shard that tell how another tokenizer's counts compare."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a budget is spread over shards."""

    spread: Spread
    tokens: dict[str, int]  # by shard, best first; of the tokenizer that counts the budget
    settings: MixSettings  # with the temperature that was used


def plan_shards(look: Foresight, settings: MixSettings, *, ratio: float = 1.0) -> Plan:
    """Return how the budget is spread over the ranked shards.

    Args:
        look: at mixes of this size, of an index, a ranking of it and a target.
        settings: of the mix.
        ratio: tokens of the tokenizer that counts the budget per token of the index.

    Raises:
        CurateError: rules of `--keep` or `--blend` that cannot be kept, or too few tokens
            (exit code 6).
    """
    if settings.selection == "match" and look.own is None:
        settings = replace(settings, temperature=settings.temperature or PULL)
    pool = _Pool(look, settings, ratio)
    if settings.selection == "match":
        return pool.plan(settings, matched=pool.match())
    if settings.selection != "temperature" or settings.temperature:
        return pool.plan(settings)
    tried = temperatures(pool.alignments)
    plans = [pool.plan(replace(settings, temperature=one)) for one in tried]
    return plans[softest(look.drops([each.tokens for each in plans]))]


class _Pool:
    """The ranked shards, best first, and what each can give."""

    def __init__(self, look: Foresight, settings: MixSettings, ratio: float) -> None:
        lines = look.ranking.shards
        self.look, self.settings = look, settings
        self.names = [line.shard for line in lines]
        self.alignments = np.array([line.alignment for line in lines])
        self.tokens = np.array([line.tokens for line in lines], np.int64)
        if settings.tokenizer:
            self.tokens = self._estimated(ratio)
        check_room(settings, self.tokens)
        self.room = np.floor(self.tokens * settings.max_epochs).astype(np.int64)
        entries = {each.shard.name: each.shard for each in look.stock.index.shards}
        self.shards = [entries[name] for name in self.names]

    def _estimated(self, ratio: float) -> npt.NDArray[np.int64]:
        """Return the tokens of another tokenizer, so many for each of the index.

        An estimate must not refuse a budget: what there really is shows when it is read.
        """
        tokens = np.maximum(1, (self.tokens * ratio).astype(np.int64))
        short = self.settings.budget / (tokens.sum() * self.settings.max_epochs)
        return tokens if short <= 1 else np.ceil(tokens * short).astype(np.int64)

    def plan(self, settings: MixSettings, *, matched: Floats | None = None) -> Plan:
        """Return the plan of a selection."""
        spread = choose_weights(
            self.alignments,
            self.tokens,
            budget=settings.budget,
            selection=settings.selection,
            temperature=settings.temperature,
            max_epochs=settings.max_epochs,
            seed=settings.seed,
            matched=matched,
        )
        spread = self._bound(spread)
        parts = self._fill(spread)
        return Plan(spread, dict(zip(self.names, parts.tolist(), strict=True)), settings)

    def match(self) -> npt.NDArray[np.float64]:
        """Return the shares (n,) that `match` wants: by embeddings or by pairs."""
        natural, caps = self._clean()
        if self.look.own is None:
            fit = self._fit() if self.settings.keep or self.settings.blend else within(caps)
            return self.look.match(natural, fit, pull=self.settings.temperature)
        return match_embeddings(
            vectors_a_token(self.look.stock.index, self.names),
            self.look.own.vectors,
            natural=natural,
            caps=caps,
            blocks=self.look.stock.index.blocks,
            seed=self.settings.seed,
        )

    def _clean(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return natural shares (n,) and the most that a mix can have, documents kept out apart.

        Where they leave too little for the budget, the draw says so: here they are counted.
        """
        left = np.array([self.look.stock.room[name] for name in self.names])
        room = self.room * left / np.maximum([each.n_tokens for each in self.shards], 1)
        if room.sum() < self.settings.budget:
            room = self.room
        natural = np.where(room > 0, self.tokens, 0)
        return natural / natural.sum(), room / self.settings.budget

    def _fit(self) -> Fit:
        """Return what fits shares to the rules of sources."""
        bound = self._bound(Spread(shares=self.tokens.astype(np.float64)))
        return lambda shares: self._fill(replace(bound, shares=shares)) / self.settings.budget

    def _bound(self, spread: Spread) -> Spread:
        return bound_spread(spread, self.settings, self.shards, self.room)

    def _fill(self, spread: Spread) -> npt.NDArray[np.int64]:
        try:
            return spread_tokens(spread, self.room, budget=self.settings.budget)
        except ValueError:
            raise ceilings_bind(self.settings.budget) from None


def token_ratio(index: Index, shard: str, encode: Encode) -> float:
    """Return tokens of another tokenizer per token of the index, on one shard's beginning."""
    probe_encode = encode_as_indexed(index)
    (found,) = (each.shard for each in index.shards if each.shard.name == shard)
    texts = [d.text for d in islice(read_ranges(found, text=index.corpus.text), RATIO_DOCUMENTS)]
    counts = [sum(map(len, function(texts))) for function in (encode, probe_encode)]
    return max(counts[0], 1) / max(counts[1], 1)


def vectors_a_token(index: Index, names: list[str]) -> npt.NDArray[np.float32]:
    """Return what a token of each named shard adds to a mixture's embedding: (n, dim)."""
    entries = {each.shard.name: each for each in index.shards}
    rows = []
    for entry in (entries[name] for name in names):
        one = load_embedding(Path(index.folder), entry.key)
        rows.append(one.vectors.mean(0) * sequences_a_token(index, entry, one))
    return np.stack(rows).astype(np.float32)
