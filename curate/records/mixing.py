"""A mix, its forecast, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curate.frames import Frame, plain, portioned, valued


@dataclass(frozen=True, slots=True)
class Forecast:
    """The drop in loss predicted before training, nats/token, control minus mix."""

    drop: float  # above 0: the mix ends lower
    low: float  # of the interval: 90 %, or [verify] confidence
    high: float
    basis: str  # what it was computed from
    made_at: str = ""  # UTC, ISO 8601


@dataclass(frozen=True, slots=True)
class MixPart:
    """How much of one shard is in the mix."""

    shard: str
    source: str
    tokens: int  # in the mix
    epochs: float  # those tokens / tokens of the shard
    alignment: float  # of the shard, as it was ranked


@dataclass(frozen=True, slots=True, repr=False)
class Mix(Frame):
    """A published mix, read back."""

    folder: str  # that `datasets.load_dataset` opens
    target: str  # its name
    budget: int  # tokens asked for
    tokens: int  # written: the budget, but for `whole_documents`
    alignment: float  # of the mixture, as the ranking has it: by counts or by embedding
    low: float  # of the interval of alignment, 95 %
    high: float
    forecast: Forecast
    parts: tuple[MixPart, ...]  # shards that it draws on, closest first
    decontaminated: int  # documents taken out because they hold an item of the target
    duplicates: int  # documents taken out because another is the same
    ranking_fingerprint: str  # of the ranking that it was built from
    fingerprint: str  # of all that it was made from
    held_out: int | None = None  # tokens of the split beside it; None where none was asked for
    items: int = 0  # of the target, that it was chosen by; 0 of a mix that did not note it

    @property
    def sources(self) -> dict[str, int]:
        """Tokens by source, largest first."""
        totals: dict[str, int] = {}
        for part in self.parts:
            totals[part.source] = totals.get(part.source, 0) + part.tokens
        return dict(sorted(totals.items(), key=lambda pair: (-pair[1], pair[0])))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before the mix is believed in, a sentence each."""
        doubts = {
            "nothing is held out: of the documents that were drawn, none fell in so small a "
            "share; ask for a larger --holdout": self.held_out == 0,
            "the target has 1 item to choose by: alignment and forecast are of that item, and no "
            "interval holds what another would change": self.items == 1,
            "this mix is forecast to do worse than natural proportions: compare with another "
            "--selection, or rank by another --method": self.forecast.high < 0,
        }
        return tuple(doubt for doubt, holds in doubts.items() if holds)

    def summary(self) -> str:
        """Return the mix in one line."""
        best = ", ".join(f"{name} {portioned(n / self.tokens)}" for name, n in self.sources.items())
        drop = f"forecast drop {valued(self.forecast.drop, signed=True)} nats/token"
        return f"{self.tokens:,} tokens for {self.target} ({best}); {drop}"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row a shard."""
        return [plain(part) for part in self.parts]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The beginning of a document of a mix."""

    source: str
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class MixTopic:
    """Documents of a mix that are about the same."""

    terms: tuple[str, ...]  # most telling first
    share: float  # of the tokens looked at
    example: Excerpt  # the document nearest to its centre


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A document that a mix does not hold, and why."""

    reason: str  # leak, exact or near
    source: str
    id: str
    of: str  # the item of the target that it holds, or the document that stays
    words: str  # that it shares with the item
    overlap: float  # of a near copy: estimated Jaccard, 0 to 1


@dataclass(frozen=True, slots=True)
class MixContents:
    """A look into a mix: some of its documents, their topics, some of what was left out."""

    rows: int  # looked at; rows are shuffled, so the first are as good as any
    tokens: int  # in them
    examples: tuple[Excerpt, ...]  # the first of each source, largest source first
    topics: tuple[MixTopic, ...]  # largest first
    left_out: tuple[LeftOut, ...]  # the first of each reason
