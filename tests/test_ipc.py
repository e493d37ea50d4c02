"""Compressed Arrow files: read like any other, refused where they unpack to very much."""

import random

import pyarrow as pa
import pytest

from curate.corpus import ipc
from curate.corpus.containers import BrokenFileError
from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.reader import read_documents

TEXTS = [f"document {n} " + "\u00fc" * (n % 40) for n in range(300)]


def written(path, kind, codec, column, rows=100):
    table = pa.table({"text": column})
    opener = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with opener(str(path), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def shared(text):
    return pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array([text]))


def read(path):
    ledger = LedgerBuilder()
    file = InputFile(path=path, source="s")
    return [d.text for d in read_documents(file, text="text", ledger=ledger)], ledger.error


@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize("codec", ["zstd", "lz4", None])
def test_a_compressed_file_is_read(tmp_path, kind, codec):
    assert read(written(tmp_path / "a.arrow", kind, codec, TEXTS)) == (TEXTS, "")
    assert read(written(tmp_path / "b.arrow", kind, codec, shared("x" * 50)))[0] == ["x" * 50] * 300


@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("column", [["z" * 40_000] * 300, shared("z" * 4_000_000)])
def test_a_batch_that_unpacks_to_very_much_is_never_unpacked(
    tmp_path, monkeypatch, kind, codec, column
):
    path = written(tmp_path / "a.arrow", kind, codec, column)
    monkeypatch.setattr(ipc, "MAX_BATCH_BYTES", 5_000_000)
    monkeypatch.setattr(ipc, "RATIO_FROM_BYTES", 3_000_000)
    monkeypatch.setattr(ipc, "MAX_RATIO", 10)
    before = pa.total_allocated_bytes()
    found, error = read(path)
    assert found == [] and "unpacks to 4,0" in error
    assert pa.total_allocated_bytes() == before
    monkeypatch.setattr(ipc, "MAX_RATIO", 1_000_000)
    assert len(read(path)[0]) == 300  # within the cap, however well it is packed
    monkeypatch.setattr(ipc, "MAX_BATCH_BYTES", 3_500_000)
    assert "unpacks to 4,0" in read(path)[1]


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_damaged_sizes_are_left_to_the_reader(tmp_path, kind):
    whole = written(tmp_path / "a.arrow", kind, "zstd", TEXTS).read_bytes()
    rng, path = random.Random(0), tmp_path / "b.arrow"
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 9)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(1, len(data))] if rng.random() < 0.3 else data)
        try:
            ipc.check_batches(path, stream=kind == "stream")
        except BrokenFileError as error:
            assert "unpacks to" in str(error)


@pytest.mark.parametrize("opener", [pa.ipc.new_file, pa.ipc.new_stream])
def test_a_batch_without_the_mark_of_newer_files_is_held_against_the_cap(tmp_path, opener):
    """Arrow reads both ways of framing a message, so that both have to be checked."""
    table = pa.table({"text": ["\0" * (1 << 20)] * 101})
    old = pa.ipc.IpcWriteOptions(compression="zstd", use_legacy_format=True)
    path = tmp_path / "a.arrow"
    with opener(str(path), table.schema, options=old) as writer:
        writer.write_table(table)
    with pytest.raises(BrokenFileError, match="unpacks to"):
        ipc.check_batches(path, stream=opener is pa.ipc.new_stream)


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_dictionaries_are_held_against_the_cap_together(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(ipc, "MAX_BATCH_BYTES", 10_000_000)

    def with_columns(count):
        columns = {f"other{n}": shared("y" * 2_900_000) for n in range(count)}
        table = pa.table({"text": ["a text"] * 300, **columns})
        path = tmp_path / f"{count}.arrow"
        opener = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with opener(str(path), table.schema, options=options) as writer:
            writer.write_table(table)
        return path

    assert read(with_columns(3)) == (["a text"] * 300, "")
    texts, error = read(with_columns(4))
    assert texts == []
    assert "its dictionaries unpack to 11,6" in error


def test_a_dictionary_in_the_place_of_another_counts_once(tmp_path, monkeypatch):
    monkeypatch.setattr(ipc, "MAX_BATCH_BYTES", 4_000_000)
    path = tmp_path / "replaced.arrow"
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    batches = [pa.record_batch({"text": shared(letter * 2_900_000)}) for letter in "abc"]
    with pa.ipc.new_stream(str(path), batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch.slice(0, 1))
    ipc.check_batches(path, stream=True)


def test_a_dictionary_that_grows_counts_with_what_it_was(tmp_path, monkeypatch):
    """Each message adds to the dictionary (a delta) and is small; together they are not."""
    monkeypatch.setattr(ipc, "MAX_BATCH_BYTES", 4_000_000)
    path = tmp_path / "grown.arrow"
    options = pa.ipc.IpcWriteOptions(compression="zstd", emit_dictionary_deltas=True)
    words = [letter * 1_500_000 for letter in "abc"]
    batches = [
        pa.record_batch(
            {"text": pa.DictionaryArray.from_arrays(pa.array([n], pa.int32()), words[: n + 1])}
        )
        for n in range(3)
    ]
    for count in (2, 3):
        with pa.ipc.new_stream(str(path), batches[0].schema, options=options) as writer:
            for batch in batches[:count]:
                writer.write_batch(batch)
        if count == 2:
            ipc.check_batches(path, stream=True)
    with pytest.raises(BrokenFileError, match="its dictionaries unpack to 4,5"):
        ipc.check_batches(path, stream=True)
