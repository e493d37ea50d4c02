"""How many tokens of each shard."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.mixing.fill import fill_by_share, fill_in_order, smallest_parts
from curate.mixing.weights import (
    Spread,
    best_first,
    settle_selection,
    softest,
    spread_tokens,
    temperatures,
    tokens_of,
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


def split_exactly(room, shares, budget):
    """The definition of a split by shares, in fractions; only then in whole tokens."""
    room, shares = [Fraction(int(r)) for r in room], [Fraction(float(s)) for s in shares]
    given = [Fraction(0)] * len(room)
    while (rest := budget - sum(given)) > 0:
        open_ = [n for n in range(len(room)) if given[n] < room[n]]
        pull = {n: shares[n] for n in open_} if any(shares[n] for n in open_) else {
            n: room[n] for n in open_}  # fmt: skip
        part = min(
            [rest / sum(pull.values())]
            + [(room[n] - given[n]) / weight for n, weight in pull.items() if weight]
        )
        for n, weight in pull.items():
            given[n] += part * weight
    whole = [int(each) for each in given]
    by_rest = sorted(range(len(room)), key=lambda n: (whole[n] - given[n], n))
    while sum(whole) < budget:
        for n in by_rest:
            if sum(whole) < budget and whole[n] < room[n]:
                whole[n] += 1
    return whole


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_split_by_shares_is_what_its_definition_says(seed):
    rng = np.random.default_rng(seed)
    room = rng.integers(0, 40, rng.integers(1, 7))
    shares = rng.choice([0.0, 0.125, 0.25, 0.5, 1.0, 2.0], len(room))  # exact in floats
    budget = int(rng.integers(0, room.sum() + 1))
    found = fill_by_share(room, shares, budget=budget)
    wanted = split_exactly(room, shares, budget)
    assert found.sum() == budget
    np.testing.assert_allclose(found, wanted, atol=1)  # of equal remainders either may have it


def test_the_largest_remainders_get_the_missing_tokens():
    room = np.array([100, 100, 100])
    assert fill_by_share(room, np.array([0.31, 0.45, 0.24]), budget=10).tolist() == [3, 5, 2]
    assert fill_by_share(room, np.array([0.24, 0.31, 0.45]), budget=10).tolist() == [2, 3, 5]
    assert fill_by_share(room, np.array([0.2, 0.2, 0.6]), budget=2).tolist() == [1, 0, 1]
    full = np.array([2, 1, 0])
    assert fill_by_share(full, np.array([0.4, 0.6, 0.0]), budget=3).tolist() == [2, 1, 0]


def test_positions_of_no_share_are_filled_last_and_by_room():
    room = np.array([10, 30, 60])
    assert fill_by_share(room, np.array([1.0, 0, 0]), budget=10).tolist() == [10, 0, 0]
    assert fill_by_share(room, np.array([1.0, 0, 0]), budget=40).tolist() == [10, 10, 20]
    assert fill_by_share(room, np.zeros(3), budget=50).tolist() == [5, 15, 30]
    assert fill_by_share(room, np.ones(3), budget=100).tolist() == [10, 30, 60]


def test_a_fill_in_order_stops_where_the_budget_ends():
    room = np.array([5, 10, 20])
    assert fill_in_order(room, np.array([2, 0, 1]), budget=22).tolist() == [2, 0, 20]
    assert fill_in_order(room, np.array([2, 0, 1]), budget=35).tolist() == [5, 10, 20]
    with pytest.raises(ValueError, match="room for 35 tokens, budget 36"):
        fill_in_order(room, np.array([2, 0, 1]), budget=36)


def test_a_bound_is_met_to_the_token():
    groups, room = np.array([0, 1, 2]), [100, 100, 100]
    order = {"order": np.arange(3), "groups": groups}
    assert totals(Spread(**order, floors={1: 0.105}), room, 100, groups) == [90, 10, 0]
    assert totals(Spread(**order, ceilings={0: 0.005}), room, 100, groups) == [1, 99, 0]
    assert totals(Spread(**order, floors={2: 0.3}), [100, 100, 20], 100, groups) == [80, 0, 20]
    blended = Spread(**order, ceilings={0: 0.3}, blend=((0, 0.1), (1, 0.1)))
    assert totals(blended, room, 100, groups) == [30, 70, 0]
    floored = Spread(**order, floors={2: 0.3}, blend=((2, 0.1),))
    assert totals(floored, room, 100, groups) == [70, 0, 30]
    above = Spread(**order, ceilings={0: 0.3}, blend=((0, 0.4),))  # what is blended in stays
    assert totals(above, room, 100, groups) == [40, 60, 0]
    none = Spread(groups=groups)
    with pytest.raises(ValueError, match="an order or shares"):
        spread_tokens(none, np.array(room), budget=1)
    with pytest.raises(ValueError, match="room for"):
        spread_tokens(Spread(**order, ceilings=dict.fromkeys(range(3), 0.3)), np.array(room),
                      budget=100)  # fmt: skip


def test_a_blend_takes_no_more_than_there_is_and_the_seed_draws_among_equals():
    groups = np.array([0, 1])
    spread = Spread(order=np.arange(2), groups=groups, blend=((1, 0.5),))
    assert spread_tokens(spread, np.array([100, 20]), budget=100).tolist() == [80, 20]
    twice = Spread(order=np.array([1, 0]), groups=groups, blend=((0, 0.2), (-1, 0.4)))
    assert spread_tokens(twice, np.array([30, 40]), budget=50).tolist() == [19, 31]
    assert best_first(np.array([0.1, 0.9, 0.5]), seed=0).tolist() == [1, 2, 0]
    drawn = np.random.default_rng(7).permutation(4)
    assert best_first(np.zeros(4), seed=7).tolist() == drawn.tolist()
    assert choose_spread(np.zeros(4), np.ones(4), budget=4).order.tolist() == best_first(
        np.zeros(4), seed=0).tolist()  # fmt: skip


def test_shares_by_temperature_are_tokens_times_an_exponential():
    alignments, tokens = np.array([0.1, 0.3, 0.2]), np.array([10, 20, 30])
    for words, used in (({}, 0.05), ({"temperature": 0.2}, 0.2)):
        found = choose_spread(alignments, tokens, budget=5, selection="temperature", **words)
        expected = tokens * np.exp(alignments / used)
        np.testing.assert_allclose(
            found.shares / found.shares.sum(), expected / expected.sum(), rtol=1e-12
        )
    huge = choose_spread(np.array([0.0, 900.0]), np.ones(2), budget=1, selection="temperature")
    assert np.isfinite(huge.shares).all()
    chosen = choose_spread(alignments, tokens, budget=5, selection="match", matched=alignments)
    assert chosen.shares is alignments and chosen.order is None


def test_numbers_just_within_their_range_are_taken():
    choose_spread(np.array([0.5]), np.array([1]), budget=1)
    choose_spread(np.array([0.5, 0.1]), np.array([0, 3]), budget=1, max_epochs=0.5)
    for tokens, epochs in (([-1, 200], 1.0), ([100, 60], -1.0)):
        with pytest.raises(ValueError, match="above 0, tokens not below"):
            choose_spread(np.zeros(2), np.array(tokens), budget=10, max_epochs=epochs)
    with pytest.raises(ValueError, match="differ"):
        choose_spread(np.zeros((2, 1)), np.ones((2, 1)), budget=1)
    with pytest.raises(ValueError, match="room for 1 tokens, budget 2"):
        choose_spread(np.zeros(2), np.array([3, 1]), budget=2, max_epochs=0.5)
    with pytest.raises(ValueError, match=r"temperature -1\.0 is not"):
        choose_spread(np.zeros(1), np.ones(1), budget=1, selection="temperature", temperature=-1.0)


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


def test_what_a_ceiling_frees_goes_to_a_source_that_is_at_its_floor():
    groups, room = np.array([0, 1]), [100, 100]
    order = {"order": np.array([1, 0]), "groups": groups}
    assert totals(Spread(**order, floors={0: 0.2}, ceilings={1: 0.3}), room, 100, groups) == [
        70, 30, 0,
    ]  # fmt: skip
    assert totals(Spread(**order, floors={0: 0.7}, ceilings={1: 0.3}), room, 100, groups) == [
        70, 30, 0,
    ]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_floors_and_ceilings_that_can_be_kept_together_are(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 5))
    groups = np.repeat(np.arange(count), 2)
    room = rng.integers(1, rng.choice([100, 100_000]), 2 * count)
    have = np.bincount(groups, room)
    budget = int(rng.integers(1, room.sum() + 1))
    floors = {g: rng.uniform(0, 0.4) for g in range(count) if rng.random() < 0.5}
    ceilings = {g: floors.get(g, 0) + rng.uniform(0, 0.6) for g in range(count)
                if rng.random() < 0.5}  # fmt: skip
    low = [min(tokens_of(floors.get(g, 0.0), budget), have[g]) for g in range(count)]
    high = [min(tokens_of(ceilings.get(g, 1.0), budget, most=True), have[g]) for g in range(count)]
    if not sum(low) <= budget <= sum(high) or any(a > b for a, b in zip(low, high, strict=True)):
        return
    how = {"shares": rng.random(2 * count)} if seed % 2 else {"order": rng.permutation(2 * count)}
    spread = Spread(**how, groups=groups, floors=floors, ceilings=ceilings)
    found = spread_tokens(spread, room, budget=budget)
    given = np.bincount(groups, found, minlength=count)
    assert found.sum() == budget and (found <= room).all()
    assert (given >= low).all() and (given <= high).all()


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
    guessed = np.array([400, 90, 220])  # by the first documents of each, one of them a long one
    whole = replace(whole, natural=room)
    assert spread_tokens(whole, guessed, budget=100).tolist() == [70, 10, 20]
    all_of_it = replace(whole, blend=((-1, 1.0),))  # what one has no room for goes to the others
    assert spread_tokens(all_of_it, guessed, budget=400).tolist() == [103, 90, 207]


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
    assert all(found[group] > share * budget - 1 for group, share in floors.items())
    assert found.sum() == budget


@pytest.mark.parametrize(
    ("method", "settled"),
    [
        ("ngram-lm", "match"),
        ("lexical", "match"),
        ("task2vec", "match"),
        ("ngram", "temperature"),
        ("classifier", "temperature"),
        ("embedding", "top"),
        ("random", "top"),
    ],
)
def test_auto_is_settled_by_the_method_that_ranked(method, settled):
    assert settle_selection("auto", method) == settled
    assert settle_selection("top", method) == "top"


def test_auto_alone_says_nothing():
    with pytest.raises(ValueError, match="settled"):
        choose_weights(np.ones(2), np.array([5, 5]), budget=4, selection="auto")


def test_crumbs_go_to_the_others():
    """Shares of 1e-4 and less: a few tokens each of 100,000, less than a thousandth together."""
    shares, room = np.array([3.0, 1.0, 4e-4, 1e-5]), np.full(4, 80_000)
    found = spread_tokens(Spread(shares=shares), room, budget=100_000)
    assert found.tolist() == [75_000, 25_000, 0, 0]
    kept = spread_tokens(Spread(shares=np.array([3.0, 1.0, 0.01, 1e-5])), room, budget=100_000)
    assert kept[2] > 200 and kept[3] == 0


def test_crumbs_stay_where_the_others_have_no_room_left():
    found = spread_tokens(Spread(shares=np.ones(3)), np.array([99_990, 5, 5]), budget=100_000)
    assert found.tolist() == [99_990, 5, 5]


@pytest.mark.parametrize("parts", [[], [0, 0], [10, 10, 10], [1, 999, 9_000]])
def test_crumbs_are_less_than_a_thousandth(parts):
    small = smallest_parts(np.array(parts, np.int64), budget=max(sum(parts), 1))
    assert np.array(parts, np.int64)[small].sum() < 0.001 * max(sum(parts), 1)


def test_temperatures_reach_from_a_mix_of_all_to_one_of_the_best_in_any_unit():
    alignments = np.array([0.5, 0.52, 0.9])
    found = temperatures(alignments)
    assert found == sorted(found, reverse=True)
    np.testing.assert_allclose(temperatures(7 * alignments + 3), 7 * np.array(found))
    tokens = np.full(3, 1_000)
    soft, sharp = (
        choose_weights(alignments, tokens, budget=900, selection="temperature", temperature=one)
        for one in (found[0], found[-1])
    )
    assert soft.min() > 90 and sharp.tolist() == [0, 0, 900]
    assert all(one > 0 for one in temperatures(np.ones(4)))  # all alike


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=8))
def test_the_softest_mix_that_gains_nearly_as_much_is_taken(drops):
    place = softest(drops)
    if max(drops) <= 0:
        assert place == next((n for n, drop in enumerate(drops) if drop == 0), 0)
    else:
        assert drops[place] >= 0.98 * max(drops)
        assert all(drop < 0.98 * max(drops) for drop in drops[:place])
