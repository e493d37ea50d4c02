"""What an index remembers of its shards while it is made."""

import pytest

from curate.errors import CurateError
from curate.records import ProbeInfo, Shard
from curate.settings import CorpusSettings, EmbedSettings
from curate.store.publish import publish_json
from curate.task2vec.items import Embedded
from curate.task2vec.making import Making, _check_distinct, shard_key
from curate.task2vec.vectors import StoredEmbedding


@pytest.fixture
def made(tmp_path):
    """An index in the making whose shards were published with (vectors, text) digests."""
    info = ProbeInfo("p", "revision", "tokenizer", n_parameters=3, vocab=2)
    making = Making(tmp_path, CorpusSettings(), EmbedSettings(), info, device="cpu")

    def take(vectors, text):
        number = len(making.shards)
        making.shards.append(Shard(f"s-{number}", "s", (), 1, 1, digest=str(number)))
        stored = StoredEmbedding("0", vectors, text, (1,), 0.5, 2)
        key = shard_key(str(number), making.embed, info)
        publish_json(tmp_path / "shards" / f"{key}.json", stored)
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


def test_digests_that_only_begin_alike_are_different(made):
    made("ab" * 32, "text")
    made("ab" * 8 + "cd" * 24, "other")
