"""From an index and a target to a ranking."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from curate.config import checked, data_dir, without_reading
from curate.corpus.targets import load_target
from curate.errors import USAGE, CurateError
from curate.ranking.check import check_alignment
from curate.ranking.compare import compare_methods, side_by_side
from curate.ranking.explain import explain_shard
from curate.ranking.methods import check_method
from curate.ranking.rank import check_settings, rank_shards
from curate.records import AlignmentCheck, Comparison, Explanation, Notify, Ranking, silent
from curate.settings import Settings
from curate.stages.indexing import as_indexed, current_index
from curate.stages.workspace import (
    WORKSPACE,
    located,
    note_target,
    noted,
    ranked_target,
    swept,
    target_files,
)
from curate.store.publish import publish_json
from curate.task2vec.reading import open_index


def rank(
    target: str | Path | Sequence[str | Path] | None = None,
    *,
    settings: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    device: str = "auto",
    notify: Notify = silent,
) -> Ranking:
    """Order the shards by alignment to a target; index first where that is needed.

    Args:
        target: a named target, a file or `hf:org/name`; a list of several, each NAME or
            NAME:WEIGHT; None takes that of `settings`.
        settings: None takes the defaults, and the corpus and probe of the index.
        workspace: where the index is, and where the ranking goes.
        device: auto, cpu or cuda.
        notify: progress; also told when the index has to be made first.

    Returns:
        Every shard, closest first, with its interval and the ranks that the interval allows.

    Raises:
        CurateError: no or unknown target, no corpus, a setting out of its range, or too little
            data in either.
    """
    settings, place = checked(settings), swept(workspace)
    wanted = settings.target
    if isinstance(target, str | Path):
        named = str(target)
        wanted = dataclasses.replace(without_reading(wanted, named), name=named, names=())
    elif target is not None:
        names = tuple(map(str, target))
        wanted = dataclasses.replace(without_reading(wanted, names), name="", names=names)
    if not wanted.name and not wanted.names:
        raise CurateError(
            "no target named: give --target NAME|FILE or [target] name in curate.toml"
            " (curate targets lists the known ones)",
            exit_code=USAGE,
        )
    check_settings(settings.rank)
    asked = dataclasses.replace(wanted, data_dir=data_dir(settings))
    wanted = located(asked)
    loaded = load_target(wanted)
    settings = as_indexed(settings, place)
    check_method(settings.rank.method, settings.embed, loaded)
    current = current_index(settings, place, device, notify)
    inputs = {Path(ledger.path).resolve() for ledger in current.ledgers}
    if shared := [file for file in target_files(wanted) if Path(file).resolve() in inputs]:
        notify(f"{shared[0]} is target and input: what came from it ranks by itself", 0, 0)
    if both := len(set(loaded.select) & set(loaded.eval)):
        notify(f"{both} items are in both splits of the target: verify will refuse them", 0, 0)
    used = Settings(target=asked, rank=settings.rank)  # repeated where the corpus is named so
    with noted(place, "rank", "curate rank", used, device) as note:
        ranking = rank_shards(
            current, loaded, settings.rank, workspace=place, device=device, notify=notify
        )
        note.fingerprint = ranking.fingerprint
    note_target(place, wanted)
    return ranking


def compare(
    target: str | Path | Sequence[str | Path] | None = None,
    *,
    against: str | Path | Sequence[str | Path] = (),
    settings: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    device: str = "auto",
    notify: Notify = silent,
) -> Comparison:
    """Rank by every method; or by one, against several targets. The ranking of `rank` is last.

    Args:
        target: as for `rank`; the workspace is left with its ranking.
        against: more targets, read with the same text field or template; none: every method.
        settings: None takes the defaults.
        workspace: as for `rank`.
        device: auto, cpu or cuda.
        notify: progress.

    Returns:
        A column a method, or a column a target, and how far each two agree.

    Raises:
        CurateError: as `rank`, or two targets of one name.
    """
    settings, place = checked(settings), Path(workspace)
    others = [
        rank(each, settings=settings, workspace=place, device=device, notify=notify)
        for each in ([against] if isinstance(against, str | Path) else against)
    ]
    first = rank(target, settings=settings, workspace=place, device=device, notify=notify)
    if others:
        found = side_by_side([first, *others], what="targets")
    else:
        found = compare_methods(
            open_index(place),
            ranked_target(place),
            settings.rank,
            workspace=place,
            device=device,
            notify=notify,
        )
    publish_json(place / "ranking" / f"{found.what}.json", found)
    return found


def check(
    kept: str | Path,
    target: str | Path | Sequence[str | Path] | None = None,
    *,
    settings: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    device: str = "auto",
    notify: Notify = silent,
) -> AlignmentCheck:
    """Rank, and hold the ranking against a kept one: did a change of the data lower alignment?

    Args:
        kept: what `curate rank --json` printed before the change.
        target: as for `rank`; the same as then.
        settings: as for `rank`.
        workspace: as for `rank`.
        device: auto, cpu or cuda.
        notify: progress.

    Returns:
        Before and after for the corpus and each source; `fell` where the intervals are apart.

    Raises:
        CurateError: as `rank`, or the file is not a ranking of this target and method.
    """
    ranking = rank(target, settings=settings, workspace=workspace, device=device, notify=notify)
    return check_alignment(ranking, Path(kept))


def explain(
    shard: str,
    target: str | Path | Sequence[str | Path] | None = None,
    *,
    settings: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    device: str = "auto",
    notify: Notify = silent,
) -> Explanation:
    """Say why a shard ranks where it does; rank first where that is needed.

    Args:
        shard: its name in the ranking.
        target: as for `rank`.
        settings: as for `rank`.
        workspace: as for `rank`.
        device: auto, cpu or cuda.
        notify: progress.

    Returns:
        What takes most from the alignment of the shard (words, or layers and rows of the probe),
        and its documents nearest to the target and farthest from it.

    Raises:
        CurateError: as `rank`, no such shard, or a ranking by a method other than ngram-lm,
            lexical and task2vec.
    """
    settings, place = checked(settings), Path(workspace)
    ranking = rank(target, settings=settings, workspace=place, device=device, notify=notify)
    return explain_shard(
        shard,
        index=open_index(place),
        target=ranked_target(place),
        ranking=ranking,
        settings=settings.rank,
        workspace=place,
        device=device,
        notify=notify,
    )
