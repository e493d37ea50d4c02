"""The settings: all of `curate.toml`, a record for each room, with its defaults.

Whatever may change a result is here, in the fingerprint of an artefact and in its `meta.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

LabelSource = Literal["model", "data"]
Rows = Literal["output", "input", "both"]
Square = Literal["sequence", "position"]
Head = Literal["off", "tuned"]
Recipe = Literal["definition", "published"]
Measure = Literal[
    "scaled", "late", "asymmetric", "rms", "log", "whitened", "cosine", "kl", "jeffreys", "entropy"
]
Method = Literal[
    "task2vec", "lexical", "ngram", "ngram-lm", "compression", "embedding", "classifier",
    "perplexity", "length", "random", "transfer",
]  # fmt: skip
ALIGNMENTS: tuple[Method, ...] = ("task2vec", "lexical", "ngram-lm")  # what they give is 0 to 1
Engine = Literal["local", "ray", "batch"]
Selection = Literal["auto", "temperature", "match", "top"]
Tracker = Literal["", "wandb", "trackio", "mlflow", "tensorboard"]


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """Where the documents are and how they are cut into shards."""

    inputs: tuple[str, ...] = ()  # paths, globs, folders, hf:org/name[@revision]
    text: str = "text"  # a field, or a template such as "{question}\n{answer}"
    shard_tokens: int = 1_000_000  # tokens a shard, at most (a longer document is one shard)
    max_rejected: float = 0.001  # share of the documents seen that may be rejected
    group_by: str = "file"  # file, folder, field:NAME or cluster: what a source is
    clusters: int = 0  # of group_by = cluster; 0 is one for about two shards
    seed: int = 0  # of the clusters


@dataclass(frozen=True, slots=True)
class EmbedSettings:
    """What the embedding is: every field changes its value."""

    probe: str = "builtin"  # builtin, a hub id[@revision], a folder, or a .gguf file
    batches: int = 4  # sub-batches of disjoint documents
    batch_tokens: int = 16_384  # tokens a sub-batch
    block_tokens: int = 256  # longest sequence; longer documents are cut
    labels: LabelSource = "model"  # true Fisher, or the empirical one
    draws: int = 1  # label draws a sequence
    rows: Rows = "output"  # a row is an output unit, an input unit, or both
    layers: str = "all"  # "all", or "last:K" blocks
    seed: int = 0  # of what is drawn: text, labels, signs
    also: tuple[str, ...] = ()  # besides the blocks' matrices: norms, biases, embeddings, head
    square: Square = "sequence"  # of a sequence's gradient, or of every position's apart
    signs: int = 0  # random signs a row's sum of squares is estimated with; 0: it is exact
    head: Head = "off"  # or tuned: labels come from a head fitted to the text
    recipe: Recipe = "definition"  # or published: that algorithm, its faults included
    sketch: int = 0  # numbers a sub-batch at most; 0: as many as 2 MB a shard hold
    documents: int = 0  # numbers in a vector for each embedded document; 0: no such vectors
    gradients: int = 0  # numbers of each sub-batch's mean gradient, for method transfer; 0: none


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """What we want to be good at."""

    name: str = ""  # proofnet, …, a file, or hf:org/name
    text: str = ""  # a field of a file target
    template: str = ""  # or a template; a named target brings its own
    data_dir: str = ""  # where named targets lie when the hub is out of reach
    seed: int = 0  # of the split where a target has only one
    names: tuple[str, ...] = ()  # several targets, each NAME or NAME:WEIGHT, in place of `name`


@dataclass(frozen=True, slots=True)
class RankSettings:
    """How shards are ordered."""

    method: Method = "ngram-lm"  # by token pairs, words, embeddings, or a baseline
    measure: Measure = "scaled"  # of method task2vec
    confidence: float = 0.95  # of intervals, between 0 and 1
    bootstrap: int = 1_000  # resamples
    seed: int = 0  # of what is drawn: text, resamples
    exact: bool = False  # align every shard, however many; else a shortlist of very many
    encoder: str = ""  # of method embedding: a sentence encoder, folder or hub id; "" is the probe


@dataclass(frozen=True, slots=True)
class MixSettings:
    """How an order becomes training data."""

    budget: int = 0  # tokens, exact
    selection: Selection = "auto"  # what trains best after the method that ranked
    temperature: float = 0.0  # of a soft choice or a match, exp(gain / temperature); 0: chosen
    max_epochs: float = 1.0  # times a shard may be repeated
    tokenizer: str = ""  # that counts the budget; "" is the probe's
    decontaminate: bool = True  # leave out documents that hold an item of the target
    ngram: int = 13  # words that a leak shares with an item
    dedup: bool = True  # leave out copies, exact and near
    near_documents: int = 0  # that near copies are looked for among; 0 is all of them
    seed: int = 0  # of what is drawn, and of the order of rows
    holdout: float = 0.0  # share of the groups of like documents that is held out
    whole_documents: bool = False  # end at the nearest document, cut none
    priority: tuple[str, ...] = ()  # sources whose copy stays; else that of the better shard
    keep: tuple[str, ...] = ()  # SOURCE=20% of the mix at least, SOURCE<=20% at most
    blend: tuple[str, ...] = ()  # general=30%: in natural proportions of all, or of a source
    paraphrases: bool = False  # whether items in other words are looked for too
    encoder: str = ""  # that compares them: a folder or hub id; "" is the probe
    cosine: float = 0.8  # with an item, from which a place is its paraphrase


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """The experiment that checks the forecast."""

    size: Literal["tiny", "1M", "3M", "15M", "50M", "124M"] = "1M"  # parameters of the blocks
    tokens: int = 0  # a run; 0 is the mix's own number, at most 2M
    seeds: int = 3  # runs of the mix and of each control
    calibration: int = 4  # mixes that are trained to fit the forecast
    block_tokens: int = 256  # longest sequence
    batch_tokens: int = 1_024  # tokens a step
    learning_rate: float = 0.0  # 0: 1e-2 from scratch, 2e-4 from a model, 1e-3 for adapters
    tokenizer: str = "builtin"  # of the small models; a `model` brings its own
    confidence: float = 0.9  # of the forecast's interval
    eval_items: int = 1_000  # of the eval split, at most; drawn by the seed
    seed: int = 0  # the first of them; and of what is drawn
    against: tuple[str, ...] = ()  # rankings that the mix is held against, and "all"
    control_items: int = 128  # documents of the natural mix that show the price; 0: none
    model: str = ""  # whose training goes on, in place of `size`; as a probe is named
    lora: int = 0  # rank of adapters that learn in place of its weights; 0: all weights learn
    outcomes: tuple[str, ...] = ()  # lm-eval:TASK, that every run is asked when it has ended


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Where the work runs. No result depends on it, and no fingerprint holds it."""

    engine: Engine = "local"  # processes, a Ray cluster, or an array of jobs
    workers: int = 0  # processes, or tasks of a batch system's array; 0 chooses
    address: str = ""  # of a Ray cluster, or auto; "" starts one on this machine
    gpus: float = 1.0  # of a GPU for each item on Ray: 0.25 lets four share one
    submit: str = ""  # runs an array script and waits for its end: "sbatch --wait"
    track: Tracker = ""  # where the curves of training runs are sent too; "" is nowhere
    compile: bool = False  # fuse the operations of models that are trained: a minute a size


@dataclass(frozen=True, slots=True)
class Settings:
    """All of `curate.toml`."""

    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    embed: EmbedSettings = field(default_factory=EmbedSettings)
    target: TargetSettings = field(default_factory=TargetSettings)
    rank: RankSettings = field(default_factory=RankSettings)
    mix: MixSettings = field(default_factory=MixSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    run: RunSettings = field(default_factory=RunSettings)
