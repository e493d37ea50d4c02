"""The commands: parse, call one stage, show the result."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from curate import options, terminal
from curate.config import override
from curate.errors import NOT_CONFIRMED, REJECTED
from curate.harmless import without_controls
from curate.settings import Measure, Method, Settings, Tracker


@click.group(cls=terminal.Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="curate")
def main() -> None:
    """Find the data to train on for a target, mix it to a token budget, and verify the gain.

    \b
    curate init                       write curate.toml for this folder
    curate rank --target proofnet     index if needed, then order the shards
    curate build-mix --budget 100M    write the mix, with its forecast
    curate verify                     train small models, hold them against it

    \b
    Exit codes: 0 done, 1 failed, 2 usage, 3 too much input rejected,
    4 forecast not confirmed or alignment fell, 5 locked by a live run, 6 budget unreachable,
    130/143 interrupted (the same command resumes).
    """


@main.command()
@click.option("--force", is_flag=True, help="Replace a curate.toml that is there.")
def init(force: bool) -> None:
    """Write a commented curate.toml for this folder.

    \b
    Example:
      curate init
    """
    from curate.starter import write_starter

    click.echo(without_controls(write_starter(Path.cwd(), force=force)))


@main.command()
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
    _show(found, as_json, index_table, index_json)
    if problem := rejected(found):
        raise problem


@main.command()
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
    _show(found, as_json or as_csv, to_table, to_lines)
    if check is not None and found.fell:
        sys.exit(NOT_CONFIRMED)


@main.command("build-mix")
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
    _show(found, as_json, mix_table, mix_json)


@main.command()
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

        _show(stages.plan_verification(**shared), as_json, verification_plan_table, to_json)
        return
    with terminal.progress_of_runs() as (notify, watch):
        found = stages.verify(**shared, train=not check, notify=notify, watch=watch)
    if export is not None:
        stages.export_verification(export, workspace=workspace)
    _show(found, as_json, verification_table, verification_json)
    if found.verdict != "confirmed":
        sys.exit(NOT_CONFIRMED)


@main.command()
@options.workspace
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The HTML file.")
def report(workspace: Path, out: Path | None) -> None:
    """Write one HTML file with all that the workspace holds.

    \b
    Example:
      curate report --out report.html
    """
    from curate.stages import write_report

    click.echo(without_controls(str(write_report(workspace=workspace, out=out))))


@main.command()
@click.argument("repo")
@options.workspace
@click.option("--private", is_flag=True, help="Of a repository that is made now.")
@click.option("--revision", default="", help="A branch of it; main by default.")
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


@main.command()
@click.argument("artefact", type=click.Choice(["index", "ranking", "mix", "verification"]))
@options.workspace
@options.as_json
def show(artefact: str, workspace: Path, as_json: bool) -> None:
    """Print a published artefact.

    \b
    Example:
      curate show ranking
    """
    from curate.report import json_lines, tables

    printers: dict[str, Any] = {
        "index": (tables.index_table, json_lines.index_json),
        "ranking": (tables.ranking_table, json_lines.ranking_json),
        "mix": (tables.mix_table, json_lines.mix_json),
        "verification": (tables.verification_table, json_lines.verification_json),
    }
    from curate.stages import open_artefact

    _show(open_artefact(artefact, workspace=workspace), as_json, *printers[artefact])


@main.command()
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
    _show(found, as_json, targets_table, records_json)


@main.command()
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

    _show(examine(), as_json, doctor_table, records_json)


@main.command()
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
    from curate.report.overview import demo_summary
    from curate.report.tables import result_console

    result_console().print(demo_summary(result))


@main.command()
@click.option(
    "--item-list", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help="That --engine batch wrote.",
)  # fmt: skip
@click.option("--task", type=click.IntRange(0), help="Of the array.  [default: the Slurm task]")
@click.option("--tasks", type=click.IntRange(1), default=1, show_default=True, help="In all.")
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


def _show_plan(settings: Settings, workspace: Path, device: str, as_json: bool) -> None:
    """Print what `index` would do."""
    from curate.report.overview import plan_json, plan_table
    from curate.stages import plan

    with terminal.progress() as notify:
        found = plan(settings=settings, workspace=workspace, device=device, notify=notify)
    _show(found, as_json, plan_table, plan_json)


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


def _show(
    found: Any, as_json: bool, to_table: Callable[[Any], Any], to_json: Callable[[Any], str]
) -> None:
    """Print a result on stdout: a table for a person, or JSON lines."""
    if as_json:
        click.echo(to_json(found))
        return
    from curate.report.tables import result_console

    result_console().print(to_table(found))
