"""Write the generated pages: each command's help into its page, and api.md from the docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
from click.testing import CliRunner

import curate
from curate import records, settings
from curate.cli import main

FOLDER = Path(__file__).parent / "commands"
PAGE_OF = {"": "index.md", "index": "index-corpus.md"}  # index.md is the overview
BLOCK = re.compile(r"<!-- help -->.*?<!-- /help -->", re.DOTALL)


def help_text(command: str) -> str:
    """Return `curate COMMAND --help` at a width of 80."""
    words = [command, "--help"] if command else ["--help"]
    result = CliRunner().invoke(main, words, prog_name="curate", terminal_width=80)
    return result.output.rstrip()


def page_with_help(page: str, command: str) -> str:
    """Return the page with the block between the marks replaced by today's help."""
    block = f"<!-- help -->\n\n```text\n{help_text(command)}\n```\n\n<!-- /help -->"
    return BLOCK.sub(lambda match: block, page)


def pages() -> dict[Path, str]:
    """Return each page's path and its command ("" is the group)."""
    names = main.list_commands(click.Context(main))
    commands = {FOLDER / PAGE_OF.get(name, f"{name}.md"): name for name in names}
    return {FOLDER / "index.md": "", **commands}


API = Path(__file__).parent / "api.md"
STAGES = (
    "index", "plan", "rank", "compare", "explain", "check", "build_mix", "push", "verify",
    "write_report", "open_artefact", "mirrored", "load_probe", "embed_texts", "read_settings",
)  # fmt: skip
RESULTS = (
    "Index", "IndexedShard", "Shard", "RecordRange", "FileLedger", "Group", "RejectedShard",
    "RowBlock", "IndexPlan", "PlannedSource", "Ranking", "RankedShard", "Comparison",
    "Explanation", "Contribution", "AlignmentCheck", "SourceChange", "Mix", "MixPart", "Forecast",
    "Verification", "ArmResult", "Run", "RunState", "Interval", "Embedding", "ProbeInfo",
)  # fmt: skip
OPENING = """# Python

The commands are functions; `import curate` loads nothing heavy until one is used. Each finds in
the workspace what the one before published, as the command does. Results are frozen records; those
with lines have `to_pandas()`, `to_rows()`, a repr of one line, and a table in notebooks. The
package is typed (`py.typed`, `mypy --strict`). This page is made from the docstrings (`make docs`).

```python
import curate

curate.index("corpus")
ranking = curate.rank("proofnet")
print(ranking)
print(ranking.to_pandas()[["shard", "alignment", "low", "high"]].head())
```

What `curate.toml` says is given as `settings`: read it, or make the records, and change a copy.
A value of the wrong kind is refused before anything is done.

```python
from dataclasses import replace

import curate
from curate.settings import MixSettings

settings = replace(curate.read_settings(), mix=MixSettings(holdout=0.01, seed=1))
mix = curate.build_mix("100M", settings=settings, out="mix")
print(mix.folder, mix.tokens, mix.forecast.drop)
```

A mistake that you can mend raises `curate.CurateError`: its text is one line, its `exit_code` what
the command would end with ([list](commands/index.md)). Records for annotations are in
`curate.records`. Paths are relative to the current folder, and an index keeps them as given: give
`Path("corpus").resolve()` where a notebook in another folder goes on. `notify` is called as
`notify(what, done, total)`, with a `total` of 0 where it is not known; `watch` with the `RunState`
of every training run.

On cores that others use too, set `OMP_WAIT_POLICY=PASSIVE` in the environment before torch is
loaded: threads that wait would spin. The commands do so, and worker processes have it; your own
process is left as it is ([why](decisions.md)).
"""


def api_page() -> str:
    """Return the page on Python: functions, results, settings."""
    parts = [OPENING, "## Functions\n"]
    parts += [_function(name) for name in STAGES]
    parts.append("## Results\n")
    parts += [_record(getattr(records, name)) for name in RESULTS]
    parts.append("## Settings\n\nIn `curate.settings`, a record a section of `curate.toml`.\n")
    parts += [_record(kind) for kind in (settings.Settings, *section_kinds())]
    return "\n".join(parts)


def section_kinds() -> list[type[Any]]:
    """Return the record of each section of the settings."""
    return list(get_type_hints(settings.Settings).values())


def _function(name: str) -> str:
    found = getattr(curate, name)
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(found)))
    signature = re.sub(r"<function (\w+) at \w+>", r"\1", signature)
    lines = [f"### curate.{name}\n", f"```text\n{name}{_wrapped(signature)}\n```\n"]
    return "\n".join([*lines, _prose(inspect.getdoc(found) or "")])


def _wrapped(signature: str) -> str:
    """Return a signature with an argument a line where it is long."""
    if len(signature) < 72:
        return signature
    inside, _, result = signature[1:].rpartition(")")
    parts, depth, part = [], 0, ""
    for char in inside:
        depth += (char in "([") - (char in ")]")
        if char == "," and not depth:
            parts.append(part.strip())
            part = ""
        else:
            part += char
    return "(\n" + "".join(f"    {p},\n" for p in [*parts, part.strip()]) + f"){result}"


def _prose(doc: str) -> str:
    """Return a docstring of Google style as Markdown."""
    doc = re.sub(r"\n\s*Example:.*", "", doc, flags=re.DOTALL)
    lines = []
    for line in doc.splitlines():
        if re.fullmatch(r"(Args|Returns|Raises|Yields):", line):
            lines.append(f"**{line[:-1]}**\n")
        elif found := re.fullmatch(r"    (\w+): (.*)", line):
            lines.append(f"- `{found[1]}`: {found[2]}")
        else:
            lines.append(line.strip() if not line.startswith("     ") else f"  {line.strip()}")
    return "\n".join(lines).strip() + "\n"


def _record(kind: type[Any]) -> str:
    """Return a record's fields with types, defaults and what stands beside or below each."""
    source = inspect.getsource(kind)
    lines, hints = [], get_type_hints(kind)
    for field in dataclasses.fields(kind):
        told = r'(?:  # ([^\n]*))?$(?:\n    """(.*?)""")?'
        line = re.search(rf"^    {field.name}: ([^#\n]*?){told}", source, re.M | re.S)
        assert line is not None, f"{kind.__name__}.{field.name}"
        values = get_args(hints[field.name]) if get_origin(hints[field.name]) is Literal else ()
        default = line[1].partition(" = ")[2]
        shown = f"{' | '.join(map(repr, values))} = {default}" if values and default else line[1]
        shown = re.sub(r"field\(default_factory=(\w+)\)", r"\1()", shown)
        lines.append((field.name, shown, line[2] or line[3] or ""))
    for name, value in vars(kind).items():
        if isinstance(value, property):
            kept = value.fget.__annotations__["return"] if value.fget else "Any"
            lines.append((name, f"-> {kept}", value.__doc__ or ""))
    rows = []
    for name, declared, note in lines:
        kept = [" ".join(text.split()).replace("|", "\\|") for text in (declared, note)]
        rows.append(f"| `{name}` | `{kept[0]}` | {kept[1]} |")
    doc = (inspect.getdoc(kind) or "").split("\n")[0]
    return "\n".join([f"### {kind.__name__}\n", f"{doc}\n", "| field | type | |", "|---|---|---|",
                      *rows, ""])  # fmt: skip


if __name__ == "__main__":
    API.write_text(api_page(), encoding="utf-8")
    for path, command in pages().items():
        new = page_with_help(path.read_text(encoding="utf-8"), command)
        path.write_text(new, encoding="utf-8")
    sys.stdout.write(f"{1 + len(pages())} pages written\n")
