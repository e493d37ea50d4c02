"""Pushing to a hub and streaming from it, against a double that answers on this machine."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import CurateError
from curate.mixing.push import push_mix
from curate.store.publish import publish_json, read_json
from tests.hub_double import serving
from tests.report_records import mix

# the client's own way of sending an LFS object; its HTTP library would have it say `content`
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    with serving() as (hub, address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_double")
        yield hub


@pytest.fixture
def published(tmp_path):
    """A mix's folder with four files, one that is no part of it beside them."""
    folder = tmp_path / "mix"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "part-00000.jsonl").write_text('{"text": "a"}\n')
    (folder / "README.md").write_text("---\ntags:\n- curate\n---\n\n# 1 token\n")
    (folder / "notes-of-mine.txt").write_text("private")
    for number in range(2):
        table = pa.table({"text": [f"row {number}"]})
        pq.write_table(table, folder / "data" / f"part-{number}.parquet")
    names = ("README.md", "data/part-00000.jsonl", "data/part-0.parquet", "data/part-1.parquet")
    publish_json(folder / "meta.json", {"files": {name: {} for name in names}})
    return dataclasses.replace(mix(), folder=str(folder))


def test_a_mix_is_pushed_byte_for_byte_and_nothing_else(hub, published):
    address = push_mix(published, "me/mix")
    assert address.endswith("/datasets/me/mix")
    pushed = hub.repos["me/mix"]["main"]
    folder = Path(published.folder)
    assert set(pushed) == {*read_json(folder / "meta.json", dict)["files"], "meta.json"}
    assert sum(asked.startswith("PUT /lfs/") for asked in hub.asked) == 2  # the parquet files
    assert all(data == (folder / name).read_bytes() for name, data in pushed.items())


def test_a_mix_that_is_there_already_is_sent_no_second_time(hub, published):
    push_mix(published, "me/mix")
    before = dict(hub.repos["me/mix"]["main"])
    hub.asked.clear()
    push_mix(published, "me/mix", revision="main")
    assert hub.repos["me/mix"]["main"] == before
    assert not [asked for asked in hub.asked if asked.startswith("PUT")]


def test_who_is_not_logged_in_is_told_how(hub, published, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(CurateError, match=r"me/mix: not pushed .*log in with hf auth login"):
        push_mix(published, "me/mix")
    assert not hub.repos


def test_parts_of_an_earlier_mix_go_and_other_files_stay(hub, published):
    old = {"data/part-00007.jsonl": b"old", ".gitattributes": b"x"}
    hub.commit("me/mix", old)
    push_mix(published, "me/mix")
    pushed = hub.repos["me/mix"]["main"]
    assert "data/part-00007.jsonl" not in pushed
    assert pushed[".gitattributes"] == b"x"


def test_a_branch_leaves_main_as_it_is(hub, published):
    hub.commit("me/mix", {"README.md": b"first"})
    push_mix(published, "me/mix", revision="v2")
    assert hub.repos["me/mix"]["main"] == {"README.md": b"first"}
    assert "meta.json" in hub.repos["me/mix"]["v2"]


@pytest.mark.parametrize("repo", ["mix", "a/b/c", "../x/y", "me/mi x", "-/", "https://h/a"])
def test_a_name_that_is_none_is_refused_before_anything_is_sent(hub, published, repo):
    with pytest.raises(CurateError, match="write org/name"):
        push_mix(published, repo)
    assert not hub.asked


def test_a_hub_that_refuses_is_one_line_that_says_what_to_do(hub, published, monkeypatch):
    monkeypatch.setattr(
        "tests.hub_double.Handler.do_POST",
        lambda self: (self.body(), self.answer({"error": "no"}, status=403))[0],
    )
    with pytest.raises(CurateError, match=r"me/mix: not pushed .*hf auth login"):
        push_mix(published, "me/mix")


@pytest.mark.slow
def test_a_sample_is_streamed_with_no_download_of_the_whole(tmp_path):
    lines = [
        "".join(
            json.dumps({"text": f"document {n} {k} " + "word " * 12}) + "\n" for n in range(4000)
        )
        for k in range(40)
    ]
    script = (
        "import sys, json; from pathlib import Path; from curate.corpus.hub import spool_dataset\n"
        "place = Path(sys.argv[1])\n"
        "print(json.dumps([str(spool_dataset(sys.argv[2], workspace=place)[0]) for _ in '12']))"
    )
    with serving() as (hub, address), tempfile.TemporaryDirectory() as cache:
        hub.commit("a/b", {f"data/train-{k:02}.jsonl": t.encode() for k, t in enumerate(lines)})
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), "hf:a/b#50"],
            env={**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": cache},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        first, second = json.loads(done.stdout)
        assert first == second, "the second call reads what the first has kept"
        assert hub.sent < 0.4 * sum(map(len, lines))  # ten files fill the buffer
    card = json.loads(
        Path(first).with_name(Path(first).name.replace(".jsonl.zst", ".json")).read_text()
    )
    assert card["records"] == 50
