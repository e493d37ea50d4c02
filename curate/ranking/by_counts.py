"""Methods that count: the target's words, or its token pairs, in what the index holds of shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.ranking.lexical import count_items, excess, lexical, own_halves, pool_items
from curate.ranking.measured import EXACT_UP_TO, SHORTLIST, Measured, read_unigrams, shortened
from curate.ranking.ngram_lm import (
    ItemPairs,
    Seen,
    anchored,
    count_item_pairs,
    look_up,
    ngram_lm,
    own_pair_halves,
)
from curate.ranking.words import find_by_words
from curate.records import Index, IndexedShard, Notify, Target, silent
from curate.settings import RankSettings
from curate.task2vec.reading import load_pairs, load_unigrams
from curate.task2vec.tokenizer import encode_as_indexed

if TYPE_CHECKING:
    from curate.records import Floats

UNITED = 64  # shards, the best, whose pairs are looked at together
GROUPS = 64  # of the target's items: their intervals rest on so many


def by_words(
    index: Index,
    target: Target,
    settings: RankSettings,
    workspace: Path,
    notify: Notify,
) -> Measured:
    """Measure shards by their token counts; takes the arguments of `methods.measure`."""
    items = count_items(target.select, encode_as_indexed(index), vocab=index.probe.vocab)
    words = np.asarray(items.sum(axis=0)).ravel()
    shards, background, warnings = _counted(index, words, settings, workspace, notify)
    groups = pool_items(items, most=GROUPS, seed=settings.seed)
    counts = read_unigrams(shards, index, notify)
    values, influence = lexical(groups, counts, background=background)
    over = excess(values)
    halves = own_halves(items, background=background, seed=settings.seed) - over
    return Measured(
        shards,
        values - over,
        influence,
        ceiling=0.0 if np.isnan(halves) else float(np.exp(halves)),
        warnings=warnings,
        words=words,
        logs=True,
    )


def by_pairs(
    index: Index,
    target: Target,
    settings: RankSettings,
    workspace: Path,
    notify: Notify,
) -> Measured:
    """Measure shards by their token pairs; takes the arguments of `methods.measure`."""
    pairs = item_pairs(index, target)
    items = pairs.words
    words = np.asarray(items.sum(axis=0)).ravel()
    shards, background, warnings = _counted(index, words, settings, workspace, notify)
    pooled = pool_pairs(pairs, seed=settings.seed)
    seen = read_seen(pooled, shards, index, notify)
    found = ngram_lm(pooled, seen, background=background)
    first = int(np.argmax(found[0]))
    best = [load_unigrams(Path(index.folder), shards[first].key)]
    level, moves = lexical(pooled.words, best, background=background)
    halves = own_pair_halves(pairs, background=background, seed=settings.seed)
    best_first = [shards[number] for number in np.argsort(-found[0], kind="stable")[:UNITED]]
    together, _ = ngram_lm(pooled, _united(pooled, best_first, index), background=background)
    scale = level - excess(level) - found[0][first]
    over = excess(scale + together)
    values, influence = anchored(found, (level - excess(level), moves), first=first, over=over)
    # A large target knows its own order better than any shard does: no more than 1 is said.
    halves = min(halves + values[first] - found[0][first], 0.0)
    return Measured(
        shards,
        values,
        influence,
        ceiling=0.0 if np.isnan(halves) else float(np.exp(halves)),
        warnings=warnings,
        words=words,
        logs=True,
    )


def _united(pairs: ItemPairs, shards: Sequence[IndexedShard], index: Index) -> Iterator[Seen]:
    """Return what the first shard says of a target's pairs, the first two, three, … together.

    A mix of them has the pairs of all, and may cost the target less than any one of them. No
    cross-entropy is below the entropy, so none of these texts is to be above 1.
    """
    return accumulate(read_seen(pairs, shards, index), Seen.plus)


def item_pairs(index: Index, target: Target) -> ItemPairs:
    """Return the token pairs of a target's select split, item by item."""
    ids = [np.asarray(each) for each in encode_as_indexed(index)(list(target.select))]
    return count_item_pairs(ids, vocab=index.probe.vocab)


def pool_pairs(pairs: ItemPairs, *, seed: int) -> ItemPairs:
    """Return the same pairs counted by at most `GROUPS` groups of items."""
    return replace(pairs, items=pool_items(pairs.items, most=GROUPS, seed=seed))


def read_seen(
    pairs: ItemPairs, shards: Sequence[IndexedShard], index: Index, notify: Notify = silent
) -> Iterator[Seen]:
    """Read what each of some shards says about the pairs of a target."""
    folder = Path(index.folder)
    for number, entry in enumerate(shards, start=1):
        yield look_up(pairs, load_pairs(folder, entry.key), load_unigrams(folder, entry.key))
        notify("ranking shards", number, len(shards))


def corpus_words(index: Index) -> Floats:
    """Return the token counts (vocab,) of all shards."""
    background = np.zeros(index.probe.vocab)
    for counts in read_unigrams(index.shards, index, silent):
        background += counts
    return background


def _counted(
    index: Index, words: Any, settings: RankSettings, workspace: Path, notify: Notify
) -> tuple[tuple[IndexedShard, ...], Floats, tuple[str, ...]]:
    """Return the shards to measure, the words of the corpus, and a warning of those left out."""
    if len(index.shards) <= EXACT_UP_TO or settings.exact:
        return index.shards, corpus_words(index), ()
    best, background = find_by_words(
        index, words, count=SHORTLIST, workspace=workspace, notify=notify
    )
    shards = tuple(index.shards[number] for number in best)
    said = shortened(len(index.shards), len(shards), "of highest alignment by words")
    return shards, background, (said,)
