"""The embedding of a target: read where it is kept, else made."""

from __future__ import annotations

from pathlib import Path

from curate.corpus.tokens import count_unigrams
from curate.errors import CurateError
from curate.records import Embedding, Index, Notify, Target, silent
from curate.task2vec.vectors import check_embedding, read_embedding, shard_key, write_embedding


def embed_target(
    target: Target,
    index: Index,
    *,
    workspace: Path,
    device: str = "auto",
    notify: Notify = silent,
) -> Embedding:
    """Embed a target's select split with the probe of an index; kept by content.

    Every item goes to one of the sub-batches; of a target larger than all of them together,
    seeded ones do.

    Raises:
        CurateError: the probe is not the index's any more, or the target is too short.
    """
    key = shard_key(target.select_digest, index.embed, index.probe)
    path = workspace / "targets" / f"{key}.safetensors"
    if check_embedding(path) is None:
        notify(f"embedding target {target.name}", 0, 0)
        _publish(target, index, path, device)
    return read_embedding(path)


def _publish(target: Target, index: Index, path: Path, device: str) -> None:
    # A tensor library takes seconds to load, and most targets are embedded already.
    from curate.task2vec.embedding import embed_parts, whole_batches
    from curate.task2vec.items import digest_parts
    from curate.task2vec.probe import encode_texts, load_probe

    probe = load_probe(index.embed.probe, device=device)
    if (probe.info.revision, probe.info.tokenizer_digest) != (
        index.probe.revision,
        index.probe.tokenizer_digest,
    ):
        raise CurateError(
            f"probe {index.embed.probe}: changed since the index was made; run curate index"
        )
    tokens = encode_texts(probe, list(target.select))
    parts = whole_batches(tokens, index.embed)
    unigrams = count_unigrams(tokens, probe.info.vocab)
    found, _ = embed_parts(f"target {target.name}", parts, unigrams, probe, index.embed)
    write_embedding(path, found, blocks=index.blocks, text_digest=digest_parts(parts))
