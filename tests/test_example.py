import ast
from pathlib import Path

import msgspec
import pytest

from curate.corpus import example as example_module
from curate.corpus.example import write_example
from curate.corpus.inputs import find_inputs
from curate.corpus.targets import load_target
from curate.errors import CurateError
from curate.settings import TargetSettings

EVERY_KIND = """
async def a():
    async for x in y:
        def b(): pass
    else:
        def c(): pass
    async with z:
        class D: pass
match x:
    case 1:
        def e(): pass
    case _:
        f = lambda: [g for g in h]
try:
    def i(): pass
except* OSError:
    def j(): pass
else:
    def k(): pass
finally:
    while 1 if x else 2:
        def m(): pass
    else:
        def n(): pass
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return write_example(tmp_path_factory.mktemp("example"))


def texts(path):
    return [msgspec.json.decode(line)["text"] for line in path.read_bytes().splitlines()]


def test_the_sources_are_many_large_enough_and_of_different_kinds(example):
    files = find_inputs([str(example.inputs)], workspace=example.inputs)
    assert [file.source for file in files] == sorted(name for name, _ in example.kinds)
    assert len(files) >= 12
    assert len({kind for _, kind in example.kinds}) >= 5
    assert set(example.best_sources) <= {file.source for file in files}
    for file in files:
        size = sum(len(text.encode()) for text in texts(file.path))
        assert 80_000 <= size <= 400_000, file.source


def test_the_target_is_in_no_source(example):
    items = texts(example.select) + texts(example.eval)
    assert len(set(items)) == len(items) >= 200
    corpus = {text for path in sorted(example.inputs.iterdir()) for text in texts(path)}
    assert not set(items) & corpus
    target = load_target(TargetSettings(name=f"example={example.select},{example.eval}"))
    assert not set(target.select) & set(target.eval)


def test_the_same_installation_gives_the_same_bytes(example, tmp_path):
    again = write_example(tmp_path)
    for path in sorted(example.inputs.iterdir()):
        assert (again.inputs / path.name).read_bytes() == path.read_bytes()
    assert again.eval.read_bytes() == example.eval.read_bytes()


def test_an_installation_with_too_little_text_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(example_module, "_files", lambda patterns, held_out=False: iter(()))
    with pytest.raises(CurateError, match="0 sources of 0 kinds and 0 items"):
        write_example(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["corpus", "target", ".curate", "mix", "report.html"])
def test_a_folder_that_holds_what_the_demo_would_replace_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(CurateError, match=f"holds {name}, which is not of the example"):
        write_example(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_statements_come_as_ast_walk_gives_them():
    tree = ast.parse(Path(ast.__file__).read_text(encoding="utf-8") + EVERY_KIND)
    kinds = (ast.mod, ast.stmt, ast.excepthandler, ast.match_case)
    walked = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    assert list(example_module._statements(tree)) == walked
