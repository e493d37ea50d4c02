"""The one door: the same function over the same items, wherever the run was told to work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from curate.engine.crew import Worker, stop_worker
from curate.engine.local import count_cores, run_local
from curate.engine.outcome import Reject
from curate.records import Notify, silent
from curate.settings import RunSettings

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")


@dataclass(slots=True)
class Place:
    """Where a run works, and what it keeps from step to step."""

    settings: RunSettings
    folder: Path  # of its lists of items for a batch system
    held: ExitStack  # ends what is kept
    crew: list[Worker] = field(default_factory=list)  # processes that wait for the next step
    ray: Any = None  # the connection to a cluster
    mark: Path | None = None  # a file by which nodes of that cluster know its folder


_place: ContextVar[Place | None] = ContextVar("place", default=None)


@contextmanager
def working_on(settings: RunSettings, *, folder: Path) -> Iterator[None]:
    """Let every `run_items` inside work there; no result depends on it.

    Args:
        settings: which engine, and how many workers.
        folder: for the lists of items of a batch system.
    """
    with ExitStack() as held:
        place = Place(settings, folder, held)
        held.callback(_stop_all, place.crew)
        token = _place.set(place)
        try:
            yield
        finally:
            _place.reset(token)


@contextmanager
def working_here() -> Iterator[None]:
    """Let every `run_items` inside work on this machine, whatever the run was told."""
    token = _place.set(None)
    try:
        yield
    finally:
        _place.reset(token)


def _stop_all(crew: list[Worker]) -> None:
    for worker in crew:
        stop_worker(worker)


def run_items(
    function: Callable[[I], R],
    items: Iterable[I],
    *,
    workers: int = 1,
    notify: Notify = silent,
    what: str = "work items",
    total: int = 0,
    reject: Reject | None = None,
    device: str = "cpu",
    slots: int = 1,
    apart: bool = False,
    anywhere: bool = False,
) -> Iterator[R]:
    """Apply `function` to each item where the run works; yield the results in their order.

    Args:
        function: of this package, importable by name.
        items: small records; what is large lies in files that they name.
        workers: processes on this machine; those of a GPU are dealt out over the GPUs.
        notify: told after each item how many are done.
        what: the step's name for `notify`.
        total: number of the items, where `items` is no sequence.
        reject: told of an item that failed twice, the second time alone; None: none may be lost.
        device: on which items compute, cpu or cuda.
        slots: items that a process on this machine has in hand at a time.
        apart: let even a single worker be a process of its own.
        anywhere: items name no file of this machine: nodes need not see its folders.

    Raises:
        CurateError: the engine is not there, or a worker died twice over one item.
        BaseException: of an item that may not be lost.
    """
    place = _place.get()
    engine = place.settings.engine if place else "local"
    if place and engine == "ray":
        from curate.engine.on_ray import marked, run_ray

        if not anywhere:
            place.mark = place.mark or place.held.enter_context(marked(place.folder))
        return run_ray(
            function, items, ray=_cluster(place), gpus=place.settings.gpus, notify=notify,
            what=what, total=total, reject=reject, device=device,
            mark=None if anywhere else place.mark,
        )  # fmt: skip
    if place and engine == "batch":
        from curate.engine.batch import run_batch

        return run_batch(
            function, items, settings=place.settings, folder=place.folder, notify=notify,
            what=what, reject=reject, device=device,
        )  # fmt: skip
    own: list[dict[str, str]] = [{}] if apart else []
    if device == "cuda" and (workers > 1 or apart):
        own = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in visible_gpus()]
    return run_local(
        function, items, workers=workers, notify=notify, what=what, total=total, reject=reject,
        slots=slots, environments=own, crew=place.crew if place else None,
    )  # fmt: skip


def count_places(device: str) -> int:
    """Return how many items can be worked on at a time: one a core or GPU, here or of the cluster.

    Raises:
        CurateError: there is no such cluster, or it has no GPU.
    """
    place = _place.get()
    if place and place.settings.engine == "ray":
        from curate.engine.on_ray import count_room

        return count_room(_cluster(place), device=device, gpus=place.settings.gpus)
    return count_cores() if device == "cpu" else max(1, len(visible_gpus()))


def _cluster(place: Place) -> Any:
    """Return the connection to the cluster of a run, which is made once."""
    from curate.engine.on_ray import connected

    place.ray = place.ray or place.held.enter_context(connected(place.settings))
    return place.ray


def engine_here() -> str:
    """Return the engine that `run_items` would use now."""
    place = _place.get()
    return place.settings.engine if place else "local"


def visible_gpus() -> list[str]:
    """Return the names by which processes are given one GPU each (CUDA_VISIBLE_DEVICES)."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
