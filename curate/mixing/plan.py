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
from curate.mixing.foresight import PULL, Foresight
from curate.mixing.matching import match_embeddings
from curate.mixing.sums import sequences_a_token
from curate.mixing.weights import Spread, choose_weights, softest, spread_tokens, temperatures
from curate.records import Counts, Floats, Index
from curate.settings import MixSettings
from curate.task2vec.reading import load_embedding
from curate.task2vec.tokenizer import encode_as_indexed

__all__ = ["plan_shards"]

RATIO_DOCUMENTS = 64
"""Documents of the best shard that tell how another tokenizer's counts compare."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a budget is spread over shards."""

    spread: Spread
    tokens: dict[str, int]  # by shard, best first
    settings: MixSettings  # with the temperature that was chosen


def plan_shards(look: Foresight, settings: MixSettings, encode: Encode) -> Plan:
    """Return how the budget is spread over the ranked shards.

    Args:
        look: at mixes of this size, of an index, a ranking of it and a target.
        settings: of the mix.
        encode: of the tokenizer that counts the budget.

    Raises:
        CurateError: rules of `--keep` or `--blend` that cannot be kept, or too few tokens
            (exit code 6).
    """
    index, ranking = look.index, look.ranking
    names = [line.shard for line in ranking.shards]
    alignments = np.array([line.alignment for line in ranking.shards])
    tokens = np.array([line.tokens for line in ranking.shards], np.int64)
    if settings.tokenizer:
        tokens = np.maximum(1, (tokens * _token_ratio(index, names[0], encode)).astype(np.int64))
        short = settings.budget / (tokens.sum() * settings.max_epochs)
        # An estimate must not refuse a budget: what there really is shows when it is read.
        tokens = tokens if short <= 1 else np.ceil(tokens * short).astype(np.int64)
    check_room(settings, tokens)
    room = np.floor(tokens * settings.max_epochs).astype(np.int64)
    shards = {each.shard.name: each.shard for each in index.shards}

    def plan(settings: MixSettings, matched: Floats | None) -> Plan:
        spread = choose_weights(
            alignments,
            tokens,
            budget=settings.budget,
            selection=settings.selection,
            temperature=settings.temperature,
            max_epochs=settings.max_epochs,
            seed=settings.seed,
            matched=matched,
        )
        spread = bound_spread(spread, settings, [shards[name] for name in names], room)
        try:
            parts = spread_tokens(spread, room, budget=settings.budget)
        except ValueError:
            raise ceilings_bind(settings.budget) from None
        return Plan(spread, dict(zip(names, parts.tolist(), strict=True)), settings)

    matched = None
    if settings.selection == "match":
        matched = _match(look, settings, tokens, caps=room / settings.budget)
    if settings.selection != "temperature" or settings.temperature:
        return plan(settings, matched)
    plans = [plan(replace(settings, temperature=one), None) for one in temperatures(alignments)]
    return plans[softest(look.drops([each.tokens for each in plans]))]


def _match(
    look: Foresight, settings: MixSettings, tokens: Counts, *, caps: Floats
) -> npt.NDArray[np.float64]:
    """Return the shares (n,) of ranked shards that `match` takes: by embeddings or by pairs."""
    natural = tokens / tokens.sum()
    if look.own is None:
        return look.match(natural, caps, pull=settings.temperature or PULL)
    return match_embeddings(
        vectors_a_token(look.index, [line.shard for line in look.ranking.shards]),
        look.own.vectors,
        natural=natural,
        caps=caps,
        blocks=look.index.blocks,
        seed=settings.seed,
    )


def _token_ratio(index: Index, shard: str, encode: Encode) -> float:
    """Return tokens of another tokenizer per token of the probe's, on one shard's beginning."""
    probe_encode = encode_as_indexed(index)
    (found,) = (each.shard for each in index.shards if each.shard.name == shard)
    texts = [d.text for d in islice(read_ranges(found, text=index.corpus.text), RATIO_DOCUMENTS)]
    counts = [sum(map(len, function(texts))) for function in (encode, probe_encode)]
    return counts[0] / max(counts[1], 1)


def vectors_a_token(index: Index, names: list[str]) -> npt.NDArray[np.float32]:
    """Return what a token of each named shard adds to a mixture's embedding: (n, dim)."""
    entries = {each.shard.name: each for each in index.shards}
    rows = []
    for entry in (entries[name] for name in names):
        one = load_embedding(Path(index.folder), entry.key)
        rows.append(one.vectors.mean(0) * sequences_a_token(index, entry, one))
    return np.stack(rows).astype(np.float32)
