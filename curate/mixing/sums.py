"""What the shards of a mixture give together: embeddings, words, token pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.mixing.expected import ExpectedSeen
from curate.mixing.stock import Stock
from curate.ranking.ngram_lm import ItemPairs, look_up
from curate.records import Embedding, Index, IndexedShard
from curate.task2vec.reading import load_embedding

if TYPE_CHECKING:
    from curate.records import Floats

SAMPLED = 4_096


@dataclass(slots=True)
class Sum:
    """What the shards of a mixture of so many tokens give together."""

    stack: Floats  # (n_batches, dim) of sub-batches; dim is 0 where alignment is by counts
    unigrams: Floats  # (vocab,), sum 1
    pairs: ExpectedSeen  # of the target's pairs


Sums = dict[str, Sum]
"""Of mixtures by name."""


def sum_up(
    stock: Stock,
    mixtures: Mapping[str, Mapping[str, float]],
    *,
    tokens: int,
    pairs: ItemPairs,
    width: int = 0,
    most: int = SAMPLED,
) -> Sums:
    """Return what each mixture's shards give together; embeddings where they have a width.

    Of `most` × 2 shards or more the largest parts and every so-manieth of the others tell the
    pairs of all.
    """
    index = stock.index
    totals = {name: sum(parts.values()) for name, parts in mixtures.items()}
    batches = np.arange(max(index.embed.batches, 1))
    sequences = dict.fromkeys(mixtures, 0.0)
    looked = looked_at(mixtures, most=most)
    found: Sums = {
        name: Sum(
            np.zeros((len(batches), width)),
            np.zeros(index.probe.vocab),
            ExpectedSeen(len(pairs.after)),
        )
        for name in mixtures
    }
    for each in index.shards:
        shard = each.shard.name
        shares = {name: parts.get(shard, 0.0) / totals[name] for name, parts in mixtures.items()}
        shares = {name: share for name, share in shares.items() if share}
        if not shares:
            continue
        counts = stock.words(each).astype(np.float64)
        there = max(counts.sum(), 1.0)
        for name, share in shares.items():
            found[name].unigrams += share * counts / there
        if shard in looked:
            own = stock.pairs(each)
            said = look_up(pairs, own, counts)
            for name, times in looked[shard].items():
                part = shares[name] * tokens / there
                found[name].pairs.add(said, share=part, repeats=own.repeats, times=times)
        if width:
            one = load_embedding(Path(index.folder), each.key)
            made = sequences_a_token(index, each, one)
            for name, share in shares.items():
                sequences[name] += share * made
                found[name].stack += share * made * one.vectors[batches % len(one.vectors)]
    for name, one_sum in found.items():
        one_sum.stack /= max(sequences[name], 1e-300)
    return found


def looked_at(
    mixtures: Mapping[str, Mapping[str, float]], *, most: int
) -> dict[str, dict[str, float]]:
    """Return the shards whose pairs are looked at: for how many each stands, by mixture.

    The largest parts stand for themselves: one that stood for others too would be counted as a
    larger one.
    """
    found: dict[str, dict[str, float]] = {}
    for name, parts in mixtures.items():
        taken = [shard for shard, part in parts.items() if part > 0]
        sizes = np.array([parts[shard] for shard in taken])
        large = np.argsort(-sizes, kind="stable")[: most // 2 if len(taken) >= 2 * most else None]
        rest = np.delete(np.arange(len(taken)), large)
        looked = rest[:: max(1, len(rest) // (most - most // 2))]
        times = np.ones(len(taken))
        times[looked] = sizes[rest].sum() / max(sizes[looked].sum(), 1e-300)
        for place in (*large.tolist(), *looked.tolist()):
            found.setdefault(taken[place], {})[name] = float(times[place])
    return found


def sequences_a_token(index: Index, entry: IndexedShard, one: Embedding) -> float:
    """Return how many sequences of an embedding a token of its shard makes.

    Shards of short documents make more: a mixture that weighed embeddings by tokens would count
    a sequence of 20 tokens for a tenth of one of 200, and a text of both counts them alike.
    """
    drawn = min(entry.shard.n_tokens, index.embed.batches * index.embed.batch_tokens)
    return sum(one.n_sequences) / max(drawn, 1)
