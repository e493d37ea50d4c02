"""The commands: the whole job on small real text, bad input, and what a fresh process shows."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from curate.cli import main
from curate.store.history import read_history
from curate.store.publish import publish_json, read_json
from curate.terminal import _terminable
from tests.conftest import numpy_docstrings, write_jsonl
from tests.report_records import verification

SETTINGS = """\
[corpus]
inputs = ["{corpus}"]
shard_tokens = "20k"
[embed]
batches = 4
batch_tokens = "256"
[target]
name = "docs={select},{eval}"
[mix]
budget = "24k"
[verify]
size = "tiny"
tokens = "2k"
seeds = 2
calibration = 2
control_items = 16
[run]
workers = 1
"""


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def process(*words, **env):
    command = [sys.executable, "-m", "curate", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **env}, check=False
    )


@pytest.fixture(scope="module")
def target_files(target_files, tmp_path_factory):
    """Half the items, half as long: each model is asked all of them again and again."""
    folder = tmp_path_factory.mktemp("items")

    def shorter(path):
        rows = map(json.loads, path.read_text("utf-8").splitlines()[::2])
        return write_jsonl(folder / path.name, [row["text"][:300] for row in rows])

    return [shorter(path) for path in target_files]


@pytest.fixture(scope="module")
def job(tmp_path_factory, corpus_folder, target_files):
    """The four commands with no argument but the workspace, run once; results by command."""
    home = tmp_path_factory.mktemp("job")
    select, held = target_files
    text = SETTINGS.format(corpus=corpus_folder, select=select, eval=held)
    (home / "curate.toml").write_text(text, encoding="utf-8")
    before = Path.cwd()
    os.chdir(home)
    try:
        results = {
            "rank": run("rank", "--json"),
            "build-mix": run("build-mix", "--json"),
            "verify": run("verify", "--json"),
            "report": run("report"),
        }
    finally:
        os.chdir(before)
    return home, results


def test_rank_indexes_first_and_puts_the_docstrings_first(job):
    _, results = job
    done = results["rank"]
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    keys = ["rank", "shard", "source", "tokens", "alignment", "low", "high"]
    assert list(lines[0]) == [*keys, "target", "method", "measure"]
    assert lines[0]["source"] == "docstrings"
    assert [line["rank"] for line in lines] == list(range(1, len(lines) + 1))
    assert all(line["low"] <= line["alignment"] <= line["high"] for line in lines)
    assert "indexing" in done.stderr


def test_build_mix_meets_the_budget_to_the_token(job):
    home, results = job
    done = results["build-mix"]
    assert done.exit_code == 0, done.output
    mix = json.loads(done.stdout)
    assert list(mix) == ["budget", "tokens", "alignment", "forecast", "out", "sources"]
    assert mix["budget"] == mix["tokens"] == sum(mix["sources"].values()) == 24_000
    assert mix["forecast"]["low"] <= mix["forecast"]["drop"] <= mix["forecast"]["high"]
    assert (home / "mix" / "manifest.json").is_file()


def test_the_mix_opens_with_datasets_and_recounts(job, tmp_path):
    from datasets import load_dataset

    from curate.task2vec.probe import load_probe

    home, _ = job
    rows = load_dataset(str(home / "mix"), split="train", cache_dir=str(tmp_path))
    tokenizer = load_probe("builtin", device="cpu").tokenizer
    counted = sum(
        len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in rows["text"]
    )
    assert counted == 24_000


@pytest.mark.parametrize("verdict", ["confirmed", "better", "worse", "refuted"])
def test_a_forecast_that_was_not_confirmed_ends_with_code_4(tmp_path, monkeypatch, verdict):
    monkeypatch.chdir(tmp_path)
    found = dataclasses.replace(verification(), verdict=verdict)
    monkeypatch.setattr("curate.stages.verify", lambda **_: found, raising=False)
    done = run("verify", "--json")
    assert json.loads(done.stdout)["verdict"] == verdict
    assert done.exit_code == (0 if verdict == "confirmed" else 4)


def test_verify_measures_and_says_so(job):
    _, results = job
    done = results["verify"]
    verdict = json.loads(done.stdout)
    assert list(verdict)[:4] == ["verdict", "drop", "forecast", "arms"]
    assert done.exit_code == (0 if verdict["verdict"] == "confirmed" else 4), done.output
    arms = {arm["arm"]: arm for arm in verdict["arms"]}
    assert {"mix", "random", "worst"} <= set(arms)
    assert arms["mix"]["seeds"] == 2
    assert "(8 of 8 runs)" in done.stderr
    if verdict["forecast"]["drop"] > 0:  # no number of seeds shows a drop that is none
        assert "at 90 % power" in done.stderr
    assert 1.0 < arms["mix"]["loss"] < 9.0
    assert verdict["drop"]["low"] <= verdict["drop"]["value"] <= verdict["drop"]["high"]
    assert verdict["drop"]["value"] == pytest.approx(
        arms["random"]["loss"] - arms["mix"]["loss"], abs=0.02
    )


def test_rank_check_ends_with_4_where_alignment_fell_and_with_0_where_it_did_not(job, monkeypatch):
    home, results = job
    monkeypatch.chdir(home)
    Path("kept.jsonl").write_text(results["rank"].stdout, encoding="utf-8")
    done = run("rank", "--check", "kept.jsonl")
    assert done.exit_code == 0, done.output
    assert "did not fall" in done.stdout
    lines = [json.loads(line) for line in results["rank"].stdout.splitlines()]
    higher = [line | {key: line[key] + 1 for key in ("alignment", "low", "high")} for line in lines]
    Path("kept.jsonl").write_text("\n".join(map(json.dumps, higher)), encoding="utf-8")
    done = run("rank", "--check", "kept.jsonl", "--json")
    assert done.exit_code == 4
    assert all(json.loads(line)["fell"] for line in done.stdout.splitlines())
    assert run("rank", "--check", "none.jsonl").exit_code == 2
    assert run("rank", "--check", "kept.jsonl", "--compare").exit_code == 2


def test_every_stage_leaves_a_line_in_the_history_and_the_report_repeats_it(job):
    home, _ = job
    lines = [json.loads(line) for line in (home / ".curate/history.jsonl").read_text().splitlines()]
    stages = [line["stage"] for line in lines]
    assert list(dict.fromkeys(stages)) == ["index", "rank", "build-mix", "verify"]
    assert all(line["ended"] and line["seconds"] > 0 and line["peak_bytes"] > 1e7 for line in lines)
    report = (home / ".curate" / "report.html").read_text(encoding="utf-8")
    for shown in ("budget = 24000", "shard_tokens = 20000", "What it cost", "A document of each"):
        assert shown in report


def test_a_project_that_is_moved_keeps_its_mix_and_its_target(
    job, tmp_path, monkeypatch, corpus_folder, target_files
):
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(job[0], old)
    shutil.copytree(corpus_folder, old / "corpus")
    settings = Path(old / "curate.toml")
    settings.write_text(settings.read_text("utf-8").replace(str(corpus_folder), "corpus"))
    for name, file in zip(("select", "eval"), target_files, strict=True):
        shutil.copy(file, old / f"{name}.jsonl")
    monkeypatch.chdir(old)
    rank = ["rank", "--target", "docs=select.jsonl,eval.jsonl", "--json"]
    ranked = run(*rank)
    assert ranked.exit_code == 0 and run("build-mix").exit_code == 0
    assert read_json(Path(".curate/mix.json"), dict) == {"folder": "../mix"}
    assert read_json(Path(".curate/target.json"), dict)["name"] == (
        "docs=../select.jsonl,../eval.jsonl"
    )
    told = [run for run in read_history(Path(".curate")) if run.stage == "rank"][-1]
    assert told.settings.target.name == "docs=select.jsonl,eval.jsonl"  # the report repeats it
    monkeypatch.chdir(tmp_path)
    old.rename(new)
    monkeypatch.chdir(new)
    for words in (["verify", "--dry-run"], ["report"]):
        done = run(*words)
        assert done.exit_code == 0, done.output
    assert json.loads(run("show", "mix", "--json").stdout)["out"] == str(new / "mix")
    # An earlier state of the program wrote whole paths.
    publish_json(Path(".curate/mix.json"), {"folder": str(new / "mix")})
    assert run("show", "mix").exit_code == 0
    # Inputs that were given from the folder on move along, and nothing is embedded anew.
    embedded = {path: path.stat().st_mtime_ns for path in Path(".curate/index/shards").iterdir()}
    again = run(*rank)
    assert again.exit_code == 0 and again.stdout == ranked.stdout, again.output
    assert '"corpus/docstrings.jsonl"' in Path(".curate/index/meta.json").read_text("utf-8")
    for path, stamp in embedded.items():
        assert path.suffix != ".safetensors" or path.stat().st_mtime_ns == stamp


def test_the_report_shows_no_verdict_of_another_mix_and_no_ranking_that_it_is_not_of(
    job, tmp_path, monkeypatch
):
    for name in (".curate", "mix"):
        shutil.copytree(job[0] / name, tmp_path / name)
    shutil.copy(job[0] / "curate.toml", tmp_path)
    monkeypatch.chdir(tmp_path)

    def told():
        assert run("report").exit_code == 0
        html = (tmp_path / ".curate" / "report.html").read_text(encoding="utf-8")
        return "What was measured" in html, "an earlier mix" in html, "an earlier ranking" in html

    assert told() == (True, False, False)
    run("rank", "--method", "length")  # a look at something else
    assert told() == (True, False, False)
    assert run("build-mix", "--budget", "9k").exit_code == 0
    assert told() == (False, True, False)
    Path("again.toml").write_text(Path("curate.toml").read_text("utf-8") + "[rank]\nseed = 9\n")
    run("rank", "--method", "length", "--config", "again.toml")
    assert told() == (False, True, True)


@pytest.mark.parametrize("fate", ["gone", "changed"])
def test_a_mix_that_is_gone_is_left_out_of_the_report_which_says_so(
    job, tmp_path, monkeypatch, fate
):
    shutil.copytree(job[0] / ".curate", tmp_path / ".curate")
    if fate == "changed":
        shutil.copytree(job[0] / "mix", tmp_path / "mix")
        (tmp_path / "mix" / "manifest.json").unlink()
    monkeypatch.chdir(tmp_path)
    done = run("report")
    assert done.exit_code == 0, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith(str(tmp_path / "mix")) and line.endswith("left out of the report")
    html = (tmp_path / ".curate" / "report.html").read_text(encoding="utf-8")
    assert line in html and "What the mix holds" not in html
    for shown in ("What was measured", "curate build-mix", "forecast drop", "docstrings ("):
        assert shown in html, shown
    assert "No mix has been built" not in html


def test_report_is_one_file_without_references(job):
    home, results = job
    assert results["report"].exit_code == 0, results["report"].output
    html = (home / results["report"].stdout.strip()).read_text(encoding="utf-8")
    assert "docstrings" in html and "<svg" in html
    assert "http://" not in html.replace("http://www.w3.org", "") and "<script" not in html


def test_a_second_run_computes_nothing_again(job, monkeypatch):
    home, results = job
    monkeypatch.chdir(home)
    index = home / ".curate" / "index"
    before = {path: path.stat().st_mtime_ns for path in index.rglob("*.safetensors")}
    again = run("rank", "--json")
    assert again.stdout == results["rank"].stdout
    assert before == {path: path.stat().st_mtime_ns for path in index.rglob("*.safetensors")}
    assert "indexing" not in again.stderr
    assert run("verify", "--json").stdout == results["verify"].stdout


@pytest.mark.parametrize("artefact", ["index", "ledger", "ranking", "mix", "verification"])
def test_show_prints_each_artefact(job, monkeypatch, artefact):
    monkeypatch.chdir(job[0])
    plain, as_json = run("show", artefact), run("show", artefact, "--json")
    assert plain.exit_code == 0 and plain.stdout.strip()
    assert all(json.loads(line) for line in as_json.stdout.splitlines())
    warned = [line.strip() for line in plain.stdout.splitlines() if line.startswith("! ")]
    said = " ".join(as_json.stderr.split())  # a script is told what a table warns of
    assert all(line in said for line in warned)
    assert bool(warned) == ("! " in said)
    assert warned or artefact != "verification"  # models of seconds have learnt words alone


def test_verify_says_what_it_takes_checks_and_exports(job, monkeypatch, tmp_path):
    home, results = job
    monkeypatch.chdir(home)
    verdict = results["verify"].exit_code
    plan = run("verify", "--dry-run")
    assert plan.exit_code == 0 and "8 runs of 2k tokens" in plan.stdout, plan.output
    assert "word frequencies alone" in plan.stdout
    assert json.loads(run("verify", "--dry-run", "--json").stdout)["runs"] == 8  # 2 + 4 + 2
    done = run("verify", "--check", "--export", tmp_path / "tables", "--json")
    assert done.exit_code == verdict and done.stdout == results["verify"].stdout
    assert len((tmp_path / "tables" / "metrics.csv").read_text().splitlines()) == 9


def test_a_plan_counts_the_places_of_the_cluster_and_the_workers_asked_for(job, monkeypatch):
    monkeypatch.chdir(job[0])
    cluster = SimpleNamespace(cluster_resources=lambda: {"CPU": 3.0})
    monkeypatch.setattr("curate.engine.run._cluster", lambda place: cluster)

    def at_once(*words):
        done = run("verify", "--dry-run", "--json", *words)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["at_once"]

    assert at_once("--engine", "ray", "--workers", "0") == 3
    assert at_once() == 1  # [run] workers


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--against", "scores"], 2, "[verify] against"),
        (["--dry-run", "--check"], 2, "--dry-run"),
        (["--outcome", "gsm8k"], 2, "name one as lm-eval:TASK"),
        (["--check", "--tokens", "9k"], 1, "of other inputs or settings"),
    ],
)
def test_verify_refuses_options_that_do_not_fit(job, monkeypatch, words, code, message):
    monkeypatch.chdir(job[0])
    done = run("verify", *words)
    assert done.exit_code == code and message in done.stderr


def test_verify_refuses_an_eval_split_that_ranking_has_seen(job, tmp_path, monkeypatch):
    """A target file changes between the ranking and the verification: eval now holds select."""
    home, _ = job
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / ".curate", ".curate")
    shutil.copytree(home / "mix", "mix")
    wanted = read_json(Path(".curate/target.json"), dict)
    select = wanted["name"].split("=", 1)[1].split(",")[0]
    wanted["name"] = f"docs={select},{select}"
    publish_json(Path(".curate/target.json"), wanted)
    done = run("verify", "--config", home / "curate.toml")
    assert done.exit_code == 1, done.output
    assert "eval" in done.stderr and "select" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["rank", "--target", "profnet"], 2, "proofnet"),
        (["rank"], 2, "no target named"),
        (["index"], 2, "no corpus named"),
        (["index", "absent.jsonl"], 1, "absent.jsonl"),
        (["build-mix", "--budget", "1k"], 1, "index"),
        (["build-mix"], 2, "no budget"),
        (["build-mix", "--budget", "much"], 2, "much"),
        (["verify"], 1, "index"),
        (["report"], 1, "index"),
        (["show", "mix"], 1, "mix"),
        (["show", "nothing"], 2, "nothing"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CURATE_DATA_DIR", raising=False)
    done = run(*words)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]


def test_rank_keeps_an_index_made_with_options_until_the_file_changes(
    tmp_path, monkeypatch, corpus_folder, target_files
):
    monkeypatch.chdir(tmp_path)
    small = '[embed]\nbatch_tokens = "512"\n[corpus]\ninputs = [{}]\n'
    code, manual = (json.dumps(str(corpus_folder / f"{n}.jsonl")) for n in ("code", "manual"))
    Path("curate.toml").write_text(small.format(code))
    assert run("index", corpus_folder / "manual.jsonl").exit_code == 0
    kept = run("rank", "--target", target_files[0], "--json")
    assert "indexing" not in kept.stderr and json.loads(kept.stdout)["source"] == "manual"
    Path("curate.toml").write_text(small.format(f"{code}, {manual}"))
    again = run("rank", "--target", target_files[0], "--json")
    assert "stale" in again.stderr and len(again.stdout.splitlines()) == 2, again.output


def test_an_empty_corpus_and_an_empty_target_are_named(tmp_path, corpus_folder):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    done = run("index", empty, "--workspace", tmp_path / "w")
    assert done.exit_code == 1 and "empty.jsonl" in done.stderr
    done = run("rank", "--target", empty, "--workspace", tmp_path / "w")
    assert done.exit_code == 1 and "empty" in done.stderr


def test_a_gpu_that_is_not_there_is_named(tmp_path, corpus_folder):
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    words = ["index", corpus_folder, "--workspace", tmp_path / "w", "--device", "cuda"]
    done = run(*words)
    assert done.exit_code == 1 and "cuda" in done.stderr.lower()


def test_a_budget_beyond_the_corpus_ends_with_6(job, tmp_path):
    home, _ = job
    words = ["--workspace", home / ".curate", "--out", tmp_path / "mix"]
    done = run("build-mix", "--budget", "10B", *words)
    assert done.exit_code == 6 and "10" in done.stderr
    assert not (tmp_path / "mix" / "meta.json").exists()


def test_a_probe_of_pickles_is_refused(tmp_path, corpus_folder):
    folder = tmp_path / "probe"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    done = run("index", corpus_folder, "--probe", folder, "--workspace", tmp_path / "w")
    assert done.exit_code == 1 and "safetensors" in done.stderr


def test_too_many_rejected_records_end_with_3(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["some words to read " * 40] * 30)
    with path.open("a") as stream:
        stream.write("not json\n" * 5)
    words = ["--workspace", tmp_path / "w", "--batch-tokens", "512", "--batches", "2"]
    done = run("index", path, *words)
    assert done.exit_code == 3, done.output
    assert "bad_json" in done.output
    assert (tmp_path / "w" / "index" / "meta.json").is_file()


def test_init_writes_settings_that_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data/a", "data/b", "target/select", "target/eval", "mix/train"):
        path = tmp_path / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"id": "1", "body": "some text"}\n')
    (tmp_path / "target" / "select.jsonl").write_text(
        '{"id": "1", "question": "q?", "answer": "a"}\n'
    )
    (tmp_path / "mix" / "manifest.json").write_text("{}")
    done = run("init")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("Next: curate rank\n")
    from curate.config import read_settings

    settings = read_settings()
    assert settings.corpus.inputs == ("data/*.jsonl",)
    assert settings.corpus.text == "body"
    assert settings.target.name == "target=target/select.jsonl,target/eval.jsonl"
    assert settings.target.template == "{question} {answer}"
    assert run("init").exit_code == 1
    (tmp_path / "target").rename(tmp_path / "olympiad 9")  # a folder that says what it asks
    assert run("init", "--force").exit_code == 0
    names = "olympiad-9=olympiad 9/select.jsonl,olympiad 9/eval.jsonl"
    assert read_settings().target.name == names


def test_init_names_files_whatever_signs_their_folders_have(tmp_path, monkeypatch):
    from curate.config import read_settings
    from curate.corpus.inputs import find_inputs
    from curate.corpus.targets import load_target

    for name in ("a,b=c[1]/valid", "a,b=c[1]/test", "d[1],*/x", "d[1],*/y"):
        path = tmp_path / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'{{"text": "{path.stem}"}}\n')
    monkeypatch.chdir(tmp_path)
    assert run("init").exit_code == 0
    for folder, path in ((tmp_path, None), (Path("/"), tmp_path / "curate.toml")):
        monkeypatch.chdir(folder)
        settings = read_settings(path)
        target = load_target(settings.target)
        assert (target.name, target.select, target.eval) == ("a-b-c-1-", ("valid",), ("test",))
        found = find_inputs(settings.corpus.inputs, workspace=tmp_path / ".curate")
        assert [each.path.stem for each in found] == ["x", "y"]


def test_what_init_writes_as_a_comment_is_the_default(tmp_path):
    """Without the sign before it a line changes nothing, so that no shard is embedded anew."""
    from curate.config import read_settings
    from curate.settings import Settings
    from curate.starter import write_starter

    (tmp_path / "a.jsonl").write_text('{"body": "some text"}\n')
    said = write_starter(tmp_path)  # of another folder than the current one
    assert said.startswith("curate.toml written: 1 data file, text in 'body'.")
    path, plain = tmp_path / "curate.toml", Settings()
    path.write_text(re.sub(r"(?m)^# (?=\w+ = )", "", path.read_text()))
    found = read_settings(path)
    assert (found.embed, found.rank, found.verify) == (plain.embed, plain.rank, plain.verify)
    assert found.target == dataclasses.replace(plain.target, name="proofnet")
    assert found.mix == dataclasses.replace(plain.mix, budget=1_000_000)
    assert found.corpus.max_rejected == plain.corpus.max_rejected


def test_init_says_which_files_have_another_field(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("id,body\n1,some words\n")
    Path("b.jsonl").write_text('{"meta": {}, "body": "some words"}\n')
    Path("c.csv").write_text("Title,Post\nT,some words\n")
    Path("d.txt").write_text("some words\n")
    Path("my_questions.jsonl").write_text('{"prompt": "why?", "completion": "because"}\n')
    said = run("init").stdout
    assert (
        "4 data files, text in 'body'. 1 of 3 files has no such field (c.csv has Title, Post)"
        in said
    )
    assert said.endswith("Next: curate rank\n")
    written = Path("curate.toml").read_text("utf-8")
    assert (
        'name = "my_questions=my_questions.jsonl"' in written and "{prompt} {completion}" in written
    )


def test_a_template_of_the_settings_goes_with_their_target(tmp_path):
    from curate.config import without_reading
    from curate.settings import TargetSettings

    own = TargetSettings(name="mine.jsonl", template="{question}", seed=3)
    assert without_reading(own, "mine.jsonl") is own
    assert without_reading(own, "proofnet") == TargetSettings(seed=3)
    assert without_reading(own, ("proofnet", "mine.jsonl:2")) == TargetSettings(seed=3)
    unnamed = TargetSettings(template="{question}")
    assert without_reading(unnamed, "questions.jsonl") is unnamed
    several = TargetSettings(names=("a.jsonl", "b.jsonl"), text="body")
    assert without_reading(several, ("a.jsonl", "b.jsonl")) is several


def test_doctor_and_targets_print(monkeypatch):
    monkeypatch.delenv("CURATE_DATA_DIR", raising=False)
    assert "FAISS" in run("doctor").stdout
    found = [json.loads(line) for line in run("doctor", "--json").stdout.splitlines()]
    assert {"what", "found", "good"} <= set(found[0])
    listed = [json.loads(line) for line in run("targets", "--json").stdout.splitlines()]
    assert {"proofnet", "mmlu", "wmt14"} <= {target["name"] for target in listed}
    assert "proofnet" in run("targets").stdout


def test_help_loads_nothing_heavy():
    code = (
        "import sys, curate.cli\n"
        "heavy = {'torch', 'transformers', 'datasets', 'faiss', 'numpy', 'sklearn', 'pyarrow'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


SLOW_TO_LOAD = {"torch", "transformers", "datasets", "faiss", "sklearn", "scipy.stats"}


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["index"], set()),
        (["rank"], set()),
        (["rank", "--method", "length"], set()),
        (["build-mix", "--budget", "9k", "--out", "other"], set()),
        (["build-mix"], set()),
        (["show", "verification"], set()),
        (["report"], {"sklearn", "scipy.stats"}),  # topics
        (["rank", "--method", "task2vec"], {"scipy.stats"}),  # its second opinion
        (["verify"], set()),
        (["verify", "--check"], set()),
    ],
)
def test_a_command_loads_the_libraries_that_it_works_with_and_no_others(
    job, tmp_path, monkeypatch, words, allowed
):
    """Each of them takes up to seconds to load."""
    home, _ = job
    for name in (".curate", "mix"):
        shutil.copytree(home / name, tmp_path / name)
    shutil.copy(home / "curate.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    if "task2vec" in words:
        assert run(*words).exit_code == 0  # the target is embedded, once
    else:  # after a ranking by counts no later stage asks for its embedding
        shutil.rmtree(tmp_path / ".curate" / "targets", ignore_errors=True)
    if words[0] == "rank":
        shutil.rmtree(tmp_path / ".curate" / "ranking")
    code = (
        "import atexit, sys\n"
        f"slow = {SLOW_TO_LOAD}\n"
        "atexit.register(lambda: print('LOADED', *slow & set(sys.modules), file=sys.stderr))\n"
        "sys.argv[0] = 'curate'\n"
        "from curate.cli import main\n"
        "main()"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 4), done.stderr
    (loaded,) = (line for line in done.stderr.splitlines() if line.startswith("LOADED"))
    assert set(loaded.split()[1:]) <= allowed


def test_python_m_curate_and_a_closed_pipe():
    assert process("--version").stdout.startswith("curate")
    command = f"{sys.executable} -m curate doctor | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["rank"], ["rank", "--json"], ["show", "ranking"]])
def test_output_of_another_encoding_ends_no_command(job, words):
    command = [sys.executable, "-m", "curate", *words]
    told = [
        subprocess.run(command, cwd=job[0], capture_output=True, check=True, env=os.environ | env)
        for env in ({"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "utf-8"})
    ]
    assert told[0].stdout == told[1].stdout and told[0].stdout  # off a terminal it is UTF-8


def test_a_target_that_is_an_input_or_in_both_splits_is_told_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("own.jsonl"), numpy_docstrings()[:20])
    write_jsonl(Path("other.jsonl"), [f"rain fell on day {n} of the year" for n in range(60)])
    said = run("index", "own.jsonl", "other.jsonl", "--batch-tokens", "64", "--batches", "2")
    assert said.exit_code == 0, said.output
    done = run("rank", "--target", "own.jsonl")
    assert f"{tmp_path}/own.jsonl is target and input: what came from it ranks" in done.stderr
    Path("same.jsonl").write_bytes(Path("own.jsonl").read_bytes())
    halved = run("rank", "--target", "same.jsonl").stderr
    assert "target and input" not in halved and "both splits" not in halved
    twice = run("rank", "--target", "t=same.jsonl,same.jsonl").stderr
    assert "20 items are in both splits of the target: verify will refuse them" in twice


def test_a_second_interrupt_does_not_end_the_first():
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt, match="the first"), _terminable():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except KeyboardInterrupt:
                os.kill(os.getpid(), signal.SIGINT)
                raise KeyboardInterrupt("the first") from None
        os.kill(os.getpid(), signal.SIGINT)  # until the process has ended
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "--clusters", "3"], "--clusters goes with --group-by cluster"),
        (["index", "--submit", "sbatch"], "--submit goes with --engine batch"),
        (["index", "--submit", "sbatch", "--engine", "ray"], "--submit goes with --engine batch"),
        (["build-mix", "--address", "auto"], "--address goes with --engine ray"),
        (["verify", "--address", "auto"], "--address goes with --engine ray"),
        (["verify", "--size", "1M", "--model", "builtin"], "it goes without --model"),
        (["rank", "--text", "a", "--template", "{b}"], "both say how an item reads: give one"),
    ],
)
def test_an_option_that_another_makes_void_is_refused(tmp_path, arguments, message):
    done = CliRunner().invoke(main, [*arguments, "--workspace", str(tmp_path / "ws")])
    assert done.exit_code == 2 and message in done.output
    assert not (tmp_path / "ws").exists()


def test_an_option_holds_with_the_engine_that_the_file_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "curate.toml").write_text('[run]\nengine = "batch"\n')
    done = CliRunner().invoke(main, ["index", "--submit", "sbatch --wait"])
    assert "no corpus named" in str(done.exception) + done.output


def test_settings_of_the_ranking_are_looked_at_before_anything_is_indexed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.jsonl").write_text('{"text": "two and two"}\n{"text": "four and four"}\n')
    Path("curate.toml").write_text('[corpus]\ninputs = ["c.jsonl"]\n[rank]\nconfidence = 2\n')
    done = CliRunner().invoke(main, ["rank", "--target", "c.jsonl"])
    assert done.exit_code == 2 and "[rank] confidence is 2.0" in done.output
    Path("curate.toml").write_text('[corpus]\ninputs = ["c.jsonl"]\n')
    done = CliRunner().invoke(main, ["rank", "--target", "c.jsonl", "--method", "transfer"])
    assert done.exit_code == 1 and "run curate index --gradients" in done.output
    assert not Path(".curate/index").exists()
