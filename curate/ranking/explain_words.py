"""Why a lexical alignment is what it is: words, documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from curate.corpus.pairs import count_pairs
from curate.ranking.by_counts import GROUPS, corpus_words, item_pairs, pool_pairs
from curate.ranking.lexical import count_items, excess, lexical, pool_items, word_losses
from curate.ranking.ngram_lm import anchored, look_up, ngram_lm
from curate.records import Contribution, Index, Target
from curate.task2vec.reading import load_pairs, load_unigrams
from curate.task2vec.tokenizer import encode_with, open_tokenizer

WORDS = 12
PER = 1_000.0  # tokens that a word's frequency is given for


@dataclass(frozen=True, slots=True)
class Reasons:
    """What takes away from the alignment of a shard, and how its documents align."""

    layers: tuple[Contribution, ...]
    rows: tuple[Contribution, ...]  # those that take most more than usual
    documents: tuple[tuple[float, str], ...]  # alignment alone, nearest first


def reasons_by_words(
    shard: str,
    documents: Sequence[str],
    *,
    index: Index,
    target: Target,
    first: str,
    seed: int,
    pairs: float | None = None,
) -> Reasons:
    """Say which words take away from a shard's alignment; align its documents.

    A word's share is of the relative entropy of the target's words over the shard's; "usual" is
    its share where the whole corpus stands in for the shard.

    Args:
        shard: its name.
        documents: of the shard, counted one by one.
        index: of the corpus.
        target: that the ranking is for.
        first: the shard that was ranked first: documents are on the scale of that ranking, which
            gives it 1 at most; one that has the target's words better has more.
        seed: of that ranking.
        pairs: alignment of the first shard, where the ranking was by token pairs: the documents
            are aligned by theirs.
    """
    tokenizer = open_tokenizer(index.embed.probe, index.probe)
    encode = partial(encode_with, tokenizer, name=index.embed.probe)
    vocab = index.probe.vocab
    items = count_items(target.select, encode, vocab=vocab)
    wanted, background = np.asarray(items.sum(axis=0)).ravel(), corpus_words(index)
    keys = {entry.shard.name: entry.key for entry in index.shards}
    given, best = (
        load_unigrams(Path(index.folder), keys[name]).astype(np.float64) for name in (shard, first)
    )
    mine = word_losses(wanted, given, background=background)
    usual = word_losses(wanted, background, background=background)
    shares = mine / max(mine.sum(), 1e-300), usual / max(usual.sum(), 1e-300)
    frequencies = tuple(PER * each / max(each.sum(), 1.0) for each in (wanted, given))
    rows = []
    for word in np.argsort(-(mine - usual), kind="stable")[:WORDS].tolist():
        if mine[word] <= usual[word]:
            break  # it has these as often as the corpus
        numbers = [float(each[word]) for each in (*shares, *frequencies)]
        rows.append(Contribution(_shown(tokenizer, word), *numbers))
    ids = [np.asarray(each) for each in encode(list(documents))]
    counts = [np.bincount(each, minlength=vocab) for each in ids]
    groups = pool_items(items, most=GROUPS, seed=seed)
    values, moves = lexical(groups, [*counts, best], background=background)
    values = values - excess(values[-1:])
    if pairs is not None:
        own = pool_pairs(item_pairs(index, target), seed=seed)
        seen = [look_up(own, count_pairs([i], vocab), c) for i, c in zip(ids, counts, strict=True)]
        seen.append(look_up(own, load_pairs(Path(index.folder), keys[first]), best))
        by_pairs = ngram_lm(own, seen, background=background)
        over = float(values[-1] - np.log(pairs))
        values, _ = anchored(by_pairs, (values[-1:], moves), first=len(ids), over=over)
    found = np.exp(values[:-1])
    order = np.argsort(-found, kind="stable")
    nearest_first = tuple((float(found[n]), documents[n]) for n in order)
    return Reasons((), tuple(rows), nearest_first)


def _shown(tokenizer: Any, word: int) -> str:
    """Return a token as it is written, its spaces and line ends visible."""
    text = str(tokenizer.decode([word], skip_special_tokens=False))
    return text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
