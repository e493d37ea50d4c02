"""Alignment by word counts: how well does a shard's vocabulary predict the target's?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from curate.ranking.entropy import item_entropy
from curate.ranking.stats import Influences, Measured

if TYPE_CHECKING:
    from curate.records import Counts, Floats

Encode = Callable[[list[str]], Sequence[Any]]

FILLED = 0.001  # share of a shard's distribution that the corpus's makes up
DEALS = 8  # of the target's items into halves


def count_items(texts: Sequence[str], encode: Encode, *, vocab: int) -> sparse.csr_array:
    """Return token counts (n, vocab) of the items that hold a token, n ≥ 1.

    Raises:
        ValueError: no item holds a token.
    """
    found = [ids for ids in encode(list(texts)) if len(ids)]
    if not found:
        raise ValueError("the target has no token")
    rows = np.repeat(np.arange(len(found)), [len(ids) for ids in found])
    ones = np.ones(len(rows))
    shape = (len(found), vocab)
    return sparse.csr_array((ones, (rows, np.concatenate(found))), shape=shape, dtype=np.float64)


def lexical(
    items: Any,
    shards: Iterable[Counts | Floats],
    *,
    background: Floats,
    filled: float = FILLED,
) -> Measured:
    """Return the logarithm of each shard's lexical alignment with the target, and its influences.

    The entropy of the target's tokens minus their cross-entropy under the shard's unigrams,
    whose gaps the corpus fills (Jelinek-Mercer smoothing: Zhai and Lafferty, 2004): (1 - filled)
    · count / tokens + filled · background. (A Dirichlet prior of so many tokens would make a
    small shard look like the corpus, which is closer to most targets than most shards are.) Its
    exponential is the alignment: the factor by which
    the shard's words give a token of the target less probability, in the geometric mean, than
    words of the target's own kind would, were there text of it without end. 1 is the best there
    could be. It is asymmetric, as transfer is: what the target needs has to be in the shard,
    and not the reverse.

    Influences are of the target's items, on the cross-entropy and on the entropy, which moves
    all shards alike; the shard's own counts are complete, not drawn.

    Args:
        items: (n_items, vocab) token counts of the target's items, dense or sparse.
        shards: (vocab,) counts, one a shard; any floats ≥ 0 will do.
        background: (vocab,) counts of the whole corpus; half a token is added to each.
        filled: above 0, at most 1.

    Returns:
        Values in nats/token, 0 is the best there could be (chance may lift one above it:
        `excess`).

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
    whole = np.asarray(counts.sum(axis=0)).ravel()
    columns = np.flatnonzero(whole)
    counts, whole = counts[:, columns], whole[columns]
    (known, common), corpus = item_entropy(counts), shares_of(background)[columns]
    values, moves = [], []
    for row in shards:
        nats = -(counts @ np.log(fill_gaps(row[columns], row.sum(), corpus, filled)))
        rate = nats.sum() / tokens.sum()
        values.append(known - rate)
        moves.append(common + (rate * tokens - nats) / tokens.mean())
    return np.array(values), item_influences(np.array(moves).reshape(len(values), len(tokens)))


def excess(values: Floats) -> float:
    """Return what is to be taken off values of one target so that none is above 0, nats/token.

    A cross-entropy is never below the entropy, so the lowest one of any shard bounds it from
    above. An entropy that was estimated higher, from a few items, is wrong by so much at least,
    for all shards alike: taken off all of them, their differences stay.
    """
    return max(float(np.max(values, initial=0.0)), 0.0)


def lexical_values(
    target: Counts | Floats,
    rows: Any,
    tokens: Counts,
    *,
    background: Floats,
    filled: float = FILLED,
) -> npt.NDArray[np.float64]:
    """Return the values of `lexical` for very many shards at once, less the target's entropy.

    It is common to all shards: their order is the same.

    Args:
        target: (vocab,) token counts, sum > 0.
        rows: (n, vocab) sparse rows of token counts, one a shard.
        tokens: (n,) of each shard.
        background: as for `lexical`.
        filled: as for `lexical`.

    Returns:
        (n,) -nats/token.
    """
    wanted, corpus = target / target.sum(), shares_of(background)
    rows = sparse.csr_array(rows, dtype=np.float64, copy=True)
    per_token = np.repeat(1.0 / np.maximum(tokens, 1), np.diff(rows.indptr))
    rows.data = np.log1p((1 - filled) / filled * rows.data * per_token / corpus[rows.indices])
    base = float(wanted @ np.log(corpus))
    return base + np.where(np.asarray(tokens) > 0, np.log(filled), 0.0) + rows @ wanted


def pool_items(items: Any, *, most: int, seed: int) -> Any:
    """Return the token counts of at most `most` groups of items, dealt at random: (n, vocab).

    Args:
        items: (n_items, vocab) sparse.
        most: groups; so many are enough for an interval, and each costs a number a shard.
        seed: of the deal.
    """
    if items.shape[0] <= most:
        return items
    order = np.random.default_rng(seed).permutation(items.shape[0])
    groups = sparse.csr_array(
        (np.ones(len(order)), (np.arange(len(order)) % most, order)), shape=(most, len(order))
    )
    return sparse.csr_array(groups @ items)


def own_halves(items: Any, *, background: Floats, filled: float = FILLED, seed: int = 0) -> float:
    """Return the logarithm of the alignment of one half of the target's items with the other.

    What a shard of the target's own kind reaches that holds no more text than half the target.

    Args:
        items: as for `lexical`; dealt into halves `DEALS` times.
        background: as for `lexical`.
        filled: as for `lexical`.
        seed: of the deals.

    Returns:
        Mean over deals and directions; NaN with one item.
    """
    counts = sparse.csr_array(items, dtype=np.float64)
    if counts.shape[0] < 2:
        return float("nan")
    whole, generator = np.asarray(counts.sum(axis=0)).ravel(), np.random.default_rng(seed)
    corpus, (known, _) = shares_of(background), item_entropy(counts)
    found = []
    for _ in range(DEALS):
        chosen = generator.permutation(counts.shape[0])[: counts.shape[0] // 2]
        half = np.asarray(counts[chosen].sum(axis=0)).ravel()
        for one, other in ((half, whole - half), (whole - half, half)):
            words = np.log(fill_gaps(other, other.sum(), corpus, filled))
            found.append(known + float(one @ words) / float(one.sum()))
    return float(np.mean(found))


def shares_of(background: Floats) -> npt.NDArray[np.float64]:
    """Return the corpus's distribution over words, none of them 0: (vocab,), sum 1."""
    counts = np.asarray(background, dtype=np.float64) + 0.5
    return counts / counts.sum()


def fill_gaps(
    counts: Counts | Floats, tokens: float, corpus: Floats, filled: float = FILLED
) -> npt.NDArray[np.float64]:
    """Return the smoothed shares of some words of a shard.

    Args:
        counts: of these words in the shard.
        tokens: of the whole shard; where it has none, it is the corpus.
        corpus: shares of these words in the corpus.
        filled: as for `lexical`.
    """
    weight = filled if tokens > 0 else 1.0
    return np.asarray((1 - weight) * counts / max(float(tokens), 1.0) + weight * corpus)


def lexical_cross_entropy(
    target: Counts, mixture: Floats, *, tokens: float = 1e6, pseudo: float = 0.5
) -> float:
    """Return the cross-entropy of the target's tokens under a mixture's unigrams.

    The mixture is smoothed as `tokens` counts drawn from it would be with `pseudo` added
    to every word (Lidstone), so that a word that it lacks costs a finite amount.

    Args:
        target: (vocab,) counts, sum > 0.
        mixture: (vocab,), sum 1.
        tokens: size of the mix; more tokens need less smoothing.
        pseudo: count added to every word, > 0.

    Returns:
        nats/token.

    Raises:
        ValueError: shapes differ, the target is empty, or a number is not above 0.
    """
    target, mixture = np.asarray(target, np.float64), np.asarray(mixture, np.float64)
    if target.shape != mixture.shape or target.sum() <= 0 or tokens <= 0 or pseudo <= 0:
        raise ValueError("target and mixture must have one shape, tokens and pseudo be above 0")
    smoothed = (mixture * tokens + pseudo) / (tokens + pseudo * len(mixture))
    return float(-(target @ np.log(smoothed)) / target.sum())


def word_losses(
    target: Floats, shard: Floats, *, background: Floats, filled: float = FILLED
) -> npt.NDArray[np.float64]:
    """Return what each word takes away from a shard's lexical alignment, nats/token (vocab,).

    Share of the target × log(share of the target / smoothed share of the shard). They sum to
    the relative entropy of the target's words over the shard's. Below 0: the shard has more of
    the word than the target needs.

    Args:
        target: (vocab,) counts, sum > 0.
        shard: (vocab,) counts.
        background: as for `lexical`.
        filled: as for `lexical`.
    """
    wanted = target / target.sum()
    given = fill_gaps(shard, shard.sum(), shares_of(background), filled)
    logs = np.log(np.where(wanted > 0, wanted, 1.0)) - np.log(given)
    return np.asarray(np.where(wanted > 0, wanted * logs, 0.0))


def item_influences(moves: Floats) -> Influences:
    """Return the influences of values whose only noise is the choice of the target's items."""
    return Influences(moves, np.zeros((len(moves), 1)), np.ones(len(moves), dtype=np.int64))
