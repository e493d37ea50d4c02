"""The command that orders shards, and answers questions about their order: rank."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from curate import options, terminal
from curate.commands.results import show_result
from curate.config import override, without_reading
from curate.errors import NOT_CONFIRMED
from curate.settings import Measure, Method, Settings


@click.command(cls=terminal.Stage, short_help="Order the shards by alignment to a target.")
@click.option(
    "--target", "targets", multiple=True, shell_complete=options.complete_target,
    help="A name that curate targets lists, a file, NAME=SELECT_FILE,EVAL_FILE, hf:org/name or "
    "lm-eval:TASK; several with NAME:WEIGHT.",
)  # fmt: skip
@options.workspace
@options.config
@click.option("--text", type=options.TextField(), metavar="TEXT", help="Field of a target file.")
@click.option(
    "--template", type=options.TextField(), metavar="TEXT",
    help='How an item reads: "{question} {answer}".',
)  # fmt: skip
@click.option("--data-dir", help="Folder of named targets where the hub is out of reach.")
@click.option(
    "--method", type=click.Choice(get_args(Method)), help="What ranks; ngram-lm by default."
)
@click.option(
    "--measure",
    type=click.Choice(get_args(Measure)),
    help="Form of Task2Vec alignment; means --method task2vec.",
)
@click.option("--encoder", help="Sentence encoder of method embedding: a folder, or a hub id.")
@click.option("--exact", is_flag=True, default=None, help="Rank every shard, no shortlist.")
@click.option("--compare", is_flag=True, help="Rank by every method; say how far they agree.")
@click.option(
    "--against", multiple=True, help="One more target, a column each; repeatable.",
    shell_complete=options.complete_target,
)  # fmt: skip
@click.option("--explain", help="Why this shard ranks where it does.")
@click.option(
    "--check", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="End with 4 where alignment fell below FILE, kept from rank --json. For CI.",
)  # fmt: skip
@options.device
@options.as_json
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header on stdout.")
def rank(
    targets: tuple[str, ...], workspace: Path, settings: Settings, device: str, as_json: bool,
    method: str | None, measure: str | None, encoder: str | None, exact: bool | None, compare: bool,
    against: tuple[str, ...], explain: str | None, check: Path | None, as_csv: bool, **given: Any,
) -> None:  # fmt: skip
    """Order the shards by alignment to a target; index first where needed.

    \b
    Example:
      curate rank --target proofnet
      curate rank --target questions.jsonl --template "{question} {answer}"
      curate rank --target proofnet:2 --target minif2f
      curate rank --target proofnet --explain web-00012
    """
    if sum((compare, bool(against), explain is not None, check is not None)) > 1:
        raise click.UsageError(
            "--compare, --against, --explain and --check are four questions: ask one"
        )
    if as_csv and (as_json or explain is not None or check is not None):
        raise click.UsageError("--csv goes without --json, --explain and --check")
    if given["text"] and given["template"]:
        raise click.UsageError("--text and --template both say how an item reads: give one")
    if measure and method not in (None, "task2vec"):
        raise click.UsageError("--measure is one of method task2vec")
    from curate import stages
    from curate.report import comparison as tables
    from curate.report.json_lines import ranking_json
    from curate.report.ranking_table import ranking_table

    method = method or ("task2vec" if measure else None)
    target = targets[0] if len(targets) == 1 else targets or None
    wanted = without_reading(settings.target, target) if target else settings.target
    settings = dataclasses.replace(
        settings,
        target=override(wanted, **given),
        rank=override(settings.rank, method=method, measure=measure, exact=exact, encoder=encoder),
    )
    if encoder and settings.rank.method != "embedding" and not compare:
        raise click.UsageError("--encoder is for --method embedding, or --compare")
    shared: dict[str, Any] = {"settings": settings, "workspace": workspace, "device": device}
    found: Any
    to_table: Callable[[Any], Any] = ranking_table
    to_lines: Callable[[Any], str] = tables.ranking_csv if as_csv else ranking_json
    with terminal.progress() as notify:
        if explain is not None:
            found = stages.explain(explain, target, notify=notify, **shared)
            to_table, to_lines = tables.explanation_table, tables.explanation_json
        elif check is not None:
            found = stages.check(check, target, notify=notify, **shared)
            to_table, to_lines = tables.check_table, tables.check_json
        elif compare or against:
            found = stages.compare(target, against=against, notify=notify, **shared)
            to_table = tables.comparison_table
            to_lines = tables.comparison_csv if as_csv else tables.comparison_json
        else:
            found = stages.rank(target, notify=notify, **shared)
    show_result(found, as_json or as_csv, to_table, to_lines)
    if check is not None and found.fell:
        sys.exit(NOT_CONFIRMED)
