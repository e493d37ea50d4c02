"""From a ranking to a mix, and to the hub."""

from __future__ import annotations

import shlex
from pathlib import Path

from curate.config import checked, override
from curate.corpus.remote import is_remote
from curate.engine.run import working_on
from curate.errors import USAGE, CurateError
from curate.mixing.build import build_mix as build
from curate.mixing.checks import FOLDERS
from curate.mixing.opened import open_mix
from curate.mixing.push import push_mix
from curate.mixing.upload import check_address, upload_folder
from curate.ranking.rank import open_ranking
from curate.records import Mix, Notify, silent
from curate.settings import Settings
from curate.stages.workspace import WORKSPACE, input_files, noted, ranked_target, swept
from curate.store.fingerprint import digest_bytes
from curate.store.protect import refuse_holding
from curate.task2vec.reading import open_index


def build_mix(
    budget: int | str | None = None,
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
        budget: tokens, or text such as "100M"; None takes `settings.mix.budget`.
        settings: None takes the defaults.
        workspace: where the ranking is.
        out: the mix's folder, or `s3://BUCKET/FOLDER`: the mix is made in the workspace, where
            later stages find it, and a copy is published there, its `meta.json` last.
        fmt: parquet, jsonl, mds, tokens, megatron, or manifest (weights and record ranges, no
            text).
        workers: processes; 0 chooses, and their number changes nothing.
        trainer: transformers, nanotron, olmo-core, torchtitan, axolotl or litgpt: a file beside
            the mix starts it with these files.
        notify: progress.

    Returns:
        The mix; its `folder` is read by `datasets.load_dataset`.

    Raises:
        CurateError: no budget, no ranking yet, a setting out of its range, or a budget that the
            corpus cannot meet (exit code 6); a folder or an address where something else stands.
    """
    asked = settings or Settings()
    settings = checked(override(asked, mix=override(asked.mix, budget=budget)))
    wanted, place = settings.mix, swept(workspace)
    if wanted.budget <= 0:
        raise CurateError(
            "no budget: give --budget 100M or [mix] budget in curate.toml", exit_code=USAGE
        )
    address = str(out) if is_remote(str(out)) else ""
    if address:
        check_address(address)
    else:
        inputs = input_files(place)
        for folder in FOLDERS:  # each may be a link, or a mount
            refuse_holding(Path(out, folder), inputs)
    how = {"manifest": " --manifest-only", "parquet": ""}.get(fmt, f" --format {fmt}")
    command = f"curate build-mix --out {shlex.quote(str(out))}{how}"
    with (
        noted(place, "build-mix", command, Settings(mix=wanted)) as note,
        working_on(settings.run, folder=place / "batch"),
    ):
        found = build(
            open_index(place),
            open_ranking(place),
            ranked_target(place),
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
