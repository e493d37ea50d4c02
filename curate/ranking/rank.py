"""Stage: an index and a target to a ranking, each shard with its interval."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from curate.errors import USAGE, CurateError
from curate.ranking.index import log_embedding
from curate.ranking.measured import Measured, read_embeddings, read_unigrams
from curate.ranking.methods import measure
from curate.ranking.stats import rank_intervals, spearman, t_intervals
from curate.records import Embedding, Index, Notify, RankedShard, Ranking, Target, silent
from curate.settings import ALIGNMENTS, RankSettings
from curate.store.fingerprint import digest_texts, fingerprint
from curate.store.leftovers import sweep
from curate.store.lock import locked
from curate.store.meta import is_current, publish_meta, read_meta
from curate.store.publish import publish_json, read_json, read_json_if_whole

if TYPE_CHECKING:
    from curate.records import Floats

ARITHMETIC = 10
"""State of the arithmetic of all methods, measures and intervals; a part of every ranking's
fingerprint. Raise it with any change by which the same index, target and settings would give
other numbers or warnings: a ranking that an earlier state made is then made again."""

FEW_ITEMS = 50  # of a target: up to so many, the ranking carries a warning
MAPPED = 500  # shards on the map: the first ones
WORDS = 4_096  # of the vocabulary, that the map by word counts looks at
COUNTED = 2_000  # shards, at most, whose words are counted for a second opinion


def rank_shards(
    index: Index,
    target: Target,
    settings: RankSettings,
    *,
    workspace: Path,
    device: str = "auto",
    notify: Notify = silent,
) -> Ranking:
    """Order the shards of an index by alignment to a target's select split; publish the ranking.

    A ranking with the same index, items and settings is read back, not made again.

    Args:
        index: published in `workspace`.
        target: only its select split is read.
        settings: method, measure, confidence, resamples.
        workspace: gets `ranking/<target>-<method>/`, and `ranking/latest.json` names it.
        device: of the probe, where the target has to be embedded.
        notify: progress.

    Raises:
        CurateError: a setting out of its range, no shard, no item in the select split, or an
            input that changed.
    """
    check_settings(settings)
    if not index.shards:
        raise CurateError(f"{index.folder}: the index holds no shard; index some documents first")
    if not any(item.strip() for item in target.select):
        raise CurateError(f"target {target.name}: its select split holds no text; name another")
    mark = fingerprint(
        index=index.fingerprint,
        target=target.name,
        items=target.select_digest,
        settings=settings,
        arithmetic=ARITHMETIC,
        **_read_besides(settings),
    )
    folder = workspace / "ranking" / _folder_name(target.name, settings.method)
    with locked(workspace / "ranking", notify=notify):
        if not is_current(folder, kind="ranking", fingerprint=mark):
            sweep(folder)
            found = measure(index, target, settings, workspace, device, notify)
            other = _by_words(found, index, target, settings, workspace, device)
            ranking = _in_order(
                replace(found, warnings=found.warnings + other), index, target, settings, mark
            )
            publish_json(folder / "ranking.json", ranking)
            publish_meta(
                folder, kind="ranking", fingerprint=mark, files=["ranking.json"], body=settings
            )
        publish_json(workspace / "ranking" / "latest.json", {"folder": folder.name})
    return read_json(folder / "ranking.json", Ranking)


def _read_besides(settings: RankSettings) -> dict[str, str]:
    """Return what tells the files that a method reads from others of their name."""
    if settings.method != "embedding" or not settings.encoder:
        return {}
    from curate.ranking.encoder import find_encoder  # seconds

    return {"encoder": find_encoder(settings.encoder)}


def open_ranking(workspace: Path) -> Ranking:
    """Read the latest ranking of a workspace.

    Raises:
        CurateError: there is none, or it is not what was published.
    """
    latest = workspace / "ranking" / "latest.json"
    if not latest.is_file():
        raise CurateError(f"{workspace}: nothing ranked yet; run curate rank --target NAME first")
    folder = latest.parent / Path(read_json(latest, dict[str, str]).get("folder", "")).name
    read_meta(folder, kind="ranking", body=RankSettings)
    return read_json(folder / "ranking.json", Ranking)


def find_ranking(workspace: Path, fingerprint: str) -> Ranking | None:
    """Return the ranking of a workspace that has a fingerprint; None where it is there no more."""
    for path in sorted((workspace / "ranking").glob("*/ranking.json")):
        found = read_json_if_whole(path, Ranking)
        if found is not None and found.fingerprint == fingerprint:
            return found
    return None


def check_settings(settings: RankSettings) -> None:
    """Refuse settings out of range: here, and by a stage that would have to index first.

    Raises:
        CurateError: which, and what it has to be.
    """
    wrong = {
        "confidence": (not 0 < settings.confidence < 1, "between 0 and 1"),
        "bootstrap": (settings.bootstrap < 1, "at least 1"),
    }
    for name, (is_wrong, need) in wrong.items():
        if is_wrong:
            raise CurateError(
                f"[rank] {name} is {getattr(settings, name)}: it has to be {need}", exit_code=USAGE
            )


def _in_order(
    found: Measured, index: Index, target: Target, settings: RankSettings, mark: str
) -> Ranking:
    names = [entry.shard.name for entry in found.shards]
    order = np.lexsort((np.array(names), -np.asarray(found.values)))
    values = found.values[order]
    moves = found.influence
    influence = replace(
        moves,
        target=moves.target[order],
        shard=moves.shard[order],
        shard_batches=moves.shard_batches[order],
        bias=None if moves.bias is None else moves.bias[order],
    )
    low, high = t_intervals(values, influence, confidence=settings.confidence)
    ranks = rank_intervals(
        values,
        influence,
        confidence=settings.confidence,
        draws=settings.bootstrap,
        seed=settings.seed,
    )
    if found.logs:
        values, low, high = np.exp(values), np.exp(low), np.exp(high)
    bounds = (0.0, 1.0) if settings.method in ALIGNMENTS else (-np.inf, np.inf)
    values, low, high = (np.clip(row, *bounds) for row in (values, low, high))
    lines = tuple(
        RankedShard(
            rank=place + 1,
            shard=entry.shard.name,
            source=entry.shard.source,
            tokens=entry.shard.n_tokens,
            alignment=float(values[place]),
            low=float(low[place]),
            high=float(high[place]),
            rank_low=int(ranks.low[place]),
            rank_high=int(ranks.high[place]),
            tied_with_next=bool(ranks.tied_with_next[place]),
        )
        for place, entry in enumerate(found.shards[number] for number in order)
    )
    nearest = tuple(found.shards[number] for number in order[:MAPPED])
    return Ranking(
        target=target.name,
        method=settings.method,
        measure=settings.measure,
        ceiling=found.ceiling,
        floor=found.floor,
        shards=lines,
        select_digest=target.select_digest,
        index_fingerprint=index.fingerprint,
        fingerprint=mark,
        warnings=_warnings(target, lines) + found.warnings,
        map=_map(replace(found, shards=nearest), index, target.name, settings),
    )


def _warnings(target: Target, lines: tuple[RankedShard, ...]) -> tuple[str, ...]:
    warnings, items = [], len(target.select)
    if items == 1:
        warnings.append(
            "the target has 1 item to rank by: what another would change is not known, and no "
            "interval holds it"
        )
    elif items <= FEW_ITEMS:
        warnings.append(
            f"the target has {items} items to rank by: intervals are wide; more than {FEW_ITEMS} "
            "would mend it"
        )
    if len(lines) == 1:
        warnings.append("one shard only: there is nothing to rank it against")
    elif lines[0].tied_with_next and all(line.rank_low == 1 for line in lines):
        warnings.append("no shard can be told from the first: read this order as no order")
    return tuple(warnings)


def _by_words(
    found: Measured, index: Index, target: Target, settings: RankSettings, place: Path, device: str
) -> tuple[str, ...]:
    """Warn where counting words would name another first source than alignment does.

    Word counts forecast the losses of small models better than alignment did
    (docs/experiments.md), and they cost nothing: the index holds them.
    """
    sources = {entry.shard.source for entry in found.shards}
    if settings.method != "task2vec" or len(sources) < 2 or len(found.shards) > COUNTED:
        return ()
    same = replace(index, shards=found.shards)  # of very many, the shortlist of the method
    exact = replace(settings, method="lexical", exact=True)
    counted = measure(same, target, exact, place, device, silent)
    words = counted.values
    first, other = (found.shards[int(v.argmax())].shard for v in (found.values, words))
    if first.source == other.source:
        return ()
    agreement = spearman(found.values, words)
    return (
        f"counting words would put {other.source} first, not {first.source} (rank correlation "
        f"{agreement:z.2f}); look at both with --compare before you believe either",
    )


def _map(
    found: Measured, index: Index, name: str, settings: RankSettings
) -> tuple[tuple[str, float, float], ...]:
    """Place shards and target in the plane: classical scaling of what the method compares."""
    names = [entry.shard.name for entry in found.shards]
    if found.words is not None:
        counted = chain(read_unigrams(found.shards, index, silent), [found.words])
        counts = [sparse.csr_array(row[None], dtype=np.float64) for row in counted]
        return _labelled([*names, name], plane(_word_rows(sparse.vstack(counts, format="csr"))))
    if found.target is None:
        return ()
    fisher = settings.method == "task2vec"

    def row(one: Embedding) -> Floats:
        if fisher:
            return log_embedding(one.vectors, blocks=index.blocks)
        return one.hidden.mean(axis=0).astype(np.float32)

    rows = [row(one) for one in read_embeddings(found.shards, index, silent)]
    return _labelled([*names, name], plane(np.stack([*rows, row(found.target)])))


def _labelled(names: list[str], places: Floats) -> tuple[tuple[str, float, float], ...]:
    return tuple((name, float(x), float(y)) for name, (x, y) in zip(names, places, strict=True))


def _word_rows(counts: Any) -> Floats:
    """Return roots of the shares of the words that are most frequent: distances are Hellinger's.

    Args:
        counts: (n, vocab) sparse: dense, 500 shards of 150,000 words were 2 GB.
    """
    totals = np.maximum(counts.sum(axis=1), 1)
    counts.data /= np.repeat(totals, np.diff(counts.indptr))
    columns = np.sort(np.argsort(-counts.sum(axis=0), kind="stable")[:WORDS])
    return np.sqrt(counts[:, columns].toarray())


def plane(rows: Floats) -> Floats:
    """Return the first two principal coordinates of rows (n, dim), (n, 2), in root mean squares.

    The coordinate of largest size on each axis is positive, so that the map does not flip.
    """
    centred = np.asarray(rows, dtype=np.float64) - rows.mean(axis=0)
    power, directions = np.linalg.eigh(centred @ centred.T / centred.shape[1])
    places = directions[:, ::-1][:, :2] * np.sqrt(np.maximum(power[::-1][:2], 0.0))
    places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    signs = np.sign(places[np.abs(places).argmax(axis=0), [0, 1]])
    return np.asarray(places * np.where(signs == 0, 1.0, signs))


def _folder_name(target: str, method: str) -> str:
    """Return a folder's name for any target: what is not plain is replaced, and told apart."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(target).name).strip(".-")[:60] or "target"
    return f"{plain if plain == target else f'{plain}-{digest_texts([target])[:8]}'}-{method}"
