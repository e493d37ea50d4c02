"""The records that pass between the rooms: frozen, plain, with their units."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from curate.frames import Frame, plain
from curate.settings import CorpusSettings, EmbedSettings, Measure, Method, Settings

if TYPE_CHECKING:  # the command line imports this module and must not load numpy
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]
    Counts = npt.NDArray[np.integer[Any]]
else:
    Floats = Counts = Any

Notify = Callable[[str, float, float], None]
"""`notify(what, done, total)`: progress of one step; `total` 0 where it is not known."""

Verdict = Literal["confirmed", "better", "worse", "refuted"]


def silent(what: str, done: float, total: float) -> None:
    """Ignore progress: the default of every stage."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval."""

    value: float
    low: float
    high: float


NOT_MEASURED = Interval(math.nan, math.nan, math.nan)


# --- corpus ---


@dataclass(frozen=True, slots=True)
class Document:
    """One text, and where it came from."""

    text: str
    id: str
    source: str
    file_digest: str  # blake2b of the input file's bytes
    record: int  # its number in that file, counted from 0
    url: str = ""  # where the record has one
    meta: str = ""  # its `meta` or `metadata` as JSON, where it has one


@dataclass(frozen=True, slots=True)
class FileLedger:
    """What became of every record of one input file: seen = accepted + sum(rejected)."""

    path: str
    digest: str
    n_bytes: int
    seen: int
    accepted: int
    rejected: dict[str, int]  # reason → records
    error: str = ""  # a broken container: what was wrong with it

    @property
    def rejected_share(self) -> float:
        """Rejected records per record seen, 0 to 1."""
        return sum(self.rejected.values()) / self.seen if self.seen else 0.0


@dataclass(frozen=True, slots=True)
class RecordRange:
    """Records `start` (included) to `stop` (not) of one input file."""

    path: str
    file_digest: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Shard:
    """The unit that is embedded, ranked and mixed."""

    name: str
    source: str
    ranges: tuple[RecordRange, ...]
    n_documents: int
    n_tokens: int  # of the probe's tokenizer
    digest: str  # blake2b of its documents' texts, in order
    grouped: bool = False  # its files were written by regrouping; documents name their origin


@dataclass(frozen=True, slots=True)
class Group:
    """The documents that regrouping gave one source."""

    name: str  # the source of its shards
    n_documents: int
    terms: tuple[str, ...] = ()  # what sets a topic cluster apart, most telling first
    examples: tuple[str, ...] = ()  # beginnings of the documents nearest to its centre


@dataclass(frozen=True, slots=True)
class ShardText:
    """A shard with its text, in memory while it is worked on."""

    shard: Shard
    documents: tuple[Document, ...]
    tokens: tuple[Counts, ...]  # token ids of each document, no special tokens


@dataclass(frozen=True, slots=True)
class Target:
    """What we want to be good at: texts that ranking may see, texts that only `verify` sees."""

    name: str
    select: tuple[str, ...]  # rendered items of the select split
    eval: tuple[str, ...]  # rendered items of the eval split
    select_digest: str
    eval_digest: str
    origin: str  # where it was read: a hub id with its commit, or a folder
    licence: str = ""
    template: str = ""  # that rendered the items: its fields are looked for in a mix one by one
    spare: tuple[str, ...] = ()  # items in neither split, which no mix may hold either
    templates: tuple[tuple[str, int, int, int], ...] = ()
    """Of several targets, one after the other: the template, and how many items of `select`,
    `eval` and `spare` it rendered. Empty where `template` rendered all."""


# --- task2vec ---


@dataclass(frozen=True, slots=True)
class RowBlock:
    """The coordinates `start` to `stop` of an embedding: one weight matrix's rows."""

    name: str  # the parameter's module, e.g. model.layers.3.mlp.up_proj
    layer: int  # transformer block, from 0
    kind: str  # last part of the name, e.g. up_proj
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Embedding:
    """Row Fisher of each sub-batch, and the token counts of the whole text."""

    vectors: Floats  # (n_batches, dim) float32, > 0
    n_sequences: tuple[int, ...]  # sequences in each sub-batch
    unigrams: Counts  # (vocab,) int64, over all the tokens of the shard or target
    hidden: Floats  # (n_batches, width) float32: mean last hidden state of each sub-batch
    loss: float  # nats/token of the probe on these sub-batches
    gradients: Floats | None = None  # (n_batches, width) float32: projected mean gradient


@dataclass(frozen=True, slots=True)
class ProbeInfo:
    """Which model embedded."""

    name: str
    revision: str  # commit of a hub model, or digest of a folder's weights
    tokenizer_digest: str
    n_parameters: int
    vocab: int


@dataclass(frozen=True, slots=True)
class IndexedShard:
    """A shard and the key of its published embedding."""

    shard: Shard
    key: str


@dataclass(frozen=True, slots=True)
class RejectedShard:
    """A shard that could not be embedded, tried twice, the second time with nothing beside it."""

    shard: Shard
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Index(Frame):
    """A published index, read back."""

    folder: str
    fingerprint: str
    shards: tuple[IndexedShard, ...]
    probe: ProbeInfo
    blocks: tuple[RowBlock, ...]
    corpus: CorpusSettings
    embed: EmbedSettings
    ledgers: tuple[FileLedger, ...]
    groups: tuple[Group, ...] = ()  # where the corpus was regrouped by field or topic
    rejected: tuple[RejectedShard, ...] = ()

    def summary(self) -> str:
        """Return the index in one line."""
        tokens = sum(each.shard.n_tokens for each in self.shards)
        return f"{len(self.shards):,} shards, {tokens:,} tokens, probe {self.probe.name}"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row a shard."""
        names = ("name", "source", "n_documents", "n_tokens", "digest")
        return [{name: getattr(each.shard, name) for name in names} for each in self.shards]


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """What one source is estimated to hold."""

    source: str
    files: int
    n_bytes: int  # on disk
    documents: int
    tokens: int
    shards: int


@dataclass(frozen=True, slots=True, repr=False)
class IndexPlan(Frame):
    """What `curate index` would do, estimated; nothing of it is written."""

    sources: tuple[PlannedSource, ...]
    shards: int  # over all sources, or of the groups where documents are regrouped
    seconds: float  # reading and embedding on this machine, as fast as a short trial
    disk_bytes: int  # that the workspace would grow by, at most
    exact: bool  # documents and tokens were counted, not estimated
    skipped: int  # files that no reader knows
    uncounted: tuple[str, ...] = ()  # inputs of the hub: streamed when indexed, not before

    def summary(self) -> str:
        """Return the plan in one line."""
        about = "" if self.exact else "about "
        return f"{about}{self.shards:,} shards, {self.seconds:,.0f} s, {self.disk_bytes:,} bytes"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row a source."""
        return [plain(source) for source in self.sources]


# --- ranking ---


@dataclass(frozen=True, slots=True)
class RankedShard:
    """One line of a ranking."""

    rank: int  # from 1
    shard: str
    source: str
    tokens: int
    alignment: float  # 0 to 1 for task2vec; higher is closer for every method
    low: float
    high: float
    rank_low: int  # best rank that the interval allows
    rank_high: int
    tied_with_next: bool  # its interval cannot tell it from the next


@dataclass(frozen=True, slots=True, repr=False)
class Ranking(Frame):
    """Shards by alignment to a target, best first."""

    target: str
    method: Method
    measure: Measure
    ceiling: float  # the target's own halves against each other
    floor: float  # the lowest alignment that noise alone would give a shard
    shards: tuple[RankedShard, ...]
    select_digest: str  # of the items that ranking has seen
    index_fingerprint: str
    fingerprint: str
    warnings: tuple[str, ...] = ()
    map: tuple[tuple[str, float, float], ...] = ()  # (name, x, y) in 2-D; the target is last

    def summary(self) -> str:
        """Return the ranking in one line."""
        best = ", ".join(f"{line.shard} {line.alignment:.3f}" for line in self.shards[:3])
        return f"{len(self.shards):,} shards by {self.method} for {self.target}: {best}"

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
    warnings: tuple[str, ...] = ()
    index_fingerprint: str = ""

    def summary(self) -> str:
        """Return the comparison in one line."""
        return f"{len(self.shards):,} shards under {', '.join(self.columns)}"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row a shard, with a value for each column."""
        return [
            {"shard": line.shard, "source": line.source, "tokens": line.tokens}
            | dict(zip(self.columns, values, strict=True))
            for line, values in zip(self.shards, zip(*self.values, strict=True), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a layer, or one row of a weight matrix, takes away from the alignment of a shard."""

    name: str  # layer 3, or model.layers.3.mlp.up_proj[17]
    share: float  # of all that is taken away; noise taken out, so it may lie below 0
    usual: float  # its share in the average shard
    target: float  # of a row: the target's value, 1 is the mean of its matrix; of a layer: NaN
    shard: float  # likewise


@dataclass(frozen=True, slots=True, repr=False)
class Explanation(Frame):
    """Why a shard ranks where it does."""

    ranking: Ranking  # without its map
    shard: RankedShard
    layers: tuple[Contribution, ...]  # all of them, lowest first
    rows: tuple[Contribution, ...]  # those that take most
    nearest: tuple[tuple[float, str], ...]  # (alignment of the document alone, its beginning)
    farthest: tuple[tuple[float, str], ...]
    documents: int  # that were looked at
    shard_terms: tuple[str, ...]  # most characteristic first
    target_terms: tuple[str, ...]

    def summary(self) -> str:
        """Return the shard's place in one line."""
        place = f"rank {self.shard.rank} of {len(self.ranking.shards):,}"
        return f"{self.shard.shard}: {place} for {self.ranking.target}"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row a layer."""
        return [plain(layer) for layer in self.layers]


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


# --- mixing ---


@dataclass(frozen=True, slots=True)
class Forecast:
    """The drop in loss predicted before training, nats/token, control minus mix."""

    drop: float
    low: float
    high: float
    basis: str  # what it was computed from
    made_at: str = ""  # UTC, ISO 8601


@dataclass(frozen=True, slots=True)
class MixPart:
    """How much of one shard is in the mix."""

    shard: str
    source: str
    tokens: int
    epochs: float
    alignment: float


@dataclass(frozen=True, slots=True, repr=False)
class Mix(Frame):
    """A published mix, read back."""

    folder: str
    target: str
    budget: int
    tokens: int
    alignment: float
    low: float
    high: float
    forecast: Forecast
    parts: tuple[MixPart, ...]
    decontaminated: int  # documents taken out because they hold an item of the target
    duplicates: int  # documents taken out because another is the same
    ranking_fingerprint: str
    fingerprint: str

    @property
    def sources(self) -> dict[str, int]:
        """Tokens by source, largest first."""
        totals: dict[str, int] = {}
        for part in self.parts:
            totals[part.source] = totals.get(part.source, 0) + part.tokens
        return dict(sorted(totals.items(), key=lambda pair: (-pair[1], pair[0])))

    def summary(self) -> str:
        """Return the mix in one line."""
        best = ", ".join(f"{name} {n / self.tokens:.0%}" for name, n in self.sources.items())
        drop = f"forecast drop {self.forecast.drop:+.3f} nats/token"
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


# --- verification ---


@dataclass(frozen=True, slots=True)
class Run:
    """One small model, trained."""

    arm: str
    seed: int
    tokens: int
    loss: float  # nats/token on the eval split of the target, mean over its tokens
    bpb: float
    item_nats: tuple[float, ...]  # summed nats of each item
    item_tokens: tuple[int, ...]
    curve: tuple[tuple[int, float], ...]  # (tokens seen, training loss)
    seconds: float
    started_at: str = ""  # UTC, ISO 8601
    forecast: str = ""  # digest of the forecast published before it trained; "" for none
    points: tuple[tuple[int, float], ...] = ()  # (tokens seen, loss on some eval items)
    control_nats: tuple[float, ...] = ()  # summed nats of each document of the control set
    control_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ArmResult:
    """All runs of one arm."""

    arm: str
    loss: float  # nats/token, mean over seeds
    low: float
    high: float
    seeds: int
    alignment: float  # of the arm's own mixture
    forecast_loss: float  # predicted before the arm trained; NaN where nothing was
    forecast_low: float = float("nan")
    forecast_high: float = float("nan")
    forecast_at: str = ""  # UTC, ISO 8601: when that was published
    trained_at: str = ""  # UTC: when its first run started
    bpb: float = float("nan")
    control_loss: float = float("nan")  # nats/token on held-out documents of the natural mix
    sources: dict[str, float] = field(default_factory=dict)  # source → share of the tokens

    @property
    def perplexity(self) -> float:
        """Perplexity a token: e to the loss."""
        return math.exp(self.loss)


@dataclass(frozen=True, slots=True, repr=False)
class Verification(Frame):
    """The forecast held against the measurement."""

    target: str
    verdict: Verdict
    sentence: str  # the verdict as a person would quote it
    drop: Interval  # nats/token, random minus mix, measured
    forecast: Forecast
    arms: tuple[ArmResult, ...]
    runs: tuple[Run, ...]
    slope: Interval  # loss per unit of alignment over all arms
    spearman: float  # of −alignment and loss over all arms
    unigram_entropy: float  # nats/token of the eval split under the mix's unigrams
    warnings: tuple[str, ...]
    fingerprint: str
    law: str = ""  # that the forecast follows
    forecast_digest: str = ""  # each run of the mix holds it too
    price: Interval = NOT_MEASURED  # control set: loss of the mix minus random, nats/token
    multiplier: float = float("nan")  # tokens of random per token of the mix, for one loss
    r2: float = float("nan")  # of alignment and loss over all arms
    p_value: float = float("nan")  # of that slope being 0
    seeds_needed: int = 0  # an arm, to see the forecast drop at 90 % power; 0: not known

    def summary(self) -> str:
        """Return the verdict in one line."""
        return f"{self.verdict}: {self.sentence}"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row an arm, lowest loss first."""
        return [plain(arm) for arm in sorted(self.arms, key=lambda arm: arm.loss)]


@dataclass(frozen=True, slots=True)
class VerificationPlan:
    """What a verification will take, said before it starts."""

    runs: int
    at_once: int
    tokens: int  # a run
    steps: int  # a run
    parameters: int  # of a model, embedding included
    seconds_a_step: float  # measured on this machine
    seconds: float  # all runs, nothing there yet
    enough_tokens: float  # a run, to get 1 nat/token below word frequencies; NaN: not known yet


# --- about a workspace and this installation ---


@dataclass(frozen=True, slots=True)
class StageRun:
    """One run of a stage: what it used and what it cost."""

    stage: str
    command: str  # that repeats it, given these settings in a curate.toml
    at: str  # UTC, ISO 8601: when it started
    seconds: float
    cpu_seconds: float  # of this process and its finished children
    peak_bytes: int  # resident memory at most since the process started
    ended: bool  # False: an error or an interrupt
    fingerprint: str  # of what it published
    device: str  # as asked for
    settings: Settings  # the sections that the stage used; the others at their defaults
    versions: dict[str, str]  # package, python, machine → version


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `curate doctor`."""

    what: str
    found: str
    good: bool
    advice: str = ""  # what to do where it is not good


@dataclass(frozen=True, slots=True)
class NamedTarget:
    """One line of `curate targets`."""

    name: str
    hub: str  # hub id and pinned commit
    select: str  # split that ranking may see
    eval: str  # split that only verification sees
    licence: str
    at_hand: str  # the folder it is read from, or "" where only the hub has it
    about: str = ""
    reach: str = ""  # folder, cache (of the hub client) or hub; "" where it cannot be read now


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo found, good or bad."""

    index: Index
    ranking: Ranking
    mix: Mix
    verification: Verification
    expected: tuple[str, ...]  # the sources that a person would name
    found: tuple[str, ...]  # the sources of as many best shards
    report: str
    seconds: float

    @property
    def ranking_found_them(self) -> bool:
        """Say whether the best shards are the ones that a person would name."""
        return set(self.found) == set(self.expected)
