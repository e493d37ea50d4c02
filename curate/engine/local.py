"""Work items on this machine: in this process, or in worker processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any, TypeVar

from curate.errors import CurateError
from curate.records import Notify, silent

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_items(
    function: Callable[[I], R],
    items: Sequence[I],
    *,
    workers: int = 1,
    notify: Notify = silent,
    what: str = "work items",
) -> Iterator[R]:
    """Apply `function` to each item and yield the results in the order of the items.

    With more than one worker each item runs in a freshly spawned process that uses one
    thread; whatever must outlive a crash is published by `function` itself. An error in a
    worker stops the others and is raised here with the worker's traceback as its note. On an
    interrupt, and when this iterator is closed, the workers are killed; they also end by
    themselves when this process dies.

    Args:
        function: importable by name (a function of a module), not of `__main__`.
        items: small records; large arrays belong in files that the items name.
        workers: processes; 1 or fewer runs everything in this process.
        notify: told after each item how many are done.
        what: the step's name for `notify`.

    Raises:
        CurateError: a worker died without an exception (killed, or out of memory).
    """
    if workers <= 1 or len(items) <= 1:
        yield from _run_here(function, items, notify=notify, what=what)
        return
    crew = _start_workers(min(workers, len(items)), function)
    try:
        yield from _run_there(crew, items, notify=notify, what=what)
    finally:
        _stop_workers(crew)


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


Crew = dict[Connection, SpawnProcess]


def _run_here(
    function: Callable[[I], R], items: Sequence[I], *, notify: Notify, what: str
) -> Iterator[R]:
    for done, item in enumerate(items, start=1):
        result = function(item)
        notify(what, done, len(items))
        yield result


def _run_there(crew: Crew, items: Sequence[Any], *, notify: Notify, what: str) -> Iterator[Any]:
    """Give every idle worker the next item; hold results back until their turn."""
    waiting = iter(enumerate(items))
    busy = {line for line in crew if _hand_out(line, waiting)}
    finished: dict[int, Any] = {}
    n_done = n_yielded = 0
    while busy:
        for ready in wait(list(busy)):
            line = next(candidate for candidate in busy if candidate is ready)
            number, result = _receive(line, crew[line])
            finished[number] = result
            n_done += 1
            notify(what, n_done, len(items))
            if not _hand_out(line, waiting):
                busy.discard(line)
        while n_yielded in finished:
            yield finished.pop(n_yielded)
            n_yielded += 1


def _hand_out(line: Connection, waiting: Iterator[tuple[int, Any]]) -> bool:
    """Send the next item; False where none is left."""
    numbered = next(waiting, None)
    if numbered is None:
        return False
    line.send(numbered)
    return True


def _receive(line: Connection, process: SpawnProcess) -> tuple[int, Any]:
    try:
        number, result, error, trace = line.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        raise CurateError(
            f"a worker process ended by itself (exit code {process.exitcode}, often: out of "
            "memory); run the command again, it resumes"
        ) from None
    if error is not None:
        error.add_note(f"in a worker process:\n{trace}")
        raise error
    return number, result


def _start_workers(n_workers: int, function: Callable[[Any], Any]) -> Crew:
    context = get_context("spawn")
    crew: Crew = {}
    try:
        for _ in range(n_workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            with _without_main():
                process.start()
            theirs.close()  # so that our end reads EOF when the worker dies
            crew[ours] = process
            ours.send(function)
    except BaseException:
        _stop_workers(crew)
        raise
    return crew


def _stop_workers(crew: Crew) -> None:
    for line, process in crew.items():
        line.close()
        process.kill()
    for process in crew.values():
        process.join()
        process.close()


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide `__main__` while a worker is spawned.

    A spawned process imports its parent's main script again; a user's script without a
    `__main__` guard would then start the whole job once more in every worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(line: Connection) -> None:
    """Work until the line closes: the body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and kills
    # Before the function is read from the line: its module may import a tensor library.
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        function = line.recv()
        while True:
            number, item = line.recv()
            line.send(_attempt(function, number, item))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _attempt(function: Callable[[Any], Any], number: int, item: Any) -> tuple[Any, ...]:
    try:
        return number, function(item), None, ""
    except BaseException as error:  # whatever it is, it is raised again in the parent
        return number, None, error, traceback.format_exc()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
