"""Runs that are trained as one: shared out, killed between two checkpoints, gone on with."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curate.engine.listing import from_text, to_text
from curate.verification.checkpoint import read_checkpoint
from curate.verification.runs import checkpoint_path, plan_run, publish_documents
from curate.verification.schedule import share_out, train_runs
from curate.verification.training import RunStack
from tests.test_train import SETTINGS, texts

SHORT = dataclasses.replace(SETTINGS, tokens=1_536)  # 6 steps
PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from curate.verification import training
from tests.test_side_by_side import plan
training.CHECKPOINT_SECONDS = 0.0
training.train_stack(training.RunStack(tuple(plan(Path({folder!r})))))
"""


def plan(folder):
    """Three runs of their own documents and seeds; files are published where they are not."""
    for name, documents in {
        **{f"d{n}": texts(seed=n) for n in range(3)}, "items": texts(9, seed=5), "control": [],
    }.items():  # fmt: skip
        if not (folder / f"{name}.safetensors").is_file():
            publish_documents(folder / f"{name}.safetensors", documents)
    return [
        plan_run(
            folder / "runs",
            arm=f"arm{number}",
            settings=dataclasses.replace(SHORT, seed=number),
            documents=folder / f"d{number}.safetensors",
            items=folder / "items.safetensors",
            control=folder / "control.safetensors",
            n_bytes=99,
            device="cpu",
        )
        for number in range(3)
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train_runs(plan(tmp_path_factory.mktemp("alone")), workers=1)


def close(runs, others):
    for one, other in zip(runs, others, strict=True):
        assert (one.arm, one.seed, one.tokens) == (other.arm, other.seed, other.tokens)
        np.testing.assert_allclose(one.item_nats, other.item_nats, rtol=5e-3)
        np.testing.assert_allclose(one.curve, other.curve, rtol=2e-3)
        np.testing.assert_allclose(one.points, other.points, rtol=5e-3)


def test_side_by_side_every_run_has_the_numbers_that_it_has_alone(alone, tmp_path):
    told = []
    together = train_runs(
        plan(tmp_path),
        workers=1,
        side_by_side=2,
        notify=lambda _, done, of: told.append((done, of)),
    )
    close(together, alone)
    assert told == [(0, 3), (2, 3), (3, 3)]  # it begins; two as one, then the third
    assert len({run.started_at for run in together[:2]}) == 1


def test_killed_between_two_checkpoints_each_goes_on_from_its_own(alone, tmp_path):
    items = plan(tmp_path)
    program = PROGRAM.format(root=str(Path(__file__).parents[1]), folder=str(tmp_path))
    # three checkpoints a step: the fifth is the second run's of step 2, and it is not there
    environment = {**os.environ, "CURATE_FAILPOINT": "publish.before_rename:5=kill"}
    died = subprocess.run([sys.executable, "-c", program], env=environment)
    assert died.returncode == -9
    steps = [read_checkpoint(checkpoint_path(item))[0].step for item in items]
    assert steps == [2, 1, 1]
    close(train_runs(items, workers=1, side_by_side=3), alone)
    left = (tmp_path / "runs").glob("[!.]*.checkpoint.*")  # a sweep takes the killed one's
    assert not list(left)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("3M", "cpu", 12), (2, 1)),
        (("3M", "cpu", 1), (1, 1)),
        (("3M", "cuda", 12), (2, 6)),  # two GPUs
        (("3M", "cuda", 40), (2, 12)),
        (("50M", "cuda", 3), (2, 2)),
        (("124M", "cuda", 9), (2, 1)),
        (("tiny", "cpu", 12, 1, 12), (1, 12)),
        (("tiny", "cuda", 12, 1), (1, 12)),
        (("pretrained", "cuda", 6), (1, 1)),
        (("pretrained", "cpu", 6, 2), (2, 1)),
    ],
)
def test_runs_are_shared_out_over_cores_and_gpus(asked, expected, monkeypatch):
    monkeypatch.setattr("curate.engine.run.count_cores", lambda: 2)
    monkeypatch.setattr("curate.engine.run.visible_gpus", lambda: ["0", "1"])
    assert share_out(*asked) == expected


def test_a_stack_can_stand_in_a_list_of_work_items(tmp_path):
    stack = RunStack(tuple(plan(tmp_path)))
    assert from_text(to_text(stack)) == stack
