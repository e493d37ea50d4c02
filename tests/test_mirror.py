"""A workspace on an object store, against a local S3 server (moto) and the real client (s3fs)."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from curate.cli import main
from curate.errors import CurateError
from curate.stages.mirror import mirrored, open_mirror, publish, pull
from curate.store.publish import publish_json
from curate.task2vec.reading import open_index
from tests.s3_double import SECRET, keys_of

pytest.importorskip("moto")


def run(*words):
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == 0, done.output
    return done


def parts(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("data/*")}


def test_index_rank_and_mix_work_on_a_store_as_on_disk(server, bucket, job):
    address = f"s3://{bucket}/jobs/first"
    for where, out in ((address, "far"), ("near", "here")):
        run("index", "--workspace", where)
        run("rank", "--workspace", where)
        run("build-mix", "--budget", "3000", "--workspace", where, "--out", out)
    there = {
        name.removeprefix("jobs/first/"): data for name, data in keys_of(server, bucket).items()
    }
    local = {
        path.relative_to("near").as_posix(): path.read_bytes()
        for path in Path("near").rglob("*") if path.is_file() and not path.name.startswith(".")
    }  # fmt: skip
    assert set(local) - set(there) == {"history.jsonl", "mix.json"}  # of this machine
    assert [name for name in there if there[name] != local[name]] == []
    assert parts("far") == parts("here") != {}
    assert not [name for name, data in there.items() if SECRET.encode() in data]


def test_another_machine_goes_on_where_the_first_stopped(server, bucket, job):
    address = f"s3://{bucket}/ws"
    run("index", "--workspace", address)
    before = keys_of(server, bucket)
    shutil.rmtree(".curate")  # the other machine has no copy
    made = json.loads(run("rank", "--workspace", address, "--json").stdout.splitlines()[0])
    assert made
    after = keys_of(server, bucket)
    assert {name: after[name] for name in before} == before  # nothing was embedded again
    assert "ws/ranking/latest.json" in after


def test_manifests_come_last_and_only_what_changed_is_sent(server, bucket, tmp_path, monkeypatch):
    import s3fs

    sent, real = [], s3fs.S3FileSystem.put_file

    def put_file(self, path, address, **how):
        sent.append((address.partition("/ws/")[2], *how))
        real(self, path, address, **how)

    monkeypatch.setattr(s3fs.S3FileSystem, "put_file", put_file)
    address = f"s3://{bucket}/ws"
    with mirrored(address, here=tmp_path / "a") as here:
        for name in ("target.json", "index/meta.json", "index/shards/k.json"):
            publish_json(here / name, {"n": 1})
        (here / "sources").mkdir()
        (here / "sources" / "copy").write_text("of an input")
        (here / "index" / ".k.json.0-1-2.aaaaaaaa.tmp").write_text("half")
        (here / "verify/runs").mkdir(parents=True)
        for name in ("r.state", "r.checkpoint.safetensors"):
            (here / "verify/runs" / name).write_text("of a run that goes on")
    assert sent == [
        ("index/shards/k.json", "mode"), ("index/meta.json", "mode"), ("target.json", "mode"),
    ]  # fmt: skip
    sent.clear()
    with mirrored(address, here=tmp_path / "a") as here:
        publish_json(here / "index/meta.json", {"n": 2})
    assert sent == [("index/meta.json", "IfMatch")]
    sent.clear()
    with mirrored(address, here=tmp_path / "b") as here:
        assert json.loads((here / "index/meta.json").read_bytes())["n"] == 2
    assert sent == [] and not (tmp_path / "b" / "sources").exists()


def test_of_two_runs_the_second_to_publish_is_refused(server, bucket, tmp_path):
    address = f"s3://{bucket}/ws"
    with mirrored(address, here=tmp_path / "a") as here:
        publish_json(here / "index/meta.json", {"by": "first"})
    one, two = (open_mirror(address, tmp_path / name) for name in ("a", "b"))
    for mirror, name in ((one, "one"), (two, "two")):
        pull(mirror)
        publish_json(mirror.here / "index/meta.json", {"by": name})
        publish_json(mirror.here / "index/shards/same.json", {"text": "the same"})
    publish(two)
    with pytest.raises(CurateError, match=r"ws/index/meta.json: another run has published") as lost:
        publish(one)
    assert lost.value.exit_code == 5
    found = keys_of(server, bucket)
    assert json.loads(found["ws/index/meta.json"])["by"] == "two"
    assert pull(one) == 2  # and goes on from what the other has published
    assert json.loads((tmp_path / "a/index/meta.json").read_bytes())["by"] == "two"
    assert publish(one) == 0


def test_a_run_that_fails_leaves_what_it_finished_and_no_manifest(server, bucket, job, monkeypatch):
    from curate.task2vec import making

    address, real = f"s3://{bucket}/ws", making.publish_index

    def broken(*_):
        raise CurateError("something is wrong; mend it")

    monkeypatch.setattr(making, "publish_index", broken)
    failed = CliRunner().invoke(main, ["index", "--workspace", address])
    assert failed.exit_code == 1 and "something is wrong" in failed.stderr
    before = keys_of(server, bucket)
    assert before and "ws/index/meta.json" not in before
    monkeypatch.setattr(making, "publish_index", real)
    shutil.rmtree(".curate")
    run("index", "--workspace", address)
    after = keys_of(server, bucket)
    assert {name: after[name] for name in before} == before
    assert len(open_index(Path(".curate/stores/s3") / bucket / "ws").shards) == sum(
        name.endswith(".safetensors") for name in after
    )


def test_a_store_that_breaks_off_is_one_line_and_the_same_command_goes_on(
    server,
    bucket,
    tmp_path,
    monkeypatch,
):
    import s3fs

    real = s3fs.S3FileSystem.put_file

    def put_file(self, path, address, **how):
        if address.endswith("b.json"):
            raise ConnectionError("the cable")
        real(self, path, address, **how)

    for name in ("index/a.json", "index/b.json", "index/meta.json"):
        publish_json(tmp_path / "a" / name, {"n": name})
    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "put_file", put_file)  # before the client is made
        with pytest.raises(CurateError, match=r"ws/index/b.json: cannot be written .*the cable"):
            publish(open_mirror(f"s3://{bucket}/ws", tmp_path / "a"))
    assert "ws/index/meta.json" not in keys_of(server, bucket)
    again = open_mirror(f"s3://{bucket}/ws", tmp_path / "a")
    pull(again)
    publish(again)
    assert len(keys_of(server, bucket)) == 3


@pytest.mark.parametrize("address", ["gs://bucket/ws", "s3://bucket", "ftp://b/ws", "s3://b/../x"])
def test_a_workspace_lies_in_a_folder_of_a_bucket(address):
    done = CliRunner().invoke(main, ["show", "index", "--workspace", address])
    assert done.exit_code == 2 or "needs the package" in done.stderr


def test_what_a_store_names_cannot_lead_out_of_the_copy(server, bucket, tmp_path):
    for name in ("ws/../out.json", "ws/.lock", "ws/index/../../x", "ws/sources/a", "ws/ok.json"):
        server.put_object(Bucket=bucket, Key=name, Body=b"{}")
    with mirrored(f"s3://{bucket}/ws", here=tmp_path / "deep" / "copy") as here:
        found = [path for path in here.rglob("*") if path.is_file()]
    assert sorted(path.name for path in found) == [".lock", ".mirror.json", "ok.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
