"""What the shards of a mixture give together: embeddings, words, token pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.ranking.ngram_lm import ItemPairs, Seen, look_up
from curate.records import Embedding, Index, IndexedShard
from curate.task2vec.reading import load_embedding, load_pairs, load_unigrams

if TYPE_CHECKING:
    from curate.records import Floats

SAMPLED = 4_096
"""Shards of a mixture whose token pairs are looked at, about: of more, every so-manieth."""


@dataclass(slots=True)
class Sum:
    """What the shards of a mixture give together, per token of it."""

    stack: Floats  # (n_batches, dim) of sub-batches; dim is 0 where alignment is by counts
    unigrams: Floats  # (vocab,), sum 1
    seen: Seen | None = None  # of the target's pairs, where alignment is by these

    def hear(self, said: Seen, *, weight: float) -> None:
        """Add what a shard says of the target's pairs."""
        if self.seen:
            self.seen = self.seen.plus(said, weight=weight)


Sums = dict[str, Sum]
"""Of mixtures by name."""


def sum_up(
    index: Index, target: Embedding, mixtures: Mapping[str, Mapping[str, float]], items: Any
) -> Sums:
    """Return what each mixture's shards give together; embeddings where there are no `items`."""
    totals = {name: sum(parts.values()) for name, parts in mixtures.items()}
    batches = np.arange(max(index.embed.batches, 1))
    sequences = dict.fromkeys(mixtures, 0.0)
    width = target.vectors.shape[1] if items is None else 0
    pairs = items if isinstance(items, ItemPairs) else None
    looked = _looked_at(mixtures) if pairs else {}
    found: Sums = {
        name: Sum(
            np.zeros((len(batches), width)),
            np.zeros(len(target.unigrams)),
            nothing_of(pairs) if pairs else None,
        )
        for name in mixtures
    }
    folder = Path(index.folder)
    for each in index.shards:
        shard = each.shard.name
        shares = {name: parts.get(shard, 0.0) / totals[name] for name, parts in mixtures.items()}
        shares = {name: share for name, share in shares.items() if share}
        if not shares:
            continue
        counts = load_unigrams(folder, each.key).astype(np.float64)
        tokens = max(counts.sum(), 1.0)
        for name, share in shares.items():
            found[name].unigrams += share * counts / tokens
        if pairs and shard in looked:
            said = look_up(pairs, load_pairs(folder, each.key), counts)
            for name, weight in looked[shard].items():
                found[name].hear(said, weight=weight / tokens)
        if items is None:
            one = load_embedding(folder, each.key)
            made = sequences_a_token(index, each, one)
            for name, share in shares.items():
                sequences[name] += share * made
                found[name].stack += share * made * one.vectors[batches % len(one.vectors)]
    for name, one_sum in found.items():
        one_sum.stack /= max(sequences[name], 1e-300)
    return found


def _looked_at(mixtures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the shards whose pairs are looked at, and what share each has of which mixture."""
    found: dict[str, dict[str, float]] = {}
    for name, parts in mixtures.items():
        taken = [shard for shard, part in parts.items() if part > 0]
        looked = taken[:: max(1, len(taken) // SAMPLED)]
        total = sum(parts[shard] for shard in looked)
        for shard in looked:
            found.setdefault(shard, {})[name] = parts[shard] / total
    return found


def nothing_of(items: ItemPairs) -> Seen:
    """Return what a text without a token says."""
    none = np.zeros(len(items.after))
    return Seen(none, none, none, 0.0)


def sequences_a_token(index: Index, entry: IndexedShard, one: Embedding) -> float:
    """Return how many sequences of an embedding a token of its shard makes.

    Shards of short documents make more: a mixture that weighed embeddings by tokens would count
    a sequence of 20 tokens for a tenth of one of 200, and a text of both counts them alike.
    """
    drawn = min(entry.shard.n_tokens, index.embed.batches * index.embed.batch_tokens)
    return sum(one.n_sequences) / max(drawn, 1)
