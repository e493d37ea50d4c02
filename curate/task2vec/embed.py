"""Stage: every shard to its embedding, each done once."""

from __future__ import annotations

from pathlib import Path

from curate.corpus.copies import refresh_remote
from curate.records import Index, Notify, silent
from curate.settings import CorpusSettings, EmbedSettings
from curate.store.leftovers import sweep
from curate.store.lock import locked
from curate.task2vec.reading import index_is_current, open_index


def build_index(
    corpus: CorpusSettings,
    embed: EmbedSettings,
    *,
    workspace: Path,
    device: str = "auto",
    workers: int = 0,
    store: str = "",
    notify: Notify = silent,
) -> Index:
    """Embed every shard of a corpus and publish `workspace/index`.

    A shard whose embedding is published under its content key is not embedded again, so the
    same command resumes, and one changed shard costs one shard. A shard that cannot be embedded
    is tried again alone, then left out and named with its reason (`Index.rejected`).

    Args:
        corpus: which documents, and how they are cut into shards.
        embed: what the embedding is.
        workspace: folder for everything that is published.
        device: auto, cpu or cuda.
        workers: processes that embed; 0 takes one a GPU or core where the input is large.
        store: address of the workspace, where workers share no folder with this process: they
            publish embeddings there, and not in `workspace`.
        notify: told the tokens done; their total is not known before the end.

    Raises:
        CurateError: no documents, a probe that cannot be had or used, a lock, a full disk, or
            not one shard that can be embedded.
    """
    folder = workspace / "index"
    with locked(folder, notify=notify):
        sweep(folder)
        refresh_remote(corpus.inputs, workspace=workspace, notify=notify)
        if index_is_current(corpus, embed, workspace) and not open_index(workspace).rejected:
            return open_index(workspace)
        from curate.task2vec.making import make_index  # seconds: the probe and its libraries

        return make_index(
            corpus, embed, workspace=workspace, device=device, workers=workers, store=store,
            notify=notify,
        )  # fmt: skip
