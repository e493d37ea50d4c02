"""What else could rank shards: the yardsticks. Every one returns higher for closer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from curate.ranking.alignment import align_all
from curate.ranking.classifier import classifier
from curate.ranking.compression import compression
from curate.ranking.importance import ngram_importance
from curate.ranking.stats import Influences, Measured, gather_influences
from curate.settings import Method

if TYPE_CHECKING:
    from curate.records import Counts, Floats

PAIRED = 32  # documents of a shard that `compression` pairs with every item: the first ones


def hidden_cosine(target: Floats, shards: Iterable[Floats]) -> Measured:
    """Return the cosine of mean hidden states, corrected for noise as the alignment is.

    Args:
        target: (m, width) mean last hidden state of each sub-batch.
        shards: (n, width) each.
    """
    found = align_all(target, shards, measure="cosine")
    return np.asarray(found.values), found.moves


def transfer(target: Floats, shards: Iterable[Floats]) -> Measured:
    """Return the first-order drop of the target's loss after a natural-gradient step on a shard.

    g · F⁻¹ g' for a step of length 1, nats/token, from mean gradients that were divided by the
    square roots of their own Fisher information and projected: F is the geometric mean of the
    two. Texts are disjoint, so the product of means is unbiased and needs no correction.

    Args:
        target: (m, width) of each sub-batch.
        shards: (n, width) each.
    """
    own = target.mean(axis=0)
    values, targets, theirs = [], [], []
    for stack in shards:
        mean = stack.mean(axis=0)
        values.append(float(own @ mean))
        targets.append((target - own) @ mean)
        theirs.append((stack - mean) @ own)
    return np.array(values), gather_influences(targets, theirs)


def perplexity(losses: Floats) -> Measured:
    """Return minus the probe's loss on each shard, nats/token: easy text first, target unseen."""
    return _certain(-np.asarray(losses, dtype=np.float64))


def length(tokens: Counts) -> Measured:
    """Return each shard's tokens: more is closer."""
    return _certain(np.asarray(tokens, dtype=np.float64))


def random(count: int, *, seed: int) -> Measured:
    """Return numbers drawn uniformly between 0 and 1: no order."""
    return _certain(np.random.default_rng(seed).random(count))


def measure_texts(
    method: Method,
    items: Sequence[str],
    shards: Sequence[Sequence[str]],
    *,
    seed: int = 0,
) -> Measured:
    """Measure shards by a method that reads text alone: the same documents for each of them.

    Args:
        method: ngram, compression, classifier, length or random. The others need an index.
        items: of the target.
        shards: documents of each shard.
        seed: of what is drawn.

    Raises:
        ValueError: another method, no item, or a shard without a document.
    """
    if method == "ngram":
        return ngram_importance(items, shards)
    if method == "compression":
        return compression(items, (documents[:PAIRED] for documents in shards))
    if method == "classifier":
        return classifier(items, shards, seed=seed)
    if method == "length":
        return length(np.array([sum(map(len, documents)) for documents in shards]))
    if method == "random":
        return random(len(shards), seed=seed)
    raise ValueError(f"{method} cannot be measured from text alone")


def _certain(values: npt.NDArray[np.float64]) -> Measured:
    """Return values that no drawing of text stands behind: their intervals are points."""
    none = np.zeros((len(values), 1))
    return values, Influences(none, none, np.ones(len(values), dtype=np.int64))
