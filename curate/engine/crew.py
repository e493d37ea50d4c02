"""Worker processes: each started once, given items one after the other, ended with its parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any

from curate.engine.outcome import Outcome, attempt, death, portable

_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_WAIT_POLICY = "OMP_WAIT_POLICY"
"""Passive unless the caller says otherwise: training has several threads where there are more
cores than runs, and one that spins while it waits takes the core of another run."""


MOST_SLOTS = 2
"""Items that a process works on at a time: one computes while another is read or written."""


@dataclass(slots=True)
class Worker:
    """A worker process and the items that it holds."""

    line: Connection
    process: SpawnProcess
    environment: Mapping[str, str]
    held: dict[int, Any] = field(default_factory=dict)  # number → item


def start_worker(environment: Mapping[str, str]) -> Worker:
    """Start a process that waits for items.

    Args:
        environment: variables of its own; each process also computes on one thread.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    own = dict.fromkeys(_THREAD_LIMITS, "1") | dict(environment)
    own.setdefault(_WAIT_POLICY, os.environ.get(_WAIT_POLICY, "PASSIVE"))
    process = context.Process(target=_serve, args=(theirs, own), daemon=True)
    with _without_main():
        process.start()
    theirs.close()  # so that our end reads EOF when the worker dies
    return Worker(ours, process, environment)


def send(worker: Worker, function: Callable[[Any], Any], number: int, item: Any) -> None:
    """Give a worker an item; whether it lives shows when its answer is read.

    Args:
        worker: has at most `MOST_SLOTS` items in hand.
        function: importable by name (a function of a module), not of `__main__`.
        number: of the item.
        item: a small record.
    """
    worker.held[number] = item
    with suppress(BrokenPipeError, ConnectionResetError):
        worker.line.send((function, number, item))


def receive(worker: Worker) -> dict[int, Outcome]:
    """Read one answer: the outcome of an item; of all that it held, where it has died."""
    try:
        number, outcome = worker.line.recv()
    except (EOFError, OSError):  # OSError: it died in the middle of an answer
        worker.process.join()
        lost = death(f"exit code {worker.process.exitcode}")
        return dict.fromkeys(worker.held, lost)
    return {number: outcome}


def stop_worker(worker: Worker) -> None:
    """Kill a worker process; what it had published stays."""
    worker.line.close()
    worker.process.kill()
    worker.process.join()
    worker.process.close()


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


def _serve(line: Connection, environment: Mapping[str, str]) -> None:
    """Work until the line closes: the body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and kills
    # Before the function is read from the line: its module may import a tensor library.
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lock = threading.Lock()

    def work(function: Callable[[Any], Any], number: int, item: Any) -> None:
        outcome = portable(attempt(function, item))
        with lock, suppress(BrokenPipeError, ConnectionResetError):
            _answer(line, number, outcome)

    with suppress(EOFError, ConnectionResetError), ThreadPoolExecutor(MOST_SLOTS) as threads:
        while True:
            threads.submit(work, *line.recv())


def _answer(line: Connection, number: int, outcome: Outcome) -> None:
    """Send an outcome; of one that cannot be packed, why: silence would be waited for."""
    sent = attempt(line.send, (number, outcome))  # packed whole before the first byte goes out
    if sent.error is not None and not isinstance(sent.error, OSError):
        line.send((number, portable(sent)))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
