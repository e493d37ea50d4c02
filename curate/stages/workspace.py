"""What the stages share: the folder of a job, its history, its inputs, its target."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from curate.config import CONFIG_NAME
from curate.corpus.targets import load_target, split_weight
from curate.errors import CurateError
from curate.records import Target
from curate.settings import Settings, TargetSettings
from curate.store.history import Note, noting
from curate.store.leftovers import sweep
from curate.store.places import is_file, note_path, noted_path, split_target, user_path
from curate.store.protect import refuse_unwritable
from curate.store.publish import publish_json, read_json
from curate.task2vec.reading import open_index

WORKSPACE = ".curate"


def swept(workspace: str | Path) -> Path:
    """Return the workspace of a stage that writes, without temporary files of killed runs.

    Raises:
        CannotWriteError: it cannot be written to, said before any work is done.
    """
    place = Path(workspace)
    refuse_unwritable(place, option="--workspace")
    sweep(place, held=False)
    return place


def input_files(place: Path) -> list[Path]:
    """Return what the artefacts of a workspace were made from, as far as it is files here."""
    index = open_index(place)
    named = [index.embed.probe, CONFIG_NAME]
    if (place / "target.json").is_file():
        target = _named_target(place)
        named += target_files(target)
        if target.data_dir:  # of what lies there, its own folder alone: it may be the project
            named += [
                str(Path(target.data_dir, below, split_weight(name)[0]))
                for name in (target.name, *target.names)
                for below in ("targets", "")
                if name
            ]
    paths = [user_path(name) for name in named if name]
    return [*(Path(ledger.path) for ledger in index.ledgers), *filter(Path.exists, paths)]


def target_files(wanted: TargetSettings) -> list[str]:
    """Return what a target may be read from: every name, and every file that one names."""
    names = [split_weight(name)[0] for name in (wanted.name, *wanted.names)]
    files = [file for name in names for file in split_target(name)[1]]
    return [name for name in (*names, *files) if name]


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
    return load_target(_named_target(place))


def located(wanted: TargetSettings) -> TargetSettings:
    """Return the settings of a target with its files' whole paths: stages may run elsewhere."""
    found = _with_files(
        wanted, lambda file: str(Path(file).resolve()) if Path(file).is_file() else file
    )
    folder = user_path(wanted.data_dir)
    there = wanted.data_dir and folder.is_dir()
    return dataclasses.replace(found, data_dir=str(folder.resolve())) if there else found


def note_target(place: Path, wanted: TargetSettings) -> None:
    """Note which target was ranked for; files in the project as they lie from the workspace."""
    publish_json(place / "target.json", _with_files(wanted, lambda file: _noted(file, place)))


def _named_target(place: Path) -> TargetSettings:
    def found(file: str) -> str:
        return str(noted_path(file, place)) if _is_beside(file) else file

    return _with_files(read_json(place / "target.json", TargetSettings), found)


def _noted(file: str, place: Path) -> str:
    note = note_path(Path(file), place) if Path(file).is_absolute() else file
    return note if _is_beside(note) else file


def _is_beside(note: str) -> bool:
    """Say whether a note is a path in the project, seen from its workspace."""
    return note.split(os.sep, 1)[0] == os.pardir


def _with_files(wanted: TargetSettings, change: Callable[[str], str]) -> TargetSettings:
    """Return the settings of a target with each file (`NAME=FILE,FILE`) put in another way."""

    def changed(name: str) -> str:
        label, files = split_target(name, lambda file: is_file(file) or is_file(change(file)))
        return f"{label}=" * bool(label) + ",".join(map(change, files))

    weighted = [split_weight(name) for name in wanted.names]
    names = tuple(f"{changed(name)}:{weight:g}" for name, weight in weighted)
    data_dir = wanted.data_dir and change(wanted.data_dir)
    return dataclasses.replace(wanted, name=changed(wanted.name), names=names, data_dir=data_dir)
