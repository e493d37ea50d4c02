"""The entropy of words of which a sample is known: rare ones are not in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.special import digamma, hyperu

from curate.ranking.alignment import influences

if TYPE_CHECKING:
    from curate.records import Counts, Floats

SUMMED = 64  # terms of a series; what is beyond them is 1e-6 of it off


def entropy(counts: Counts | Floats) -> float:
    """Return the entropy of the distribution that words were drawn from one by one, nats.

    Chao, Wang and Jost (2013): what the words seen say of it without bias, and the rest
    from how many of them were seen once and twice. The plain entropy of a few thousand tokens
    is 0.1 to 0.3 too low, because rare words are not among them.

    Args:
        counts: (vocab,), whole numbers ≥ 0, sum > 0.
    """
    seen = np.asarray(counts, dtype=np.float64)
    return float(_entropies(*(np.array([part(seen).sum()]) for part in _PARTS))[0])


def item_entropy(items: Any) -> tuple[float, Floats]:
    """Return the entropy of the words of text of which a few items are known, and influences.

    Words recur within an item. So a few items know fewer of them than as many independent
    tokens would, and `entropy` is too low. Leaving out each item in turn shows by how much
    (Zahl, 1977): n - 1 times the mean of what that takes away, were the bias to fall as 1 / n.
    An item takes away the more the longer it is, so each counts by the share of the text that
    stays without it: without a long one the rest is a small sample, which says little of the
    whole (Busing, Meijer and van der Leeden, 1999; of equal items it is the same).
    The bias falls slower where the vocabulary goes on growing. The share s of the words that
    are in one item only says how fast that grows, as n^s (Karlin, 1967), so 1 + s times as much
    is added, a generalised jackknife (Gray and Schucany, 1972). 1 / (1 - s) is what the bias of
    endless such growth would need; on real targets that is too much (docs/experiments.md).

    Args:
        items: (n, vocab) sparse rows of token counts, no row empty, n ≥ 1.

    Returns:
        Nats, and what each item moves the estimate by, (n,), as if all were of one length.
    """
    rows = sparse.csr_array(items, dtype=np.float64, copy=True)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    n, whole = rows.shape[0], np.asarray(rows.sum(axis=0)).ravel()
    if n == 1:
        return entropy(whole), np.zeros(1)
    owner = np.repeat(np.arange(n), np.diff(rows.indptr))
    before = whole[rows.indices]
    left = before - rows.data  # of a word of an item, without that item
    parts = []
    for part in _PARTS:
        change = np.bincount(owner, part(left) - part(before), minlength=n)
        parts.append(part(whole).sum() + np.append(change, 0.0))
    *leave_outs, found = _entropies(*parts)
    holders = np.bincount(rows.indices, minlength=len(whole))
    weight = 1.0 + (holders == 1).sum() / (holders > 0).sum()
    tokens = np.asarray(rows.sum(axis=1)).ravel()
    missed = (1 - tokens / tokens.sum()) @ (found - np.array(leave_outs))
    return float(found + weight * missed), weight * influences(np.array(leave_outs))


_PARTS: tuple[Callable[[Floats], Floats], ...] = (
    lambda seen: seen,
    lambda seen: seen * digamma(np.maximum(seen, 1.0)),
    lambda seen: (seen == 1).astype(np.float64),
    lambda seen: (seen == 2).astype(np.float64),
)
"""What `_entropies` sums over words: all it needs of their counts."""


def _entropies(total: Floats, logs: Floats, once: Floats, twice: Floats) -> Floats:
    """Return the entropy of Chao, Wang and Jost from the sums of `_PARTS`, (k,) each."""
    pairs = np.where(twice > 0, twice, 1.0)  # where none was seen twice, as if one had been
    singles = np.where(twice > 0, once, np.maximum(once - 1, 0.0))
    rate = 2 * pairs / ((total - 1) * singles + 2 * pairs)
    decay = -np.log1p(-np.minimum(rate, 1 - 1e-12))
    # The unseen: the sum over r ≥ total of (1 - rate)^(r - total + 1) / r. Summed where its terms
    # are steep; beyond `SUMMED` of them, the integral from half a term before.
    powers = np.exp(-decay[:, None] * np.arange(1, SUMMED + 1))
    unseen = (powers / (total[:, None] + np.arange(SUMMED))).sum(axis=1)
    rest = hyperu(1.0, 1.0, decay * (total + SUMMED - 0.5))
    unseen += np.exp(-decay * (SUMMED + 0.5)) * rest
    return np.asarray(digamma(total) - logs / total + np.where(rate < 1, once / total * unseen, 0))
