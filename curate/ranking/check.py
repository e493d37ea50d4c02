"""Today's ranking against one that was kept: did a change of the data lower alignment?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from curate.errors import USAGE, CurateError
from curate.records import AlignmentCheck, Interval, RankedShard, Ranking, SourceChange


@dataclass(frozen=True, slots=True)
class KeptLine:
    """A line of `curate rank --json`."""

    source: str
    tokens: int
    alignment: float
    low: float
    high: float
    target: str = ""  # "" in what an earlier version printed
    method: str = ""
    measure: str = ""


def check_alignment(ranking: Ranking, kept: Path) -> AlignmentCheck:
    """Hold a ranking against a kept one, source by source and as a whole.

    A source's alignment is the mean over its shards, weighted by tokens; its interval is the same
    mean of their ends, as if all errors pointed one way, which is wider than any dependence
    between the shards can make it. It fell where the new interval lies wholly below the old one.

    Args:
        ranking: of today.
        kept: what `curate rank --json` printed, for the same target and method.

    Raises:
        CurateError: the file is absent, empty or something else, or of another target or method.
    """
    lines = _read_kept(kept)
    _check_alike(lines[0], ranking, kept)
    before = _by_source(lines)
    after = _by_source(ranking.shards)
    names = ["", *sorted((before.keys() | after.keys()) - {""})]
    changes = tuple(_change(name, before.get(name), after.get(name)) for name in names)
    return AlignmentCheck(target=ranking.target, kept=str(kept), changes=changes)


def _read_kept(path: Path) -> list[KeptLine]:
    try:
        text = path.read_bytes()
        lines = [msgspec.json.decode(line, type=KeptLine) for line in text.splitlines()]
    except FileNotFoundError:
        raise CurateError(
            f"{path}: no such file; keep a ranking first: curate rank --json > {path}",
            exit_code=USAGE,
        ) from None
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CurateError(f"{path}: not what curate rank --json prints ({error})") from None
    if not lines:
        raise CurateError(f"{path}: empty; keep a ranking first: curate rank --json > {path}")
    return lines


def _check_alike(line: KeptLine, ranking: Ranking, path: Path) -> None:
    """Refuse values that do not compare: of another target, method or measure."""
    names = ["target", "method", *(["measure"] if line.method == "task2vec" else [])]
    for name in names:
        was, is_now = getattr(line, name), getattr(ranking, name)
        if was and was != is_now:
            raise CurateError(
                f"{path}: kept of {name} {was}, this ranking is of {is_now}; rank as then, or keep "
                "a new one",
                exit_code=USAGE,
            )


def _by_source(lines: Sequence[KeptLine] | Sequence[RankedShard]) -> dict[str, Interval]:
    """Return the mean alignment of each source; "" is that of all lines."""
    found = {"": _mean(lines)}
    for source in dict.fromkeys(line.source for line in lines):
        found[source] = _mean([line for line in lines if line.source == source])
    return found


def _mean(lines: Iterable[KeptLine | RankedShard]) -> Interval:
    lines = list(lines)
    whole = sum(line.tokens for line in lines) or 1
    ends = [
        sum(getattr(line, name) * line.tokens for line in lines) / whole
        for name in ("alignment", "low", "high")
    ]
    return Interval(*ends)


def _change(name: str, before: Interval | None, after: Interval | None) -> SourceChange:
    fell = before is not None and after is not None and after.high < before.low
    return SourceChange(source=name, before=before, after=after, fell=fell)
