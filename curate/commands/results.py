"""What a workspace holds: report, show, push."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from curate import options, terminal
from curate.harmless import without_controls


@click.command(cls=terminal.Stage)
@options.workspace
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The HTML file.  [default: report.html in the workspace]",
)
def report(workspace: Path, out: Path | None) -> None:
    """Write one HTML file with all that the workspace holds.

    \b
    Example:
      curate report --out report.html
    """
    from curate.stages import write_report

    with terminal.progress() as notify:
        path = write_report(workspace=workspace, out=out, notify=notify)
    click.echo(without_controls(str(path)))


@click.command(cls=terminal.Stage, short_help="Upload the latest mix and its card to the hub.")
@click.argument("repo")
@options.workspace
@click.option("--private", is_flag=True, help="Make a new repository a private one.")
@click.option("--revision", default="", help="Branch to push to; main by default.")
def push(repo: str, workspace: Path, private: bool, revision: str) -> None:
    """Upload the latest mix, with its card, to the hub as the data set REPO (org/name).

    \b
    Example:
      curate push my-org/proofnet-100m --private
    """
    with terminal.progress() as notify:
        from curate.stages import push as run

        address = run(repo, workspace=workspace, private=private, revision=revision, notify=notify)
    click.echo(address)


@click.command(cls=terminal.Stage)
@click.argument(
    "artefact", type=click.Choice(["index", "ledger", "ranking", "mix", "verification"])
)
@options.workspace
@options.as_json
def show(artefact: str, workspace: Path, as_json: bool) -> None:
    """Print a published artefact, or the ledger of all files.

    \b
    Example:
      curate show ranking
    """
    from curate.report import json_lines, ranking_table, tables, verdict

    printers: dict[str, Any] = {
        "index": (tables.index_table, json_lines.index_json),
        "ledger": (tables.ledger_table, json_lines.ledger_json),
        "ranking": (ranking_table.ranking_table, json_lines.ranking_json),
        "mix": (tables.mix_table, json_lines.mix_json),
        "verification": (verdict.verification_table, json_lines.verification_json),
    }
    from curate.stages import open_artefact

    place = "index" if artefact == "ledger" else artefact
    show_result(open_artefact(place, workspace=workspace), as_json, *printers[artefact])


def show_result(
    found: Any, as_json: bool, to_table: Callable[[Any], Any], to_json: Callable[[Any], str]
) -> None:
    """Print a result on stdout: a table for a person, or JSON lines.

    What a table warns of stands on stderr beside JSON: a script is to be told too.
    """
    if as_json:
        click.echo(to_json(found))
        for warning in getattr(found, "warnings", ()):
            click.echo(without_controls(f"! {warning}"), err=True)
        return
    from curate.report.grid import result_console

    result_console().print(to_table(found))
