"""How many tokens of each shard."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.mixing.weights import best_first, choose_weights, fill_by_share, match_shares


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
    vectors, target = rng.gamma(2, size=(len(sizes), 9)), rng.gamma(2, size=(4, 9))
    for selection in ("top", "temperature", "match")[: 3 if seed % 20 == 0 else 2]:
        chosen = choose_weights(
            rng.random(len(sizes)),
            tokens,
            budget=budget,
            selection=selection,
            vectors=vectors,
            target_vectors=target,
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


def test_match_finds_the_mixture_that_made_the_target():
    rng = np.random.default_rng(1)
    vectors = rng.gamma(2.0, size=(6, 400))
    truth = np.array([0.5, 0, 0.3, 0, 0.2, 0])
    noise = rng.normal(1, 0.02, size=(4, 400))
    target = 7.5 * (truth @ vectors) * noise  # alignment ignores scale
    shares = match_shares(vectors, target, natural=np.full(6, 1 / 6), caps=np.full(6, 1.0))
    assert np.abs(shares - truth).max() < 0.04


def test_match_keeps_the_caps():
    rng = np.random.default_rng(2)
    vectors = rng.gamma(2.0, size=(4, 300))
    shares = match_shares(
        vectors, vectors[:1].repeat(2, 0), natural=np.full(4, 0.25), caps=np.full(4, 0.4)
    )
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(0.4, abs=0.01)


def test_match_of_many_shards_is_fast():
    rng = np.random.default_rng(3)
    vectors = rng.gamma(2.0, size=(400, 300))
    start = time.process_time()
    shares = match_shares(
        vectors, vectors[:20] * 1.1, natural=np.full(400, 1 / 400), caps=np.full(400, 0.05)
    )
    assert time.process_time() - start < 20
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 1000}, "room for 160 tokens"),
        ({"budget": 0}, "above 0"),
        ({"max_epochs": 0.0}, "above 0"),
        ({"selection": "match"}, "vectors"),
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
