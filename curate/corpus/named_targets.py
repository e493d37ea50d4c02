"""The named targets: what targets.toml says of them, and where each can be read now."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from curate.errors import CurateError
from curate.records import NamedTarget
from curate.store.places import user_path

ENDINGS = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet")


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """One entry of targets.toml."""

    name: str
    about: str
    hub: str
    revision: str  # commit; "" where none is known: resolved when read, and recorded
    licence: str
    template: str
    select: tuple[str, ...]  # local split names
    eval: tuple[str, ...]  # none: select is split by item
    hub_select: tuple[str, ...]  # files of the data set
    hub_eval: tuple[str, ...]
    hub_template: str = ""  # where the hub's fields have other names


def known_targets() -> dict[str, TargetSpec]:
    """Return the named targets by name."""
    return dict(_registry())


def list_targets(data_dir: str = "", *, ask_hub: bool = False) -> tuple[NamedTarget, ...]:
    """List the named targets, and where each can be read now.

    Args:
        data_dir: folder of targets; "" takes the environment's `CURATE_DATA_DIR`.
        ask_hub: look into the hub's cache, and ask the hub for those that are not at hand.
    """
    specs = known_targets()
    folders = {name: str(local_folder(spec, data_dir) or "") for name, spec in specs.items()}
    reach = dict.fromkeys(specs, "")
    if ask_hub:
        from curate.corpus.hub import find_reachable  # the hub client takes seconds to import

        wanted = {
            spec.name: (spec.hub, spec.revision, (*spec.hub_select, *spec.hub_eval))
            for spec in specs.values()
            if not folders[spec.name] and not missing_split(spec, data_dir)
        }
        reach |= find_reachable(wanted)
    return tuple(
        NamedTarget(
            name=spec.name,
            hub=f"{spec.hub}@{spec.revision}" if spec.revision else spec.hub,
            select=", ".join(spec.select) if spec.eval else f"half of {', '.join(spec.select)}",
            eval=", ".join(spec.eval) or "the other half",
            licence=spec.licence,
            at_hand=folders[spec.name],
            about=spec.about,
            reach="folder" if folders[spec.name] else reach[spec.name],
        )
        for spec in specs.values()
    )


def local_folder(spec: TargetSpec, data_dir: str) -> Path | None:
    """Return the folder that holds all splits of a target, None where none does.

    Args:
        spec: the target.
        data_dir: looked into, also in its `targets/`; "" takes `CURATE_DATA_DIR`.

    Raises:
        CurateError: there is no such folder.
    """
    return next((each for each in _folders(spec, data_dir) if not _missing(spec, each)), None)


def missing_split(spec: TargetSpec, data_dir: str) -> Path | None:
    """Return the file of a split that a folder with the other lacks, None where there is none.

    Args:
        spec: the target, of which no folder holds all splits.
        data_dir: as of `local_folder`.
    """
    lacking = [_missing(spec, folder) for folder in _folders(spec, data_dir)]
    return next((each[0] for each in lacking if len(each) == 1 and spec.eval), None)


def _folders(spec: TargetSpec, data_dir: str) -> list[Path]:
    root = data_dir or os.environ.get("CURATE_DATA_DIR", "")
    if root and not user_path(root).is_dir():
        raise CurateError(
            f"{root}: no such folder of targets; mend --data-dir, [target] data_dir or"
            " CURATE_DATA_DIR"
        )
    places = ("targets", "") if root else ()
    return [user_path(root) / place / spec.name for place in places]


def _missing(spec: TargetSpec, folder: Path) -> list[Path]:
    files = [split_file(folder, split) for split in (*spec.select, *spec.eval)]
    return [file for file in files if not file.is_file()]


def split_file(folder: Path, split: str) -> Path:
    """Return the file of a split, whatever its ending; `.jsonl` where there is none."""
    for ending in ENDINGS:
        if (folder / f"{split}{ending}").is_file():
            return folder / f"{split}{ending}"
    return folder / f"{split}.jsonl"


@cache
def _registry() -> dict[str, TargetSpec]:
    text = files("curate.corpus").joinpath("targets.toml").read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = tomllib.loads(text)
    return {
        name: msgspec.convert({"name": name, **entry}, TargetSpec) for name, entry in table.items()
    }
