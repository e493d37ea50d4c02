"""No output replaces an input, by whatever name it goes."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from curate import stages
from curate.cli import main
from curate.errors import USAGE, CurateError
from curate.settings import CorpusSettings, EmbedSettings, Settings, TargetSettings
from curate.store.protect import refuse_holding, refuse_input
from tests.conftest import write_jsonl
from tests.hostile import texts

ALIASES = ("itself", "relative", "dots", "link", "link to folder", "hard link", "chain of links")


def alias(path: Path, kind: str, beside: Path) -> Path:
    """Return another name of a file."""
    other = beside / "other"
    match kind:
        case "relative":
            return Path(os.path.relpath(path))
        case "dots":
            return path.parent / "x" / ".." / path.name
        case "link":
            other.symlink_to(path)
            return other
        case "link to folder":
            other.symlink_to(path.parent)
            return other / path.name
        case "hard link":
            other.hardlink_to(path)
            return other
        case "chain of links":
            (beside / "between").symlink_to(path.parent)
            other.symlink_to(Path("between") / path.name)
            return other
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A workspace with an index, a ranking and a mix, beside its inputs."""
    home = tmp_path_factory.mktemp("protect")
    (home / "in" / "x").mkdir(parents=True)
    for kind in ("math", "story"):
        write_jsonl(home / "in" / f"{kind}.jsonl", texts(kind, 60, payloads=("",)))
    write_jsonl(home / "target-story.jsonl", texts("story", 40, payloads=("",), seed=1))
    settings = Settings(
        corpus=CorpusSettings(inputs=(str(home / "in"),), shard_tokens=3000),
        embed=EmbedSettings(batches=2, batch_tokens=256, block_tokens=64),
        target=TargetSettings(name=f"t={home / 'target-story.jsonl'}"),
    )
    place = home / ".curate"
    stages.rank(settings=settings, workspace=place)
    stages.build_mix(500, settings=settings, workspace=place, out=home / "mix")
    return home, settings


@pytest.mark.parametrize("kind", ALIASES)
@pytest.mark.parametrize("name", ["in/math.jsonl", "target-story.jsonl"])
def test_a_report_replaces_no_input_by_any_name(built, tmp_path, kind, name):
    home, _ = built
    path = home / name
    (path.parent / "x").mkdir(exist_ok=True)
    before = path.read_bytes()
    out = alias(path, kind, tmp_path)
    done = CliRunner().invoke(
        main, ["report", "--workspace", str(home / ".curate"), "--out", str(out)]
    )
    assert done.exit_code == 2
    assert "is an input" in done.output and done.output.count("\n") == 1
    assert path.read_bytes() == before


def test_a_file_system_that_ignores_case_is_seen_by_the_file_s_number(tmp_path):
    (tmp_path / "a.jsonl").write_text("x")
    (tmp_path / "A.JSONL").hardlink_to(tmp_path / "a.jsonl")  # what such a file system answers
    with pytest.raises(CurateError, match="is an input"):
        refuse_input(tmp_path / "A.JSONL", [tmp_path / "a.jsonl"])
    refuse_input(tmp_path / "B.JSONL", [tmp_path / "a.jsonl"])


def test_a_file_in_an_input_folder_is_an_input(tmp_path):
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "config.json").write_text("{}")
    with pytest.raises(CurateError, match="is an input"):
        refuse_input(tmp_path / "probe" / "config.json", [tmp_path / "probe"])
    refuse_input(tmp_path / "probe.html", [tmp_path / "probe"])


def test_the_report_may_be_written_again(built, tmp_path):
    home, _ = built
    for _ in range(2):
        stages.write_report(workspace=home / ".curate", out=tmp_path / "report.html")


def test_the_tables_of_verify_replace_no_input(built, tmp_path):
    _, settings = built
    path = tmp_path / "in" / "ratios.csv"
    (tmp_path / "in" / "x").mkdir(parents=True)
    path.write_text("text\n" + "\n".join(texts("math", 60, payloads=("",))))
    corpus = dataclasses.replace(settings.corpus, inputs=(str(path),))
    place = tmp_path / ".curate"
    stages.index(settings=dataclasses.replace(settings, corpus=corpus), workspace=place)
    for name in ("link", "hard"):
        (tmp_path / name).mkdir()
    (tmp_path / "link" / "ratios.csv").symlink_to(path)
    (tmp_path / "hard" / "ratios.csv").hardlink_to(path)
    for out in ("in", "in/x/..", "link", "hard"):
        with pytest.raises(CurateError, match="is an input"):
            stages.export_verification(tmp_path / out, workspace=place)
        assert path.read_text().startswith("text\n")


def test_the_tables_of_verify_become_no_input(built, tmp_path):
    """A folder is read with all that is in it: the next index would hold two tables more."""
    _, settings = built
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("text\n" + "\n".join(texts("math", 60, payloads=("",))))
    place = tmp_path / ".curate"
    for inputs, refused in (("in", ("in", "in/x")), ("", (".", "new/x"))):
        corpus = dataclasses.replace(settings.corpus, inputs=(str(tmp_path / inputs),))
        stages.index(settings=dataclasses.replace(settings, corpus=corpus), workspace=place)
        for out in refused:
            with pytest.raises(CurateError, match="would be read as documents; name another"):
                stages.export_verification(tmp_path / out, workspace=place)
            with pytest.raises(CurateError, match="would be read as documents"):  # first of all
                stages.verify(workspace=place, export=tmp_path / out)
        with pytest.raises(CurateError, match="nothing verified yet"):  # as far as it may come
            stages.export_verification(place / "tables", workspace=place)


def test_a_mix_replaces_no_target_that_lies_in_an_earlier_mix(built, tmp_path):
    home, settings = built
    shutil.copytree(home / "mix", tmp_path / "mix")
    (tmp_path / "x").mkdir()
    (target,) = (tmp_path / "mix" / "data").glob("part-*.parquet")
    wanted = dataclasses.replace(settings, target=TargetSettings(name=str(target)))
    place = tmp_path / ".curate"
    stages.rank(settings=wanted, workspace=place)
    before = target.read_bytes()
    for kind in ("itself", "relative", "dots", "link"):
        out = alias(tmp_path / "mix", kind, tmp_path)
        with pytest.raises(CurateError, match="is in it"):
            stages.build_mix(300, settings=wanted, workspace=place, out=out)
        assert target.read_bytes() == before


@pytest.mark.parametrize("name", ["index/a.jsonl", "facts/a.jsonl", "mix.json", "verify/a.jsonl"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_workspace_is_not_written_over_its_inputs(tmp_path, built, name, linked):
    _, settings = built
    path = tmp_path / "ws" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"text": "a lemma of the theorem"}\n' * 3)
    place = tmp_path / "ws"
    if linked:
        place = tmp_path / "other"
        place.symlink_to(tmp_path / "ws")
    corpus = dataclasses.replace(settings.corpus, inputs=(str(path),))
    with pytest.raises(CurateError, match="input"):
        stages.index(settings=dataclasses.replace(settings, corpus=corpus), workspace=place)
    assert path.read_text().startswith('{"text"')


@pytest.mark.parametrize("name", ["data", "data/train", "data/holdout"])
def test_a_mix_is_not_written_over_an_input_through_a_folder_in_it(built, tmp_path, name):
    home, settings = built
    before = {path.name: path.read_bytes() for path in (home / "in").iterdir() if path.is_file()}
    link = tmp_path / "mix" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(home / "in")
    with pytest.raises(CurateError, match="is in it; name another folder") as caught:
        stages.build_mix(
            400, settings=settings, workspace=home / ".curate", out=tmp_path / "mix", fmt="jsonl"
        )
    assert caught.value.exit_code == USAGE
    assert before == {p.name: p.read_bytes() for p in (home / "in").iterdir() if p.is_file()}


def test_a_corpus_beside_the_workspace_is_no_matter(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("x")
    refuse_holding(tmp_path / "index", [tmp_path / "in" / "a"])
    (tmp_path / "index").mkdir()
    refuse_holding(tmp_path / "index", [tmp_path / "in" / "a", tmp_path / "index-of-mine"])


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_what_lies_where_a_mix_is_staged_is_not_removed(built, tmp_path, kind):
    home, settings = built
    staging = tmp_path / ".mix.staging"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data.jsonl").write_text("x")
    if kind == "folder":
        (tmp_path / "mine").rename(staging)
    elif kind == "link":
        staging.symlink_to(tmp_path / "mine")
    else:
        staging.write_text("x")
    with pytest.raises(CurateError, match="in the way"):
        stages.build_mix(400, settings=settings, workspace=home / ".curate", out=tmp_path / "mix")
    assert staging.exists()
    assert kind != "folder" or (staging / "data.jsonl").read_text() == "x"


def test_the_demo_replaces_no_corpus_of_yours(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "cython.jsonl").write_text("mine")
    done = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path)])
    assert done.exit_code == 1
    assert "is not of the example" in done.output
    assert (tmp_path / "corpus" / "cython.jsonl").read_text() == "mine"


def test_init_keeps_a_settings_file_and_follows_no_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "curate.toml").symlink_to("mine.jsonl")
    assert CliRunner().invoke(main, ["init"]).exit_code == 1
    assert CliRunner().invoke(main, ["init", "--force"]).exit_code == 0
    assert (tmp_path / "mine.jsonl").read_text() == '{"text": "x"}\n'
    assert not (tmp_path / "curate.toml").is_symlink()


@pytest.mark.parametrize(
    "command", [["index"], ["rank"], ["build-mix", "--budget", "9"], ["verify"]]
)
def test_a_workspace_that_cannot_be_written_to_is_told_before_any_work(
    built, monkeypatch, tmp_path, command
):
    place = tmp_path / ".curate"
    shutil.copytree(built[0] / ".curate", place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        os, "access", lambda path, mode: mode == os.R_OK or Path(path) != Path(".curate")
    )
    Path("curate.toml").write_text('[corpus]\ninputs = ["gone"]\n[target]\nname = "gone.jsonl"\n')
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert done.output == (
        "curate: .curate: cannot be written to; make it writable, or name another --workspace\n"
    )


@pytest.mark.parametrize("command", [["report", "--out"], ["verify", "--export"]])
def test_an_output_that_cannot_be_written_is_told_before_any_work(
    built, monkeypatch, tmp_path, command
):
    place = tmp_path / ".curate"
    shutil.copytree(built[0] / ".curate", place)
    monkeypatch.chdir(tmp_path)
    Path("shut").mkdir()
    Path("file").write_text("x")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != Path("shut"))
    monkeypatch.setattr("curate.stages.reporting.render_report", None)
    monkeypatch.setattr("curate.stages.verifying.verify_mix", None)
    for out, why in (
        ("shut/new/out.html", "shut: cannot be written to; make it writable, or"),
        ("file/out.html", "file: is no folder;"),
    ):
        done = CliRunner().invoke(main, [*command, out])
        assert done.exit_code == 1
        assert done.output == f"curate: {why} name another {command[1]}\n"


def test_a_workspace_that_cannot_be_made_is_told_before_any_work(tmp_path):
    (tmp_path / "file").write_text("x")
    done = CliRunner().invoke(main, ["index", "gone", "--workspace", str(tmp_path / "file" / "w")])
    assert done.exit_code == 1
    assert done.output.endswith("file: is no folder; name another --workspace\n")
