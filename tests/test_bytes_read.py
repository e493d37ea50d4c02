"""Progress of reading: within a large file too, compressed or not."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.corpus import progress
from curate.corpus.inputs import find_inputs
from curate.corpus.shards import read_shards
from curate.settings import CorpusSettings


def texts(n):
    """Documents of very different lengths, in words that compress as prose does."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), size=rng.integers(2, 9))) for _ in range(3_000)]
    return [" ".join(rng.choice(words, size=rng.integers(5, 800))) for _ in range(n)]


def written(path, documents, kind):
    lines = "".join(json.dumps({"id": str(n), "text": t}) + "\n" for n, t in enumerate(documents))
    if kind == "parquet":
        pq.write_table(pa.table({"text": documents}), path.with_suffix(".parquet"))
    elif kind == "zst":
        packed = pa.compress(lines.encode(), codec="zstd", asbytes=True)
        path.with_suffix(".jsonl.zst").write_bytes(packed)
    else:
        path.with_suffix(".jsonl").write_text(lines)


def read(folder, monkeypatch):
    """Read a folder; return (share of the documents, share said) of each notice."""
    monkeypatch.setattr(progress, "LARGE_BYTES", 1_000)
    said, n_read = [], [0]

    def encode(batch):
        return [np.arange(len(text) // 4) for text in batch]

    def notify(what, done, total):
        assert what == "bytes read"
        said.append((n_read[0], done / total))

    settings = CorpusSettings(inputs=(str(folder),), shard_tokens=2_000)
    files = find_inputs(settings.inputs, workspace=folder / "none")
    for shard in read_shards(files, settings, encode=encode, ledgers=[], notify=notify):
        n_read[0] += sum(len(ids) for ids in shard.tokens)
    return [(count / n_read[0], share) for count, share in said]


@pytest.mark.parametrize("kind", ["plain", "zst", "parquet"])
def test_a_single_file_is_followed_from_its_beginning_to_its_end(tmp_path, monkeypatch, kind):
    written(tmp_path / "a", texts(600), kind)
    said = read(tmp_path, monkeypatch)
    assert len(said) > 100
    assert said[0][1] == 0 and said[-1][1] == 1
    assert [share for _, share in said] == sorted(share for _, share in said)
    for true, share in said:
        assert share == pytest.approx(true, abs=0.05)


def test_files_of_different_density_take_their_part_of_the_bytes(tmp_path, monkeypatch):
    written(tmp_path / "a", texts(200), "zst")
    written(tmp_path / "b", texts(400), "plain")
    sizes = {p.name: p.stat().st_size for p in tmp_path.iterdir()}
    shares = [share for _, share in read(tmp_path, monkeypatch)]
    first = sizes["a.jsonl.zst"] / sum(sizes.values())
    assert any(share == pytest.approx(first) for share in shares)
    assert sum(share < first for share in shares) > 20


def test_a_file_whose_head_misleads_never_ends_before_its_end(tmp_path, monkeypatch):
    """The survey is an estimate: here it expects a tenth of what comes."""
    written(tmp_path / "a", texts(300), "plain")
    survey = progress.survey_file

    def misled(*args, **more):
        found = survey(*args, **more)
        return type(found)(found.n_bytes, found.documents, found.tokens, found.chars / 10, False)

    monkeypatch.setattr(progress, "survey_file", misled)
    shares = [share for _, share in read(tmp_path, monkeypatch)]
    assert shares[-1] == 1 and max(shares[:-1]) <= 0.99


def test_small_files_are_one_step_each(tmp_path):
    written(tmp_path / "a", texts(3), "plain")
    reading = progress.BytesRead(10**6, "text", lambda *_: None)
    (file,) = find_inputs((str(tmp_path),), workspace=tmp_path / "none")
    reading.begin(file)
    assert reading.expected == 0 and reading.size > 0
