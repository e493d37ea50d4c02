"""Stage: of very many shards, those whose words are closest to the target's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from curate.ranking.lexical import lexical_values
from curate.records import Index, Notify
from curate.store.arrays import arrays_are_whole, publish_arrays, read_arrays
from curate.store.fingerprint import fingerprint
from curate.store.meta import is_current, publish_meta
from curate.task2vec.reading import load_unigrams

if TYPE_CHECKING:
    from curate.records import Counts, Floats

PART = 4_096  # shards in a file: 160 MB where each holds 5,000 different words


def find_by_words(
    index: Index, wanted: Counts, *, count: int, workspace: Path, notify: Notify
) -> tuple[list[int], Floats]:
    """Return the numbers of the `count` shards of highest lexical alignment, and the corpus.

    No shard is left out by an approximation: every one is measured. The counts are gathered once
    an index and kept in `workspace/ranking/words`, so that another target reads no embedding;
    a run that was killed goes on with the part that it was at.

    Args:
        index: of the corpus.
        wanted: (vocab,) token counts of the target.
        count: shards, at most.
        workspace: where the counts are kept.
        notify: progress.

    Returns:
        Numbers in the order of the index, and the token counts (vocab,) of all shards.
    """
    folder = workspace / "ranking" / "words"
    key = fingerprint(index=index.fingerprint, part=PART)
    names = [f"part-{key[:8]}-{n:05d}.safetensors" for n in range(-(-len(index.shards) // PART))]
    if not is_current(folder, kind="words", fingerprint=key):
        _gather(index, [folder / name for name in names], notify)
        publish_meta(folder, kind="words", fingerprint=key, files=names, body={})
    vocab = index.probe.vocab
    background = np.zeros(vocab)
    for rows, _ in _parts(folder, names, vocab):
        background += np.asarray(rows.sum(axis=0)).ravel()
    values = [
        lexical_values(wanted, rows, totals, background=background)
        for rows, totals in _parts(folder, names, vocab)
    ]
    order = np.argsort(-np.concatenate(values), kind="stable")
    return sorted(order[:count].tolist()), background


def _gather(index: Index, paths: list[Path], notify: Notify) -> None:
    for number, path in enumerate(paths):
        some = index.shards[number * PART : (number + 1) * PART]
        if not arrays_are_whole(path):
            rows = [load_unigrams(Path(index.folder), entry.key) for entry in some]
            columns = [np.flatnonzero(row).astype(np.int32) for row in rows]
            publish_arrays(
                path,
                {
                    "starts": np.cumsum([0, *map(len, columns)]),
                    "columns": np.concatenate(columns),
                    "counts": np.concatenate([r[c] for r, c in zip(rows, columns, strict=True)]),
                },
            )
        notify("gathering word counts", min((number + 1) * PART, len(index.shards)), 0)


def _parts(folder: Path, names: list[str], vocab: int) -> Iterator[tuple[Any, Counts]]:
    """Read the counts part by part: rows (n, vocab), and the tokens (n,) of each."""
    for name in names:
        found, _ = read_arrays(folder / name)
        shape = (len(found["starts"]) - 1, vocab)
        rows = sparse.csr_array((found["counts"], found["columns"], found["starts"]), shape=shape)
        yield rows, np.asarray(rows.sum(axis=1)).ravel()
