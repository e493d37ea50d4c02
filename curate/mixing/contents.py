"""A look into a published mix: documents, topics, what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq

from curate.corpus.cluster import fit_topics, name_topics, place_texts
from curate.records import Excerpt, LeftOut, Mix, MixContents, MixTopic
from curate.store.publish import read_json

LOOKED_AT = 2_000
"""Rows of a mix, at most."""

TOPICS = 8
EXCERPT_CHARS = 280
LEFT_OUT = 6
"""Examples of each reason."""

_READ_LINES = 20_000  # of a list of what was left out
_READ_CHARS = 4_000  # of a row: what topics are made of


def read_contents(mix: Mix) -> MixContents:
    """Return some documents of a mix, its topics, and some of the documents left out.

    Topics are clusters of the first 2,000 rows (`corpus/cluster.py`); the rows of a mix are
    shuffled over all its files, so that they are a fair sample. A mix without text (tokens,
    weights only) has neither.
    """
    folder = Path(mix.folder)
    names = [file["path"] for file in read_json(folder / "manifest.json", dict[str, Any])["files"]]
    with_text = [name for name in names if name.endswith((".parquet", ".jsonl"))]
    rows = list(islice(_rows(folder, with_text), LOOKED_AT))
    return MixContents(
        rows=len(rows),
        tokens=sum(tokens for _, tokens in rows),
        examples=_first_of_each(rows, list(mix.sources)),
        topics=_topics(rows),
        left_out=tuple(_left_out(folder)),
    )


def _rows(folder: Path, names: Sequence[str]) -> Iterator[tuple[Excerpt, int]]:
    """Yield the rows of a mix, their text not shortened to an excerpt, and their tokens."""
    for name in names:
        path = folder / name
        if path.suffix == ".jsonl":
            with path.open("rb") as stream:
                yield from map(_row, map(msgspec.json.decode, stream))
            continue
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from map(_row, batch.to_pylist())


def _row(row: dict[str, Any]) -> tuple[Excerpt, int]:
    return Excerpt(row["source"], row["id"], row["text"][:_READ_CHARS]), row["tokens"]


def _first_of_each(
    rows: Sequence[tuple[Excerpt, int]], sources: Sequence[str]
) -> tuple[Excerpt, ...]:
    first: dict[str, Excerpt] = {}
    for row, _ in rows:
        first.setdefault(row.source, row)
    return tuple(_shortened(first[source]) for source in sources if source in first)


def _topics(rows: Sequence[tuple[Excerpt, int]]) -> tuple[MixTopic, ...]:
    texts = [row.text for row, _ in rows]
    if len(texts) < 2 * TOPICS:
        return ()
    topics = fit_topics(texts, count=TOPICS, seed=0)
    labels, gaps = place_texts(texts, topics)
    count = len(topics.centres)
    tokens = np.bincount(labels, [tokens for _, tokens in rows], minlength=count)
    names = name_topics(texts, labels, count=count)
    found = []
    for topic in np.argsort(-tokens, kind="stable").tolist():
        inside = np.flatnonzero(labels == topic)
        if len(inside):
            nearest = rows[int(inside[gaps[inside].argmin()])][0]
            share = float(tokens[topic] / tokens.sum())
            found.append(MixTopic(names[topic], share, _shortened(nearest)))
    return tuple(found)


def _left_out(folder: Path) -> Iterator[LeftOut]:
    seen: dict[str, int] = {}
    for path in (folder / "decontamination.jsonl", folder / "duplicates.jsonl"):
        if not path.is_file():
            continue
        with path.open("rb") as stream:
            for line in islice(stream, _READ_LINES):
                found = msgspec.json.decode(line, type=LeftOut)
                seen[found.reason] = seen.get(found.reason, 0) + 1
                if seen[found.reason] <= LEFT_OUT:
                    yield found


def _shortened(row: Excerpt) -> Excerpt:
    return Excerpt(row.source, row.id, " ".join(row.text.split())[:EXCERPT_CHARS])
