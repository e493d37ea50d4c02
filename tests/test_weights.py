"""How many tokens of each shard."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.mixing.weights import (
    Spread,
    best_first,
    fill_by_share,
    spread_tokens,
)
from curate.mixing.weights import choose_weights as choose_spread


def choose_weights(alignments, tokens, *, budget, max_epochs=1.0, **settings):
    spread = choose_spread(alignments, tokens, budget=budget, max_epochs=max_epochs, **settings)
    room = np.floor(np.asarray(tokens) * max_epochs).astype(int)
    return spread_tokens(spread, room, budget=budget)


def test_top_takes_the_best_shards_whole_and_the_next_in_part():
    tokens = choose_weights(np.array([0.1, 0.9, 0.5]), np.array([100, 60, 50]), budget=90)
    assert tokens.tolist() == [0, 60, 30]


def test_top_repeats_no_more_than_the_epochs_allow():
    tokens = choose_weights(np.array([0.1, 0.9]), np.array([100, 60]), budget=160, max_epochs=2.5)
    assert tokens.tolist() == [10, 150]


def test_equal_alignments_are_ordered_by_the_seed():
    orders = {tuple(best_first(np.zeros(6), seed=seed)) for seed in range(8)}
    assert len(orders) > 1
    assert tuple(best_first(np.zeros(6), seed=3)) == tuple(best_first(np.zeros(6), seed=3))


def test_a_high_temperature_is_the_natural_mix_and_a_low_one_the_best_shard():
    alignments, sizes = np.array([0.2, 0.8]), np.array([3000, 1000])
    warm = choose_weights(alignments, sizes, budget=400, selection="temperature", temperature=1e6)
    cold = choose_weights(alignments, sizes, budget=400, selection="temperature", temperature=1e-3)
    assert warm.tolist() == [300, 100]
    assert cold.tolist() == [0, 400]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=12),
    part=st.floats(0.001, 1.0),
    seed=st.integers(0, 99),
)
def test_every_selection_spends_the_budget_exactly_within_the_room(sizes, part, seed):
    rng = np.random.default_rng(seed)
    tokens = np.array(sizes)
    budget = max(1, int(tokens.sum() * part))
    if tokens.sum() < budget:
        return
    shares = rng.dirichlet(np.ones(len(sizes)))
    for selection in ("top", "temperature", "match"):
        chosen = choose_weights(
            rng.random(len(sizes)),
            tokens,
            budget=budget,
            selection=selection,
            matched=shares,
        )
        assert chosen.sum() == budget
        assert (chosen >= 0).all() and (chosen <= tokens).all()


def test_shares_that_meet_a_cap_are_split_among_the_others():
    assert fill_by_share(np.array([10, 100, 100]), np.array([8.0, 1, 1]), budget=50).tolist() == [
        10,
        20,
        20,
    ]
    assert fill_by_share(np.array([10, 100]), np.array([1.0, 0]), budget=50).tolist() == [10, 40]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 1000}, "room for 160 tokens"),
        ({"budget": 0}, "above 0"),
        ({"max_epochs": 0.0}, "above 0"),
        ({"selection": "match"}, "matched"),
        ({"selection": "temperature", "temperature": 0.0}, "temperature"),
    ],
)
def test_wrong_numbers_are_refused(change, message):
    arguments = {"budget": 80} | change
    with pytest.raises(ValueError, match=message):
        choose_weights(np.array([0.2, 0.9]), np.array([100, 60]), **arguments)
    with pytest.raises(ValueError, match="finite"):
        choose_weights(np.array([np.nan, 0.9]), np.array([100, 60]), budget=10)
    with pytest.raises(ValueError, match="differ"):
        choose_weights(np.array([0.9]), np.array([100, 60]), budget=10)


def totals(spread, room, budget, groups):
    found = spread_tokens(spread, np.array(room), budget=budget)
    assert found.sum() == budget and (found >= 0).all() and (found <= room).all()
    return np.bincount(groups, found, minlength=3).astype(int).tolist()


def test_floors_and_ceilings_hold_and_the_rest_keeps_its_order():
    groups, room = np.array([0, 0, 1, 1, 2]), [50, 50, 50, 50, 100]
    order = {"order": np.arange(5), "groups": groups}
    assert totals(Spread(**order), room, 100, groups) == [100, 0, 0]
    assert totals(Spread(**order, floors={2: 0.2}), room, 100, groups) == [80, 0, 20]
    assert totals(Spread(**order, ceilings={0: 0.6}), room, 100, groups) == [60, 40, 0]
    both = Spread(**order, floors={2: 0.2}, ceilings={0: 0.3})
    assert totals(both, room, 100, groups) == [30, 50, 20]


def test_a_bound_that_is_kept_anyway_changes_nothing():
    groups, room = np.array([0, 1, 2]), np.array([100, 100, 100])
    shares = np.array([0.5, 0.3, 0.2])
    free = spread_tokens(Spread(shares=shares), room, budget=150)
    bound = Spread(shares=shares, groups=groups, floors={2: 0.1}, ceilings={0: 0.9})
    assert spread_tokens(bound, room, budget=150).tolist() == free.tolist()


def test_what_is_blended_in_has_natural_proportions():
    groups, room = np.array([0, 1, 1]), np.array([100, 100, 200])
    whole = Spread(order=np.arange(3), groups=groups, blend=((-1, 0.4),))
    assert spread_tokens(whole, room, budget=100).tolist() == [70, 10, 20]
    one = Spread(order=np.arange(3), groups=groups, blend=((1, 0.3),))
    assert spread_tokens(one, room, budget=100).tolist() == [70, 10, 20]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_random_bounds_are_kept_where_they_can_be(seed):
    rng = np.random.default_rng(seed)
    groups, room = rng.integers(0, 3, 8), rng.integers(0, 1000, 8)
    budget = int(room.sum() * rng.uniform(0.05, 0.5))
    have = np.bincount(groups, room, minlength=3)
    if budget < 10 or (have < budget * 0.2).any():
        return
    floors = {0: float(rng.uniform(0, 0.2)), 1: float(rng.uniform(0, 0.2))}
    shares = rng.random(8)
    spread = Spread(shares=shares, groups=groups, floors=floors)
    found = np.bincount(groups, spread_tokens(spread, room, budget=budget), minlength=3)
    assert all(found[group] >= round(share * budget) for group, share in floors.items())
