"""Tasks of an installed lm-evaluation-harness as outcomes: what each model scores on each item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from curate.corpus.harness import PREFIX, find_tasks
from curate.errors import USAGE, CurateError
from curate.settings import VerifySettings
from curate.task2vec.probe import Probe, encode_texts, load_probe
from curate.verification.answers import continuation_nats, write_greedily
from curate.verification.continued import LanguageModel
from curate.verification.evaluate import item_nats
from curate.verification.train import TrainSettings


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Which tasks a model is asked, and by whose tokenizer."""

    tasks: tuple[str, ...]  # lm-eval:TASK
    tokenizer: str  # a probe's name
    items: int  # of each task, at most
    harness: str  # version: its prompts decide the result


def find_outcomes(settings: VerifySettings) -> Outcomes | None:
    """Return the tasks that runs are asked, after a look at each; None for none.

    Raises:
        CurateError: not a task of the harness, the harness is not installed, or its data cannot
            be read.
    """
    if not settings.outcomes:
        return None
    for name in settings.outcomes:
        if not name.startswith(PREFIX):
            raise CurateError(
                f"--outcome {name}: is no task; name one as {PREFIX}TASK", exit_code=USAGE
            )
        find_tasks(name)
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
        A metric that the harness divides by a length (perplexity, bits) is its nats a unit.

    Raises:
        CurateError: a task gives no number for an item, or runs code that its answers hold.
    """
    from lm_eval.evaluator import evaluate

    asked = _as_harness_model(model, load_probe(outcomes.tokenizer, device="cpu"), settings)
    found: dict[str, tuple[float, ...]] = {}
    for name in outcomes.tasks:
        try:
            samples = evaluate(asked, find_tasks(name), limit=outcomes.items, bootstrap_iters=0)[
                "samples"
            ]
        except ValueError as error:
            raise CurateError(f"{name}: {error}; name another task") from None
        values = by_metric(list(samples.values()))
        if not values:
            raise CurateError(f"{name}: none of its metrics is a number for each item")
        found |= {f"{name} {metric}": tuple(each) for metric, each in values.items()}
    return found


def by_metric(tasks: Sequence[Sequence[dict[str, Any]]]) -> dict[str, list[float]]:
    """Return the values of each metric over the items of tasks, where every item has one.

    Args:
        tasks: of each task the harness's samples: an item by each filter, its metrics named.
    """
    found: dict[str, list[float]] = {}
    n_items = 0
    for samples in tasks:
        n_items += len({sample["doc_id"] for sample in samples})
        for sample in samples:
            for metric in sample["metrics"]:
                value = sample[metric]
                if isinstance(value, tuple) and len(value) == 2:  # (log p, length)
                    value = -value[0] / max(value[1], 1)
                if isinstance(value, bool | int | float) and math.isfinite(value):
                    named = "" if sample["filter"] == "none" else f" ({sample['filter']})"
                    found.setdefault(f"{metric}{named}", []).append(float(value))
    return {metric: values for metric, values in found.items() if len(values) == n_items}


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
