"""Alignment by token pairs: how well does a small language model of a shard predict the target?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from curate.corpus.pairs import Pairs, count_pairs, pair_keys
from curate.corpus.tokens import count_unigrams
from curate.ranking.lexical import DEALS, FILLED, fill_gaps, item_influences, shares_of
from curate.ranking.stats import Influences, Measured

if TYPE_CHECKING:
    from curate.records import Counts, Floats

STRENGTH = 100.0  # tokens that a shard's words weigh among those that follow a token


@dataclass(frozen=True, slots=True)
class ItemPairs:
    """The different token pairs of a target, rising by `pair_keys`, and which item has which."""

    items: Any  # (n_items, n) sparse: how often each pair is in each item, or group of items
    before: npt.NDArray[np.int64]  # (n,) the vocabulary's size where a pair begins an item
    after: npt.NDArray[np.int64]  # (n,)
    vocab: int

    @property
    def words(self) -> Any:
        """The token counts of the items, (n_items, vocab) sparse."""
        n = len(self.after)
        ones = sparse.csr_array((np.ones(n), (np.arange(n), self.after)), shape=(n, self.vocab))
        return sparse.csr_array(self.items @ ones)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a text says about the pairs of a target. Texts add up, with any weights."""

    pairs: Floats  # (n,) how often it has each pair
    before: Floats  # (n,) how often anything follows its first token
    after: Floats  # (n,) how often it has its second token
    tokens: float  # of the whole text

    def plus(self, other: Seen, *, weight: float = 1.0) -> Seen:
        """Return what this text and `weight` times another say together."""
        return Seen(
            self.pairs + weight * other.pairs,
            self.before + weight * other.before,
            self.after + weight * other.after,
            self.tokens + weight * other.tokens,
        )


def count_item_pairs(items: Sequence[Counts], *, vocab: int) -> ItemPairs:
    """Return the pairs of the items that hold a token.

    Args:
        items: (n_i,) token ids of each.
        vocab: tokens that there are.

    Raises:
        ValueError: no item holds a token.
    """
    keys = [pair_keys(ids, vocab) for ids in items if len(ids)]
    if not keys:
        raise ValueError("the target has no token")
    kinds, columns = np.unique(np.concatenate(keys), return_inverse=True)
    rows = np.repeat(np.arange(len(keys)), [len(row) for row in keys])
    counts = sparse.csr_array(
        (np.ones(len(rows)), (rows, columns)), shape=(len(keys), len(kinds)), dtype=np.float64
    )
    before, after = np.divmod(kinds, vocab + 1)
    return ItemPairs(counts, before, after, vocab)


def look_up(target: ItemPairs, pairs: Pairs, unigrams: Counts | Floats) -> Seen:
    """Return what a text says about a target's pairs.

    Args:
        target: its pairs.
        pairs: of the text.
        unigrams: (vocab,) of the text.
    """
    wanted = target.before * (target.vocab + 1) + target.after
    keys, found = pairs.keys(target.vocab), np.zeros(len(wanted))
    if len(keys):
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = np.where(keys[place] == wanted, pairs.counts[place], 0).astype(np.float64)
    followed = pairs.followed(target.vocab)[target.before].astype(np.float64)
    words = np.asarray(unigrams, np.float64)
    return Seen(found, followed, words[target.after], float(words.sum()))


def pair_probabilities(
    seen: Seen, corpus: Floats, *, filled: float = FILLED, strength: float = STRENGTH
) -> npt.NDArray[np.float64]:
    """Return the probability of each pair's second token after its first, in a text.

    (count of the pair + strength · share of the second token) / (count of the first + strength):
    the mean of a Dirichlet distribution about the text's words (MacKay and Peto, 1995), whose own
    gaps the corpus fills as those of `lexical`. Infinite `strength` leaves the words alone.

    Args:
        seen: of the text, (n,).
        corpus: (n,) share of each second token in the corpus.
        filled: as for `lexical`.
        strength: above 0.
    """
    words = fill_gaps(seen.after, seen.tokens, corpus, filled)
    if np.isinf(strength):
        return words
    return np.asarray((seen.pairs + strength * words) / (seen.before + strength))


def ngram_lm(
    target: ItemPairs,
    shards: Iterable[Seen],
    *,
    background: Floats,
    filled: float = FILLED,
    strength: float = STRENGTH,
) -> Measured:
    """Return minus the cross-entropy of the target under a bigram model of each shard.

    Influences are of the target's items; the shard's own counts are complete, not drawn.

    Args:
        target: its pairs by item.
        shards: what each says about them (`look_up`), one at a time.
        background: (vocab,) counts of the whole corpus; half a token is added to each.
        filled: as for `lexical`.
        strength: as for `pair_probabilities`.

    Returns:
        Values in -nats/token (`anchored` makes alignments of them).
    """
    corpus = shares_of(background)[target.after]
    tokens = np.asarray(target.items.sum(axis=1)).ravel()
    values, moves = [], []
    for seen in shards:
        given = pair_probabilities(seen, corpus, filled=filled, strength=strength)
        nats = -(target.items @ np.log(given))
        rate = nats.sum() / tokens.sum()
        values.append(-rate)
        moves.append((rate * tokens - nats) / tokens.mean())
    return np.array(values), item_influences(np.array(moves).reshape(len(values), len(tokens)))


def anchored(pairs: Measured, words: Measured, *, first: int, over: float = 0.0) -> Measured:
    """Put values of `ngram_lm` on the scale of `lexical`, by the shard that is ranked first.

    How little a token of the target could cost, words and order known, is hardly to be told
    from a few items; what its words alone could is (`item_entropy`). So the first shard stands
    where its words put it, and every other one as far below as its pairs cost a token more.

    Args:
        pairs: of K shards, -nats/token.
        words: `lexical` of the first of them alone.
        first: its place among the K.
        over: nats/token that are off all of them, >= 0: what some text would be above 1 by.

    Returns:
        (K,) logarithms of alignments, none above the first's.
    """
    values, moves = pairs
    level, level_moves = words
    common = level_moves.target[0] - moves.target[first]
    logs = values - values[first] + level[0] - over
    return logs, Influences(moves.target + common, moves.shard, moves.shard_batches)


def own_pair_halves(
    target: ItemPairs, *, background: Floats, filled: float = FILLED, seed: int = 0
) -> float:
    """Return minus the cross-entropy of one half of the target's items under the other.

    Args:
        target: its pairs by item; dealt into halves `DEALS` times.
        background: as for `ngram_lm`.
        filled: as for `lexical`.
        seed: of the deals.

    Returns:
        -nats/token, mean over deals and directions; NaN with one item.
    """
    n = target.items.shape[0]
    if n < 2:
        return float("nan")
    generator, corpus = np.random.default_rng(seed), shares_of(background)[target.after]
    whole, found = np.asarray(target.items.sum(axis=0)).ravel(), []
    for _ in range(DEALS):
        chosen = generator.permutation(n)[: n // 2]
        half = np.asarray(target.items[chosen].sum(axis=0)).ravel()
        for one, other in ((half, whole - half), (whole - half, half)):
            given = pair_probabilities(_as_text(target, other), corpus, filled=filled)
            found.append(float(one @ np.log(given)) / float(one.sum()))
    return float(np.mean(found))


def pair_cross_entropy(
    target: Sequence[Counts],
    documents: Sequence[Counts],
    *,
    vocab: int,
    pseudo: float = 0.5,
    strength: float = STRENGTH,
) -> float:
    """Return the cross-entropy of a target's tokens under the token pairs of some documents.

    The model is that of `ngram_lm`, but for the gaps of its words: `pseudo` is added to every
    count (Lidstone), so that no text beside these documents has a part in it.

    Args:
        target: token ids of its texts, at least one token in all.
        documents: token ids of each.
        vocab: tokens that there are.
        pseudo: above 0.
        strength: as for `pair_probabilities`; without end, single tokens are left.

    Returns:
        nats/token.

    Raises:
        ValueError: the target has no token, or a number is out of range.

    Example:
        >>> abab, ab = np.array([0, 1, 0, 1]), np.array([0, 1])
        >>> one, two = (
        ...     pair_cross_entropy([ab], [abab] * 99, vocab=2, strength=m) for m in (np.inf, 1.0)
        ... )
        >>> round(one, 3), two < one
        (0.693, True)
    """
    if vocab < 1 or pseudo <= 0 or strength <= 0:
        raise ValueError("vocab of 1 or more, pseudo and strength above 0 are needed")
    wanted = count_item_pairs(target, vocab=vocab)
    counts = count_unigrams(documents, vocab)
    seen = look_up(wanted, count_pairs(documents, vocab), counts)
    filled = pseudo * vocab / (seen.tokens + pseudo * vocab)
    even = np.full(len(wanted.after), 1.0 / vocab)
    given = pair_probabilities(seen, even, filled=filled, strength=strength)
    whole = np.asarray(wanted.items.sum(axis=0)).ravel()
    return float(-(whole @ np.log(given)) / whole.sum())


def _as_text(target: ItemPairs, counts: Floats) -> Seen:
    """Return what some of a target's own pairs say about all of them."""
    width = target.vocab + 1
    before, after = (
        np.bincount(ids, counts, minlength=width).astype(np.float64)[ids]
        for ids in (target.before, target.after)
    )
    return Seen(counts, before, after, float(counts.sum()))
