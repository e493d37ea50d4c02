"""What the Tab key does in bash, zsh and fish: asked of the shells themselves where installed."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from curate import options
from curate.cli import main
from curate.corpus.targets import known_targets

HERE = Path(sys.executable).parent
CALL = "from curate.cli import main; main(prog_name='curate')"
START = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        'bind "set enable-bracketed-paste off"; eval "$(_CURATE_COMPLETE=bash_source curate)"',
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -U compinit; compinit -u -D; eval "$(_CURATE_COMPLETE=zsh_source curate)"',
    ),
}
TYPED = {  # what is typed before Tab, and what then stands there
    "curate bui": "build-mix",
    "curate build-mix --bud": "--budget",
    "curate rank --method lex": "lexical",
    "curate rank --target proofn": "proofnet",
    "curate index --probe bui": "builtin",
    "curate index docume": "documents.jsonl",
}


def environment(folder):
    """PATH with this environment's curate, and nothing of the user's shell."""
    paths = f"{HERE}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": paths, "HOME": str(folder), "TERM": "dumb", "PS1": "> "}


def read_until(terminal, wanted, seconds):
    """Return what a terminal shows until `wanted` is among it."""
    shown, end = "", time.monotonic() + seconds
    while wanted not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


@pytest.mark.parametrize("shell", START)
def test_the_tab_key_completes(shell, tmp_path):
    """In a terminal of its own; a key press starts a process, hence the minute's patience."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "documents.jsonl").touch()
    command, load = START[shell]
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path,
        env=environment(tmp_path), start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        os.write(ours, f"{load}; echo rea''dy\n".encode())
        assert "ready" in read_until(ours, "\nready", 60)
        for typed, whole in TYPED.items():
            os.write(ours, f"{typed}\t".encode())
            shown = read_until(ours, whole, 60)
            assert whole in shown, f"{typed}: {shown!r}"
            os.write(ours, b"\x15")  # Ctrl-U: an empty line again
    finally:
        child.kill()
        child.wait()
        os.close(ours)


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_completes(tmp_path):
    (tmp_path / "documents.jsonl").touch()
    lines = ["_CURATE_COMPLETE=fish_source curate | source"]
    lines += [f"complete -C '{typed}'" for typed in TYPED]
    done = subprocess.run(
        ["fish", "--no-config", "-c", "\n".join(lines)], cwd=tmp_path, env=environment(tmp_path),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    shown = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert set(TYPED.values()) <= set(shown), done.stdout + done.stderr
    assert known_targets()["proofnet"].about.split(",")[0] in done.stdout  # click cuts at a comma


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_generated(shell):
    env = {**os.environ, "_CURATE_COMPLETE": f"{shell}_source"}
    done = subprocess.run(
        [sys.executable, "-c", CALL], env=env, capture_output=True, text=True, check=True
    )
    assert "_CURATE_COMPLETE" in done.stdout


def completed(command, option, typed):
    (parameter,) = [p for p in main.commands[command].params if option in p.opts]
    found = parameter.shell_complete(click.Context(main.commands[command]), typed)
    return [item.value for item in found if item.type == "plain"]


def test_targets_and_probes_are_completed_by_name():
    assert completed("rank", "--target", "") == list(known_targets())
    assert completed("rank", "--against", "min") == ["minif2f"]
    assert completed("index", "--probe", "b") == ["builtin"]
    assert completed("index", "--probe", "gpt2") == []
    assert [item.type for item in options.complete_target(None, None, "my")] == ["file"]
