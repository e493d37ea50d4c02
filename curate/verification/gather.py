"""What the arms are made of: their shards, their documents, and how the index sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from curate.mixing.build import meaning_of
from curate.mixing.dedup import Seen
from curate.mixing.documents import Filters, select_documents
from curate.mixing.foresight import stock_for
from curate.mixing.items import index_target
from curate.mixing.mixture import BY_COUNTS, describe_mixtures, ranked_by, target_pairs
from curate.mixing.sums import sequences_a_token
from curate.ranking.methods import measure
from curate.records import Index, Mix, Notify, Shard
from curate.settings import MixSettings, RankSettings, VerifySettings
from curate.store.publish import read_json
from curate.task2vec.probe import Probe, encode_texts
from curate.task2vec.reading import load_embedding
from curate.task2vec.target import embed_target
from curate.verification.arms import Arm, plan_arms
from curate.verification.blocks import IntArray
from curate.verification.chain import Chain
from curate.verification.control_set import held_out
from curate.verification.documents import cut_documents
from curate.verification.published import Look

LARGEST_LOOK = 2_000
"""Shards up to which shares are compared shard by shard where there is one source only."""


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """Where the documents of the arms come from."""

    chain: Chain
    probe: Probe  # whose tokenizer counts
    control: Sequence[str]  # texts that no arm may hold
    pool: int  # tokens of every arm but `all`
    tokens: int  # labels a run trains on
    seed: int


def plan(
    chain: Chain, settings: VerifySettings, *, tokens: int, workspace: Path, notify: Notify
) -> tuple[Arm, ...]:
    """Return the arms of an experiment with `tokens` tokens each."""
    shards, alignments = ranked(chain)
    in_mix = {part.shard: part.tokens for part in chain.mix.parts}
    room = np.array([int(shard.n_tokens * _epochs(chain.mix)) for shard in shards])
    methods = [name for name in settings.against if name != "all"]
    return plan_arms(
        alignments,
        room,
        np.array([in_mix.get(shard.name, 0) for shard in shards]),
        tokens=min(tokens, int(room.sum())),
        calibration=settings.calibration,
        seeds=settings.seeds,
        rivals={name: _rival(chain, name, shards, workspace, notify) for name in methods},
        all_tokens=(settings.tokens or tokens) if "all" in settings.against else 0,
    )


def _rival(
    chain: Chain, method: str, shards: Sequence[Shard], workspace: Path, notify: Notify
) -> npt.NDArray[np.float64]:
    """Return what another ranking says of each shard, higher is closer."""
    settings = msgspec.convert({"method": method}, RankSettings)
    found = measure(chain.index, chain.target, settings, workspace, "auto", notify)
    values = {
        entry.shard.name: float(value)
        for entry, value in zip(found.shards, found.values, strict=True)
    }
    lowest = min(values.values()) - 1.0  # of a shard that its shortlist left out
    return np.array([values.get(shard.name, lowest) for shard in shards])


def arm_documents(
    source: DocumentSource, arm: Arm, mix_documents: Sequence[IntArray]
) -> Sequence[IntArray]:
    """Return token ids of an arm's documents, through the filters that the mix has passed.

    As many more are drawn as the control set could take out, where the corpus has them.
    """
    if arm.role == "mix":
        return cut_documents(mix_documents, tokens=source.pool)
    chain, like = source.chain, settings_of(source.chain.mix)
    shards, alignments = ranked(chain)
    order = np.argsort(alignments, kind="stable")  # the least aligned shard first
    wanted = min(source.tokens, sum(arm.tokens)) if arm.name == "all" else source.pool
    spare = sum(map(len, encode_texts(source.probe, list(source.control))))
    there = _epochs(chain.mix) * sum(each.shard.n_tokens for each in chain.index.shards)
    chosen = select_documents(
        chain.index,
        {shards[number].name: float(arm.tokens[number]) for number in order},
        budget=wanted + spare if wanted + spare < 0.8 * there else wanted,
        encode=lambda texts: encode_texts(source.probe, texts),
        filters=Filters(
            items=index_target(chain.target, ngram=like.ngram) if like.decontaminate else None,
            seen=Seen(limit=like.near_documents) if like.dedup else None,
            meaning=meaning_of(like, chain.index),
        ),
        max_epochs=_epochs(chain.mix),
        refill="order" if arm.name == "worst" else "share",
        seed=source.seed,
    )
    is_held_out = held_out(source.control)
    texts = [each.text for each in chosen if not is_held_out(each.document.text)]
    order = np.random.default_rng(source.seed).permutation(len(texts))
    return cut_documents(
        encode_texts(source.probe, [texts[number] for number in order]), tokens=wanted
    )


def look_at(
    chain: Chain, mixtures: Sequence[Mapping[str, float]], *, workspace: Path, tokens: int
) -> Look:
    """Return alignment, shares and embedding of mixtures given by their shards' shares."""
    index = chain.index
    named = {str(number): dict(shares) for number, shares in enumerate(mixtures)}
    by_counts = chain.ranking.method in BY_COUNTS
    target = None if by_counts else embed_target(chain.target, index, workspace=workspace)
    stock = stock_for(
        index, chain.ranking, chain.target, settings_of(chain.mix), workspace=workspace
    )
    found = describe_mixtures(
        stock,
        target,
        named,
        tokens=tokens,
        pairs=target_pairs(index, chain.target),
        **ranked_by(chain.ranking),
    )
    return Look(
        alignments=np.array([found[name].alignment for name in named]),
        shares=_grouped(index, mixtures),
        embeddings=_embedded(index, mixtures),
    )


def _grouped(index: Index, mixtures: Sequence[Mapping[str, float]]) -> npt.NDArray[np.float64]:
    """Return shares (n, p) of the sources; of the shards where there is one source."""
    group = {each.shard.name: each.shard.source for each in index.shards}
    if len(set(group.values())) == 1 and len(group) <= LARGEST_LOOK:
        group = {name: name for name in group}
    column = {name: number for number, name in enumerate(dict.fromkeys(group.values()))}
    shares = np.zeros((len(mixtures), len(column)))
    for row, mixture in enumerate(mixtures):
        for name, share in mixture.items():
            shares[row, column[group[name]]] += share
    return shares / shares.sum(axis=1, keepdims=True)


def _embedded(index: Index, mixtures: Sequence[Mapping[str, float]]) -> npt.NDArray[np.float64]:
    """Return log embeddings (n, dim) of mixtures: the mean of their shards', by sequences."""
    sums: npt.NDArray[np.float64] | None = None
    sequences = np.zeros((len(mixtures), 1))
    for each in index.shards:
        shares = np.array([mixture.get(each.shard.name, 0.0) for mixture in mixtures])
        if shares.any():
            one = load_embedding(Path(index.folder), each.key)
            weights = shares[:, None] * sequences_a_token(index, each, one)
            part = weights * one.vectors.mean(axis=0).astype(np.float64)
            sequences += weights
            sums = part if sums is None else sums + part
    if sums is None:  # pragma: no cover - a mixture holds at least one shard
        raise ValueError("no shard in any mixture")
    return np.log(np.maximum(sums / sequences, 1e-300))


def settings_of(mix: Mix) -> MixSettings:
    """Return the settings that a mix was built with, from its manifest."""
    manifest = read_json(Path(mix.folder) / "manifest.json", dict[str, Any])
    return msgspec.convert(manifest["settings"], MixSettings)


def ranked(chain: Chain) -> tuple[list[Shard], npt.NDArray[np.float64]]:
    """Return the shards that are ranked, in the order of the index, and their alignments."""
    by_name = {line.shard: line.alignment for line in chain.ranking.shards}
    shards = [entry.shard for entry in chain.index.shards if entry.shard.name in by_name]
    return shards, np.array([by_name[shard.name] for shard in shards], dtype=np.float64)


def _epochs(mix: Mix) -> float:
    """Return how often controls may repeat a shard: as often as the mix does."""
    return max([1.0, *(part.epochs for part in mix.parts)])
