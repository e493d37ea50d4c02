"""What the stages share: the folder of a job, its history, its inputs, its target."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager
from pathlib import Path

from curate.config import CONFIG_NAME
from curate.corpus.targets import load_target, split_weight
from curate.errors import CurateError
from curate.records import Target
from curate.settings import Settings, TargetSettings
from curate.store.history import Note, noting
from curate.store.publish import read_json, sweep
from curate.task2vec.reading import open_index

WORKSPACE = ".curate"


def swept(workspace: str | Path) -> Path:
    """Return the workspace without the temporary files of runs that were killed."""
    sweep(Path(workspace), held=False)
    return Path(workspace)


def input_files(place: Path) -> list[Path]:
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


def noted(
    place: Path, stage: str, command: str, settings: Settings, device: str = "cpu"
) -> AbstractContextManager[Note]:
    """Note a run of a stage in the workspace's history, with the command that repeats it."""
    elsewhere = f" --workspace {shlex.quote(str(place))}" if str(place) != WORKSPACE else ""
    return noting(place, stage=stage, command=command + elsewhere, settings=settings, device=device)


def ranked_target(place: Path) -> Target:
    """Load the target that the latest ranking was made for."""
    path = place / "target.json"
    if not path.is_file():
        raise CurateError(f"{place}: nothing ranked yet; run curate rank --target NAME first")
    return load_target(read_json(path, TargetSettings))
