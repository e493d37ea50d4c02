"""From documents to an index."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from glob import iglob
from pathlib import Path

from curate.config import checked, override
from curate.corpus.ledger import check_ledgers
from curate.engine.run import working_on
from curate.errors import REJECTED, USAGE, CurateError
from curate.records import Index, IndexPlan, Notify, silent
from curate.settings import CorpusSettings, Settings
from curate.stages.mirror import catch_up, copied_from
from curate.stages.workspace import WORKSPACE, noted, swept
from curate.store.publish import publish_json, read_json_if_whole
from curate.task2vec.embed import build_index
from curate.task2vec.reading import index_is_current, open_index


def index(
    *inputs: str | Path,
    settings: Settings | None = None,
    configured: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    device: str = "auto",
    notify: Notify = silent,
) -> Index:
    """Cut the inputs into shards and embed each: documents → `workspace/index`.

    Args:
        inputs: files, folders, globs or `hf:org/name`; none takes those of `settings`.
        settings: of the corpus and the embedding; None takes the defaults.
        configured: those of `curate.toml`, where options have changed `settings`. While the
            file stays the same, `rank` keeps an index that was made with other options.
        workspace: folder for everything that is published.
        device: auto, cpu or cuda.
        notify: progress.

    Returns:
        The index, with the ledger of every input file. Shards that could not be embedded are
        left out and named in `rejected`; nothing is raised for them.

    Raises:
        CurateError: no input, nothing readable in it, a setting out of its range, or a probe
            that cannot be had.
    """
    settings = checked(settings)
    corpus, place = _named_corpus(settings, inputs), swept(workspace)
    used = Settings(corpus=corpus, embed=settings.embed)
    with (
        noted(place, "index", "curate index", used, device) as note,
        working_on(settings.run, folder=place / "batch"),
    ):
        found = build_index(
            corpus,
            settings.embed,
            workspace=place,
            device=device,
            workers=settings.run.workers,
            store=copied_from(place) if settings.run.engine == "ray" else "",
            notify=notify,
        )
        note.fingerprint = found.fingerprint
    catch_up(place, notify)
    named = configured or settings
    publish_json(place / "configured.json", Settings(corpus=named.corpus, embed=named.embed))
    return found


def plan(
    *inputs: str | Path,
    settings: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    device: str = "auto",
    notify: Notify = silent,
) -> IndexPlan:
    """Say what `index` would do (documents, tokens, shards, time, disk), and write nothing.

    Args:
        inputs: as for `index`.
        settings: as for `index`.
        workspace: where the index would lie: what is there already counts as done.
        device: auto, cpu or cuda.
        notify: progress.

    Returns:
        Estimates, or exact counts where the corpus is small enough to be read (`exact`).

    Raises:
        CurateError: as `index`, as far as schemas and beginnings of files tell.
    """
    from curate.task2vec.plan import plan_index  # seconds: it embeds a little

    settings = checked(settings)
    corpus = _named_corpus(settings, inputs)
    return plan_index(
        corpus, settings.embed, workspace=Path(workspace), device=device, notify=notify
    )


def rejected(found: Index) -> CurateError | None:
    """Return the error (exit code 3) of an index that rejected more than its settings allow.

    A shard that could not be embedded is always too much.
    """
    if found.rejected:
        first = found.rejected[0]
        count = len(found.rejected) + len(found.shards)
        return CurateError(
            f"{len(found.rejected)} of {count} shards rejected, the first {first.shard.name} "
            f"({first.reason}); the same command tries them again",
            exit_code=REJECTED,
        )
    return check_ledgers(found.ledgers, found.corpus.max_rejected)


def as_indexed(settings: Settings, place: Path) -> Settings:
    """Return the settings with those of the index that is there, unless the file has others."""
    there = (place / "index" / "meta.json").is_file()
    if there and (not settings.corpus.inputs or _as_configured(settings, place)):
        found = open_index(place)
        _check_here(found.corpus.inputs, place)
        return dataclasses.replace(settings, corpus=found.corpus, embed=found.embed)
    return settings


def _check_here(inputs: Sequence[str], place: Path) -> None:
    """Refuse inputs that stand beside the workspace, but not where this process works."""
    for given in inputs:
        if not _any(given, Path()) and _any(given, place.parent):
            raise CurateError(
                f"{given}: not in this folder but in {place.parent}, from where it was indexed; "
                "run there, or index it by its full path"
            )


def _any(name: str, folder: Path) -> bool:
    """Say whether a path or glob, taken from a folder on, names anything."""
    return next(iglob(name, root_dir=folder, recursive=True), None) is not None  # noqa: PTH207


def current_index(settings: Settings, place: Path, device: str, notify: Notify) -> Index:
    """Open the index of these settings, or make it where it is absent or stale."""
    there = (place / "index" / "meta.json").is_file()
    if there and index_is_current(settings.corpus, settings.embed, place):
        return open_index(place)
    notify("index is stale: indexing" if there else "no index yet: indexing", 0, 0)
    return index(settings=settings, workspace=place, device=device, notify=notify)


def _as_configured(settings: Settings, place: Path) -> bool:
    """Say whether the file's settings are still those beside which the index was made."""
    named = read_json_if_whole(place / "configured.json", Settings)
    return named is not None and (named.corpus, named.embed) == (settings.corpus, settings.embed)


def _named_corpus(settings: Settings, inputs: Sequence[str | Path]) -> CorpusSettings:
    if odd := next((each for each in inputs if not isinstance(each, str | Path)), None):
        raise CurateError(f"inputs are given one by one, not as {odd!r}", exit_code=USAGE)
    corpus = override(settings.corpus, inputs=tuple(map(str, inputs)) or None)
    if not corpus.inputs:
        raise CurateError(
            "no corpus named: give paths (curate index PATH...) or [corpus] inputs in curate.toml"
            " (curate init writes one)",
            exit_code=USAGE,
        )
    return corpus
