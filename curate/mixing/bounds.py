"""`--keep` and `--blend`: how much of which source, as a user writes it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from curate.errors import UNREACHABLE, USAGE, CurateError
from curate.mixing.weights import Ints, Spread, blend_tokens, tokens_of
from curate.records import Shard
from curate.settings import MixSettings

GENERAL = "general"
"""Stands for all sources together in `--blend`."""

_RULE = re.compile(r"(?P<source>.+?)(?P<sign><=|>=|=)(?P<share>[0-9.]+)(?P<percent>%?)")


def bound_spread(
    spread: Spread, settings: MixSettings, shards: Sequence[Shard], room: Ints
) -> Spread:
    """Return a spread that keeps the floors and ceilings of its sources, and blends.

    `SOURCE=20%` and `SOURCE>=20%` of `keep` are floors, `SOURCE<=20%` is a ceiling; `blend`
    takes a share of a source, or of `general` (all of them), in natural proportions.

    Args:
        spread: of the selection.
        settings: `keep` and `blend`.
        shards: in the order of the spread.
        room: (n,) tokens that each can give.

    Raises:
        CurateError: a rule that cannot be read, an unknown source, shares above the whole, a
            blend above a ceiling (exit code 2), or a source that holds too little (exit code 6).
    """
    sources = sorted({shard.source for shard in shards})
    number = {source: place for place, source in enumerate(sources)}
    groups = np.array([number[shard.source] for shard in shards], np.int64)
    floors: dict[int, float] = {}
    ceilings: dict[int, float] = {}
    for rule in settings.keep:
        source, sign, share = read_rule(rule, option="keep")
        group = _group(source, sources, option="keep")
        bounds = ceilings if sign == "<=" else floors
        _name_once(group, bounds, f"--keep {rule}: {source} has that bound already")
        bounds[group] = share
    blended: dict[int, float] = {}
    for rule in settings.blend:
        source, sign, share = read_rule(rule, option="blend")
        if sign != "=":
            raise CurateError(f"--blend {rule}: write {source}={_percent(share)}", exit_code=USAGE)
        group = -1 if source == GENERAL else _group(source, sources, option="blend")
        _name_once(group, blended, f"--blend {rule}: {source} is blended in already")
        blended[group] = share
    # what is named comes first: `general` leaves it alone where it takes all of a source
    blend = tuple(sorted(blended.items(), reverse=True))
    _check(floors, ceilings, blend, sources)
    spread = dataclasses.replace(
        spread, groups=groups, floors=floors, ceilings=ceilings, blend=blend, natural=room
    )
    if not settings.tokenizer:  # else the room is an estimate, which must not refuse
        check_rooms(spread, shards, room, budget=settings.budget)
    given = blend_tokens(spread, room, budget=settings.budget)
    for group, share in ceilings.items():
        part = int(given[groups == group].sum())
        if part > tokens_of(share, settings.budget, most=True):
            raise CurateError(
                f"--blend: takes {part / settings.budget:.1%} of the mix from {sources[group]}, "
                f"--keep allows {_percent(share)}; blend less, or raise the ceiling",
                exit_code=USAGE,
            )
    return spread


def check_rooms(spread: Spread, shards: Sequence[Shard], room: Ints, *, budget: int) -> None:
    """Refuse a floor or a blend of more than its source can give.

    Args:
        spread: over these shards.
        shards: (n,).
        room: (n,) tokens that each can give.
        budget: of the mix.

    Raises:
        CurateError: exit code 6, which.
    """
    for option, mine, need in short_sources(spread, room, budget=budget):
        raise CurateError(
            f"source {shards[mine[0]].source}: --{option} asks for {need:,} tokens, it can give "
            f"{int(room[mine].sum()):,}; allow more --max-epochs, or {option} less of it",
            exit_code=UNREACHABLE,
        )


def short_sources(spread: Spread, room: Ints, *, budget: int) -> Iterator[tuple[str, Ints, int]]:
    """Yield each rule that asks a source for more than it can give: option, shards, tokens."""
    asked = [("keep", *each) for each in spread.floors.items()]
    asked += [("blend", *each) for each in spread.blend if each[0] >= 0]
    for option, group, share in asked:
        mine, need = np.flatnonzero(spread.groups == group), tokens_of(share, budget)
        if room[mine].sum() < need:
            yield option, mine, need


def ceilings_bind(budget: int) -> CurateError:
    """Return the one line for a budget that ceilings do not leave."""
    return CurateError(
        f"budget {budget:,}: the ceilings of --keep leave less than that; raise them",
        exit_code=UNREACHABLE,
    )


def read_rule(rule: str, *, option: str) -> tuple[str, str, float]:
    """Return source, sign (=, <=) and share (0 to 1) of a rule such as `wikipedia=20%`.

    Example:
        >>> read_rule("wikipedia<=20%", option="keep")
        ('wikipedia', '<=', 0.2)
    """
    match = _RULE.fullmatch(rule.strip())
    share = -1.0
    if match is not None and match["share"].count(".") <= 1 and match["share"] != ".":
        share = float(match["share"]) / (100 if match["percent"] else 1)
    if match is None or not 0 <= share <= 1:
        raise CurateError(
            f"--{option} {rule}: not a share of a source; write SOURCE=20%", exit_code=USAGE
        )
    return match["source"].strip(), "<=" if match["sign"] == "<=" else "=", share


def check_source(source: str, sources: Sequence[str], option: str) -> None:
    """Refuse a source that the index does not have.

    Raises:
        CurateError: exit code 2, with those that it has.
    """
    if source not in sources:
        known = ", ".join(sources[:12])
        raise CurateError(
            f"--{option} {source}: no such source in the index; known: {known}", exit_code=USAGE
        )


def _group(source: str, sources: Sequence[str], *, option: str) -> int:
    check_source(source, sources, option)
    return sources.index(source)


def _name_once(group: int, known: Mapping[int, float], what: str) -> None:
    if group in known:
        raise CurateError(f"{what}, {_percent(known[group])}; name one", exit_code=USAGE)


def _percent(share: float) -> str:
    return f"{100 * share:.9g}%"


def _check(
    floors: dict[int, float], ceilings: dict[int, float], blend: Sequence[tuple[int, float]],
    sources: Sequence[str],
) -> None:  # fmt: skip
    # What a source is blended in for counts towards its floor. What `general` takes from it does
    # not: while a mix is drawn that moves with the room of shards, and all has to fit even so.
    asked = sum(share for _, share in blend)
    for group, floor in floors.items():
        asked += max(0.0, floor - sum(share for each, share in blend if each == group))
    if asked > 1 + 1e-9:
        raise CurateError(
            f"--keep and --blend ask for {_percent(asked)} of the mix; keep less", exit_code=USAGE
        )
    for group, ceiling in ceilings.items():
        if floors.get(group, 0.0) > ceiling:
            raise CurateError(
                f"--keep {sources[group]}: its floor is above its ceiling", exit_code=USAGE
            )
    if len(ceilings) == len(sources) and sum(ceilings.values()) < 1 - 1e-9:
        raise CurateError(
            f"--keep: the ceilings of all sources together are {_percent(sum(ceilings.values()))}; "
            "they leave no mix",
            exit_code=UNREACHABLE,
        )
