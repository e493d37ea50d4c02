"""How much of each shard: the selection, within what the shards hold and the rules of sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curate.corpus.ranges import read_ranges
from curate.corpus.tokens import Encode, count_unigrams
from curate.mixing.bounds import bound_spread, ceilings_bind
from curate.mixing.checks import check_room
from curate.mixing.matching import match_embeddings, match_words
from curate.mixing.sums import sequences_a_token
from curate.mixing.weights import Spread, choose_weights, softest, spread_tokens, temperatures
from curate.records import Counts, Embedding, Floats, Index, Ranking, Target
from curate.settings import MixSettings
from curate.task2vec.reading import load_embedding, load_unigrams
from curate.task2vec.tokenizer import encode_as_indexed

__all__ = ["plan_shards"]

Drops = Callable[[Sequence[Mapping[str, int]]], Sequence[float]]

TARGET_PARTS = 4
"""Of the select split, items dealt at random: one half tells how far to trust the other."""

RATIO_DOCUMENTS = 64
"""Documents of the best shard that tell how another tokenizer's counts compare."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a budget is spread over shards."""

    spread: Spread
    tokens: dict[str, int]  # by shard, best first
    settings: MixSettings  # with the temperature that was chosen


def plan_shards(
    index: Index,
    ranking: Ranking,
    target: Target,
    own: Embedding | None,
    settings: MixSettings,
    encode: Encode,
    drops: Drops,
) -> Plan:
    """Return how the budget is spread over the ranked shards.

    Args:
        index: of the shards.
        ranking: of that index and target.
        target: of the mix.
        own: its embedding, where alignment is by embeddings.
        settings: of the mix.
        encode: of the tokenizer that counts the budget.
        drops: forecasts mixes given by their tokens a shard.

    Raises:
        CurateError: rules of `--keep` or `--blend` that cannot be kept, or too few tokens
            (exit code 6).
    """
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
    matched = (
        _matched_shares(
            index, ranking, target, own, settings, tokens=tokens, caps=room / settings.budget
        )
        if settings.selection == "match"
        else None
    )
    shards = {each.shard.name: each.shard for each in index.shards}

    def plan(settings: MixSettings) -> Plan:
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

    if settings.selection != "temperature" or settings.temperature:
        return plan(settings)
    plans = [plan(replace(settings, temperature=one)) for one in temperatures(alignments)]
    return plans[softest(drops([each.tokens for each in plans]))]


def _token_ratio(index: Index, shard: str, encode: Encode) -> float:
    """Return tokens of another tokenizer per token of the probe's, on one shard's beginning."""
    probe_encode = encode_as_indexed(index)
    (found,) = (each.shard for each in index.shards if each.shard.name == shard)
    texts = [d.text for d in islice(read_ranges(found, text=index.corpus.text), RATIO_DOCUMENTS)]
    counts = [sum(map(len, function(texts))) for function in (encode, probe_encode)]
    return counts[0] / max(counts[1], 1)


def _matched_shares(
    index: Index,
    ranking: Ranking,
    target: Target,
    own: Embedding | None,
    settings: MixSettings,
    *,
    tokens: Counts,
    caps: Floats,
) -> Floats:
    """Return the shares of the ranked shards whose mixture is closest to the target.

    Closest in what the ranking goes by: words, where it counted words, else embeddings.

    Args:
        index: of the shards.
        ranking: their order in the result.
        target: its select split is read.
        own: the embedding of that split; None: by words.
        settings: of the mix; the seed is that of the projection of large problems, and of how
            items are dealt into halves.
        tokens: (n,) of each shard.
        caps: (n,) largest share of each.
    """
    names = [line.shard for line in ranking.shards]
    natural = tokens / tokens.sum()
    if own is not None:
        return match_embeddings(
            vectors_a_token(index, names),
            own.vectors,
            natural=natural,
            caps=caps,
            blocks=index.blocks,
            seed=settings.seed,
        )
    encode = encode_as_indexed(index)
    vocab = index.probe.vocab
    rng = np.random.default_rng(settings.seed)
    items = rng.permutation(np.array(target.select, object)).tolist()
    counts = np.stack(
        [
            count_unigrams(encode(items[n::TARGET_PARTS]), vocab)
            for n in range(min(TARGET_PARTS, len(items)))
        ]
    )
    columns = np.flatnonzero(counts.sum(axis=0))
    keys = {each.shard.name: each.key for each in index.shards}
    words = np.zeros((len(names), len(columns)), np.float32)
    for row, name in enumerate(names):
        found = load_unigrams(Path(index.folder), keys[name])
        words[row] = found[columns] / max(int(found.sum()), 1)
    return match_words(
        words,
        counts[:, columns],
        natural=natural,
        caps=caps,
        vocab=vocab,
        tokens=float(settings.budget),
    )


def vectors_a_token(index: Index, names: list[str]) -> npt.NDArray[np.float32]:
    """Return what a token of each named shard adds to a mixture's embedding: (n, dim)."""
    entries = {each.shard.name: each for each in index.shards}
    rows = []
    for entry in (entries[name] for name in names):
        one = load_embedding(Path(index.folder), entry.key)
        rows.append(one.vectors.mean(0) * sequences_a_token(index, entry, one))
    return np.stack(rows).astype(np.float32)
