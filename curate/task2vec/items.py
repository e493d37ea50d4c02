"""Shards as work items: drawn and counted by who reads, embedded by who has a device."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curate.corpus.afar import scratch
from curate.corpus.pairs import count_pairs
from curate.corpus.tokens import count_unigrams, draw_batches
from curate.errors import CurateError
from curate.records import RowBlock, ShardText
from curate.settings import EmbedSettings
from curate.store.arrays import publish_arrays, read_arrays
from curate.store.failpoint import failpoint
from curate.store.fingerprint import fingerprint
from curate.task2vec.documents import write_documents
from curate.task2vec.embedding import check_probe, embed_parts
from curate.task2vec.probe import Probe, load_probe
from curate.task2vec.vectors import (
    StoredEmbedding,
    check_embedding,
    documents_path,
    pack_pairs,
    write_embedding,
)

if TYPE_CHECKING:
    from curate.records import Counts

Drawn = dict[str, npt.NDArray[Any]]
"""The tokens of a shard that are embedded, the counts of all and of each document, by name."""

_device = threading.Lock()
"""Where a process has two shards in hand, one is read or written while the other computes."""


@dataclass(frozen=True, slots=True)
class EmbedItem:
    """What embedding one shard needs; its tokens lie in a file."""

    number: int  # of the shard in the index that is made
    name: str
    tokens: Path  # of `publish_tokens`
    path: Path  # where the embedding is published
    settings: EmbedSettings
    revision: str  # of the probe
    device: str
    held: Drawn | None = None  # its tokens, where the process that read them embeds them
    store: str = ""  # address of the index, where no folder is shared: paths are those below it


@dataclass(frozen=True, slots=True)
class Embedded:
    """A shard whose embedding is published."""

    number: int
    stored: StoredEmbedding


def draw_tokens(text: ShardText, settings: EmbedSettings, *, vocab: int) -> Drawn:
    """Return what of a shard is embedded, and the counts of all its tokens and pairs of them.

    About half a megabyte with the default settings.

    Args:
        text: the shard.
        settings: of the sub-batches.
        vocab: token ids that the probe knows.
    """
    parts, owners = _draw_owned(text.tokens, settings)
    unigrams = count_unigrams(text.tokens, vocab)
    ids, pairs = np.flatnonzero(unigrams), count_pairs(text.tokens, vocab)
    blocks = [block for part in parts for block in part]
    return {
        "tokens": np.concatenate([np.zeros(0, np.int32), *blocks]).astype(np.int32),
        "lengths": np.array([len(block) for block in blocks], np.int32),
        "parts": np.array([len(part) for part in parts], np.int32),
        "owners": np.array([owner for part in owners for owner in part], np.int64),
        "ids": ids.astype(np.int32),
        "counts": unigrams[ids].astype(np.int64),
        "documents": np.array([len(ids) for ids in text.tokens], np.int32),
        "pairs": pack_pairs(pairs),
    }


def publish_tokens(path: Path, drawn: Drawn) -> None:
    """Publish what `draw_tokens` gave, for another process.

    Args:
        path: ends in .safetensors.
        drawn: its arrays.
    """
    publish_arrays(path, drawn)


def embed_item(item: EmbedItem) -> Embedded:
    """Embed one shard and publish it; nothing where it is published already.

    Raises:
        CurateError: too few tokens, a probe that is not the run's, or a file that is gone.
    """
    if item.store:
        made = item.path.parent.parent  # the index, here and on the store
        with scratch(item.store, [item.tokens.relative_to(made).as_posix()]) as folder:
            here = [folder / path.relative_to(made) for path in (item.tokens, item.path)]
            return embed_item(replace(item, store="", tokens=here[0], path=here[1]))
    # Who held the tokens back for this process has just looked for the embedding.
    stored = check_embedding(item.path) if item.held is None else None
    if stored is None:
        drawn = read_arrays(item.tokens)[0] if item.held is None else item.held
        parts, owners = _parts_of(drawn)
        probe = shared_probe(item.settings.probe, item.revision, item.device)
        what = f"shard {item.name}"
        with _device:
            found, documents = embed_parts(
                what, parts, _unigrams(drawn, probe.info.vocab), probe, item.settings,
                owners=owners if item.settings.documents else None,
            )  # fmt: skip
        failpoint("embed.item")
        digest = write_documents(documents_path(item.path), documents) if documents else ""
        stored = write_embedding(
            item.path,
            found,
            blocks=_coordinates(item.settings, item.revision, item.device),
            text_digest=digest_parts(parts),
            documents=digest,
            lengths=drawn["documents"],
            pairs=drawn["pairs"],
        )
    return Embedded(item.number, stored)


@lru_cache(maxsize=1)
def shared_probe(name: str, revision: str, device: str) -> Probe:
    """Load a probe once in this process.

    Raises:
        CurateError: as `load_probe`, or the probe is of another revision by now.
    """
    probe = load_probe(name, device=device)
    if probe.info.revision != revision:
        raise CurateError(f"probe {name}: changed while it was in use; run the command again")
    return probe


@lru_cache(maxsize=1)
def _coordinates(settings: EmbedSettings, revision: str, device: str) -> tuple[RowBlock, ...]:
    """Return the coordinates that a probe gives; finding them again cost more than writing them."""
    return check_probe(shared_probe(settings.probe, revision, device), settings)


def digest_parts(parts: Sequence[Sequence[Counts]]) -> str:
    """Return the digest of the token blocks that are embedded."""
    return fingerprint(parts=[[block.tolist() for block in part] for part in parts])


def _parts_of(drawn: Drawn) -> tuple[list[list[Counts]], list[list[int]]]:
    """Return the sub-batches, and the document of each sequence."""
    blocks = np.split(drawn["tokens"], np.cumsum(drawn["lengths"])[:-1])
    stops = np.cumsum(drawn["parts"]).tolist()
    spans = list(zip([0, *stops], stops, strict=False))
    owners = drawn["owners"].tolist()
    return [blocks[a:b] for a, b in spans], [owners[a:b] for a, b in spans]


def _unigrams(drawn: Drawn, vocab: int) -> Counts:
    counts = np.zeros(vocab, np.int64)
    counts[drawn["ids"]] = drawn["counts"]
    return counts


def _draw_owned(
    tokens: Sequence[Counts], settings: EmbedSettings
) -> tuple[list[list[Counts]], list[list[int]]]:
    """Draw the sub-batches of a shard, and say of which document each sequence is."""
    stops = np.cumsum([len(ids) for ids in tokens])
    places, edges = np.arange(stops[-1]), [0, *stops.tolist()]
    drawn = draw_batches(  # of places in the shard, from which both follow
        [places[a:b] for a, b in itertools.pairwise(edges)],
        batches=settings.batches,
        batch_tokens=settings.batch_tokens,
        block_tokens=settings.block_tokens,
        seed=settings.seed,
    )
    flat = np.concatenate([np.asarray(ids) for ids in tokens])
    owners = [[int(np.searchsorted(stops, b[0], side="right")) for b in part] for part in drawn]
    return [[flat[block] for block in part] for part in drawn], owners
