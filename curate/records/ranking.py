"""Shards by alignment, and what is said about their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from curate.frames import Frame, counted, plain, valued
from curate.records.values import NOT_MEASURED, Interval
from curate.settings import Measure, Method


@dataclass(frozen=True, slots=True)
class RankedShard:
    """One line of a ranking."""

    rank: int  # from 1
    shard: str
    source: str
    tokens: int  # of the whole shard
    alignment: float  # higher is closer; 0 to 1 of ngram-lm, lexical, task2vec, else in own units
    low: float  # of the interval: 95 %, or [rank] confidence
    high: float
    rank_low: int  # best rank that the interval allows
    rank_high: int  # worst rank that it allows
    tied_with_next: bool  # its interval cannot tell it from the next


@dataclass(frozen=True, slots=True, repr=False)
class Ranking(Frame):
    """Shards by alignment to a target, best first."""

    target: str  # its name
    method: Method
    measure: Measure  # of method task2vec
    ceiling: float  # the target's own halves against each other; 0 where it is not known
    floor: float  # below it a shard differs from the target by more than noise
    shards: tuple[RankedShard, ...]  # closest first
    select_digest: str  # of the items that ranking has seen
    index_fingerprint: str  # of the index that was ranked
    fingerprint: str  # of index, target and settings
    warnings: tuple[str, ...] = ()  # a sentence each
    map: tuple[tuple[str, float, float], ...] = ()  # (name, x, y) in 2-D; the target is last

    def summary(self) -> str:
        """Return the ranking in one line."""
        best = ", ".join(f"{line.shard} {valued(line.alignment)}" for line in self.shards[:3])
        return f"{counted(len(self.shards), 'shard')} by {self.method} for {self.target}: {best}"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row a shard, best first."""
        return [plain(line) for line in self.shards]


@dataclass(frozen=True, slots=True, repr=False)
class Comparison(Frame):
    """Shards under several methods, or against several targets: one column each."""

    columns: tuple[str, ...]  # methods, or targets
    what: Literal["methods", "targets"]
    target: str  # of all the columns where they are methods, else of the first
    shards: tuple[RankedShard, ...]  # as the first column orders them
    values: tuple[tuple[float, ...], ...]  # (columns, shards): alignment, or what the method gives
    ranks: tuple[tuple[int, ...], ...]  # (columns, shards)
    agreement: tuple[tuple[float, ...], ...]  # (columns, columns): Spearman over the shards
    warnings: tuple[str, ...] = ()  # a sentence each
    index_fingerprint: str = ""  # of the index that was ranked

    def summary(self) -> str:
        """Return the comparison in one line."""
        return f"{counted(len(self.shards), 'shard')} under {', '.join(self.columns)}"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row a shard, with a value for each column."""
        return [
            {"shard": line.shard, "source": line.source, "tokens": line.tokens}
            | dict(zip(self.columns, values, strict=True))
            for line, values in zip(self.shards, zip(*self.values, strict=True), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a layer, a row of a weight matrix, or a word takes away from a shard's alignment."""

    name: str  # layer 3, model.layers.3.mlp.up_proj[17], or the word with its spaces shown
    share: float  # of all that is taken away; noise taken out, so it may lie below 0
    usual: float  # its share in the average shard
    target: float
    """Of a row: the target's value, 1 is the mean of its matrix; of a word: times in 1,000 tokens;
    of a layer: NaN."""
    shard: float  # likewise


@dataclass(frozen=True, slots=True, repr=False)
class Explanation(Frame):
    """Why a shard ranks where it does."""

    ranking: Ranking  # without its map
    shard: RankedShard
    layers: tuple[Contribution, ...]  # all of them, lowest first; none where words were counted
    rows: tuple[Contribution, ...]  # rows of weight matrices or words, those that take most first
    nearest: tuple[tuple[float, str], ...]  # (alignment of the document alone, its beginning)
    farthest: tuple[tuple[float, str], ...]  # likewise
    documents: int  # that were looked at
    shard_terms: tuple[str, ...]  # most characteristic first
    target_terms: tuple[str, ...]  # likewise

    def summary(self) -> str:
        """Return the shard's place in one line."""
        place = f"rank {self.shard.rank} of {len(self.ranking.shards):,}"
        return f"{self.shard.shard}: {place} for {self.ranking.target}"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row a layer; a word, where words were counted."""
        return [plain(part) for part in self.layers or self.rows]


@dataclass(frozen=True, slots=True)
class SourceChange:
    """Alignment of a source, or of the whole corpus, before and after a change of the data."""

    source: str  # "" is the whole corpus
    before: Interval | None  # None: it was not there
    after: Interval | None  # None: it is gone
    fell: bool  # the intervals are apart, and the new one is lower


@dataclass(frozen=True, slots=True, repr=False)
class AlignmentCheck(Frame):
    """Today's ranking held against one that was kept."""

    target: str
    kept: str  # the file with the ranking before
    changes: tuple[SourceChange, ...]  # the whole corpus first

    @property
    def fell(self) -> bool:
        """Say whether alignment fell, of the whole corpus or of any source in both."""
        return any(change.fell for change in self.changes)

    def summary(self) -> str:
        """Return the outcome in one line."""
        lower = [change.source or "the corpus" for change in self.changes if change.fell]
        said = f"fell: {', '.join(lower)}" if lower else "did not fall"
        return f"alignment to {self.target} {said} ({self.kept})"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row a source, the whole corpus first."""
        rows = []
        for change in self.changes:
            row: dict[str, Any] = {"source": change.source or "(corpus)", "fell": change.fell}
            for when, found in (("before", change.before), ("after", change.after)):
                known = found or NOT_MEASURED
                row |= {when: known.value, f"{when}_low": known.low, f"{when}_high": known.high}
            rows.append(row)
        return rows
