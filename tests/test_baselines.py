import gzip
import itertools
import json
import math
import re
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from curate.ranking import baselines
from curate.ranking.classifier import classifier
from curate.ranking.compression import compression
from curate.ranking.importance import WORD, ngram_importance
from curate.ranking.stats import t_intervals

TEXT_METHODS = ["ngram", "compression", "classifier"]

LEAN = ["theorem foo (a b : nat) : a + b = b + a := by simp", "lemma bar : p → p := λ h, h"] * 3
LAW = ["The court held that the claim was barred.", "The plaintiff appealed to the court."] * 3
ITEMS = ["theorem baz (n : nat) : n + 0 = n := by simp", "lemma qux : q → q := λ h, h"]


def test_hidden_cosine_is_the_cosine_of_the_means():
    rng = np.random.default_rng(2)
    target = rng.normal(size=(1, 8))
    shards = [target * 3, rng.normal(size=(1, 8))]
    values, _ = baselines.hidden_cosine(target, shards)
    assert values[0] == pytest.approx(1.0)
    expected = (target @ shards[1].T) / np.linalg.norm(target) / np.linalg.norm(shards[1])
    assert values[1] == pytest.approx(expected.item())


def test_perplexity_and_length_are_what_their_names_say():
    assert baselines.perplexity(np.array([3.0, 2.0]))[0].tolist() == [-3.0, -2.0]
    values, influence = baselines.length(np.array([10, 20]))
    assert values.tolist() == [10.0, 20.0]
    low, high = t_intervals(values, influence)
    assert low.tolist() == high.tolist() == values.tolist()


def test_random_is_seeded():
    one, again, other = (baselines.random(9, seed=seed)[0] for seed in (0, 0, 1))
    assert one.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_compression_is_one_minus_the_mean_distance_of_all_pairs(codec):
    values, _ = compression(ITEMS, [LEAN[:2], LAW[:2]], codec=codec)

    def size(text):
        if codec == "gzip":
            return len(gzip.compress(text.encode(), 9))
        return len(pa.Codec("zstd", compression_level=9).compress(text.encode(), asbytes=True))

    def distance(a, b):
        return (size(a + b) - min(size(a), size(b))) / max(size(a), size(b))

    for value, documents in zip(values, (LEAN[:2], LAW[:2]), strict=True):
        assert value == pytest.approx(
            1 - np.mean([distance(a, b) for a in documents for b in ITEMS])
        )
    assert values[0] > values[1]


def test_a_copied_stream_is_as_long_as_one_made_at_once():
    rng = np.random.default_rng(0)
    words = np.array(["alpha", "beta", "gamma", "lemma", "proof", "by", "simp", "the"])
    texts = [" ".join(rng.choice(words, size)) for size in (3, 900, 9_000)]
    documents = [" ".join(rng.choice(words, size)) for size in (2, 700, 8_000)]
    for item in texts:
        for document in documents:
            (value,), _ = compression([item], [[document]])
            a, b, ab = (
                len(gzip.compress(t.encode(), 9)) for t in (document, item, document + item)
            )
            assert value == 1 - (ab - min(a, b)) / max(a, b)


def test_compression_at_level_zero_is_refused():
    with pytest.raises(ValueError, match="level 0"):
        compression(ITEMS, [LAW], level=0)


@pytest.mark.parametrize("method", TEXT_METHODS)
def test_methods_that_read_text_put_the_like_first_and_refuse_nothing(method):
    values, influence = baselines.measure_texts(method, ITEMS * 2, [LAW, LEAN])
    assert values.argmax() == 1
    low, high = t_intervals(values, influence)
    assert (low <= values).all() and (values <= high).all()
    again, _ = baselines.measure_texts(method, ITEMS * 2, [LAW, LEAN])
    assert again.tolist() == values.tolist()
    with pytest.raises(ValueError, match=r"document|word"):
        baselines.measure_texts(method, ITEMS * 2, [[]])
    with pytest.raises(ValueError, match="item"):
        baselines.measure_texts(method, [], [LAW])


@pytest.mark.parametrize("method", TEXT_METHODS)
def test_the_order_of_shards_and_items_does_not_matter_much(method):
    rng = np.random.default_rng(0)
    shards = [LAW, LEAN, LAW[:2] + LEAN[:2]]
    order = [2, 0, 1]
    values, _ = baselines.measure_texts(method, ITEMS * 8, shards)
    moved, _ = baselines.measure_texts(
        method, list(rng.permutation(ITEMS * 8)), [shards[n] for n in order]
    )
    exact = method != "classifier"  # whose quarters are drawn
    tolerance = 1e-9 if exact else 0.5
    np.testing.assert_allclose(moved, values[order], rtol=tolerance, atol=tolerance)


def test_methods_that_need_a_probe_are_not_measured_from_text():
    with pytest.raises(ValueError, match="task2vec"):
        baselines.measure_texts("task2vec", ITEMS, [LAW])
    assert baselines.measure_texts("length", ITEMS, [["ab", "c"], ["d"]])[0].tolist() == [3.0, 1.0]
    assert len(baselines.measure_texts("random", ITEMS, [LAW, LEAN], seed=3)[0]) == 2


# --- n-gram importance ---


class Passing(Sequence):
    """Shards of which those that were read are counted while somebody holds them."""

    class Documents(list):
        pass

    def __init__(self, shards):
        self.shards, self.held, self.most = shards, [], 0

    def __len__(self):
        return len(self.shards)

    def __getitem__(self, place):
        raise AssertionError("read one by one")

    def __iter__(self):
        for shard in self.shards:
            documents = self.Documents(shard)
            self.held.append(weakref.ref(documents))
            self.most = max(self.most, sum(one() is not None for one in self.held))
            yield documents


@pytest.mark.parametrize("method", TEXT_METHODS)
def test_methods_that_read_text_hold_few_shards_of_it(method):
    shards = Passing([LAW, LEAN] * 6)
    values, _ = baselines.measure_texts(method, ITEMS * 2, shards)
    assert shards.most <= 2
    whole, _ = baselines.measure_texts(method, ITEMS * 2, [LAW, LEAN] * 6)
    assert values.tolist() == whole.tolist()


@pytest.mark.parametrize("method", TEXT_METHODS)
def test_memory_does_not_grow_with_the_shards(method, monkeypatch):
    """Beyond some numbers a shard; of what is trained on there is a limit, here a low one."""
    monkeypatch.setattr("curate.ranking.classifier.TRAINED_ON", 50)
    monkeypatch.setattr("curate.ranking.classifier.FEATURES", 1 << 12)
    rng = np.random.default_rng(0)
    items, *shards = (
        [" ".join(f"w{n}" for n in rng.integers(0, 1_000, 40)) for _ in range(40)] for _ in range(5)
    )

    def peak(count):
        tracemalloc.start()
        baselines.measure_texts(method, items, shards * count)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1)  # what is made once
    assert peak(8) < 1.25 * peak(1)


def test_ngram_importance_is_a_mean_over_ngrams_not_a_sum():
    once, _ = ngram_importance(ITEMS, [LAW, LEAN])
    longer, _ = ngram_importance(ITEMS, [LAW * 40, LEAN * 40])
    assert longer == pytest.approx(once, abs=0.15)


def grams(text):
    words = re.findall(WORD, text.lower())
    return [*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))]


def naive_importance(items, shards):
    """DSIR with a bucket a different n-gram, 1e-8 added to every probability."""

    target = Counter(g for item in items for g in grams(item))
    corpus = Counter(g for shard in shards for text in shard for g in grams(text))

    def log_importance(gram):
        p, q = target[gram] / target.total(), corpus[gram] / corpus.total()
        return math.log(p + 1e-8) - math.log(q + 1e-8)

    return [np.mean([log_importance(g) for text in shard for g in grams(text)]) for shard in shards]


def test_ngram_importance_without_smoothing_is_dsirs():
    values, _ = ngram_importance(ITEMS, [LAW, LEAN], buckets=1 << 19, smoothing=0)
    np.testing.assert_allclose(values, naive_importance(ITEMS, [LAW, LEAN]), rtol=1e-9)


def test_what_few_items_lack_is_in_the_interval_of_ngram_importance_and_not_in_the_value():
    shards, items = [LAW, LEAN], [*ITEMS, "a new word", "theorem new"]

    def values_of(some):
        return ngram_importance(some, shards, buckets=1 << 19)[0]

    values, influence = ngram_importance([*items, ""], shards, buckets=1 << 19)
    held, n = Counter(gram for item in items for gram in set(grams(item))), len(items)
    recurring = np.mean([count > 1 for count in held.values()])
    without = [values_of(items[:k] + items[k + 1 :]) for k in range(n)]
    weight, mean = (n - 1) / max(recurring, 1 / n), np.mean(without, axis=0)
    np.testing.assert_allclose(influence.bias, weight * (mean - values), rtol=1e-9)
    np.testing.assert_allclose(influence.target, (n - 1) * (mean - without).T, atol=1e-9)
    assert influence.level == pytest.approx(weight / (n - 1))


def test_what_the_items_lack_lies_where_ngrams_of_one_item_lie():
    """By hand: ten words, of which the shard's are half seen, and half of the rest of one item."""
    words = [f"w{n}" for n in range(10)]
    shards = [[" ".join(words[:6])], [" ".join(words[4:])]]
    items = ["w0 w1", "w0 w4", "w0 w0"]
    (value, _), _ = ngram_importance(items, shards, buckets=1 << 19)
    held = Counter(gram for item in items for gram in set(grams(item)))
    target = Counter(gram for item in items for gram in grams(item))
    corpus = Counter(gram for (text,) in shards for gram in grams(text))
    alone = {gram: target[gram] for gram in target if held[gram] == 1}
    missing = min(sum(alone.values()) / target.total(), 2 / 3)
    mine = grams(shards[0][0])
    base = {gram: corpus[gram] / corpus.total() for gram in mine}
    lacked = [gram for gram in mine if not held[gram]]
    there = sum(alone[gram] / base[gram] for gram in mine if gram in alone) / sum(alone.values())
    smoothing = 1 / target.total()

    def log(ratio):
        return math.log((ratio + smoothing) / (1 + smoothing))

    seen = [log((1 - missing) * target[g] / target.total() / base[g]) for g in mine if held[g]]
    expected = sum(seen) + len(lacked) * log(missing * there / len(lacked))
    assert value == pytest.approx(expected / len(mine), abs=0.01)  # buckets of no n-gram count


def test_intervals_of_ngram_importance_of_few_items_hold_the_value_of_many():
    rng = np.random.default_rng(3)
    shares = 1 / np.arange(1, 2_001)
    shares /= shares.sum()

    def drawn(count, words, alike=300.0):
        own = rng.gamma(alike * shares, size=(count, len(shares))) + 1e-300
        own /= own.sum(axis=1, keepdims=True)
        return [" ".join(f"w{n}" for n in rng.choice(2_000, words, p=row)) for row in own]

    items = drawn(600, 60)
    other = [" ".join(f"w{n}" for n in rng.integers(0, 2_000, 60)) for _ in range(30)]
    shards = [drawn(30, 60), drawn(15, 60) + other[:15], other]
    truth, _ = ngram_importance(items, shards)
    for count in (8, 20):
        hits, ranks = [], []
        for _ in range(25):
            some = [items[k] for k in rng.permutation(len(items))[:count]]
            values, influence = ngram_importance(some, shards)
            influence = replace(influence, shard=np.zeros_like(influence.shard))
            low, high = t_intervals(values, influence)
            hits.append((low <= truth) & (truth <= high))
            ranks.append(values.argsort())
            assert (values > truth - 0.1).all()  # taken for impossible, what lacks took 0.2 to 1
            assert (values < truth + 0.7).all()
        assert np.mean(hits) >= 0.9
        assert (np.array(ranks) == truth.argsort()).mean() > 0.9


def test_ngram_importance_of_a_lone_item_has_no_influence_of_the_target():
    _, influence = ngram_importance(ITEMS[:1], [LAW, LEAN])
    assert influence.target.shape == (2, 0)


# --- classifier ---


def test_the_classifier_does_not_see_length():
    rng = np.random.default_rng(0)
    words = np.array([f"w{n}" for n in range(50)])

    def texts(length, count):
        return [" ".join(rng.choice(words, length)) for _ in range(count)]

    values, _ = classifier(texts(20, 40), [texts(21, 60), texts(400, 6), texts(45, 30)])
    assert np.ptp(values) < 0.5
    different, _ = classifier(
        texts(20, 40), [texts(21, 60), [t.upper()[::-1] for t in texts(400, 6)]]
    )
    assert np.ptp(different) > 2


def test_the_classifier_orders_shards_by_their_share_of_the_targets_words():
    rng = np.random.default_rng(1)
    common, own = np.array([f"c{n}" for n in range(80)]), np.array([f"t{n}" for n in range(80)])

    def texts(share, count):
        return [
            " ".join(np.where(rng.random(30) < share, rng.choice(own, 30), rng.choice(common, 30)))
            for _ in range(count)
        ]

    values, _ = classifier(texts(0.9, 40), [texts(share, 40) for share in (0.0, 0.2, 0.5, 0.9)])
    assert values.argsort().tolist() == [0, 1, 2, 3]


def test_the_classifier_refuses_a_lone_item_and_bears_a_lone_piece():
    with pytest.raises(ValueError, match="two items"):
        classifier(ITEMS[:1], [LAW])
    assert np.isfinite(classifier(ITEMS, [["one word"]])[0]).all()
    assert classifier(ITEMS, [LAW, LEAN], seed=1)[0].argmax() == 1


# --- held against the papers' own code, where it is installed ---


def test_ngram_importance_agrees_with_the_package_data_selection(tmp_path):
    dsir = pytest.importorskip("data_selection")
    paths = []
    for name, texts in (("target", ITEMS), ("law", LAW), ("lean", LEAN)):
        paths.append(str(tmp_path / f"{name}.jsonl"))
        lines = [json.dumps({"text": text}) for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    buckets = 1 << 20  # so many that the two hashes hardly matter
    model = dsir.HashedNgramDSIR(
        paths[1:], paths[:1], cache_dir=str(tmp_path / "cache"), num_proc=1, num_buckets=buckets
    )
    model.fit_importance_estimator(num_tokens_to_fit="all")
    theirs = []
    for texts in (LAW, LEAN):
        features = [model.featurizer(text) for text in texts]
        theirs.append(
            sum(model.importance_estimator(f) for f in features) / sum(f.sum() for f in features)
        )
    ours, _ = ngram_importance(ITEMS, [LAW, LEAN], buckets=buckets, smoothing=0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_compression_agrees_with_the_package_zip_fit(codec):
    zip_fit = pytest.importorskip("zip_fit")
    model = zip_fit.ZIPFIT("", "", k=9, compression_algorithm=codec, compress_level=9)
    for documents, ours in zip(
        (LAW, LEAN), compression(ITEMS, (LAW, LEAN), codec=codec)[0], strict=True
    ):
        ranked = dict(model.rank_sequences_by_alignment(documents, ITEMS))
        theirs = np.mean([ranked[text] for text in documents])
        assert ours == pytest.approx(theirs, rel=1e-3 if codec == "zstd" else 1e-12)
