"""What we want to be good at: named targets, files, hub data sets, each with two splits."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from curate.corpus.fields import MISSING, parse_template, render
from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.named_targets import (
    TargetSpec,
    known_targets,
    local_folder,
    missing_split,
    split_file,
)
from curate.corpus.reader import check_inputs, read_documents
from curate.corpus.split import draw_items, read_alike, split_items
from curate.errors import USAGE, CurateError
from curate.records import Target
from curate.settings import TargetSettings
from curate.store.fingerprint import digest_texts
from curate.store.places import also_there, split_target, user_path


def load_target(settings: TargetSettings) -> Target:
    """Load a target with its select split and its eval split.

    The name is one of targets.toml (read from `data_dir`, else `CURATE_DATA_DIR`, else the hub
    at its pinned commit), a file, `NAME=select_file,eval_file`, `NAME=file`,
    `hf:org/name[:config[:split]][@revision]`, or `lm-eval:TASK`. Where there is one split, it is
    halved by item.

    Several names make one target: each gives items of as many characters as its weight says
    (`NAME:2` is twice `NAME`), drawn by the seed; the one that has least for its weight gives
    all of its items.

    Raises:
        CurateError: unknown name, empty split, a record that cannot be read, fewer than two
            different items, a weight that is not positive, or a hub out of reach.
    """
    if settings.names:
        return _load_several(settings)
    if not settings.name:
        raise CurateError("no target named; give --target NAME or a file", exit_code=USAGE)
    settings = replace(settings, name=split_weight(settings.name)[0])  # alone, it has no weight
    spec = known_targets().get(settings.name)
    if spec is not None:
        return _load_named(spec, settings)
    if "://" in settings.name:
        raise CurateError(
            f"target {settings.name}: only local files and hf:org/name are read; download it first"
        )
    if settings.name.startswith("hf:"):
        return _load_hub(settings)
    if settings.name.startswith("lm-eval:"):
        return _load_task(settings)
    if (whole := user_path(settings.name)).is_file():
        return _load_files([whole], "", settings)
    label, named = split_target(settings.name)
    if label:
        return _load_files([user_path(name) for name in named], label, settings)
    raise _unknown(settings.name)


def split_weight(name: str) -> tuple[str, float]:
    """Return a target's name and its weight, 1 where none is written.

    Raises:
        CurateError: the weight is zero or not finite.

    Example:
        >>> split_weight("proofnet:2"), split_weight("minif2f")
        (('proofnet', 2.0), ('minif2f', 1.0))
    """
    match = re.fullmatch(r"(.+):(\d+(?:\.\d+)?)", name)
    if match is None or user_path(name).is_file():
        return name, 1.0
    weight = float(match[2])
    if not 0 < weight < math.inf:
        raise CurateError(f"target {name}: a weight is a positive number", exit_code=USAGE)
    return match[1], weight


def _load_several(settings: TargetSettings) -> Target:
    weighted = [split_weight(name) for name in settings.names]
    if len({name for name, _ in weighted}) < len(weighted):
        raise CurateError("a target is named twice; give it one weight", exit_code=USAGE)
    parts = [load_target(replace(settings, name=name, names=())) for name, _ in weighted]
    if len(parts) == 1:
        return parts[0]
    weights = [weight for _, weight in weighted]
    held_out = [item for part in parts for item in part.eval]
    select = draw_items(
        [read_alike(part.select, held_out, alike=False) for part in parts],
        weights=weights,
        seed=settings.seed,
    )
    evaluated = draw_items([part.eval for part in parts], weights=weights, seed=settings.seed)
    if not any(select):
        raise CurateError("targets: every item to select by is an item to evaluate on")
    used = {*_joined(select), *_joined(evaluated)}
    spare = [tuple(i for i in (*part.select, *part.eval) if i not in used) for part in parts]
    names = [f"{part.name}:{weight:g}" for part, weight in zip(parts, weights, strict=True)]
    return Target(
        name="+".join(names),
        select=_joined(select),
        eval=_joined(evaluated),
        select_digest=digest_texts(_joined(select)),
        eval_digest=digest_texts(_joined(evaluated)),
        origin="; ".join(part.origin for part in parts),
        licence="; ".join(dict.fromkeys(part.licence for part in parts if part.licence)),
        spare=_joined(spare),
        templates=tuple(
            (part.template, len(one), len(other), len(rest))
            for part, one, other, rest in zip(parts, select, evaluated, spare, strict=True)
        ),
    )


def _joined(parts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(item for part in parts for item in part)


def _load_named(spec: TargetSpec, settings: TargetSettings) -> Target:
    folder = local_folder(spec, settings.data_dir)
    if folder is not None:
        template = settings.template or settings.text or spec.template
        select = _read_all([split_file(folder, split) for split in spec.select], template)
        held_out = _read_all([split_file(folder, split) for split in spec.eval], template)
        origin = str(folder)
    elif missing := missing_split(spec, settings.data_dir):
        raise CurateError(
            f"{missing}: no such file, and {missing.parent} holds the other split of {spec.name}; "
            "put it there, or move that away to read both from the hub"
        )
    else:
        from curate.corpus.hub import HubName, fetch_file, resolve_commit

        revision = spec.revision or resolve_commit(HubName(spec.hub, "", "", ""))

        def fetched(names: Sequence[str]) -> list[Path]:
            return [fetch_file(spec.hub, name, revision=revision) for name in names]

        template = settings.template or settings.text or spec.hub_template or spec.template
        select = _read_all(fetched(spec.hub_select), template)
        held_out = _read_all(fetched(spec.hub_eval), template)
        origin = f"hf:{spec.hub}@{revision}"
    return _target(
        spec.name,
        select,
        held_out if spec.eval else None,
        origin=origin,
        seed=settings.seed,
        licence=spec.licence,
        template=template,
    )


def _load_files(paths: Sequence[Path], label: str, settings: TargetSettings) -> Target:
    if len(paths) > 2:
        raise CurateError(
            f"{settings.name}: name one file, or select and eval file", exit_code=USAGE
        )
    template = settings.template or settings.text or "text"
    splits = [_read_all([path], template) for path in paths]
    return _target(
        label or paths[0].name.split(".")[0],
        splits[0],
        splits[1] if len(splits) == 2 else None,
        origin=", ".join(str(path) for path in paths),
        seed=settings.seed,
        template=template,
    )


def _load_hub(settings: TargetSettings) -> Target:
    from curate.corpus.hub import parse_hub_name, read_hub_rows, resolve_commit

    name = parse_hub_name(settings.name)
    commit = resolve_commit(name)
    template = parse_template(settings.template or settings.text or "text")
    items: list[str] = []
    for number, row in enumerate(read_hub_rows(name, commit=commit)):
        text, reason = render(
            template, tuple(row.get(field_name, MISSING) for field_name in template.fields)
        )
        if reason:
            known = ", ".join(sorted(row)[:12])
            raise CurateError(
                f"{settings.name}: item {number}: {reason.replace('_', ' ')}; it has {known}; "
                "name the field or a template"
            )
        items.append(text)
    return _target(
        name.repo.split("/")[-1],
        items,
        None,
        origin=f"hf:{name.repo}@{commit}",
        seed=settings.seed,
        template=settings.template or settings.text or "text",
    )


def _load_task(settings: TargetSettings) -> Target:
    from curate.corpus.harness import load_task  # the harness takes seconds to import

    if settings.text or settings.template:
        raise CurateError(
            f"{settings.name}: items come as the harness puts them; leave text and template out",
            exit_code=USAGE,
        )
    found = load_task(settings.name)
    name = settings.name.partition(":")[2]
    return _target(name, found.select, found.eval, origin=found.origin, seed=settings.seed)


def _read_all(paths: Sequence[Path], template: str) -> list[str]:
    """Read every item of the files; unlike a corpus, a target may not lose one."""
    items: list[str] = []
    for path in paths:
        if not path.is_file():
            raise CurateError(
                f"{path}: no such file{also_there(str(path))}; it should hold items of the target"
            )
        file = InputFile(path=path, source=path.name.split(".")[0])
        check_inputs([file], text=template)
        ledger = LedgerBuilder()
        items += [document.text for document in read_documents(file, text=template, ledger=ledger)]
        if ledger.error:
            raise CurateError(f"{path}: {ledger.error}")
        if ledger.rejected:
            why = ", ".join(f"{reason} {n}" for reason, n in sorted(ledger.rejected.items()))
            raise CurateError(f"{path}: items that cannot be read: {why}; mend the file")
    return items


def _target(
    name: str,
    select: Sequence[str],
    held_out: Sequence[str] | None,
    *,
    origin: str,
    seed: int,
    licence: str = "",
    template: str = "",
) -> Target:
    if held_out is None:
        if not select:
            raise CurateError(f"target {name}: {origin} holds no item")
        select, held_out = split_items(select, seed=seed)
        origin = f"{origin}, one split halved by item with seed {seed}"
        if not held_out:
            why = (
                "it holds one item"
                if len(select) == 1
                else "its items read alike but for digits and signs"
            )
            raise CurateError(
                f"target {name}: {why}, so no eval split can be held out; "
                "give NAME=select_file,eval_file"
            )
    for split, items in (("select", select), ("eval", held_out)):
        if not items:
            raise CurateError(f"target {name}: its {split} split is empty")
    return Target(
        name=name,
        select=tuple(select),
        eval=tuple(held_out),
        select_digest=digest_texts(tuple(select)),
        eval_digest=digest_texts(tuple(held_out)),
        origin=origin,
        licence=licence,
        template=template,
    )


def _unknown(name: str) -> CurateError:
    known = sorted(known_targets())
    if Path(name).is_dir():
        return CurateError(
            f"target {name}: is a folder; name the file in it that holds the items",
            exit_code=USAGE,
        )
    if "," in name:
        return CurateError(
            f"target {name}: select file and eval file need a name before them: NAME={name}",
            exit_code=USAGE,
        )
    if "/" in name or "." in name:
        return CurateError(
            f"target {name}: no such file{also_there(name)}; name a file, hf:org/name, or one of "
            f"{', '.join(known)}",
            exit_code=USAGE,
        )
    near = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}."
    return CurateError(
        f"target {name}: unknown; {hint} A file or hf:org/name will also do", exit_code=USAGE
    )
