"""The folder of a mix, and what may not be written over: no model, no tokens."""

import errno
from pathlib import Path

import pytest

from curate.errors import USAGE, CurateError
from curate.mixing.publish import clear, list_content, publish_files, staging_folder
from curate.store.protect import refuse_holding, refuse_input


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
    monkeypatch.setattr("curate.mixing.publish._boot", lambda: "this-boot")
    with staging_folder(tmp_path / "mix", mark="m") as found:
        assert names(found) == ["mark"]


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


def test_staged_files_are_moved_by_name_and_temporary_ones_are_not(tmp_path):
    staged = fill(tmp_path / "staged", "b", "data/a", "data/.x.tmp", "c.tmp")
    assert publish_files(staged, tmp_path / "mix") == ["b", "data/a"]
    assert names(tmp_path / "mix") == ["b", "data/a"]
    assert (tmp_path / "mix" / "data" / "a").read_text() == "data/a"
    assert names(staged) == ["c.tmp", "data/.x.tmp"]


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
