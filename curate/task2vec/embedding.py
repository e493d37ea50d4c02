"""Token ids to an embedding: sub-batches through the engine, checked and made small."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from curate.corpus.tokens import count_unigrams, cut_blocks, draw_batches
from curate.errors import USAGE, CurateError
from curate.records import Embedding, RowBlock
from curate.settings import EmbedSettings
from curate.task2vec.batches import micro_batches, tokens_that_fit
from curate.task2vec.documents import DocumentVectors, Gathering, gather, gathered
from curate.task2vec.fisher import FisherRows, fisher_blocks, fisher_rows
from curate.task2vec.forward import keeps_packed_apart
from curate.task2vec.head import tune_head
from curate.task2vec.probe import Probe, encode_texts
from curate.task2vec.published import PublishedSettings, published_blocks, published_rows
from curate.task2vec.quantity import FisherSettings
from curate.task2vec.sites import find_sites
from curate.task2vec.sketch import average_groups, draw_projection, group_rows

if TYPE_CHECKING:
    from curate.records import Counts, Floats

_CPU_BATCH = 4_096  # tokens that stay near the caches
_GPU_BATCH = 131_072
_MOST_PADDING = 0.1  # share of a micro-batch, beyond which sequences share rows
_SHARD_BYTES = 2_000_000  # of an embedding's 16-bit levels, where no width is set


def embed_texts(
    texts: Iterable[str], probe: Probe, settings: EmbedSettings | None = None
) -> Embedding:
    """Embed texts, each a document of its own.

    Args:
        texts: at least one of two tokens; beyond `batches` times `batch_tokens` of `settings`,
            as many as fit are drawn by its seed.
        probe: from `load_probe`.
        settings: what the embedding is; its `probe` is not looked at. None takes the defaults.

    Returns:
        `vectors`: (n_batches, dim) float32, > 0: row means of the Fisher diagonal, squares of
        nats per unit of weight, a line for each sub-batch that got text (at most `batches`); dim
        depends on probe and settings alone. The mean over axis 0 is the Task2Vec embedding
        (Achille et al., arXiv 1902.03545).

    Raises:
        CurateError: a string in place of a list, texts that are too short, or a probe or
            settings that cannot be used.

    Example:
        probe = curate.load_probe("builtin")
        embedding = curate.embed_texts(["def f(x): return x", "def g(y): ..."], probe)
        embedding.vectors.mean(axis=0)
    """
    if isinstance(texts, str):
        raise CurateError("embed_texts takes a list of texts, this is one: [text]", exit_code=USAGE)
    if not isinstance(probe, Probe):
        raise CurateError(
            f"embed_texts takes a probe of curate.load_probe, not {probe!r}", exit_code=USAGE
        )
    held, settings = list(texts), settings or EmbedSettings()
    for text in held:
        if not isinstance(text, str):
            raise CurateError(f"embed_texts takes texts, not {text!r}", exit_code=USAGE)
    check_probe(probe, settings)
    tokens = encode_texts(probe, held)
    unigrams = count_unigrams(tokens, probe.info.vocab)
    return embed_parts("texts", whole_batches(tokens, settings), unigrams, probe, settings)[0]


def embed_parts(
    what: str,
    parts: Sequence[Sequence[Counts]],
    unigrams: Counts,
    probe: Probe,
    settings: EmbedSettings,
    *,
    owners: Sequence[Sequence[int]] | None = None,
) -> tuple[Embedding, DocumentVectors | None]:
    """Embed the sub-batches that hold anything, and from the same pass every document by itself.

    Args:
        what: whose, for messages.
        parts: the sequences of each sub-batch.
        unigrams: (vocab,) how often each token is in all of the text.
        probe: which model.
        settings: what the embedding is.
        owners: number of the document of each sequence; None makes no vectors of documents.

    Raises:
        CurateError: no sequence of two tokens, or the Fisher information is zero or not finite.
    """
    usable = [[n for n, block in enumerate(part) if len(block) > 1] for part in parts]
    blocks = [[parts[k][n] for n in kept] for k, kept in enumerate(usable) if kept]
    if not blocks:
        raise CurateError(
            f"{what}: {int(unigrams.sum())} tokens are too few to embed; leave it out"
        )
    owner = [owners[k][n] for k, kept in enumerate(usable) for n in kept] if owners else []
    if settings.recipe == "published":
        values, hidden, loss = _published(blocks, probe)
        documents = gradients = None
    else:
        found, documents = _by_definition(blocks, probe, settings, owner)
        values, hidden, loss = found.values, found.hidden, found.loss
        gradients = found.gradients
    try:
        if not (np.isfinite(hidden).all() and np.isfinite(loss)):
            raise ValueError("its hidden states or its loss are not finite")
        values = _positive(values, _whole_rows(probe, settings))
    except ValueError as error:
        raise CurateError(f"{what}: {error}; use another probe, or --device cpu") from None
    starts, _ = _groups(probe, settings)
    vectors = np.maximum(average_groups(values, starts), np.finfo(np.float32).tiny)
    embedding = Embedding(
        vectors=vectors.astype(np.float32),
        n_sequences=tuple(len(part) for part in blocks),
        unigrams=unigrams,
        hidden=hidden.astype(np.float32),
        loss=loss,
        gradients=None if gradients is None else gradients.astype(np.float32),
    )
    return embedding, documents


def check_probe(probe: Probe, settings: EmbedSettings) -> tuple[RowBlock, ...]:
    """Return the coordinates that this probe gives.

    Raises:
        CurateError: the settings or the probe's layers do not allow it.
    """
    if settings.block_tokens > probe.max_positions:
        raise CurateError(
            f"probe {probe.info.name}: reads {probe.max_positions} positions, block_tokens is "
            f"{settings.block_tokens}; set [embed] block_tokens = {probe.max_positions}",
            exit_code=USAGE,
        )
    if min(settings.batches, settings.batch_tokens, settings.draws) < 1:
        raise CurateError(
            "[embed] batches, batch_tokens and draws must be at least 1", exit_code=USAGE
        )
    if settings.block_tokens < 2:
        raise CurateError("[embed] block_tokens must be at least 2", exit_code=USAGE)
    if min(settings.sketch, settings.documents, settings.gradients) < 0:
        raise CurateError(
            "[embed] sketch, documents and gradients must not be negative", exit_code=USAGE
        )
    if settings.recipe == "published" and settings.documents + settings.gradients:
        raise CurateError(
            "[embed] the published recipe has no vectors of documents and no mean gradients; "
            "documents = 0, gradients = 0",
            exit_code=USAGE,
        )
    if settings.recipe == "published" and probe.max_positions < PublishedSettings().row_tokens:
        raise CurateError(
            f"probe {probe.info.name}: reads {probe.max_positions} positions, the published "
            f"recipe {PublishedSettings().row_tokens}; use another probe",
            exit_code=USAGE,
        )
    try:
        return _groups(probe, settings)[1]
    except ValueError as error:
        raise CurateError(f"probe {probe.info.name}: {error}", exit_code=USAGE) from None


def whole_batches(tokens: Sequence[Counts], settings: EmbedSettings) -> list[list[Counts]]:
    """Deal every text to one sub-batch; where they are too many, as many as fit."""
    total = sum(len(ids) for ids in tokens)
    if total > settings.batches * settings.batch_tokens:
        return draw_batches(
            tokens,
            batches=settings.batches,
            batch_tokens=settings.batch_tokens,
            block_tokens=settings.block_tokens,
            seed=settings.seed,
        )
    parts: list[list[Counts]] = [[] for _ in range(settings.batches)]
    filled = np.zeros(settings.batches, dtype=np.int64)
    pieces = tokens
    if len(tokens) < settings.batches:  # a few long texts: their parts are dealt out instead
        pieces = cut_blocks(tokens, block_tokens=settings.block_tokens)
    for n in np.random.default_rng(settings.seed).permutation(len(pieces)):
        emptiest = int(np.argmin(filled))
        parts[emptiest] += cut_blocks([pieces[n]], block_tokens=settings.block_tokens)
        filled[emptiest] += len(pieces[n])
    return parts


def _by_definition(
    blocks: Sequence[Sequence[Counts]], probe: Probe, settings: EmbedSettings, owner: Sequence[int]
) -> tuple[FisherRows, DocumentVectors | None]:
    sequences = [block for part in blocks for block in part]
    room, autocast = _batch_tokens(probe, settings), probe.device.type == "cuda"
    longest = max(len(s) for s in sequences)
    gathering = _start_gathering(probe, settings, owner, sequences) if owner else None
    found = fisher_rows(
        probe.model,
        sequences,
        groups=[group for group, part in enumerate(blocks) for _ in part],
        settings=_fisher_settings(settings),
        batch_tokens=room,
        packed=_padding(sequences, room) > _MOST_PADDING
        and keeps_packed_apart(probe.model, longest=longest, autocast=autocast),
        autocast=autocast,
        head=tune_head(probe.model, sequences) if settings.head == "tuned" else None,
        receive=partial(gather, gathering) if gathering else None,
    )
    return found, gathered(gathering) if gathering else None


def _start_gathering(
    probe: Probe, settings: EmbedSettings, owner: Sequence[int], sequences: Sequence[Counts]
) -> Gathering:
    projection = draw_projection(
        _whole_rows(probe, settings),
        width=settings.documents,
        seed=settings.seed,
        device=probe.device,
    )
    return Gathering(projection, tuple(owner), tuple(len(s) for s in sequences))


def _published(blocks: Sequence[Sequence[Counts]], probe: Probe) -> tuple[Floats, Floats, float]:
    """Embed each sub-batch by the published recipe; a sequence is a text."""
    pad = int(probe.tokenizer.eos_token_id or 0)
    values = [published_rows(probe.model, part, pad=pad)[0] for part in blocks]
    last = fisher_rows(  # for the hidden state and the loss, which the recipe does not have
        probe.model,
        [block for part in blocks for block in part],
        groups=[group for group, part in enumerate(blocks) for _ in part],
        settings=FisherSettings(layers="last:1"),
        autocast=probe.device.type == "cuda",
    )
    return np.stack(values), last.hidden, last.loss


def _positive(values: Floats, blocks: Sequence[RowBlock]) -> Floats:
    """Give rows that never got a gradient the smallest value of their matrix."""
    result = values.copy()
    for block in blocks:
        part = result[:, block.start : block.stop]
        if not np.all(np.isfinite(part)) or not np.all(part.max(axis=1) > 0):
            raise ValueError(f"the Fisher information of {block.name} is zero or not finite")
        lowest = np.where(part > 0, part, np.inf).min(axis=1, keepdims=True)
        np.copyto(part, np.broadcast_to(lowest, part.shape), where=part <= 0)
    return np.maximum(result, np.finfo(np.float32).tiny)


def _whole_rows(probe: Probe, settings: EmbedSettings) -> tuple[RowBlock, ...]:
    """Return the coordinates before they are averaged in groups."""
    if settings.recipe == "published":
        return published_blocks(probe.model)
    return fisher_blocks(probe.model, _fisher_settings(settings))


def _groups(
    probe: Probe, settings: EmbedSettings
) -> tuple[npt.NDArray[np.int64], tuple[RowBlock, ...]]:
    """Return where the groups of rows start, and the coordinates that they give."""
    width = settings.sketch or _SHARD_BYTES // (2 * settings.batches)
    return group_rows(_whole_rows(probe, settings), width)


def _fisher_settings(settings: EmbedSettings) -> FisherSettings:
    names = {field.name for field in dataclasses.fields(FisherSettings)} - {"contrast"}
    return FisherSettings(**{name: getattr(settings, name) for name in names})


def _padding(sequences: Sequence[Counts], batch_tokens: int) -> float:
    """Return the share of pads where every sequence has a row of its own."""
    lengths = [len(s) for s in sequences]
    batches = micro_batches(lengths, batch_tokens=batch_tokens)
    return 1 - sum(lengths) / sum(lengths[batch[0]] * len(batch) for batch in batches)


def _batch_tokens(probe: Probe, settings: EmbedSettings) -> int:
    """Return how many tokens fit through the model together, before any runs out of memory."""
    if probe.device.type == "cuda":
        free, most = torch.cuda.mem_get_info(probe.device)[0], _GPU_BATCH
    else:
        free, most = _free_memory(), _CPU_BATCH
    sites = find_sites(probe.model, _fisher_settings(settings))
    fits = tokens_that_fit(
        free,
        widths=[(site.fan_in, site.fan_out) for site in sites if site.form == "matrix"],
        hidden=probe.model.config.get_text_config(decoder=True).hidden_size,
        length=settings.block_tokens,
        element=4,
    )
    return int(np.clip(fits, settings.block_tokens, most))


def _free_memory() -> int:
    """Return the bytes of main memory that are free; 4 GiB where the system does not say."""
    if "SC_AVPHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return 4 << 30
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
