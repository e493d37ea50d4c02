"""Entropy of words from a sample: words drawn one by one, and words that recur within items."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from curate.ranking.entropy import entropy, item_entropy
from curate.ranking.lexical import fill_gaps, lexical, shares_of
from curate.ranking.stats import t_intervals


def plain_entropy(shares):
    shares = shares[shares > 0]
    return -(shares * np.log(shares)).sum()


def zipf(vocab):
    shares = 1.0 / np.arange(1, vocab + 1)
    return shares / shares.sum()


def drawn_items(rng, shares, *, items, tokens, alike):
    """Draw items whose words recur: the fewer `alike`, the further each is from the others."""
    own = rng.gamma(alike * shares, size=(items, len(shares)))
    own += 1e-300  # what is drawn nowhere is not 0 / 0
    return rng.multinomial(tokens, own / own.sum(axis=1, keepdims=True))


# --- words drawn one by one ---


def test_entropy_is_that_of_the_counts_where_words_are_seen_often():
    assert entropy(np.array([10_000] * 4 + [0])) == pytest.approx(math.log(4), abs=1e-4)
    assert entropy(np.array([500])) == pytest.approx(0.0, abs=1e-12)
    assert entropy(np.array([1])) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    "seen", [[3, 1, 2, 0], [1, 1, 1], [2, 2], [5, 1], [40, 9, 2, 2, 1, 1, 1, 1], [300, 1, 1, 2]]
)
def test_entropy_term_by_term(seen):
    counts = [count for count in seen if count]
    total, once, twice = sum(counts), counts.count(1), counts.count(2)
    naive = sum(x / total * sum(1 / k for k in range(x, total)) for x in counts)
    rate = 2 * twice / ((total - 1) * once + 2 * twice) if twice else 0.0
    if not twice:
        rate = 2 / ((total - 1) * max(once - 1, 0) + 2)
    if once and rate < 1:
        rest = sum((1 - rate) ** r / r for r in range(1, total))
        naive += once / total * (1 - rate) ** (1 - total) * (-math.log(rate) - rest)
    assert entropy(np.array(seen)) == pytest.approx(naive, rel=1e-5)


@pytest.mark.parametrize("draws", [300, 2_000, 20_000])
@pytest.mark.parametrize("shares", [zipf(2_000), np.full(1_000, 0.001)], ids=["zipf", "uniform"])
def test_entropy_is_nearly_unbiased_where_the_plain_one_is_too_low(draws, shares):
    rng = np.random.default_rng(0)
    drawn = [rng.multinomial(draws, shares) for _ in range(60)]
    error = np.mean([entropy(each) for each in drawn]) - plain_entropy(shares)
    plain = np.mean([plain_entropy(each / draws) for each in drawn]) - plain_entropy(shares)
    assert abs(error) < (0.06 if draws >= 2_000 else 0.3)
    assert plain < -2 * abs(error)


def test_entropy_of_words_that_are_all_seen_once_is_finite():
    assert 0 < entropy(np.ones(40)) < 20
    assert 0 < entropy(np.ones(100_000)) < 40


def test_entropy_stays_exact_where_counts_are_very_large():
    """The series for unseen words is of a million terms there: no cancellation, no overflow."""
    counts = np.array([10**8] * 9 + [1] * 3 + [2] * 2_000)
    assert entropy(counts) == pytest.approx(plain_entropy(counts / counts.sum()), abs=1e-4)


# --- words that recur within items ---


def test_item_entropy_leaves_out_each_item_in_turn():
    rng = np.random.default_rng(1)
    items = drawn_items(rng, zipf(60), items=7, tokens=25, alike=10)
    without = np.array([entropy(items.sum(axis=0) - item) for item in items])
    holders = (items > 0).sum(axis=0)
    weight = 1 + (holders == 1).sum() / (holders > 0).sum()
    assert 1.1 < weight < 1.9
    found, moves = item_entropy(sparse.csr_array(items))
    whole = entropy(items.sum(axis=0))
    assert found == pytest.approx(whole + weight * 6 * (whole - without.mean()))
    assert moves == pytest.approx(weight * 6 * (without.mean() - without))
    assert moves.sum() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("items", [8, 20, 50, 200])
def test_item_entropy_is_nearly_unbiased_where_words_recur(items):
    rng, shares = np.random.default_rng(2), zipf(300)
    drawn = [
        drawn_items(rng, shares, items=items, tokens=100, alike=60)
        for _ in range(200 if items < 50 else 60)
    ]
    truth = plain_entropy(shares)
    error = np.mean([item_entropy(each)[0] for each in drawn]) - truth
    one_by_one = np.mean([entropy(each.sum(axis=0)) for each in drawn]) - truth
    assert abs(error) < {8: 0.15, 20: 0.05, 50: 0.03, 200: 0.02}[items]
    assert one_by_one < -2 * abs(error)


@pytest.mark.parametrize("shares", [zipf(1_000), np.full(500, 0.002)], ids=["zipf", "uniform"])
def test_item_entropy_adds_next_to_nothing_where_words_do_not_recur(shares):
    rng = np.random.default_rng(3)
    drawn = [rng.multinomial(100, shares, size=50) for _ in range(40)]
    added = [item_entropy(each)[0] - entropy(each.sum(axis=0)) for each in drawn]
    assert abs(np.mean(added)) < 0.03
    error = np.mean([item_entropy(each)[0] for each in drawn]) - plain_entropy(shares)
    assert abs(error) < 0.03


def test_item_entropy_knows_no_order_and_not_how_rows_are_kept():
    rng = np.random.default_rng(4)
    items = drawn_items(rng, zipf(40), items=6, tokens=30, alike=8)
    found, moves = item_entropy(items)
    turned = rng.permutation(6)
    again, moved = item_entropy(items[turned][:, rng.permutation(40)])
    assert again == pytest.approx(found)
    assert moved == pytest.approx(moves[turned])
    apart = sparse.csr_array(  # every token an entry of its own, and some of nothing
        (
            np.append(np.ones(items.sum()), np.zeros(6)),
            np.append(np.concatenate([np.repeat(np.arange(40), row) for row in items]), [39] * 6),
            np.append(np.arange(0, items.sum(), 30), items.sum() + 6),
        ),
        shape=items.shape,
    )
    assert item_entropy(apart)[0] == pytest.approx(found)


@pytest.mark.parametrize("lengths", [[5_000] + [10] * 39, [5_000, 10], [3_000] + [20] * 10])
def test_item_entropy_of_a_long_item_and_short_ones_is_that_of_the_text(lengths):
    """The short ones alone are a small sample: what it misses is not what the whole misses."""
    rng, shares = np.random.default_rng(6), zipf(1_000)
    drawn = [np.stack([rng.multinomial(n, shares) for n in lengths]) for _ in range(20)]
    error = np.mean([item_entropy(each)[0] for each in drawn]) - plain_entropy(shares)
    assert abs(error) < 0.05


def test_item_entropy_weighs_what_an_item_takes_away_by_what_stays_without_it():
    rng = np.random.default_rng(7)
    items = np.stack([rng.multinomial(n, zipf(40)) for n in (200, 30, 5, 60)])
    whole = entropy(items.sum(axis=0))
    missed = sum(
        (1 - item.sum() / items.sum()) * (whole - entropy(items.sum(axis=0) - item))
        for item in items
    )
    holders = (items > 0).sum(axis=0)
    weight = 1 + (holders == 1).sum() / (holders > 0).sum()
    assert item_entropy(items)[0] == pytest.approx(whole + weight * missed)


def test_item_entropy_of_degenerate_items():
    lone, none = item_entropy(np.array([[3, 1, 0, 2]]))
    assert lone == entropy(np.array([3, 1, 0, 2]))
    assert none.tolist() == [0.0]
    for rows in ([[4], [1], [7]], [[1], [1]]):  # one word
        value, moves = item_entropy(np.array(rows))
        assert value == pytest.approx(0.0, abs=1e-12)
        assert np.abs(moves).max() < 1e-12
    _, alike = item_entropy(np.tile([50, 30, 20], (5, 1)))
    assert np.abs(alike).max() < 1e-12
    value, _ = item_entropy(np.tile([500, 300, 200], (50, 1)))
    assert value == pytest.approx(plain_entropy(np.array([0.5, 0.3, 0.2])), abs=1e-4)
    nothing_shared, _ = item_entropy(np.eye(12))
    assert 0 < nothing_shared < 40


# --- intervals of the alignment ---


def held_by_intervals(vocab, *, items, alike, drawings):
    """Return how often 95 % intervals hold the truth, and how often if words did not recur."""
    rng, shares = np.random.default_rng(5), zipf(vocab)
    shard = rng.multinomial(200_000, (shares + rng.dirichlet(np.full(vocab, 0.3))) / 2)[None]
    model = fill_gaps(shard[0], shard[0].sum(), shares_of(shard[0]))
    truth = plain_entropy(shares) + shares @ np.log(model)
    held = []
    for _ in range(drawings):
        drawn = drawn_items(rng, shares, items=items, tokens=100, alike=alike)
        values, moves = lexical(drawn, shard, background=shard[0])
        known, common = item_entropy(drawn)
        low, high = t_intervals(values, moves)
        rate = replace(moves, target=moves.target - common)
        below, above = t_intervals(values - known + entropy(drawn.sum(axis=0)), rate)
        held.append([low[0] <= truth <= high[0], below[0] <= truth <= above[0]])
    return np.mean(held, axis=0)


@pytest.mark.parametrize("items", [8, 20, 50])
def test_intervals_of_few_items_cover_where_no_word_is_missed(items):
    held, _ = held_by_intervals(30, items=items, alike=30.0, drawings=1_000)
    assert 0.93 <= held <= 0.97


@pytest.mark.parametrize("items", [8, 20, 50])
def test_intervals_of_few_items_hold_the_truth_where_words_recur(items):
    held, one_by_one = held_by_intervals(300, items=items, alike=30.0, drawings=300)
    assert held >= 0.93
    assert one_by_one < {8: 0.2, 20: 0.3, 50: 0.8}[items]
