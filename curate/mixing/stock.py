"""What shards have for a mix: what the index counted, less the documents that are kept out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.corpus.pairs import Pairs, count_pairs
from curate.corpus.tokens import count_unigrams
from curate.mixing.fill import share_out
from curate.mixing.look import Look, write_target
from curate.mixing.survey import leaked_tokens
from curate.mixing.tokenizer import encode_named
from curate.records import Index, IndexedShard, Notify, Target, silent
from curate.task2vec.reading import load_pairs, load_unigrams

if TYPE_CHECKING:
    from curate.records import Counts


@dataclass(frozen=True, slots=True)
class KeptOut:
    """What documents of one shard held together that no mix gets."""

    pairs: Pairs
    words: Counts  # (vocab,)
    tokens: int


def count_kept_out(documents: Sequence[Counts], vocab: int) -> KeptOut:
    """Return what some documents hold, each given by its token ids."""
    words = count_unigrams(documents, vocab)
    return KeptOut(count_pairs(documents, vocab), words, int(words.sum()))


@dataclass(frozen=True)
class Stock:
    """The shards of an index, as a mix can have them.

    A document that holds an item of the target makes that target likely like no other, and is
    in no mix: counted with its shard, it would draw a mix to what it cannot have.
    """

    index: Index
    kept_out: Mapping[str, KeptOut] = field(default_factory=dict)  # by shard, where there are any

    @cached_property
    def room(self) -> dict[str, int]:
        """Tokens of every shard."""
        return {each.shard.name: self.tokens(each) for each in self.index.shards}

    def natural(self, tokens: int) -> dict[str, float]:
        """Return so many tokens in natural proportions, as `random` takes them, by shard.

        Proportions are those of the index, as far as what is not kept out goes.
        """
        whole = [float(each.shard.n_tokens) for each in self.index.shards]
        room = np.array([*self.room.values()], np.float64)
        room = room if room.sum() else np.array(whole)  # nothing is left: the draw says so
        parts = share_out(room, np.array(whole), total=min(float(tokens), float(room.sum())))
        return dict(zip(self.room, parts.tolist(), strict=True))

    def tokens(self, entry: IndexedShard) -> int:
        """Return the tokens of a shard."""
        out = self.kept_out.get(entry.shard.name)
        return entry.shard.n_tokens - out.tokens if out else entry.shard.n_tokens

    def pairs(self, entry: IndexedShard) -> Pairs:
        """Read the token pairs of a shard."""
        found = load_pairs(Path(self.index.folder), entry.key)
        out = self.kept_out.get(entry.shard.name)
        return found.without(out.pairs, self.index.probe.vocab) if out else found

    def words(self, entry: IndexedShard) -> Counts:
        """Read the token counts of a shard, (vocab,)."""
        found = load_unigrams(Path(self.index.folder), entry.key)
        out = self.kept_out.get(entry.shard.name)
        return np.asarray(found, np.int64) - out.words if out else found


def take_stock(
    index: Index,
    target: Target,
    names: Sequence[str],
    *,
    ngram: int,
    folder: Path,
    workers: int = 1,
    notify: Notify = silent,
) -> Stock:
    """Return what a mix can have of shards where a target is kept out of it.

    Args:
        index: of the shards.
        target: both its splits.
        names: of the shards in which leaks are looked for; the others count as they are.
        ngram: words in a row that tell a leak.
        folder: where facts are kept; a draw finds these leaks there.
        workers: processes; their number changes nothing.
        notify: progress in tokens.

    Raises:
        CurateError: an input changed since the index.
    """
    entries = {each.shard.name: each.shard for each in index.shards}
    look = Look(
        text=index.corpus.text,
        seed=0,
        target=write_target(folder, target),
        ngram=ngram,
        kept=str(Path(index.folder) / "prints"),
        encode=partial(encode_named, name=index.embed.probe, info=index.probe),
    )
    shards = [entries[name] for name in names]
    leaked = leaked_tokens(shards, look=look, folder=folder, workers=workers, notify=notify)
    found, vocab = zip(names, leaked, strict=True), index.probe.vocab
    return Stock(index, {name: count_kept_out(texts, vocab) for name, texts in found if texts})
