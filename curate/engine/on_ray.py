"""Work items on a Ray cluster: Ray places them, the items publish what they make."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from curate.engine.outcome import Outcome, Reject, attempt, death, judge, portable
from curate.errors import CannotWriteError, CurateError
from curate.records import Notify, silent
from curate.settings import RunSettings
from curate.store.owner import is_mark_gone, this_owner

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

DEATHS = 2
"""Of an item's process, or of its node, before it is tried with nothing beside it."""

STARTS = 3
"""Of a cluster on this machine, before it is given up."""

TOO_LATE = "timed out during startup"
"""What Ray says of a node that came later than it waits."""

AHEAD = 2
"""Items that are with Ray for each that can run, so that no node waits for the driver."""


@dataclass(slots=True)
class _Job:
    """What is with Ray."""

    task: Any  # the remote function
    waiting: Iterator[tuple[int, Any]]
    reject: Reject | None
    per_item: dict[str, float]  # resources
    folder: str  # that items are done in, "" where any will do
    mark: str  # file that a node sees which shares the folders, "" where none has to
    going: dict[Any, int] = field(default_factory=dict)  # reference → number
    held: dict[int, Any] = field(default_factory=dict)  # number → item
    deaths: dict[int, int] = field(default_factory=dict)
    lost: deque[int] = field(default_factory=deque)  # to go out again
    again: deque[int] = field(default_factory=deque)  # each to be tried alone
    alone: int = -1
    finished: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    n_yielded: int = 0


def run_ray(
    function: Callable[[I], R],
    items: Iterable[I],
    *,
    ray: Any,
    gpus: float = 1.0,
    notify: Notify = silent,
    what: str = "work items",
    total: int = 0,
    reject: Reject | None = None,
    device: str = "cpu",
    mark: Path | None = None,
) -> Iterator[R]:
    """Apply `function` to each item on a Ray cluster; yield the results in the order of the items.

    Workers see the same folders as this process, but where there is no `mark`; they publish what
    they make, and send back what `function` returns. An item whose process or node dies goes out
    again, at most twice, then once with nothing beside it.

    Args:
        function: importable by name on every node.
        items: small records.
        ray: of `connected`.
        gpus: of a GPU for each item, where `device` is cuda.
        notify: told after each item how many are done.
        what: the step's name for `notify`.
        total: number of the items, where `items` is no sequence.
        reject: as of `run_local`.
        device: cuda asks Ray for GPUs.
        mark: of `marked`, which nodes have to see; None where items are done on any node.

    Raises:
        CurateError: the cluster has no GPU, a node does not see the folder of the mark, or an
            item's process died again and again.
        BaseException: of an item that may not be lost.
    """
    n_items = len(items) if isinstance(items, Sequence) else total
    per_item = _needs(device, gpus)
    _check_room(ray, per_item)
    # Ray's own retries have no end where memory runs out, so they are counted here.
    own = ray.remote(num_cpus=1, num_gpus=per_item.get("GPU", 0), max_retries=0, max_calls=0)(_work)
    task = own.options(scheduling_strategy="SPREAD")
    # Items name their files from where the command was given.
    folder = os.getcwd() if mark else ""  # noqa: PTH109 - text, for another machine
    named = str(mark.absolute()) if mark else ""
    job = _Job(task, enumerate(items), reject, per_item, folder, named)
    n_done = 0
    while True:
        _hand_out(ray, job, function)
        if not job.going:
            return
        for reference in ray.wait(list(job.going), num_returns=1)[0]:
            if _settle(job, job.going.pop(reference), _receive(ray, reference)):
                n_done += 1
                notify(what, n_done, n_items)
        while job.n_yielded in job.finished:
            yield from job.finished.pop(job.n_yielded)
            job.n_yielded += 1


def _work(function: Callable[[Any], Any], item: Any, folder: str, mark: str) -> Outcome:
    """Do one item on whatever node Ray chose: the body of a task."""
    if mark and not Path(mark).is_file():
        return Outcome(error=_unseen(Path(mark).parent))
    if folder:
        os.chdir(folder)
    return portable(attempt(function, item))


def _unseen(folder: Path) -> CurateError:
    # No other item fares better, so that it ends the run as a full disk does.
    return CannotWriteError(
        f"{socket.gethostname()}: this node of the Ray cluster does not see {folder}; share that "
        "folder, or give --engine local (curate index and curate verify also work on nodes that "
        "share none: --workspace s3://BUCKET/FOLDER)"
    )


@contextmanager
def marked(folder: Path) -> Iterator[Path]:
    """Give a file that stands in a folder for a while: who sees it shares the folder.

    Those of killed drivers go. It is no temporary file by its name: a machine that sweeps those
    cannot see that this one's process lives, and takes them for forgotten after an hour.
    """
    there = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("ray-*"):
        if is_mark_gone(left.name.removeprefix("ray-").rpartition("-")[0]):
            left.unlink(missing_ok=True)
    mark = folder / f"ray-{this_owner().mark}-{secrets.token_hex(8)}"
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)
        if not there:
            with suppress(OSError):
                folder.rmdir()


def _hand_out(ray: Any, job: _Job, function: Callable[[Any], Any]) -> None:
    if job.again or job.alone >= 0:
        if job.alone < 0 and not job.going:
            job.alone = job.again.popleft()
            _send(job, function, job.alone)
        return
    most = AHEAD * _room(ray, job.per_item)
    while len(job.going) < most:
        if job.lost:
            number = job.lost.popleft()
        elif (numbered := next(job.waiting, None)) is not None:
            number, job.held[numbered[0]] = numbered
        else:
            return
        _send(job, function, number)


def _send(job: _Job, function: Callable[[Any], Any], number: int) -> None:
    job.going[job.task.remote(function, job.held[number], job.folder, job.mark)] = number


def _receive(ray: Any, reference: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
        return outcome
    except ray.exceptions.RayError as error:
        return death(type(error).__name__)


def _settle(job: _Job, number: int, outcome: Outcome) -> bool:
    """Take an outcome in; say whether the item is finished with."""
    alone = number == job.alone
    if outcome.died and not alone:
        job.deaths[number] = job.deaths.get(number, 0) + 1
        if job.deaths[number] < DEATHS:
            job.lost.append(number)
            return False
    verdict = judge(job.held[number], outcome, alone=alone, reject=job.reject)
    if alone:
        job.alone = -1
    if verdict == "again":
        job.again.append(number)
        return False
    del job.held[number]
    job.finished[number] = (outcome.result,) if verdict == "done" else ()
    return True


def count_room(ray: Any, *, device: str, gpus: float) -> int:
    """Return how many items a cluster can work on at a time.

    Raises:
        CurateError: the cluster has no GPU.
    """
    _check_room(ray, _needs(device, gpus))
    return _room(ray, _needs(device, gpus))


def _needs(device: str, gpus: float) -> dict[str, float]:
    return {"CPU": 1.0} | ({"GPU": gpus} if device.startswith("cuda") else {})


def _room(ray: Any, per_item: dict[str, float]) -> int:
    """Return how many items the cluster as it is now can work on."""
    there = ray.cluster_resources()
    return max(1, min(int(there.get(name, 0.0) / need) for name, need in per_item.items()))


def _check_room(ray: Any, per_item: dict[str, float]) -> None:
    there = ray.cluster_resources()
    for name in per_item:
        if not there.get(name):
            raise CurateError(
                f"the Ray cluster has no {name}: give --device cpu, or add a node that has one"
            )


@contextmanager
def connected(settings: RunSettings) -> Iterator[Any]:
    """Connect to the cluster, or start one here; leave it as it was found.

    Args:
        settings: its address; without one, `workers` cores of this machine are taken.

    Raises:
        CurateError: Ray is not installed, or no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise CurateError("--engine ray: Ray is not installed; pip install 'curate[ray]'") from None
    mine = not ray.is_initialized()
    if mine and settings.address:
        try:
            ray.init(address=settings.address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise CurateError(
                f"--address {settings.address}: no Ray cluster there ({error})"
            ) from None
    elif mine:
        _start(ray, settings.workers)
    try:
        # Ray says on stdout that a worker died; there stands the result of a command
        with redirect_stdout(sys.stderr) if mine else nullcontext():
            yield ray
    finally:
        if mine:
            ray.shutdown()


def _start(ray: Any, workers: int) -> None:
    """Start a cluster here; on a busy machine its node may come later than Ray waits (30 s)."""
    for left in reversed(range(STARTS)):
        try:
            ray.init(
                address="local", num_cpus=workers or None, include_dashboard=False,
                log_to_driver=False, configure_logging=False,
            )  # fmt: skip
            return
        except Exception as error:  # Ray has no other for it
            ray.shutdown()
            if TOO_LATE not in str(error):
                raise
            if not left:
                raise CurateError(
                    f"--engine ray: Ray did not start on this machine in {STARTS} tries of 30 s; "
                    "run the same command when it is less busy, or give --engine local"
                ) from None
