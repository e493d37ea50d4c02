"""The four stages of a job: index, rank, build-mix, verify."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from curate import options, terminal
from curate.commands.results import show_result
from curate.config import override
from curate.errors import NOT_CONFIRMED
from curate.settings import Measure, Method, Settings, Tracker


@click.command(cls=terminal.Stage)
@click.argument("paths", nargs=-1, shell_complete=options.complete_path)
@options.workspace
@options.config
@click.option(
    "--probe", help="builtin, a hub id, a folder or a .gguf file.",
    shell_complete=options.complete_probe,
)  # fmt: skip
@click.option("--text", help='Field with the text, or a template: "{question} {answer}".')
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


@click.command(cls=terminal.Stage)
@click.option(
    "--target", "targets", multiple=True, shell_complete=options.complete_target,
    help="A name that curate targets lists, a file, hf:org/name or lm-eval:TASK; several with "
    "NAME:WEIGHT.",
)  # fmt: skip
@options.workspace
@options.config
@click.option("--text", help="Field of a target file.")
@click.option("--template", help='How an item reads: "{question} {answer}".')
@click.option("--data-dir", help="Folder of named targets where the hub is out of reach.")
@click.option(
    "--method", type=click.Choice(get_args(Method)), help="What ranks; lexical by default."
)
@click.option(
    "--measure",
    type=click.Choice(get_args(Measure)),
    help="Form of Task2Vec alignment; means --method task2vec.",
)
@click.option("--encoder", help="Sentence encoder of method embedding: a folder, or a hub id.")
@click.option("--exact", is_flag=True, default=None, help="Align every shard, no shortlist.")
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
    if measure and method not in (None, "task2vec"):
        raise click.UsageError("--measure is one of method task2vec")
    from curate import stages
    from curate.report import comparison as tables
    from curate.report.json_lines import ranking_json
    from curate.report.tables import ranking_table

    method = method or ("task2vec" if measure else None)
    settings = dataclasses.replace(
        settings,
        target=override(settings.target, **given),
        rank=override(settings.rank, method=method, measure=measure, exact=exact, encoder=encoder),
    )
    if encoder and settings.rank.method != "embedding" and not compare:
        raise click.UsageError("--encoder is for --method embedding, or --compare")
    shared: dict[str, Any] = {"settings": settings, "workspace": workspace, "device": device}
    found: Any
    to_table: Callable[[Any], Any] = ranking_table
    to_lines: Callable[[Any], str] = tables.ranking_csv if as_csv else ranking_json
    target = targets[0] if len(targets) == 1 else targets or None
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


@click.command("build-mix", cls=terminal.Stage)
@click.option(
    "--budget", type=options.Tokens(), help="Tokens of the mix, exactly: 250k, 100M, 1.5B."
)
@click.option(
    "--out", type=click.Path(file_okay=False), default="mix", show_default=True,
    help="Folder of the mix, or s3://BUCKET/FOLDER.",
)  # fmt: skip
@options.workspace
@options.config
@click.option("--selection", type=click.Choice(["top", "temperature", "match"]))
@click.option("--max-epochs", type=float, help="Times a shard may be repeated.")
@click.option("--tokenizer", help="That counts the budget; the probe's by default.")
@click.option(
    "--decontaminate", type=click.Choice(["words", "semantic"]), is_flag=False,
    flag_value="words", help="By the items' words (the default), or paraphrases too.",
)  # fmt: skip
@click.option("--no-decontaminate", is_flag=True, help="Leave items of the target in.")
@click.option("--encoder", metavar="MODEL", help="That compares meanings: the probe by default.")
@click.option("--dedup/--no-dedup", default=None, help="On by default.")
@click.option(
    "--keep", multiple=True, metavar="SOURCE=20%",
    help="At least so much of a source; SOURCE<=20% at most.",
)  # fmt: skip
@click.option(
    "--blend", multiple=True, metavar="general=30%",
    help="So much of all sources (or of one) in natural proportions.",
)  # fmt: skip
@click.option("--priority", multiple=True, metavar="SOURCE", help="Whose copy of a text stays.")
@click.option("--holdout", type=options.Share(), help="Held out beside the mix: 1%.")
@click.option("--whole-documents", is_flag=True, default=None, help="Cut none: nearest to budget.")
@click.option("--manifest-only", is_flag=True, help="Write weights and records, copy no text.")
@click.option(
    "--format", "fmt", type=click.Choice(["parquet", "jsonl", "mds", "tokens", "megatron"]),
    default="parquet", show_default=True,
)  # fmt: skip
@click.option(
    "--trainer",
    type=click.Choice(["transformers", "nanotron", "olmo-core", "torchtitan", "axolotl", "litgpt"]),
    help="Write a file that starts it with this mix.",
)  # fmt: skip
@options.engine
@options.as_json
def build_mix(
    budget: int | None, out: str, workspace: Path, settings: Settings, fmt: str, as_json: bool,
    manifest_only: bool, trainer: str | None, decontaminate: str | None, no_decontaminate: bool,
    **given: Any,
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
    several = {name: given.pop(name) or None for name in ("keep", "blend", "priority")}
    settings = dataclasses.replace(settings, mix=override(settings.mix, **given, **several))
    with terminal.progress() as notify:
        found = run(
            budget, settings=settings, workspace=workspace, out=out,
            fmt="manifest" if manifest_only else fmt, trainer=trainer or "", notify=notify,
        )  # fmt: skip
    show_result(found, as_json, mix_table, mix_json)


@click.command(cls=terminal.Stage)
@options.workspace
@options.config
@click.option("--size", type=click.Choice(["tiny", "1M", "3M", "15M", "50M", "124M"]))
@click.option("--model", help="Go on from this model: a hub id, a folder or a .gguf file.")
@click.option("--lora", type=click.IntRange(1), help="Rank of adapters that learn in its place.")
@click.option("--tokens", type=options.Tokens(), help="Tokens a run.")
@click.option("--seeds", type=click.IntRange(1), help="Runs of the mix and of each control.")
@click.option("--calibration", type=click.IntRange(2), help="Mixes trained to fit the forecast.")
@click.option("--against", metavar="METHODS", help="Rankings to compare with, or all: a,b,all")
@click.option(
    "--outcome", "outcomes", multiple=True, metavar="lm-eval:TASK", help="A task asked too."
)
@click.option("--dry-run", is_flag=True, help="Say how long it will take, from steps timed here.")
@click.option("--check", is_flag=True, help="Train nothing: check what was verified. For CI.")
@click.option(
    "--export", type=click.Path(path_type=Path, file_okay=False),
    help="Folder for ratios.csv and metrics.csv.",
)  # fmt: skip
@click.option(
    "--track", type=click.Choice([name for name in get_args(Tracker) if name]),
    help="Send the curves of runs there too.",
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
    from curate.report.tables import verification_table

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
    shared: Any = {"settings": settings, "workspace": workspace, "device": device}
    if dry_run:
        from curate.report.json_lines import to_json
        from curate.report.overview import verification_plan_table

        show_result(stages.plan_verification(**shared), as_json, verification_plan_table, to_json)
        return
    with terminal.progress_of_runs() as (notify, watch):
        found = stages.verify(**shared, train=not check, notify=notify, watch=watch)
    if export is not None:
        stages.export_verification(export, workspace=workspace)
    show_result(found, as_json, verification_table, verification_json)
    if found.verdict != "confirmed":
        sys.exit(NOT_CONFIRMED)


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
