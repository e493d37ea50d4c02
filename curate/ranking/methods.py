"""What each method reads, and what it measures of every shard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.errors import CurateError
from curate.ranking import baselines
from curate.ranking.alignment import align_all
from curate.ranking.by_counts import by_pairs, by_words
from curate.ranking.candidates import find_candidates
from curate.ranking.index import find_gpu, index_kind
from curate.ranking.measured import (
    EXACT_UP_TO,
    SHORTLIST,
    Measured,
    read_embeddings,
    shortened,
)
from curate.ranking.prepared import corpus_reference
from curate.ranking.samples import draw_items, read_samples
from curate.ranking.stats import Influences
from curate.records import Embedding, Index, IndexedShard, Notify, Target
from curate.settings import EmbedSettings, Measure, Method, RankSettings
from curate.task2vec.reading import load_embedding
from curate.task2vec.target import embed_target

if TYPE_CHECKING:
    from curate.records import Floats

NOISY = 0.8  # raw alignment of the target's halves below which noise is worth a warning
SHORTLISTED: Measure = "scaled"  # what stand-ins order by; other measures align all, however many
READ_ITEMS = 256  # of the target, by the methods that read text


def measure(
    index: Index,
    target: Target,
    settings: RankSettings,
    workspace: Path,
    device: str,
    notify: Notify,
) -> Measured:
    """Measure every shard of an index against a target by the method of the settings.

    Args:
        index: published in `workspace`.
        target: only its select split is read.
        settings: method, measure, confidence, seed.
        workspace: where the target's embedding and the shortlist are cached.
        device: of the probe.
        notify: progress.

    Raises:
        CurateError: an artefact is damaged, or an input changed since it was indexed.
    """
    method = settings.method
    check_method(method, index.embed, target)
    if method == "embedding" and settings.encoder:
        return _by_encoder(index, target, settings, workspace, device, notify)
    if method in ("task2vec", "embedding", "transfer"):
        own = embed_target(target, index, workspace=workspace, device=device, notify=notify)
        if method == "transfer":
            return _by_gradients(index, own, notify)
        if method == "task2vec":
            lone = len(target.select) == 1  # which is warned of, and has one sub-batch
            return _by_fisher(index, own, settings, workspace, device, notify, lone=lone)
        hidden = (found.hidden for found in read_embeddings(index.shards, index, notify))
        return _plain(index, *baselines.hidden_cosine(own.hidden, hidden), own=own)
    if method == "lexical":
        return by_words(index, target, settings, workspace, notify)
    if method == "ngram-lm":
        return by_pairs(index, target, settings, workspace, notify)
    if method == "perplexity":
        losses = np.array([found.loss for found in read_embeddings(index.shards, index, notify)])
        return _plain(index, *baselines.perplexity(losses))
    if method == "length":
        tokens = np.array([entry.shard.n_tokens for entry in index.shards])
        return _plain(index, *baselines.length(tokens))
    if method == "random":
        return _plain(index, *baselines.random(len(index.shards), seed=settings.seed))
    items = draw_items(target.select, READ_ITEMS, seed=settings.seed)
    texts = read_samples(index, seed=settings.seed, workspace=workspace, notify=notify)
    return _plain(index, *baselines.measure_texts(method, items, texts, seed=settings.seed))


def check_method(method: Method, embed: EmbedSettings, target: Target) -> None:
    """Refuse a method that lacks something: here, and by a stage that would have to index first.

    Raises:
        CurateError: what it needs, and what to do.
    """
    if lacking := lacks(method, embed, target):
        raise CurateError(f"method {method}: {lacking}")


def lacks(method: Method, embed: EmbedSettings, target: Target) -> str:
    """Say what a method needs that is not there, and what to do; "" where all is."""
    if method == "transfer" and not embed.gradients:
        return "the index has no gradients; run curate index --gradients"
    if method == "classifier" and len(target.select) < 2:
        return f"target {target.name} has one item to rank by, and it needs two; name another"
    return ""


def _by_fisher(
    index: Index,
    own: Embedding,
    settings: RankSettings,
    workspace: Path,
    device: str,
    notify: Notify,
    *,
    lone: bool,
) -> Measured:
    """Align the target's Fisher embedding with every shard's, or with a shortlist of them."""
    shards, warnings = index.shards, []
    if len(shards) > EXACT_UP_TO and settings.measure == SHORTLISTED and not settings.exact:
        shards, which = _shortlisted(index, own, settings, workspace, device, notify)
        warnings.append(shortened(len(index.shards), len(shards), which))

    def stacks() -> Iterator[Floats]:
        return (found.vectors for found in read_embeddings(shards, index, notify))

    reference = corpus_reference(stacks(), measure=settings.measure, blocks=index.blocks)
    found = align_all(
        own.vectors,
        stacks(),
        measure=settings.measure,
        blocks=index.blocks,
        reference=reference,
        confidence=settings.confidence,
    )
    if (len(own.vectors) < 2 and not lone) or (found.moves.shard_batches < 2).any():
        warnings.append(
            "an embedding has one sub-batch only: its noise is unknown, its interval too narrow"
        )
    if found.raw_ceiling < NOISY:
        warnings.append(
            f"the target's halves align only to {found.raw_ceiling:z.2f} before correction: much "
            "of the difference between shards is noise; more items would help"
        )
    return Measured(
        shards, found.values, found.moves, found.ceiling, found.floor, tuple(warnings), own
    )


def _shortlisted(
    index: Index,
    own: Embedding,
    settings: RankSettings,
    workspace: Path,
    device: str,
    notify: Notify,
) -> tuple[tuple[IndexedShard, ...], str]:
    """Return the shards that are worth exact alignment, in the index's order, and whence."""
    gpu = find_gpu(device)
    numbers = find_candidates(
        index,
        own.vectors,
        load=lambda key: load_embedding(Path(index.folder), key).vectors,
        count=SHORTLIST,
        workspace=workspace,
        seed=settings.seed,
        notify=notify,
        gpu=gpu,
    )
    how = "product on the GPU" if gpu else f"{index_kind(len(index.shards))} index"
    found = tuple(index.shards[number] for number in sorted(numbers))
    return found, f"on the shortlist of the {how}"


def _by_gradients(index: Index, own: Embedding, notify: Notify) -> Measured:
    gradients = (_gradients(found) for found in read_embeddings(index.shards, index, notify))
    return _plain(index, *baselines.transfer(_gradients(own), gradients))


def _gradients(found: Embedding) -> Floats:
    assert found.gradients is not None  # the key of an embedding holds the setting
    return found.gradients


def _by_encoder(
    index: Index,
    target: Target,
    settings: RankSettings,
    workspace: Path,
    device: str,
    notify: Notify,
) -> Measured:
    """Compare mean vectors of a sentence encoder; those of the shards are kept."""
    from curate.ranking.encoder import deal, encode, load_encoder, read_encoded  # seconds

    encoded = read_encoded(
        index,
        settings.encoder,
        seed=settings.seed,
        workspace=workspace,
        device=device,
        notify=notify,
    )
    items = draw_items(target.select, READ_ITEMS, seed=settings.seed)
    own = deal(encode(load_encoder(settings.encoder, device=device), items))
    return _plain(index, *baselines.hidden_cosine(own, encoded))


def _plain(
    index: Index, values: Floats, influence: Influences, *, own: Embedding | None = None
) -> Measured:
    return Measured(index.shards, values, influence, target=own)
