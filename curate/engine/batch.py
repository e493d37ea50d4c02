"""Work items for a batch system: a list of what is missing, an array script, and their worker."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from curate.engine.listing import find_named, from_text, name_of, to_text
from curate.engine.outcome import Outcome, Reject, attempt, death, judge, portable
from curate.errors import USAGE, CurateError
from curate.harmless import hide_secrets
from curate.records import Notify, silent
from curate.settings import RunSettings
from curate.store.fingerprint import digest_bytes
from curate.store.publish import publish_bytes, publish_json, read_json_if_whole

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

SCRIPT = """\
#!/bin/sh
# Written by curate: one job array over the {n_items} work items that are missing.
# Task k of {tasks} takes items k, k + {tasks}, … of the list; what is done already it passes over.
#SBATCH --job-name=curate
#SBATCH --array=0-{last}
#SBATCH --output={logs}/%a.log
#SBATCH --chdir={folder}
{resources}exec {python} -m curate worker --item-list {listing} \\
  --task "${{SLURM_ARRAY_TASK_ID:?}}" --tasks {tasks}
"""


def run_batch(
    function: Callable[[I], R],
    items: Iterable[I],
    *,
    settings: RunSettings,
    folder: Path,
    notify: Notify = silent,
    what: str = "work items",
    reject: Reject | None = None,
    device: str = "cpu",
) -> Iterator[R]:
    """Have a batch system apply `function` to the items; yield the results in their order.

    The items without a result are listed in `folder`, and `settings.submit` is given the array
    script and must come back when the array has ended (`sbatch --wait`). What has no result
    then is submitted once more. Without a submit command the list is left for the user: the
    same command goes on when the array has run.

    Raises:
        CurateError: the list waits to be run, or the submit command failed.
        BaseException: of an item that may not be lost.
    """
    listed = list(items)
    lines = [to_text(item) for item in listed]
    results = [folder / "results" / f"{_key(function, line)}.json" for line in lines]
    for path in results if settings.submit else ():
        path.unlink(missing_ok=True)  # of a run that was killed: their files may be gone
    missing = list(range(len(results)))
    for _ in range(2):
        missing = [number for number in missing if _result_at(results[number]) is None]
        if missing:
            script = _write_list(function, [lines[n] for n in missing], settings, folder, device)
            notify(f"{what}: {len(missing)} in {script}", 0, 0)
            _submit(script, settings, len(missing))
    for number, (item, path) in enumerate(zip(listed, results, strict=True), start=1):
        outcome = _read(path)
        path.unlink(missing_ok=True)
        notify(what, number, len(listed))
        if judge(item, outcome, alone=True, reject=reject) == "done":
            yield outcome.result


def work_through(
    listing: Path, *, task: int = 0, tasks: int = 1, notify: Notify = silent
) -> tuple[int, int]:
    """Do the items `task`, `task + tasks`, … of a list, but those with a result already.

    Each result is published beside the list; an item that fails twice gives the text of its
    error, and the others go on.

    Args:
        listing: written by `run_batch`.
        task: of the array, from 0.
        tasks: of the array.
        notify: progress in items.

    Returns:
        Items done here, and how many of them failed.

    Raises:
        CurateError: no such list, a task out of range, or a file system that refuses.
    """
    if not 0 <= task < tasks:
        raise CurateError(f"--task {task}: must lie from 0 to {tasks - 1} (--tasks {tasks})")
    try:
        # not by splitlines, which also ends a line at signs that JSON leaves as they are
        name, *lines = listing.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError):
        raise CurateError(f"{listing}: no list of work items; run the command again") from None
    function = find_named(name)
    own = lines[task::tasks]
    done = failed = 0
    for number, line in enumerate(own, start=1):
        path = listing.parent / "results" / f"{_key(function, line)}.json"
        if _result_at(path) is None:
            item = from_text(line)
            outcome = portable(attempt(function, item))
            if outcome.error is not None:  # this process has nothing else in hand
                outcome = portable(attempt(function, item))
            judge(None, outcome, alone=True, reject=lambda failure: None)  # a full disk ends it
            publish_json(path, _as_json(outcome))
            done, failed = done + 1, failed + (outcome.error is not None)
        notify("work items", number, len(own))
    return done, failed


def _write_list(
    function: Callable[..., Any],
    lines: Sequence[str],
    settings: RunSettings,
    folder: Path,
    device: str,
) -> Path:
    """Publish the list of items and the script of an array that does them; return the script."""
    tasks = min(len(lines), settings.workers or len(lines), 1000)
    listing = (folder / "items.jsonl").resolve()
    publish_bytes(listing, "\n".join([name_of(function), *lines, ""]).encode())
    logs = listing.parent / "logs"
    logs.mkdir(exist_ok=True)
    script = listing.parent / "array.sbatch"
    text = SCRIPT.format(
        n_items=len(lines),
        tasks=tasks,
        last=tasks - 1,
        logs=_in_directive(logs),
        folder=_in_directive(Path.cwd()),
        resources="#SBATCH --gpus=1\n"
        if device.startswith("cuda")
        else "#SBATCH --cpus-per-task=1\n",
        python=shlex.quote(sys.executable),
        listing=shlex.quote(str(listing)),
    )
    publish_bytes(script, text.encode())
    return script


def _in_directive(path: Path) -> str:
    """Return a path as a line of #SBATCH takes it; after a line break the shell would read on."""
    if "\n" in str(path):
        raise CurateError(f"{str(path)!r}: a line break in it cannot stand in a batch script")
    return shlex.quote(str(path))


def _submit(script: Path, settings: RunSettings, n_items: int) -> None:
    if not settings.submit:
        raise CurateError(
            f"{n_items} work items wait in {script.parent / 'items.jsonl'}: run sbatch {script}, "
            "then the same command again"
        )
    try:
        command = [*shlex.split(settings.submit), str(script)]
        ended = subprocess.run(command, check=False, stdout=sys.stderr.fileno())
    except (OSError, ValueError) as error:  # ValueError: a quotation without its end
        why = getattr(error, "strerror", None) or str(error)
        raise CurateError(f"[run] submit = {settings.submit!r}: {why}") from None
    if ended.returncode < 0:
        raise CurateError(f"{settings.submit}: ended by signal {-ended.returncode}")


def _key(function: Callable[..., Any], line: str) -> str:
    return digest_bytes(f"{name_of(function)}\n{line}".encode())[:40]


def _as_json(outcome: Outcome) -> dict[str, Any]:
    error = outcome.error
    if error is None:
        return {"result": to_text(outcome.result)}
    kind = "curate" if isinstance(error, CurateError) else type(error).__name__
    said = {"error": str(error), "kind": kind, "trace": outcome.trace}
    return {name: hide_secrets(text) for name, text in said.items()}


def _result_at(path: Path) -> dict[str, Any] | None:
    """Read what became of an item; None where nothing did, or not what was published."""
    return read_json_if_whole(path, dict[str, Any])


def _read(path: Path) -> Outcome:
    """Return the outcome of an item; one without a result died."""
    found = _result_at(path)
    if found is None:
        return death("no result of it, see the logs beside the list")
    if "result" in found:
        return Outcome(from_text(found["result"]))
    text = found["error"] if found["kind"] == "curate" else f"{found['kind']}: {found['error']}"
    return Outcome(error=CurateError(text), trace=found["trace"])


def task_of_array() -> int:
    """Return the number of this task of a Slurm array, 0 outside of one.

    Raises:
        CurateError: the environment names no number.
    """
    number = os.environ.get("SLURM_ARRAY_TASK_ID", "0")
    if not (number.isascii() and number.isdecimal()):
        raise CurateError(
            f"SLURM_ARRAY_TASK_ID={number}: not the number of a task; give --task", exit_code=USAGE
        )
    return int(number)
