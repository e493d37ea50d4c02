"""Yardstick: a linear classifier that tells the target's text from the corpus's."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from curate.ranking.alignment import influences
from curate.ranking.importance import GROUPS, WORD
from curate.ranking.stats import Flags, Measured, gather_influences

if TYPE_CHECKING:
    from curate.records import Counts

FEATURES = 1 << 18
PIECES = 200  # of a shard, at most
TRAINED_ON = 20_000  # pieces of all shards together, at most


def classifier(items: Sequence[str], shards: Sequence[Sequence[str]], *, seed: int = 0) -> Measured:
    """Return the mean log odds that a shard's text is the target's.

    A logistic regression on hashed words and pairs of words, trained on the target's items
    against the corpus, the two classes of equal weight (as the quality filters of Brown et al.
    2020, appendix A). Documents are cut to pieces of the items' median length, so that length
    tells nothing. It is trained four times on three quarters of both, and a piece is judged by
    the one that has not seen it. Intervals: the quarters of pieces, and of items.

    Args:
        items: of the target, at least two.
        shards: documents of each shard; together they are the other class. One is looked at at a
            time, and each six times: what is trained on is known when all pieces are counted.
        seed: of the quarters, and of what is left out where there is too much.

    Raises:
        ValueError: fewer than two items, or a shard without a word.
    """
    from sklearn.feature_extraction.text import HashingVectorizer  # a second to load

    if len(items) < 2:
        raise ValueError("a classifier needs at least two items")
    pattern, generator = re.compile(WORD), np.random.default_rng(seed)
    width = max(int(np.median([len(pattern.findall(item)) for item in items])), 8)
    positive = [items[n][a:b] for n, a, b in _cut(items, width)]
    vectorizer = HashingVectorizer(
        n_features=FEATURES, ngram_range=(1, 2), token_pattern=WORD, alternate_sign=False
    )
    chosen = [_choose(documents, width, generator) for documents in shards]

    def read(wanted: Flags | None = None) -> Iterator[Any]:
        """Yield the features of each shard's chosen pieces, or of those that are wanted."""
        stop = 0
        for documents, mine in zip(shards, chosen, strict=True):
            stop += len(mine)
            some = mine if wanted is None else mine[wanted[stop - len(mine) : stop]]
            if len(some):
                yield vectorizer.transform([documents[n][a:b] for n, a, b in some.tolist()])

    positive_folds = generator.permutation(len(positive)) % GROUPS
    folds = [(generator.permutation(len(mine)) % GROUPS).astype(np.int8) for mine in chosen]
    models = _train(
        sparse.csr_array(vectorizer.transform(positive)),
        read,
        folds=(positive_folds, np.concatenate(folds)),
        generator=generator,
    )
    return _judge(read(), models, folds)


def _choose(
    documents: Sequence[str], width: int, generator: np.random.Generator
) -> npt.NDArray[np.int32]:
    """Return where the pieces of a shard lie that are read."""
    pieces = _cut(documents, width)
    if not pieces:
        raise ValueError("a shard without a word cannot be classified")
    kept = np.sort(generator.permutation(len(pieces))[:PIECES])
    return np.array([pieces[n] for n in kept], dtype=np.int32)


def _train(
    positive: Any,
    read: Callable[[Flags], Iterable[Any]],
    *,
    folds: tuple[Counts, npt.NDArray[np.int8]],
    generator: np.random.Generator,
) -> list[Any]:
    """Return the models without each fold; `read` gives the rows of the other class."""
    from sklearn.linear_model import LogisticRegression

    models = []
    for fold in range(GROUPS):
        mine = np.flatnonzero(folds[0] != fold)
        unseen = np.flatnonzero(folds[1] != fold)
        others = unseen if len(unseen) else np.arange(len(folds[1]))  # one piece in all
        wanted = np.zeros(len(folds[1]), dtype=bool)
        wanted[generator.permutation(others)[:TRAINED_ON]] = True
        model = LogisticRegression(C=10.0, class_weight="balanced", solver="liblinear")
        model.fit(
            sparse.csr_matrix(sparse.vstack([positive[mine], *read(wanted)])),
            np.repeat([1, 0], [len(mine), int(wanted.sum())]),
        )
        models.append(model)
    return models


def _judge(rows: Iterable[Any], models: Sequence[Any], folds: Sequence[Any]) -> Measured:
    """Return the mean of every shard, each piece judged by the model that has not seen it."""
    values, item_moves, piece_moves = [], [], []
    for mine, fold in zip(rows, folds, strict=True):
        odds = np.stack([model.decision_function(mine) for model in models], axis=1)
        unseen = odds[np.arange(len(fold)), fold]
        values.append(unseen.mean())
        item_moves.append(influences(odds.mean(axis=0)))
        parts = [unseen[fold == g].mean() for g in range(GROUPS) if (fold == g).any()]
        piece_moves.append(np.array(parts) - np.mean(parts))
    return np.array(values), gather_influences(item_moves, piece_moves)


def _cut(texts: Sequence[str], width: int) -> list[tuple[int, int, int]]:
    """Cut texts to pieces of `width` words; a rest of less than half of that is left off.

    Returns:
        Of each piece the number of its text, its first character, and the one after its last.
    """
    pattern, result = re.compile(WORD), []
    for number, text in enumerate(texts):
        ends = [match.end() for match in pattern.finditer(text)]
        cuts = [0, *(end for end in ends[width - 1 :: width])]
        if len(ends) % width >= width / 2 or len(cuts) == 1:
            cuts.append(len(text))
        result += [(number, a, b) for a, b in itertools.pairwise(cuts) if ends and a < b]
    return result
