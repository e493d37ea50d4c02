"""What a workspace holds, as one page or as records."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, overload

from curate.errors import USAGE, CurateError
from curate.mixing.contents import read_contents
from curate.mixing.opened import open_mix
from curate.ranking.rank import find_ranking, open_ranking
from curate.records import Comparison, Index, Mix, Ranking, Verification
from curate.report.html import render_report
from curate.stages.workspace import WORKSPACE, input_files
from curate.store.history import read_history
from curate.store.protect import refuse_input
from curate.store.publish import publish_bytes, read_json
from curate.task2vec.reading import open_index
from curate.verification.published import open_verification


def write_report(*, workspace: str | Path = WORKSPACE, out: str | Path | None = None) -> Path:
    """Write everything that the workspace holds as one HTML file.

    Args:
        workspace: with an index at least; ranking, mix and verification where they are there.
        out: the file; None takes `report.html` in the workspace.

    Returns:
        The path of the file.

    Raises:
        CurateError: there is no index yet, or the file is an input.
    """
    place = Path(workspace)
    path = Path(out) if out else place / "report.html"
    refuse_input(path, input_files(place))
    found = open_index(place)
    mix = _if_there(open_mix, place, "mix.json")
    ranking = _if_there(open_ranking, place, "ranking/latest.json")
    verification = _if_there(open_verification, place, "verify/meta.json")
    ranking, verification, stale = _of_one_chain(place, found, ranking, mix, verification)
    html = render_report(
        index=found,
        ranking=ranking,
        mix=mix,
        verification=verification,
        stale=stale,
        comparisons=_comparisons(place, found),
        contents=read_contents(mix) if mix is not None else None,
        history=read_history(place),
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
    place: Path,
    index: Index,
    ranking: Ranking | None,
    mix: Mix | None,
    verification: Verification | None,
) -> tuple[Ranking | None, Verification | None, list[str]]:
    """Return the ranking that the mix was built from, the verification of it, and what is stale.

    Each stage may have run again since the next did: a verdict is shown for no other mix.
    """
    stale = []
    if mix is not None and ranking is not None and ranking.fingerprint != mix.ranking_fingerprint:
        ranking = find_ranking(place, mix.ranking_fingerprint) or ranking
        if ranking.fingerprint != mix.ranking_fingerprint:
            stale.append("the mix is of an earlier ranking than this: run curate build-mix")
    if ranking is not None and ranking.index_fingerprint != index.fingerprint:
        stale.append("the documents were indexed anew since this ranking: run curate rank")
    of = verification.mix_fingerprint if verification is not None else ""
    if of and (mix is None or of != mix.fingerprint):
        stale.append("an earlier mix was verified, this one was not: run curate verify")
        verification = None
    return ranking, verification, stale


def _comparisons(place: Path, found: Index) -> list[Comparison]:
    """Return the comparisons of targets and of methods that were made on this index."""
    paths = [place / "ranking" / f"{what}.json" for what in ("targets", "methods")]
    there = [read_json(path, Comparison) for path in paths if path.is_file()]
    return [each for each in there if each.index_fingerprint == found.fingerprint]


def _if_there(opener: Any, place: Path, mark: str) -> Any:
    return opener(place) if (place / mark).is_file() else None
