"""A whole verification that asks tasks: real harness, a task whose documents are at hand."""

import dataclasses
import json

import pytest

from curate.errors import CurateError
from curate.report.json_lines import verification_json
from curate.report.overview import verification_plan_table
from curate.report.verdict import verification_table
from curate.verification import training as training_module
from curate.verification.estimate import estimate_verification
from curate.verification.verify import verify_mix
from tests.test_answers import LIKELY, shipped
from tests.test_verify_stage import SETTINGS, chain, console_text

__all__ = ["chain"]  # a fixture

ASKED = dataclasses.replace(SETTINGS, tokens=1_000, against=(), outcomes=("lm-eval:own",))
NATS = "lm-eval:own perplexity, nats an answer"


def without_times(verification):
    """All that is measured of each run; what the clock said is left out."""
    plain = {"started_at": "", "seconds": 0.0, "forecast": ""}
    return [dataclasses.replace(run, **plain) for run in verification.runs]


def test_tasks_are_shown_and_a_run_killed_while_it_is_asked_goes_on_to_the_same(
    chain, tmp_path, monkeypatch
):
    shipped(monkeypatch, **LIKELY)
    *known, _ = chain
    verify = {"settings": ASKED, "device": "cpu", "workers": 1}
    whole = verify_mix(*known, workspace=tmp_path / "whole", **verify)
    assert {len(run.outcomes[NATS]) for run in whole.runs} == {10}  # its items, eval_items at most
    (told,) = (
        each for each in json.loads(verification_json(whole))["outcomes"] if "nats" in each["task"]
    )
    arms = told["arms"]
    assert told["gain"]["value"] == pytest.approx(arms["mix"]["value"] - arms["random"]["value"])
    shown = console_text(verification_table(whole))
    assert NATS in shown and "mix minus random" in shown

    ask, asked = training_module.ask, []

    def killed(*given):
        asked.append(given)
        if len(asked) in (2, 4, 6):
            raise KeyboardInterrupt
        return ask(*given)

    monkeypatch.setattr(training_module, "ask", killed)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            verify_mix(*known, workspace=tmp_path / "killed", **verify)
    again = verify_mix(*known, workspace=tmp_path / "killed", **verify)
    assert without_times(again) == without_times(whole) and again.outcomes == whole.outcomes
    assert len(asked) == len(whole.runs) + 3  # what had been asked was not asked again


def test_the_time_of_tasks_is_said_before_and_one_that_is_not_there_is_refused(
    chain, tmp_path, monkeypatch
):
    shipped(monkeypatch, **LIKELY)
    _, _, mix, target, _ = chain

    def plan(**given):
        settings = dataclasses.replace(ASKED, model="builtin", **given)
        return estimate_verification(
            mix, target, settings, workspace=tmp_path, device="cpu", workers=1
        )

    asked = plan()
    rounds_s = asked.runs * (asked.steps * asked.seconds_a_step + asked.task_seconds)
    assert asked.task_seconds > 0 and asked.seconds > rounds_s
    assert "each model is asked its tasks for about" in console_text(verification_plan_table(asked))
    assert plan(outcomes=()).task_seconds == 0
    with pytest.raises(CurateError, match="ships no such task"):
        plan(outcomes=("lm-eval:nothing",))
