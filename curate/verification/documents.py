"""Documents drawn and cut, so that every arm has equally many tokens."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np

from curate.verification.blocks import IntArray


def draw_texts(documents: Iterable[tuple[str, int]], *, tokens: int, seed: int) -> list[str]:
    """Draw documents uniformly until they hold `tokens`, in one pass and bounded memory.

    Args:
        documents: text and number of tokens.
        tokens: to reach; fewer are returned if there are fewer.
        seed: of the draw, and of the order of what is returned.
    """
    rng = np.random.default_rng(seed)
    kept: list[tuple[float, int, int, str]] = []  # a heap, the highest key first
    total = 0
    for number, (text, n_tokens) in enumerate(documents):
        heapq.heappush(kept, (-float(rng.random()), number, n_tokens, text))
        total += n_tokens
        while kept and total - kept[0][2] >= tokens:
            total -= heapq.heappop(kept)[2]
    return [text for _, _, _, text in sorted(kept, reverse=True)]


def cut_documents(documents: Iterable[IntArray], *, tokens: int) -> list[IntArray]:
    """Keep documents, in order, up to exactly `tokens` tokens; the last one is cut."""
    kept: list[IntArray] = []
    for document in documents:
        if tokens <= 0:
            break
        if len(document):
            kept.append(document[:tokens])
            tokens -= len(kept[-1])
    return kept
