"""Embeddings, the probe that made them, and the index that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curate.frames import Frame, counted, plain
from curate.records.corpus import FileLedger, Group, Shard
from curate.records.values import Counts, Floats
from curate.settings import CorpusSettings, EmbedSettings


@dataclass(frozen=True, slots=True)
class RowBlock:
    """The coordinates `start` to `stop` of an embedding: one weight matrix's rows."""

    name: str  # the parameter's module, e.g. model.layers.3.mlp.up_proj
    layer: int  # transformer block, from 0
    kind: str  # last part of the name, e.g. up_proj
    start: int  # included
    stop: int  # not included


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

    name: str  # as it was asked for
    revision: str  # commit of a hub model, or digest of a folder's weights
    tokenizer_digest: str
    n_parameters: int  # of the whole model
    vocab: int  # tokens that its head knows


@dataclass(frozen=True, slots=True)
class IndexedShard:
    """A shard and the key of its published embedding."""

    shard: Shard
    key: str  # of text, probe and settings: names the file of its embedding


@dataclass(frozen=True, slots=True)
class RejectedShard:
    """A shard that could not be embedded, tried twice, the second time with nothing beside it."""

    shard: Shard
    reason: str  # in one line


@dataclass(frozen=True, slots=True, repr=False)
class Index(Frame):
    """A published index, read back."""

    folder: str  # where it is published
    fingerprint: str  # of inputs, probe and settings
    shards: tuple[IndexedShard, ...]
    probe: ProbeInfo
    blocks: tuple[RowBlock, ...]  # coordinates of the embeddings, a block a weight matrix
    corpus: CorpusSettings
    embed: EmbedSettings
    ledgers: tuple[FileLedger, ...]  # what became of each input file
    groups: tuple[Group, ...] = ()  # where the corpus was regrouped by field or topic
    rejected: tuple[RejectedShard, ...] = ()  # could not be embedded

    def summary(self) -> str:
        """Return the index in one line."""
        tokens = sum(each.shard.n_tokens for each in self.shards)
        shards = counted(len(self.shards), "shard")
        return f"{shards}, {counted(tokens, 'token')}, probe {self.probe.name}"

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
    skipped: int  # files and folders that hold no documents of a corpus
    uncounted: tuple[str, ...] = ()  # inputs of the hub: streamed when indexed, not before

    def summary(self) -> str:
        """Return the plan in one line."""
        about = "" if self.exact else "about "
        shards = f"{about}{counted(self.shards, 'shard')}"
        return f"{shards}, {self.seconds:,.0f} s, {self.disk_bytes:,} bytes"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row a source."""
        return [plain(source) for source in self.sources]
