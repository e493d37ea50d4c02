"""Which runs are trained where: side by side in one process, in several processes, on GPUs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from curate.corpus.afar import bring, hand_over
from curate.engine.local import count_cores
from curate.engine.run import count_places, run_items
from curate.records import Notify, Run, Watch, silent, unwatched
from curate.store.publish import read_json
from curate.verification.runs import RunItem, is_done, name_of
from curate.verification.start import PRETRAINED
from curate.verification.training import RunStack, train_stack
from curate.verification.watch import state_path, watched

SIDE_BY_SIDE = {"tiny": 32, "1M": 24, "3M": 12, "15M": 6, "50M": 2, "124M": 1}
"""Runs that a GPU trains as one: small models cannot fill one. On a CPU each is trained alone."""

MOST_THREADS = {"tiny": 1, "1M": 1, "3M": 4, "15M": 8}
"""Threads that a run can use: those of a small model would only wait for each other."""


def train_runs(
    items: Sequence[RunItem],
    *,
    workers: int = 0,
    side_by_side: int = 0,
    notify: Notify = silent,
    watch: Watch = unwatched,
    on_run: Callable[[Run], None] | None = None,
    what: str = "train",
) -> list[Run]:
    """Train what is not published yet, in parallel, and return all runs in order.

    Runs of a CPU share its cores: one a core, and more threads each where cores are left. On a
    GPU small models are trained as one. A run's numbers depend on neither, up to rounding.

    Args:
        items: of `plan_run`.
        workers: processes; 0 takes one a core, or one a GPU, on Ray those of the cluster.
        side_by_side: runs that are trained as one, at most; 0 chooses.
        notify: progress, in runs.
        watch: told now and then how far each run is.
        on_run: told of each run that ends now, not of those that were there.
        what: the step's name for `notify`.

    Raises:
        CurateError: a run diverged, or a worker died.
    """
    # Two arms of the same documents (a corpus of one shard) are one run.
    there = {item.path for item in items if is_done(item)}
    missing = list({item.path: item for item in items if item.path not in there}.values())
    n_there = len(items) - len(missing)
    one = missing[0] if missing else None
    crew, most = (
        share_out(one.settings.size, one.device, len(missing), workers, side_by_side)
        if one
        else (1, 1)
    )
    threads = [_thread_count(item, crew) for item in missing]
    ready = [dataclasses.replace(item, threads=n) for item, n in zip(missing, threads, strict=True)]
    stacks = [RunStack(tuple(ready[n : n + most])) for n in range(0, len(ready), most)]
    trained, device = n_there, one.device if one else "cpu"
    afar = one is not None and bool(one.store)
    if there:
        found = sum(item.path in there for item in items)
        notify(f"{what}: {found} of {len(items)} runs are there already", 0, 0)
    _hand_over(missing)
    if missing:
        notify(what, n_there, len(items))  # the clock starts here, not when the first run has ended
    with watched(items, watch):
        done = run_items(train_stack, stacks, workers=crew, device=device, what=what, anywhere=afar)
        for stack, _ in zip(stacks, done, strict=True):
            _bring(stack)
            trained += len(stack.items)
            notify(what, trained, len(items))
            if on_run is not None:
                for item in stack.items:
                    on_run(read_json(item.path, Run))
    return [dataclasses.replace(read_json(item.path, Run), arm=item.arm) for item in items]


def _hand_over(items: Sequence[RunItem]) -> None:
    """Put what runs read where workers that share no folder fetch it; nothing where they do."""
    needed = {
        name_of(item, path): item
        for item in items
        if item.store
        for path in (item.documents, item.items, item.control)
    }
    for name, item in needed.items():
        hand_over(item.store, item.path.parent.parent, name)


def _bring(stack: RunStack) -> None:
    """Fetch runs that have ended on such a worker, and let go of how far they were."""
    for item in stack.items:
        if item.store:
            bring(item.store, item.path.parent.parent, name_of(item, item.path))
            state_path(item).unlink(missing_ok=True)


def share_out(
    size: str, device: str, n_runs: int, workers: int = 0, side_by_side: int = 0
) -> tuple[int, int]:
    """Return how many processes train `n_runs` runs, and how many runs each trains as one.

    On a CPU one run a core: a model alone keeps a core busy. On a GPU small models go side by
    side, as evenly over the GPUs as they can. A pretrained model takes all there is.
    """
    if size == PRETRAINED:
        return workers or 1, 1
    most = side_by_side or (1 if device == "cpu" else SIDE_BY_SIDE[size])
    places = workers or count_places(device)
    most = max(1, min(most, math.ceil(n_runs / places)))
    return max(1, min(places, math.ceil(n_runs / most))), most


def _thread_count(item: RunItem, crew: int) -> int:
    cores = count_cores()
    return max(1, min(cores // max(1, crew), MOST_THREADS.get(item.settings.size, cores)))
