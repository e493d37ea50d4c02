"""Targets from the installed lm-evaluation-harness; its data sets are doubles on the disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from curate.corpus import harness
from curate.corpus.harness import _render, load_task
from curate.corpus.targets import load_target
from curate.errors import CurateError
from curate.settings import TargetSettings

pytest.importorskip("lm_eval")

CARD = """---
configs:
- config_name: {config}
  data_files:
{splits}---
"""

PROGRAM = """
import json, sys
from curate.corpus.targets import load_target
from curate.errors import CurateError
from curate.settings import TargetSettings
found = []
for name in sys.argv[1:]:
    try:
        target = load_target(TargetSettings(name=name))
        found.append([target.name, target.select, target.eval, target.origin])
    except CurateError as error:
        found.append([error.exit_code, str(error)])
print(json.dumps(found))
"""


def write_set(folder, config, **splits):
    """Write what `datasets` reads in place of the hub's data set of that name."""
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    named = "".join(f"  - split: {split}\n    path: {split}.jsonl\n" for split in splits)
    (folder / "README.md").write_text(CARD.format(config=config, splits=named))


@pytest.mark.slow  # the harness reads its 14,000 task files first
def test_shipped_tasks_give_their_items_as_the_harness_puts_them(tmp_path):
    asked = [{"question": f"How many is {n} and {n}?", "answer": f"#### {2 * n}"} for n in range(9)]
    write_set(tmp_path / "openai" / "gsm8k", "main", train=asked[:5], test=asked[5:])
    chosen = [
        {
            "question": f"Which is the letter number {n}?",
            "choices": {"label": ["A", "B"], "text": ["the first", f"the letter {n}"]},
            "answerKey": "B",
        }
        for n in range(6)
    ]
    write_set(
        tmp_path / "allenai" / "ai2_arc", "ARC-Easy",
        train=chosen[:2], validation=chosen[2:4], test=chosen[4:],
    )  # fmt: skip
    (tmp_path / "own.yaml").write_text("task: own\ndataset_path: x\n")
    names = ["gsm8k", "arc_easy", "gsm8", "own.yaml", str(tmp_path / "own.yaml"), "sciq"]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *(f"lm-eval:{name}" for name in names)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_ENDPOINT": "http://127.0.0.1:9",  # nobody answers there
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Retry" not in run.stderr
    maths, letters, unknown, own, own_path, offline = json.loads(run.stdout.splitlines()[-1])
    assert maths[1] == [
        f"Question: How many is {n} and {n}?\nAnswer: #### {2 * n}" for n in range(5)
    ]
    assert maths[0] == "gsm8k" and len(maths[2]) == 4 and "(openai/gsm8k)" in maths[3]
    assert letters[1] == [
        f"Question: Which is the letter number {n}?\nAnswer: the letter {n}" for n in (2, 3)
    ]
    assert len(letters[2]) == 2  # its test split
    assert unknown[0] == 2 and "did you mean" in unknown[1] and "gsm8k" in unknown[1]
    assert own[0] == own_path[0] == 2 and "ships no such task" in own_path[1]
    assert offline[0] == 1 and offline[1].startswith("lm-eval:sciq: its data cannot be read")


class Choices:
    """The face of a task whose question is a number of a choice (as in winogrande)."""

    class config:
        doc_to_choice = "options"
        target_delimiter = " "

    def doc_to_text(self, document):
        return document["right"]

    def doc_to_target(self, document):
        return document["rest"]

    def doc_to_choice(self, document):
        return document["options"]


def test_a_question_may_be_a_choice_and_an_answer_one_of_several():
    document = {"right": 1, "rest": ["it rains.", "it pours."], "options": ["No,", "Yes,"]}
    assert _render(Choices(), document) == "Yes, it rains."


def test_a_template_beside_a_task_is_refused():
    with pytest.raises(CurateError, match="leave text and template out"):
        load_target(TargetSettings(name="lm-eval:gsm8k", template="{question}"))


def test_the_package_may_be_missing(monkeypatch):
    harness._shipped.cache_clear()
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(CurateError, match="needs the package lm-eval: pip install lm-eval"):
        load_task("lm-eval:gsm8k")
