"""How every command behaves: a mistake in one line, a bug with its traceback, signals, progress."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import click

from curate.errors import USAGE, CurateError
from curate.harmless import hide_secrets, without_controls
from curate.records import Notify, Watch


class Stage(click.Command):
    """A command that loads tensor libraries, which takes seconds: on a terminal it says so."""

    def invoke(self, ctx: click.Context) -> Any:
        """Say that something happens, then run the command."""
        if sys.stderr.isatty():
            click.echo(f"curate {ctx.info_name}: loading", err=True)
        return super().invoke(ctx)


class Commands(click.Group):
    """The one place where a user's mistake becomes one line and an exit code."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the group's own options; what is wrong with them is shown without controls."""
        with _shown_plainly():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a `CurateError` is one line, a bug keeps its traceback."""
        sys.excepthook = _show_bug
        _take_all_signs()
        try:
            with _terminable(), _shown_plainly():
                _check_text(*ctx.args, _here())
                return super().invoke(ctx)
        except CurateError as error:
            _fail(str(error), error.exit_code)
        except BrokenPipeError:
            # the reader of our output went away; what is published stays
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except OSError as error:
            if not _is_of_the_disk(error):
                raise
            _fail(f"{error.filename or 'the disk'}: {error.strerror}; mend it, then run again", 1)
        except KeyboardInterrupt:
            _fail("interrupted; the same command goes on where it stopped", 130)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the work, not of the alphabet."""
        return list(self.commands)


def _take_all_signs() -> None:
    """Let stdout take every sign where its encoding does not: ? on a terminal, UTF-8 elsewhere."""
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper) or out.encoding.lower() in ("utf-8", "utf8"):
        return
    if out.isatty():
        out.reconfigure(errors="replace")
    else:
        out.reconfigure(encoding="utf-8")


def _is_of_the_disk(error: OSError) -> bool:
    """Say whether a file system or a device refused: what no code of ours can mend."""
    refusals = (
        errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS,
        errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ESTALE, errno.EMFILE,
        errno.ENFILE, errno.ENODEV, errno.ENXIO,
    )  # fmt: skip
    return error.errno in refusals


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let signals unwind the stack, so that children and files are cleaned: SIGTERM exits with 143.

    After an interrupt no second one is heard: between its exception and the line that says so it
    would end the first with another exit code. SIGTERM still is.
    """

    def leave(number: int, frame: object) -> NoReturn:
        sys.exit(128 + number)

    def interrupt(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {signal.SIGTERM: signal.signal(signal.SIGTERM, leave)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        before.pop(signal.SIGINT, None)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _shown_plainly() -> Iterator[None]:
    """Take control characters and secrets out of what click says about a wrong option."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = without_controls(hide_secrets(error.message))
        raise


def _check_text(*words: str) -> None:
    """Refuse words whose bytes are no text: no artefact could hold them."""
    for word in words:
        try:
            word.encode("utf-8")
        except UnicodeEncodeError:
            raise CurateError(f"{word}: is not UTF-8; rename it", exit_code=USAGE) from None


def _here() -> str:
    try:
        return str(Path.cwd())
    except OSError as error:
        raise CurateError(f"the current folder: {error.strerror}; change to another") from None


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a bug, line by line without controls and secrets."""
    text = hide_secrets("".join(traceback.format_exception(kind, error, trace)))
    for line in text.splitlines():
        click.echo(without_controls(line), err=True)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"curate: {without_controls(hide_secrets(message))}", err=True)
    sys.exit(code)


@contextlib.contextmanager
def progress() -> Iterator[Notify]:
    """Show progress on stderr while a command works."""
    from curate.report.progress import progress_notify

    prepare_libraries()
    with progress_notify() as notify:
        yield notify


@contextlib.contextmanager
def progress_of_runs() -> Iterator[tuple[Notify, Watch]]:
    """Show progress, and how far training runs are, on stderr while a command works."""
    from curate.report.progress import progress_of_runs as shown

    prepare_libraries()
    with shown() as both:
        yield both


def prepare_libraries() -> None:
    """Keep the libraries' own bars and advice off stderr, and their idle threads off the cores.

    Threads that spin while they wait take the cores from whoever shares the machine: on two
    shared cores indexing was four times slower with spinning threads.
    """
    for name, value in {
        "OMP_WAIT_POLICY": "PASSIVE",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }.items():
        os.environ.setdefault(name, value)
