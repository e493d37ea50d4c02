"""Hostile text through every command: nothing is run, nothing moves the cursor or a formula."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from curate.cli import main
from curate.errors import CurateError
from curate.harmless import hide_secrets
from curate.verification import schedule
from tests import hostile

RICH = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\r?\x1b\[(?:2K|1A)")
"""What rich itself writes on a terminal: colours, its cursor and its lines of progress."""


SECRETS = {
    "HF_TOKEN": "hf_canaryCanaryCanaryCanary",
    "AWS_ACCESS_KEY_ID": "AKIACANARYCANARY0000",
    "AWS_SECRET_ACCESS_KEY": "canary/secret+canary/secret+canary/secret",
    "AWS_SESSION_TOKEN": "canary-session-token",
    "MY_SERVICE_PASSWORD": "canary-password",
}


URLS = (
    "https://canary-user:canary-password@host/a.jsonl?X-Amz-Signature=canary-signature",
    "s3://canary-user:canary-password@bucket/a.jsonl",
)


def run(*words, **env):
    return CliRunner(env=env).invoke(main, [str(word) for word in words], color=True)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Every command over a hostile corpus; results by what was asked."""
    home = tmp_path_factory.mktemp("hostile")
    corpus = hostile.write_corpus(home)
    wanted = ["--target", f"../{hostile.TARGET}", "--text", hostile.FIELD]
    (home / "run").mkdir()
    before = hostile.tree(home)
    here = Path.cwd()
    os.chdir(home / "run")
    places = schedule.count_places
    schedule.count_places = lambda _: 1  # the number of workers changes nothing but their start
    os.environ.update(SECRETS)
    try:
        found = {
            "urls": run("index", *URLS),
            "plan": run("index", corpus, "--text", hostile.FIELD, "--dry-run"),
            "index": run(
                "index", corpus, "--text", hostile.FIELD, "--batches", 2, "--batch-tokens", 256,
                "--shard-tokens", 4000,
            ),
            "rank": run("rank", *wanted),
            "rank --json": run("rank", *wanted, "--json"),
            "rank --csv": run("rank", *wanted, "--csv"),
            "rank on a terminal": run("rank", *wanted, FORCE_COLOR="1", TERM="xterm-256color"),
            "rank --compare": run("rank", *wanted, "--against", f"=t\x1b[31m=../{hostile.TARGET}"),
            "rank --compare --json": run(
                "rank", *wanted, "--against", f"=t\x1b[31m=../{hostile.TARGET}", "--json"
            ),
            "rank --compare --csv": run(
                "rank", *wanted, "--against", f"=t\x1b[31m=../{hostile.TARGET}", "--csv"
            ),
            "rank --explain": run("rank", *wanted, "--explain", "-rf"),
            "rank --explain --json": run("rank", *wanted, "--explain", "-rf", "--json"),
            "build-mix": run("build-mix", "--budget", "3k", "--max-epochs", 2),
            "build-mix --json": run("build-mix", "--budget", "3k", "--max-epochs", 2, "--json"),
            "verify": run(
                "verify", "--size", "tiny", "--tokens", "1k", "--seeds", 1, "--calibration", 2,
                "--export", "tables\x1b[31m",
            ),
            "report": run("report", "--out", "report\x1b[31m.html"),
        }  # fmt: skip
        for kind in ("index", "ranking", "mix", "verification"):
            found[f"show {kind}"] = run("show", kind)
            found[f"show {kind} --json"] = run("show", kind, "--json")
    finally:
        os.chdir(here)
        schedule.count_places = places
        for name in SECRETS:
            del os.environ[name]
    return home, before, found


def test_every_command_does_its_work(job):
    _, _, found = job
    for what, done in found.items():
        allowed = {"verify": (0, 4), "urls": (1, 2)}.get(what, (0,))
        assert done.exit_code in allowed, (what, done.output, done.exception)


def test_no_output_holds_a_control_character(job):
    _, _, found = job
    for what, done in found.items():
        text = RICH.sub("", done.output) if "terminal" in what else done.output
        assert not hostile.controls(text), (what, hostile.controls(text))


def test_on_a_terminal_the_colours_are_ours_alone(job):
    _, _, found = job
    shown = found["rank on a terminal"].stdout
    assert RICH.search(shown)
    assert "\ufffd[31mred\ufffd[0m" in RICH.sub("", shown)


def test_markup_in_names_is_shown_and_not_obeyed(job):
    _, _, found = job
    assert "[bold]" in found["rank"].stdout
    assert "{{7*7}}" in found["rank"].stdout


def test_json_keeps_every_name_as_it_is(job):
    _, _, found = job
    for what, done in found.items():
        if "--json" in what:
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            assert lines and done.stdout.isascii(), what
    lines = [json.loads(line) for line in found["rank --json"].stdout.splitlines()]
    assert {name.removesuffix(".jsonl") for name in hostile.NAMES} == {
        line["source"] for line in lines
    }


def is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("what", ["rank --csv", "rank --compare --csv", "ratios", "metrics"])
def test_no_csv_cell_is_a_formula(job, what):
    home, _, found = job
    if what.startswith("rank"):
        text = found[what].stdout
    else:
        text = (home / "run" / "tables\x1b[31m" / f"{what}.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text)))
    assert len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows for cell in row):
        assert is_number(cell) or not re.match(r"\s*[=+\-@]", cell), cell
    assert not hostile.controls(text)
    if what != "metrics":
        assert any(cell.startswith("'=cmd") for row in rows for cell in row)


def test_nothing_is_written_outside_what_was_named_and_no_input_changes(job):
    home, before, _ = job
    after = hostile.tree(home)
    assert {name: after.get(name) for name in before} == before
    places = {name.split("/")[1] for name in after if name not in before}
    assert places == {".curate", "mix", "tables\x1b[31m", "report\x1b[31m.html"}
    assert {name.split("/")[0] for name in after if name not in before} == {"run"}


def test_published_names_are_ours(job):
    home, _, _ = job
    for name in hostile.tree(home / "run" / ".curate"):
        assert re.fullmatch(r"[\w./-]+", name) and len(name) < 200, name


def test_the_card_is_markdown_without_html(job):
    home, _, _ = job
    card = (home / "run" / "mix" / "README.md").read_text(encoding="utf-8")
    assert not hostile.controls(card)
    assert "\u2028" not in card
    assert not re.search(r"(?<!\\)<\w", card)


@pytest.mark.parametrize("word", ["\x1b[31mx", "\x9b31m", "a\u202eb", "</script>", "[bold]x"])
def test_a_wrong_word_is_said_without_obeying_it(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text(f"[rank]\nmethod = {json.dumps(word)}\n")
    for words in (
        [word], [f"--{word}"], ["show", word], ["rank", f"--{word}"], ["index", word],
        ["rank", "--target", word], ["rank", "--method", word], ["build-mix", "--budget", word],
        ["build-mix", "--holdout", word], ["report", "--workspace", word],
        ["rank", "--config", word], ["rank", "--config", "bad.toml"], ["index", "--text", word],
        ["index", ".", "--group-by", word], ["index", ".", "--probe", word],
        ["verify", "--against", word], ["targets", "--data-dir", word],
    ):  # fmt: skip
        done = run(*words)
        assert done.exit_code in (0, 1, 2), (words, done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit), words
        assert not hostile.controls(done.output), (words, done.output)


@pytest.mark.parametrize("place", ["argument", "file name", "field"])
def test_names_that_are_no_text_are_refused_in_one_line(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd = os.fsdecode(b"bad\xff")
    words = ["index", "in"]
    (tmp_path / "in").mkdir()
    if place == "file name":
        (tmp_path / "in" / f"{odd}.jsonl").write_text('{"text": "x"}\n')
    elif place == "argument":
        words = ["index", "in", "--workspace", odd]
    else:
        (tmp_path / "in" / "a.jsonl").write_text('{"text": "x"}\n')
        words += ["--text", odd]
    done = run(*words)
    assert done.exit_code in (1, 2)
    assert re.fullmatch(r"curate: .*UTF-8.*\n", done.output), done.output
    assert not (tmp_path / ".curate" / "index" / "meta.json").exists()


def test_init_writes_toml_that_reads_whatever_the_files_are_called(tmp_path, monkeypatch):
    import tomllib

    monkeypatch.chdir(tmp_path)
    for name in (
        "a\x7f'''.jsonl",
        'q"\\.csv',
        "\x1b[31m.parquet",
        "]\n[embed]\nprobe=1.txt",
        "😀é.md",
    ):
        (tmp_path / name).write_text("[1]\n")
    done = run("init")
    assert done.exit_code == 0, done.output
    assert not hostile.controls(done.output)
    table = tomllib.loads((tmp_path / "curate.toml").read_text(encoding="utf-8"))
    assert sorted(table["corpus"]["inputs"]) == sorted(
        path.name for path in tmp_path.iterdir() if path.name != "curate.toml"
    )


def test_no_secret_is_in_any_artefact_or_output(job):
    home, before, found = job
    secrets = [*SECRETS.values(), "canary"]
    for name, data in hostile.tree(home).items():
        assert name in before or not [s for s in secrets if s.encode() in data], name
    for what, done in found.items():
        assert not [s for s in secrets if s in done.output], (what, done.output)


def test_artefacts_are_of_kinds_that_hold_no_code(job):
    """Nothing pickled, nothing zipped: by the name's ending and by the first bytes."""
    home, _, _ = job
    known = {"arrow", "arrows", "csv", "html", "json", "jsonl", "md", "npy", "parquet"}
    known |= {"safetensors", "toml"}
    known |= {"blake2b"}  # the digest of the file beside it
    for name, data in hostile.tree(home / "run").items():
        ending = re.sub(r"\x1b\[31m", "", name).rpartition(".")[2]
        assert ending in known, name
        # safetensors begin with the length of their header, which may be any byte
        assert data[8:9] == b"{" if ending == "safetensors" else data[:1] != b"\x80", name
        assert data[:2] != b"PK", name
        assert ending != "npy" or b"'|O'" not in data[:128]


@pytest.mark.parametrize("kind", ["index", "probe", "target", "data", "tokenizer"])
def test_a_refused_address_is_said_without_its_credentials(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    for address in (*URLS, "hf://canary-user:canary-password@x/y", "gs://a?token=canary"):
        words = {
            "index": ["index", address],
            "probe": ["index", "a.jsonl", "--probe", address],
            "target": ["rank", "--target", address],
            "data": ["rank", "--target", "proofnet", "--data-dir", address],
            "tokenizer": ["build-mix", "--tokenizer", address, "--budget", "1k"],
        }[kind]
        done = run(*words)
        assert done.exit_code in (1, 2), done.exception
        assert "canary" not in done.output, done.output


def test_a_bug_s_traceback_holds_no_secret_and_no_control(tmp_path):
    script = (
        "import os, sys, curate.starter as starter\n"
        "def boom(*words, **more):\n"
        "    token = os.environ['HF_TOKEN']\n"
        "    raise RuntimeError('\\x1b[31m ' + token + ' https://u:canary@h/?canary')\n"
        "starter.write_starter = boom\n"
        "from curate.cli import main\n"
        "main(['init'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, **SECRETS},
    )  # fmt: skip
    assert done.returncode == 1
    assert "RuntimeError: \ufffd[31m *** https://***@h/?***" in done.stderr
    assert "in boom" in done.stderr
    assert "canary" not in done.stderr and not hostile.controls(done.stderr)


def test_secrets_are_hidden_by_their_name_their_shape_and_their_place(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "12345678")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    assert hide_secrets("key 12345678, abc, false") == "key ***, abc, false"
    assert hide_secrets("x hf_abcdefghijklmnopqrst y") == "x *** y"
    assert hide_secrets("AKIAABCDEFGHIJKLMNOP") == "***"
    assert hide_secrets("https://a:b@c.d/e?f=g#h") == "https://***@c.d/e?***#h"
    assert hide_secrets("see https://c.d/e and a@b?c") == "see https://c.d/e and a@b?c"
    assert str(CurateError("s3://me:word@x")) == "s3://***@x"
