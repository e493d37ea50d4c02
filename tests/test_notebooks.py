"""The notebooks and scripts of examples/: they ran, and their cells run again on less text."""

import dataclasses
import json
import runpy
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zstandard

import curate
from curate.corpus import example
from curate.settings import EmbedSettings
from tests.conftest import numpy_docstrings, python_sources
from tests.page_home import ROOT, home, small_demo, smaller

__all__ = ["home"]  # a fixture

FEW = 24  # documents of each source, and items


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The example, which seconds of reading all that is installed make: once, to be copied."""
    return example.write_example(tmp_path_factory.mktemp("example"))


def copied(written, home):
    """What `write_example` does, by files that it wrote before."""
    shutil.copytree(written.inputs.parent, home, dirs_exist_ok=True)
    places = {"inputs": "corpus", "select": "target/select.jsonl", "eval": "target/eval.jsonl"}
    return dataclasses.replace(written, **{name: home / at for name, at in places.items()})


def write_less(written, home):
    """Write the example, and cut its files to their first documents, those of the target short."""
    found = copied(written, home)
    corpus = dict.fromkeys((home / "corpus").glob("*.jsonl"))
    for path, chars in (corpus | dict.fromkeys(map(Path, (found.select, found.eval)), 300)).items():
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:FEW]]
        cut = (json.dumps(row | {"text": row["text"][:chars]}) for row in rows)
        path.write_text("\n".join(cut), encoding="utf-8")
    return found


@pytest.mark.parametrize("name", ["tutorial", "finetuning"])
def test_the_notebooks_ran_and_their_cells_run_again(home, written, monkeypatch, name):
    import nbformat

    book = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert cells and all(cell.execution_count for cell in cells), "run make notebook"
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    monkeypatch.setattr("curate.demo.demo_settings", small_demo)
    monkeypatch.setattr("curate.corpus.example.write_example", partial(write_less, written))
    monkeypatch.setattr("IPython.display.display", lambda *_: None)
    names = {}
    for cell in cells:
        exec(compile(smaller(cell.source), f"{name}.ipynb", "exec"), names)
    assert list(Path("notebook").rglob("report.html"))


def test_the_notebooks_hold_the_cells_that_their_script_makes():
    import nbformat

    script = runpy.run_path(str(ROOT / "examples" / "make_notebook.py"))
    for name, cells in script["BOOKS"].items():
        book = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
        assert [cell.source for cell in book.cells] == cells, f"run make notebook for {name}"


def test_the_example_script_runs(home, written, monkeypatch, capsys):
    monkeypatch.setattr("curate.corpus.example.write_example", partial(copied, written))
    monkeypatch.setattr("curate.demo.demo_settings", small_demo)
    script = runpy.run_path(str(ROOT / "examples" / "demo.py"))
    script["main"](home / "demo")
    assert "3 shards embedded" in capsys.readouterr().out
    assert (home / "demo" / "report.html").is_file()


def test_the_script_that_trains_the_probe_makes_one_that_embeds(tmp_path, monkeypatch, capsys):
    texts = {"fiction_gutenberg": numpy_docstrings(), "shakespeare": python_sources()}
    for name, found in texts.items():
        cut = [text[at : at + 400] for text in found[:80] for at in range(0, 2_000, 400)]
        rows = [{"id": f"{name}/{n}", "text": text} for n, text in enumerate(cut) if text]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        path = tmp_path / "data" / "corpora" / f"{name}.jsonl.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zstandard.compress(lines.encode()))
    target = tmp_path / "data" / "targets" / "asked" / "test.jsonl"
    target.parent.mkdir(parents=True)
    target.write_text(json.dumps({"question": numpy_docstrings()[0][:400]}), encoding="utf-8")
    main = runpy.run_path(str(ROOT / "examples" / "train_probe.py"))["main"]
    main.__globals__["DOMAINS"].pop("science_docs")  # a minute of parsing what is installed
    small = {"minutes": 0.02, "vocab": 300, "dim": 32, "layers": 1, "block": 32, "batch": 4}
    words = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    places = ["--data", str(tmp_path / "data"), "--work", str(tmp_path / "work")]
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["x", *places, *words, "--out", str(out), "--device", "cpu"])
    main()
    told = capsys.readouterr().out
    assert "fiction {'docs': " in told and "'removed': 0" not in told.splitlines()[0]
    probe, short = curate.load_probe(str(out), device="cpu"), EmbedSettings(block_tokens=64)
    assert np.isfinite(curate.embed_texts(["def f(x): return x"], probe, short).vectors).all()
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.count("| fiction | public domain") == 1
