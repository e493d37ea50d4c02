"""What a mix may be asked for, and where it may be written."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from curate.errors import UNREACHABLE, USAGE, CurateError
from curate.mixing.bounds import check_source
from curate.mixing.formats import Format
from curate.mixing.publish import list_content
from curate.mixing.trainers import NAMES
from curate.records import Index, Ranking, Target
from curate.settings import MixSettings
from curate.store.places import user_path

if TYPE_CHECKING:
    from curate.records import Counts

PAYLOAD = (
    "README.md",
    "decontamination.jsonl",
    "duplicates.jsonl",
    "manifest.json",
    "provenance.parquet",
    "selection.parquet",
    *NAMES.values(),
)
FOLDERS = ("", "data", "data/train", "data/holdout")
"""Below the folder of a mix, where files of it may lie."""

MOST_EPOCHS = 1_000_000
"""Beyond it the tokens that shards can give would pass what an integer holds."""

PART = re.compile(r"(part|holdout)-\d{5,}\.(parquet|jsonl|mds|ds|ds\.index|bin|idx)")


def check_request(
    index: Index, ranking: Ranking, target: Target, settings: MixSettings, *, fmt: str
) -> None:
    """Refuse settings out of range, and records that do not belong together.

    Raises:
        CurateError: which, and what to do.
    """
    wrong = {
        "budget": (settings.budget <= 0, "above 0"),
        "max_epochs": (not 1 <= settings.max_epochs <= MOST_EPOCHS, "from 1 to 1,000,000"),
        "temperature": (
            bool(settings.temperature) and not 1e-9 <= settings.temperature <= 1e9,
            "0 (chosen), or from 1e-9 to 1e9",
        ),
        "ngram": (settings.ngram < 2, "at least 2"),
        "holdout": (not 0 <= settings.holdout < 1, "at least 0 and below 1"),
        "cosine": (not 0 < settings.cosine <= 1, "above 0 and at most 1"),
        "near_documents": (settings.near_documents < 0, "at least 0"),
    }
    for name, (is_wrong, need) in wrong.items():
        if is_wrong:
            raise CurateError(
                f"[mix] {name} is {getattr(settings, name)}: it has to be {need}", exit_code=USAGE
            )
    if fmt not in get_args(Format):
        raise CurateError(
            f"format {fmt}: not known; use {', '.join(get_args(Format))}", exit_code=USAGE
        )
    for source in settings.priority:
        check_source(source, sorted({each.shard.source for each in index.shards}), "priority")
    if ranking.index_fingerprint != index.fingerprint:
        raise CurateError(
            f"ranking {ranking.target}: made from another index than the present one; run curate "
            "rank again"
        )
    if (ranking.target, ranking.select_digest) != (target.name, target.select_digest):
        raise CurateError(
            f"target {target.name}: not the items that were ranked for ({ranking.target}); run "
            "curate rank again"
        )


def check_room(settings: MixSettings, tokens: Counts) -> None:
    """Refuse a budget above what shards of so many tokens can give.

    Raises:
        CurateError: exit code 6, with what would help.
    """
    room, held = int(np.floor(tokens * settings.max_epochs).sum()), int(tokens.sum())
    if room >= settings.budget:
        return
    epochs = epochs_for(tokens, settings.budget)
    passes = "epoch" if settings.max_epochs == 1 else "epochs"
    filtered = settings.decontaminate or settings.dedup
    less = ", less what leaks and copies take out" if filtered else ""
    raise CurateError(
        f"budget {settings.budget:,}: the ranked shards hold {held:,} tokens, {room:,} at "
        f"{settings.max_epochs:g} {passes}; allow --max-epochs {epochs:g}, "
        f"index more data, or ask for at most {room:,}{less}",
        exit_code=UNREACHABLE,
    )


def epochs_for(tokens: Counts, budget: int) -> float:
    """Return epochs, to a tenth, at which shards of so many tokens give a budget."""
    held = int(tokens.sum())
    epochs = math.ceil(10 * budget / max(held, 1)) / 10
    while held and np.floor(tokens * epochs).sum() < budget:  # each shard's last token
        epochs = round(epochs + 0.1, 1)
    return epochs


def check_out(out: Path, index: Index) -> None:
    """Refuse a folder that is not for a mix, or that an input lies in or around.

    Raises:
        CurateError: what stands in the way.
    """
    if out.exists() and not out.is_dir():
        raise CurateError(f"{out}: a file; name a folder with --out")
    strangers = [path for path in list_content(out) if not _is_ours(path.relative_to(out))]
    if strangers:
        raise CurateError(
            f"{out}: holds {strangers[0].relative_to(out)}, which no mix does; name another folder "
            "with --out"
        )
    place = out.resolve()
    for name in index.corpus.inputs:
        folder = user_path(name)
        if folder.is_dir() and folder.resolve() in (place, *place.parents):
            raise CurateError(
                f"{out}: inside the input {name}, where the next index would read it; name "
                "another folder with --out"
            )
    for ledger in index.ledgers:
        path = Path(ledger.path).resolve()
        if place == path or place in path.parents:
            raise CurateError(f"{out}: the input {ledger.path} is in it; name another folder")


def _is_ours(path: Path) -> bool:
    folder, name = path.parent.as_posix(), path.name
    if folder == "data" and name in ("train", "holdout"):
        return True
    if folder in ("data/train", "data/holdout") and name == "index.json":
        return True
    if folder in ("data", "data/train", "data/holdout"):
        return bool(PART.fullmatch(name)) or name.endswith(".tmp")
    ours = (*PAYLOAD, "meta.json", "data")
    return len(path.parts) == 1 and (name in ours or name.endswith(".tmp"))
