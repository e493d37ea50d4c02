"""From a mix to a verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from curate.config import checked
from curate.engine.run import working_on
from curate.errors import CurateError
from curate.mixing.opened import open_mix
from curate.ranking.rank import open_ranking
from curate.records import (
    Notify,
    Run,
    Verification,
    VerificationPlan,
    Watch,
    silent,
    unwatched,
)
from curate.report.trackers import open_tracker
from curate.settings import Settings
from curate.stages.mirror import copied_from
from curate.stages.workspace import WORKSPACE, input_files, noted, ranked_target, swept
from curate.store.protect import refuse_input, refuse_new_input, refuse_unwritable
from curate.store.publish import publish_bytes
from curate.task2vec.reading import open_index
from curate.verification.export import TABLES, write_tables
from curate.verification.published import open_verification
from curate.verification.verify import verify_mix


def verify(
    *,
    settings: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    device: str = "auto",
    train: bool = True,
    export: str | Path | None = None,
    notify: Notify = silent,
    watch: Watch = unwatched,
) -> Verification:
    """Train small models on the mix and on controls; hold the loss against the forecast.

    Args:
        settings: None takes the defaults.
        workspace: where the mix is.
        device: auto, cpu or cuda.
        train: False only checks what is published: of these inputs, unchanged, forecast first.
        export: folder for the tables of `export_verification`, refused before anything trains.
        notify: progress.
        watch: told now and then how far each training run is.

    Returns:
        The verdict, whatever it is: a forecast that did not hold raises nothing here.

    Raises:
        CurateError: no mix yet, a tracker that is not installed or, when all is trained and
            published, refuses a run, or an eval split that ranking has seen.
    """
    settings, place = checked(settings), swept(workspace)
    if export is not None:
        _refuse_tables(Path(export), place)
    command = "curate verify" + ("" if train else " --check")
    track = (
        open_tracker(settings.run.track, folder=place / "tracked", publish=publish_bytes)
        if train
        else None
    )
    with (
        noted(place, "verify", command, Settings(verify=settings.verify), device) as note,
        working_on(settings.run, folder=place / "batch"),
    ):
        found = verify_mix(
            open_index(place),
            open_ranking(place),
            open_mix(place),
            ranked_target(place),
            settings.verify,
            workspace=place,
            device=device,
            workers=settings.run.workers,
            compiled=settings.run.compile,
            train=train,
            notify=notify,
            watch=watch,
            on_run=track and _while_training(track, notify),
            store=copied_from(place) if settings.run.engine == "ray" else "",
        )
        note.fingerprint = found.fingerprint
    if track is not None:
        for run in found.runs:  # what was not sent when it ended
            track(run)
    if export is not None:
        write_tables(found, Path(export))
    return found


def _while_training(send: Callable[[Run], None], notify: Notify) -> Callable[[Run], None]:
    """Return `send` as it is told of runs that end: what fails is said once, and ends nothing."""
    failed: list[CurateError] = []

    def send_or_say(run: Run) -> None:
        if failed:
            return
        try:
            send(run)
        except CurateError as error:
            failed.append(error)
            notify(f"{error}; training goes on", 0, 0)

    return send_or_say


def plan_verification(
    *,
    settings: Settings | None = None,
    workspace: str | Path = WORKSPACE,
    device: str = "auto",
) -> VerificationPlan:
    """Say what `verify` will take, from a few steps measured here; nothing is written.

    Runs are shared out over the places that `verify` would have: with `engine = "ray"` those of
    the cluster, each as fast as this machine.

    Args:
        settings: None takes the defaults.
        workspace: where the mix is.
        device: auto, cpu or cuda.

    Raises:
        CurateError: no mix yet, or a setting out of its range.
    """
    from curate.verification.estimate import estimate_verification  # seconds: it trains a little

    settings, place = checked(settings), Path(workspace)
    with working_on(settings.run, folder=place / "batch"):
        return estimate_verification(
            open_mix(place),
            ranked_target(place),
            settings.verify,
            workspace=place,
            device=device,
            workers=settings.run.workers,
        )


def export_verification(out: str | Path, *, workspace: str | Path = WORKSPACE) -> tuple[Path, Path]:
    """Write `ratios.csv` and `metrics.csv` of a verification to a folder; return their paths.

    Raises:
        CurateError: nothing verified yet, one of the files is an input, or it would become one.
    """
    _refuse_tables(Path(out), Path(workspace))
    return write_tables(open_verification(Path(workspace)), Path(out))


def _refuse_tables(out: Path, place: Path) -> None:
    """Refuse a folder whose tables would replace an input, be read as one, or not be written."""
    refuse_unwritable(out, option="--export")
    refuse_new_input(out, open_index(place).corpus.inputs, place)
    for name in TABLES:
        refuse_input(out / name, input_files(place))
