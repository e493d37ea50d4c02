"""Publish, fingerprint, lock, failpoint."""

import ast
import errno
import fcntl
import io
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy

import curate
from curate.errors import LOCKED, CurateError
from curate.records import Shard
from curate.settings import CorpusSettings
from curate.store import failpoint as failpoints
from curate.store import lock as locks
from curate.store.arrays import arrays_are_whole, find_arrays, publish_arrays, read_arrays
from curate.store.fingerprint import digest_bytes, digest_file, digest_texts, fingerprint
from curate.store.leftovers import sweep
from curate.store.lock import locked
from curate.store.meta import is_current, kind_of, publish_meta, read_meta
from curate.store.owner import Owner, is_gone, is_mark_gone, this_owner
from curate.store.publish import (
    is_sealed,
    publish_bytes,
    publish_json,
    publish_sealed,
    publishing,
    read_json,
    read_json_if_whole,
)

SHARD = Shard("a", "a", (), 1, 2, "d")


def test_what_is_published_is_read_back(tmp_path):
    publish_json(tmp_path / "deep" / "x.json", SHARD)
    assert read_json(tmp_path / "deep" / "x.json", Shard) == SHARD


def test_a_record_of_nothing_is_read_back_and_is_json(tmp_path):
    path = tmp_path / "x.json"
    publish_json(path, {})
    assert read_json(path, dict) == {}
    assert list(json.loads(path.read_bytes())) == ["blake2b"]
    path.write_bytes(path.read_bytes().replace(b'"\n', b'",\n'))
    with pytest.raises(CurateError, match="changed since it was published"):
        read_json(path, dict)


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
    path = tmp_path / "x"
    publish_bytes(path, b"old")
    monkeypatch.setattr(failpoints, "_counts", {})
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


# --- what is read back, and what is noticed ---


def flips(data):
    """Every file that differs from `data` in one bit."""
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << (bit % 8)
        yield bytes(changed)


def test_no_bit_of_a_published_json_can_change_unnoticed(tmp_path):
    path = tmp_path / "x.json"
    publish_json(path, {"a": 1, "b": [0.5, "ü"]})
    data = path.read_bytes()
    assert list(json.loads(data)) == ["blake2b", "a", "b"]
    assert read_json(path, dict) == {"a": 1, "b": [0.5, "ü"]}
    for changed in flips(data):
        path.write_bytes(changed)
        assert read_json_if_whole(path, dict) is None


def test_no_bit_of_published_arrays_can_change_unnoticed(tmp_path):
    path = tmp_path / "x.safetensors"
    arrays = {"one": np.arange(5, dtype=np.int32), "none": np.zeros((0, 3)), "point": np.array(2.5)}
    publish_arrays(path, arrays, note="a note")
    data = path.read_bytes()
    found, note = read_arrays(path)
    assert note == "a note" and {name: array.shape for name, array in found.items()} == {
        "one": (5,), "none": (0, 3), "point": (),
    }  # fmt: skip
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    for changed in flips(data):
        path.write_bytes(changed)
        assert not arrays_are_whole(path)
    with pytest.raises(CurateError, match="missing or changed"):
        read_arrays(path)
    publish_arrays(path, dict(reversed(arrays.items())), note="a note")
    assert path.read_bytes() == data


def test_a_sealed_file_is_whole_only_with_its_seal(tmp_path):
    path = tmp_path / "x"
    publish_sealed(path, b"12345")
    whole = path.read_bytes()
    assert whole == b"12345" + digest_bytes(b"12345").encode() + b"\n"
    for changed in (*flips(whole), whole[:-1], whole + b"\n", whole[:64], whole[5:], b"12345", b""):
        path.write_bytes(changed)
        assert not is_sealed(path)
    path.write_bytes(whole)
    assert is_sealed(path)
    path.unlink()
    assert not is_sealed(path)


@pytest.mark.parametrize("data", [b"", b"x", b"x" * (1 << 20), b"x" * ((1 << 20) + 1)])
def test_a_sealed_file_of_any_size_is_whole(tmp_path, data):
    publish_sealed(tmp_path / "x", data)
    assert is_sealed(tmp_path / "x")
    assert (tmp_path / "x").read_bytes()[: len(data)] == data


def test_formats_that_end_themselves_do_not_see_the_seal(tmp_path):
    table, stream = pa.table({"a": [1, 2, 3]}), pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    publish_sealed(tmp_path / "x.arrows", stream.getvalue().to_pybytes())
    with pa.memory_map(str(tmp_path / "x.arrows")) as file:
        assert pa.ipc.open_stream(file).read_all() == table
    numbers = io.BytesIO()
    np.save(numbers, np.arange(5))
    publish_sealed(tmp_path / "x.npy", numbers.getvalue())
    assert np.load(tmp_path / "x.npy").tolist() == [0, 1, 2, 3, 4]


def test_one_array_is_read_and_held_against_its_own_digest(tmp_path):
    path = tmp_path / "x.safetensors"
    arrays = {"a": np.arange(6, dtype=np.int16), "b": np.arange(9.0).reshape(3, 3)}
    publish_arrays(path, arrays, note="n")
    found, note = read_arrays(path, ["a"])
    assert list(found) == ["a"] and found["a"].tolist() == [0, 1, 2, 3, 4, 5] and note == "n"
    assert read_arrays(path, []) == ({}, "n")
    assert find_arrays(path, ["c"]) is None
    place = path.read_bytes().index(arrays["a"].tobytes())
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert find_arrays(path, ["a"]) is None and not arrays_are_whole(path)
    assert np.array_equal(read_arrays(path, ["b"])[0]["b"], arrays["b"])


def test_arrays_of_another_file_do_not_pass_for_those_of_this(tmp_path):
    """A digest says which array, of which type and shape; the seal says which digests."""
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    publish_arrays(one, {"a": np.arange(4, dtype=np.int32), "b": np.arange(4, dtype=np.int32)})
    note = safetensors.safe_open(one, framework="np").metadata()
    for arrays in (
        {"a": np.arange(4, dtype=np.int32)},
        {"a": np.arange(4, dtype=np.int32), "c": np.arange(4, dtype=np.int32)},
        {name: np.arange(4, dtype=np.int32) for name in "abc"},
        {name: np.arange(4, dtype=np.int32).reshape(2, 2) for name in "ab"},
        {name: np.arange(4, dtype=np.int32).view(np.float32) for name in "ab"},
    ):
        safetensors.numpy.save_file(arrays, other, metadata=note)
        assert not arrays_are_whole(other)


def test_what_reads_back_changed_is_not_published(tmp_path, monkeypatch):
    publish_bytes(tmp_path / "x", b"old")
    monkeypatch.setattr(os, "pread", lambda *which: b"nex")
    with pytest.raises(CurateError, match=r"x: cannot be written: .*reads back changed"):
        publish_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_each_publish_syncs_the_file_renames_it_and_syncs_the_folder(tmp_path, monkeypatch):
    """Power loss: the order is what keeps a file whole."""
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda number: (done.append(stat.S_ISDIR(os.fstat(number).st_mode)),
                                     fsync(number)),
    )  # fmt: skip
    monkeypatch.setattr(os, "replace", lambda *two: (done.append("rename"), replace(*two))[1])
    publish_json(tmp_path / "x.json", {"a": 1})
    assert done == [False, "rename", True]


@pytest.fixture
def synced(monkeypatch):
    """The places that were synced, in order."""
    found, real = [], os.fsync

    def note(number):
        found.append(Path(f"/proc/self/fd/{number}").readlink())
        real(number)

    monkeypatch.setattr(os, "fsync", note)
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="not Linux")
def test_a_new_folder_is_synced_in_the_one_that_holds_it(tmp_path, synced):
    """Else a power loss takes the folder, and with it the file that was synced inside."""
    publish_bytes(tmp_path / "a" / "b" / "x", b"1")
    assert synced[:2] == [tmp_path, tmp_path / "a"] and synced[-1] == tmp_path / "a" / "b"
    synced.clear()
    publish_bytes(tmp_path / "a" / "b" / "y", b"1")
    assert tmp_path not in synced and tmp_path / "a" not in synced
    with locked(tmp_path / "c" / "d"):
        assert synced[-2:] == [tmp_path, tmp_path / "c"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_syncs_no_folders_is_written_to(tmp_path, monkeypatch, number):
    real = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    publish_bytes(tmp_path / "deep" / "x", b"1")
    with publishing(tmp_path / "y") as temporary:
        temporary.write_bytes(b"2")
    assert (tmp_path / "deep" / "x").read_bytes() == b"1"
    assert (tmp_path / "y").read_bytes() == b"2"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_what_cannot_be_synced_is_not_published(tmp_path, monkeypatch, number):
    def refuse(descriptor):
        if number == errno.EIO or stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(CurateError, match="cannot be written"):
        publish_bytes(tmp_path / "x", b"1")


def test_what_can_be_made_again_is_whole_or_absent_without_a_sync(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", None)
    path = tmp_path / "deep" / "x.json"
    publish_json(path, {"a": 1}, durable=False)
    assert read_json(path, dict[str, int]) == {"a": 1}
    path.write_bytes(path.read_bytes()[:-2])  # what a power loss may leave
    assert read_json_if_whole(path, dict[str, int]) is None
    monkeypatch.setattr(os, "write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        publish_json(tmp_path / "y.json", {}, durable=False)
    assert [each.name for each in tmp_path.iterdir()] == ["deep"]


def test_a_small_file_is_opened_once_and_its_folder_once(tmp_path, monkeypatch):
    opened, real = [], os.open
    publish_bytes(tmp_path / "x", b"old")
    monkeypatch.setattr(os, "open", lambda path, *how: (opened.append(path), real(path, *how))[1])
    monkeypatch.setattr(Path, "open", None)
    monkeypatch.setattr(os, "unlink", None)  # what was renamed is not looked for again
    publish_bytes(tmp_path / "x", b"new" * 1_000_000)
    assert len(opened) == 2 and opened[1] == str(tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "x").read_bytes() == b"new" * 1_000_000


@pytest.mark.parametrize(("mask", "mode"), [(0o027, 0o640), (0, 0o666)])
def test_a_file_is_private_until_it_is_published(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with publishing(tmp_path / "x") as temporary:
            temporary.write_text("secret")
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_folder_says_of_what_kind_it_is(tmp_path):
    for name, data in (("none", None), ("theirs", b'{"kind": "mix"}'), ("odd", b"\x00" * 200)):
        (tmp_path / name).mkdir()
        if data is not None:
            (tmp_path / name / "meta.json").write_bytes(data)
        assert kind_of(tmp_path / name) == ""
    publish_meta(tmp_path, kind="mix", fingerprint="f", files=[], body=SHARD)
    assert kind_of(tmp_path) == "mix" and kind_of(tmp_path / "absent") == ""


def test_a_full_disk_says_what_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(failpoints, "_counts", {})
    monkeypatch.setenv("CURATE_FAILPOINT", "publish.write=enospc")
    with pytest.raises(CurateError, match=r"No space left on device \([\d,]+ bytes are free\)"):
        publish_bytes(tmp_path / "x", b"new")


# --- failpoints ---


def test_a_star_counts_every_event_and_zero_only_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(failpoints, "_counts", {})
    monkeypatch.setenv("CURATE_FAILPOINT", "publish.*:0=kill")
    publish_bytes(tmp_path / "x", b"new")
    failpoints.failpoint("train.step")
    assert failpoints.count_events() == {"publish.*": 9}
    monkeypatch.setenv("CURATE_FAILPOINT", "*:1=eio")
    with pytest.raises(OSError, match=r"failpoint train\.step"):
        failpoints.failpoint("train.step")


# --- owners, leftovers, locks ---


def test_a_process_is_told_from_a_later_one_with_its_number():
    here = this_owner()
    assert is_gone(here) is False and is_mark_gone(here.mark) is False
    reused = Owner(here.host, here.boot, here.pid, here.started + 1)
    assert is_gone(reused) is True and is_mark_gone(reused.mark) is True
    assert is_gone(Owner(here.host, "another boot", here.pid, here.started)) is None
    assert is_gone(Owner("elsewhere", here.boot, here.pid, here.started)) is None
    assert is_mark_gone("00000000-1-1") is None and is_mark_gone("nonsense") is None
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    assert is_gone(Owner(here.host, here.boot, dead.pid, 5)) is True


def test_a_process_that_the_system_hides_is_not_taken_for_dead(monkeypatch):
    """`hidepid` of /proc: of the processes of other users there is nothing to be seen."""
    here = this_owner()
    hidden = Owner(here.host, here.boot, 2**22 + 1, 5)
    assert is_gone(hidden) is True and is_mark_gone(hidden.mark) is True

    def refuse(*given):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    assert is_gone(hidden) is None and is_mark_gone(hidden.mark) is None


def test_leftovers_go_only_when_their_process_is_gone(tmp_path):
    here = this_owner()
    gone = Owner(here.host, here.boot, here.pid, here.started + 1).mark
    other = "00000000-1-1"
    (tmp_path / "deep").mkdir()
    names = {f".x.{mark}.0a1b2c3d.tmp": mark for mark in (here.mark, gone, other)}
    for name in names:
        (tmp_path / "deep" / name).touch()
    assert sweep(tmp_path, held=False) == 1
    assert {names[path.name] for path in (tmp_path / "deep").iterdir()} == {here.mark, other}
    old = tmp_path / "deep" / f".x.{other}.0a1b2c3d.tmp"
    os.utime(old, (0, 0))
    assert sweep(tmp_path, held=False) == 1 and not old.exists()
    assert sweep(tmp_path) == 1


def test_a_lock_says_who_holds_it_and_whose_death_it_survived(tmp_path):
    told = []
    here = this_owner()
    dead = Owner(here.host, here.boot, 2**22 + 1, 1)
    (tmp_path / ".lock").write_bytes(msgspec.json.encode(dead))
    with locked(tmp_path, notify=lambda what, done, total: told.append(what)):
        assert msgspec.json.decode((tmp_path / ".lock").read_bytes(), type=Owner) == here
    assert len(told) == 1 and f"process {dead.pid} on {here.host}" in told[0]
    with locked(tmp_path, notify=lambda what, done, total: told.append(what)):
        pass
    assert len(told) == 1  # the last one let go


@pytest.fixture
def no_flock(monkeypatch):
    """A file system that has no locks of its own."""

    def refuse(*given):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)


def test_a_lock_that_is_being_let_go_is_waited_for(tmp_path):
    """Its holder has wiped its sign: there is nobody to name, and in a moment nobody."""
    held = (tmp_path / ".lock").open("wb")
    fcntl.flock(held, fcntl.LOCK_EX)
    timer = threading.Timer(0.2, held.close)
    timer.start()
    with locked(tmp_path):
        assert held.closed
    timer.join()


def test_a_lock_that_nobody_signs_is_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SIGN_TRIES", 2)
    with (tmp_path / ".lock").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CurateError, match="by another process") as caught, locked(tmp_path):
            pass
    assert caught.value.exit_code == LOCKED


def test_without_flock_a_file_that_exists_is_the_lock(tmp_path, no_flock):
    with locked(tmp_path):
        with pytest.raises(CurateError, match=f"in use by process {os.getpid()}") as caught:
            locked(tmp_path).__enter__()
        assert caught.value.exit_code == LOCKED
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("kind", ["dead", "reused", "boot", "silent host", "nonsense"])
def test_without_flock_a_stale_lock_is_taken_over_and_told(tmp_path, no_flock, kind):
    here, path = this_owner(), tmp_path / ".lock.owner"
    owner = {
        "dead": Owner(here.host, here.boot, 2**22 + 1, 1),
        "reused": Owner(here.host, here.boot, os.getpid(), 1),
        "boot": Owner(here.host, "another boot", 1, 1),
        "silent host": Owner("elsewhere", "x", 1, 1),
    }.get(kind)
    path.write_bytes(msgspec.json.encode(owner) if owner else b"\xff")
    if kind in ("boot", "silent host", "nonsense"):
        with pytest.raises(CurateError, match="in use"):
            locked(tmp_path).__enter__()
        os.utime(path, (0, 0))
    told = []
    with locked(tmp_path, notify=lambda what, done, total: told.append(what)):
        assert msgspec.json.decode(path.read_bytes(), type=Owner) == here
    assert len(told) == (owner is not None)
    assert not path.exists()


def test_without_flock_the_clock_of_the_disk_says_how_long_a_lock_was_silent(
    tmp_path, no_flock, monkeypatch
):
    """That of this machine is an hour ahead: the owner on another one is alive all the same."""
    path = tmp_path / ".lock.owner"
    path.write_bytes(msgspec.json.encode(Owner("elsewhere", "x", 1, 1)))
    now = locks.time.time()
    monkeypatch.setattr(locks.time, "time", lambda: now + 3600)
    with pytest.raises(CurateError, match="in use by process 1 on elsewhere"):
        locked(tmp_path).__enter__()


def test_without_flock_a_lock_that_cannot_be_written_is_one_line_and_goes(
    tmp_path, no_flock, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(locks.msgspec.json, "encode", lambda owner: _refuse_to_write())
        with pytest.raises(CurateError, match="No space left"), locked(tmp_path):
            pass
    assert not (tmp_path / ".lock.owner").exists()
    with locked(tmp_path):
        pass


def _refuse_to_write():
    raise OSError(errno.ENOSPC, "No space left on device")


def test_without_flock_two_that_find_one_stale_lock_do_not_both_have_it(
    tmp_path, no_flock, monkeypatch
):
    path = tmp_path / ".lock.owner"
    dead = Owner("elsewhere", "x", 1, 1)
    path.write_bytes(msgspec.json.encode(dead))
    os.utime(path, (0, 0))
    real, live = locks._take_over, Owner("elsewhere", "x", 2, 1)

    def beaten(which):
        before = real(which)
        path.write_bytes(msgspec.json.encode(live))
        return before

    monkeypatch.setattr(locks, "_take_over", beaten)
    with pytest.raises(CurateError, match="in use") as caught, locked(tmp_path):
        pass
    assert caught.value.exit_code == LOCKED
    assert msgspec.json.decode(path.read_bytes(), type=Owner) == live


def test_without_flock_a_run_that_slept_leaves_the_lock_of_who_took_over(tmp_path, no_flock):
    path, other = tmp_path / ".lock.owner", Owner("elsewhere", "x", 2, 1)
    with locked(tmp_path):
        path.write_bytes(msgspec.json.encode(other))
    assert msgspec.json.decode(path.read_bytes(), type=Owner) == other


def test_without_flock_what_a_killed_takeover_left_is_swept(tmp_path, no_flock, monkeypatch):
    path = tmp_path / ".lock.owner"
    path.write_bytes(b"\xff")
    os.utime(path, (0, 0))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        pass
    monkeypatch.undo()
    assert sweep(tmp_path) == 1


def test_without_flock_the_owner_gives_signs_of_life(tmp_path, no_flock, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    with locked(tmp_path):
        path = tmp_path / ".lock.owner"
        os.utime(path, (0, 0))
        for _ in range(500):
            if path.stat().st_mtime > 0:
                break
            locks.time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(CurateError, match=r"cannot be locked: .*another folder"),
        locked(tmp_path / "file" / "x"),
    ):
        pass


# --- every artefact goes through here ---

WRITERS = {"write_bytes", "write_text", "save_file", "write_table", "ParquetWriter",
           "new_file", "touch", "tofile", "savez", "to_parquet", "dump"}  # fmt: skip
GUARDS = {"publishing", "staged", "BufferOutputStream", "TemporaryDirectory"}
IN_STAGING = {"mixing/formats.py", "mixing/shuffle.py", "mixing/binary.py", "mixing/arrows.py"}
"""Rooms that write into a staging folder, which `publish_files` moves to its place."""


def unguarded_writes(source):
    """Lines of calls that write a file outside a function that publishes."""
    tree = ast.parse(source)
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = {getattr(n.func, "id", getattr(n.func, "attr", "")): n.lineno
                 for n in ast.walk(function) if isinstance(n, ast.Call)}  # fmt: skip
        opened = [n for n in ast.walk(function) if isinstance(n, ast.Call)
                  and getattr(n.func, "attr", getattr(n.func, "id", "")) in ("open", "OSFile")
                  and any(isinstance(a, ast.Constant) and str(a.value)[:1] in tuple("wax")
                          for a in n.args)]  # fmt: skip
        if names.keys() & GUARDS:
            continue
        found += [names[name] for name in names.keys() & WRITERS]
        found += [call.lineno for call in opened]
    return sorted(found)


def test_every_file_is_written_through_the_store():
    package = Path(curate.__file__).parent
    # They write to a file that is published, or taken up again, when it is whole; or one that is
    # there while a run goes on, and is no result: shown (watch), or seen by nodes (on_ray).
    known = {"corpus/hub.py": 1, "corpus/copies.py": 3, "verification/watch.py": 1,
             "engine/on_ray.py": 1}  # fmt: skip
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name.startswith("store/") or name in IN_STAGING:
            continue
        lines = unguarded_writes(path.read_text(encoding="utf-8"))
        assert len(lines) <= known.get(name, 0), f"{name}: lines {lines}"


def test_an_unguarded_write_is_seen():
    assert unguarded_writes("def f(path):\n    path.write_bytes(b'')\n") == [2]
    assert unguarded_writes("def f(path):\n    with path.open('wb') as s:\n        s\n") == [2]
    assert not unguarded_writes("def f(p):\n    with publishing(p) as t:\n        t.write_text('')")
