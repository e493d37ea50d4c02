"""Stage: a ranking and a budget to an aligned training mix of exactly that many tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from curate.corpus.shards import read_ranges
from curate.errors import CurateError
from curate.mixing.card import write_card
from curate.mixing.checks import check_out, check_request, check_room
from curate.mixing.decontaminate import index_target
from curate.mixing.dedup import Seen
from curate.mixing.documents import Encode, Filters, select_documents
from curate.mixing.formats import (
    Choice,
    Format,
    WrittenFile,
    read_rows,
    write_lines,
    write_rows,
)
from curate.mixing.mixture import compare_mixtures, mean_vectors, put_in_words
from curate.mixing.publish import clear, publish_files, staging_folder
from curate.mixing.tokenizer import load_encode
from curate.mixing.weights import choose_weights
from curate.records import (
    Embedding,
    Index,
    Mix,
    MixPart,
    MixSettings,
    Notify,
    Ranking,
    Target,
    silent,
)
from curate.store.fingerprint import fingerprint
from curate.store.lock import locked
from curate.store.publish import is_current, publish_json, publish_meta, read_json, read_meta
from curate.task2vec.embed import embed_target

__all__ = ["build_mix", "open_mix", "read_mix_texts", "select_documents"]

RATIO_DOCUMENTS = 64
"""Documents of the best shard that tell how another tokenizer's counts compare."""


def build_mix(
    index: Index,
    ranking: Ranking,
    target: Target,
    settings: MixSettings,
    *,
    workspace: Path,
    out: Path,
    fmt: str = "parquet",
    notify: Notify = silent,
) -> Mix:
    """Write a training mix of exactly `settings.budget` tokens to `out`, with its forecast.

    A mix with the same index, ranking, target and settings is read back, not made again.

    Args:
        index: published in `workspace`.
        ranking: of that index and target.
        target: both its splits are kept out of the mix.
        settings: budget, selection, filters.
        workspace: `mix.json` in it names the latest mix.
        out: the mix's folder; new, empty, or an earlier mix.
        fmt: parquet or jsonl.
        notify: progress in tokens.

    Raises:
        CurateError: settings out of range, index and ranking that do not belong together, a
            folder that holds something else, an input that changed, or a budget that the
            corpus cannot meet (exit code 6).
    """
    check_request(index, ranking, target, settings, fmt=fmt)
    check_out(out, index)
    encode, tokenizer_digest = load_encode(settings.tokenizer or index.embed.probe, index.probe)
    mark = fingerprint(
        index=index.fingerprint,
        ranking=ranking.fingerprint,
        target=(target.name, target.select_digest, target.eval_digest),
        tokenizer=tokenizer_digest,
        settings=settings,
        format=fmt,
    )
    with locked(out):
        if not is_current(out, kind="mix", fingerprint=mark):
            own = embed_target(target, index, workspace=workspace, notify=notify)
            plan = _plan(index, ranking, own, settings, encode)
            clear(out)
            with staging_folder(out) as staging:
                mix = _write(
                    index, ranking, target, settings, own, plan,
                    folder=staging, encode=encode, fmt=_format(fmt), mark=mark, notify=notify,
                )  # fmt: skip
                names = publish_files(staging, out)
            publish_meta(out, kind="mix", fingerprint=mark, files=names, body=mix)
    publish_json(workspace / "mix.json", {"folder": str(out.resolve())})
    return open_mix(workspace)


def open_mix(workspace: Path) -> Mix:
    """Read the latest mix of a workspace, its files held against their digests.

    Raises:
        CurateError: there is none, or a file is missing or changed.
    """
    latest = workspace / "mix.json"
    if not latest.is_file():
        raise CurateError(f"{workspace}: no mix yet; run curate build-mix --budget N first")
    folder = Path(read_json(latest, dict[str, str]).get("folder", ""))
    if not (folder / "meta.json").is_file():
        raise CurateError(f"{folder}: the mix is not there any more; run curate build-mix again")
    _, mix = read_meta(folder, kind="mix", body=Mix)
    return dataclasses.replace(mix, folder=str(folder))


def read_mix_texts(mix: Mix) -> Iterator[tuple[str, int]]:
    """Read every row of a mix: its text and its number of tokens."""
    folder = Path(mix.folder)
    manifest = read_json(folder / "manifest.json", dict[str, Any])
    return read_rows(folder, [file["path"] for file in manifest["files"]])


def _plan(
    index: Index, ranking: Ranking, own: Embedding, settings: MixSettings, encode: Encode
) -> dict[str, int]:
    """Return tokens by shard, best shard first, zeros included."""
    names = [line.shard for line in ranking.shards]
    tokens = np.array([line.tokens for line in ranking.shards], np.int64)
    if settings.tokenizer:
        tokens = np.maximum(1, (tokens * _token_ratio(index, names[0], encode)).astype(np.int64))
        short = settings.budget / (tokens.sum() * settings.max_epochs)
        # An estimate must not refuse a budget: what there really is shows when it is read.
        tokens = tokens if short <= 1 else np.ceil(tokens * short).astype(np.int64)
    check_room(settings, tokens)
    vectors = mean_vectors(index, names) if settings.selection == "match" else None
    parts = choose_weights(
        np.array([line.alignment for line in ranking.shards]),
        tokens,
        budget=settings.budget,
        selection=settings.selection,
        temperature=settings.temperature,
        max_epochs=settings.max_epochs,
        seed=settings.seed,
        vectors=vectors,
        target_vectors=own.vectors,
        blocks=index.blocks,
    )
    return dict(zip(names, parts.tolist(), strict=True))


def _write(
    index: Index,
    ranking: Ranking,
    target: Target,
    settings: MixSettings,
    own: Embedding,
    plan: Mapping[str, int],
    *,
    folder: Path,
    encode: Encode,
    fmt: Format,
    mark: str,
    notify: Notify,
) -> Mix:
    """Write the mix's files into `folder` and return its record."""
    planned = compare_mixtures(index, ranking, own, plan, tokens=settings.budget)
    notify(put_in_words(planned), 0, 0)
    filters = Filters(
        items=index_target(target, ngram=settings.ngram) if settings.decontaminate else None,
        seen=Seen(limit=settings.near_documents) if settings.dedup else None,
    )
    given: dict[str, int] = {}
    counts = {"cut": 0, "repeated": 0}

    def counted() -> Iterator[Any]:
        for chosen in select_documents(
            index, plan, budget=settings.budget, encode=encode, filters=filters,
            max_epochs=settings.max_epochs, refill=_refill(settings), seed=settings.seed,
            notify=notify,
        ):  # fmt: skip
            given[chosen.shard] = given.get(chosen.shard, 0) + chosen.n_tokens
            counts["cut"] += chosen.cut
            counts["repeated"] += chosen.epoch > 0
            yield chosen

    files = write_rows(
        counted(), folder, budget=settings.budget, choices=_choices(ranking, settings), fmt=fmt,
        seed=settings.seed,
    )  # fmt: skip
    written = compare_mixtures(index, ranking, own, given, tokens=settings.budget)
    leaks = [each for each in filters.dropped if each.reason == "leak"]
    copies = [each for each in filters.dropped if each.reason != "leak"]
    mix = Mix(
        folder="",
        target=target.name,
        budget=settings.budget,
        tokens=sum(file.tokens for file in files),
        alignment=written["mix"].alignment,
        low=written["mix"].low,
        high=written["mix"].high,
        forecast=written["mix"].forecast,
        parts=_parts(ranking, given),
        decontaminated=len(leaks),
        duplicates=len(copies),
        ranking_fingerprint=ranking.fingerprint,
        fingerprint=mark,
    )
    write_lines(folder / "decontamination.jsonl", leaks)
    write_lines(folder / "duplicates.jsonl", copies)
    manifest = _manifest(mix, index, target, settings, files) | {
        "planned": planned,
        "written": written,
        "rows": counts | {"all": sum(file.rows for file in files)},
        "near_unchecked": filters.seen.unchecked if filters.seen else 0,
    }
    publish_json(folder / "manifest.json", manifest)
    card = write_card(mix, index=index, target=target, settings=settings, files=files)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return mix


def _manifest(
    mix: Mix,
    index: Index,
    target: Target,
    settings: MixSettings,
    files: list[WrittenFile],
) -> dict[str, Any]:
    return {
        "budget": mix.budget,
        "tokens": mix.tokens,
        "settings": settings,
        "tokenizer": settings.tokenizer or index.embed.probe,
        "probe": index.probe,
        "target": {
            "name": target.name,
            "origin": target.origin,
            "licence": target.licence,
            "select_digest": target.select_digest,
            "eval_digest": target.eval_digest,
            "items": len(target.select) + len(target.eval),
        },
        "index": index.fingerprint,
        "ranking": mix.ranking_fingerprint,
        "inputs": {ledger.path: ledger.digest for ledger in index.ledgers},
        "sources": mix.sources,
        "parts": mix.parts,
        "decontaminated": mix.decontaminated,
        "duplicates": mix.duplicates,
        "files": files,
    }


def _parts(ranking: Ranking, given: Mapping[str, int]) -> tuple[MixPart, ...]:
    return tuple(
        MixPart(
            shard=line.shard,
            source=line.source,
            tokens=given[line.shard],
            epochs=given[line.shard] / max(line.tokens, 1),
            alignment=line.alignment,
        )
        for line in ranking.shards
        if given.get(line.shard)
    )


def _choices(ranking: Ranking, settings: MixSettings) -> dict[str, Choice]:
    return {
        line.shard: Choice(line.alignment, f"{settings.selection}: rank {line.rank}")
        for line in ranking.shards
    }


def _refill(settings: MixSettings) -> Any:
    return "order" if settings.selection == "top" else "share"


def _format(fmt: str) -> Format:
    return "jsonl" if fmt == "jsonl" else "parquet"


def _token_ratio(index: Index, shard: str, encode: Encode) -> float:
    """Return tokens of another tokenizer per token of the probe's, on one shard's beginning."""
    probe_encode, _ = load_encode(index.embed.probe, index.probe)
    (found,) = (each.shard for each in index.shards if each.shard.name == shard)
    texts = [d.text for d in islice(read_ranges(found, text=index.corpus.text), RATIO_DOCUMENTS)]
    counts = [sum(map(len, function(texts))) for function in (encode, probe_encode)]
    return counts[0] / max(counts[1], 1)
