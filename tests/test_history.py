"""The account of what ran in a workspace."""

import json
import threading

import pytest

from curate.settings import MixSettings, Settings
from curate.store.history import NAME, noting, read_history


def note(place, *, fingerprint="f", settings=None, error=None):
    with noting(
        place, stage="build-mix", command="curate build-mix", settings=settings or Settings()
    ) as found:
        if error:
            raise error
        found.fingerprint = fingerprint


def test_a_run_reads_back_with_its_settings_its_cost_and_the_versions(tmp_path):
    note(tmp_path, settings=Settings(mix=MixSettings(budget=7, keep=("a=20%",))))
    (run,) = read_history(tmp_path)
    assert run.settings.mix == MixSettings(budget=7, keep=("a=20%",))
    assert run.ended
    assert run.fingerprint == "f"
    assert 0 <= run.seconds < 60
    assert run.peak_bytes > 10_000_000
    assert {"curate", "torch", "numpy", "python", "machine"} <= set(run.versions)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(143)])
def test_a_run_that_broke_off_is_noted_and_its_error_goes_on(tmp_path, error):
    with pytest.raises(type(error)):
        note(tmp_path, error=error)
    (run,) = read_history(tmp_path)
    assert not run.ended
    assert run.fingerprint == ""


def test_no_workspace_is_made_for_it(tmp_path):
    note(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert read_history(tmp_path / "none") == []


def test_a_first_run_that_fails_leaves_nothing(tmp_path):
    """A lock may have made the folder; bad input must not leave a file in it."""
    place = tmp_path / "new"
    with (
        pytest.raises(ValueError),
        noting(place, stage="index", command="curate index", settings=Settings()),
    ):
        place.mkdir()
        raise ValueError
    assert not list(place.iterdir())


def test_a_line_that_a_kill_cut_costs_only_itself(tmp_path):
    note(tmp_path, fingerprint="one")
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes() + path.read_bytes()[:100])
    note(tmp_path, fingerprint="two")
    assert [run.fingerprint for run in read_history(tmp_path)] == ["one", "two"]


def test_a_line_of_another_version_is_passed_over(tmp_path):
    (tmp_path / NAME).write_text(json.dumps({"stage": "dance"}) + "\n\nnull\n")
    note(tmp_path)
    assert len(read_history(tmp_path)) == 1


def test_a_disk_that_refuses_does_not_fail_the_stage(tmp_path):
    (tmp_path / NAME).mkdir()
    note(tmp_path)


def test_lines_of_threads_do_not_run_into_each_other(tmp_path):
    threads = [threading.Thread(target=note, args=(tmp_path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_history(tmp_path)) == 8
