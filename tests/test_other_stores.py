"""Inputs on gs:// and hf://: the real clients against doubles that answer on this machine."""

import socket

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.corpus.copies import refresh_remote
from curate.corpus.inputs import find_inputs
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.reader import read_documents
from curate.corpus.remote import check_unchanged, find_objects, open_store
from curate.errors import CurateError
from tests.hub_double import serving


def lines(texts):
    return b"".join(msgspec.json.encode({"text": text}) + b"\n" for text in texts)


class Place:
    """Where a folder of objects is, and how one gets there."""

    def __init__(self, address, put, remove):
        self.address, self.put, self.remove = address, put, remove


@pytest.fixture(scope="module")
def gs():
    """An emulator of Google's store, with the client that curate uses."""
    gcsfs = pytest.importorskip("gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    with socket.socket() as free, pytest.MonkeyPatch.context() as patch:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="pool")
        server.start()
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        patch.setenv("NO_PROXY", "127.0.0.1")
        files = gcsfs.GCSFileSystem(
            token="anon", skip_instance_cache=True, use_listings_cache=False
        )
        yield Place(
            "gs://pool/in",
            lambda name, data: files.pipe_file(f"pool/in/{name}", data),
            lambda name: files.rm_file(f"pool/in/{name}"),
        )
        server.stop()


@pytest.fixture(scope="module")
def hf():
    """The double of the hub that pushing is tested against, read as a file system."""
    from huggingface_hub import constants

    with serving() as (hub, address), pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield Place(
            "hf://datasets/me/pool/in",
            lambda name, data: hub.commit("me/pool", {f"in/{name}": data}),
            lambda name: hub.repos["me/pool"]["main"].pop(f"in/{name}"),
        )


@pytest.fixture(scope="module", params=["gs", "hf"])
def place(request, tmp_path_factory):
    found = request.getfixturevalue(request.param)
    packed = pa.compress(lines([f"three {n}" for n in range(50)]), codec="zstd", asbytes=True)
    table = tmp_path_factory.mktemp("table") / "c.parquet"
    pq.write_table(pa.table({"text": ["four", "five"]}), table)
    found.put("a.jsonl", lines(["one", "two"]))
    found.put("deep/b.jsonl.zst", packed)
    found.put("deep/c.parquet", table.read_bytes())
    found.put("deep/part-00000", lines(["six"]))
    found.put("deep/picture.png", b"\x89PNG\r\n\x00\x00" * 9)
    return found


def texts_of(given, workspace, skipped=None):
    files = find_inputs([given], workspace=workspace, skipped=skipped)
    found = [d for f in files for d in read_documents(f, text="text", ledger=LedgerBuilder())]
    return sorted(document.text for document in found)


def test_a_folder_is_read_whatever_its_formats_and_what_no_reader_knows_is_left(place, tmp_path):
    skipped = []
    found = texts_of(place.address, tmp_path, skipped)
    assert found == sorted(
        ["one", "two", *(f"three {n}" for n in range(50)), "four", "five", "six"]
    )
    assert [name.name for name in skipped] == ["picture.png"]
    assert not list(tmp_path.rglob("*.png"))


def test_a_file_and_a_glob_are_read(place, tmp_path):
    assert texts_of(f"{place.address}/a.jsonl", tmp_path) == ["one", "two"]
    assert texts_of(f"{place.address}/deep/*.parquet", tmp_path) == ["five", "four"]


def test_what_is_not_there_is_one_line(place, tmp_path):
    for address in (f"{place.address}/none.jsonl", f"{place.address}/*.csv"):
        with pytest.raises(CurateError, match="no such file") as caught:
            texts_of(address, tmp_path)
        assert "\n" not in str(caught.value)


def test_what_changes_while_it_is_read_is_noticed(place):
    """The hub's client answers from the listing that it has kept, unless it is told not to."""
    place.put("moving/x.jsonl", lines(["first"]))
    store = open_store(place.address)
    (found,) = find_objects(store, f"{place.address}/moving").objects
    check_unchanged(store, found)
    place.put("moving/x.jsonl", lines(["other"]))  # as long as before
    with pytest.raises(CurateError, match="changed while it was read"):
        check_unchanged(store, found)
    place.remove("moving/x.jsonl")


def test_a_hub_that_is_out_of_reach_is_one_line(monkeypatch, tmp_path):
    """What the HTTP library raises is no OSError."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(CurateError, match=r"^hf://datasets/me/pool: cannot be read \("):
        texts_of("hf://datasets/me/pool", tmp_path)


def test_a_new_a_changed_and_a_removed_object_are_followed(place, tmp_path):
    place.put("changing/x.jsonl", lines(["first"]))
    place.put("changing/y.jsonl", lines(["goes"]))
    address = f"{place.address}/changing"
    assert texts_of(address, tmp_path) == ["first", "goes"]
    place.put("changing/x.jsonl", lines(["other"]))  # as long as before
    place.put("changing/z.jsonl", lines(["new"]))
    place.remove("changing/y.jsonl")
    refresh_remote([address], workspace=tmp_path)
    assert texts_of(address, tmp_path) == ["new", "other"]
    for name in ("x", "z"):
        place.remove(f"changing/{name}.jsonl")
