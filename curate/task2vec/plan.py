"""Stage: what indexing a corpus would do and cost, by a look at its files and a short trial."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from curate.corpus.cluster import choose_count
from curate.corpus.inputs import InputFile, find_inputs
from curate.corpus.pairs import count_pairs
from curate.corpus.reader import check_inputs, describe_lack
from curate.corpus.regroup import check_grouping
from curate.corpus.survey import Survey, survey_source
from curate.corpus.tokens import count_unigrams
from curate.records import IndexPlan, Notify, PlannedSource, silent
from curate.settings import CorpusSettings, EmbedSettings
from curate.task2vec.embedding import check_probe, embed_parts, whole_batches
from curate.task2vec.probe import Probe, encode_texts, load_probe
from curate.task2vec.vectors import write_embedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curate.records import Counts

MEAN_FILL = 0.75
"""Of `shard_tokens` in a shard that is not its source's last: its end is in its second half."""

TRIAL_TOKENS = 4_096

PAIR_BYTES = 2
"""Of a different pair of tokens, packed."""


def plan_index(
    corpus: CorpusSettings,
    embed: EmbedSettings,
    *,
    workspace: Path,
    device: str = "auto",
    notify: Notify = silent,
) -> IndexPlan:
    """Estimate documents, tokens, shards, time and disk of an index; write nothing.

    Large files are read in part (4 MiB of each, of at most 64 files a source); time is that of
    embedding a few thousand tokens of them with the probe on this machine.

    Args:
        corpus: as `build_index`.
        embed: as `build_index`.
        workspace: as `build_index`; it is not touched.
        device: auto, cpu or cuda.
        notify: progress.

    Raises:
        CurateError: no such input, no field of that name, a probe that cannot be had.
    """
    kind = check_grouping(corpus)
    uncounted = tuple(n for n in corpus.inputs if n.startswith("hf:") or "://" in n)
    local = [name for name in corpus.inputs if name not in uncounted]
    skipped: list[Path] = []
    files = (
        find_inputs(local, workspace=workspace, skipped=skipped, by_folder=kind == "folder")
        if local
        else []
    )
    check_inputs(files, text=corpus.text)
    if kind == "field" and (lack := describe_lack(files, label=corpus.group_by[len("field:") :])):
        notify(lack, 0, 0)
    probe = load_probe(embed.probe, device=device)
    check_probe(probe, embed)
    began = time.monotonic()
    surveys, samples = _survey(files, corpus, probe, notify)
    read_s = time.monotonic() - began
    for refused in [found.refused for _, _, found in surveys if found.refused][:3]:
        notify(refused, 0, 0)
    sources = tuple(
        PlannedSource(
            source=source,
            files=n_files,
            n_bytes=found.n_bytes,
            documents=round(found.documents),
            tokens=round(found.tokens),
            shards=_shards(found.tokens, corpus.shard_tokens),
        )
        for source, n_files, found in surveys
    )
    tokens = sum(found.tokens for _, _, found in surveys)
    looked = sum(min(found.chars, 1 << 22) for _, _, found in surveys)
    chars = sum(found.chars for _, _, found in surveys)
    shards = sum(one.shards for one in sources)
    if kind == "cluster":
        n_groups = corpus.clusters or choose_count(round(chars), shard_tokens=corpus.shard_tokens)
        shards = max(n_groups, _shards(tokens, corpus.shard_tokens))
    ids = encode_texts(probe, list(samples))
    seconds, shard_bytes = _trial(ids, probe, embed)
    shard_bytes += estimate_pair_bytes(ids, probe.info.vocab, tokens=tokens / max(shards, 1))
    most = embed.batches * embed.batch_tokens  # of each shard
    embedded = (
        min(tokens, shards * most)
        if kind == "cluster"
        else sum(min(one.tokens, one.shards * most) for one in sources)
    )
    passes = {"cluster": 3, "field": 2}.get(kind, 1)
    return IndexPlan(
        sources=sources,
        shards=shards,
        seconds=seconds * embedded + passes * read_s * chars / max(1.0, looked),
        disk_bytes=shards * shard_bytes + _grouped_bytes(samples, chars, passes),
        exact=all(found.exact for _, _, found in surveys),
        skipped=len(skipped),
        uncounted=uncounted,
    )


def _survey(
    files: Sequence[InputFile], corpus: CorpusSettings, probe: Probe, notify: Notify
) -> tuple[list[tuple[str, int, Survey]], list[str]]:
    samples: list[str] = []
    found = []
    sources = [(name, list(group)) for name, group in groupby(files, key=lambda f: f.source)]
    for number, (source, group) in enumerate(sources, start=1):
        survey = survey_source(
            group,
            text=corpus.text,
            encode=lambda texts: encode_texts(probe, texts),
            samples=samples,
        )
        found.append((source, len(group), survey))
        notify("looking into files", number, len(sources))
    return found, samples


def _shards(tokens: float, shard_tokens: int) -> int:
    return max(1, round(tokens / (MEAN_FILL * shard_tokens))) if tokens else 0


def estimate_pair_bytes(ids: Sequence[Counts], vocab: int, *, tokens: float) -> int:
    """Return what the token pairs of a shard of so many tokens take, about, from a sample.

    The number of different pairs grows as a power of the text (Heaps), which half of the sample
    tells from all of it; as the power falls with more text, this is rather too much.
    """
    seen = sum(map(len, ids))
    if not seen:
        return 0
    half, whole = (len(count_pairs(part, vocab).after) for part in (ids[::2], ids))
    text = sum(map(len, ids[::2])) / seen
    power = np.log(whole / max(half, 1)) / -np.log(text) if 0 < text < 1 else 1.0
    different = whole * (tokens / seen) ** min(max(power, 0.0), 1.0)
    return round(different * PAIR_BYTES)


def _trial(ids_of: Sequence[Counts], probe: Probe, embed: EmbedSettings) -> tuple[float, int]:
    """Return seconds a token and bytes a shard, from embedding the first of the texts' tokens."""
    begun = np.cumsum([0, *map(len, ids_of)])
    cut = [ids[: max(0, TRIAL_TOKENS - n)] for ids, n in zip(ids_of, begun, strict=False)]
    texts = [ids for ids in cut if len(ids) > 1]
    if not texts:
        return 0.0, 0
    trial = replace(embed, batches=1, batch_tokens=TRIAL_TOKENS)
    unigrams = count_unigrams(texts, probe.info.vocab)
    began = time.monotonic()
    found, _ = embed_parts("texts", whole_batches(texts, trial), unigrams, probe, trial)
    seconds = (time.monotonic() - began) / sum(map(len, texts))
    vectors, hidden = (np.repeat(rows, embed.batches, axis=0)
                       for rows in (found.vectors, found.hidden))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.safetensors"
        blocks = check_probe(probe, embed)
        one = replace(found, vectors=vectors, hidden=hidden)
        write_embedding(path, one, blocks=blocks, text_digest="")
        return seconds, sum(file.stat().st_size for file in Path(folder).iterdir())


def _grouped_bytes(samples: Sequence[str], chars: float, passes: int) -> int:
    """Return what the group files of a regrouped corpus take."""
    data = "\n".join(samples).encode("utf-8", "surrogatepass")
    if passes == 1 or not data:
        return 0
    return round(len(pa.compress(data, codec="zstd", asbytes=True)) / len(data) * chars)
