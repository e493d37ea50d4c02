"""The stages as plain functions: each finds in the workspace what the one before published."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from curate.config import CONFIG_NAME, data_dir, override
from curate.corpus.remote import is_remote
from curate.corpus.shards import check_ledgers
from curate.corpus.targets import load_target, split_weight
from curate.engine.run import working_on
from curate.errors import REJECTED, USAGE, CurateError
from curate.mixing.build import build_mix as build
from curate.mixing.build import open_mix
from curate.mixing.contents import read_contents
from curate.mixing.push import push_mix
from curate.mixing.upload import check_address, upload_folder
from curate.ranking.check import check_alignment
from curate.ranking.compare import compare_methods, side_by_side
from curate.ranking.explain import explain_shard
from curate.ranking.rank import open_ranking, rank_shards
from curate.records import (
    AlignmentCheck,
    Comparison,
    Explanation,
    Index,
    IndexPlan,
    Mix,
    Notify,
    Ranking,
    Target,
    Verification,
    VerificationPlan,
    silent,
)
from curate.report.html import render_report
from curate.settings import CorpusSettings, Settings, TargetSettings
from curate.store.fingerprint import digest_bytes
from curate.store.history import Note, noting, read_history
from curate.store.protect import refuse_holding, refuse_input
from curate.store.publish import publish_bytes, publish_json, read_json, read_json_if_whole, sweep
from curate.task2vec.embed import build_index, index_is_current, open_index
from curate.task2vec.plan import plan_index
from curate.verification.estimate import estimate_verification
from curate.verification.export import TABLES, write_tables
from curate.verification.verify import open_verification, verify_mix

WORKSPACE = ".curate"


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

    Raises:
        CurateError: no input, nothing readable in it, or a probe that cannot be had.
    """
    settings = settings or Settings()
    corpus = _named_corpus(settings, inputs)
    place = _swept(workspace)
    used = Settings(corpus=corpus, embed=settings.embed)
    with (
        _noting(place, "index", "curate index", used, device) as note,
        working_on(settings.run, folder=place / "batch"),
    ):
        found = build_index(
            corpus,
            settings.embed,
            workspace=place,
            device=device,
            workers=settings.run.workers,
            notify=notify,
        )
        note.fingerprint = found.fingerprint
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

    Takes the arguments of `index`.

    Raises:
        CurateError: as `index`, as far as schemas and beginnings of files tell.
    """
    settings = settings or Settings()
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


def rank(
    target: str | Path | tuple[str, ...] | None = None,
    *,
    settings: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    device: str = "auto",
    notify: Notify = silent,
) -> Ranking:
    """Order the shards by alignment to a target; index first where that is needed.

    Args:
        target: a named target, a file or `hf:org/name`; several, each NAME or NAME:WEIGHT; None
            takes that of `settings`.
        settings: None takes the defaults, and the corpus and probe of the index.
        workspace: where the index is, and where the ranking goes.
        device: auto, cpu or cuda.
        notify: progress; also told when the index has to be made first.

    Raises:
        CurateError: no or unknown target, no corpus, or too little data in either.
    """
    settings, place = settings or Settings(), _swept(workspace)
    wanted = settings.target
    if target is not None:
        if isinstance(target, str | Path):
            wanted = dataclasses.replace(wanted, name=str(target), names=())
        else:
            wanted = dataclasses.replace(wanted, name="", names=target)
    if not wanted.name and not wanted.names:
        raise CurateError(
            "no target named: give --target NAME|FILE or [target] name in curate.toml"
            " (curate targets lists the known ones)",
            exit_code=USAGE,
        )
    wanted = _located(dataclasses.replace(wanted, data_dir=data_dir(settings)))
    loaded = load_target(wanted)
    current = _current_index(settings, place, device, notify)
    used = Settings(target=wanted, rank=settings.rank)
    with _noting(place, "rank", "curate rank", used, device) as note:
        ranking = rank_shards(
            current, loaded, settings.rank, workspace=place, device=device, notify=notify
        )
        note.fingerprint = ranking.fingerprint
    publish_json(place / "target.json", wanted)
    return ranking


def compare(
    target: str | Path | tuple[str, ...] | None = None,
    *,
    against: Sequence[str | Path] = (),
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

    Raises:
        CurateError: as `rank`.
    """
    settings, place = settings or Settings(), Path(workspace)
    others = [
        rank(each, settings=settings, workspace=place, device=device, notify=notify)
        for each in against
    ]
    first = rank(target, settings=settings, workspace=place, device=device, notify=notify)
    if others:
        found = side_by_side([first, *others], what="targets")
    else:
        found = compare_methods(
            open_index(place),
            _target(place),
            settings.rank,
            workspace=place,
            device=device,
            notify=notify,
        )
    publish_json(place / "ranking" / f"{found.what}.json", found)
    return found


def check(
    kept: str | Path,
    target: str | Path | tuple[str, ...] | None = None,
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

    Raises:
        CurateError: as `rank`, or the file is not such a ranking.
    """
    ranking = rank(target, settings=settings, workspace=workspace, device=device, notify=notify)
    return check_alignment(ranking, Path(kept))


def explain(
    shard: str,
    target: str | Path | tuple[str, ...] | None = None,
    *,
    settings: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    device: str = "auto",
    notify: Notify = silent,
) -> Explanation:
    """Say why a shard ranks where it does; rank first where that is needed.

    Raises:
        CurateError: as `rank`, no such shard, or a ranking by another method than task2vec.
    """
    settings, place = settings or Settings(), Path(workspace)
    ranking = rank(target, settings=settings, workspace=place, device=device, notify=notify)
    return explain_shard(
        shard,
        index=open_index(place),
        target=_target(place),
        ranking=ranking,
        settings=settings.rank,
        workspace=place,
        device=device,
        notify=notify,
    )


def build_mix(
    budget: int | None = None,
    *,
    settings: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    out: str | Path = "mix",
    fmt: str = "parquet",
    workers: int = 0,
    trainer: str = "",
    notify: Notify = silent,
) -> Mix:
    """Write an aligned training mix of exactly `budget` tokens, with its forecast.

    Args:
        budget: tokens; None takes `settings.mix.budget`.
        settings: None takes the defaults.
        workspace: where the ranking is.
        out: the mix's folder, or `s3://BUCKET/FOLDER`: the mix is made in the workspace, where
            later stages find it, and a copy is published there, its `meta.json` last.
        fmt: parquet, jsonl, or manifest (weights and record ranges, no text).
        workers: processes; 0 chooses, and their number changes nothing.
        trainer: transformers, nanotron, olmo-core, torchtitan, axolotl or litgpt: a file beside
            the mix starts it with these files.
        notify: progress.

    Raises:
        CurateError: no budget, no ranking yet, or a budget that the corpus cannot meet
            (exit code 6); an address where something else stands.
    """
    settings, place = settings or Settings(), _swept(workspace)
    wanted = override(settings.mix, budget=budget)
    if wanted.budget <= 0:
        raise CurateError(
            "no budget: give --budget 100M or [mix] budget in curate.toml", exit_code=USAGE
        )
    address = str(out) if is_remote(str(out)) else ""
    if address:
        check_address(address)
    else:
        refuse_holding(Path(out), _inputs(place))
    how = {"manifest": " --manifest-only", "parquet": ""}.get(fmt, f" --format {fmt}")
    command = f"curate build-mix --out {shlex.quote(str(out))}{how}"
    with (
        _noting(place, "build-mix", command, Settings(mix=wanted)) as note,
        working_on(settings.run, folder=place / "batch"),
    ):
        found = build(
            open_index(place),
            open_ranking(place),
            _target(place),
            wanted,
            workspace=place,
            out=place / "mixes" / digest_bytes(address.encode())[:16] if address else Path(out),
            fmt=fmt,
            workers=workers or settings.run.workers,
            trainer=trainer,
            notify=notify,
        )
        note.fingerprint = found.fingerprint
        if address:
            upload_folder(Path(found.folder), address, notify=notify)
    return found


def verify(
    *,
    settings: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    device: str = "auto",
    train: bool = True,
    notify: Notify = silent,
) -> Verification:
    """Train small models on the mix and on controls; hold the loss against the forecast.

    Args:
        settings: None takes the defaults.
        workspace: where the mix is.
        device: auto, cpu or cuda.
        train: False only checks what is published: of these inputs, unchanged, forecast first.
        notify: progress.

    Raises:
        CurateError: no mix yet, or an eval split that ranking has seen.
    """
    settings, place = settings or Settings(), _swept(workspace)
    command = "curate verify" + ("" if train else " --check")
    with (
        _noting(place, "verify", command, Settings(verify=settings.verify), device) as note,
        working_on(settings.run, folder=place / "batch"),
    ):
        found = verify_mix(
            open_index(place),
            open_ranking(place),
            open_mix(place),
            _target(place),
            settings.verify,
            workspace=place,
            device=device,
            workers=settings.run.workers,
            train=train,
            notify=notify,
        )
        note.fingerprint = found.fingerprint
    return found


def plan_verification(
    *,
    settings: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    device: str = "auto",
) -> VerificationPlan:
    """Say what `verify` will take, from a few steps measured here; nothing is written.

    Args:
        settings: None takes the defaults.
        workspace: where the mix is.
        device: auto, cpu or cuda.

    Raises:
        CurateError: no mix yet, or a setting out of its range.
    """
    settings, place = settings or Settings(), Path(workspace)
    return estimate_verification(
        open_mix(place), _target(place), settings.verify, workspace=place, device=device
    )


def export_verification(out: str | Path, *, workspace: str | Path = WORKSPACE) -> tuple[Path, Path]:
    """Write `ratios.csv` and `metrics.csv` of a verification to a folder; return their paths.

    Raises:
        CurateError: nothing verified yet, or one of the files is an input.
    """
    for name in TABLES:
        refuse_input(Path(out) / name, _inputs(Path(workspace)))
    return write_tables(open_verification(Path(workspace)), Path(out))


def push(
    repo: str,
    *,
    workspace: str | Path = WORKSPACE,
    private: bool = False,
    revision: str = "",
    notify: Notify = silent,
) -> str:
    """Upload the latest mix with its card to the hub as a data set; return its address.

    Args:
        repo: org/name; made where it is not there.
        workspace: whose `mix.json` names the mix; every file is held against its digest first.
        private: of a repository that is made now.
        revision: a branch; "" is main.
        notify: progress.

    Raises:
        CurateError: no mix, a file that changed, no permission, or no hub.
    """
    return push_mix(
        open_mix(Path(workspace)), repo, private=private, revision=revision, notify=notify
    )


def write_report(*, workspace: str | Path = WORKSPACE, out: str | Path | None = None) -> Path:
    """Write everything that the workspace holds as one HTML file; return its path.

    Raises:
        CurateError: there is no index yet, or the file is an input.
    """
    place = Path(workspace)
    path = Path(out) if out else place / "report.html"
    refuse_input(path, _inputs(place))
    found = open_index(place)
    mix = _if_there(open_mix, place, "mix.json")
    html = render_report(
        index=found,
        ranking=_if_there(open_ranking, place, "ranking/latest.json"),
        mix=mix,
        verification=_if_there(open_verification, place, "verify/meta.json"),
        comparisons=_comparisons(place, found),
        contents=read_contents(mix) if mix is not None else None,
        history=read_history(place),
    )
    publish_bytes(path, html.encode("utf-8"))
    return path


def open_artefact(artefact: str, *, workspace: str | Path = WORKSPACE) -> Any:
    """Read back what a stage published: index, ranking, mix or verification.

    Raises:
        CurateError: it is not there, or not what was published.
    """
    openers: dict[str, Any] = {
        "index": open_index,
        "ranking": open_ranking,
        "mix": open_mix,
        "verification": open_verification,
    }
    return openers[artefact](Path(workspace))


def _swept(workspace: str | Path) -> Path:
    """Return the workspace without the temporary files of runs that were killed."""
    sweep(Path(workspace), held=False)
    return Path(workspace)


def _named_corpus(settings: Settings, inputs: Sequence[str | Path]) -> CorpusSettings:
    corpus = override(settings.corpus, inputs=tuple(map(str, inputs)) or None)
    if not corpus.inputs:
        raise CurateError(
            "no corpus named: give paths (curate index PATH...) or [corpus] inputs in curate.toml"
            " (curate init writes one)",
            exit_code=USAGE,
        )
    return corpus


def _inputs(place: Path) -> list[Path]:
    """Return what the artefacts of a workspace were made from, as far as it is files here."""
    index = open_index(place)
    named = [index.embed.probe, CONFIG_NAME]
    if (place / "target.json").is_file():
        target = read_json(place / "target.json", TargetSettings)
        names = [split_weight(name)[0] for name in (target.name, *target.names)]
        named += [target.data_dir, *names]
        named += [file for name in names for file in name.rpartition("=")[-1].split(",")]
    paths = [Path(name).expanduser() for name in named if name]
    return [*(Path(ledger.path) for ledger in index.ledgers), *filter(Path.exists, paths)]


def _noting(
    place: Path, stage: str, command: str, settings: Settings, device: str = "cpu"
) -> AbstractContextManager[Note]:
    """Note a run of a stage in the workspace's history, with the command that repeats it."""
    elsewhere = f" --workspace {shlex.quote(str(place))}" if str(place) != WORKSPACE else ""
    return noting(place, stage=stage, command=command + elsewhere, settings=settings, device=device)


def _comparisons(place: Path, found: Index) -> list[Comparison]:
    """Return the comparisons of targets and of methods that were made on this index."""
    paths = [place / "ranking" / f"{what}.json" for what in ("targets", "methods")]
    there = [read_json(path, Comparison) for path in paths if path.is_file()]
    return [each for each in there if each.index_fingerprint == found.fingerprint]


def _if_there(opener: Any, place: Path, mark: str) -> Any:
    return opener(place) if (place / mark).is_file() else None


def _current_index(settings: Settings, place: Path, device: str, notify: Notify) -> Index:
    """Open the index, or make it where it is absent or stale."""
    there = (place / "index" / "meta.json").is_file()
    if there and (not settings.corpus.inputs or _as_configured(settings, place)):
        found = open_index(place)
        settings = dataclasses.replace(settings, corpus=found.corpus, embed=found.embed)
    if there and index_is_current(settings.corpus, settings.embed, place):
        return open_index(place)
    notify("index is stale: indexing" if there else "no index yet: indexing", 0, 0)
    return index(settings=settings, workspace=place, device=device, notify=notify)


def _as_configured(settings: Settings, place: Path) -> bool:
    """Say whether the file's settings are still those beside which the index was made."""
    named = read_json_if_whole(place / "configured.json", Settings)
    return named is not None and (named.corpus, named.embed) == (settings.corpus, settings.embed)


def _located(wanted: TargetSettings) -> TargetSettings:
    """Make the paths of a file target absolute, so that later stages find it from anywhere."""
    weighted = [split_weight(name) for name in wanted.names]
    names = tuple(f"{_absolute(name)}:{weight:g}" for name, weight in weighted)
    return dataclasses.replace(wanted, name=_absolute(wanted.name), names=names)


def _absolute(name: str) -> str:
    parts = name.split("=", 1)
    files = parts[-1].split(",")
    if not all(Path(file).is_file() for file in files):
        return name
    located = ",".join(str(Path(file).resolve()) for file in files)
    return f"{parts[0]}={located}" if len(parts) == 2 else located


def _target(place: Path) -> Target:
    """Load the target that the latest ranking was made for."""
    path = place / "target.json"
    if not path.is_file():
        raise CurateError(f"{place}: nothing ranked yet; run curate rank --target NAME first")
    return load_target(read_json(path, TargetSettings))
