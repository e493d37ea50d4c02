"""How much of each shard: the selection, within what the shards hold and the rules of sources."""

from __future__ import annotations

from itertools import islice

import numpy as np

from curate.corpus.shards import read_ranges
from curate.mixing.bounds import bound_spread, ceilings_bind
from curate.mixing.checks import check_room
from curate.mixing.documents import Encode
from curate.mixing.mixture import matched_shares
from curate.mixing.weights import Spread, choose_weights, spread_tokens
from curate.records import Embedding, Index, Ranking, Target
from curate.settings import MixSettings
from curate.task2vec.tokenizer import encode_as_indexed

__all__ = ["plan_shards"]

RATIO_DOCUMENTS = 64
"""Documents of the best shard that tell how another tokenizer's counts compare."""


def plan_shards(
    index: Index,
    ranking: Ranking,
    target: Target,
    own: Embedding,
    settings: MixSettings,
    encode: Encode,
) -> tuple[Spread, dict[str, int]]:
    """Return how the budget is spread over the ranked shards, and what that gives by shard.

    Raises:
        CurateError: rules of `--keep` or `--blend` that cannot be kept, or too few tokens
            (exit code 6).
    """
    names = [line.shard for line in ranking.shards]
    tokens = np.array([line.tokens for line in ranking.shards], np.int64)
    if settings.tokenizer:
        tokens = np.maximum(1, (tokens * _token_ratio(index, names[0], encode)).astype(np.int64))
        short = settings.budget / (tokens.sum() * settings.max_epochs)
        # An estimate must not refuse a budget: what there really is shows when it is read.
        tokens = tokens if short <= 1 else np.ceil(tokens * short).astype(np.int64)
    check_room(settings, tokens)
    room = np.floor(tokens * settings.max_epochs).astype(np.int64)
    matched = (
        matched_shares(
            index,
            ranking,
            target,
            own,
            tokens=tokens,
            caps=room / settings.budget,
            budget=settings.budget,
            seed=settings.seed,
        )
        if settings.selection == "match"
        else None
    )
    spread = choose_weights(
        np.array([line.alignment for line in ranking.shards]),
        tokens,
        budget=settings.budget,
        selection=settings.selection,
        temperature=settings.temperature,
        max_epochs=settings.max_epochs,
        seed=settings.seed,
        matched=matched,
    )
    shards = {each.shard.name: each.shard for each in index.shards}
    spread = bound_spread(spread, settings, [shards[name] for name in names], room)
    try:
        parts = spread_tokens(spread, room, budget=settings.budget)
    except ValueError:
        raise ceilings_bind(settings.budget) from None
    return spread, dict(zip(names, parts.tolist(), strict=True))


def _token_ratio(index: Index, shard: str, encode: Encode) -> float:
    """Return tokens of another tokenizer per token of the probe's, on one shard's beginning."""
    probe_encode = encode_as_indexed(index)
    (found,) = (each.shard for each in index.shards if each.shard.name == shard)
    texts = [d.text for d in islice(read_ranges(found, text=index.corpus.text), RATIO_DOCUMENTS)]
    counts = [sum(map(len, function(texts))) for function in (encode, probe_encode)]
    return counts[0] / max(counts[1], 1)
