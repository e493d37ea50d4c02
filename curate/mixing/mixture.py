"""What a mixture is before a token of it is written: its alignment and its forecast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from curate.mixing.forecast import Prior, forecast_without_runs, lexical_cross_entropy
from curate.ranking.alignment import align_all
from curate.ranking.lexical import count_items, excess, lexical, pool_items
from curate.ranking.methods import GROUPS
from curate.ranking.prepared import corpus_reference
from curate.ranking.stats import t_intervals
from curate.records import Embedding, Forecast, Index, IndexedShard, Ranking, Target
from curate.settings import Measure
from curate.task2vec.reading import load_embedding, load_unigrams
from curate.task2vec.tokenizer import encode_as_indexed

if TYPE_CHECKING:
    from curate.records import Floats


CONFIDENCE = 0.95
"""Of the interval of a mixture's alignment."""

Sums = dict[str, "tuple[Floats, Floats]"]
"""Of mixtures by name: the stack of sub-batches (n_batches, dim), the unigrams (vocab,), sum 1.

Where alignment is by words, dim is 0."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture by its tokens per shard: how close it is to the target, and what that promises."""

    alignment: float  # 0 to 1, as the ranking measures it
    low: float
    high: float
    lexical: float  # nats/token of the target's select split under the mixture's unigrams
    forecast: Forecast  # of the drop against natural proportions


def read_prior() -> Prior:
    """Read the coefficients that earlier experiments left in `prior.json`."""
    data = (files("curate.mixing") / "prior.json").read_bytes()
    return msgspec.json.decode(data, type=Prior)


def describe_mixtures(
    index: Index,
    target: Embedding,
    mixtures: Mapping[str, Mapping[str, float]],
    *,
    tokens: int,
    measure: Measure,
    items: Any = None,
    first: str = "",
    kept: Sums | None = None,
) -> dict[str, Mixture]:
    """Return alignment and forecast of mixtures of an index's shards, in one pass over them.

    The mixture's embedding is the mean of its shards' weighted by the sequences that their
    tokens make (an embedding is a mean over sequences), sub-batch by sub-batch, so that its
    spread over sub-batches gives the interval; a shard of fewer sub-batches than the index has
    gives them again in turn.

    Args:
        index: whose embeddings are read, one at a time.
        target: embedding of the select split.
        mixtures: name → shard → tokens (or any share), >= 0, not all 0.
        tokens: size of each mixture, for the smoothing of its unigrams.
        measure: of Task2Vec alignment; `log` and `whitened` read the embeddings twice.
        items: (n_items, vocab) token counts of the target's items, where alignment is lexical.
        first: the shard that was ranked first by these items; what its value is above 1 was taken
            off all shards, and is off the mixtures. One of more of the target's words than that
            shard has may still be above 1: cut, it could not be told from the shard.
        kept: what an earlier call found of mixtures of these names, which is not summed again;
            what this one finds is added.
    """
    natural = {each.shard.name: float(each.shard.n_tokens) for each in index.shards}
    sums = {} if kept is None else kept
    wanted = {name: parts for name, parts in {**mixtures, "": natural}.items() if name not in sums}
    sums |= _sum_up(index, target, wanted, vectors=items is None)
    unigrams = {name: row for name, (_, row) in sums.items()}
    control, prior = unigrams[""], read_prior()
    if items is None:
        found = _align_by_embeddings(index, target, (sums[name][0] for name in mixtures), measure)
    else:
        drawn = [unigrams[name] * tokens for name in mixtures]
        found = _align_by_words(
            index, items, drawn, background=control * sum(natural.values()), first=first
        )
    rows = found.T.tolist()
    return {
        name: Mixture(
            alignment=value,
            low=low,
            high=high,
            lexical=lexical_cross_entropy(target.unigrams, unigrams[name], tokens=tokens),
            forecast=forecast_without_runs(
                target.unigrams, unigrams[name], control, tokens=tokens, prior=prior
            ),
        )
        for name, (value, low, high) in zip(mixtures, rows, strict=True)
    }


def _align_by_embeddings(
    index: Index, target: Embedding, stacks: Iterable[Floats], measure: Measure
) -> Floats:
    """Return (3, n): the alignment of each mixture's sub-batches, and the ends of its interval."""
    folder = Path(index.folder)
    of_shards = (load_embedding(folder, each.key).vectors for each in index.shards)
    reference = corpus_reference(of_shards, measure=measure, blocks=index.blocks)
    found = align_all(
        target.vectors, stacks, measure=measure, blocks=index.blocks, reference=reference
    )
    ends = t_intervals(found.values, found.moves, confidence=CONFIDENCE)
    return np.clip(np.stack([found.values, *ends]), 0.0, 1.0)


def _align_by_words(
    index: Index, items: Any, drawn: Sequence[Floats], *, background: Floats, first: str
) -> Floats:
    """Return (3, n) as `_align_by_embeddings`, of mixtures whose word counts are `drawn`."""
    logs, moves = lexical(items, drawn, background=background)
    folder = Path(index.folder)
    best = [load_unigrams(folder, each.key) for each in index.shards if each.shard.name == first]
    logs = logs - excess(lexical(items, best, background=background)[0])
    low, high = t_intervals(logs, moves, confidence=CONFIDENCE)
    return np.exp(np.stack([logs, low, np.minimum(high, np.maximum(logs, 0.0))]))


def compare_mixtures(
    index: Index,
    ranking: Ranking,
    target: Embedding,
    parts: Mapping[str, float],
    *,
    tokens: int,
    items: Any = None,
    kept: Sums | None = None,
) -> dict[str, Mixture]:
    """Return a mix beside what `random` and `worst` of the same size would be.

    Args:
        index: of the shards.
        ranking: its end is what `worst` takes, its measure that of alignment.
        target: embedding of the select split.
        parts: shard → tokens of the mix.
        tokens: size of each.
        items: as for `describe_mixtures`.
        kept: sums of `random` and `worst`; an empty one is filled, for another mix of the size.
    """
    if kept:
        kept.pop("mix", None)
    left = float(tokens)
    worst: dict[str, float] = {}
    for line in reversed(ranking.shards):
        worst[line.shard] = min(float(line.tokens), left)
        left -= worst[line.shard]
    natural = {each.shard.name: float(each.shard.n_tokens) for each in index.shards}
    mixtures = {"mix": parts, "random": natural, "worst": worst}
    return describe_mixtures(
        index,
        target,
        mixtures,
        tokens=tokens,
        measure=ranking.measure,
        items=items,
        first=ranking.shards[0].shard,
        kept=kept,
    )


def ranked_items(index: Index, ranking: Ranking, target: Target) -> Any:
    """Return the token counts (n_items, vocab) of a target that was ranked by words; else None."""
    if ranking.method != "lexical":
        return None
    encode = encode_as_indexed(index)
    items = count_items(target.select, encode, vocab=index.probe.vocab)
    return pool_items(items, most=GROUPS, seed=0)


def put_in_words(found: Mapping[str, Mixture]) -> str:
    """Return the line that a person reads before a mix is written."""
    mix, random, worst = found["mix"], found["random"], found["worst"]
    return (
        f"alignment {mix.alignment:.3f} [{mix.low:.3f}, {mix.high:.3f}] (random "
        f"{random.alignment:.3f}, worst {worst.alignment:.3f}); forecast drop "
        f"{mix.forecast.drop:+.3f} [{mix.forecast.low:+.3f}, {mix.forecast.high:+.3f}] nats/token"
    )


def sequences_a_token(index: Index, entry: IndexedShard, one: Embedding) -> float:
    """Return how many sequences of an embedding a token of its shard makes.

    Shards of short documents make more: a mixture that weighed embeddings by tokens would count
    a sequence of 20 tokens for a tenth of one of 200, and a text of both counts them alike.
    """
    drawn = min(entry.shard.n_tokens, index.embed.batches * index.embed.batch_tokens)
    return sum(one.n_sequences) / max(drawn, 1)


def _sum_up(
    index: Index, target: Embedding, mixtures: Mapping[str, Mapping[str, float]], *, vectors: bool
) -> Sums:
    """Return each mixture's stack of sub-batches, with `vectors`, and its unigram distribution."""
    totals = {name: sum(parts.values()) for name, parts in mixtures.items()}
    batches = np.arange(max(index.embed.batches, 1))
    sequences = dict.fromkeys(mixtures, 0.0)
    width = target.vectors.shape[1] if vectors else 0
    found: Sums = {
        name: (np.zeros((len(batches), width)), np.zeros(len(target.unigrams))) for name in mixtures
    }
    folder = Path(index.folder)
    for each in index.shards:
        shard = each.shard.name
        shares = {name: parts.get(shard, 0.0) / totals[name] for name, parts in mixtures.items()}
        shares = {name: share for name, share in shares.items() if share}
        if not shares:
            continue
        counts = load_unigrams(folder, each.key).astype(np.float64)
        for name, share in shares.items():
            found[name][1][:] += share * counts / max(counts.sum(), 1.0)
        if vectors:
            one = load_embedding(folder, each.key)
            made = sequences_a_token(index, each, one)
            for name, share in shares.items():
                sequences[name] += share * made
                found[name][0][:] += share * made * one.vectors[batches % len(one.vectors)]
    for name, (stack, _) in found.items():
        stack /= max(sequences[name], 1e-300)
    return found
