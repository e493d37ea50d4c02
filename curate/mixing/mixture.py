"""What a mixture is before a token of it is written: its alignment and its forecast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from curate.frames import valued
from curate.mixing.forecast import Prior, forecast_without_runs
from curate.mixing.stock import Stock
from curate.mixing.sums import Sum, Sums, sum_up
from curate.ranking.alignment import align_all
from curate.ranking.by_counts import item_pairs, pool_pairs
from curate.ranking.lexical import excess, lexical, shares_of
from curate.ranking.ngram_lm import ItemPairs, Seen, anchored, look_up, ngram_lm
from curate.ranking.prepared import corpus_reference
from curate.ranking.samples import draw_items
from curate.ranking.stats import Influences, t_intervals
from curate.records import Embedding, Forecast, Index, Ranking, Target
from curate.settings import Measure, Method
from curate.task2vec.reading import load_embedding, load_pairs, load_unigrams

if TYPE_CHECKING:
    from curate.records import Counts, Floats


CONFIDENCE = 0.95
"""Of the interval of a mixture's alignment."""

BY_COUNTS = ("ngram-lm", "lexical")
"""Methods of `rank` after which a mixture's alignment is by counts: no embedding is asked for."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture by its tokens per shard: how close it is to the target, and what that promises."""

    alignment: float  # 0 to 1, as the ranking measures it
    low: float
    high: float
    cross_entropy: float  # nats/token of the target's select split under the mixture's pairs
    forecast: Forecast  # of the drop against natural proportions


def read_prior() -> Prior:
    """Read the coefficients that earlier experiments left in `prior.json`."""
    data = (files("curate.mixing") / "prior.json").read_bytes()
    return msgspec.json.decode(data, type=Prior)


def describe_mixtures(
    stock: Stock,
    target: Embedding | None,
    mixtures: Mapping[str, Mapping[str, float]],
    *,
    tokens: int,
    pairs: ItemPairs,
    method: Method = "task2vec",
    measure: Measure = "scaled",
    first: str = "",
    level: float | None = None,
    kept: Sums | None = None,
) -> dict[str, Mixture]:
    """Return alignment and forecast of mixtures of an index's shards, in one pass over them.

    The mixture's embedding is the mean of its shards' weighted by the sequences that their
    tokens make (an embedding is a mean over sequences), sub-batch by sub-batch, so that its
    spread over sub-batches gives the interval; a shard of fewer sub-batches than the index has
    gives them again in turn. Its token pairs are what parts of its shards can be expected to
    hold (`curate.mixing.expected`).

    Args:
        stock: of an index, whose embeddings are read, one at a time.
        target: embedding of the select split; None where alignment is by counts.
        mixtures: name → shard → tokens (or any share), >= 0, not all 0.
        tokens: size of each mixture.
        pairs: the target's, by item: forecasts rest on them, whatever alignment is by.
        method: that ranked: alignment is by token pairs after `ngram-lm`, by words after
            `lexical`, else by embeddings.
        measure: of Task2Vec alignment; `log` and `whitened` read the embeddings twice.
        first: the shard that was ranked first by pairs or words, by which the scale is set: what
            its value is above 1 was taken off all shards, and is off the mixtures; by pairs it
            has to be named. A mixture that has the target's words better than that shard may
            still be above 1: cut, it could not be told from the shard.
        level: alignment of that shard in the ranking; None: that by its words.
        kept: what an earlier call found of mixtures of these names and of so many tokens, which
            is not summed again; what this one finds is added.
    """
    sums = {} if kept is None else kept
    index = stock.index
    wanted = {**mixtures, "": stock.natural(tokens)}
    wanted = {name: parts for name, parts in wanted.items() if name not in sums}
    width = target.vectors.shape[1] if target and method not in BY_COUNTS else 0
    sums |= sum_up(stock, wanted, tokens=tokens, pairs=pairs, width=width)
    seen, background = seen_by(stock, sums, ("", *mixtures), pairs)
    logs, influence = ngram_lm(pairs, seen, background=background)
    control, *costs = (-logs).tolist()
    moves = influence.target[1:] - influence.target[0]
    drawn, scale = [sums[name] for name in mixtures], _Scale(first, level)
    if method == "ngram-lm":
        found = _align_by_pairs(index, pairs, seen[1:], background=background, scale=scale)
    elif method == "lexical":
        found = _align_by_words(index, pairs, drawn, tokens, background=background, scale=scale)
    elif target is None:
        raise ValueError(f"after a ranking by {method} the target's embedding is needed")
    else:
        found = _align_by_embeddings(index, target, (each.stack for each in drawn), measure)
    prior = read_prior()
    rows = zip(mixtures, costs, moves, found.T.tolist(), strict=True)
    return {
        name: Mixture(
            value, low, high, cost, forecast_without_runs(control - cost, prior, moves=by_items)
        )
        for name, cost, by_items, (value, low, high) in rows
    }


@dataclass(frozen=True, slots=True)
class _Scale:
    """The shard that alignments by counts are relative to."""

    first: str
    level: float | None

    def keys(self, index: Index) -> list[str]:
        """Return the key of its embedding; none where it is not named."""
        return [each.key for each in index.shards if each.shard.name == self.first]

    def over(self, logs: Floats) -> float:
        """Return what is off all values, given that of this shard by its words, if it is named."""
        return excess(logs) if self.level is None else float(logs[0] - np.log(self.level))


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
    index: Index,
    pairs: ItemPairs,
    drawn: Sequence[Sum],
    tokens: int,
    *,
    background: Floats,
    scale: _Scale,
) -> Floats:
    """Return (3, n) as `_align_by_embeddings`, of mixtures of so many tokens."""
    best = [load_unigrams(Path(index.folder), key) for key in scale.keys(index)]
    counts: list[Counts | Floats] = [*best, *(each.unigrams * tokens for each in drawn)]
    logs, moves = lexical(pairs.words, counts, background=background)
    logs = logs - scale.over(logs[: len(best)])
    return _as_alignments(logs, moves)[:, len(best) :]


def _align_by_pairs(
    index: Index, pairs: ItemPairs, seen: Sequence[Seen], *, background: Floats, scale: _Scale
) -> Floats:
    """Return (3, n) as `_align_by_embeddings`."""
    folder, (key,) = Path(index.folder), scale.keys(index)
    words = load_unigrams(folder, key)
    logs, moves = lexical(pairs.words, [words], background=background)
    best = look_up(pairs, load_pairs(folder, key), words)
    found = ngram_lm(pairs, [best, *seen], background=background)
    return _as_alignments(*anchored(found, (logs - scale.over(logs), moves), first=0))[:, 1:]


def _as_alignments(logs: Floats, moves: Influences) -> Floats:
    low, high = t_intervals(logs, moves, confidence=CONFIDENCE)
    high = np.minimum(high, np.maximum(logs, 0.0))
    return np.exp(np.stack([logs, low, high]))


def seen_by(
    stock: Stock, sums: Sums, names: Iterable[str], pairs: ItemPairs
) -> tuple[list[Seen], Floats]:
    """Return what mixtures can be expected to say, and the words of the corpus."""
    background = sums[""].unigrams * sum(stock.room.values())
    corpus = shares_of(background)[pairs.after]
    return [sums[name].pairs.seen(corpus) for name in names], background


def ranked_by(ranking: Ranking) -> dict[str, Any]:
    """Return what `describe_mixtures` takes of a ranking."""
    best = ranking.shards[0]
    return {
        "method": ranking.method,
        "measure": ranking.measure,
        "first": best.shard,
        "level": best.alignment,
    }


def target_pairs(index: Index, target: Target, *, most: int = 0) -> ItemPairs:
    """Return what `describe_mixtures` takes of a target: its pairs, by groups of items.

    Args:
        index: whose probe's tokens are counted.
        target: its select split.
        most: items that are drawn; 0 takes all.
    """
    if most:
        target = replace(target, select=tuple(draw_items(target.select, most, seed=0)))
    return pool_pairs(item_pairs(index, target), seed=0)


def put_in_words(found: Mapping[str, Mixture]) -> str:
    """Return the line that a person reads before a mix is written."""
    mix, random, worst = (valued(found[name].alignment) for name in ("mix", "random", "worst"))
    own, drop = found["mix"], found["mix"].forecast
    return (
        f"alignment {mix} ({valued(own.low)} to {valued(own.high)}), random {random}, worst "
        f"{worst}; forecast drop {valued(drop.drop, signed=True)} nats/token "
        f"({valued(drop.low, signed=True)} to {valued(drop.high, signed=True)})"
    )
