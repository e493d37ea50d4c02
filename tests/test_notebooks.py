"""The notebooks and scripts of examples/: they ran, and their cells run again on less text."""

import json
import runpy
from pathlib import Path

import pytest

from curate.corpus import example
from tests.page_home import ROOT, home, small_demo, smaller

__all__ = ["home"]  # a fixture

FEW = 24  # documents of each source, and items


def write_less(home, *, real=example.write_example):
    """Write the example, and cut its files to their first documents, those of the target short."""
    found = real(home)
    corpus = dict.fromkeys((home / "corpus").glob("*.jsonl"))
    for path, chars in (corpus | dict.fromkeys(map(Path, (found.select, found.eval)), 600)).items():
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:FEW]]
        cut = (json.dumps(row | {"text": row["text"][:chars]}) for row in rows)
        path.write_text("\n".join(cut), encoding="utf-8")
    return found


@pytest.mark.parametrize("name", ["tutorial", "finetuning"])
def test_the_notebooks_ran_and_their_cells_run_again(home, monkeypatch, name):
    import nbformat

    book = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert cells and all(cell.execution_count for cell in cells), "run make notebook"
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    monkeypatch.setattr("curate.demo.demo_settings", small_demo)
    monkeypatch.setattr("curate.corpus.example.write_example", write_less)
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


def test_the_example_script_runs(home, monkeypatch, capsys):
    monkeypatch.setattr("curate.demo.demo_settings", small_demo)
    script = runpy.run_path(str(ROOT / "examples" / "demo.py"))
    script["main"](home / "demo")
    assert "3 shards embedded" in capsys.readouterr().out
    assert (home / "demo" / "report.html").is_file()
