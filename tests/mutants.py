"""Mutation testing: change the code in one place, and see whether a test notices.

`make mutants`, or `python -m tests.mutants --group publish --count 40 --seed 0`. A fork of a
warm process imports the changed module in place of the real one and runs the tests of its room.
A mutant is noticed if a test fails or the tests never end. Which mutants are tried is drawn
by the seed; those that survive are printed, to be killed by a better test or to be explained.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.util
import io
import json
import os
import random
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "publish": (
        ("curate.store.publish", "curate.store.meta", "curate.store.leftovers",
         "curate.store.protect", "curate.mixing.publish"),
        ("tests/test_publish.py", "tests/test_store.py"),
    ),
    "reader": (
        ("curate.corpus.reader", "curate.corpus.ledger", "curate.corpus.rows",
         "curate.corpus.json_rows", "curate.corpus.columnar", "curate.corpus.ipc",
         "curate.corpus.fields", "curate.corpus.formats", "curate.corpus.containers",
         "curate.corpus.columns"),
        ("tests/test_fields.py", "tests/test_rows.py", "tests/test_detect.py",
         "tests/test_containers.py", "tests/test_ipc.py", "tests/test_columns.py",
         "tests/test_reader.py", "tests/test_pieces.py",
         "tests/test_fuzz.py::test_every_damage_to_every_format_is_accounted_for"),
    ),
    "budget": (
        ("curate.mixing.choose", "curate.mixing.bounds", "curate.mixing.weights",
         "curate.mixing.checks"),
        ("tests/test_bounds.py", "tests/test_choose.py", "tests/test_weights.py"),
    ),
}  # fmt: skip
FIRST = {
    "curate.corpus.fields": "tests/test_fields.py",
    "curate.corpus.rows": "tests/test_rows.py",
    "curate.corpus.json_rows": "tests/test_rows.py",
    "curate.corpus.columnar": "tests/test_rows.py",
    "curate.corpus.formats": "tests/test_detect.py",
    "curate.corpus.containers": "tests/test_containers.py",
    "curate.corpus.ipc": "tests/test_ipc.py",
    "curate.corpus.columns": "tests/test_columns.py",
    "curate.corpus.reader": "tests/test_reader.py",
    "curate.corpus.ledger": "tests/test_reader.py",
    "curate.mixing.choose": "tests/test_choose.py",
    "curate.mixing.bounds": "tests/test_bounds.py",
    "curate.mixing.weights": "tests/test_weights.py",
}
"""The tests that are most likely to notice a change of a module: run before the others."""

LEFT_OUT = "not bz2 and not xz and not number_of_workers"
"""Of the tests: what only repeats another format, or what is done in one process, slower."""

LONGEST = 4.0
"""Times the processor time that the tests take without a change, then a mutant hangs: noticed."""

SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot,
    ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Mod: ast.Add,
    ast.Break: ast.Continue, ast.Continue: ast.Break,
}  # fmt: skip


class Changer(ast.NodeTransformer):
    """Count the places that can be changed, and change the one of a number."""

    def __init__(self, number: int = -1) -> None:
        self.number, self.seen, self.what = number, 0, ""

    def _here(self, node: ast.AST, what: str) -> bool:
        found = self.seen == self.number
        self.seen += 1
        if found:
            self.what = f"line {node.lineno}: {what}"  # type: ignore[attr-defined]
        return found

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.ImportFrom | ast.Import):
            return node  # the words of a message are no behaviour
        if _is_for_types(node):
            return node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return node
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return node  # a docstring
        if isinstance(node, ast.Expr) and self._here(node, f"without {ast.unparse(node)}"):
            return ast.copy_location(ast.Pass(), node)
        if _returns_something(node) and self._here(node, "return None"):
            return ast.copy_location(ast.Return(ast.Constant(None)), node)
        if isinstance(node, ast.If | ast.While) and self._here(node, "the other way"):
            node.test = ast.UnaryOp(ast.Not(), node.test)
            return ast.fix_missing_locations(node)
        if isinstance(node, ast.Break | ast.Continue) and self._here(node, "break, continue"):
            return ast.copy_location(SWAPPED[type(node)](), node)
        self._change(node)
        return self.generic_visit(self._without_types(node))

    def _change(self, node: ast.AST) -> None:
        if isinstance(node, ast.Compare):
            for place, sign in enumerate(node.ops):
                if type(sign) in SWAPPED and self._here(node, ast.unparse(node)):
                    node.ops[place] = SWAPPED[type(sign)]()  # type: ignore[assignment]
        elif isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign):
            if type(node.op) in SWAPPED and self._here(node, ast.unparse(node)):
                node.op = SWAPPED[type(node.op)]()  # type: ignore[assignment]
        elif isinstance(node, ast.Constant):
            value = node.value
            if isinstance(value, bool) and self._here(node, f"not {value}"):
                node.value = not value
            elif type(value) is int and self._here(node, f"{value} + 1"):
                node.value = value + 1
            elif isinstance(value, str) and value and self._here(node, f"{value!r} + XX"):
                node.value = value + "XX"

    @staticmethod
    def _without_types(node: ast.AST) -> ast.AST:
        """Take annotations out of sight: the code does not look at them."""
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in (*node.args.args, *node.args.kwonlyargs):
                argument.annotation = None
        return node


def _is_for_types(node: ast.AST) -> bool:
    """Say whether a node is for readers of the code: `frozen`, `slots`, `Literal`, `__all__`."""
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) == "__all__"
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("dataclass", "TypeVar")
    named = isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
    return named and node.value.id == "Literal"  # type: ignore[attr-defined]


def _returns_something(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Return) else None
    # False that becomes None is False to all who ask; False that becomes True is tried apart
    dull = isinstance(value, ast.Constant) and (value.value is None or value.value is False)
    return value is not None and not dull


def mutant(source: str, number: int) -> tuple[ast.Module, str, int]:
    """Return the module changed at one place, what was changed, and how many places there are."""
    changer = Changer(number)
    tree = changer.visit(copy.deepcopy(ast.parse(source)))
    return ast.fix_missing_locations(tree), changer.what, changer.seen


class Replaced(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module from a tree in place of its file."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def exec_module(self, module) -> None:  # type: ignore[no-untyped-def]
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


def is_noticed(
    name: str, tree: ast.Module | None, tests: tuple[str, ...], *, most_s: float = 3600.0
) -> tuple[bool, float]:
    """Run the tests in a fork with the changed module.

    Returns:
        False where all of them pass, and the seconds of processor time that they took.
    """
    child = os.fork()
    if child:
        _, status, used = os.wait4(child, 0)
        return status != 0, used.ru_utime + used.ru_stime
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_CPU, (round(most_s), round(most_s) + 1))
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    code = 1
    with contextlib.suppress(BaseException):
        if tree is not None:
            sys.meta_path.insert(0, Replaced(name, path_of(name), tree))
        code = run_tests(tests, first=FIRST.get(name, ""))
    os._exit(code)


def run_tests(tests: tuple[str, ...], *, first: str) -> int:
    """Run tests up to the first that fails, and the likeliest before the others are even read."""
    import pytest

    words = ["-x", "-q", "--no-cov", "-p", "no:cacheprovider", "--assert=plain", "-k", LEFT_OUT]
    code = int(pytest.main([*words, first])) if first else 0
    return code or int(pytest.main([*words, *(test for test in tests if test != first)]))


def path_of(name: str) -> Path:
    return ROOT / (name.replace(".", "/") + ".py")


def draw(group: str, count: int, seed: int) -> Iterator[tuple[str, ast.Module, str]]:
    """Give mutants of a group's modules: all of them, or as many as asked, drawn by the seed."""
    places = [
        (name, number)
        for name in GROUPS[group][0]
        for number in range(mutant(path_of(name).read_text(encoding="utf-8"), -1)[2])
    ]
    random.Random(f"{group}{seed}").shuffle(places)
    for name, number in places[: count or len(places)]:
        tree, what, _ = mutant(path_of(name).read_text(encoding="utf-8"), number)
        yield name, tree, f"{path_of(name).relative_to(ROOT)} {what}"


def warm() -> None:
    """Import what is slow to import and is not changed."""
    import datasets  # noqa: F401
    import hypothesis.strategies  # noqa: F401
    import pytest
    import sklearn.cluster  # noqa: F401
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as nowhere, contextlib.redirect_stdout(io.StringIO()):
        (Path(nowhere) / "pytest.ini").write_text("[pytest]\n")
        pytest.main(["-q", "-c", f"{nowhere}/pytest.ini", "--rootdir", nowhere, nowhere])
    assert not [name for name in sys.modules if name.startswith("curate.")], "too early"


def main() -> int:
    """Run, print a line of JSON for each group, and say by the exit code if too few are noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--group", choices=[*GROUPS, "all"], default="all")
    parser.add_argument("--count", type=int, default=40, help="mutants a group; 0 is all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warm()
    passed = True
    for group in GROUPS if arguments.group == "all" else [arguments.group]:
        tests = GROUPS[group][1]
        fails, seconds = is_noticed("", None, tests)
        assert not fails, f"{group}: its tests fail without any change"
        lived, tried = [], 0
        for name, tree, what in draw(group, arguments.count, arguments.seed):
            tried += 1
            noticed, _ = is_noticed(name, tree, tests, most_s=LONGEST * seconds + 5)
            lived += [] if noticed else [what]
            print("noticed" if noticed else "LIVED", what, file=sys.stderr, flush=True)  # noqa: T201
        share = 1 - len(lived) / tried
        passed = passed and share >= 0.85
        found = {"group": group, "seed": arguments.seed, "mutants": tried, "lived": len(lived)}
        print(json.dumps({**found, "noticed": round(share, 3)}), flush=True)  # noqa: T201
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
