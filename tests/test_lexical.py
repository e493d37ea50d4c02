"""Alignment by word counts: entropy, values, intervals, what each word takes away."""

import math

import numpy as np
import pytest
from scipy import sparse

from curate.ranking.entropy import entropy, item_entropy
from curate.ranking.lexical import (
    DEALS,
    count_items,
    excess,
    fill_gaps,
    lexical,
    lexical_cross_entropy,
    lexical_values,
    own_halves,
    pool_items,
    shares_of,
    word_losses,
)
from curate.ranking.stats import Influences, t_intervals


def counts(rows, vocab=6):
    return np.array(rows, dtype=np.int64).reshape(-1, vocab)


def plain_entropy(shares):
    shares = shares[shares > 0]
    return -(shares * np.log(shares)).sum()


# --- values ---


def test_lexical_is_entropy_minus_cross_entropy_under_the_smoothed_shard():
    items = counts([[2, 1, 0, 0, 0, 0], [0, 3, 1, 0, 0, 0]])
    shards = counts([[50, 40, 10, 0, 0, 0], [0, 0, 0, 30, 30, 40]])
    background = shards.sum(axis=0)
    values, _ = lexical(items, shards, background=background, filled=0.05)
    spread = (background + 0.5) / (background + 0.5).sum()
    for row, value in zip(shards, values, strict=True):
        model = 0.95 * row / row.sum() + 0.05 * spread
        naive = sum(math.log(model[token]) for token in [0, 0, 1, 1, 1, 1, 2]) / 7
        assert value == pytest.approx(item_entropy(items)[0] + naive)


def test_the_targets_own_distribution_is_best_and_aligns_to_one():
    rng = np.random.default_rng(0)
    places = rng.dirichlet(np.ones(50), size=5)
    shards = np.stack([rng.multinomial(100_000, place) for place in places])
    items = rng.multinomial(500, places[2], size=40)
    values, influence = lexical(items, shards, background=shards.sum(axis=0))
    assert values.argmax() == 2
    assert np.exp(values[2]) == pytest.approx(1.0, abs=0.03)
    assert (np.delete(np.exp(values), 2) < 0.9).all()
    low, high = t_intervals(values, influence)
    assert (low <= values).all() and (values <= high).all()


@pytest.mark.parametrize("items", [40, 200, 1_000])
def test_alignment_does_not_move_with_the_size_of_the_target(items):
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.full(500, 0.3), size=2)
    shards = np.stack([rng.multinomial(10**6, place) for place in shares])
    drawn = [rng.multinomial(25, shares[0], size=items) for _ in range(20)]
    found = np.exp([lexical(each, shards, background=shards.sum(axis=0))[0] for each in drawn])
    truth = np.exp(plain_entropy(shares[0]) + shares[0] @ np.log(shards[1] / 10**6 + 1e-6))
    assert found[:, 0].mean() == pytest.approx(1.0, abs=0.05)
    assert found[:, 1].mean() == pytest.approx(truth, abs=0.08)


def test_lexical_knows_no_order_and_no_scale_of_large_shards():
    rng = np.random.default_rng(4)
    items, shards = rng.poisson(2, (7, 30)), rng.poisson(40_000, (3, 30))
    background = shards.sum(axis=0)
    values, _ = lexical(items, shards, background=background)
    turned, moved = rng.permutation(30), rng.permutation(7)
    again, _ = lexical(items[moved][:, turned], shards[:, turned], background=background[turned])
    assert again == pytest.approx(values)
    scaled, _ = lexical(items, 9 * shards, background=background)
    assert scaled == pytest.approx(values, abs=1e-3)


def test_it_is_not_symmetric_a_broad_shard_covers_a_narrow_target():
    narrow, broad = counts([[90_000] * 2 + [0] * 4]), counts([[30_000] * 6])
    background = (narrow + broad)[0]
    covered = np.exp(lexical(narrow, broad, background=background)[0][0])
    missing = np.exp(lexical(broad, narrow, background=background)[0][0])
    assert covered > 5 * missing


def test_intervals_cover_over_items():
    rng = np.random.default_rng(1)
    place, other = rng.dirichlet(np.ones(30), size=2)
    shard = rng.multinomial(100_000, other)[None]
    model = fill_gaps(shard[0], shard[0].sum(), shares_of(shard[0]))
    truth = plain_entropy(place) + place @ np.log(model)
    hits = 0
    for _ in range(1_000):
        items = rng.multinomial(40, place, size=12)
        values, influence = lexical(items, shard, background=shard[0])
        low, high = t_intervals(values, influence)
        hits += bool(low[0] <= truth <= high[0])
    assert 0.93 <= hits / 1_000 <= 0.97


def test_intervals_of_differences_cover_and_know_nothing_of_the_entropy():
    rng = np.random.default_rng(2)
    place, *others = rng.dirichlet(np.full(300, 0.5), size=3)
    shards = np.stack([rng.multinomial(100_000, (place + other) / 2) for other in others])
    background = shards.sum(axis=0)
    models = [fill_gaps(row, row.sum(), shares_of(background)) for row in shards]
    truth = place @ (np.log(models[0]) - np.log(models[1]))
    hits = 0
    for _ in range(400):
        items = rng.multinomial(30, place, size=15)
        values, influence = lexical(items, shards, background=background)
        moves = influence.target[:1] - influence.target[1:]  # what is common to both goes
        apart = Influences(moves, np.zeros((1, 1)), np.ones(1, dtype=int))
        low, high = t_intervals(values[:1] - values[1:], apart)
        hits += bool(low[0] <= truth <= high[0])
    assert 0.93 <= hits / 400 <= 0.97


@pytest.mark.parametrize(("vocab", "items"), [(300, 40), (1_000, 200)])
def test_intervals_of_the_alignment_itself_are_rather_too_wide(vocab, items):
    rng = np.random.default_rng(1)
    place, other = rng.dirichlet(np.full(vocab, 0.3), size=2)
    shard = rng.multinomial(100_000, (place + other) / 2)[None]
    model = fill_gaps(shard[0], shard[0].sum(), shares_of(shard[0]))
    truth = plain_entropy(place) + place @ np.log(model)
    hits = 0
    for _ in range(200):
        drawn = rng.multinomial(100, place, size=items)
        low, high = t_intervals(*lexical(drawn, shard, background=shard[0]))
        hits += bool(low[0] <= truth <= high[0])
    assert hits / 200 >= 0.9


def test_a_small_shard_gains_nothing_by_being_small():
    """What a shard lacks is filled in the same measure, however few tokens it has."""
    rng = np.random.default_rng(7)
    places = rng.dirichlet(np.full(400, 0.2), size=8)
    large = np.stack([rng.multinomial(200_000, place) for place in places[1:]])
    background = large.sum(axis=0)
    small = rng.multinomial(1_000, places[1])[None]
    items = rng.multinomial(200, (places[0] + places[1:].mean(axis=0)) / 2, size=40)
    whole = lexical(items, large[:1], background=background)[0]
    assert lexical(items, small, background=background)[0] < whole
    none = lexical(items, np.zeros((1, 400)), background=background)[0]
    assert none == pytest.approx(lexical(items, background[None], background=background)[0], 1e-3)


def test_what_the_best_value_is_above_none_is_off_all_and_nothing_else_is():
    assert excess(np.array([-0.5, 0.25, 0.1])) == 0.25
    assert excess(np.array([-0.5, -0.1])) == 0.0
    assert excess(np.array([])) == 0.0


def test_empty_items_do_not_matter_and_an_empty_target_is_refused():
    shards = counts([[5, 5, 0, 0, 0, 1]])
    with_empty = lexical(counts([[1, 0, 0, 0, 0, 0], [0] * 6]), shards, background=shards[0])
    without = lexical(counts([[1, 0, 0, 0, 0, 0]]), shards, background=shards[0])
    assert with_empty[0] == pytest.approx(without[0])
    with pytest.raises(ValueError, match="no token"):
        lexical(counts([[0] * 6]), shards, background=shards[0])
    with pytest.raises(ValueError, match="vocabularies"):
        lexical(counts([[1] * 6]), shards, background=np.ones(5))


# --- the target's own halves ---


def test_halves_of_one_kind_align_and_those_of_two_kinds_do_not():
    rng = np.random.default_rng(5)
    place, other = rng.dirichlet(np.ones(40), size=2)
    background = np.full(40, 1_000.0)
    of_one = rng.multinomial(2_000, place, size=20)
    of_two = np.concatenate([of_one[:1], rng.multinomial(2_000, other, size=1)])
    assert np.exp(own_halves(of_one, background=background)) == pytest.approx(1.0, abs=0.05)
    assert np.exp(own_halves(of_two, background=background)) < 0.9
    assert own_halves(of_one, background=background) == own_halves(of_one, background=background)


def test_halves_by_hand():
    items = counts([[3, 1, 0, 0, 0, 0], [1, 1, 2, 0, 0, 0]])
    background = np.ones(6)
    found = [
        lexical(one[None], other[None], background=background)[0][0] - entropy(one)
        for one, other in (items, items[::-1])
    ]
    expected = item_entropy(items)[0] + np.mean(found)
    assert own_halves(items, background=background) == pytest.approx(expected)
    assert DEALS > 1
    assert math.isnan(own_halves(items[:1], background=background))


# --- words ---


def test_what_words_take_away_sums_to_the_relative_entropy():
    rng = np.random.default_rng(6)
    target, shard = rng.poisson(3, 50), rng.poisson(20, 50)
    background = shard + rng.poisson(5, 50)
    losses = word_losses(target, shard, background=background)
    wanted = target / target.sum()
    given = 0.999 * shard / shard.sum() + 0.001 * (background + 0.5) / (background + 0.5).sum()
    naive = sum(p * math.log(p / q) for p, q in zip(wanted, given, strict=True) if p > 0)
    assert losses.sum() == pytest.approx(naive)
    value = lexical(target[None], shard[None], background=background)[0][0]
    assert value - entropy(target) + plain_entropy(wanted) == pytest.approx(-losses.sum())


def test_the_word_that_a_shard_lacks_takes_most():
    target, shard = np.array([50, 50, 0]), np.array([10_000, 0, 10_000])
    losses = word_losses(target, shard, background=np.array([1.0, 1.0, 1.0]))
    assert losses.argmax() == 1
    assert losses[2] == 0.0


def test_items_are_counted_and_empty_ones_left_out():
    ids = {"a b a": [0, 1, 0], "": [], "b": [1]}
    found = count_items(["a b a", "", "b"], lambda texts: [ids[t] for t in texts], vocab=3)
    assert found.toarray().tolist() == [[2, 1, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match="no token"):
        count_items([""], lambda texts: [[] for _ in texts], vocab=3)


# --- very many shards ---


def test_values_of_many_shards_are_those_of_each():
    rng = np.random.default_rng(8)
    shards = rng.poisson(0.7, (9, 60)) * rng.integers(1, 9, (9, 60))
    shards[4] = 0
    target, background = rng.poisson(2, 60), shards.sum(axis=0)
    found = lexical_values(
        target, sparse.csr_array(shards), shards.sum(axis=1), background=background
    )
    values, _ = lexical(target[None], shards, background=background)
    assert found == pytest.approx(values - entropy(target))


def test_pooled_items_hold_every_token_once():
    rng = np.random.default_rng(9)
    items = sparse.csr_array(rng.poisson(0.3, (101, 40)))
    pooled = pool_items(items, most=8, seed=0)
    assert pooled.shape == (8, 40)
    assert (pooled.sum(axis=0) == items.sum(axis=0)).all()
    assert pool_items(items, most=101, seed=0) is items
    again = pool_items(items, most=8, seed=0)
    assert (pooled.toarray() == again.toarray()).all()
    assert (pooled.toarray() != pool_items(items, most=8, seed=1).toarray()).any()


def test_pooling_leaves_values_alone_and_intervals_much_as_they_are():
    rng = np.random.default_rng(10)
    shares = rng.dirichlet(np.ones(80), size=3)
    shards = np.stack([rng.multinomial(50_000, each) for each in shares])
    items = sparse.csr_array(rng.multinomial(40, shares[0], size=600))
    background = shards.sum(axis=0)
    every, pooled = (
        lexical(each, shards, background=background)
        for each in (items, pool_items(items, most=64, seed=0))
    )
    assert pooled[0] == pytest.approx(every[0], abs=1e-3)  # words of one group are not of one item
    wide, narrow = (high - low for low, high in (t_intervals(*pooled), t_intervals(*every)))
    assert wide == pytest.approx(narrow, rel=0.3)


def test_cross_entropy_with_itself_is_the_entropy():
    target = np.array([70, 20, 10])
    p = target / 100
    assert lexical_cross_entropy(target, p, tokens=1e12) == pytest.approx(-(p @ np.log(p)))


def test_a_missing_word_costs_a_finite_amount_and_less_in_a_smaller_mix():
    target, mixture = np.array([0, 10]), np.array([1.0, 0.0])
    small = lexical_cross_entropy(target, mixture, tokens=1e3)
    large = lexical_cross_entropy(target, mixture, tokens=1e6)
    assert small == pytest.approx(-np.log(0.5 / 1001))
    assert np.isfinite(large) and large > small
