"""Tasks of an installed lm-evaluation-harness as outcomes: what each model scores on each item."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from curate.corpus.harness import PREFIX, SEED, find_tasks, steadily
from curate.errors import USAGE, CurateError
from curate.settings import VerifySettings
from curate.task2vec.probe import Probe, encode_texts, load_probe
from curate.verification.answers import continuation_nats, write_greedily
from curate.verification.continued import LanguageModel
from curate.verification.evaluate import item_nats
from curate.verification.train import TrainSettings

SOME_ITEMS = 8
"""Of a task, whose prompts tell what all of them will take."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Which tasks a model is asked, and by whose tokenizer."""

    tasks: tuple[str, ...]  # lm-eval:TASK
    tokenizer: str  # a probe's name
    items: int  # of each task, at most
    harness: str  # version: its prompts decide the result
    seed: int = SEED  # of the examples in its prompts


def find_outcomes(settings: VerifySettings) -> Outcomes | None:
    """Return the tasks that runs are asked, after a look at each; None for none.

    Raises:
        CurateError: not a task of the harness, or one that runs what a model answers; the harness
            is not installed, or a task's data cannot be read.
    """
    if not settings.outcomes:
        return None
    for name in settings.outcomes:
        if not name.startswith(PREFIX):
            raise CurateError(
                f"--outcome {name}: is no task; name one as {PREFIX}TASK", exit_code=USAGE
            )
        tasks = find_tasks(name)["tasks"].values()
        if any(getattr(task, "UNSAFE_CODE", False) for task in tasks):
            raise CurateError(f"{name}: runs the code of its answers; name another task")
    tokenizer = settings.model or settings.tokenizer
    return Outcomes(settings.outcomes, tokenizer, settings.eval_items, version("lm_eval"))


def ask(
    model: LanguageModel, outcomes: Outcomes, settings: TrainSettings
) -> dict[str, tuple[float, ...]]:
    """Return what one model scores on each item of each task.

    Args:
        model: one model.
        outcomes: tasks, tokenizer.
        settings: eos and blocks of the training.

    Returns:
        `lm-eval:TASK metric` → a value an item; the items of a group's tasks follow each other.
        A perplexity or a number of bits is its nats an answer or a unit of length, and named so.

    Raises:
        CurateError: a task gives no number for an item.
    """
    from lm_eval.evaluator import evaluate

    asked = _as_harness_model(model, load_probe(outcomes.tokenizer, device="cpu"), settings)
    found: dict[str, tuple[float, ...]] = {}
    for name in outcomes.tasks:
        try:
            with steadily():
                tasks = find_tasks(name)
                samples = evaluate(asked, tasks, limit=outcomes.items, bootstrap_iters=0)["samples"]
        except ValueError as error:
            raise CurateError(f"{name}: {error}; name another task") from None
        values = by_metric(
            [(samples[own], _joined_by(task)) for own, task in tasks["tasks"].items()]
        )
        if not values:
            raise CurateError(f"{name}: none of its metrics is a number for each item")
        found |= {f"{name} {metric}": tuple(each) for metric, each in values.items()}
    return found


@dataclass(frozen=True, slots=True)
class Asking:
    """What the tasks will take of each model."""

    positions: float  # that the model passes, all items
    seconds: float  # of the harness itself: prompts and tokens


def foresee(outcomes: Outcomes, settings: TrainSettings) -> Asking:
    """Return what the tasks will take, from the prompts of some items of each; no model is asked.

    Args:
        outcomes: tasks, tokenizer.
        settings: blocks of the training.
    """
    probe, block = load_probe(outcomes.tokenizer, device="cpu"), settings.block_tokens
    positions = seconds = 0.0
    for name in outcomes.tasks:
        for task in find_tasks(name)["tasks"].values():
            began = time.perf_counter()
            with steadily():
                n_items = min(len(task.eval_docs), outcomes.items)
                some = max(1, min(n_items, SOME_ITEMS))
                task.build_all_requests(limit=some, rank=0, world_size=1)
            passed = sum(_positions(request, probe, block) for request in task.instances)
            positions += passed * n_items / some
            seconds += (time.perf_counter() - began) * n_items / some
    return Asking(positions, seconds)


def _positions(request: Any, probe: Probe, block: int) -> float:
    """Return the positions of a request; every token that is written passes its whole prompt."""
    first, *more = request.args
    if request.request_type == "generate_until":
        (ids,) = encode_texts(probe, [first])
        _, most = _wishes(more[0])
        return float(np.minimum(len(ids) + 1 + np.arange(most), block).sum())
    (ids,) = encode_texts(probe, ["".join([first, *more])])
    return float(len(ids) if request.request_type.endswith("rolling") else min(len(ids), block))


def by_metric(
    tasks: Sequence[tuple[Sequence[dict[str, Any]], Mapping[str, str]]],
) -> dict[str, list[float]]:
    """Return the values of each metric over the items of tasks, where every item has one.

    Args:
        tasks: of each task the harness's samples (an item by each filter, its metrics named), and
            by which of its functions it makes one value of each metric's.
    """
    found: dict[str, list[float]] = {}
    n_items = 0
    for samples, joined_by in tasks:
        n_items += len({sample["doc_id"] for sample in samples})
        for sample in samples:
            for metric in sample["metrics"]:
                value, unit = _value(sample[metric], joined_by.get(metric, ""))
                if isinstance(value, bool | int | float) and math.isfinite(value):
                    named = "" if sample["filter"] == "none" else f" ({sample['filter']})"
                    found.setdefault(f"{metric}{unit}{named}", []).append(float(value))
    return {metric: values for metric, values in found.items() if len(values) == n_items}


def _joined_by(task: Any) -> dict[str, str]:
    """Return the name of the function that makes one value of each metric's."""
    joined = task.aggregation()
    return {metric: getattr(function, "__name__", "") for metric, function in joined.items()}


def _value(value: Any, joined_by: str) -> tuple[Any, str]:
    """Return what has a mean over items, and its unit where that is not the metric's own.

    Pairs of an answer and the right one (F1, BLEU) have none, and are left as they are.
    """
    if joined_by == "perplexity":  # log p of an answer
        return -value, ", nats an answer"
    if joined_by in {"weighted_perplexity", "bits_per_byte"}:  # log p of a text, and its length
        return -value[0] / max(value[1], 1), ", nats a unit"
    return value, ""


def _as_harness_model(model: LanguageModel, probe: Probe, settings: TrainSettings) -> Any:
    """Return the model with the three methods that the harness asks by."""
    from lm_eval.api.model import LM

    known: Any = {"eos": settings.eos, "block_tokens": settings.block_tokens}

    class Asked(LM):
        def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
            pairs = [_moved(*request.args) for request in requests]
            contexts = encode_texts(probe, [context for context, _ in pairs])
            wholes = encode_texts(probe, [context + rest for context, rest in pairs])
            # where tokens of both join, the last of the whole belong to the continuation
            last = [max(1, len(w) - len(c)) for w, c in zip(wholes, contexts, strict=True)]
            nats, greedy = continuation_nats(model, wholes, last, **known)
            return list(zip((-nats).tolist(), greedy.tolist(), strict=True))

        def loglikelihood_rolling(self, requests: Any) -> list[float]:
            texts = encode_texts(probe, [request.args[0] for request in requests])
            filled = [ids if len(ids) else np.array([settings.eos], np.int32) for ids in texts]
            return [-float(nats) for nats in item_nats(model, filled, **known)[0]]

        def generate_until(self, requests: Any) -> list[str]:
            contexts = encode_texts(probe, [request.args[0] for request in requests])
            wishes = [_wishes(request.args[1]) for request in requests]

            def text(ids: Sequence[int]) -> str:
                return str(probe.tokenizer.decode(list(ids)))

            def ended(number: int, ids: Sequence[int]) -> bool:
                so_far = text(ids)
                return any(stop in so_far for stop in wishes[number][0])

            most = [limit for _, limit in wishes]
            written = write_greedily(model, contexts, most, ended=ended, **known)
            return [
                _before(text(ids), stops) for ids, (stops, _) in zip(written, wishes, strict=True)
            ]

    return Asked()


def _moved(context: str, continuation: str) -> tuple[str, str]:
    """Move white space at the end of a context to the continuation, where its tokens have it."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _wishes(wanted: dict[str, Any]) -> tuple[list[str], int]:
    """Return where an answer ends, and its tokens at most."""
    until = wanted.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    return [stop for stop in stops if stop], int(wanted.get("max_gen_toks", 256))


def _before(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0]
    return text
