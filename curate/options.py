"""Options that several commands have, and the types of their values."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.shell_completion import CompletionItem

from curate.config import override, read_settings
from curate.report.numbers import parse_share, parse_tokens
from curate.settings import Engine, Settings

F = TypeVar("F", bound=Callable[..., Any])


class Tokens(click.ParamType[int]):
    """A number of tokens: 250k, 100M, 1.5B."""

    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the count as an int."""
        if isinstance(value, int):
            return value
        try:
            return parse_tokens(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class TextField(click.ParamType[str]):
    """A field, or a template in which a shell can write line breaks and tabs."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        r"""Return a template with its \n and \t as the signs that they stand for."""
        given = str(value)
        return given.replace(r"\n", "\n").replace(r"\t", "\t") if "{" in given else given


class Share(click.ParamType[float]):
    """A share: 1% or 0.01."""

    name = "share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the share, 0 to 1."""
        try:
            return parse_share(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def complete_path(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete a file or folder."""
    return [CompletionItem(incomplete, type="file")]


def complete_target(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a named target with what it is about, or a file.

    The list is read as data: a shell waits for this, and readers load slowly. The path goes
    first: in bash it drops the names before it.
    """
    text = files("curate.corpus").joinpath("targets.toml").read_text(encoding="utf-8")
    named = [
        CompletionItem(name, help=entry["about"])
        for name, entry in tomllib.loads(text).items()
        if name.startswith(incomplete)
    ]
    return [*complete_path(ctx, param, incomplete), *named]


def complete_probe(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the built-in probe, or a folder or file of another."""
    own = [CompletionItem("builtin", help="part of this package")]
    return [
        *complete_path(ctx, param, incomplete),
        *(item for item in own if item.value.startswith(incomplete)),
    ]


class Place(click.Path):
    """A folder; of one on an object store, its copy, which is published when the command ends."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of the folder."""
        if ctx is None or ctx.resilient_parsing or "://" not in str(value):
            return super().convert(value, param, ctx)
        from curate.stages.mirror import mirrored

        return ctx.with_resource(mirrored(str(value), notify=_told))


def _told(what: str, done: float, total: float) -> None:
    """Say once what was fetched or published: a bar would stand in that of the command."""
    if done == total:
        click.echo(f"{what}: {total:,.0f} objects", err=True)


def workspace(command: F) -> F:
    """Give a command the folder for all that is published."""
    return click.option(
        "--workspace", type=Place(), default=Path(".curate"), show_default=True,
        envvar="CURATE_WORKSPACE", help="Folder for all that is published, or s3://BUCKET/FOLDER.",
    )(command)  # fmt: skip


def config(command: F) -> F:
    """Give a command the settings of a file."""
    return click.option(
        "--config", "settings", type=click.Path(path_type=Path, dir_okay=False),
        callback=lambda ctx, param, value: read_settings(value),
        help="Settings file; its paths are relative to it.  "
        "[default: curate.toml where there is one]",
    )(command)  # fmt: skip


def as_json(command: F) -> F:
    """Let a command print JSON lines."""
    return click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout.")(command)


def device(command: F) -> F:
    """Let a command be told where the tensors are."""
    return click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
        help="Where tensors are computed.",
    )(command)  # fmt: skip


def engine(command: F) -> F:
    """Let a command be told where its work items run."""
    for option in reversed((
        click.option(
            "--engine", type=click.Choice(get_args(Engine)),
            help="Where the work runs: here, on Ray, or as an array of jobs.",
        ),
        click.option(
            "--workers", type=click.IntRange(0),
            help="Processes, or jobs of the array; chosen by default.",
        ),
        click.option("--address", help="Address of a Ray cluster; one is started here by default."),
        click.option("--submit", help='Command that runs the array and waits: "sbatch --wait".'),
    )):  # fmt: skip
        command = option(command)
    return command


def run_on(settings: Settings, given: dict[str, Any]) -> Settings:
    """Put the options of `engine` over the settings, and take them out of what was given."""
    own = {name: given.pop(name) for name in ("engine", "workers", "address", "submit")}
    run = override(settings.run, **own)
    for name, engine in (("address", "ray"), ("submit", "batch")):
        if own[name] and run.engine != engine:
            raise click.UsageError(f"--{name} goes with --engine {engine}")
    return dataclasses.replace(settings, run=run)
