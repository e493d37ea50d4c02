"""A corpus of really different kinds of text, and a target, from what is installed anyway."""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from curate.errors import CurateError
from curate.store.publish import publish_bytes

SOURCE_BYTES = 320_000  # of text a source; about 80,000 tokens
FEWEST_BYTES = 90_000  # a source with less is left out
DOCUMENT_CHARS = 6_000  # a longer file is cut into several documents, at line ends
SHORTEST_CHARS = 150
FEWEST_SOURCES = 12
FEWEST_KINDS = 5
ITEMS = 150  # of each split of the target
ITEM_CHARS = 2_400
HELD_OUT = ("scipy/stats", "scipy/signal")
"""Modules whose docstrings are the target; no source reads them."""

_LIBRARY = ("asyncio", "email", "http", "logging", "multiprocessing", "unittest", "xml/dom")

BEST_SOURCES = ("numpy_docstrings", "scipy_docstrings", "sklearn_docstrings")

Text = tuple[str, str]
"""An id and a text."""


_MARK = ".example"  # in a folder that was written here


@dataclass(frozen=True, slots=True)
class ExampleCorpus:
    """What `write_example` wrote."""

    inputs: Path  # folder of one jsonl file a source
    select: Path
    eval: Path
    best_sources: tuple[str, ...]  # those that a person would name for the target
    kinds: tuple[tuple[str, str], ...]  # (source, kind)


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    kind: str
    patterns: tuple[str, ...]  # below the standard library (std:) or site-packages
    read: Callable[[Path], Iterable[Text]]


def write_example(folder: Path) -> ExampleCorpus:
    """Write the example below `folder`: `corpus/*.jsonl`, and select and eval in `target/`.

    The text is Python's own and that of the packages curate depends on, so that any machine has
    it; the same installation gives the same bytes. The target is docstrings of scipy modules
    that no source holds, so the sources of scientific docstrings are the ones to find. Texts
    are in one place only: nothing of the target is in the corpus.

    Returns:
        At least 12 sources of at least 5 kinds, about 0.1 to 0.3 MB each.

    Raises:
        CurateError: the installation holds too few of them, a file cannot be written, or the
            folder holds what the demo writes, and it is not of the example.
    """
    _check_folder(folder)
    seen: set[bytes] = set()
    items = _target_items(seen)
    written: list[tuple[str, str]] = []
    texts: list[tuple[str, list[Text]]] = []
    for source in _sources():
        taken = _take(source, seen)
        if sum(len(text.encode("utf-8")) for _, text in taken) >= FEWEST_BYTES:
            texts.append((source.name, taken))
            written.append((source.name, source.kind))
    _check(written, items)
    publish_bytes(folder / _MARK, b"")
    for name, taken in texts:
        _write(folder / "corpus" / f"{name}.jsonl", taken)
    example = ExampleCorpus(
        inputs=folder / "corpus",
        select=folder / "target" / "select.jsonl",
        eval=folder / "target" / "eval.jsonl",
        best_sources=BEST_SOURCES,
        kinds=tuple(written),
    )
    _write(example.select, items[0::2])
    _write(example.eval, items[1::2])
    return example


def _sources() -> tuple[_Source, ...]:
    return (
        _Source("numpy_docstrings", "scientific docstrings", ("numpy/**/*.py",), _docstrings),
        _Source("scipy_docstrings", "scientific docstrings", ("scipy/**/*.py",), _docstrings),
        _Source("sklearn_docstrings", "scientific docstrings", ("sklearn/**/*.py",), _docstrings),
        _Source(
            "python_library",
            "Python code",
            ("std:*.py", *(f"std:{name}/*.py" for name in _LIBRARY)),
            _code,
        ),
        _Source("symbolic_code", "Python code", ("sympy/**/*.py",), _code),
        _Source("graph_tests", "Python tests", ("networkx/**/test_*.py",), _code),
        _Source("cython", "Cython code", ("sklearn/**/*.pyx", "sklearn/**/*.pyx.tp"), _pieces),
        _Source("cpp_headers", "C and C++", ("torch/include/c10/**/*.h",), _pieces),
        _Source("arrow_headers", "C and C++", ("pyarrow/include/arrow/**/*.h",), _pieces),
        _Source("cuda_kernels", "C and C++", ("torch/include/ATen/native/cuda/*.cuh",), _pieces),
        _Source("type_stubs", "type stubs", ("numpy/**/*.pyi",), _pieces),
        _Source(
            "language_reference", "prose documentation", ("std:pydoc_data/topics.py",), _topics
        ),
        _Source("licences", "licences", ("*.dist-info/**/*LICEN[SC]E*", "std:LICENSE*"), _pieces),
        _Source(
            "package_pages",
            "prose documentation",
            ("*.dist-info/METADATA", "sklearn/datasets/descr/*.rst"),
            _pieces,
        ),
        _Source(
            "web",
            "HTML, CSS and JavaScript",
            (
                "std:idlelib/*.html",
                "torch/utils/**/*.[jh]*[sl]",
                "torch/utils/**/*.mjs",
                "sklearn/utils/_repr_html/*.[cj]s*",
                "tokenizers/tools/*.css",
                "networkx/**/*.html",
            ),
            _pieces,
        ),
        _Source("operators_yaml", "YAML data", ("torchgen/packaged/ATen/native/*.yaml",), _pieces),
        _Source("json_data", "JSON data", ("datasets/**/*.json", "torch/_dynamo/*.json"), _pieces),
        _Source(
            "number_tables",
            "CSV data",
            ("sklearn/datasets/data/*.csv", "numpy/**/tests/data/*.csv"),
            _pieces,
        ),
        _Source("time_zones", "tables of rules", ("tzdata/zoneinfo/*.*", "pytz/**/*.tab"), _pieces),
        _Source("character_tables", "tables of characters", ("std:encodings/*.py",), _pieces),
        _Source("build_scripts", "CMake scripts", ("torch/share/cmake/**/*.cmake",), _pieces),
    )


def _take(source: _Source, seen: set[bytes]) -> list[Text]:
    """Return a source's documents up to its size, none of them seen before, files mixed."""
    taken: list[Text] = []
    size = 0
    files = list(_files(source.patterns))
    most = max(12, 2 * SOURCE_BYTES // DOCUMENT_CHARS // max(1, len(files)))
    for path, name in files:
        try:
            texts = list(source.read(path))
        except (OSError, UnicodeDecodeError, SyntaxError, ValueError):
            continue  # another installation has a file that is not text, or newer syntax
        for label, text in texts[:most]:  # one file of many does not fill a source
            if _new(text, seen):
                taken.append((f"{name}#{label}", text))
                size += len(text.encode("utf-8"))
            if size >= SOURCE_BYTES:
                return taken
    return taken


def _target_items(seen: set[bytes]) -> list[Text]:
    """Return the target's items and mark them as seen."""
    items: list[Text] = []
    for path, name in _files(tuple(f"{module}/**/*.py" for module in HELD_OUT), held_out=True):
        for label, text in _docstrings(path):
            if len(text) <= ITEM_CHARS and _new(text, seen):
                items.append((f"{name}#{label}", text))
        if len(items) >= 2 * ITEMS:
            break
    return items[: 2 * ITEMS]


def _files(patterns: tuple[str, ...], *, held_out: bool = False) -> Iterator[tuple[Path, str]]:
    """Yield (path, name), in an order that mixes folders and is the same everywhere."""
    roots = sysconfig.get_paths()
    found: dict[str, Path] = {}
    for pattern in patterns:
        standard = pattern.startswith("std:")
        root = Path(roots["stdlib"] if standard else roots["purelib"])
        for path in root.glob(pattern.removeprefix("std:")):
            name = path.relative_to(root).as_posix()
            tests = "/tests/" in name and "test" not in pattern
            if not path.is_file() or tests or name.startswith(HELD_OUT) is not held_out:
                continue
            found[name] = path
    for name in sorted(found, key=lambda name: hashlib.blake2b(name.encode()).digest()):
        yield found[name], name


def _docstrings(path: Path) -> Iterator[Text]:
    """Yield the docstrings of a module's classes and functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _statements(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            if len(text) >= 2 * SHORTEST_CHARS:
                yield f"{node.name}:{node.lineno}", text[:DOCUMENT_CHARS]


def _code(path: Path) -> Iterator[Text]:
    """Yield a module's code in pieces, its docstrings left out: they are another kind of text."""
    source = path.read_text(encoding="utf-8")
    lines = source.split("\n")
    for node in _statements(ast.parse(source)):
        body = getattr(node, "body", None)
        if not body or not isinstance(body[0], ast.Expr):
            continue
        first = body[0]
        value = first.value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            for number in range(first.lineno - 1, first.end_lineno or first.lineno):
                lines[number] = ""
    yield from _cut(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip())


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what `ast.walk` does, in its order, but for expressions: nine of ten nodes."""
    waiting = deque([tree])
    while waiting:
        node = waiting.popleft()
        for name in ("body", "handlers", "orelse", "finalbody", "cases"):
            waiting.extend(getattr(node, name, ()))
        yield node


def _topics(path: Path) -> Iterator[Text]:
    """Yield the pages of Python's language reference, which are the values of one dictionary."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Dict):
            for key, value in ast.literal_eval(node).items():
                for number, text in _cut(str(value)):
                    yield f"{key}.{number}", text


def _pieces(path: Path) -> Iterator[Text]:
    yield from _cut(path.read_text(encoding="utf-8"))


def _cut(text: str) -> Iterator[Text]:
    """Cut a text at line ends into pieces of about `DOCUMENT_CHARS`."""
    held: list[str] = []
    size = number = 0
    for line in text.splitlines(keepends=True):
        for start in range(0, len(line), DOCUMENT_CHARS):
            part = line[start : start + DOCUMENT_CHARS]
            if held and size + len(part) > DOCUMENT_CHARS:
                yield str(number), "".join(held)
                held, size, number = [], 0, number + 1
            held.append(part)
            size += len(part)
    if size >= SHORTEST_CHARS:
        yield str(number), "".join(held)


def _new(text: str, seen: set[bytes]) -> bool:
    key = hashlib.blake2b(" ".join(text.lower().split()).encode("utf-8", "replace")).digest()
    if len(text.strip()) < SHORTEST_CHARS or key in seen:
        return False
    seen.add(key)
    return True


def _check_folder(folder: Path) -> None:
    """Refuse a folder with files that are not of the example and the demo would replace."""
    names = ("corpus", "target", ".curate", "mix", "report.html")
    taken = [name for name in names if (folder / name).exists()]
    if taken and not (folder / _MARK).is_file():
        raise CurateError(
            f"{folder}: holds {taken[0]}, which is not of the example; name another --folder"
        )


def _check(written: list[tuple[str, str]], items: list[Text]) -> None:
    names = {name for name, _ in written}
    kinds = {kind for _, kind in written}
    lacking = [name for name in BEST_SOURCES if name not in names]
    few = len(names) < FEWEST_SOURCES or len(kinds) < FEWEST_KINDS or len(items) < ITEMS
    if lacking or few:
        raise CurateError(
            f"example: this installation holds text for {len(names)} sources of {len(kinds)} kinds"
            f" and {len(items)} items, too few; install curate with pip and all its dependencies"
        )


def _write(path: Path, texts: Iterable[Text]) -> None:
    lines = [msgspec.json.encode({"id": name, "text": text}) + b"\n" for name, text in texts]
    publish_bytes(path, b"".join(lines))
