"""Documents, what became of each, the shards cut from them, and the target."""

from __future__ import annotations

from dataclasses import dataclass

from curate.records.values import Counts


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

    path: str  # as it was given, or its address
    digest: str  # blake2b of its bytes
    n_bytes: int  # on disk, as it is packed
    seen: int  # records
    accepted: int  # of them, those that became documents
    rejected: dict[str, int]  # reason → records
    error: str = ""  # a broken container: what was wrong with it

    @property
    def rejected_share(self) -> float:
        """Rejected records per record seen, 0 to 1."""
        return sum(self.rejected.values()) / self.seen if self.seen else 0.0


@dataclass(frozen=True, slots=True)
class RecordRange:
    """Records `start` (included) to `stop` (not) of one input file."""

    path: str  # of the file that is read
    file_digest: str  # blake2b of its bytes
    start: int  # counted from 0
    stop: int


@dataclass(frozen=True, slots=True)
class Shard:
    """The unit that is embedded, ranked and mixed."""

    name: str  # its source, with a number where that has several
    source: str  # file, folder, value of a field, or topic
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
