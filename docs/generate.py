"""Write each command's help into its page in docs/commands, between the two marks."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
from click.testing import CliRunner

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


if __name__ == "__main__":
    for path, command in pages().items():
        new = page_with_help(path.read_text(encoding="utf-8"), command)
        path.write_text(new, encoding="utf-8")
    sys.stdout.write(f"{len(pages())} pages written\n")
