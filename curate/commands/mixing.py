"""The command that writes training data: build-mix."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import click

from curate import options, terminal
from curate.commands.results import show_result
from curate.config import override
from curate.settings import Selection, Settings


@click.command(
    "build-mix", cls=terminal.Stage, short_help="Write a training mix of an exact token budget."
)
@click.option(
    "--budget", type=options.Tokens(), help="Tokens of the mix, exactly: 250k, 100M, 1.5B."
)
@click.option(
    "--out", type=click.Path(file_okay=False), default="mix", show_default=True,
    help="Folder of the mix, or s3://BUCKET/FOLDER.",
)  # fmt: skip
@options.workspace
@options.config
@click.option(
    "--selection", type=click.Choice(get_args(Selection)),
    help="A soft choice by rank, the mixture closest to the target, or the best shards whole; "
    "auto takes what trained best after such a ranking.",
)  # fmt: skip
@click.option("--max-epochs", type=float, help="Times a shard may be repeated.")
@click.option("--tokenizer", help="What counts the tokens; the probe's by default.")
@click.option(
    "--decontaminate", type=click.Choice(["words", "semantic"]), is_flag=False,
    flag_value="words", help="By the items' words (the default), or paraphrases too.",
)  # fmt: skip
@click.option("--no-decontaminate", is_flag=True, help="Leave items of the target in.")
@click.option(
    "--encoder", metavar="MODEL", help="Model that compares meanings; the probe by default."
)
@click.option("--dedup/--no-dedup", default=None, help="Leave copies out (the default).")
@click.option(
    "--keep", multiple=True, metavar="SOURCE=20%",
    help="At least this share of a source; SOURCE<=20% is at most.",
)  # fmt: skip
@click.option(
    "--blend", multiple=True, metavar="general=30%",
    help="This share from all sources in natural proportions, or from one.",
)  # fmt: skip
@click.option(
    "--priority", multiple=True, metavar="SOURCE", help="Source whose copy of a text stays."
)
@click.option("--holdout", type=options.Share(), help="Share held out beside the mix: 1%.")
@click.option(
    "--whole-documents",
    is_flag=True,
    default=None,
    help="Cut no document; end nearest to the budget.",
)
@click.option("--manifest-only", is_flag=True, help="Write weights and records, copy no text.")
@click.option(
    "--format", "fmt", type=click.Choice(["parquet", "jsonl", "mds", "tokens", "megatron"]),
    help="Of the files of the mix; parquet by default.",
)  # fmt: skip
@click.option(
    "--trainer",
    type=click.Choice(["transformers", "nanotron", "olmo-core", "torchtitan", "axolotl", "litgpt"]),
    help="Also write the file that starts this trainer on the mix.",
)  # fmt: skip
@options.engine
@options.as_json
def build_mix(
    budget: int | None, out: str, workspace: Path, settings: Settings, fmt: str | None,
    as_json: bool, manifest_only: bool, trainer: str | None, decontaminate: str | None,
    no_decontaminate: bool, **given: Any,
) -> None:  # fmt: skip
    """Write an aligned training mix of exactly that many tokens, with its forecast.

    \b
    Example:
      curate build-mix --budget 100M --out mix
      curate build-mix --budget 1B --keep "wikipedia=20%" --holdout 1%
    """
    from curate.report.json_lines import mix_json
    from curate.report.tables import mix_table
    from curate.stages import build_mix as run

    settings = options.run_on(settings, given)
    if decontaminate and no_decontaminate:
        raise click.UsageError("--no-decontaminate goes without --decontaminate")
    clean = not no_decontaminate if decontaminate or no_decontaminate else None
    given |= {"decontaminate": clean}
    given |= {"paraphrases": decontaminate == "semantic" if decontaminate else None}
    if manifest_only and fmt:
        raise click.UsageError("--manifest-only writes no text in any format: leave out --format")
    several = {name: given.pop(name) or None for name in ("keep", "blend", "priority")}
    settings = dataclasses.replace(settings, mix=override(settings.mix, **given, **several))
    if given["encoder"] and not (settings.mix.decontaminate and settings.mix.paraphrases):
        raise click.UsageError("--encoder goes with --decontaminate semantic")
    if several["priority"] and not settings.mix.dedup:
        raise click.UsageError("--priority goes without --no-dedup")
    with terminal.progress() as notify:
        found = run(
            budget, settings=settings, workspace=workspace, out=out,
            fmt="manifest" if manifest_only else fmt or "parquet", trainer=trainer or "",
            notify=notify,
        )  # fmt: skip
    show_result(found, as_json, mix_table, mix_json)
