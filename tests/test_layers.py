"""The layer table of the house, read from the imports of every module."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "curate"

FOUNDATION = {"settings", "records", "frames", "errors", "harmless"}
# the way of the data, downwards: a room may import those before it
WAY = ["corpus", "task2vec", "ranking", "mixing", "verification"]
NUMERICS = {
    "corpus.cluster",
    "corpus.pairs",
    "corpus.tokens",
    "task2vec.batches",
    "task2vec.fisher",
    "task2vec.forward",
    "task2vec.gradients",
    "task2vec.head",
    "task2vec.hooks",
    "task2vec.labels",
    "task2vec.passes",
    "task2vec.published",
    "task2vec.quantity",
    "task2vec.rows",
    "task2vec.sites",
    "task2vec.sketch",
    "task2vec.stacks",
    "ranking.alignment",
    "ranking.measures",
    "ranking.prepared",
    "ranking.stats",
    "ranking.baselines",
    "ranking.classifier",
    "ranking.compression",
    "ranking.entropy",
    "ranking.lexical",
    "ranking.importance",
    "ranking.ngram_lm",
    "ranking.terms",
    "corpus.words",
    "corpus.sketch",
    "mixing.dedup",
    "mixing.choose",
    "mixing.descent",
    "mixing.likelihood",
    "mixing.fill",
    "mixing.matching",
    "mixing.weights",
    "mixing.forecast",
    "mixing.laws",
    "verification.answers",
    "verification.arithmetic",
    "verification.arms",
    "verification.blocks",
    "verification.continued",
    "verification.evaluate",
    "verification.optimiser",
    "verification.outcome",
    "verification.train",
    "verification.small_model",
}
COMMAND_LINE = {"cli", "commands", "options", "terminal"}
DOORS = COMMAND_LINE | {"stages", "demo", "starter", "doctor", "config", "__init__", "__main__"}
CLI_AT_TOP = COMMAND_LINE | {
    "config",
    "errors",
    "harmless",
    "records",
    "settings",
    "report.numbers",
}


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__") if name != "__init__" else name


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path, *, top_only: bool = False) -> set[str]:
    """Return the curate modules that a file imports, without the leading `curate.`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "curate":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "curate" else {str(node.module)}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == "curate"}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return {name.removeprefix("curate.") for name in found}


def may_import(module: str) -> set[str]:
    """Return the rooms (first parts) that a module may import."""
    room = module.split(".")[0]
    if room in FOUNDATION:
        return {
            "records": {"records", "settings", "frames"},
            "frames": {"errors", "report"},
            "errors": {"harmless"},
        }.get(room, set())
    if room == "store":
        return {"store", *FOUNDATION}
    if room == "report":
        return {"report", *FOUNDATION}
    if room == "engine":
        return {"engine", "store", *FOUNDATION}
    if module in NUMERICS:
        return {name.split(".")[0] for name in NUMERICS} | {"records", "settings"}
    return {*WAY[: WAY.index(room) + 1], "engine", "store", *FOUNDATION}


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] not in DOORS])
def test_a_room_imports_only_from_above(module):
    allowed = may_import(module)
    wrong = {name for name in imported(MODULES[module]) if name.split(".")[0] not in allowed}
    assert not wrong, f"{module} may not import {wrong}"


def test_records_know_of_the_report_only_how_text_and_numbers_are_shown():
    assert imported(MODULES["frames"]) == {"errors", "report.text", "report.numbers"}
    assert imported(MODULES["frames"], top_only=True) == {"errors"}


@pytest.mark.parametrize("module", sorted(NUMERICS))
def test_numerics_import_only_numerics_and_records(module):
    wrong = imported(MODULES[module]) - NUMERICS - {"records", "settings"}
    assert not wrong, f"{module} is numerics, it may not import {wrong}"


def test_every_module_stands_in_the_table():
    rooms = {*WAY, *DOORS, *FOUNDATION, "engine", "store", "report"}
    assert {name.split(".")[0] for name in MODULES} <= rooms
    assert set(MODULES) >= NUMERICS


def test_the_command_line_loads_stages_only_inside_commands():
    for name in MODULES:
        if name.split(".")[0] in COMMAND_LINE:
            loaded = imported(MODULES[name], top_only=True)
            assert {n for n in loaded if n.split(".")[0] != "commands"} <= CLI_AT_TOP, name


def test_no_room_is_a_drawer():
    for name in MODULES:
        assert not {"utils", "common", "helpers", "misc", "base", "manager"} & set(name.split("."))


def test_the_table_refuses_an_upward_import(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from curate.mixing.build import build_mix\n")
    assert {n for n in imported(bad) if n.split(".")[0] not in may_import("ranking.rank")}


def test_no_pickle_and_no_unsafe_load():
    for path in MODULES.values():
        text = path.read_text(encoding="utf-8")
        for banned in ("import pickle", "torch.load(", "trust_remote_code=True", "import joblib"):
            assert banned not in text, f"{path.name}: {banned}"
