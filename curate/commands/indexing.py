"""The command that cuts documents into shards and embeds them: index."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from curate import options, terminal
from curate.commands.results import show_result
from curate.config import override
from curate.settings import Settings


@click.command(cls=terminal.Stage)
@click.argument("paths", nargs=-1, shell_complete=options.complete_path)
@options.workspace
@options.config
@click.option(
    "--probe", help="builtin, a hub id, a folder or a .gguf file.",
    shell_complete=options.complete_probe,
)  # fmt: skip
@click.option(
    "--text", type=options.TextField(), metavar="TEXT",
    help='Field with the text, or a template: "{prompt}\\n{completion}", "{messages.content}".',
)  # fmt: skip
@click.option("--shard-tokens", type=options.Tokens(), help="Tokens a shard: 250k, 1M.")
@click.option(
    "--max-rejected", type=options.Share(), help="Share of documents rejected at most: 0.1%."
)
@click.option("--group-by", help="What a source is: file, folder, field:NAME or cluster.")
@click.option("--clusters", type=click.IntRange(2), help="Topics; chosen by size by default.")
@click.option("--batches", type=click.IntRange(2), help="Sub-batches a shard.")
@click.option("--batch-tokens", type=options.Tokens(), help="Tokens a sub-batch.")
@click.option("--layers", help="all, or last:K.")
@click.option("--sketch", type=click.IntRange(1), help="Numbers a sub-batch at most.")
@click.option(
    "--documents", is_flag=True, flag_value=512, default=None, type=int,
    help="Also write a vector of 512 numbers for every embedded document.",
)  # fmt: skip
@click.option(
    "--gradients", is_flag=True, flag_value=4096, default=None, type=int,
    help="Also keep mean gradients of 4,096 numbers, for rank --method transfer.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be done, and what it costs.")
@options.engine
@options.device
@options.as_json
def index(
    paths: tuple[str, ...], workspace: Path, settings: Settings, device: str, as_json: bool,
    dry_run: bool, **given: Any,
) -> None:  # fmt: skip
    """Cut PATHS into shards and embed each one.

    PATHS are jsonl, parquet, csv or text files (also compressed), folders, globs,
    hf:org/name, or the same on s3://, gs:// and hf://. Without any, those of
    curate.toml are taken.

    \b
    Example:
      curate index corpora/ --shard-tokens 1M
      curate index pool.jsonl.zst --group-by cluster --dry-run
    """
    settings = options.run_on(settings, given)
    configured, settings = settings, _given(settings, paths=paths, **given)
    if given["clusters"] and settings.corpus.group_by != "cluster":
        raise click.UsageError("--clusters goes with --group-by cluster")
    if dry_run:
        _show_plan(settings, workspace, device, as_json)
        return
    from curate.report.json_lines import index_json
    from curate.report.tables import index_table
    from curate.stages import index as run
    from curate.stages import rejected

    with terminal.progress() as notify:
        found = run(
            settings=settings, configured=configured, workspace=workspace, device=device,
            notify=notify,
        )  # fmt: skip
    show_result(found, as_json, index_table, index_json)
    if problem := rejected(found):
        raise problem


def _show_plan(settings: Settings, workspace: Path, device: str, as_json: bool) -> None:
    """Print what `index` would do."""
    from curate.report.overview import plan_json, plan_table
    from curate.stages import plan

    with terminal.progress() as notify:
        found = plan(settings=settings, workspace=workspace, device=device, notify=notify)
    show_result(found, as_json, plan_table, plan_json)


def _given(settings: Settings, *, paths: tuple[str, ...], **given: Any) -> Settings:
    """Put the options of `index` over the settings."""
    names = ("text", "shard_tokens", "max_rejected", "group_by", "clusters")
    corpus = {name: given[name] for name in names}
    kinds = ("probe", "batches", "batch_tokens", "layers", "sketch", "documents", "gradients")
    embed = {name: given[name] for name in kinds}
    return dataclasses.replace(
        settings,
        corpus=override(settings.corpus, inputs=paths or None, **corpus),
        embed=override(settings.embed, **embed),
    )
