"""Yardstick: a linear classifier that tells the target's text from the corpus's."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from curate.ranking.alignment import influences
from curate.ranking.ngrams import GROUPS, WORD
from curate.ranking.stats import Measured, gather_influences

if TYPE_CHECKING:
    from curate.records import Counts, Floats

FEATURES = 1 << 18
PIECES = 200  # of a shard, at most
TRAINED_ON = 20_000  # pieces of all shards together, at most


def classifier(items: Sequence[str], shards: Iterable[Sequence[str]], *, seed: int = 0) -> Measured:
    """Return the mean log odds that a shard's text is the target's.

    A logistic regression on hashed words and pairs of words, trained on the target's items
    against the corpus, the two classes of equal weight (as the quality filters of Brown et al.
    2020, appendix A). Documents are cut to pieces of the items' median length, so that length
    tells nothing. It is trained four times on three quarters of both, and a piece is judged by
    the one that has not seen it. Intervals: the quarters of pieces, and of items.

    Args:
        items: of the target, at least two.
        shards: documents of each shard; together they are the other class.
        seed: of the quarters, and of what is left out where there is too much.

    Raises:
        ValueError: fewer than two items, or a shard without a word.
    """
    from sklearn.feature_extraction.text import HashingVectorizer  # a second to load

    if len(items) < 2:
        raise ValueError("a classifier needs at least two items")
    pattern, generator = re.compile(WORD), np.random.default_rng(seed)
    width = max(int(np.median([len(pattern.findall(item)) for item in items])), 8)
    positive = _pieces(items, width)
    vectorizer = HashingVectorizer(
        n_features=FEATURES, ngram_range=(1, 2), token_pattern=WORD, alternate_sign=False
    )
    rows, sizes = [], []
    for documents in shards:
        pieces = _pieces(documents, width)
        if not pieces:
            raise ValueError("a shard without a word cannot be classified")
        chosen = np.sort(generator.permutation(len(pieces))[:PIECES])
        rows.append(vectorizer.transform([pieces[n] for n in chosen]))
        sizes.append(len(chosen))
    negative = sparse.csr_array(sparse.vstack(rows))
    positive_folds = generator.permutation(len(positive)) % GROUPS
    folds = np.concatenate([generator.permutation(size) % GROUPS for size in sizes])
    odds = _log_odds(
        sparse.csr_array(vectorizer.transform(positive)),
        negative,
        folds=(positive_folds, folds),
        generator=generator,
    )
    return _gather(odds, folds, sizes)


def _gather(odds: Floats, folds: Counts, sizes: Sequence[int]) -> Measured:
    """Return the mean of every shard, each piece judged by the model that has not seen it."""
    values, item_moves, piece_moves = [], [], []
    for stop, size in zip(np.cumsum(sizes), sizes, strict=True):
        mine, fold = odds[stop - size : stop], folds[stop - size : stop]
        unseen = mine[np.arange(size), fold]
        values.append(unseen.mean())
        item_moves.append(influences(mine.mean(axis=0)))
        parts = [unseen[fold == g].mean() for g in range(GROUPS) if (fold == g).any()]
        piece_moves.append(np.array(parts) - np.mean(parts))
    return np.array(values), gather_influences(item_moves, piece_moves)


def _log_odds(
    positive: Any,
    negative: Any,
    *,
    folds: tuple[Counts, Counts],
    generator: np.random.Generator,
) -> Floats:
    """Return what the models without each fold say of every negative row, (rows, GROUPS)."""
    from sklearn.linear_model import LogisticRegression

    result = np.zeros((negative.shape[0], GROUPS))
    for fold in range(GROUPS):
        mine = np.flatnonzero(folds[0] != fold)
        unseen = np.flatnonzero(folds[1] != fold)
        others = unseen if len(unseen) else np.arange(len(folds[1]))  # one piece in all
        others = np.sort(generator.permutation(others)[:TRAINED_ON])
        model = LogisticRegression(C=10.0, class_weight="balanced", solver="liblinear")
        model.fit(
            sparse.csr_matrix(sparse.vstack([positive[mine], negative[others]])),
            np.repeat([1, 0], [len(mine), len(others)]),
        )
        result[:, fold] = model.decision_function(sparse.csr_matrix(negative))
    return result


def _pieces(texts: Sequence[str], width: int) -> list[str]:
    """Cut texts to pieces of `width` words; a rest of less than half of that is left off."""
    pattern, result = re.compile(WORD), []
    for text in texts:
        ends = [match.end() for match in pattern.finditer(text)]
        cuts = [0, *(end for end in ends[width - 1 :: width])]
        if len(ends) % width >= width / 2 or len(cuts) == 1:
            cuts.append(len(text))
        result += [text[a:b] for a, b in itertools.pairwise(cuts) if ends and a < b]
    return result
