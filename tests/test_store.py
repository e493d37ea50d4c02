"""Publish, fingerprint, lock, failpoint."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from curate.errors import LOCKED, CurateError
from curate.records import Shard
from curate.settings import CorpusSettings
from curate.store.fingerprint import digest_bytes, digest_file, digest_texts, fingerprint
from curate.store.lock import locked
from curate.store.publish import (
    is_current,
    publish_bytes,
    publish_json,
    publish_meta,
    publishing,
    read_json,
    read_meta,
    sweep,
)

SHARD = Shard("a", "a", (), 1, 2, "d")


def test_what_is_published_is_read_back(tmp_path):
    publish_json(tmp_path / "deep" / "x.json", SHARD)
    assert read_json(tmp_path / "deep" / "x.json", Shard) == SHARD


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), publishing(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("event", ["after_tmp", "before_rename"])
def test_kill_before_the_rename_leaves_the_old_file(tmp_path, event):
    path = tmp_path / "x"
    publish_bytes(path, b"old")
    code = (
        "from curate.store.publish import publish_bytes; from pathlib import Path;"
        f"publish_bytes(Path({str(path)!r}), b'new')"
    )
    env = {**os.environ, "CURATE_FAILPOINT": f"publish.{event}:1=kill"}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=False)
    assert done.returncode == -9
    assert path.read_bytes() == b"old"
    assert sweep(tmp_path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("action", ["enospc", "eio", "eacces"])
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch, action):
    from curate.store import failpoint

    path = tmp_path / "x"
    publish_bytes(path, b"old")
    monkeypatch.setattr(failpoint, "_counts", {})
    monkeypatch.setenv("CURATE_FAILPOINT", f"publish.before_rename:1={action}")
    with pytest.raises(CurateError, match="cannot be written"):
        publish_bytes(path, b"new")
    assert path.read_bytes() == b"old"


def test_meta_says_complete_and_finds_damage(tmp_path):
    publish_bytes(tmp_path / "data.bin", b"12345")
    publish_meta(tmp_path, kind="mix", fingerprint="f", files=["data.bin"], body=SHARD)
    assert read_meta(tmp_path, kind="mix", body=Shard) == ("f", SHARD)
    assert is_current(tmp_path, kind="mix", fingerprint="f")
    assert not is_current(tmp_path, kind="mix", fingerprint="g")
    (tmp_path / "data.bin").write_bytes(b"12344")
    assert not is_current(tmp_path, kind="mix", fingerprint="f")
    with pytest.raises(CurateError, match="changed since it was published"):
        read_meta(tmp_path, kind="mix", body=Shard)


def test_meta_of_another_kind_is_refused(tmp_path):
    publish_meta(tmp_path, kind="mix", fingerprint="f", files=[], body=SHARD)
    with pytest.raises(CurateError, match="holds mix"):
        read_meta(tmp_path, kind="index", body=Shard)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"name": 3}'])
def test_a_damaged_json_is_one_line(tmp_path, damage):
    (tmp_path / "x.json").write_bytes(damage)
    with pytest.raises(CurateError, match="not what this version writes"):
        read_json(tmp_path / "x.json", Shard)


def test_fingerprint_sees_every_part_and_not_their_order():
    settings = CorpusSettings(inputs=("a",))
    assert fingerprint(a=1, b=settings) == fingerprint(b=settings, a=1)
    assert fingerprint(a=1, b=settings) != fingerprint(a=1, b=CorpusSettings(inputs=("b",)))


def test_digests_agree(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1000)
    assert digest_file(tmp_path / "x") == digest_bytes(b"abc" * 1000)
    assert digest_texts(["ab", ""]) != digest_texts(["a", "b"])


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path):
    code = (
        "import sys; from pathlib import Path; from curate.store.lock import locked\n"
        f"with locked(Path({str(tmp_path)!r})): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(CurateError) as caught, locked(tmp_path):
            pass
        assert caught.value.exit_code == LOCKED
        assert str(holder.pid) in str(caught.value)
        holder.kill()
    with locked(tmp_path):
        assert (tmp_path / ".lock").is_file()


def test_names_with_dots_and_spaces_are_fine(tmp_path):
    publish_bytes(Path(tmp_path, "a b.c.d"), b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["a b.c.d"]
