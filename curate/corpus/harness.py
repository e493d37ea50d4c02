"""Tasks of an installed lm-evaluation-harness → items of a target."""

from __future__ import annotations

import difflib
import logging
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from typing import Any

import numpy as np

from curate.corpus.containers import one_line
from curate.errors import USAGE, CurateError

PREFIX = "lm-eval:"

SEED = 1234
"""Of what tasks draw at random, as in the harness's own command: examples, orders of choices."""


@dataclass(frozen=True, slots=True)
class TaskItems:
    """What a task asks."""

    select: tuple[str, ...]
    eval: tuple[str, ...] | None  # None: the task has one split
    origin: str


def load_task(name: str) -> TaskItems:
    """Read the items of a task, a group or a tag that the installed harness ships.

    An item is the question as the harness puts it and the right answer after it, no examples
    before. The eval split is the task's test split, else its validation split; the select split
    is what remains of validation and training, in that order. Files and folders of tasks are not
    taken, since a task's file may name code.

    Args:
        name: `lm-eval:TASK`.

    Raises:
        CurateError: the package is missing, it ships no such task, or its data cannot be read.
    """
    from curate.corpus.hub import FAILURES  # the hub client takes seconds to import

    task_name = name.removeprefix(PREFIX)
    with steadily():
        tasks = list(find_tasks(name)["tasks"].values())
        try:
            splits = [_splits(task) for task in tasks]
            select, held_out = (
                tuple(
                    item
                    for task, both in zip(tasks, splits, strict=True)
                    for item in _items(task, both[place])
                )
                for place in (0, 1)
            )
        except FAILURES as error:
            raise _unreadable(name, error) from None
    sets = dict.fromkeys(str(getattr(task, "DATASET_PATH", "") or "") for task in tasks)
    origin = f"lm-eval {version('lm_eval')} {task_name} ({', '.join(filter(None, sets))})"
    if not all(both[1] is not None for both in splits):
        return TaskItems((*select, *held_out), None, origin)
    return TaskItems(select, held_out, origin)


def find_tasks(name: str) -> dict[str, Any]:
    """Return what the installed harness makes of a task, a group or a tag that it ships.

    Args:
        name: `lm-eval:TASK`. Files and folders are not taken.

    Returns:
        What `lm_eval.evaluator.evaluate` takes: under `tasks` each task by its name.

    Raises:
        CurateError: the package is missing, it ships no such task, or its data cannot be read.
    """
    from curate.corpus.hub import FAILURES

    task_name = name.removeprefix(PREFIX)
    try:
        manager = _shipped()
    except ImportError:
        raise CurateError(f"{name}: needs the package lm-eval: pip install lm-eval") from None
    if task_name not in manager.all_tasks:
        raise CurateError(_unknown(name, task_name, manager.all_tasks), exit_code=USAGE)
    try:
        with steadily(), _asking_once():
            found: dict[str, Any] = manager.load(task_name)
    except FAILURES as error:
        raise _unreadable(name, error) from None
    for task in found["tasks"].values():
        task.set_fewshot_seed(SEED)  # else each process draws examples of its own
    return found


@contextmanager
def steadily() -> Iterator[None]:
    """Let tasks draw the same each time, and show no bar of their own on the terminal.

    Some shuffle by the generators of the whole process when their documents are read.
    """
    import datasets
    import lm_eval.api.task as harness

    before, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what tasks use
    hidden, bar = datasets.are_progress_bars_disabled(), harness.tqdm
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002
    datasets.disable_progress_bars()
    harness.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        harness.tqdm = bar
        if not hidden:
            datasets.enable_progress_bars()
        np.random.set_state(legacy)  # noqa: NPY002
        random.setstate(before)


@contextmanager
def _asking_once() -> Iterator[None]:
    """Let the hub be left alone where it does not answer: each file is asked for six times."""
    import datasets
    from huggingface_hub import constants

    from curate.corpus.hub import hub_answers

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not hub_answers():
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _unreadable(name: str, error: BaseException) -> CurateError:
    return CurateError(
        f"{name}: its data cannot be read ({one_line(error)}); name a local file instead"
    )


@cache
def _shipped() -> Any:
    """Return the harness's table of its own tasks, which takes some seconds to make."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager()


def _unknown(name: str, task: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(task, known, n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "lm-eval ls tasks lists them"
    return f"{name}: the installed lm-eval ships no such task; {hint}"


def _splits(task: Any) -> tuple[Any, Any]:
    """Return the documents to select by and to evaluate on; the second is None for one split."""
    found = [
        docs() if there() else None
        for there, docs in (
            (task.has_test_docs, task.test_docs),
            (task.has_validation_docs, task.validation_docs),
            (task.has_training_docs, task.training_docs),
        )
    ]
    given = [docs for docs in found if docs is not None]
    if not given:
        raise CurateError(f"lm-eval task {task.task_name}: it has no documents")
    return (given[1], given[0]) if len(given) > 1 else (given[0], None)


def _items(task: Any, documents: Any) -> Iterator[str]:
    for document in documents if documents is not None else ():
        yield _render(task, document)


def _render(task: Any, document: Any) -> str:
    """Return question and right answer as the harness joins them."""
    question, answer = task.doc_to_text(document), task.doc_to_target(document)
    config = task.config
    if getattr(config, "doc_to_choice", None) is not None:
        choices = task.doc_to_choice(document)
        question, answer = (
            choices[part] if isinstance(part, int) and 0 <= part < len(choices) else part
            for part in (question, answer)
        )
    if isinstance(answer, list):  # several right answers
        answer = answer[0] if answer else ""
    return f"{question}{getattr(config, 'target_delimiter', ' ')}{answer}"
