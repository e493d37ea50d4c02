"""The command that trains small models and holds the forecast to them: verify."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, get_args

import click

from curate import options, terminal
from curate.commands.results import show_result
from curate.config import override
from curate.errors import NOT_CONFIRMED
from curate.settings import Settings, Tracker


@click.command(
    cls=terminal.Stage, short_help="Train small models on mix and controls; was the forecast right?"
)
@options.workspace
@options.config
@click.option(
    "--size", type=click.Choice(["tiny", "1M", "3M", "15M", "50M", "124M"]),
    help="Parameters of the small models.",
)  # fmt: skip
@click.option("--model", help="Go on from this model: a hub id, a folder or a .gguf file.")
@click.option(
    "--lora", type=click.IntRange(1), help="Train adapters of this rank on --model, not all of it."
)
@click.option("--tokens", type=options.Tokens(), help="Tokens that each run trains on.")
@click.option("--seeds", type=click.IntRange(1), help="Runs of the mix and of each control.")
@click.option("--calibration", type=click.IntRange(2), help="Mixes trained to fit the forecast.")
@click.option(
    "--against",
    metavar="METHODS",
    help="Also train on mixes of other rankings, or on all of the pool: ngram,all.",
)
@click.option(
    "--outcome",
    "outcomes",
    multiple=True,
    metavar="lm-eval:TASK",
    help="A task that the models are asked too.",
)
@click.option("--dry-run", is_flag=True, help="Say how long it will take, from steps timed here.")
@click.option("--check", is_flag=True, help="Train nothing: check what was verified. For CI.")
@click.option(
    "--export", type=click.Path(path_type=Path, file_okay=False),
    help="Folder for ratios.csv and metrics.csv.",
)  # fmt: skip
@click.option(
    "--track", type=click.Choice([name for name in get_args(Tracker) if name]),
    help="Also send the curves of the runs to this tracker.",
)  # fmt: skip
@click.option(
    "--compile", is_flag=True, default=None, help="Fuse a model's operations first: long runs."
)
@options.engine
@options.device
@options.as_json
def verify(
    workspace: Path, settings: Settings, device: str, against: str | None, dry_run: bool,
    check: bool, export: Path | None, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Train small models on the mix and on controls, and hold them against the forecast.

    Ends with 4 where the forecast was not confirmed.

    \b
    Example:
      curate verify --size 1M --seeds 3
    """
    if dry_run and (check or export):
        raise click.UsageError("--dry-run writes and checks nothing: leave --check or --export out")
    from curate import stages
    from curate.report.json_lines import verification_json
    from curate.report.verdict import verification_table

    settings = options.run_on(settings, given)
    where = {name: given.pop(name) for name in ("track", "compile")}
    settings = dataclasses.replace(settings, run=override(settings.run, **where))
    rivals = tuple(filter(None, against.split(","))) if against is not None else None
    settings = dataclasses.replace(
        settings,
        verify=override(
            settings.verify, against=rivals, outcomes=given.pop("outcomes") or None, **given
        ),
    )
    if given["size"] and settings.verify.model:
        raise click.UsageError("--size is of models from scratch: it goes without --model")
    shared: Any = {"settings": settings, "workspace": workspace, "device": device}
    if dry_run:
        from curate.report.json_lines import to_json
        from curate.report.overview import verification_plan_table

        show_result(stages.plan_verification(**shared), as_json, verification_plan_table, to_json)
        return
    with terminal.progress_of_runs() as (notify, watch):
        found = stages.verify(**shared, train=not check, export=export, notify=notify, watch=watch)
    show_result(found, as_json, verification_table, verification_json)
    if found.verdict != "confirmed":
        sys.exit(NOT_CONFIRMED)
