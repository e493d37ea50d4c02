"""Why a Task2Vec alignment is what it is: layers, rows of weight matrices, documents."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.ranking.alignment import align_all
from curate.ranking.explain_words import Reasons
from curate.ranking.measured import read_embeddings
from curate.ranking.measures import shortfalls
from curate.ranking.prepared import Prepared, Reference, corpus_reference, prepare
from curate.records import Contribution, Embedding, Index, Notify, RowBlock, Target
from curate.settings import Measure, RankSettings
from curate.task2vec.embedding import embed_texts
from curate.task2vec.probe import encode_texts, load_probe
from curate.task2vec.target import embed_target

if TYPE_CHECKING:
    from curate.records import Floats

COMPARED = 200  # shards that "usual" is the mean of, at most
ROWS = 6  # of the weight matrices


def reasons_by_fisher(
    shard: str,
    documents: Sequence[str],
    *,
    index: Index,
    target: Target,
    settings: RankSettings,
    workspace: Path,
    device: str,
    notify: Notify,
) -> Reasons:
    """Say which layers and rows take away from a shard's alignment; align its documents.

    Args:
        shard: its name.
        documents: of the shard, embedded one by one.
        index: of the corpus.
        target: that the ranking is for.
        settings: of that ranking.
        workspace: where the target's embedding is kept.
        device: of the probe.
        notify: progress.
    """
    own = embed_target(target, index, workspace=workspace, device=device, notify=notify)
    reference = _reference(index, settings.measure, notify)
    layers, rows = _contributions(index, own, shard, settings.measure, reference, notify)
    found = _documents(documents, own, index, settings.measure, reference, device, notify)
    return Reasons(layers, rows, found)


def _reference(index: Index, measure: Measure, notify: Notify) -> Reference | None:
    stacks = (found.vectors for found in read_embeddings(index.shards, index, notify))
    return corpus_reference(stacks, measure=measure, blocks=index.blocks)


def _contributions(
    index: Index,
    own: Embedding,
    shard: str,
    measure: Measure,
    reference: Reference | None,
    notify: Notify,
) -> tuple[tuple[Contribution, ...], tuple[Contribution, ...]]:
    """Return what each layer takes away, and the rows that take most more than usual."""

    def made(stack: Floats) -> Prepared:
        return prepare(stack, measure=measure, blocks=index.blocks, reference=reference)

    left = made(own.vectors)
    step = max(1, -(-len(index.shards) // COMPARED))
    some = tuple(e for n, e in enumerate(index.shards) if n % step == 0 or e.shard.name == shard)
    usual, count, mine, values = np.zeros(left.mean.shape[1]), 0, None, left.mean[0]
    for entry, found in zip(some, read_embeddings(some, index, notify), strict=True):
        right = made(found.vectors)
        lost = shortfalls(
            left.mean[0],
            left.variance[0],
            right.mean[0],
            right.variance[0],
            measure=measure,
            weights=left.weights,
        )
        usual, count = usual + lost, count + 1
        if entry.shard.name == shard:
            mine, values = lost, right.mean[0]
    assert mine is not None, "the shard is in the ranking"
    pair = (mine / _total(mine), usual / count / _total(usual / count))
    return _by_layer(index.blocks, pair), _by_row(index.blocks, pair, (left.mean[0], values))


def _total(lost: Floats) -> float:
    """Return the sum that shares are of; where noise alone differs, the sum of sizes."""
    total = float(lost.sum())
    return total if total > 0 else max(float(np.abs(lost).sum()), 1e-300)


def _by_layer(
    blocks: Sequence[RowBlock], shares: tuple[Floats, Floats]
) -> tuple[Contribution, ...]:
    layers: dict[int, list[float]] = {}
    for block in blocks:
        sums = layers.setdefault(block.layer, [0.0, 0.0])
        for place, share in enumerate(shares):
            sums[place] += float(share[block.start : block.stop].sum())
    return tuple(
        Contribution(f"layer {layer}", share, usual, np.nan, np.nan)
        for layer, (share, usual) in sorted(layers.items())
    )


def _by_row(
    blocks: Sequence[RowBlock], shares: tuple[Floats, Floats], values: tuple[Floats, Floats]
) -> tuple[Contribution, ...]:
    stops = np.array([block.stop for block in blocks])
    result = []
    for place in np.argsort(-(shares[0] - shares[1]), kind="stable")[:ROWS].tolist():
        block = blocks[int(np.searchsorted(stops, place, side="right"))]
        numbers = (float(each[place]) for each in (*shares, *values))
        result.append(Contribution(f"{block.name}[{place - block.start}]", *numbers))
    return tuple(result)


def _documents(
    texts: Sequence[str],
    own: Embedding,
    index: Index,
    measure: Measure,
    reference: Reference | None,
    device: str,
    notify: Notify,
) -> tuple[tuple[float, str], ...]:
    probe = load_probe(index.embed.probe, device=device)
    long = [text for text in texts if len(encode_texts(probe, [text])[0]) > 1]
    settings = dataclasses.replace(index.embed, batches=1)
    stacks = []
    for number, text in enumerate(long, start=1):
        stacks.append(embed_texts([text], probe, settings).vectors)
        notify("embedding documents", number, len(long))
    found = align_all(
        own.vectors, stacks, measure=measure, blocks=index.blocks, reference=reference
    )
    order = np.argsort(-found.raw, kind="stable")
    return tuple((float(found.raw[n]), long[n]) for n in order)
