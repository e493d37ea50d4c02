"""Runs under way: the table on a terminal, the lines off it, the time left."""

import io
import threading
import time

import pytest
from rich.console import Console

from curate.records import RunState
from curate.report.progress import progress_of_runs
from curate.report.runs import RunsShown
from curate.verification import training, watch
from curate.verification.experiment import run_experiment
from curate.verification.runs import plan_run, publish_documents
from tests.test_verify import SETTINGS, arm_documents, make_experiment

NAN = float("nan")


def states(*tokens, ended=()):
    """Runs of two arms and two seeds at so many of 100 tokens each."""
    names = [("mix", 0), ("mix", 1), ("random", 0), ("random", 1)]
    return [
        RunState(arm, seed, seen, 100, 4.0 + place if seen else NAN, place in ended)
        for place, ((arm, seed), seen) in enumerate(zip(names, tokens, strict=True))
    ]


def shown(table):
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    return console.file.getvalue()


def test_the_table_has_a_row_an_arm_and_a_column_a_seed():
    now = [0.0]
    runs = RunsShown(lambda: now[0])
    runs.update(states(0, 0, 0, 0))
    assert runs.left is None
    runs.update(states(100, 0, 0, 0, ended=(0,)))  # it was there before
    now[0] = 10.0
    assert runs.update(states(100, 50, 0, 0, ended=(0,))) == []
    head, mix, random, below = shown(runs.table()).splitlines()
    assert head.split() == ["nats/token", "seed", "0", "seed", "1"]
    assert mix.split() == ["mix", "4.000", "5.00", "at", "50%"]
    assert random.split() == ["random", "·", "·"]
    assert runs.left == pytest.approx(250 * 10 / 50)  # 50 tokens in 10 s, 250 to go
    assert below.strip() == "1 of 4 runs, 50 s left"


def test_runs_that_an_earlier_call_left_are_no_work_of_this_one():
    now = [0.0]
    runs = RunsShown(lambda: now[0])
    assert runs.update(states(100, 100, 0, 0, ended=(0, 1))) == []  # no line of them either
    runs.update(states(100, 100, 0, 0, ended=(0, 1)))
    now[0] = 10.0
    runs.update(states(100, 100, 50, 0, ended=(0, 1)))
    assert runs.left == pytest.approx(150 * 10 / 50)


def test_off_a_terminal_each_run_that_ends_is_a_line():
    paper = io.StringIO()
    with progress_of_runs(Console(file=paper, width=40)) as (_, tell):
        tell(states(0, 0, 0, 0))
        tell(states(100, 10, 0, 0, ended=(0,)))
        tell(states(100, 100, 0, 0, ended=(0, 1)))
        tell(states(100, 100, 0, 0, ended=(0, 1)))
    first, second = paper.getvalue().splitlines()
    assert first.startswith("mix, seed 0: 4.000 nats/token (1 of 4 runs")
    assert second.startswith("mix, seed 1: 5.000 nats/token (2 of 4 runs")


def test_on_a_terminal_the_table_stands_below_the_bars():
    screen = Console(file=io.StringIO(), width=80, force_terminal=True, _environ={"TERM": "xterm"})
    with progress_of_runs(screen) as (notify, tell):
        notify("train controls", 1, 4)
        tell(states(0, 0, 0, 0))
        tell(states(100, 50, 0, 0, ended=(0,)))
    text = screen.file.getvalue()
    assert text.index("train controls") < text.index("seed 1")
    assert "5.00 at 50%" in text and "1 of 4 runs" in text


def test_names_from_data_are_shown_without_controls():
    runs = RunsShown(time.monotonic)
    runs.update([RunState("by-\x1b[31mred", 0, 0, 1, NAN)])
    assert "\x1b" not in shown(runs.table())


def test_runs_say_how_far_they_are_while_they_train(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "EVERY_S", 0.0)
    monkeypatch.setattr(watch, "EVERY_S", 0.005)
    looks, ended, threads = [], [], set()

    def tell(found):
        threads.add(threading.get_ident())
        looks.append(found)

    run_experiment(
        make_experiment(tmp_path),
        arm_documents,
        SETTINGS,
        workers=1,
        watch=tell,
        on_run=ended.append,
    )
    assert len(looks[0]) == 8 and not any(state.tokens for state in looks[0])  # all, before any
    under_way = {s.tokens for look in looks for s in look if s.tokens and not s.ended}
    assert under_way and under_way <= set(range(256, 2_049, 256))
    assert all(state.ended for state in looks[-1])
    assert len(threads) > 1
    assert [(run.arm, run.seed) for run in ended][:2] == [
        ("calibration-1", 0),
        ("calibration-2", 0),
    ]
    assert len(ended) == 8
    assert not list((tmp_path / "runs").glob("*.state"))
    looks.clear()
    run_experiment(
        make_experiment(tmp_path),
        arm_documents,
        SETTINGS,
        workers=1,
        watch=looks.append,
        on_run=ended.append,
    )
    assert len(ended) == 8  # what was there is not told again
    assert all(state.ended for state in looks[0])  # nor is it taken for work done just now


def test_a_torn_state_is_a_run_that_waits(tmp_path):
    experiment = make_experiment(tmp_path)
    publish_documents(tmp_path / "d.safetensors", experiment.items)
    item = plan_run(
        tmp_path,
        arm="mix",
        settings=experiment.train,
        documents=tmp_path / "d.safetensors",
        items=tmp_path / "d.safetensors",
        control=tmp_path / "d.safetensors",
        n_bytes=1,
        device="cpu",
    )
    watch.write_state(item, tokens=256, loss=3.5)
    looks = []
    with watch.watched([item], looks.append):
        watch.state_path(item).write_bytes(watch.state_path(item).read_bytes()[:20])
    (first,), (last,) = looks[0], looks[-1]
    assert (first.tokens, first.loss) == (256, 3.5)
    assert last.tokens == 0 and not last.ended
