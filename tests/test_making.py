"""What an index remembers of its shards while it is made."""

import threading
import tracemalloc
from types import SimpleNamespace

import msgspec
import pytest

from curate.errors import CurateError
from curate.records import ProbeInfo, RecordRange, Shard
from curate.settings import CorpusSettings, EmbedSettings
from curate.store.arrays import publish_arrays
from curate.store.fingerprint import digest_bytes
from curate.task2vec import making as making_module
from curate.task2vec.items import Embedded
from curate.task2vec.making import Crew, Making, _check_distinct, embed_all, shard_key
from curate.task2vec.vectors import StoredEmbedding


@pytest.fixture
def made(tmp_path):
    """An index in the making whose shards were published with (vectors, text) digests."""
    info = ProbeInfo("p", "revision", "tokenizer", n_parameters=3, vocab=2)
    making = Making(tmp_path, CorpusSettings(), EmbedSettings(), info, device="cpu")

    def take(vectors, text):
        number = len(making.shards)
        making.shards.append(Shard(f"s-{number}", "s", (), 1, 1, digest=str(number)))
        stored = StoredEmbedding(vectors, text, (1,), 0.5, 2)
        path = tmp_path / "shards" / f"{shard_key(str(number), making.embed, info)}.safetensors"
        publish_arrays(path, {}, note=msgspec.json.encode(stored).decode())
        _check_distinct(making, Embedded(number, stored))

    return take


def test_different_texts_of_one_embedding_are_an_error_that_names_them(made):
    made("ab" * 32, "text")
    made("cd" * 32, "other")
    with pytest.raises(CurateError, match="shards s-0 and s-2: different text, identical"):
        made("ab" * 32, "third")


def test_equal_texts_may_have_one_embedding(made):
    made("ab" * 32, "text")
    made("ab" * 32, "text")


def test_progress_counts_the_tokens_of_shards_and_does_not_call_them_embedded(tmp_path):
    """Of a shard samples are embedded: a rate of all its tokens is no speed of the engine."""
    told = []
    making = Making(
        tmp_path, CorpusSettings(), EmbedSettings(),
        ProbeInfo("p", "revision", "tokenizer", n_parameters=3, vocab=2), device="cpu",
    )  # fmt: skip
    for number, tokens in enumerate((900, 100)):
        making.shards.append(Shard(f"s-{number}", "s", (), 1, tokens, digest=str(number)))
        stored = StoredEmbedding(f"{number:02d}" * 32, f"text {number}", (1,), 0.5, 2)
        making_module._take(making, Embedded(number, stored), lambda *said: told.append(said))
    assert told == [("tokens indexed", 900, 0), ("tokens indexed", 1000, 0)]


def test_digests_that_only_begin_alike_are_different(made):
    made("ab" * 32, "text")
    made("ab" * 8 + "cd" * 24, "other")


def test_what_is_remembered_of_a_shard_is_less_than_a_kilobyte(tmp_path):
    """Of a million shards that is all that grows: the record that the index will list."""
    info = ProbeInfo("p", "revision", "tokenizer", n_parameters=3, vocab=2)
    making = Making(tmp_path, CorpusSettings(), EmbedSettings(), info, device="cpu")
    tracemalloc.start()
    try:
        for number in range(1_000):
            digest = digest_bytes(b"%d" % number)
            places = (RecordRange("corpus/all.jsonl", "0" * 64, number * 700, number * 900),)
            shard = Shard(f"all-{number:05}", "all", places, number + 300, number + 4000, digest)
            making.shards.append(shard)
            stored = StoredEmbedding(digest, digest, (1, 1), 0.5, 2)
            _check_distinct(making, Embedded(number, stored))
            del shard, stored, digest, places
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 1_000 * 300 < kept < 1_000 * 1_000


def test_a_shard_is_read_while_the_one_before_is_prepared(tmp_path, monkeypatch):
    """Tokenising leaves the interpreter to others: what waits for it would be time lost."""
    reached = [threading.Event() for _ in range(4)]

    def read_shards(*_, **__):
        for number in range(3):
            reached[number].set()
            yield number
        reached[3].set()

    def prepare(_, number, text):
        assert number == text and reached[number + 1].wait(10)
        return number

    info = ProbeInfo("p", "revision", "tokenizer", n_parameters=3, vocab=2)
    making = Making(tmp_path, CorpusSettings(), EmbedSettings(), info, device="cpu")
    making.shards, making.n_embedded = ["one"], 1
    handed = []
    monkeypatch.setattr(making_module, "read_shards", read_shards)
    monkeypatch.setattr(making_module, "_prepare", prepare)
    monkeypatch.setattr(making_module, "_missing", lambda _, prepared, __: prepared)
    monkeypatch.setattr(
        making_module, "run_items", lambda _, items, **__: handed.extend(items) or ()
    )
    opened = SimpleNamespace(files=(), ledgers=())
    embed_all(making, opened, None, Crew(2, "cpu", here=False), lambda *_: None)
    assert handed == [0, 1, 2]
