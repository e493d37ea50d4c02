"""Work items on machines that share no folder: each is done while the driver's is out of sight."""

import dataclasses
import json
import pickle
import shutil
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from curate.cli import main
from curate.config import read_settings
from curate.corpus import afar
from curate.errors import CurateError
from curate.records import Run
from curate.stages.mirror import catch_up, mirrored, open_mirror, publish
from curate.task2vec.embed import build_index
from curate.task2vec.reading import index_is_current
from curate.verification import schedule, training
from curate.verification.experiment import run_experiment
from tests.s3_double import keys_of
from tests.test_verify import SETTINGS, arm_documents, make_experiment, outcome

pytest.importorskip("moto")


def raise_it(error):
    raise error


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def out_of_sight(folder, sizes):
    """Return a stand-in of `run_items`: its workers see nothing of a folder, and say how much."""

    def run_items(function, items, *, anywhere, **_):
        assert anywhere
        for item in list(items):  # all read, before the copy is hidden
            handed = pickle.dumps(item)
            hidden = folder.rename(f"{folder}-hidden")
            try:
                result = pickle.dumps(function(pickle.loads(handed)))
            finally:
                hidden.rename(folder)
            sizes.append((len(handed), len(result)))
            yield pickle.loads(result)

    return run_items


def test_workers_without_the_folder_publish_to_the_store(server, bucket, job, monkeypatch):
    from curate.task2vec import making

    address, sizes, seen = f"s3://{bucket}/afar", [], set()

    def elsewhere(function, items, **how):
        for result in out_of_sight(Path(".curate"), sizes)(function, items, **how):
            seen.update(name.partition("/index/")[2] for name in keys_of(server, bucket))
            yield result

    done = CliRunner().invoke(main, ["index", "--workspace", "near"])
    assert done.exit_code == 0, done.output
    serial = json.loads(Path("near/index/meta.json").read_text())
    settings = read_settings(Path("curate.toml"))
    monkeypatch.setattr(making, "run_items", elsewhere)
    how = {"device": "cpu", "workers": 2, "store": address}
    with pytest.raises(KeyboardInterrupt), mirrored(address) as place:
        monkeypatch.setattr(making, "_take", lambda *_: raise_it(KeyboardInterrupt()))
        build_index(settings.corpus, settings.embed, workspace=place, **how)
    monkeypatch.undo()
    monkeypatch.chdir(job)
    monkeypatch.setattr(making, "run_items", elsewhere)
    shutil.rmtree(".curate")  # the driver's machine is gone with its copy
    assert len(sizes) == 1
    monkeypatch.setattr(afar, "FORGOTTEN_S", 0.0)  # a day later
    with mirrored(address) as place:
        found = build_index(
            settings.corpus, settings.embed, workspace=place, device="cpu", workers=2,
            store=address,
        )  # fmt: skip
        assert len([*place.glob("index/shards/*.safetensors")]) == 1  # of the run before
        assert not [*place.glob("index/items/*")]
        assert json.loads((place / "index/meta.json").read_text()) == serial
        catch_up(place)
        assert index_is_current(settings.corpus, settings.embed, place)
    assert len(sizes) == len(found.shards) > 1 and max(max(each) for each in sizes) < 1024
    assert "meta.json" not in seen and any(name.startswith("items/") for name in seen)
    there = {name.removeprefix("afar/"): data for name, data in keys_of(server, bucket).items()}
    local = {
        path.relative_to("near").as_posix(): path.read_bytes()
        for path in Path("near/index").rglob("*") if path.is_file() and path.name != ".lock"
    }  # fmt: skip
    assert there == local


def test_no_name_on_a_store_leads_out_of_the_folder(server, bucket, tmp_path):
    folder = tmp_path / "a" / "b" / "c"
    names = ("runs/x.state", "../../out.state", f"/{tmp_path}/far.state", "runs/../../near.state")
    for name in names:
        server.put_object(Bucket=bucket, Key=f"ws/verify/{name}", Body=b"{}")
    afar.follow(f"s3://{bucket}/ws/verify", folder, ".state", {})
    found = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.state")]
    assert found == [Path("a/b/c/runs/x.state")]


def test_what_another_kind_of_machine_put_there_is_replaced_whole(server, bucket, tmp_path):
    index = f"s3://{bucket}/ws/index"
    for name in ("items/k.safetensors", "shards/k.npy"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(name.encode())
    for turn in ("one", "one", "other"):
        afar.hand_over(index, tmp_path, "items/k.safetensors", "shards/k.npy")
        with afar.scratch(index, ["items/k.safetensors"]) as folder:
            assert (folder / "items/k.safetensors").read_bytes() == b"items/k.safetensors"
            (folder / "shards").mkdir()
            (folder / "shards/k.json").write_text(turn)
            (folder / "shards/k.safetensors").write_text(turn)
    afar.drop(index, "items/k.safetensors")
    assert keys_of(server, bucket) == {
        "ws/index/shards/k.npy": b"shards/k.npy",
        "ws/index/shards/k.json": b"other",
        "ws/index/shards/k.safetensors": b"other",
    }
    gone = pytest.raises(CurateError, match=r"items/k.safetensors: not there any more")
    with gone, afar.scratch(index, ["items/k.safetensors"]):
        pass


def test_of_two_drivers_on_one_store_neither_takes_what_waits_for_the_other(
    server, bucket, job, monkeypatch
):
    """The second makes the whole index while the first has handed over and nothing is done."""
    from curate.task2vec import making

    settings, turns = read_settings(Path("curate.toml")), []

    def index(copy):
        with mirrored(f"s3://{bucket}/two", here=job / copy) as place:
            turns.append(copy)
            how = {"device": "cpu", "workers": 2, "store": f"s3://{bucket}/two"}
            found = build_index(settings.corpus, settings.embed, workspace=place, **how)
            catch_up(place)
        return found.fingerprint

    def after_the_other(function, items, **_):
        handed = list(items)
        other = index("b") if turns == ["a"] else ""
        yield from map(function, handed)
        if other:
            turns.append(other)

    monkeypatch.setattr(making, "run_items", after_the_other)
    assert index("a") == turns[-1] and turns[:2] == ["a", "b"]
    found = keys_of(server, bucket)
    assert "two/index/meta.json" in found and not [name for name in found if "/items/" in name]


def test_what_changes_while_an_item_is_worked_on_is_put_and_goes_with_it(
    server, bucket, tmp_path, monkeypatch
):
    monkeypatch.setattr(afar, "SEND_S", 0.02)
    place, live = f"s3://{bucket}/ws/verify", ["runs/r.state", "runs/r.checkpoint"]
    server.put_object(Bucket=bucket, Key="ws/verify/runs/r.checkpoint", Body=b"step 1")
    seen = {}

    def followed(text):
        afar.follow(place, tmp_path, ".state", seen)
        path = tmp_path / "runs/r.state"
        return path.is_file() and path.read_text() == text

    with afar.scratch(place, [], kept=["runs/r.json"], live=live) as folder:
        assert (folder / "runs/r.checkpoint").read_bytes() == b"step 1"
        for text in ("a tenth", "a half"):
            (folder / "runs/r.state").write_text(text)
            wait_until(lambda: followed(text))  # noqa: B023
        assert "ws/verify/runs/r.json" not in keys_of(server, bucket)
        (folder / "runs/r.json").write_text("done")
        for name in live:
            (folder / name).unlink()
    assert keys_of(server, bucket) == {"ws/verify/runs/r.json": b"done"}
    with pytest.raises(KeyError), afar.scratch(place, [], kept=["runs/r.json"]) as folder:
        (folder / "runs/r.json").write_text("half")
        raise KeyError
    assert keys_of(server, bucket) == {"ws/verify/runs/r.json": b"done"}


# --- training runs ---


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial") / "verify"
    return folder, run_experiment(make_experiment(folder), arm_documents, SETTINGS, workers=1)


def test_runs_are_trained_where_no_folder_is_shared(server, bucket, serial, tmp_path, monkeypatch):
    """As a serial run: the same numbers, the same files, what is forecast there before."""
    address, sizes, there = f"s3://{bucket}/ws", [], []

    def elsewhere(function, items, **how):
        stacks = list(items)
        done = out_of_sight(tmp_path / "ws", sizes)(function, stacks, **how)
        there.extend((stack.items[0], keys_of(server, bucket)) for stack in stacks)
        yield from done

    monkeypatch.setattr(schedule, "run_items", elsewhere)
    far = dataclasses.replace(make_experiment(tmp_path / "ws/verify"), store=f"{address}/verify")
    found = run_experiment(far, arm_documents, SETTINGS, workers=1)
    monkeypatch.undo()
    near = serial[0]
    assert outcome(found) == outcome(serial[1])
    assert len(sizes) == 8 and max(result for _, result in sizes) < 1024
    for item, keys in there:
        said = [data for name, data in keys.items() if name.startswith("ws/verify/forecast")]
        assert sum(item.forecast.encode() in data for data in said) == 2 * bool(item.forecast)
        assert f"ws/verify/runs/{item.path.name}" not in keys
    publish(open_mirror(address, tmp_path / "ws"))
    assert names_and_runs(keys_of(server, bucket)) == names_and_runs(
        {f"ws/verify/{path.relative_to(near)}": path.read_bytes()
         for path in near.rglob("*") if path.is_file() and not path.name.startswith(".")}
    )  # fmt: skip


def names_and_runs(files):
    """Return the names of files, and all of the runs that does not say when."""
    runs = {
        name: dataclasses.replace(
            msgspec.json.decode(data, type=Run), seconds=0, started_at="", forecast=""
        )
        for name, data in files.items()
        if "/runs/" in name
    }
    # a forecast is named by the losses it was made from, which know no other difference
    return sorted(files), runs


def test_a_run_whose_worker_and_driver_died_goes_on_from_the_store(
    server, bucket, serial, tmp_path, monkeypatch
):
    monkeypatch.setattr(afar, "SEND_S", 0.02)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    real, place, resumed = training.train_models, f"s3://{bucket}/ws/verify", []

    def dies(*_):
        began = [
            name for name in keys_of(server, bucket) if name.endswith(".checkpoint.safetensors")
        ]
        if began:
            raise KeyboardInterrupt
        time.sleep(0.1)

    def train_models(*given, resume, **how):
        resumed.extend(resume or [])
        return real(*given, resume=resume, **how)

    monkeypatch.setattr(training, "train_models", train_models)
    monkeypatch.setattr(training, "failpoint", dies)
    monkeypatch.setattr(schedule, "run_items", out_of_sight(tmp_path / "ws", []))
    first = dataclasses.replace(make_experiment(tmp_path / "ws/verify"), store=place)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(first, arm_documents, SETTINGS)
    monkeypatch.setattr(training, "failpoint", lambda *_: None)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 30.0)
    shutil.rmtree(tmp_path / "ws")  # the driver's machine is gone
    assert not resumed
    found = run_experiment(first, arm_documents, SETTINGS)
    assert len(resumed) == 1 and resumed[0].step > 0
    assert outcome(found) == outcome(serial[1])
    assert not [name for name in keys_of(server, bucket) if "checkpoint" in name]
