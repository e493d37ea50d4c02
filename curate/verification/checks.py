"""What may be verified: settings in range, one chain of artefacts, an eval split unseen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from curate.corpus.split import read_alike
from curate.errors import USAGE, CurateError
from curate.mixing.dedup import normalise
from curate.records import Index, Mix, Ranking, Target
from curate.settings import Method, VerifySettings
from curate.store.meta import read_meta
from curate.verification.published import read_forecast

if TYPE_CHECKING:
    from curate.task2vec.probe import Probe

RIVALS = {*get_args(Method), "all"}
"""What a mix can be held against besides random and worst."""


def check_settings(settings: VerifySettings) -> None:
    """Refuse a setting that is out of its range.

    Raises:
        CurateError: which one, and what it has to be (exit code 2).
    """
    wrong = {
        "seeds": (settings.seeds < 1, "at least 1"),
        "calibration": (settings.calibration < 2, "at least 2, or nothing can be forecast"),
        "block_tokens": (settings.block_tokens < 2, "at least 2"),
        "batch_tokens": (settings.batch_tokens < settings.block_tokens, "at least block_tokens"),
        "learning_rate": (not 0 <= settings.learning_rate <= 100, "from 0 to 100; 0 chooses"),
        "lora": (settings.lora < 0, "at least 0"),
        "confidence": (not 0 < settings.confidence < 1, "between 0 and 1"),
        "tokens": (settings.tokens < 0, "at least 0"),
        "eval_items": (settings.eval_items < 1, "at least 1"),
        "control_items": (settings.control_items < 0, "at least 0"),
        "against": (
            bool(set(settings.against) - RIVALS)
            or len(set(settings.against)) < len(settings.against),
            f"of {', '.join(sorted(RIVALS))}, each once",
        ),
    }
    for name, (is_wrong, need) in wrong.items():
        if is_wrong:
            raise CurateError(
                f"[verify] {name} is {_said(getattr(settings, name))}: it has to be {need}",
                exit_code=USAGE,
            )


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_start(settings: VerifySettings, probe: Probe) -> None:
    """Refuse adapters without a model, blocks that it cannot read, and logits of unknown make.

    Raises:
        CurateError: which setting, and what it may be (exit code 2).
    """
    if settings.lora and not settings.model:
        raise CurateError(
            f"[verify] lora is {settings.lora}: adapters need a model; name one", exit_code=USAGE
        )
    if settings.model and settings.block_tokens > probe.max_positions:
        raise CurateError(
            f"[verify] block_tokens is {settings.block_tokens}: {settings.model} reads at most "
            f"{probe.max_positions} tokens",
            exit_code=USAGE,
        )
    if settings.model:
        check_logits(settings.model, probe)


def check_logits(name: str, probe: Probe) -> None:
    """Refuse a model whose loss is not that of its head.

    Raises:
        CurateError: exit code 2.
    """
    from curate.task2vec.forward import find_logit_map  # loads torch

    try:
        find_logit_map(probe.model, np.arange(4), autocast=probe.device.type == "cuda")
    except ValueError as error:
        raise CurateError(
            f"[verify] model {name}: {error}, so that its loss cannot be told from its head; name "
            "another model",
            exit_code=USAGE,
        ) from None


def check_chain(index: Index, ranking: Ranking, mix: Mix, target: Target) -> None:
    """Refuse artefacts that do not follow from each other.

    Raises:
        CurateError: which one is of another target, index or ranking.
    """
    if ranking.target != target.name or mix.target != target.name:
        raise CurateError(
            f"the mix is for {mix.target}, the ranking for {ranking.target}, the target is "
            f"{target.name}; run curate rank and curate build-mix for one target"
        )
    if ranking.index_fingerprint != index.fingerprint:
        raise CurateError(
            f"ranking {ranking.target}: made from another index than the present one; run curate "
            "rank and curate build-mix again"
        )
    if mix.ranking_fingerprint != ranking.fingerprint:
        raise CurateError(
            f"{mix.folder}: built from another ranking than the latest; run curate build-mix again"
        )


def check_unseen(ranking: Ranking, target: Target) -> None:
    """Refuse an eval split that ranking has seen, as a whole or item by item.

    Items are the same if they are after NFKC, in lower case, with single spaces.

    Raises:
        CurateError: how many items, or that it is not known which were seen.
    """
    if ranking.select_digest == target.eval_digest:
        raise CurateError(
            f"target {target.name}: ranking has seen its eval split; rank with the select split"
        )
    if ranking.select_digest != target.select_digest:
        raise CurateError(
            f"target {target.name}: its select split is not the one that ranking saw, so what is "
            "unseen is not known; run curate rank and curate build-mix again"
        )
    seen = {normalise(text) for text in target.select}
    shared = [number for number, text in enumerate(target.eval) if normalise(text) in seen]
    if shared:
        raise CurateError(
            f"target {target.name}: {len(shared)} of {len(target.eval)} eval items (the first is "
            f"number {shared[0]}) are in the select split that ranking saw; take them out of one"
        )


def alike_items(target: Target) -> list[str]:
    """Return a warning where items of both splits are one but for case, digits and signs."""
    alike = read_alike(target.eval, target.select, alike=True)
    if not alike:
        return []
    return [
        f"{len(alike)} of {len(target.eval)} eval items read like one that ranking saw but for "
        f"case, digits and signs, such as {alike[0][:40]!r}; take them out of one split"
    ]


def check_published(folder: Path, *, fingerprint: str) -> None:
    """Hold a published verification against its inputs and its forecast, without training.

    Args:
        folder: of the verification.
        fingerprint: that one of the present inputs and settings has.

    Raises:
        CurateError: none there, of other inputs, changed since, or a mix that trained before
            its forecast.
    """
    if not (folder / "meta.json").is_file():
        raise CurateError(f"{folder}: nothing verified yet; run curate verify")
    found, body = read_meta(folder, kind="verification", body=dict[str, Any])
    if found != fingerprint:
        raise CurateError(
            f"{folder}: of other inputs or settings than the present ones; run curate verify"
        )
    forecast = read_forecast(folder / "forecast.json")
    for run in body["runs"]:
        if run["arm"] != "mix":
            continue
        if run["forecast"] != forecast.digest or run["started_at"] < forecast.made_at:
            raise CurateError(
                f"{folder}: run {run['seed']} of the mix started at {run['started_at']}, not after "
                f"the forecast of {forecast.made_at}; it is not blind"
            )
