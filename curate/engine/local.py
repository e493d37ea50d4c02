"""Work items on this machine: in this process, or in worker processes that are started once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any, TypeVar

from curate.engine.crew import Worker, receive, send, start_worker, stop_worker
from curate.engine.outcome import Outcome, Reject, attempt, judge
from curate.records import Notify, silent

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")


def run_local(
    function: Callable[[I], R],
    items: Iterable[I],
    *,
    workers: int = 1,
    notify: Notify = silent,
    what: str = "work items",
    total: int = 0,
    reject: Reject | None = None,
    slots: int = 1,
    environments: Sequence[Mapping[str, str]] = (),
    crew: list[Worker] | None = None,
    most: int = 0,
) -> Iterator[R]:
    """Apply `function` to each item and yield the results in the order of the items.

    With more than one worker, items run in spawned processes of one thread each, which are
    started once; whatever must outlive a crash is published by `function` itself. Items are
    taken from `items` when a worker has room for them, so they may be made as they are needed.
    On an interrupt, and when this iterator is closed, the workers are killed; they also end by
    themselves when this process dies.

    Args:
        function: importable by name (a function of a module), not of `__main__`.
        items: small records; large arrays belong in files that the items name.
        workers: processes; 1 or fewer runs everything in this process, unless `environments`
            asks for one.
        notify: told after each item how many are done.
        what: the step's name for `notify`.
        total: number of the items where `items` is no sequence; 0 where it is not known.
        reject: told of an item that failed, was tried again with nothing beside it, and failed
            again; its result is left out. None: no item may be lost, an error is raised.
        slots: items that a process has in hand at a time, each in a thread of its own; they may
            be more than one only where `function` lets threads work beside each other.
        environments: variables of each worker process, in turn: on which GPU it works.
        crew: processes of an earlier call, taken where they fit; those that live are left in it
            for the next. None: the processes end with this call.
        most: items that are worked on, or whose results wait for an earlier one, at a time; for
            results too large to wait in any number. 0: no bound.

    Raises:
        CurateError: a worker died twice over an item that may not be lost.
        BaseException: of an item that may not be lost, with the worker's traceback as its note.
    """
    n_items = len(items) if isinstance(items, Sequence) else total
    told = _Told(notify, what, n_items)
    if isinstance(items, Sequence):
        workers = min(workers, len(items))
    if workers <= 1 and not environments:
        yield from _run_here(function, items, slots, told, reject)
        return
    kept = [] if crew is None else crew
    job = _Job(function, enumerate(items), slots, told, reject, most)
    try:
        for number in range(max(1, workers)):
            own = environments[number % len(environments)] if environments else {}
            fits = next((worker for worker in kept if worker.environment == own), None)
            if fits is not None:
                kept.remove(fits)
            job.crew.append(fits or start_worker(own))
        yield from _run_there(job)
    finally:
        for worker in job.crew:
            if crew is None or worker.held:
                stop_worker(worker)
            else:
                crew.append(worker)


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(slots=True)
class _Told:
    """Progress of a job."""

    notify: Notify
    what: str
    total: int
    done: int = 0

    def add(self) -> None:
        self.done += 1
        self.notify(self.what, self.done, self.total)


@dataclass(slots=True)
class _Job:
    """What is going on in the worker processes."""

    function: Callable[[Any], Any]
    waiting: Iterator[tuple[int, Any]]
    slots: int
    told: _Told
    reject: Reject | None
    most: int  # items beyond those whose results were taken; 0: any number
    crew: list[Worker] = field(default_factory=list)
    again: deque[tuple[int, Any]] = field(default_factory=deque)  # each to be tried alone
    alone: int = -1  # number of the item that is tried alone
    finished: dict[int, tuple[Any, ...]] = field(default_factory=dict)  # (), or (result,)
    n_given: int = 0
    n_yielded: int = 0


def _run_here(
    function: Callable[[I], R], items: Iterable[I], slots: int, told: _Told, reject: Reject | None
) -> Iterator[R]:
    for item, outcome in _attempts(function, items, slots):
        verdict = judge(item, outcome, alone=False, reject=reject)
        if verdict == "again":
            outcome = attempt(function, item)
            verdict = judge(item, outcome, alone=True, reject=reject)
        told.add()
        if verdict == "done":
            yield outcome.result


def _attempts(
    function: Callable[[I], R], items: Iterable[I], slots: int
) -> Iterator[tuple[I, Outcome]]:
    """Try each item once, up to `slots` at a time in threads; give them in their order."""
    if slots <= 1:
        yield from ((item, attempt(function, item)) for item in items)
        return
    waiting: deque[tuple[I, Future[Outcome]]] = deque()
    with ThreadPoolExecutor(slots) as threads:
        try:
            for item in items:
                waiting.append((item, threads.submit(attempt, function, item)))
                if len(waiting) == slots:
                    first, tried = waiting.popleft()
                    yield first, tried.result()
            yield from ((item, tried.result()) for item, tried in waiting)
        finally:
            threads.shutdown(cancel_futures=True)


def _run_there(job: _Job) -> Iterator[Any]:
    """Give every worker that has room the next item; hold results back until their turn."""
    while True:
        _hand_out(job)
        busy = {worker.line: worker for worker in job.crew if worker.held}
        if not busy:
            return
        for line in wait(list(busy)):
            worker = busy[line]  # type: ignore[index]
            outcomes = receive(worker)
            if any(outcome.died for outcome in outcomes.values()):
                _replace(job, worker)
            for number, outcome in outcomes.items():
                _settle(job, number, worker.held.pop(number), outcome)
        while job.n_yielded in job.finished:
            yield from job.finished.pop(job.n_yielded)
            job.n_yielded += 1


def _hand_out(job: _Job) -> None:
    """Fill the workers evenly; an item that failed goes out when nothing else is in hand."""
    if job.again or job.alone >= 0:
        if job.alone < 0 and not any(worker.held for worker in job.crew):
            number, item = job.again.popleft()
            job.alone = number
            send(job.crew[0], job.function, number, item)
        return
    for room in range(job.slots):
        for worker in job.crew:
            if len(worker.held) == room:
                if 0 < job.most <= job.n_given - job.n_yielded:
                    return
                numbered = next(job.waiting, None)
                if numbered is None:
                    return
                send(worker, job.function, *numbered)
                job.n_given += 1


def _settle(job: _Job, number: int, item: Any, outcome: Outcome) -> None:
    alone = number == job.alone
    verdict = judge(item, outcome, alone=alone, reject=job.reject)
    if alone:
        job.alone = -1
    if verdict == "again":
        job.again.append((number, item))
        return
    job.finished[number] = (outcome.result,) if verdict == "done" else ()
    job.told.add()


def _replace(job: _Job, dead: Worker) -> None:
    """Put a new process in the place of one that has died."""
    place = job.crew.index(dead)
    job.crew[place] = start_worker(dead.environment)
    dead.line.close()
    dead.process.close()
