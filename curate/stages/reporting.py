"""What a workspace holds, as one page or as records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

from curate.errors import USAGE, CurateError
from curate.mixing.contents import read_contents
from curate.mixing.opened import open_mix
from curate.ranking.rank import find_ranking, open_ranking
from curate.records import (
    Comparison,
    Index,
    Mix,
    Notify,
    Ranking,
    StageRun,
    Verification,
    silent,
)
from curate.report.html import render_report
from curate.stages.workspace import WORKSPACE, input_files
from curate.store.history import read_history
from curate.store.protect import refuse_input, refuse_unwritable
from curate.store.publish import publish_bytes, read_json
from curate.task2vec.reading import open_index
from curate.verification.published import open_verification


def write_report(
    *,
    workspace: str | Path = WORKSPACE,
    out: str | Path | None = None,
    notify: Notify = silent,
) -> Path:
    """Write everything that the workspace holds as one HTML file.

    A mix whose folder was deleted, moved or changed since is left out, which the page says.

    Args:
        workspace: with an index at least; ranking, mix and verification where they are there.
        out: the file; None takes `report.html` in the workspace.
        notify: is told what is left out.

    Returns:
        The path of the file.

    Raises:
        CurateError: there is no index yet, or the file is an input or cannot be written.
    """
    place = Path(workspace)
    path = Path(out) if out else place / "report.html"
    refuse_unwritable(path.parent, option="--out")
    refuse_input(path, input_files(place))
    found = open_index(place)
    mix, history = None, read_history(place)
    stale = []
    try:
        mix = _if_there(open_mix, place, "mix.json")
    except CurateError as error:  # it lies outside of the workspace: others may have cleared it
        stale.append(f"{error}; what it holds is left out of the report")
        notify(stale[0], 0, 0)
    ranking = _if_there(open_ranking, place, "ranking/latest.json")
    verification = _if_there(open_verification, place, "verify/meta.json")
    built = mix.fingerprint if mix is not None else _last_built(history)
    verification, of_mix = _of_the_mix(verification, built)
    ranking, of_ranking = _of_one_chain(place, found, ranking, mix)
    html = render_report(
        index=found,
        ranking=ranking,
        mix=mix,
        verification=verification,
        stale=[*stale, *of_ranking, *of_mix],
        comparisons=_comparisons(place, found),
        contents=read_contents(mix) if mix is not None else None,
        history=history,
    )
    publish_bytes(path, html.encode("utf-8"))
    return path


@overload
def open_artefact(artefact: Literal["index"], *, workspace: str | Path = ...) -> Index: ...
@overload
def open_artefact(artefact: Literal["ranking"], *, workspace: str | Path = ...) -> Ranking: ...
@overload
def open_artefact(artefact: Literal["mix"], *, workspace: str | Path = ...) -> Mix: ...
@overload
def open_artefact(
    artefact: Literal["verification"], *, workspace: str | Path = ...
) -> Verification: ...
@overload
def open_artefact(artefact: str, *, workspace: str | Path = ...) -> Any: ...
def open_artefact(artefact: str, *, workspace: str | Path = WORKSPACE) -> Any:
    """Read back what a stage published; nothing is computed.

    Args:
        artefact: index, ranking, mix or verification: the latest.
        workspace: where it is.

    Returns:
        What the stage returned when it made it.

    Raises:
        CurateError: no such kind, it is not there, or not what was published.
    """
    openers: dict[str, Any] = {
        "index": open_index,
        "ranking": open_ranking,
        "mix": open_mix,
        "verification": open_verification,
    }
    if artefact not in openers:
        raise CurateError(
            f"artefact {artefact}: not a kind; one of {', '.join(openers)}", exit_code=USAGE
        )
    return openers[artefact](Path(workspace))


def _of_one_chain(
    place: Path, index: Index, ranking: Ranking | None, mix: Mix | None
) -> tuple[Ranking | None, list[str]]:
    """Return the ranking that the mix was built from, and what of both is stale."""
    stale = []
    if mix is not None and ranking is not None and ranking.fingerprint != mix.ranking_fingerprint:
        ranking = find_ranking(place, mix.ranking_fingerprint) or ranking
        if ranking.fingerprint != mix.ranking_fingerprint:
            stale.append("the mix is of an earlier ranking than this: run curate build-mix")
    if ranking is not None and ranking.index_fingerprint != index.fingerprint:
        stale.append("the documents were indexed anew since this ranking: run curate rank")
    return ranking, stale


def _of_the_mix(
    verification: Verification | None, built: str
) -> tuple[Verification | None, list[str]]:
    """Return the verification, but not where it is of another mix than was `built` last.

    Each stage may have run again since the next did.
    """
    of = verification.mix_fingerprint if verification is not None else ""
    if not of or not built or of == built:
        return verification, []
    return None, ["an earlier mix was verified, this one was not: run curate verify"]


def _last_built(history: Sequence[StageRun]) -> str:
    """Return the fingerprint of the last mix that was built, wherever it is now; "" if unknown."""
    built = [run.fingerprint for run in history if run.stage == "build-mix" and run.ended]
    return built[-1] if built else ""


def _comparisons(place: Path, found: Index) -> list[Comparison]:
    """Return the comparisons of targets and of methods that were made on this index."""
    paths = [place / "ranking" / f"{what}.json" for what in ("targets", "methods")]
    there = [read_json(path, Comparison) for path in paths if path.is_file()]
    return [each for each in there if each.index_fingerprint == found.fingerprint]


def _if_there(opener: Any, place: Path, mark: str) -> Any:
    return opener(place) if (place / mark).is_file() else None
