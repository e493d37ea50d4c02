"""A small language model of a shard or a mix: interpolated n-grams of words or tokens."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curate.ranking.alignment import influences
from curate.ranking.lexical import FILLED, fill_gaps
from curate.ranking.stats import Measured, gather_influences

if TYPE_CHECKING:
    from curate.records import Floats

WORD = r"\w+|[^\w\s]+"  # words, and runs of punctuation: NLTK's wordpunct, as DSIR
WORD_BUCKETS = 1 << 18  # of the language model: few words share one
GROUPS = 4  # of documents or items, left out one at a time
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: a product by it loses nothing

Words = npt.NDArray[np.uint64]
Number = Callable[[Sequence[str]], list[Words]]


def ngram_lm(
    items: Sequence[str],
    shards: Sequence[Sequence[str]],
    *,
    order: int = 2,
    filled: float = FILLED,
    number: Number | None = None,
    background: Floats | None = None,
) -> Measured:
    """Return minus the cross-entropy of the target's words under a language model of each shard.

    Absolute discounting, interpolated down to `order` 1 (Ney, Essen and Kneser, 1994): of every
    n-gram count D = n1 / (n1 + 2 n2) is taken and given to the next shorter context. The gaps
    of the unigrams are filled by the corpus as those of `lexical`; `order` 1 is `lexical` without
    its point of reference. Intervals: items, and groups of documents left out in turn.

    Args:
        items: of the target, not empty.
        shards: documents of each shard; together they are the corpus. One is looked at at a time.
        order: longest n-gram, >= 1. More than 2 forecast no loss better (docs/experiments.md).
        filled: share of a shard's words that the corpus makes up, above 0, at most 1.
        number: texts → the words of each as numbers below `WORD_BUCKETS`, such as the tokens of
            the probe; None hashes words, of which a target has some that no shard has.
        background: counts (n_numbers,) of the corpus; None counts the shards, in a pass before.

    Returns:
        Values in -nats/word, or /token.

    Raises:
        ValueError: no word in the target, or a shard without a document.
    """
    number = number or hash_words
    target = [words for words in number(items) if len(words)]
    if not target:
        raise ValueError("the target has no item with a word in it")
    lengths = np.array([len(words) for words in target], dtype=np.float64)
    wanted = _grams(target, order)
    counts = _count_all(shards, number) if background is None else background
    spread = ((counts + 0.5) / (counts + 0.5).sum())[wanted[0][1].astype(np.int64)]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    values, item_moves, document_moves = [], [], []
    for documents in shards:
        if not documents:
            raise ValueError("a shard without a document has no language model")
        parts = [_Counts.of(part, wanted, order) for part in _leave_outs(number(documents))]
        logs = np.stack([np.log(part.probability(spread, filled)) for part in parts])
        nats = np.add.reduceat(-logs, starts, axis=1)  # (1 + groups, items)
        rates = nats.sum(axis=1) / lengths.sum()
        values.append(-rates[0])
        item_moves.append((rates[0] * lengths - nats[0]) / lengths.mean())
        document_moves.append(influences(-rates[1:]))
    return np.array(values), gather_influences(item_moves, document_moves)


def ngram_cross_entropy(
    target: Sequence[npt.NDArray[Any]],
    documents: Sequence[npt.NDArray[Any]],
    *,
    vocab: int,
    order: int = 2,
    pseudo: float = 0.5,
) -> float:
    """Return the cross-entropy of a target's tokens under an n-gram model of some documents.

    The model is that of `ngram_lm`, but for the gaps of its unigrams: `pseudo` is added to every
    count (Lidstone), so that no text beside these documents has a part in it.

    Args:
        target: token ids of its texts, at least one token in all.
        documents: token ids of each.
        vocab: tokens that there are.
        order: longest n-gram, >= 1.
        pseudo: above 0.

    Returns:
        nats/token.

    Raises:
        ValueError: the target has no token, or a number is out of range.

    Example:
        >>> abab, ab = np.array([0, 1, 0, 1]), np.array([0, 1])
        >>> one, two = (ngram_cross_entropy([ab], [abab], vocab=2, order=n) for n in (1, 2))
        >>> round(one, 3), two < one
        (0.693, True)
    """
    texts = [np.asarray(ids, np.uint64) for ids in target if len(ids)]
    if not texts or vocab < 1 or order < 1 or pseudo <= 0:
        raise ValueError("a target with a token, vocab and order >= 1, pseudo above 0 are needed")
    wanted = _grams(texts, order)
    nothing = np.zeros(0, np.uint64)
    read = [nothing, *(np.asarray(ids, np.uint64) for ids in documents)]
    found = _Counts.of(read, wanted, order)
    spread = np.full(len(wanted[0][1]), 1.0 / vocab)
    filled = pseudo * vocab / (found.words + pseudo * vocab)
    return float(-np.log(found.probability(spread, filled)).mean())


def hash_words(texts: Sequence[str]) -> list[Words]:
    """Return the bucket of every word of each text."""
    pattern, seen = re.compile(WORD), dict[str, int]()
    result = []
    for text in texts:
        words = pattern.findall(text)
        for word in words:
            if word not in seen:
                data = word.encode("utf-8", "surrogatepass")
                seen[word] = zlib.crc32(data) % WORD_BUCKETS
        result.append(np.array([seen[word] for word in words], dtype=np.uint64))
    return result


def _count_all(shards: Iterable[Sequence[str]], number: Number) -> Floats:
    counts = np.zeros(WORD_BUCKETS)
    for documents in shards:
        words = np.concatenate([np.zeros(0, np.uint64), *number(documents)])
        counts += np.bincount(words.astype(np.int64), minlength=WORD_BUCKETS)
    return counts


class _Counts:
    """What a text says about the n-grams of the target: their counts, and their contexts'."""

    def __init__(self, words: float) -> None:
        self.words = words
        self.grams: list[Floats] = []  # of each order: count of every n-gram of the target
        self.contexts: list[Floats] = []  # of each order: count of its context
        self.kinds: list[Floats] = []  # of each order: different words seen after that context
        self.discounts: list[float] = []

    @classmethod
    def of(cls, texts: list[Words], wanted: list[tuple[Words, Words]], order: int) -> _Counts:
        found = cls(float(sum(len(text) for text in texts)))
        for (contexts, grams), (ask_context, ask_gram) in zip(
            _grams(texts, order), wanted, strict=True
        ):
            kinds, first, counts = np.unique(grams, return_index=True, return_counts=True)
            once, twice = (counts == 1).sum(), (counts == 2).sum()
            found.discounts.append(float(once / (once + 2 * twice)) if once else 0.5)
            found.grams.append(_look_up(ask_gram, kinds, counts))
            found.contexts.append(_look_up(ask_context, *np.unique(contexts, return_counts=True)))
            after = np.unique(contexts[first], return_counts=True)
            found.kinds.append(_look_up(ask_context, *after))
        return found

    def probability(self, spread: Floats, filled: float) -> Floats:
        """Return the probability of every word of the target after the words before it."""
        result = fill_gaps(self.grams[0], self.words, spread, filled)
        for k in range(1, len(self.grams)):
            context = np.maximum(self.contexts[k], 1)
            kept = np.maximum(self.grams[k] - self.discounts[k], 0) / context
            given = self.discounts[k] * self.kinds[k] / context
            result = np.where(self.contexts[k] > 0, kept + given * result, result)
        return np.asarray(result)


def _grams(texts: list[Words], order: int) -> list[tuple[Words, Words]]:
    """Return (context, n-gram) of every word for the orders 1 to `order`, hashed to 64 bits.

    A text begins with a word of its own kind, so that no n-gram runs from one into the next.
    """
    begin = np.full(order - 1, WORD_BUCKETS, dtype=np.uint64)
    padded = [np.concatenate([begin, text]) for text in texts]
    inside = [np.arange(len(row)) >= len(begin) for row in padded]
    joined, chosen = np.concatenate(padded), np.concatenate(inside)
    context, result = np.zeros(len(joined), dtype=np.uint64), []
    for k in range(order):
        grams = _hashed(context, joined)
        result.append((context[chosen], grams[chosen] if k else joined[chosen]))
        if k + 1 < order:
            context = _hashed(context, np.roll(joined, k + 1))
    return result


def _hashed(left: Words, right: Words) -> Words:
    mixed = (left ^ (left >> np.uint64(29))) * _MIX + right + np.uint64(1)
    return np.asarray((mixed ^ (mixed >> np.uint64(32))) * _MIX)


def _look_up(asked: Words, known: Words, counts: npt.NDArray[Any]) -> Floats:
    if not len(known):
        return np.zeros(len(asked))
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(known[place] == asked, counts[place], 0).astype(np.float64)


def _leave_outs(texts: list[Words]) -> list[list[Words]]:
    """Return all texts, then all but each of up to `GROUPS` groups of them."""
    groups = min(GROUPS, len(texts))
    if groups < 2:
        return [texts]
    return [texts, *([t for n, t in enumerate(texts) if n % groups != g] for g in range(groups))]
