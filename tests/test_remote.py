"""Inputs on object stores, against a local S3 server (moto) and the real client (s3fs)."""

import json
import os

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import curate
from curate.cli import main
from curate.corpus import copies, remote
from curate.corpus.copies import refresh_remote
from curate.corpus.inputs import find_inputs
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.reader import read_documents
from curate.errors import CurateError
from curate.mixing.upload import check_address, upload_folder
from curate.settings import (
    CorpusSettings,
    EmbedSettings,
    RankSettings,
    Settings,
    TargetSettings,
)
from curate.store import failpoint
from curate.store.fingerprint import digest_file
from curate.store.meta import publish_meta
from curate.task2vec.embed import build_index
from curate.task2vec.reading import index_is_current
from tests.s3_double import SECRET, keys_of

pytest.importorskip("moto")


def lines(texts):
    return b"".join(msgspec.json.encode({"text": text}) + b"\n" for text in texts)


def fill(server, bucket, folder):
    """Put the files of a folder under `in/`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = f"in/{path.relative_to(folder)}"
            server.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    (folder / "deep" / ".hidden").mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(lines(["one", "two"]))
    packed = pa.compress(lines([f"three {n}" for n in range(50)]), codec="zstd", asbytes=True)
    (folder / "deep" / "b.jsonl.zst").write_bytes(packed)
    pq.write_table(pa.table({"text": ["four", "five"]}), folder / "deep" / "c.parquet")
    (folder / "deep" / "part-00000").write_bytes(lines(["six"]))
    (folder / "deep" / "notes.md").write_text("seven")
    (folder / "deep" / "_SUCCESS").write_bytes(b"")
    (folder / "deep" / "picture.png").write_bytes(b"\x89PNG\r\n\x00\x00" * 9)
    (folder / "deep" / ".hidden" / "d.jsonl").write_bytes(lines(["hidden"]))
    return folder


def texts_of(inputs, workspace, skipped=None):
    files = find_inputs(inputs, workspace=workspace, skipped=skipped)
    found = [d for f in files for d in read_documents(f, text="text", ledger=LedgerBuilder())]
    return [(document.source, document.text) for document in found]


def test_a_remote_folder_reads_as_the_local_one(server, bucket, tree, tmp_path):
    fill(server, bucket, tree)
    skipped = []
    found = texts_of([f"s3://{bucket}/in"], tmp_path / "w", skipped)
    local = texts_of([str(tree)], tmp_path / "w")
    assert sorted(text for _, text in found) == sorted(text for _, text in local)
    assert len(found) == 2 + 50 + 2 + 1 + 1
    assert {source for source, _ in found} == {source for source, _ in local}
    assert [str(name) for name in skipped] == [f"s3:/{bucket}/in/deep/picture.png"]
    assert not list((tmp_path / "w").rglob("*.png"))  # what is not read is not copied


def test_a_glob_and_a_file_name_objects(server, bucket, tree, tmp_path):
    fill(server, bucket, tree)
    many = texts_of([f"s3://{bucket}/in/deep/*.parquet", f"s3://{bucket}/in/a.jsonl"], tmp_path)
    assert many == [("a", "one"), ("a", "two"), ("c", "four"), ("c", "five")]
    with pytest.raises(CurateError, match=r"s3://.*/in/\*\.csv: no such file"):
        texts_of([f"s3://{bucket}/in/*.csv"], tmp_path)
    with pytest.raises(CurateError, match="no such file"):
        texts_of(["s3://no-such-bucket-at-all/in"], tmp_path)


def test_folders_that_a_glob_matches_are_told_of(server, bucket, tree, tmp_path):
    """They were left out without a word; of a local glob they are read."""
    fill(server, bucket, tree)
    skipped = []
    assert len(texts_of([f"s3://{bucket}/in/[ad]*"], tmp_path / "a", skipped)) == 2
    assert [str(name) for name in skipped] == [f"s3:/{bucket}/in/deep"]
    skipped = []
    server.put_object(Bucket=bucket, Key="x/deep/a.jsonl", Body=lines(["one"]))
    assert len(texts_of([f"s3://{bucket}/x/**"], tmp_path / "b", skipped)) == 1
    assert not skipped
    with pytest.raises(
        CurateError, match=r"in/d\*: matches folders alone, such as s3://.*/deep; name"
    ):
        texts_of([f"s3://{bucket}/in/d*"], tmp_path / "c")


def test_objects_of_long_names_are_copied_each_to_a_file_of_its_own(server, bucket, tmp_path):
    stems = ["\u3042" * 40, "\u3042" * 39 + "\u3044", "a" * 230, "a" * 229 + "b", "short"]
    for stem in stems:
        body = lines([stem[-1]])
        server.put_object(Bucket=bucket, Key=f"in/{stem}.jsonl", Body=body)
    found = texts_of([f"s3://{bucket}/in"], tmp_path)
    assert sorted(text for _, text in found) == sorted(stem[-1] for stem in stems)
    again = texts_of([f"s3://{bucket}/in"], tmp_path)
    assert again == found


def test_bytes_decide_and_not_what_the_store_calls_them(server, bucket, tmp_path):
    body = lines(["x" * 40] * 200_000)
    address, copy = f"s3://{bucket}/a.jsonl", tmp_path / "sources" / "s3" / bucket / "a.jsonl"
    server.put_object(Bucket=bucket, Key="a.jsonl", Body=body)
    refresh_remote([address], workspace=tmp_path)
    before, mark = copy.stat(), server.head_object(Bucket=bucket, Key="a.jsonl")["ETag"]
    upload = server.create_multipart_upload(Bucket=bucket, Key="a.jsonl")["UploadId"]
    part = {"Bucket": bucket, "Key": "a.jsonl", "UploadId": upload}
    half = 6_000_000
    tags = [
        server.upload_part(**part, PartNumber=n, Body=piece)["ETag"]
        for n, piece in enumerate((body[:half], body[half:]), start=1)
    ]
    parts = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, start=1)]
    server.complete_multipart_upload(**part, MultipartUpload={"Parts": parts})
    assert server.head_object(Bucket=bucket, Key="a.jsonl")["ETag"] != mark
    refresh_remote([address], workspace=tmp_path)
    assert (copy.stat().st_ino, copy.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    changed = body[:-5] + b'y"}\n' + b"\n"
    assert len(changed) == len(body)
    server.put_object(Bucket=bucket, Key="a.jsonl", Body=changed)
    refresh_remote([address], workspace=tmp_path)
    assert copy.read_bytes() == changed
    server.put_object(Bucket=bucket, Key="a.jsonl", Body=body[:half])
    refresh_remote([address], workspace=tmp_path)
    assert copy.read_bytes() == body[:half]


@pytest.fixture
def asked(monkeypatch):
    """The requests for bytes, by (address, start)."""
    import s3fs

    found, real = [], s3fs.S3FileSystem.cat_file

    def cat_file(self, path, start=None, end=None):
        found.append((path, start))
        return real(self, path, start=start, end=end)

    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", cat_file)
    return found


def test_a_broken_copy_goes_on_after_its_last_block(server, bucket, tmp_path, monkeypatch, asked):
    monkeypatch.setattr(copies, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(copies, "AT_ONCE", 1)
    whole = {name: lines([name * 30] * 80) for name in "ab"}
    for name, body in whole.items():
        server.put_object(Bucket=bucket, Key=f"in/{name}.jsonl", Body=body)
    address, place = f"s3://{bucket}/in", tmp_path / "sources" / "s3" / bucket / "in"
    first = -(-len(whole["a"]) // 1000)
    monkeypatch.setenv("CURATE_FAILPOINT", f"remote.block:{first + 3}=eio")
    failpoint._counts.clear()
    with pytest.raises(CurateError, match=r"b\.jsonl: cannot be read after 0\.0 of 0\.0 MB .*goes"):
        refresh_remote([address], workspace=tmp_path)
    monkeypatch.delenv("CURATE_FAILPOINT")
    assert (place / "a.jsonl").read_bytes() == whole["a"] and not (place / "b.jsonl").exists()
    asked.clear()
    refresh_remote([address], workspace=tmp_path)
    assert asked[0] == (f"{address}/b.jsonl", 2000) and len(asked) < first  # nothing of a again
    assert (place / "b.jsonl").read_bytes() == whole["b"]
    assert not list(place.glob(".*.part*"))
    asked.clear()
    refresh_remote([address], workspace=tmp_path)  # a run that follows a finished one reads all
    assert {path for path, _ in asked} == {f"{address}/a.jsonl", f"{address}/b.jsonl"}


def test_two_versions_are_never_joined(server, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1000)
    old, new = lines(["old" * 30] * 80), lines(["new" * 30] * 80)
    server.put_object(Bucket=bucket, Key="a.jsonl", Body=old)
    monkeypatch.setenv("CURATE_FAILPOINT", "remote.block:4=eio")
    failpoint._counts.clear()
    with pytest.raises(CurateError):
        refresh_remote([f"s3://{bucket}/a.jsonl"], workspace=tmp_path)
    monkeypatch.delenv("CURATE_FAILPOINT")
    server.put_object(Bucket=bucket, Key="a.jsonl", Body=new)
    refresh_remote([f"s3://{bucket}/a.jsonl"], workspace=tmp_path)
    assert (tmp_path / "sources" / "s3" / bucket / "a.jsonl").read_bytes() == new

    def replaced(store, found, start):
        server.put_object(Bucket=bucket, Key="a.jsonl", Body=old)
        yield new

    monkeypatch.setattr(copies, "read_blocks", replaced)
    with pytest.raises(CurateError, match="changed while it was read"):
        refresh_remote([f"s3://{bucket}/a.jsonl"], workspace=tmp_path)


def test_keys_lead_nowhere_and_what_is_gone_drops_out(server, bucket, tmp_path):
    for key in ("in/a b.jsonl", "in/%2e.jsonl", "in//c.jsonl", "in/x/d.jsonl"):
        server.put_object(Bucket=bucket, Key=key, Body=lines([key]))
    found = texts_of([f"s3://{bucket}/in"], tmp_path / "w")
    assert sorted(text for _, text in found) == sorted(
        ["in/a b.jsonl", "in/%2e.jsonl", "in//c.jsonl", "in/x/d.jsonl"]
    )
    assert remote.copy_path("s3://b/../../etc/x").parts == (
        "s3",
        "b",
        "%2E%2E",
        "%2E%2E",
        "etc",
        "x",
    )
    server.delete_object(Bucket=bucket, Key="in/x/d.jsonl")
    refresh_remote([f"s3://{bucket}/in"], workspace=tmp_path / "w")
    assert len(texts_of([f"s3://{bucket}/in"], tmp_path / "w")) == 3


@pytest.mark.parametrize("address", ["ftp://host/a", "file:///etc/passwd", "https://h/a.jsonl"])
def test_other_schemes_are_refused(tmp_path, address):
    with pytest.raises(CurateError, match="not a scheme that is read") as error:
        find_inputs([address], workspace=tmp_path)
    assert error.value.exit_code == 2


def test_an_address_with_credentials_is_refused_and_not_repeated(tmp_path):
    with pytest.raises(CurateError, match="may not carry credentials") as error:
        find_inputs([f"s3://key:{SECRET}@bucket/a"], workspace=tmp_path)
    assert SECRET not in str(error.value)


def test_a_missing_package_and_a_dead_server_are_one_line(server, tmp_path, monkeypatch):
    monkeypatch.setitem(remote._ERRORS, "gs", (("no_such_package_here", "Error"),))
    with pytest.raises(CurateError, match="needs the package gcsfs: pip install gcsfs"):
        find_inputs(["gs://bucket/a.jsonl"], workspace=tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(CurateError, match=r"s3://b/a: cannot be read \(.*127\.0\.0\.1:1") as error:
        find_inputs(["s3://b/a"], workspace=tmp_path)
    assert "\n" not in str(error.value)


def test_messages_lose_the_values_of_secrets(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert remote._redacted(f"denied for {SECRET}") == "denied for …"


def test_an_index_of_remote_files_is_that_of_local_ones(server, bucket, corpus_folder, tmp_path):
    fill(server, bucket, corpus_folder)
    address = f"s3://{bucket}/in/"
    embed = EmbedSettings(batches=2, batch_tokens=64)
    local = build_index(
        CorpusSettings(inputs=(str(corpus_folder),)), embed, workspace=tmp_path / "l"
    )
    wanted = CorpusSettings(inputs=(address,))
    found = build_index(wanted, embed, workspace=tmp_path / "r")
    assert [(s.key, s.shard.name, s.shard.digest) for s in found.shards] == [
        (s.key, s.shard.name, s.shard.digest) for s in local.shards
    ]
    assert index_is_current(wanted, embed, tmp_path / "r")
    written = [path for path in (tmp_path / "r").rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    assert not [path for path in written if b"somebody-known" in path.read_bytes()]
    first = found.shards[0].shard
    path = next(p for p in corpus_folder.iterdir() if digest_file(p) == first.ranges[0].file_digest)
    body = path.read_bytes().replace(b"the", b"THE", 1)
    server.put_object(Bucket=bucket, Key=f"in/{path.name}", Body=body)
    again = build_index(wanted, embed, workspace=tmp_path / "r")
    assert sum(a.key != b.key for a, b in zip(again.shards, found.shards, strict=True)) == 1
    os.environ["AWS_ENDPOINT_URL"], kept = "http://127.0.0.1:1", os.environ["AWS_ENDPOINT_URL"]
    try:
        assert index_is_current(wanted, embed, tmp_path / "r")  # ranking asks no network
    finally:
        os.environ["AWS_ENDPOINT_URL"] = kept
    assert json.loads((tmp_path / "r" / "index" / "meta.json").read_bytes())["kind"] == "index"


# --- a finished artefact goes there ---


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "mix"
    (place / "data").mkdir(parents=True)
    for number in range(3):
        (place / "data" / f"part-{number}.parquet").write_bytes(bytes([number]) * 5_000)
    files = [f"data/part-{number}.parquet" for number in range(3)]
    publish_meta(place, kind="mix", fingerprint="f", files=files, body={})
    (place / ".lock").write_text("process 1")
    return place


def test_a_folder_is_published_with_its_meta_last(server, bucket, folder, monkeypatch):
    import s3fs

    order, real = [], s3fs.S3FileSystem.put_file

    def put_file(self, path, address, **named):
        order.append(address.rpartition("/")[2])
        assert named == {"mode": "create"}
        real(self, path, address, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "put_file", put_file)
    upload_folder(folder, f"s3://{bucket}/out/mix/")
    there = keys_of(server, bucket)
    assert there == {
        f"out/mix/{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    }  # fmt: skip
    assert order[-1] == "meta.json" and len(order) == 4
    order.clear()
    upload_folder(folder, f"s3://{bucket}/out/mix")  # once more: checked, nothing is sent
    assert order == []


def test_an_interrupted_copy_has_no_meta_and_goes_on(server, bucket, folder, monkeypatch):
    import s3fs

    real = s3fs.S3FileSystem.put_file

    def put_file(self, path, address, **named):
        if "part-2" in address:
            raise ConnectionError("the cable")
        real(self, path, address, **named)

    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "put_file", put_file)
        with pytest.raises(CurateError, match=r"part-2.parquet: cannot be written .*the cable"):
            upload_folder(folder, f"s3://{bucket}/mix")
    assert "mix/meta.json" not in keys_of(server, bucket)
    upload_folder(folder, f"s3://{bucket}/mix")
    assert len(keys_of(server, bucket)) == 4


def test_of_two_writers_one_is_refused_and_nothing_is_overwritten(
    server, bucket, folder, monkeypatch
):
    server.put_object(Bucket=bucket, Key="mix/data/part-1.parquet", Body=b"of another")
    with pytest.raises(CurateError, match=r"part-1.parquet: holds something else"):
        upload_folder(folder, f"s3://{bucket}/mix")
    # the other writer comes between the look and the write: the store itself refuses
    monkeypatch.setattr("s3fs.S3FileSystem.exists", lambda self, path: "part-1" not in path)
    with pytest.raises(CurateError):
        upload_folder(folder, f"s3://{bucket}/mix")
    assert keys_of(server, bucket)["mix/data/part-1.parquet"] == b"of another"
    assert "mix/meta.json" not in keys_of(server, bucket)


@pytest.mark.parametrize("address", ["gs://bucket/mix", "s3://bucket", "ftp://bucket/mix"])
def test_a_mix_goes_to_a_folder_of_a_bucket(address):
    with pytest.raises(CurateError) as error:
        check_address(address)
    assert error.value.exit_code in (1, 2)


def test_the_command_publishes_a_mix(server, bucket, corpus_folder, target_files, tmp_path):
    settings = Settings(
        corpus=CorpusSettings(inputs=(str(corpus_folder),)),
        embed=EmbedSettings(batches=2, batch_tokens=64),
        target=TargetSettings(name=f"t={target_files[0]},{target_files[1]}"),
        rank=RankSettings(method="lexical", bootstrap=50),
    )
    workspace = tmp_path / "w"
    curate.rank(settings=settings, workspace=workspace)
    command = ["build-mix", "--budget", "500", "--workspace", str(workspace)]
    done = CliRunner().invoke(main, [*command, "--out", f"s3://{bucket}/mixes/first"])
    assert done.exit_code == 0, done.output
    there = keys_of(server, bucket)
    assert {"mixes/first/meta.json", "mixes/first/provenance.parquet"} <= set(there)
    assert sum(name.endswith(".parquet") and "/data/" in name for name in there) >= 1
    assert not [name for name, data in there.items() if SECRET.encode() in data]
    again = CliRunner().invoke(main, [*command, "--out", f"s3://{bucket}/mixes/first"])
    assert again.exit_code == 0 and keys_of(server, bucket) == there
    other = [*command[:2], "600", *command[3:], "--out", f"s3://{bucket}/mixes/first"]
    refused = CliRunner().invoke(main, other)
    assert refused.exit_code == 1 and "holds something else" in refused.stderr
