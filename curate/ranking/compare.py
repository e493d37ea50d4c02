"""Stage: rankings side by side, of several methods or against several targets."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from curate.errors import USAGE, CurateError
from curate.ranking.rank import rank_shards
from curate.ranking.stats import agreement
from curate.records import Comparison, Index, Notify, Ranking, Target, silent
from curate.settings import Method, RankSettings


def compare_methods(
    index: Index,
    target: Target,
    settings: RankSettings,
    *,
    workspace: Path,
    device: str = "auto",
    notify: Notify = silent,
) -> Comparison:
    """Rank by every method that index and target serve, and say how far they agree.

    Every ranking is published as `rank_shards` does; the last is that of the settings, so that
    it is the one that later stages find. A method that lacks something, or fails, is left out
    with a warning that says why.

    Raises:
        CurateError: as `rank_shards`, of the method of the settings.
    """
    mine, others, left_out = settings.method, list[Ranking](), list[str]()

    def ranked(method: Method) -> Ranking:
        one = dataclasses.replace(settings, method=method)
        return rank_shards(index, target, one, workspace=workspace, device=device, notify=notify)

    for method in get_args(Method):
        if method == mine:
            continue
        try:
            others.append(ranked(method))
        except CurateError as error:
            why = str(error).removeprefix(f"method {method}: ")
            left_out.append(f"{method} is left out: {why}")
    found = side_by_side([ranked(mine), *others], what="methods")
    return dataclasses.replace(found, warnings=(*found.warnings, *left_out))


def side_by_side(rankings: Sequence[Ranking], *, what: Literal["methods", "targets"]) -> Comparison:
    """Put rankings of the same index side by side, the first decides the order of shards.

    Shards that are not on every shortlist are left out.

    Raises:
        CurateError: rankings of different indices, targets of one name, or no shard in all of them.
    """
    from scipy.stats import rankdata  # half a second to load

    first = rankings[0]
    if len({ranking.index_fingerprint for ranking in rankings}) > 1:
        raise CurateError("the index changed between two rankings; run the command again")
    columns = tuple(r.method if what == "methods" else r.target for r in rankings)
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise CurateError(
            f"two targets are called {twice[0]}, and a column has one name; name one of them "
            "another way: --against OTHER=FILE",
            exit_code=USAGE,
        )
    lines = [{line.shard: line for line in ranking.shards} for ranking in rankings]
    shared = [line for line in first.shards if all(line.shard in known for known in lines)]
    if not shared:
        raise CurateError("no shard is in all of these rankings; use --exact")
    values = np.array([[known[line.shard].alignment for line in shared] for known in lines])
    ranks = rankdata(-values, axis=1, method="min").astype(int)
    left_out = len(first.shards) - len(shared)
    said = dict.fromkeys(warning for ranking in rankings for warning in ranking.warnings)
    return Comparison(
        columns=columns,
        what=what,
        target=first.target,
        shards=tuple(shared),
        values=tuple(map(tuple, values.tolist())),
        ranks=tuple(map(tuple, ranks.tolist())),
        agreement=tuple(map(tuple, agreement(values).tolist())),
        warnings=(*said, *([f"{left_out} shards are not on every shortlist"] if left_out else [])),
        index_fingerprint=first.index_fingerprint,
    )
