"""Every method and measure of `curate rank` on every arm and target, by the product itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from curate.ranking import methods
from curate.ranking.alignment import align_all
from curate.records import Index, Notify, RowBlock, Target, silent
from curate.settings import Measure, Method, RankSettings
from curate.store.fingerprint import digest_file, fingerprint
from curate.store.publish import publish_json, read_json
from curate.task2vec.reading import load_embedding
from curate.task2vec.target import embed_target

Floats = npt.NDArray[np.float64]
READ = ("corpus", "ranking", "task2vec")
NO_ORDER = ("random", "length")
"""Methods that say nothing here: every arm has the same number of tokens."""


def measure_all(
    index: Index,
    names: Sequence[str],
    targets: Sequence[Target],
    out: Path,
    *,
    device: str = "cpu",
    only: Sequence[str] = (),
    notify: Notify = silent,
) -> dict[str, Floats]:
    """Return measure → (arms, targets), higher is closer; what is known is read back.

    Args:
        index: of the arms, one shard each.
        names: the arms in the order of the result.
        targets: their select splits are read.
        out: gets `measures/`, a file for each measure and target.
        device: of the probe.
        only: names of measures; none takes all.
        notify: progress.
    """
    known = ranking_methods() | late_layers(index.blocks)
    chosen = {name: work for name, work in known.items() if not only or name in only}
    code = fingerprint(files=[digest_file(path) for path in _code()])
    found: dict[str, Floats] = {}
    for number, (name, work) in enumerate(chosen.items()):
        columns = []
        for target in targets:
            key = fingerprint(
                measure=name, index=index.fingerprint, target=target.select_digest, code=code
            )
            path = out / "measures" / f"{name.replace(' ', '_')}-{target.name}-{key[:12]}.json"
            if not path.is_file():
                publish_json(path, work(index, target, out / "arms-index", device))
            values = read_json(path, dict[str, float])
            columns.append([values[name] for name in names])
        found[name] = np.array(columns).T
        notify("measure", number + 1, len(chosen))
    return found


LATE: tuple[Measure, ...] = ("scaled", "rms", "kl")
Work = Callable[[Index, Target, Path, str], dict[str, float]]


def ranking_methods() -> dict[str, Work]:
    """Return every method that orders shards, task2vec once for each of its measures."""
    settings = {
        str(method): RankSettings(method=method)
        for method in get_args(Method)
        if method not in (*NO_ORDER, "task2vec")
    }
    settings |= {
        f"task2vec {measure}": RankSettings(method="task2vec", measure=measure)
        for measure in get_args(Measure)
    }
    return {name: _by_settings(each) for name, each in settings.items()}


def late_layers(blocks: Sequence[RowBlock]) -> dict[str, Work]:
    """Return measures that need no corpus on the last transformer blocks alone, one and two."""
    count = max(block.layer for block in blocks) + 1
    return {
        f"task2vec {measure}, last {last}": _by_layers(measure, count - last)
        for measure in LATE
        for last in (1, 2)
        if last < count
    }


def _by_settings(settings: RankSettings) -> Work:
    def work(index: Index, target: Target, workspace: Path, device: str) -> dict[str, float]:
        found = methods.measure(index, target, settings, workspace, device, silent)
        return {
            entry.shard.name: float(value)
            for entry, value in zip(found.shards, found.values, strict=True)
        }

    return work


def _by_layers(measure: Measure, first: int) -> Work:
    def work(index: Index, target: Target, workspace: Path, device: str) -> dict[str, float]:
        kept = [block for block in index.blocks if block.layer >= first]
        columns = np.concatenate([np.arange(block.start, block.stop) for block in kept])
        blocks, at = [], 0
        for block in kept:
            stop = at + block.stop - block.start
            blocks.append(dataclasses.replace(block, start=at, stop=stop))
            at = stop
        own = embed_target(target, index, workspace=workspace, device=device)
        stacks = (
            load_embedding(Path(index.folder), entry.key).vectors[:, columns]
            for entry in index.shards
        )
        found = align_all(own.vectors[:, columns], stacks, measure=measure, blocks=blocks)
        return {
            entry.shard.name: float(value)
            for entry, value in zip(index.shards, found.values, strict=True)
        }

    return work


def _code() -> list[Path]:
    """Return what a value is computed by: ranking, and what it reads text and probe with."""
    rooms = Path(methods.__file__).parents[1]
    return sorted(path for room in READ for path in (rooms / room).glob("*.py"))
