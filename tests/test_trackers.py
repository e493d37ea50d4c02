"""Runs sent to the real trackers, offline: what arrives is read back with their own readers."""

import dataclasses
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from curate.errors import CurateError
from curate.records import Run
from curate.report.trackers import _series, open_tracker
from curate.settings import RunSettings, Settings
from curate.stages import verifying
from curate.store.publish import publish_bytes

RUN = Run(
    arm="mix",
    seed=2,
    tokens=300,
    loss=4.5,
    bpb=1.25,
    item_nats=(9.0,),
    item_tokens=(2,),
    curve=((100, 6.0), (200, 5.5), (300, 5.0)),
    seconds=1.5,
    started_at="2026-01-01T00:00:00+00:00",
    forecast="abc",
    points=((100, 6.5), (300, 4.75)),
    control_nats=(14.0,),
    control_tokens=(2,),
)
WHOLE = {
    "train/loss": [(100, 6.0), (200, 5.5), (300, 5.0)],
    "eval/loss_of_some_items": [(100, 6.5), (300, 4.75)],
    "eval/loss": [(300, 4.5)],
    "eval/bpb": [(300, 1.25)],
    "control/loss": [(300, 7.0)],
}
PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_trackers import RUN
from curate.report.trackers import open_tracker
from curate.store.publish import publish_bytes
open_tracker({name!r}, folder=Path({folder!r}), publish=publish_bytes)(RUN)
"""


def send(name, folder, **variables):
    """Send the run from a process of its own: trackers keep threads and print."""
    pytest.importorskip("mlflow" if name == "mlflow" else name)
    program = PROGRAM.format(tests=str(Path(__file__).parent), name=name, folder=str(folder))
    environment = {**os.environ, **variables}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=folder, env=environment, check=True
    )


def test_a_run_is_a_series_by_tokens_with_the_whole_split_last():
    assert [tokens for tokens, _ in _series(RUN)] == [100, 200, 300]
    found = {}
    for tokens, values in _series(RUN):
        for key, value in values.items():
            found.setdefault(key, []).append((tokens, value))
    assert found == WHOLE


def test_none_is_sent_by_default_and_what_is_not_installed_is_said(tmp_path, monkeypatch):
    assert open_tracker("", folder=tmp_path, publish=publish_bytes) is None
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(CurateError, match=r"--track wandb: not installed; pip install 'curate\[w"):
        open_tracker("wandb", folder=tmp_path, publish=publish_bytes)


def fake_wandb(monkeypatch, arrived, refused):
    """Stand in for the package: it raises `OSError` for the runs named in `refused`."""

    def init(name, **_):
        if name in refused:
            raise OSError("no route to host")
        return SimpleNamespace(log=lambda *_, **__: None, finish=lambda: arrived.append(name))

    fake = SimpleNamespace(init=init, Settings=lambda **_: None, Error=ValueError)
    monkeypatch.setitem(sys.modules, "wandb", fake)


def test_a_run_is_sent_once_and_what_was_refused_is_sent_later(tmp_path, monkeypatch):
    arrived, refused = [], {"mix-seed2"}
    fake_wandb(monkeypatch, arrived, refused)
    other = dataclasses.replace(RUN, arm="random")
    for run in (RUN, other):
        send = open_tracker(
            "wandb", folder=tmp_path, publish=publish_bytes
        )  # as another command would
        if run is RUN:
            with pytest.raises(CurateError, match="no route to host; mend it"):
                send(run)
        else:
            send(run)
    assert arrived == ["random-seed2"]
    refused.clear()
    for _ in range(2):
        for run in (RUN, other):
            open_tracker("wandb", folder=tmp_path, publish=publish_bytes)(run)
    assert arrived == ["random-seed2", "mix-seed2"]
    again = dataclasses.replace(RUN, started_at="2026-01-02T00:00:00+00:00")
    open_tracker("wandb", folder=tmp_path, publish=publish_bytes)(
        again
    )  # trained anew: another run
    assert arrived[-1] == "mix-seed2" and len(arrived) == 3


def test_a_tracker_that_fails_ends_no_training_and_is_said_once(tmp_path, monkeypatch):
    arrived, refused = [], {"mix-seed2"}
    fake_wandb(monkeypatch, arrived, refused)
    runs = [RUN, dataclasses.replace(RUN, arm="random")]
    found = SimpleNamespace(runs=runs, fingerprint="f")

    def verify_mix(*_, on_run, **__):
        for run in runs:
            on_run(run)
        return found

    monkeypatch.setattr(verifying, "verify_mix", verify_mix)
    for name in ("open_index", "open_ranking", "open_mix", "ranked_target"):
        monkeypatch.setattr(verifying, name, lambda place: None)
    said = []
    settings = Settings(run=RunSettings(track="wandb"))

    def verify():
        return verifying.verify(
            settings=settings, workspace=tmp_path, notify=lambda what, *_: said.append(what)
        )

    with pytest.raises(CurateError, match="sends what is missing"):
        verify()  # both runs were trained, and `random` waits for the mend
    (line,) = said
    assert "no route to host" in line and line.endswith("training goes on")
    refused.clear()
    assert verify() is found
    assert sorted(arrived) == ["mix-seed2", "random-seed2"]


def test_tensorboard_has_every_point(tmp_path):
    send("tensorboard", tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "mix-seed2"))
    events.Reload()
    for key, points in WHOLE.items():
        assert [(event.step, event.value) for event in events.Scalars(key)] == points


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_tracker_that_refuses_is_one_line(name, tmp_path, monkeypatch):
    pytest.importorskip(name)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "no-such-store://here")
    with pytest.raises(
        CurateError, match=f"--track {name}: .*the same command sends what is missing"
    ):
        open_tracker(name, folder=tmp_path / "file", publish=publish_bytes)(RUN)


def test_mlflow_has_every_point(tmp_path):
    uri = (tmp_path / "mlruns").as_uri()
    send("mlflow", tmp_path, MLFLOW_TRACKING_URI=uri, MLFLOW_ALLOW_FILE_STORE="true")
    (run,) = [path.parent for path in (tmp_path / "mlruns").glob("*/*/metrics")]
    for key, points in WHOLE.items():
        lines = (run / "metrics" / key).read_text().split("\n")
        assert [(int(line.split()[2]), float(line.split()[1])) for line in lines if line] == points
    assert (run / "params" / "arm").read_text() == "mix"


def test_wandb_writes_its_offline_file(tmp_path):
    send("wandb", tmp_path, WANDB_MODE="offline")
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = written.read_bytes()
    for key in (b"train/loss", b"eval/bpb", b"control/loss", b"mix-seed2"):
        assert key in content


def test_trackio_keeps_it_in_its_own_folder(tmp_path):
    send("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "kept"))
    (database,) = (tmp_path / "kept").rglob("*.db")
    with sqlite3.connect(database) as tables:
        rows = list(tables.execute("select step, metrics from metrics order by step"))
    assert [step for step, _ in rows] == [100, 200, 300]
    assert "eval/bpb" in str(rows[-1])
