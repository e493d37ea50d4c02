"""Before and around a job: init, targets, doctor, demo, worker."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from curate import options, terminal
from curate.commands.results import show_result
from curate.errors import REJECTED
from curate.harmless import without_controls
from curate.settings import Settings


@click.command(cls=terminal.Stage)
@click.option("--force", is_flag=True, help="Replace a curate.toml that is there.")
def init(force: bool) -> None:
    """Write a commented curate.toml for this folder.

    \b
    Example:
      curate init
    """
    from curate.starter import write_starter

    click.echo(without_controls(write_starter(Path.cwd(), force=force)))


@click.command(cls=terminal.Stage)
@options.config
@click.option("--data-dir", help="Folder of named targets where the hub is out of reach.")
@options.as_json
def targets(settings: Settings, data_dir: str | None, as_json: bool) -> None:
    """List the named targets, and which can be read now.

    \b
    Example:
      curate targets
    """
    from curate.config import data_dir as configured
    from curate.corpus.named_targets import list_targets
    from curate.report.json_lines import records_json
    from curate.report.overview import targets_table

    terminal.prepare_libraries()
    found = list_targets(data_dir or configured(settings), ask_hub=True)
    show_result(found, as_json, targets_table, records_json)


@click.command(cls=terminal.Stage, short_help="Print what is installed, and what is missing.")
@options.as_json
def doctor(as_json: bool) -> None:
    """Print what is installed, which device and FAISS will be used, what is missing.

    \b
    Example:
      curate doctor
    """
    from curate.doctor import examine
    from curate.report.json_lines import records_json
    from curate.report.overview import doctor_table

    show_result(examine(), as_json, doctor_table, records_json)


@click.command(cls=terminal.Stage)
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"),
    show_default=True, help="Where the example goes.",
)  # fmt: skip
@options.device
def demo(folder: Path, device: str) -> None:
    """Run the whole job on an example that every installation has.

    \b
    Example:
      curate demo
    """
    from curate.demo import run_demo

    with terminal.progress() as notify:
        result = run_demo(folder, device=device, notify=notify)
    from curate.report.grid import result_console
    from curate.report.overview import demo_summary

    result_console().print(demo_summary(result))


@click.command(cls=terminal.Stage, short_help="Do the work of one task of a job array.")
@click.option(
    "--item-list", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help="The list that --engine batch wrote.",
)  # fmt: skip
@click.option(
    "--task", type=click.IntRange(0), help="Number of this task.  [default: the Slurm task]"
)
@click.option("--tasks", type=click.IntRange(1), default=1, show_default=True, help="Tasks in all.")
def worker(item_list: Path, task: int | None, tasks: int) -> None:
    """Do a share of the work items of a list: what one task of a job array runs.

    Task K does the items K, K + TASKS, … that have no result yet. Ends with 3 where items
    failed: each says why beside the list.

    \b
    Example:
      curate worker --item-list .curate/batch/items.jsonl --task 3 --tasks 16
    """
    from curate.engine.batch import task_of_array, work_through

    with terminal.progress() as notify:
        task = task_of_array() if task is None else task
        done, failed = work_through(item_list, task=task, tasks=tasks, notify=notify)
    click.echo(f"{done} items done, {failed} of them failed")
    if failed:
        sys.exit(REJECTED)
