"""The documentation says what the program does."""

import dataclasses
import importlib.util
import re
import shlex
from pathlib import Path
from typing import get_args, get_type_hints

import click
import pytest

import curate
from curate.cli import main
from curate.task2vec.probe import Probe

ROOT = Path(__file__).parents[1]


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = script(ROOT / "docs" / "generate.py")
record = script(ROOT / "examples" / "record.py")

COMMANDS = main.list_commands(click.Context(main))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_a_page_with_its_help(command):
    name = generate.PAGE_OF.get(command, f"{command}.md")
    page = (ROOT / "docs" / "commands" / name).read_text(encoding="utf-8")
    assert generate.BLOCK.search(page), "the page has no help block"
    assert page == generate.page_with_help(page, command), "run make docs"


def test_the_page_on_python_is_made_from_todays_docstrings():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert page == generate.api_page(), "run make docs"
    for name in curate.__all__:
        assert f"curate.{name}" in page or name in page, name


def test_every_page_stands_in_the_navigation_and_every_entry_is_a_page():
    listed = re.findall(r"^ +- ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}
    assert len(listed) == len(set(listed))
    assert set(listed) == pages


def test_every_setting_and_every_result_field_says_what_it_is():
    """The page on Python shows the comment beside each field."""
    results, settings = generate.api_page().split("\n## Settings\n")
    row = re.compile(r"^\| `(\w+)` \| `(.*)` \| (.*) \|$", re.MULTILINE)
    silent = [name for name, kind, note in row.findall(settings) if not note]
    assert silent == list(get_type_hints(curate.Settings)), "the sections need no word"
    rows = row.findall(results)
    assert len(rows) > 150
    assert sum(not note for _, _, note in rows) < len(rows) / 4


def records_in(hint):
    """The records that a type names, and those in their fields."""
    if dataclasses.is_dataclass(hint):
        return {hint}.union(*map(records_in, get_type_hints(hint).values()))
    return set().union(*map(records_in, get_args(hint)))


def test_every_record_that_a_function_returns_is_on_the_page():
    page = generate.api_page()
    assert set(generate.STAGES) | {"Settings", "CurateError"} == set(curate.__all__)
    returned = [get_type_hints(getattr(curate, name))["return"] for name in generate.STAGES]
    records = set().union(*map(records_in, returned), records_in(curate.Settings))
    assert {"RankedShard", "Forecast"} <= {record.__name__ for record in records}
    for record in records - {Probe}:  # which the docstring of load_probe tells
        assert f"### {record.__name__}\n" in page, record.__name__


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_in_its_help(command):
    assert "Example:" in generate.help_text(command)


def test_every_option_says_what_it_is_and_no_command_s_line_is_cut():
    for name in COMMANDS:
        for option in main.commands[name].params:
            assert isinstance(option, click.Argument) or option.help, f"{name} {option.name}"
    assert "..." not in generate.help_text("").split("Commands:")[1]


def test_every_command_in_the_pages_parses():
    """A command line shown anywhere must name a command and options that exist."""
    shown = []
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for line in re.findall(
            r"^(?:\$ )?(curate [a-z].*)$", page.read_text("utf-8"), re.MULTILINE
        ):
            shown.append((page, line))
    assert shown
    for page, line in shown:
        words = shlex.split(line.split("  #")[0].split(" | ")[0].split(" > ")[0])[1:]
        command = main.commands.get(words[0])
        assert command is not None, f"{page.name}: {line}"
        known = {
            name for option in command.params for name in [*option.opts, *option.secondary_opts]
        }
        options = {word.split("=")[0] for word in words[1:] if re.match(r"--[a-z]", word)}
        assert options <= known | {"--help"}, f"{page.name}: {line}: {options - known}"


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_site_holds_every_page_that_its_pages_link_to():
    """mkdocs --strict refuses a link out of docs/; it runs in `make dist-check` alone."""
    docs = ROOT / "docs"
    for page in docs.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in link:
                assert (page.parent / link).resolve().is_relative_to(docs), f"{page.name}: {link}"


def test_the_map_in_the_readme_lists_the_rooms():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = [p.name for p in (ROOT / "curate").iterdir() if (p / "__init__.py").is_file()]
    for room in rooms:
        assert f"{room}/" in readme, room


def test_every_benchmark_prints_json_when_asked():
    for script in sorted((ROOT / "benchmarks").glob("*.py")):
        text = script.read_text(encoding="utf-8")
        assert '"--json"' in text and 'if __name__ == "__main__":' in text, script.name
        assert f"{script.name}" in "".join(
            page.read_text("utf-8") for page in (ROOT / "docs").glob("*.md")
        ), f"no page names {script.name}"


def test_the_readme_shows_what_the_recorded_demo_printed():
    """Both are written by examples/record.py; neither is edited."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    transcript = record.TRANSCRIPT.read_text(encoding="utf-8")
    assert readme == record.readme_with(readme, transcript), "run make record"
    assert len(transcript.splitlines()) <= 64, "one screen of answer"


def test_the_tutorial_shows_what_its_commands_printed():
    """Written by examples/record.py too: a command of the page without its output is not."""
    steps = record.STEP.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))
    printed = {command: text for _, command, text in steps if command}
    assert {"init", "index", "rank", "verify"} <= set(printed)
    assert all(len(text.splitlines()) <= record.LONGEST for text in printed.values())
    assert "scipy_docstrings" in printed["rank"]
    assert printed["verify"].split()[0] in ("CONFIRMED", "BETTER", "WORSE", "REFUTED")


def test_the_recorded_demo_has_the_tables_that_todays_code_prints():
    from curate.report.grid import result_console
    from curate.report.ranking_table import ranking_table
    from curate.report.tables import mix_table
    from curate.report.verdict import verification_table
    from tests.report_records import mix, ranking, verification

    console = result_console()
    console.width = 140
    recorded = (ROOT / "examples" / "demo.txt").read_text(encoding="utf-8")
    by_words = dataclasses.replace(ranking(), method="lexical")  # as is the default
    tables = [ranking_table(by_words), mix_table(mix()), verification_table(verification())]
    for table, column in zip(tables, ("alignment", "epochs", "seeds"), strict=True):
        with console.capture() as capture:
            console.print(table)
        head = next(line for line in capture.get().splitlines() if column in line)
        words = set(head.split()) - {"source"}  # left out where every shard is a source
        assert any(words <= set(line.split()) for line in recorded.splitlines()), head
