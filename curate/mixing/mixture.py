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
from curate.mixing.sums import Sum, Sums, nothing_of, sum_up
from curate.ranking.alignment import align_all
from curate.ranking.by_counts import GROUPS, item_pairs, pool_pairs
from curate.ranking.lexical import count_items, excess, lexical, pool_items
from curate.ranking.ngram_lm import ItemPairs, anchored, look_up, ngram_lm
from curate.ranking.prepared import corpus_reference
from curate.ranking.stats import t_intervals
from curate.records import Embedding, Forecast, Index, Ranking, Target
from curate.settings import Measure
from curate.task2vec.reading import load_embedding, load_pairs, load_unigrams
from curate.task2vec.tokenizer import encode_as_indexed

if TYPE_CHECKING:
    from curate.records import Counts, Floats


CONFIDENCE = 0.95
"""Of the interval of a mixture's alignment."""


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
    level: float | None = None,
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
        items: token counts (n_items, vocab) of the target's items where alignment is lexical,
            their `ItemPairs` where it is by these; None where it is of embeddings.
        first: the shard that was ranked first by these items, by which the scale is set: what its
            value is above 1 was taken off all shards, and is off the mixtures; by pairs it has to
            be named. A mixture that has the target's words better than that shard may still be
            above 1: cut, it could not be told from the shard.
        level: alignment of that shard in the ranking; None: that by its words.
        kept: what an earlier call found of mixtures of these names, which is not summed again;
            what this one finds is added.
    """
    natural = {each.shard.name: float(each.shard.n_tokens) for each in index.shards}
    sums = {} if kept is None else kept
    wanted = {name: parts for name, parts in {**mixtures, "": natural}.items() if name not in sums}
    sums |= sum_up(index, target, wanted, items)
    unigrams = {name: each.unigrams for name, each in sums.items()}
    control, prior = unigrams[""], read_prior()
    if items is None:
        found = _align_by_embeddings(index, target, (sums[n].stack for n in mixtures), measure)
    else:
        found = _align_by_counts(
            index,
            items,
            [sums[name] for name in mixtures],
            tokens=tokens,
            background=control * sum(natural.values()),
            first=first,
            level=level,
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


def _align_by_counts(
    index: Index,
    items: Any,
    drawn: Sequence[Sum],
    *,
    tokens: int,
    background: Floats,
    first: str,
    level: float | None,
) -> Floats:
    """Return (3, n) as `_align_by_embeddings`, of mixtures of so many tokens, as ranked."""
    folder = Path(index.folder)
    keys = [each.key for each in index.shards if each.shard.name == first]
    best = [load_unigrams(folder, key) for key in keys]
    words = items.words if isinstance(items, ItemPairs) else items
    counts: list[Counts | Floats] = [*best, *(each.unigrams * tokens for each in drawn)]
    logs, moves = lexical(words, counts, background=background)
    logs = logs - (excess(logs[: len(best)]) if level is None else logs[0] - np.log(level))
    if isinstance(items, ItemPairs):
        nothing = nothing_of(items)
        seen = [look_up(items, load_pairs(folder, keys[0]), best[0])]
        seen += [nothing.plus(each.seen, weight=tokens) for each in drawn if each.seen]
        by_pairs = ngram_lm(items, seen, background=background)
        logs, moves = anchored(by_pairs, (logs, moves), first=0)
    low, high = t_intervals(logs, moves, confidence=CONFIDENCE)
    high = np.minimum(high, np.maximum(logs, 0.0))
    return np.exp(np.stack([logs, low, high]))[:, len(best) :]


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
        level=ranking.shards[0].alignment,
        kept=kept,
    )


def ranked_items(index: Index, ranking: Ranking, target: Target) -> Any:
    """Return what `describe_mixtures` takes for the items of a target, as it was ranked."""
    if ranking.method == "ngram-lm":
        return pool_pairs(item_pairs(index, target), seed=0)
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
