"""curate.toml: defaults, values, and mistakes named with line and nearest key."""

from pathlib import Path

import pytest

from curate.config import override, read_settings
from curate.corpus.inputs import find_inputs
from curate.errors import CurateError
from curate.settings import CorpusSettings, Settings


def written(tmp_path, text):
    path = tmp_path / "curate.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_gives_the_defaults(tmp_path):
    assert read_settings(written(tmp_path, "")) == Settings()


def test_values_and_token_counts_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = '[corpus]\ninputs = ["a", "b"]\nshard_tokens = "250k"\n[mix]\nbudget = "1.5B"\n'
    settings = read_settings(written(tmp_path, text))
    assert settings.corpus.inputs == ("a", "b")
    assert settings.corpus.shard_tokens == 250_000
    assert settings.mix.budget == 1_500_000_000


def test_a_share_is_read_as_on_the_command_line(tmp_path):
    settings = read_settings(
        written(tmp_path, '[corpus]\nmax_rejected = "0.5%"\n[mix]\nholdout = "0.25"\n')
    )
    assert (settings.corpus.max_rejected, settings.mix.holdout) == (0.005, 0.25)


def test_paths_are_relative_to_the_file_and_names_stay(tmp_path, monkeypatch):
    home, away = tmp_path / "home", tmp_path / "away"
    for file in ("a.jsonl", "b.jsonl", "probe/config.json"):
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_text("{}")
    away.mkdir()
    text = """\
[corpus]
inputs = ["data/*.jsonl", "/abs", "~/x", "hf:org/name", "s3://bucket/x"]
[embed]
probe = "probe"
[target]
name = "t=a.jsonl,b.jsonl"
names = ["proofnet:2", "a.jsonl:0.5", "hf:org/name"]
data_dir = "data"
[rank]
encoder = "org/encoder"
[mix]
tokenizer = "probe"
[verify]
model = "gpt2"
"""
    written(home, text)
    monkeypatch.chdir(home)
    near = read_settings()
    assert near.corpus.inputs[0] == "data/*.jsonl" and near.target.name == "t=a.jsonl,b.jsonl"
    assert near == read_settings(home / "curate.toml")  # named in full it is the same file
    monkeypatch.chdir(away)
    far = read_settings(Path("../home/curate.toml"))
    assert far.corpus.inputs == ("../home/data/*.jsonl", *near.corpus.inputs[1:])
    assert far.embed.probe == far.mix.tokenizer == "../home/probe"
    assert far.target.name == "t=../home/a.jsonl,../home/b.jsonl"
    assert far.target.names == ("proofnet:2", "../home/a.jsonl:0.5", "hf:org/name")
    assert far.target.data_dir == "../home/data"
    kept = (far.rank.encoder, far.mix.encoder, far.verify.model, far.verify.tokenizer)
    assert kept == ("org/encoder", "", "gpt2", "builtin")


def test_signs_of_globs_in_the_name_of_a_settings_folder_are_its_name(tmp_path):
    home = tmp_path / "project[1]"
    home.mkdir()
    for name in ("a.jsonl", "b.jsonl", "c[2].csv"):
        (home / name).write_text('{"text": "one"}\n')
    written(home, f'[corpus]\ninputs = ["*.jsonl", "c[2].csv", "{tmp_path}/*.csv"]\n')
    inputs = read_settings(home / "curate.toml").corpus.inputs
    assert inputs[2] == f"{tmp_path}/*.csv"
    found = find_inputs(inputs[:2], workspace=tmp_path / "w")
    assert [file.path.name for file in found] == ["a.jsonl", "b.jsonl", "c[2].csv"]


def test_a_byte_order_mark_before_the_settings_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "curate.toml").write_bytes(b'\xef\xbb\xbf[corpus]\r\ninputs = ["a"]\r\n')
    monkeypatch.chdir(tmp_path)
    assert read_settings().corpus.inputs == ("a",)


def test_one_input_may_be_a_string(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_settings(written(tmp_path, '[corpus]\ninputs = "a"\n')).corpus.inputs == ("a",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n[corpus]\nimputs = []\n", ":3: unknown key 'imputs' in [corpus]; did you mean inputs?"),
        ("[corpsu]\n", ":1: unknown key 'corpsu' as a section; did you mean corpus?"),
        ("[mix]\nbudget = true\n", ":2: budget: expected int, found True"),
        ('[rank]\n\nmethod = "magic"\n', ":3: method: 'magic' is not one of task2vec, lexical"),
        ("[mix]\nbudget = 'much'\n", ":2: budget: "),
        ("[mix]\nholdout = '120%'\n", ":2: holdout: '120%' is not a share such as 1% or 0.01"),
        ("[corpus]\nmax_rejected = 1.5\n", ":2: max_rejected: expected a share from 0 to 1"),
        ("[run]\nworkers = -1\n", ":2: workers: expected 0 or more, found -1"),
        ("[run]\ngpus = 0\n", ":2: gpus: expected a number above 0, found 0.0"),
        (f"[mix]\nmax_epochs = 1{'0' * 400}\n", ":2: max_epochs: a number too large"),
        (f"[mix]\nbudget = 1{'0' * 5000}\n", "not valid TOML: Exceeds the limit"),
        ("corpus = 3\n", ":1: corpus is a section: write [corpus]"),
        ("[corpus]\nmax_rejected = nan\n", ":2: max_rejected: expected a number, found nan"),
        ("[rank]\nseed = -1\n", ":2: seed: expected 0 or more, found -1"),
        ("[corpus\n", ": not valid TOML"),
        ("[embed]\nseed = 1\n[mix]\nsed = 2\n", ":4: unknown key 'sed' in [mix]; did you mean"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(CurateError) as caught:
        read_settings(written(tmp_path, text))
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_that_is_named_must_be_there(tmp_path):
    with pytest.raises(CurateError, match="no such file"):
        read_settings(tmp_path / "absent.toml")


def test_without_a_file_the_defaults_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_settings() == Settings()


def test_override_keeps_what_is_not_given():
    record = CorpusSettings(inputs=("a",), text="body")
    assert override(record, text=None, shard_tokens=5).text == "body"
    assert override(record, text=None, shard_tokens=5).shard_tokens == 5
