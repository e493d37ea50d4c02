"""A mixture is known before it is written: its embedding is that of the text that it would be."""

import inspect
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from curate.mixing import mixture
from curate.mixing.mixture import describe_mixtures
from curate.mixing.plan import vectors_a_token
from curate.ranking.alignment import alignment
from curate.ranking.lexical import lexical
from curate.settings import CorpusSettings, EmbedSettings
from curate.task2vec.embed import build_index
from curate.task2vec.reading import load_embedding, load_unigrams
from tests.conftest import python_sources, write_jsonl

WHOLE = EmbedSettings(batches=1, batch_tokens=100_000, block_tokens=128)  # of all text


@pytest.fixture(scope="module")
def indices(tmp_path_factory):
    """Short documents, long ones, and all of them as one file: two shards, and one."""
    folder = tmp_path_factory.mktemp("lengths")
    docs = [inspect.getdoc(getattr(np, name)) or "" for name in sorted(dir(np))]
    short = [doc.splitlines()[0][:120] for doc in docs if len(doc) > 200][:60]
    long = python_sources()[:6]
    made = {}
    for name, texts in {"apart": (short, long), "together": (short + long,)}.items():
        paths = [write_jsonl(folder / name / f"{n}.jsonl", text) for n, text in enumerate(texts)]
        corpus = CorpusSettings(inputs=tuple(map(str, paths)))
        made[name] = build_index(corpus, WHOLE, workspace=folder / f"{name}.work", device="cpu")
    return made["apart"], made["together"]


def test_the_embedding_of_a_mix_is_that_of_its_text_whatever_the_length_of_documents(indices):
    apart, together = indices
    (one,) = together.shards
    truth = load_embedding(Path(together.folder), one.key)
    shares = {each.shard.name: float(each.shard.n_tokens) for each in apart.shards}
    assert sum(shares.values()) == one.shard.n_tokens

    added = np.array(list(shares.values())) @ vectors_a_token(apart, list(shares))
    expected = truth.vectors[0] * sum(truth.n_sequences)
    np.testing.assert_allclose(added, expected, rtol=2e-3)  # 16-bit levels

    for each in apart.shards:  # as a target: how close the mix is to one of its parts
        target = load_embedding(Path(apart.folder), each.key)
        found = describe_mixtures(
            apart, target, {"mix": shares}, tokens=one.shard.n_tokens, measure="scaled"
        )["mix"]
        real = alignment(target.vectors, truth.vectors, blocks=apart.blocks)
        assert found.alignment == pytest.approx(real, abs=1e-4)
        assert real < 0.995  # one that counts tokens would say 1 of the long documents


def test_where_alignment_is_by_words_no_vector_is_read(indices, monkeypatch):
    apart, _ = indices
    shares = {each.shard.name: float(each.shard.n_tokens) for each in apart.shards}
    target = load_embedding(Path(apart.folder), apart.shards[0].key)
    items = sparse.csr_array(target.unigrams[None].astype(np.float64))
    monkeypatch.setattr(mixture, "load_embedding", None)
    found = mixture.describe_mixtures(
        apart, target, {"mix": shares}, tokens=1_000, measure="scaled", items=items
    )["mix"]
    assert 0.3 < found.alignment < 1
    assert found.lexical > 3
    assert found.forecast.drop == 0  # the mix is natural


def test_a_mixture_of_one_shard_has_the_alignment_that_a_few_items_rank_the_shard_by(indices):
    """What too few items put the best shard above 1 by is off mixtures as it is off shards."""
    apart, _ = indices
    folder = Path(apart.folder)
    counts = {each.shard.name: load_unigrams(folder, each.key) for each in apart.shards}
    first, second = counts
    a_word_each = np.argsort(-counts[first], kind="stable")[:6]
    items = np.eye(len(counts[first]))[a_word_each]
    background = sum(counts.values())
    logs, _ = lexical(items, counts.values(), background=background)
    assert logs[0] > 0 and logs[0] > logs[1]
    target = load_embedding(folder, apart.shards[0].key)
    for name, expected in ((first, 1.0), (second, np.exp(logs[1] - logs[0]))):
        found = describe_mixtures(
            apart,
            target,
            {"mix": {name: 1.0}},
            tokens=int(counts[name].sum()),
            measure="scaled",
            items=items,
            first=first,
        )["mix"]
        assert found.alignment == pytest.approx(expected, rel=1e-3)


def test_a_mixture_that_does_better_than_the_best_shard_is_not_cut_to_it(indices):
    """Half of the items' words are of one shard, half of the other; both together have them all."""
    apart, _ = indices
    folder = Path(apart.folder)
    counts = [load_unigrams(folder, each.key).astype(np.float64) for each in apart.shards]
    one, two = (each / each.sum() for each in counts)
    words = [*np.argsort(two - one)[:4], *np.argsort(one - two)[:4]]
    items = np.eye(len(one))[words]
    background = sum(counts)
    logs, _ = lexical(items, [*counts, one + two], background=background)
    assert logs[:2].max() > 0 and logs[2] > logs[:2].max() + 0.1
    names = [each.shard.name for each in apart.shards]
    found = describe_mixtures(
        apart,
        load_embedding(folder, apart.shards[0].key),
        {"mix": dict.fromkeys(names, 500.0)},
        tokens=1_000,
        measure="scaled",
        items=items,
        first=names[int(logs[:2].argmax())],
    )["mix"]
    assert found.alignment == pytest.approx(np.exp(logs[2] - logs[:2].max()), rel=1e-3)
    assert found.low < found.alignment == found.high
