"""Why a lexical alignment is what it is: words, documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.ranking.explain_fisher import Reasons
from curate.ranking.lexical import count_items, lexical, word_losses
from curate.ranking.methods import corpus_words
from curate.records import Contribution, Index, Target
from curate.task2vec.embed import load_embedding
from curate.task2vec.probe import Probe, encode_texts, load_probe

if TYPE_CHECKING:
    from curate.records import Floats

WORDS = 12
PER = 1_000.0  # tokens that a word's frequency is given for


def reasons_by_words(
    shard: str, documents: Sequence[str], *, index: Index, target: Target, device: str
) -> Reasons:
    """Say which words take away from a shard's lexical alignment; align its documents.

    A word's share is of the relative entropy of the target's words over the shard's; "usual" is
    its share where the whole corpus stands in for the shard.

    Args:
        shard: its name.
        documents: of the shard, counted one by one.
        index: of the corpus.
        target: that the ranking is for.
        device: of the probe, whose tokenizer counts.
    """
    probe = load_probe(index.embed.probe, device=device)
    vocab = index.probe.vocab
    items = count_items(target.select, lambda texts: encode_texts(probe, texts), vocab=vocab)
    wanted, background = np.asarray(items.sum(axis=0)).ravel(), corpus_words(index)
    key = next(entry.key for entry in index.shards if entry.shard.name == shard)
    given = load_embedding(Path(index.folder), key).unigrams.astype(np.float64)
    mine = word_losses(wanted, given, background=background)
    usual = word_losses(wanted, background, background=background)
    shares = mine / max(mine.sum(), 1e-300), usual / max(usual.sum(), 1e-300)
    frequencies = tuple(PER * each / max(each.sum(), 1.0) for each in (wanted, given))
    rows = []
    for word in np.argsort(-(mine - usual), kind="stable")[:WORDS].tolist():
        numbers = [float(each[word]) for each in (*shares, *frequencies)]
        rows.append(Contribution(_shown(probe, word), *numbers))
    return Reasons((), tuple(rows), _documents(documents, items, background, probe, vocab))


def _documents(
    texts: Sequence[str], items: Floats, background: Floats, probe: Probe, vocab: int
) -> tuple[tuple[float, str], ...]:
    counts = [np.bincount(ids, minlength=vocab) for ids in encode_texts(probe, list(texts))]
    values = np.clip(np.exp(lexical(items, counts, background=background)[0]), 0.0, 1.0)
    order = np.argsort(-values, kind="stable")
    return tuple((float(values[n]), texts[n]) for n in order)


def _shown(probe: Probe, word: int) -> str:
    """Return a token as it is written, its spaces and line ends visible."""
    return (
        str(probe.tokenizer.decode([word])).replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    )
