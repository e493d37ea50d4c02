import math
import zlib

import numpy as np
import pytest

from curate.ranking import baselines
from curate.ranking.stats import t_intervals

LEAN = ["theorem foo (a b : nat) : a + b = b + a := by simp", "lemma bar : p → p := λ h, h"] * 3
LAW = ["The court held that the claim was barred.", "The plaintiff appealed to the court."] * 3
ITEMS = ["theorem baz (n : nat) : n + 0 = n := by simp", "lemma qux : q → q := λ h, h"]


def counts(rows, vocab=6):
    return np.array(rows, dtype=np.int64).reshape(-1, vocab)


def test_lexical_is_minus_the_cross_entropy_under_the_smoothed_shard():
    items = counts([[2, 1, 0, 0, 0, 0], [0, 3, 1, 0, 0, 0]])
    shards = counts([[50, 40, 10, 0, 0, 0], [0, 0, 0, 30, 30, 40]])
    background = shards.sum(axis=0)
    values, _ = baselines.lexical(items, shards, background=background, prior=10.0)
    spread = (background + 0.5) / (background + 0.5).sum()
    for row, value in zip(shards, values, strict=True):
        model = (row + 10 * spread) / (row.sum() + 10)
        naive = sum(math.log(model[token]) for token in [0, 0, 1, 1, 1, 1, 2]) / 7
        assert value == pytest.approx(naive)


def test_lexical_is_best_for_the_targets_own_distribution_and_bounded_by_its_entropy():
    rng = np.random.default_rng(0)
    places = rng.dirichlet(np.ones(50), size=5)
    shards = np.stack([rng.multinomial(100_000, place) for place in places])
    items = rng.multinomial(500, places[2], size=40)
    values, influence = baselines.lexical(items, shards, background=shards.sum(axis=0))
    entropy = -(places[2] * np.log(places[2])).sum()
    assert values.argmax() == 2
    assert values[2] == pytest.approx(-entropy, abs=0.03)
    low, high = t_intervals(values, influence)
    assert (low < values).all() and (values < high).all()
    assert (low[2] < -entropy) and (-entropy < high[2])


def test_lexical_intervals_cover_over_items():
    rng = np.random.default_rng(1)
    place, other = rng.dirichlet(np.ones(30), size=2)
    shard = rng.multinomial(100_000, other)[None]
    spread = (shard[0] + 0.5) / (shard[0] + 0.5).sum()
    model = (shard[0] + 1_000 * spread) / (shard[0].sum() + 1_000)
    truth = place @ np.log(model)
    hits = 0
    for _ in range(400):
        items = rng.multinomial(20, place, size=12)
        values, influence = baselines.lexical(items, shard, background=shard[0])
        low, high = t_intervals(values, influence)
        hits += bool(low[0] <= truth <= high[0])
    assert 0.93 <= hits / 400 <= 0.97


def test_lexical_does_not_mind_empty_items_and_refuses_an_empty_target():
    shards = counts([[5, 5, 0, 0, 0, 1]])
    with_empty = baselines.lexical(
        counts([[1, 0, 0, 0, 0, 0], [0] * 6]), shards, background=shards[0]
    )
    without = baselines.lexical(counts([[1, 0, 0, 0, 0, 0]]), shards, background=shards[0])
    assert with_empty[0] == pytest.approx(without[0])
    with pytest.raises(ValueError, match="no token"):
        baselines.lexical(counts([[0] * 6]), shards, background=shards[0])
    with pytest.raises(ValueError, match="vocabularies"):
        baselines.lexical(counts([[1] * 6]), shards, background=np.ones(5))


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


def test_compression_is_one_minus_the_mean_distance_of_all_pairs():
    values, _ = baselines.compression(ITEMS, [LEAN[:2], LAW[:2]])

    def size(text):
        return len(zlib.compress(text.encode(), 9))

    def distance(a, b):
        return (size(a + b) - min(size(a), size(b))) / max(size(a), size(b))

    for value, documents in zip(values, (LEAN[:2], LAW[:2]), strict=True):
        assert value == pytest.approx(
            1 - np.mean([distance(a, b) for a in ITEMS for b in documents])
        )
    assert values[0] > values[1]


@pytest.mark.parametrize("method", [baselines.compression, baselines.ngram_importance])
def test_methods_that_read_text_put_the_like_first_and_refuse_nothing(method):
    values, influence = method(ITEMS, [LAW, LEAN])
    assert values.argmax() == 1
    low, high = t_intervals(values, influence)
    assert (low <= values).all() and (values <= high).all()
    with pytest.raises(ValueError, match="document"):
        method(ITEMS, [[]])
    with pytest.raises(ValueError, match="item"):
        method([], [LAW])


def test_ngram_importance_is_a_mean_over_ngrams_not_a_sum():
    once, _ = baselines.ngram_importance(ITEMS, [LAW, LEAN])
    longer, _ = baselines.ngram_importance(ITEMS, [LAW * 40, LEAN * 40])
    assert longer == pytest.approx(once, abs=0.15)


def test_ngram_importance_of_a_lone_item_has_no_influence_of_the_target():
    _, influence = baselines.ngram_importance(ITEMS[:1], [LAW, LEAN])
    assert influence.target.shape == (2, 0)
