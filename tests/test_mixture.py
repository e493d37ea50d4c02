"""A mixture is known before it is written: its embedding is that of the text that it would be."""

import inspect
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from curate.mixing import mixture, sums
from curate.mixing.mixture import describe_mixtures
from curate.mixing.plan import vectors_a_token
from curate.mixing.stock import Stock
from curate.ranking.alignment import alignment
from curate.ranking.lexical import lexical
from curate.ranking.ngram_lm import ItemPairs, count_item_pairs, look_up, ngram_lm
from curate.ranking.rank import rank_shards
from curate.records import Target
from curate.settings import CorpusSettings, EmbedSettings, RankSettings
from curate.store.fingerprint import digest_texts
from curate.task2vec.embed import build_index
from curate.task2vec.reading import load_embedding, load_pairs, load_unigrams
from tests.conftest import python_sources, write_jsonl

WHOLE = EmbedSettings(batches=1, batch_tokens=100_000, block_tokens=128)  # of all text


def pairs_of_words(items):
    """Return items of which only the words are known, (n, vocab), as pairs that begin them."""
    vocab = items.shape[1]
    every = np.arange(vocab)
    return ItemPairs(sparse.csr_array(items), np.full(vocab, vocab), every, vocab)


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
        pairs = pairs_of_words(target.unigrams[None].astype(np.float64))
        found = describe_mixtures(
            Stock(apart), target, {"mix": shares}, tokens=one.shard.n_tokens, pairs=pairs
        )["mix"]
        real = alignment(target.vectors, truth.vectors, blocks=apart.blocks)
        assert found.alignment == pytest.approx(real, abs=1e-4)
        assert real < 0.995  # one that counts tokens would say 1 of the long documents


def test_where_alignment_is_by_words_no_vector_is_read(indices, monkeypatch):
    apart, _ = indices
    shares = {each.shard.name: float(each.shard.n_tokens) for each in apart.shards}
    target = load_embedding(Path(apart.folder), apart.shards[0].key)
    pairs = pairs_of_words(target.unigrams[None].astype(np.float64))
    monkeypatch.setattr(sums, "load_embedding", None)
    found = mixture.describe_mixtures(
        Stock(apart), target, {"mix": shares}, tokens=1_000, pairs=pairs, method="lexical"
    )["mix"]
    assert 0.3 < found.alignment < 1
    assert found.cross_entropy > 3
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
            Stock(apart),
            target,
            {"mix": {name: 1.0}},
            tokens=int(counts[name].sum()),
            pairs=pairs_of_words(items),
            method="lexical",
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
        Stock(apart),
        load_embedding(folder, apart.shards[0].key),
        {"mix": dict.fromkeys(names, 500.0)},
        tokens=1_000,
        pairs=pairs_of_words(items),
        method="lexical",
        first=names[int(logs[:2].argmax())],
    )["mix"]
    assert found.alignment == pytest.approx(np.exp(logs[2] - logs[:2].max()), rel=1e-3)
    assert found.low < found.alignment == found.high


def test_by_pairs_a_mixture_is_the_text_that_it_would_be(indices):
    """Its shards' counts add up to those of their text; one shard alone has its own alignment."""
    apart, together = indices
    texts = ["def f(x):\n    return x + 1", "import numpy as np", "Return the sum of the array"]
    target = Target(
        "code", (*texts, *texts), ("held out",), digest_texts(texts), digest_texts(["held out"]), ""
    )
    ranking = rank(apart, target, Path(apart.folder).parent)
    pairs = mixture.target_pairs(apart, target)
    own = load_embedding(Path(apart.folder), apart.shards[0].key)
    tokens = {each.shard.name: float(each.shard.n_tokens) for each in apart.shards}
    first = ranking.shards[0].shard
    for line in ranking.shards:
        found = describe_mixtures(
            Stock(apart), own, {"mix": {line.shard: 1.0}}, tokens=int(tokens[line.shard]),
            pairs=pairs, **mixture.ranked_by(ranking),
        )["mix"]  # fmt: skip
        assert found.alignment == pytest.approx(line.alignment, rel=1e-9)
        assert (found.low, found.high) == pytest.approx((line.low, line.high), rel=1e-6)

    mix = describe_mixtures(
        Stock(apart), own, {"mix": tokens}, tokens=int(sum(tokens.values())),
        pairs=pairs, **mixture.ranked_by(ranking),
    )["mix"]  # fmt: skip
    folder, (one,) = Path(together.folder), together.shards
    key = next(each.key for each in apart.shards if each.shard.name == first)
    best = look_up(
        pairs,
        load_pairs(Path(apart.folder), key),
        load_unigrams(Path(apart.folder), key),
    )
    whole = look_up(pairs, load_pairs(folder, one.key), load_unigrams(folder, one.key))
    background = load_unigrams(folder, one.key)
    costs, _ = ngram_lm(pairs, [best, whole], background=background)
    expected = ranking.shards[0].alignment * np.exp(costs[1] - costs[0])
    assert mix.alignment == pytest.approx(expected, rel=1e-6)


def test_by_words_a_mixture_is_on_the_scale_that_the_seed_of_its_ranking_made(indices, tmp_path):
    """Of more than 64 items the groups are dealt by it, and the scale follows from these."""
    apart, _ = indices
    items = tuple(inspect.getdoc(getattr(np, name))[:80] for name in ("sum", "dot", "cos", "sin"))
    items += tuple(f"Return the {n} largest of {n + 1} numbers" for n in range(90))
    target = Target("few", items, ("held out",), digest_texts(items), digest_texts(["h"]), "")
    scales = set()
    for seed in range(3):
        settings = RankSettings(method="lexical", seed=seed)
        ranking = rank_shards(apart, target, settings, workspace=tmp_path)
        last = ranking.shards[-1]
        found = describe_mixtures(
            Stock(apart), None, {"mix": {last.shard: 1.0}}, tokens=last.tokens,
            pairs=mixture.target_pairs(apart, target), **mixture.ranked_by(ranking),
        )["mix"]  # fmt: skip
        assert found.alignment == pytest.approx(last.alignment, rel=1e-9)
        scales.add(round(last.alignment, 9))
    assert len(scales) > 1


def test_of_very_many_shards_some_tell_the_pairs_of_all(indices):
    apart, _ = indices
    pairs = count_item_pairs([np.arange(300)], vocab=apart.probe.vocab)
    one, two = (each.shard.name for each in apart.shards)
    mixtures = {"both": {one: 1.0, two: 3.0}, "second": {two: 1.0}}

    def sum_up(mixtures, tokens=400, **words):
        return sums.sum_up(Stock(apart), mixtures, tokens=tokens, pairs=pairs, **words)

    whole, some = sum_up(mixtures), sum_up(mixtures, most=1)
    for name, found in some.items():
        assert found.pairs.tokens == pytest.approx(400)
        np.testing.assert_array_equal(found.unigrams, whole[name].unigrams)
    first = sum_up({"": {one: 1.0}}, tokens=100)[""]  # stands for four of its size
    np.testing.assert_allclose(some["both"].pairs.pairs.mean, 4 * first.pairs.pairs.mean)
    np.testing.assert_allclose(some["both"].pairs.pairs.log_none, 4 * first.pairs.pairs.log_none)
    np.testing.assert_allclose(
        whole["both"].pairs.before.mean,
        (some["both"].pairs.before.mean + 3 * some["second"].pairs.before.mean) / 4,
    )


def test_of_very_many_shards_the_largest_parts_stand_for_themselves_alone():
    """One that stood for its neighbours too was counted as so much larger."""
    parts = {f"s{n}": 1.0 + 50 * (n == 7) + n % 3 for n in range(40)} | {"none": 0.0}
    found = sums.looked_at({"mix": parts}, most=8)
    assert found["s7"] == {"mix": 1.0} and len(found) < 16 and "none" not in found
    stood = sum(each["mix"] * parts[shard] for shard, each in found.items())
    assert stood == pytest.approx(sum(parts.values()))
    whole = sums.looked_at({"mix": parts}, most=21)
    assert whole == {shard: {"mix": 1.0} for shard, part in parts.items() if part}


def rank(index, target, workspace):
    return rank_shards(index, target, RankSettings(method="ngram-lm"), workspace=workspace)
