"""Texts → topics: hashed word features, a reduced space, k-means, and names from the words.

scikit-learn takes a second to load: it is loaded when topics are fitted, not with the module.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

HEAD_CHARS = 4_000
"""Of a document, read for its topic."""

FEATURES = 1 << 15
DIMENSIONS = 32
STARTS = 10
MAX_TOPICS = 512
TERMS = 5  # words that name a topic, at most

_TOKENS = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")
_WORDS = re.compile(r"[^\W\d_]{3,24}")

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Topics:
    """A fitted clustering: what is needed to say the topic of a text."""

    rarity: npt.NDArray[np.float64]  # (FEATURES,) root of the inverse document frequency
    directions: npt.NDArray[np.float64]  # (FEATURES, dimensions)
    centres: npt.NDArray[np.float64]  # (n_topics, dimensions)


def choose_count(n_chars: int, *, shard_tokens: int) -> int:
    """Return how many topics a pool is worth: one for about two shards of four-letter tokens.

    Example:
        >>> choose_count(96_000_000, shard_tokens=1_000_000)
        12
    """
    return int(np.clip(round(n_chars / 4 / (2 * shard_tokens)), 2, MAX_TOPICS))


def fit_topics(texts: Sequence[str], *, count: int, seed: int) -> Topics:
    """Fit topics to a sample of texts.

    Words, digits and signs, alone and in pairs, are hashed (1 + log count, times the root of the
    inverse document frequency), reduced to 32 dimensions (latent semantic analysis: Deerwester
    et al. 1990) and clustered by k-means on the sphere, the best of ten starts. A text counts as
    its length does, so that many short texts do not take the topics from few long ones.

    Args:
        texts: at least one; their first 4,000 characters are read.
        count: topics, >= 1; never more than there are texts.
        seed: of the reduction and the starts.

    Raises:
        ValueError: no text, or no topic wanted.
    """
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import normalize
    from sklearn.utils.extmath import randomized_svd

    if not texts or count < 1:
        raise ValueError(f"{len(texts)} texts and {count} topics: both must be positive")
    counts = _hashed(texts)
    frequency = (1 + np.bincount(counts.indices, minlength=FEATURES)) / (1 + len(texts))
    rarity = np.sqrt(1 - np.log(frequency))
    weighted = normalize(counts.multiply(rarity).tocsr())
    dimensions = max(1, min(DIMENSIONS, len(texts) - 1))
    lengths = np.array([max(1, len(text[:HEAD_CHARS])) for text in texts], dtype=np.float64)
    scaled = weighted.multiply(np.sqrt(lengths / lengths.mean())[:, None]).tocsr()
    directions = randomized_svd(scaled, dimensions, n_iter=4, random_state=seed)[2].T
    points = normalize(weighted @ directions)
    distinct = len(np.unique(points.round(9), axis=0))
    means = KMeans(min(count, distinct), n_init=STARTS, random_state=seed)
    means.fit(points, sample_weight=lengths)
    return Topics(rarity=rarity, directions=directions, centres=means.cluster_centers_)


def place_texts(texts: Sequence[str], topics: Topics) -> tuple[Labels, npt.NDArray[np.float64]]:
    """Return each text's topic and its squared distance to that topic's centre.

    A text's answer does not depend on the others in the call.

    Returns:
        Labels (n,) from 0, distances (n,) >= 0.
    """
    from sklearn.preprocessing import normalize

    weighted = normalize(_hashed(texts).multiply(topics.rarity).tocsr())
    points = normalize(weighted @ topics.directions)
    gaps = (
        (points**2).sum(axis=1)[:, None]
        - 2 * points @ topics.centres.T
        + (topics.centres**2).sum(axis=1)[None]
    )
    labels = gaps.argmin(axis=1)
    return labels, np.maximum(gaps[np.arange(len(labels)), labels], 0.0)


def name_topics(texts: Sequence[str], labels: Labels, *, count: int) -> list[tuple[str, ...]]:
    """Return the words that set each topic apart, most telling first.

    A word's weight in a topic is p·log(p / q): p of the topic's texts hold it, q of all
    texts do (pointwise Kullback-Leibler divergence), so that it must be both common inside
    and rare outside.

    Args:
        texts: a sample.
        labels: (n,) topic of each.
        count: topics.

    Returns:
        `count` tuples; empty where a topic has no text or no word.
    """
    inside: list[Counter[str]] = [Counter() for _ in range(count)]
    sizes = np.bincount(labels, minlength=count)
    for text, label in zip(texts, labels.tolist(), strict=True):
        inside[label].update(set(_WORDS.findall(text[:HEAD_CHARS].lower())))
    overall: Counter[str] = Counter()
    for words in inside:
        overall.update(words)
    names = []
    for words, size in zip(inside, sizes.tolist(), strict=True):
        weight = {
            word: number / size * np.log((number / size) / (overall[word] / len(texts)))
            for word, number in words.items()
            if number > size / 10
        }
        best = sorted(weight, key=lambda word: (-weight[word], word))[:TERMS]
        names.append(tuple(word for word in best if weight[word] > 0))
    return names


def _hashed(texts: Sequence[str]) -> Any:
    """Return sparse counts (n, FEATURES), damped by the logarithm."""
    from sklearn.feature_extraction.text import HashingVectorizer

    counter = HashingVectorizer(
        n_features=FEATURES,
        alternate_sign=False,
        norm=None,
        lowercase=False,
        tokenizer=_TOKENS.findall,
        token_pattern=None,
        ngram_range=(1, 2),
    )
    counts = counter.transform([text[:HEAD_CHARS] for text in texts])
    counts.data = 1 + np.log(counts.data)
    return counts
