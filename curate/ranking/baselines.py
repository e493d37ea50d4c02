"""What else could rank shards: the yardsticks. Every one returns higher for closer."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

from curate.ranking.alignment import align_all, influences
from curate.ranking.stats import Influences

if TYPE_CHECKING:
    from curate.records import Counts, Floats

Measured = tuple[npt.NDArray[np.float64], Influences]
"""Values (K,) and the influences that their intervals are made from."""

PRIOR_TOKENS = 1_000.0  # weight of the corpus's distribution in a shard's
NGRAM_BUCKETS = 10_000  # as in DSIR
GROUPS = 4  # of documents or items, left out one at a time
WORD = r"\w+|[^\w\s]+"  # words, and runs of punctuation


def lexical(
    items: Any, shards: Iterable[Counts], *, background: Floats, prior: float = PRIOR_TOKENS
) -> Measured:
    """Return minus the cross-entropy of the target's tokens under each shard's unigrams.

    The shard's distribution is smoothed towards the corpus (Dirichlet prior: Zhai and Lafferty,
    2004): (count + prior · background) / (tokens + prior). It is asymmetric, as transfer is:
    what the target needs has to be in the shard, and not the reverse. Intervals are over the
    target's items; the shard's own counts are complete, not drawn.

    Args:
        items: (n_items, vocab) token counts of the target's items, dense or sparse.
        shards: (vocab,) counts, one a shard.
        background: (vocab,) counts of the whole corpus; half a token is added to each.
        prior: tokens, > 0.

    Returns:
        Values in -nats/token (0 is the best there could be), and influences of the items.

    Raises:
        ValueError: vocabularies differ, or the target has no token.
    """
    counts = sparse.csr_array(items, dtype=np.float64)
    tokens = np.asarray(counts.sum(axis=1)).ravel()
    counts, tokens = counts[tokens > 0], tokens[tokens > 0]
    if not len(tokens):
        raise ValueError("the target has no token")
    if counts.shape[1] != len(background):
        raise ValueError(f"vocabularies differ: {counts.shape[1]} and {len(background)}")
    expected = prior * (background + 0.5) / (background + 0.5).sum()
    values, moves = [], []
    for row in shards:
        nats = counts @ (np.log(row.sum() + prior) - np.log(row + expected))
        rate = nats.sum() / tokens.sum()
        values.append(-rate)
        moves.append((rate * tokens - nats) / tokens.mean())
    return np.array(values), _target_only(np.array(moves).reshape(len(values), len(tokens)))


def hidden_cosine(target: Floats, shards: Iterable[Floats]) -> Measured:
    """Return the cosine of mean hidden states, corrected for noise as the alignment is.

    Args:
        target: (m, width) mean last hidden state of each sub-batch.
        shards: (n, width) each.
    """
    found = align_all(target, shards, measure="cosine")
    return np.asarray(found.values), Influences(
        target=found.target_influence,
        shard=found.shard_influence,
        shard_batches=found.shard_batches,
    )


def perplexity(losses: Floats) -> Measured:
    """Return minus the probe's loss on each shard, nats/token: easy text first, target unseen."""
    return _certain(-np.asarray(losses, dtype=np.float64))


def length(tokens: Counts) -> Measured:
    """Return each shard's tokens: more is closer."""
    return _certain(np.asarray(tokens, dtype=np.float64))


def random(count: int, *, seed: int) -> Measured:
    """Return numbers drawn uniformly between 0 and 1: no order."""
    return _certain(np.random.default_rng(seed).random(count))


def compression(
    items: Sequence[str], shards: Iterable[Sequence[str]], *, level: int = 9
) -> Measured:
    """Return 1 - mean normalised compression distance over all (item, document) pairs.

    NCD(a, b) = (C(ab) - min(C(a), C(b))) / max(C(a), C(b)) with C the zlib length (Cilibrasi and
    Vitányi 2005; as ZIP-FIT). Intervals are over items and documents, not over the pairs, which
    depend on each other.

    Args:
        items: of the target, not empty.
        shards: documents of each shard, not empty.
        level: of zlib, 1 to 9.

    Raises:
        ValueError: no item, or a shard without a document.
    """
    left = [text.encode("utf-8", "surrogatepass") for text in items]
    left_bytes = np.array([len(zlib.compress(text, level)) for text in left])
    values, item_moves, document_moves = [], [], []
    for documents in shards:
        if not left or not documents:
            raise ValueError("compression needs at least one item and one document a shard")
        right = [text.encode("utf-8", "surrogatepass") for text in documents]
        right_bytes = np.array([len(zlib.compress(text, level)) for text in right])
        joint = np.array([[len(zlib.compress(a + b, level)) for b in right] for a in left])
        smaller = np.minimum(left_bytes[:, None], right_bytes)
        larger = np.maximum(left_bytes[:, None], right_bytes)
        table = 1 - (joint - smaller) / larger
        values.append(table.mean())
        item_moves.append(table.mean(axis=1) - table.mean())
        document_moves.append(table.mean(axis=0) - table.mean())
    return np.array(values), _influences(item_moves, document_moves)


def ngram_importance(
    items: Sequence[str], shards: Iterable[Sequence[str]], *, buckets: int = NGRAM_BUCKETS
) -> Measured:
    """Return the mean log importance of each shard's n-grams, nats/n-gram.

    Hashed words and pairs of words; importance is log p_target - log p_corpus of the bucket
    (Xie et al. 2023, DSIR), here a mean over the shard's n-grams and not a sum, so that long
    documents do not win by length. Intervals: groups of items and of documents left out in turn.

    Args:
        items: of the target, not empty.
        shards: documents of each shard; together they are the corpus.
        buckets: of the hash.

    Raises:
        ValueError: no item, or a shard without a document.
    """
    if not items:
        raise ValueError("n-gram importance needs at least one item")
    vectorizer = HashingVectorizer(
        n_features=buckets, ngram_range=(1, 2), token_pattern=WORD, norm=None, alternate_sign=False
    )
    target = _grouped(vectorizer, items).toarray()
    groups = [_grouped(vectorizer, documents) for documents in shards]
    corpus = sum((group.sum(axis=0) for group in groups), start=np.zeros(buckets))
    corpus = corpus + 1e-3 * max(float(corpus.sum()), 1.0) / buckets  # no bucket is impossible
    base = np.log(corpus / corpus.sum())
    subsets = [target.sum(axis=0)]
    subsets += [subsets[0] - row for row in target] if len(target) > 1 else []
    # A bucket that the target lacks counts as one n-gram spread as the corpus is.
    smoothed = [counts + corpus / corpus.sum() * _prior(counts) for counts in subsets]
    weights = np.stack([np.log(row / row.sum()) - base for row in smoothed])
    values, item_moves, document_moves = [], [], []
    for group in groups:
        sizes = np.maximum(np.asarray(group.sum(axis=1)).ravel(), 1e-9)
        sums = group @ weights.T  # (groups, 1 + target groups)
        means = sums.sum(axis=0) / sizes.sum()
        values.append(means[0])
        item_moves.append(influences(means[1:]))
        document_moves.append((sums[:, 0] - means[0] * sizes) / sizes.mean())
    return np.array(values), _influences(item_moves, document_moves)


def _prior(counts: Floats) -> float:
    """Return the n-grams' weight of the corpus in the target's distribution: a hundredth."""
    return max(0.01 * float(counts.sum()), 1.0)


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


def _certain(values: npt.NDArray[np.float64]) -> Measured:
    """Return values that no drawing of text stands behind: their intervals are points."""
    none = np.zeros((len(values), 1))
    return values, Influences(none, none, np.ones(len(values), dtype=np.int64))


def _target_only(moves: Floats) -> Influences:
    count = len(moves)
    return Influences(moves, np.zeros((count, 1)), np.ones(count, dtype=np.int64))


def _influences(targets: Sequence[Floats], shards: Sequence[Floats]) -> Influences:
    batches = np.array([max(len(row), 1) for row in shards], dtype=np.int64)
    padded = np.zeros((len(shards), int(batches.max(initial=1))))
    for row, moves in zip(padded, shards, strict=True):
        row[: len(moves)] = moves
    return Influences(np.array(targets).reshape(len(shards), -1), padded, batches)
