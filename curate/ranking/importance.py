"""N-gram importance, as DSIR: what a shard's words and pairs say of the target over the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from curate.ranking.alignment import influences
from curate.ranking.ngrams import GROUPS, WORD
from curate.ranking.stats import Measured, gather_influences

if TYPE_CHECKING:
    from curate.records import Floats

NGRAM_BUCKETS = 10_000  # as in DSIR


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
    documents do not win by length. Intervals: groups of items and of documents left out in turn.
    An n-gram that the items lack counts against a shard, so that few items give every shard too
    low a value: how much too low is in the interval, and not in the value (`_without_each`).

    Args:
        items: of the target, not empty.
        shards: documents of each shard; together they are the corpus. One is looked at at a time,
            and each twice: importance is known when the corpus is.
        buckets: of the hash.
        smoothing: weight of the corpus in the target's distribution, at least one n-gram; 0 is
            DSIR's own code: 1e-8 added to every probability.

    Raises:
        ValueError: no item, or a shard without a document.
    """
    from sklearn.feature_extraction.text import HashingVectorizer  # a second to load

    if not items:
        raise ValueError("n-gram importance needs at least one item")
    vectorizer = HashingVectorizer(
        n_features=buckets, ngram_range=(1, 2), token_pattern=WORD, norm=None, alternate_sign=False
    )
    each = vectorizer.transform(items)
    target = _grouped(vectorizer, items).toarray()
    corpus = np.zeros(buckets)
    for documents in shards:
        corpus += _grouped(vectorizer, documents).sum(axis=0)
    subsets = [target.sum(axis=0)]
    subsets += [subsets[0] - row for row in target] if len(target) > 1 else []
    known = [_log_importance(row, corpus, smoothing) for row in subsets]
    without, n_items, growth = _without_each(each, corpus, smoothing)
    weights = np.stack([*known, without])
    values, biases, item_moves, document_moves = [], [], [], []
    for documents in shards:
        group = _grouped(vectorizer, documents)
        sizes = np.maximum(np.asarray(group.sum(axis=1)).ravel(), 1e-9)
        sums = group @ weights.T  # (groups, 1 + target groups + 1)
        means = sums.sum(axis=0) / sizes.sum()
        values.append(means[0])
        biases.append(growth * (n_items - 1) * (means[-1] - means[0]))
        item_moves.append(growth * influences(means[1:-1]))
        document_moves.append((sums[:, 0] - means[0] * sizes) / sizes.mean())
    moves = gather_influences(item_moves, document_moves)
    return np.array(values), replace(moves, bias=np.array(biases))


def _without_each(items: Any, corpus: Floats, smoothing: float) -> tuple[Floats, int, float]:
    """Return the mean log importance without each item, how many items, and a weight, at least 1.

    The n - 1 of a jackknife is right where what few items lack falls as 1 / n. It falls slower
    where every item brings n-grams of its own: their number grows as n^s, where s is the share of
    them that are in one item only, and 1 / (1 - s) times as much is missing if that goes on for
    ever (as in `curate.ranking.entropy`; how this does on targets: docs/experiments.md).

    Args:
        items: (n, buckets) sparse counts; those of no n-gram do not count.
        corpus: (buckets,).
        smoothing: as for `ngram_importance`.
    """
    rows = sparse.csr_array(items[np.diff(items.indptr) > 0])
    n, whole = rows.shape[0], np.asarray(rows.sum(axis=0)).ravel()
    if n < 2:
        return _log_importance(whole, corpus, smoothing), n, 1.0
    total = np.zeros(len(corpus))
    for start, stop in pairwise(rows.indptr):
        left = whole.copy()
        left[rows.indices[start:stop]] -= rows.data[start:stop]
        total += _log_importance(left, corpus, smoothing)
    holders = np.bincount(rows.indices, minlength=len(corpus))
    recurring = float((holders > 1).sum() / (holders > 0).sum())
    return total / n, n, 1 / max(recurring, 1 / n)


def _log_importance(target: Floats, corpus: Floats, smoothing: float) -> Floats:
    if smoothing == 0:
        target, corpus = (row / max(float(row.sum()), 1.0) + 1e-8 for row in (target, corpus))
        return np.asarray(np.log(target) - np.log(corpus))
    # No bucket is impossible; one that the target lacks counts as n-grams spread as the corpus is.
    corpus = corpus + 1e-3 * max(float(corpus.sum()), 1.0) / len(corpus)
    base = corpus / corpus.sum()
    row = target + base * max(smoothing * float(target.sum()), 1.0)
    return np.asarray(np.log(row / row.sum()) - np.log(base))


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
