"""The one command for the figures that need a GPU: what can be held of it without one."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import on_gpu

    return on_gpu


def test_it_runs_what_there_is_with_options_that_are_taken(on_gpu):
    for command in on_gpu.COMMANDS:
        first, *words = command.split()
        options = [word for word in words if word.startswith("--")]
        if first != "-m":
            source = (ROOT / first).read_text(encoding="utf-8")
            assert [each for each in options if f'"{each}"' not in source] == []


def test_a_record_says_what_ran_where_and_what_came_of_it(on_gpu):
    found = on_gpu.run("benchmarks/on_gpu.py --help", "3")
    assert (found["command"], found["gpus"], found["exit_code"], found["error"]) == (
        "python benchmarks/on_gpu.py --help", "3", 0, "",
    )  # fmt: skip
    refused = on_gpu.run("benchmarks/on_gpu.py --never", "3")
    assert refused["exit_code"] == 2 and "--never" in refused["error"]


def test_gpus_are_held_against_one(on_gpu):
    one = {"gpus": "0", "printed": ["words", {"shards": 1000, "wall_s": 400.0}]}
    four = {"gpus": "0,1,2,3", "printed": [{"shards": 1000, "wall_s": 125.0}]}
    assert on_gpu.scaling(one, four) == {"gpus": 4, "faster": 3.2, "each": 0.8}


def test_without_a_gpu_it_says_so(on_gpu, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="no GPU that torch can use"):
        on_gpu.main()
    assert not (tmp_path / "out").exists()
