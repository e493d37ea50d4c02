"""Publishing to the last branch, the folder of a mix, and what may not be written over."""

import errno
import json
import os
import stat
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import USAGE, CannotWriteError, CurateError
from curate.mixing.arrows import staged
from curate.mixing.publish import (
    clear,
    clear_staging,
    list_content,
    publish_files,
    staging_folder,
)
from curate.records import Shard
from curate.store import protect
from curate.store import publish as store
from curate.store.fingerprint import SCHEMA, digest_bytes
from curate.store.leftovers import FORGOTTEN_SECONDS, sweep
from curate.store.meta import is_current, publish_meta, read_meta
from curate.store.owner import Owner, boot_id, this_owner
from curate.store.protect import (
    refuse_holding,
    refuse_input,
    refuse_new_input,
    refuse_own_artefacts,
)

SHARD = Shard("a", "a", (), 1, 2, "d")


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_earlier_mix_goes_its_meta_first_and_its_lock_stays(tmp_path, monkeypatch):
    out = fill(tmp_path / "mix", "meta.json", "data/part-00000.parquet", ".lock", ".x.1.tmp")
    gone = []
    real = Path.unlink

    def unlink(path, missing_ok=False):
        gone.append(path.name)
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    clear(out)
    assert names(out) == [".lock"]
    assert gone[0] == "meta.json"
    clear(out)  # there is no meta.json now
    clear(tmp_path / "absent")


def test_content_is_everything_but_the_lock(tmp_path):
    out = fill(tmp_path / "mix", "b", "a/c", ".lock", "a/.lock")
    assert [path.relative_to(out).as_posix() for path in list_content(out)] == ["a", "a/c", "b"]
    assert list_content(tmp_path / "absent") == []
    assert list_content(out / "b") == []


def test_staging_lies_beside_and_goes_when_all_is_done(tmp_path):
    with staging_folder(tmp_path / "deep" / "mix", mark="m") as staging:
        assert staging == tmp_path / "deep" / ".mix.staging"
        assert (staging / "mark").read_text().split()[0] == "m"
        fill(staging, "mix/a")
    assert names(tmp_path) == []
    assert not staging.exists()


def test_what_a_killed_run_of_the_same_mark_left_is_still_there(tmp_path):
    staging = tmp_path / ".mix.staging"

    def killed(mark):
        with pytest.raises(KeyboardInterrupt), staging_folder(tmp_path / "mix", mark=mark):
            fill(staging, "mix/a")
            raise KeyboardInterrupt

    killed("m")
    assert names(staging) == ["mark", "mix/a"]
    with staging_folder(tmp_path / "mix", mark="m") as found:
        assert names(found) == ["mark", "mix/a"]
    killed("m")
    with staging_folder(tmp_path / "mix", mark="other") as found:
        assert names(found) == ["mark"]


def test_after_a_start_of_the_machine_nothing_staged_is_trusted(tmp_path, monkeypatch):
    fill(tmp_path / ".mix.staging", "mix/a")
    (tmp_path / ".mix.staging" / "mark").write_text("m another-boot")
    monkeypatch.setattr("curate.mixing.publish.boot_id", lambda: "this-boot")
    with staging_folder(tmp_path / "mix", mark="m") as found:
        assert names(found) == ["mark"]


@pytest.mark.skipif(not Path("/proc/sys/kernel").is_dir(), reason="not Linux")
def test_a_start_of_the_machine_is_told_by_its_number():
    assert len(boot_id()) == 36 and boot_id() == boot_id()


@pytest.mark.parametrize("kind", ["refused", "translated"])
def test_a_file_system_that_refuses_gets_its_space_back(tmp_path, kind):
    with pytest.raises(CurateError) as caught, staging_folder(tmp_path / "mix", mark="m") as where:
        fill(where, "mix/a")
        error = OSError(errno.ENOSPC, "No space left on device")
        if kind == "refused":
            raise error
        raise CurateError("x cannot be written") from error
    expected = "cannot be written: No space left" if kind == "refused" else "x cannot be written"
    assert expected in str(caught.value)
    assert not (tmp_path / ".mix.staging").exists()


def test_a_mistake_of_the_user_keeps_what_is_staged(tmp_path):
    with pytest.raises(CurateError), staging_folder(tmp_path / "mix", mark="m") as where:
        fill(where, "mix/a")
        raise CurateError("no such thing")
    assert names(where) == ["mark", "mix/a"]


def test_an_empty_folder_is_no_stranger_and_a_filled_one_is(tmp_path):
    (tmp_path / ".mix.staging").mkdir()
    with staging_folder(tmp_path / "mix", mark="m"):
        pass
    fill(tmp_path / ".mix.staging", "mine")
    with (
        pytest.raises(CurateError, match="in the way"),
        staging_folder(tmp_path / "mix", mark="m"),
    ):
        pass
    assert names(tmp_path / ".mix.staging") == ["mine"]


def test_what_is_half_staged_goes_on_failure(tmp_path):
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "deep" / "a.text") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    with pytest.raises(FileNotFoundError), staged(tmp_path / "b.text"):
        pass  # never written: nothing to rename, nothing to remove
    with staged(tmp_path / "c.text") as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == ["c.text"]


def test_staged_files_are_moved_by_name_and_temporary_ones_are_not(tmp_path):
    folder = fill(tmp_path / "staged", "b", "data/a", "data/.x.tmp", "c.tmp")
    assert publish_files(folder, tmp_path / "mix") == ["b", "data/a"]
    assert names(tmp_path / "mix") == ["b", "data/a"]
    assert (tmp_path / "mix" / "data" / "a").read_text() == "data/a"
    assert names(folder) == ["c.tmp", "data/.x.tmp"]


def test_a_mix_that_is_a_mount_of_its_own_is_copied_to(tmp_path, monkeypatch):
    """A volume of a container: nothing can be renamed into it."""
    folder = fill(tmp_path / "staged", "data/a")
    real = Path.replace

    def other_disk(path, target):
        if path.is_relative_to(folder):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", other_disk)
    assert publish_files(folder, tmp_path / "mix") == ["data/a"]
    assert (tmp_path / "mix" / "data" / "a").read_text() == "data/a"
    assert names(tmp_path / "mix") == ["data/a"]


def test_an_output_is_held_against_every_input(tmp_path):
    fill(tmp_path, "a", "b", "folder/c", "folder/deep/d")
    inputs = [tmp_path / "a", tmp_path / "folder", tmp_path / "absent"]
    for bad in ("a", "absent", "folder/c", "folder/deep/d"):
        with pytest.raises(CurateError, match="is an input") as caught:
            refuse_input(tmp_path / bad, inputs)
        assert caught.value.exit_code == USAGE
    for good in ("b", "new", "folder/new", "folder.html"):
        refuse_input(tmp_path / good, inputs)
    refuse_input(tmp_path / "a", [])


def test_a_folder_is_held_against_every_input_in_it(tmp_path):
    fill(tmp_path, "in/a", "in/deep/b", "out/x")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for bad, path in (("in", "in/a"), ("in", "in/deep/b"), ("link", "in/a"), ("in", "in")):
        with pytest.raises(CurateError, match="is in it") as caught:
            refuse_holding(tmp_path / bad, [tmp_path / "out" / "x", tmp_path / path])
        assert caught.value.exit_code == USAGE
    refuse_holding(tmp_path / "out", [tmp_path / "in" / "a"])
    refuse_holding(tmp_path / "in" / "deep", [tmp_path / "in" / "a"])
    refuse_holding(tmp_path / "new", [tmp_path / "in" / "a"])


def test_a_folder_is_an_input_s_by_its_number_too(tmp_path, monkeypatch):
    fill(tmp_path, "in/a", "out/x")
    monkeypatch.setattr(protect, "_is_that", lambda path, _: path.name == "in")  # a second mount
    with pytest.raises(CurateError, match="is in it"):
        refuse_holding(tmp_path / "out", [tmp_path / "in" / "a"])


def test_documents_are_written_into_no_folder_that_is_read(tmp_path):
    fill(tmp_path, "in/a", "in/deep/b", "in/.curate/x", "file", "out/x")
    inputs = [str(tmp_path / name) for name in ("file", "absent", "in")]
    for bad in ("in", "in/deep", "in/new/er"):
        with pytest.raises(CurateError, match="is in the input") as caught:
            refuse_new_input(tmp_path / bad, inputs, tmp_path / "in" / ".curate")
        assert caught.value.exit_code == USAGE
    for good in ("out", "new", "absent", "absent/x", "in/.curate/mixes", "."):
        refuse_new_input(tmp_path / good, inputs, tmp_path / "in" / ".curate")


@pytest.mark.parametrize(
    "name",
    [
        *(f"{folder}/a" for folder in ("index", "targets", "ranking", "facts", "verify", "groups")),
        "configured.json", "target.json", "mix.json", "report.html",
    ],
)  # fmt: skip
def test_an_input_where_the_stages_write_is_refused(tmp_path, name):
    fill(tmp_path, "sources/a", "a", name)
    with pytest.raises(CurateError) as caught:
        refuse_own_artefacts(tmp_path, [tmp_path / "a", tmp_path / name])
    assert caught.value.exit_code == USAGE
    refuse_own_artefacts(tmp_path, [tmp_path / "a", tmp_path / "sources" / "a"])


# --- the store: every event, every refusal, every way in which a file is not what it should be ---


def test_a_publish_passes_these_events_in_this_order(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(store, "failpoint", events.append)
    store.publish_bytes(tmp_path / "x", b"new")
    steps = ["open", "write", "after_tmp", "fsync", "check", "before_rename", "after_rename"]
    assert events == [f"publish.{step}" for step in (*steps, "fsync", "done")]
    events.clear()
    with store.publishing(tmp_path / "x") as temporary:
        temporary.write_bytes(b"newer")
        events.append("written")
    assert events == ["publish.open", "written", *[f"publish.{step}" for step in steps[2:]],
                      "publish.fsync", "publish.done"]  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="not Linux")
def test_nothing_published_and_nothing_refused_leaves_a_file_open(tmp_path, monkeypatch):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for number in range(9):
        store.publish_bytes(tmp_path / f"x{number}", b"x")
        with store.publishing(tmp_path / f"y{number}"):
            pass
    monkeypatch.setattr(store.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no")))
    for number in range(9):
        with pytest.raises(CannotWriteError):
            store.publish_bytes(tmp_path / f"x{number}", b"y")
        with pytest.raises(CannotWriteError), store.publishing(tmp_path / f"y{number}"):
            pass
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"),
         r"No space left on device \([\d,]+ bytes are free\); make room and run the same"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"),
         r"Disk quota exceeded \([\d,]+ bytes are free\); make room and"),
        (OSError(errno.EACCES, "Permission denied"), r"Permission denied; mend it and run"),
        (OSError("odd"), r"odd; mend it and run the same command again$"),
    ],
)  # fmt: skip
def test_a_refusal_says_why_and_what_then(tmp_path, error, said):
    found = store.refused(tmp_path / "x", error)
    assert type(found) is CannotWriteError
    with pytest.raises(CurateError, match=rf"x: cannot be written: {said}"):
        raise found
    gone = store.refused(tmp_path / "no" / "x", OSError(errno.ENOSPC, "full"))
    assert "full; make room" in str(gone)


def test_what_cannot_be_created_is_refused_in_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CannotWriteError, match="cannot be written: Not a directory; mend it"):
        store.publish_bytes(tmp_path / "file" / "x", b"")
    assert names(tmp_path) == ["file"]
    store.publish_bytes(tmp_path / "deep" / "deeper" / "x", b"")
    (tmp_path / "deep" / "deeper" / "x").unlink()
    with store.publishing(tmp_path / "new") as temporary:
        assert temporary.name.startswith(".new.") and temporary.name.endswith(".tmp")
        assert this_owner().mark in temporary.name and temporary.parent == tmp_path
    assert (tmp_path / "new").read_bytes() == b""


@pytest.mark.parametrize("kind", ["shorter", "other"])
def test_what_is_not_on_the_disk_as_it_was_written_is_not_published(tmp_path, monkeypatch, kind):
    """A disk that lies: the bytes change between the write and the rename."""
    real = os.fsync

    def lose(descriptor):
        real(descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return
        if kind == "shorter":
            os.ftruncate(descriptor, 4)
        else:
            os.pwrite(descriptor, b"x", (1 << 20) + 5)

    monkeypatch.setattr(os, "fsync", lose)
    with pytest.raises(CannotWriteError, match="reads back changed"):
        store.publish_bytes(tmp_path / "x", bytes((1 << 20) + 6))
    assert names(tmp_path) == []


def test_a_disk_that_takes_a_part_at_a_time_gets_the_rest(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:1000]))
    data = os.urandom(4_321)
    store.publish_bytes(tmp_path / "x", data)
    assert (tmp_path / "x").read_bytes() == data


def test_a_record_that_is_not_there_or_of_another_shape_is_named(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(CurateError, match=r"x\.json: not there; run the command that makes it"):
        store.read_json(path, Shard)
    assert store.read_json_if_whole(path, Shard) is None
    store.publish_json(path, {"name": 3})
    with pytest.raises(CurateError, match=r"not what this version writes \(.*; delete it and run"):
        store.read_json(path, Shard)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"3", b"4"))
    with pytest.raises(CurateError, match="changed since it was published; delete it and run"):
        store.read_json(path, dict)
    path.write_bytes(b" " + whole)
    with pytest.raises(CurateError, match="not what this version writes; delete it"):
        store.read_json(path, dict)


def test_json_is_written_sorted_and_indented(tmp_path):
    store.publish_json(tmp_path / "x.json", {"b": 1, "a": [2]})
    seal, *lines = (tmp_path / "x.json").read_text().split("\n")[1:]
    digest = digest_bytes("\n".join(["{", *lines]).encode())
    assert lines == [' "a": [', "  2", " ],", ' "b": 1', "}", ""]
    assert seal == f' "blake2b": "{digest}",'


def test_meta_lists_its_files_with_size_and_digest(tmp_path):
    for name in ("b", "a"):
        store.publish_bytes(tmp_path / name, name.encode() * 3)
    publish_meta(tmp_path, kind="mix", fingerprint="f", files=["b", "a"], body=SHARD)
    found = json.loads((tmp_path / "meta.json").read_bytes())
    assert list(found) == ["blake2b", "body", "files", "fingerprint", "kind", "schema"]
    assert (found["kind"], found["schema"], found["fingerprint"]) == ("mix", SCHEMA, "f")
    assert found["files"] == {
        name: {"bytes": 3, "blake2b": digest_bytes(name.encode() * 3)} for name in "ab"
    }


def test_meta_is_read_only_as_what_it_is(tmp_path):
    def publish(**changes):
        wanted = {"kind": "mix", "schema": SCHEMA, "fingerprint": "f", "files": {}, "body": SHARD}
        store.publish_json(tmp_path / "meta.json", {**wanted, **changes})

    def read(**words):
        return read_meta(tmp_path, **{"kind": "mix", "body": Shard, **words})

    assert not is_current(tmp_path, kind="mix", fingerprint="f")
    publish()
    assert read() == ("f", SHARD)
    assert not is_current(tmp_path, kind="index", fingerprint="f")
    publish(schema=SCHEMA + 1)
    with pytest.raises(CurateError, match=f"holds mix of schema {SCHEMA + 1}, this version reads "
                                          f"mix of schema {SCHEMA}; run"):  # fmt: skip
        read()
    store.publish_json(tmp_path / "meta.json", {})
    with pytest.raises(CurateError, match="holds None of schema None"):
        read()
    publish(body={"name": 3})
    with pytest.raises(CurateError, match=r"meta\.json: .*; run the command again"):
        read()
    publish(files={"x": {"bytes": 1, "blake2b": digest_bytes(b"x")}})
    with pytest.raises(CurateError, match="x: missing or changed since it was published; run"):
        read()
    assert read(check=False) == ("f", SHARD)
    assert not is_current(tmp_path, kind="mix", fingerprint="f")
    (tmp_path / "x").write_bytes(b"x")
    assert read() == ("f", SHARD) and is_current(tmp_path, kind="mix", fingerprint="f")


def test_a_record_that_is_whole_is_read_and_no_other(tmp_path):
    path = tmp_path / "x.json"
    assert store.read_json_if_whole(path, Shard) is None
    store.publish_json(path, SHARD)
    assert store.read_json_if_whole(path, Shard) == SHARD
    assert store.read_json_if_whole(path, Owner) is None
    path.write_bytes(path.read_bytes().replace(b'"d"', b'"e"'))
    assert store.read_json_if_whole(path, Shard) is None


def test_a_seal_without_its_bytes_and_bytes_without_their_seal_are_not_whole(tmp_path):
    path = tmp_path / "x"
    assert not store.is_sealed(path)
    store.publish_sealed(path, b"1")
    assert names(tmp_path) == ["x"] and store.is_sealed(path)
    assert path.read_text() == "1" + digest_bytes(b"1") + "\n"
    for part in (path.read_bytes()[:1], path.read_bytes()[1:], b""):
        path.write_bytes(part)
        assert not store.is_sealed(path)


def test_a_sweep_takes_temporary_files_and_nothing_else(tmp_path):
    kept = ("x", ".x", "x.tmp", "deep/.y.json")
    fill(tmp_path, *kept, ".x.tmp", "deep/.y.json.tmp")
    assert sweep(tmp_path, held=False) == 0  # no name of ours: whose, nobody knows
    assert sweep(tmp_path) == 2
    assert names(tmp_path) == sorted(kept)
    assert sweep(tmp_path / "absent") == 0


def test_what_another_machine_left_is_taken_for_left_behind_after_an_hour(tmp_path):
    (old,) = fill(tmp_path, ".x.00000000-1-1.0a1b2c3d.tmp").iterdir()
    now = time.time()
    os.utime(old, (now, now - FORGOTTEN_SECONDS + 60))
    assert sweep(tmp_path, held=False) == 0
    os.utime(old, (now, now - FORGOTTEN_SECONDS - 60))
    assert sweep(tmp_path, held=False) == 1
    assert FORGOTTEN_SECONDS == 3600
    here = this_owner()
    gone = Owner(here.host, here.boot, here.pid, here.started + 1)
    mine, dead = (tmp_path / f".x.{owner.mark}.0a1b2c3d.tmp" for owner in (here, gone))
    mine.touch()
    dead.touch()
    os.utime(mine, (0, 0))
    assert sweep(tmp_path, held=False) == 1 and mine.exists()


# --- a mix: what lies beside it ---


def test_what_lies_beside_a_whole_mix_goes_only_if_it_is_ours(tmp_path):
    out, staging = tmp_path / "mix", tmp_path / ".mix.staging"
    clear_staging(out)
    fill(staging, "mine")
    clear_staging(out)
    assert names(staging) == ["mine"]
    fill(staging, "mark", "deep/x")
    real = fill(tmp_path / "real", "mark")
    clear_staging(out)
    assert not staging.exists()
    staging.symlink_to(real)
    clear_staging(out)
    assert names(real) == ["mark"]
    with pytest.raises(CurateError, match="in the way"), staging_folder(out, mark="m"):
        pass
    assert names(real) == ["mark"]
    staging.unlink()
    staging.write_text("a file")
    with pytest.raises(CurateError, match="in the way"), staging_folder(out, mark="m"):
        pass
    assert staging.read_text() == "a file"


def test_a_mark_that_is_half_written_is_ours(tmp_path):
    fill(tmp_path / ".mix.staging", ".mark.0-1-2.abc.tmp")
    with staging_folder(tmp_path / "mix", mark="m") as found:
        assert names(found) == ["mark"]
    fill(tmp_path / ".mix.staging", ".mark.0-1-2.abc.tmp", "mine")
    with pytest.raises(CurateError, match="in the way"), staging_folder(tmp_path / "mix", mark="m"):
        pass


def test_a_staging_folder_loses_its_mark_last(tmp_path, monkeypatch):
    """Killed in the middle of the removal, it is still known for one of ours."""
    with pytest.raises(KeyboardInterrupt), staging_folder(tmp_path / "mix", mark="m") as staging:
        fill(staging, "a", "deep/b")
        (staging / "link").symlink_to(tmp_path)
        raise KeyboardInterrupt
    left = []
    real = store.shutil.rmtree

    def rmtree(path, ignore_errors=False):
        left.append(sorted(each.name for each in path.iterdir()))
        real(path, ignore_errors=ignore_errors)

    monkeypatch.setattr("curate.mixing.publish.shutil.rmtree", rmtree)
    with staging_folder(tmp_path / "mix", mark="other"):
        pass
    assert left[0] == ["b"] and left[1] == ["mark"]
    assert tmp_path.is_dir()


@pytest.mark.parametrize("damage", [False, True])
def test_parquet_is_read_back_by_its_checksums_before_it_is_published(tmp_path, damage):
    (tmp_path / "staged").mkdir()
    path = tmp_path / "staged" / "a.parquet"
    table = pa.table({"text": ["some text that is long enough"] * 9})
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    if not damage:
        assert publish_files(tmp_path / "staged", tmp_path / "mix") == ["a.parquet"]
        assert pq.read_table(tmp_path / "mix" / "a.parquet") == table
        return
    data = path.read_bytes()
    path.write_bytes(data.replace(b"long enough", b"lung enough", 6))  # past the page's header
    with pytest.raises(CannotWriteError, match="reads back changed"):
        publish_files(tmp_path / "staged", tmp_path / "mix")
    assert names(tmp_path / "mix") == []
