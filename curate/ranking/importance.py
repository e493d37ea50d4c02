"""N-gram importance, as DSIR: what a shard's words and pairs say of the target over the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from curate.ranking.alignment import influences
from curate.ranking.stats import Measured, gather_influences

if TYPE_CHECKING:
    from curate.records import Counts, Floats

NGRAM_BUCKETS = 10_000  # as in DSIR
WORD = r"\w+|[^\w\s]+"  # words, and runs of punctuation: NLTK's wordpunct, as DSIR
GROUPS = 4  # of documents, left out one at a time
ITEM_GROUPS = 64  # of the target's items, left out one at a time


def ngram_importance(
    items: Sequence[str],
    shards: Sequence[Sequence[str]],
    *,
    buckets: int = NGRAM_BUCKETS,
    smoothing: float = 0.01,
) -> Measured:
    """Return the mean log importance of each shard's n-grams, nats/n-gram.

    Hashed words and pairs of words; importance is log p_target - log p_corpus of the bucket
    (Xie et al. 2023, DSIR), here a mean over the shard's n-grams and not a sum, so that long
    documents do not win by length. What the items lack is estimated from what one of them alone
    has (`_weigh`); more is missing than that shows, and how much is in the interval, not in the
    value. Intervals: groups of items and of documents left out in turn.

    Args:
        items: of the target, not empty.
        shards: documents of each shard; together they are the corpus. One is looked at at a time,
            and each twice: importance is known when the corpus is.
        buckets: of the hash.
        smoothing: weight of the corpus in the target's distribution, at least one n-gram; 0 is
            DSIR's own code: 1e-8 added to every probability, and nothing that the items lack.

    Raises:
        ValueError: no item, or a shard without a document.
    """
    from sklearn.feature_extraction.text import HashingVectorizer  # a second to load

    if not items:
        raise ValueError("n-gram importance needs at least one item")
    vectorizer = HashingVectorizer(
        n_features=buckets, ngram_range=(1, 2), token_pattern=WORD, norm=None, alternate_sign=False
    )
    corpus = np.zeros(buckets)
    for documents in shards:
        corpus += _grouped(vectorizer, documents).sum(axis=0)
    each = sparse.csr_array(vectorizer.transform(items))
    each = sparse.csr_array(each[np.diff(each.indptr) > 0])
    weights, growth = _without_each(each, corpus, smoothing), _growth(each)
    values, biases, item_moves, document_moves = [], [], [], []
    for documents in shards:
        counts = _grouped(vectorizer, documents)
        sizes = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1e-9)
        shares = np.asarray(counts.sum(axis=0)).ravel() / sizes.sum()
        value, *without = (each_weight.mean(shares) for each_weight in weights)
        values.append(value)
        biases.append(growth * (len(without) - 1) * (np.mean(without) - value) if without else 0.0)
        item_moves.append(influences(np.array(without)))
        document_moves.append((counts @ weights[0].slopes(shares) - value * sizes) / sizes.mean())
    moves = gather_influences(item_moves, document_moves)
    return np.array(values), replace(moves, bias=np.array(biases), level=growth)


@dataclass(frozen=True, slots=True)
class _Weights:
    """What each n-gram says of a target of which some items are known."""

    seen: Floats  # (buckets,) log importance of those that an item has, 0 of the others
    unseen: Floats  # (buckets,) 1 of those that no item has
    rare: Floats  # (buckets,) share of those of one item alone, over the corpus's
    missing: float  # share of the target's n-grams that no item has
    smoothing: float

    def mean(self, shares: Floats) -> float:
        """Return the mean log importance of a shard's n-grams, of which these are the shares."""
        unseen = float(shares @ self.unseen)
        return float(shares @ self.seen) + unseen * _log_ratio(self._ratio(shares), self.smoothing)

    def slopes(self, shares: Floats) -> Floats:
        """Return how `mean` moves with each share: its linear part, which has the same value."""
        ratio = self._ratio(shares)
        slope = 1 / (ratio + self.smoothing) if self.missing else 0.0
        constant = _log_ratio(ratio, self.smoothing) - ratio * slope
        return np.asarray(self.seen + constant * self.unseen + self.missing * slope * self.rare)

    def _ratio(self, shares: Floats) -> float:
        """Return the mean of p_target / p_corpus over the n-grams of a shard that no item has."""
        return self.missing * float(shares @ self.rare) / max(float(shares @ self.unseen), 1e-9)


def _weigh(
    target: Floats, holders: Counts, items: int, corpus: Floats, smoothing: float
) -> _Weights:
    """Return the weights of n-grams by some items.

    So much of the target is n-grams that its items lack as of them is in one item alone (Good,
    1953; at most all but one in `items`: of a lone item nothing is known): p_target of what they
    have is less by that. Where it lies the same n-grams tell: the mean of p_target / p_corpus
    over a shard's n-grams is the mean of p_shard / p_corpus over the target's. Its logarithm, for
    all of a shard's n-grams that no item has, is as much as they can be worth (Jensen); that each
    of them is impossible is as little.

    Args:
        target: (buckets,) counts of the items.
        holders: (buckets,) how many items have each.
        items: how many there are.
        corpus: (buckets,) counts.
        smoothing: as for `ngram_importance`.
    """
    total, none = max(float(target.sum()), 1.0), np.zeros(len(corpus))
    if smoothing == 0:
        shares = corpus / max(float(corpus.sum()), 1.0)
        return _Weights(np.log(target / total + 1e-8) - np.log(shares + 1e-8), none, none, 0.0, 1.0)
    # No bucket is impossible; one that the target lacks counts as n-grams spread as the corpus is.
    base = corpus + 1e-3 * max(float(corpus.sum()), 1.0) / len(corpus)
    base /= base.sum()
    weight, alone = max(smoothing, 1 / total), np.where(holders == 1, target, 0.0)
    single = float(alone.sum())
    missing = min(single / total, 1 - 1 / max(items, 1))
    ratios = (1 - missing) * target / total / base
    return _Weights(
        seen=np.where(holders > 0, _log_ratio(ratios, weight), 0.0),
        unseen=np.where(holders > 0, 0.0, 1.0),
        rare=alone / max(single, 1.0) / base,
        missing=missing,
        smoothing=weight,
    )


def _without_each(items: Any, corpus: Floats, smoothing: float) -> list[_Weights]:
    """Return the weights by all items, and without each of up to `ITEM_GROUPS` groups of them.

    Args:
        items: (n, buckets) sparse counts, none of them empty.
        corpus: (buckets,).
        smoothing: as for `ngram_importance`.
    """
    n = items.shape[0]
    holds = sparse.csr_array(
        (np.ones(len(items.indices)), items.indices, items.indptr), items.shape
    )
    target, holders = (np.asarray(rows.sum(axis=0)).ravel() for rows in (items, holds))
    found = [_weigh(target, holders, n, corpus, smoothing)]
    groups = min(ITEM_GROUPS, n)
    for group in range(groups if groups > 1 else 0):
        mine = np.arange(group, n, groups)
        less, held = (np.asarray(rows[mine].sum(axis=0)).ravel() for rows in (items, holds))
        found.append(_weigh(target - less, holders - held, n - len(mine), corpus, smoothing))
    return found


def _growth(items: Any) -> float:
    """Return the weight of the jackknife in intervals of values, at least 1.

    Its n - 1 is right where what few items lack falls as 1 / n. It falls slower where every item
    brings n-grams of its own: their number grows as n^s, where s is the share of them that are in
    one item only, and 1 / (1 - s) times as much is missing if that goes on for ever (as in
    `curate.ranking.entropy`; how this does on targets: docs/experiments.md). It is missing in
    all shards much alike: differences, and so ranks, are without it.
    """
    holders = np.bincount(items.indices, minlength=items.shape[1])
    recurring = float((holders > 1).sum() / max((holders > 0).sum(), 1))
    return 1 / max(recurring, 1 / max(items.shape[0], 1))


def _log_ratio(ratio: Any, smoothing: float) -> Any:
    """Return log p_target - log p_corpus from their ratio, the corpus mixed in."""
    return np.log((ratio + smoothing) / (1 + smoothing))


def _grouped(vectorizer: Any, texts: Sequence[str]) -> Any:
    """Count hashed n-grams of up to `GROUPS` groups of texts, (groups, buckets) sparse."""
    if not texts:
        raise ValueError("a shard without a document has no n-grams")
    groups = min(GROUPS, len(texts))
    joined = vectorizer.transform(texts)
    member = sparse.csr_array(
        (np.ones(len(texts)), (np.arange(len(texts)) % groups, np.arange(len(texts)))),
        shape=(groups, len(texts)),
    )
    return sparse.csr_array(member @ joined)
