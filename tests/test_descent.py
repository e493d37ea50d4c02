"""From natural proportions to the mixture of least cost: closed forms, caps, and softness."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.mixing.descent import descend as descend_freely
from curate.mixing.descent import divergence, within

NATURAL = np.array([0.4, 0.3, 0.2, 0.1])
OPEN = np.ones(4)


def descend(cost, natural, caps, pulls, **given):
    """Return the mixtures, none of which passes a cap."""
    fit = within(caps)
    return [fit(shares) for shares in descend_freely(cost, natural, fit, pulls, **given)]


def linear(slopes):
    return lambda shares: (float(shares @ slopes), slopes)


def entropy(words, target):
    """Cross-entropy of a target under a mixture of unigram distributions: convex."""

    def cost(shares):
        mixture = shares @ words
        return float(-target @ np.log(mixture)), -words @ (target / mixture)

    return cost


def words_of(seed, n=4, k=12):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(k, 0.5), size=n), rng.dirichlet(np.full(k, 0.5))


@pytest.mark.parametrize("pull", [5.0, 0.5, 0.1])
def test_a_linear_cost_gives_exponential_shares(pull):
    slopes = np.array([0.3, -0.2, 0.5, 0.0])
    (shares,) = descend(linear(slopes), NATURAL, OPEN, [pull])
    wanted = NATURAL * np.exp(-slopes / pull)
    np.testing.assert_allclose(shares, wanted / wanted.sum(), rtol=1e-9)


def test_a_cap_takes_what_it_allows_and_the_others_share_the_rest():
    slopes, caps = np.array([0.3, -0.2, 0.5, 0.0]), np.array([1.0, 0.35, 1.0, 1.0])
    (shares,) = descend(linear(slopes), NATURAL, caps, [0.1])
    wanted = np.where(np.arange(4) == 1, 0, NATURAL * np.exp(-slopes / 0.1))
    np.testing.assert_allclose(
        shares, np.where(np.arange(4) == 1, 0.35, 0.65 * wanted / wanted.sum())
    )


@pytest.mark.parametrize("pull", [0.5, 0.05])
def test_what_is_found_is_where_the_gain_of_each_shard_makes_its_share(pull):
    words, target = words_of(1)
    cost = entropy(words, target)
    (shares,) = descend(cost, NATURAL, OPEN, [pull], steps=300)
    wanted = NATURAL * np.exp(-cost(shares)[1] / pull)
    np.testing.assert_allclose(shares, wanted / wanted.sum(), atol=2e-3)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_no_mixture_on_a_grid_is_better(seed):
    words, target = words_of(seed, n=3)
    natural, caps = np.full(3, 1 / 3), np.array([0.5, 0.6, 0.9])
    cost, pull = entropy(words, target), 0.02
    (*_, shares) = descend(cost, natural, caps, [0.5, 0.1, pull], steps=60)
    steps = np.linspace(0, 1, 41)
    grid = [np.array([a, b, 1 - a - b]) for a in steps for b in steps if a + b <= 1]
    inside = [each for each in grid if (each <= caps + 1e-9).all()]

    def whole(each):
        return cost(each)[0] + pull * divergence(each, natural)

    assert whole(shares) <= min(map(whole, inside)) + 1e-3
    assert shares.sum() == pytest.approx(1) and (shares <= caps + 1e-9).all()


def test_less_pull_costs_less_and_goes_farther():
    words, target = words_of(2)
    cost = entropy(words, target)
    found = descend(cost, NATURAL, OPEN, [2.0 ** (-n / 2) for n in range(16)], steps=8)
    costs, away = [cost(each)[0] for each in found], [divergence(each, NATURAL) for each in found]
    assert costs == sorted(costs, reverse=True) and away == sorted(away)
    assert costs[0] < cost(NATURAL)[0]


def test_the_order_of_shards_does_not_matter():
    words, target = words_of(3)
    order = np.array([2, 0, 3, 1])
    one = descend(entropy(words, target), NATURAL, OPEN, [0.3, 0.1])
    other = descend(entropy(words[order], target), NATURAL[order], OPEN, [0.3, 0.1])
    np.testing.assert_allclose([each[order] for each in one], other)


def test_where_nothing_can_be_chosen_all_is_taken():
    found = descend(linear(np.arange(4.0)), NATURAL, NATURAL, [0.1])
    np.testing.assert_allclose(found[0], NATURAL)
    assert descend(linear(np.ones(1)), np.ones(1), np.ones(1), [0.1])[0] == pytest.approx([1.0])


def test_a_shard_without_tokens_gets_none():
    natural = np.array([0.5, 0.5, 0.0])
    slopes, caps = np.array([0.0, 1.0, -9.0]), np.array([1.0, 1.0, 0.0])
    for pull in (0.1, 1e-3):
        (found,) = descend(linear(slopes), natural, caps, [pull])
        assert found[2] == 0 and found[0] > 0.99 and found.sum() == pytest.approx(1)


def test_divergence_in_closed_form():
    assert divergence(NATURAL, NATURAL) == 0
    assert divergence(np.array([1.0, 0, 0, 0]), NATURAL) == pytest.approx(np.log(2.5))


def test_what_is_wanted_counts_what_is_there_anyway():
    """Half of the mixture is of the first shard, whatever is wanted: its kind is not asked for."""
    words = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    cost, natural = entropy(words, np.array([0.5, 0.45, 0.05])), np.full(3, 1 / 3)
    first = np.array([0.5, 0.0, 0.0])
    (wanted,) = descend_freely(cost, natural, lambda shares: first + shares / 2, [0.05], steps=20)
    (alone,) = descend_freely(cost, natural, within(np.ones(3)), [0.05], steps=20)
    assert alone[0] > 0.35 > 0.1 > wanted[0] and wanted[1] > 0.8
    assert cost(first + wanted / 2)[0] < cost(first + alone / 2)[0] - 0.01
