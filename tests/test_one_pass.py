"""How often the stages pass over one large compressed file: not once for each of its shards."""

import json

import pyarrow as pa
import pytest

import curate
from curate.corpus import containers, formats, reader
from curate.corpus.inputs import InputFile
from curate.corpus.passes import read_records
from curate.settings import CorpusSettings, EmbedSettings, RankSettings, Settings
from curate.settings import TargetSettings as Target
from curate.store.fingerprint import digest_file
from tests.conftest import python_sources


@pytest.fixture
def opened(monkeypatch):
    """Names of the compressed inputs that were opened, one for each time."""
    names, plain = [], containers.open_bytes

    def spy(path, compression):
        if compression != "none" and path.parent.name == "data":
            names.append(path.name)
        return plain(path, compression)

    for module in (containers, formats):
        monkeypatch.setattr(module, "open_bytes", spy)
    return names


def passes(tmp_path, opened, target_files, shard_tokens):
    """Index and rank by n-grams; return the shards, and how often each opened the file."""
    settings = Settings(
        corpus=CorpusSettings(inputs=(str(tmp_path / "data"),), shard_tokens=shard_tokens),
        embed=EmbedSettings(batches=2, batch_tokens=64),
        target=Target(name="t={},{}".format(*target_files)),
        rank=RankSettings(method="ngram"),
    )
    workspace = tmp_path / f"w{shard_tokens}"
    index = curate.index(settings=settings, workspace=workspace)
    of_index = len(opened)
    curate.rank(settings=settings, workspace=workspace)
    counts = (of_index, len(opened) - of_index)
    opened.clear()
    return len(index.shards), counts


def test_more_shards_are_no_more_passes_over_a_compressed_file(tmp_path, opened, target_files):
    (tmp_path / "data").mkdir()
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in python_sources()[:60])
    packed = pa.compress(lines, codec="zstd", asbytes=True)
    (tmp_path / "data" / "a.jsonl.zst").write_bytes(packed)
    few, by_few = passes(tmp_path, opened, target_files, 9_000)
    many, by_many = passes(tmp_path, opened, target_files, 2_000)
    assert many >= 4 * few
    assert by_many == by_few
    assert max(by_many) <= 6  # its head and its first record are looked at too


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_pass_is_not_gone_on_with(tmp_path, monkeypatch, error):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"text": "t{n}"}}\n' for n in range(100)))
    file, digest = InputFile(path, "a"), digest_file(path)
    plain = reader.to_document

    def interrupted(row, template, places, file, digest, record):
        if record == 20:
            raise error
        return plain(row, template, places, file, digest, record)

    monkeypatch.setattr(reader, "to_document", interrupted)
    with pytest.raises(error):
        list(read_records(file, text="text", digest=digest, start=0, stop=40))
    monkeypatch.setattr(reader, "to_document", plain)
    found = list(read_records(file, text="text", digest=digest, start=40, stop=60))
    assert [number for number, _ in found] == [*range(40, 60)]


def test_a_reader_that_stops_leaves_the_file_open_for_the_next(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"text": "t{n}"}}\n' for n in range(100)))
    file, digest = InputFile(path, "a"), digest_file(path)
    first = read_records(file, text="text", digest=digest, start=0, stop=40)
    assert next(first)[0] == 0
    first.close()
    found = list(read_records(file, text="text", digest=digest, start=1, stop=60))
    assert [number for number, _ in found] == [*range(1, 60)]
