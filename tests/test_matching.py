"""The mixture closest to a target: what made it is found, caps hold, halves decide the pull."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.mixing.matching import match_embeddings, match_words
from curate.ranking.lexical import lexical_cross_entropy

VOCAB = 40


def test_embeddings_finds_the_mixture_that_made_the_target():
    rng = np.random.default_rng(1)
    vectors = rng.gamma(2.0, size=(6, 400))
    truth = np.array([0.5, 0, 0.3, 0, 0.2, 0])
    noise = rng.normal(1, 0.02, size=(4, 400))
    target = 7.5 * (truth @ vectors) * noise  # alignment ignores scale
    shares = match_embeddings(vectors, target, natural=np.full(6, 1 / 6), caps=np.full(6, 1.0))
    assert np.abs(shares - truth).max() < 0.04


def test_embeddings_keeps_the_caps():
    rng = np.random.default_rng(2)
    vectors = rng.gamma(2.0, size=(4, 300))
    shares = match_embeddings(
        vectors, vectors[:1].repeat(2, 0), natural=np.full(4, 0.25), caps=np.full(4, 0.4)
    )
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(0.4, abs=0.01)


def test_embeddings_of_many_shards_is_fast():
    rng = np.random.default_rng(3)
    vectors = rng.gamma(2.0, size=(400, 300))
    start = time.process_time()
    shares = match_embeddings(
        vectors, vectors[:20] * 1.1, natural=np.full(400, 1 / 400), caps=np.full(400, 0.05)
    )
    assert time.process_time() - start < 20
    assert shares.sum() == pytest.approx(1)


def word_shards(n=5, *, seed=0, sharp=0.3):
    """Unigram distributions of n shards, (n, VOCAB)."""
    return np.random.default_rng(seed).dirichlet(np.full(VOCAB, sharp), size=n)


def matched(words, targets, **given):
    n = len(words)
    usual = {
        "natural": np.full(n, 1 / n), "caps": np.ones(n), "vocab": words.shape[1], "tokens": 1e6
    }  # fmt: skip
    return match_words(words, targets, **usual | given)


def entropy(words, target, shares, *, tokens=1e6):
    return lexical_cross_entropy(target, shares @ words, tokens=tokens)


def test_words_find_the_mixture_that_made_the_target():
    words, truth = word_shards(), np.array([0.5, 0, 0.3, 0, 0.2])
    targets = np.round(1e7 * (truth @ words))[None].repeat(4, 0)
    np.testing.assert_allclose(matched(words, targets), truth, atol=0.005)


@pytest.mark.parametrize("caps", [np.ones(3), np.array([0.4, 0.5, 0.9])])
def test_no_mixture_on_a_grid_is_better(caps):
    words = word_shards(3, seed=2)
    target = np.random.default_rng(3).multinomial(10_000, word_shards(1, seed=4)[0])
    shares = matched(words, np.stack([target] * 4), caps=caps)
    assert shares.sum() == pytest.approx(1) and (shares <= caps + 0.01).all()
    steps = np.linspace(0, 1, 101)
    grid = [(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1]
    inside = [np.array(each) for each in grid if (np.array(each) <= caps + 1e-9).all()]
    best = min(entropy(words, target, each) for each in inside)
    assert entropy(words, target, shares) <= best + 2e-3


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_words_never_do_worse_than_the_best_shard_or_the_natural_mix(seed):
    words = word_shards(6, seed=seed)
    target = np.random.default_rng(seed).multinomial(50_000, word_shards(1, seed=seed + 1)[0])
    found = entropy(words, target, matched(words, np.stack([target] * 4)))
    natural = entropy(words, target, np.full(6, 1 / 6))
    single = min(entropy(words, target, row) for row in np.eye(6))
    assert found <= min(natural, single) + 1e-3


def test_the_order_of_shards_does_not_matter():
    words = word_shards(5, seed=5)
    targets = np.random.default_rng(1).multinomial(500, word_shards(1, seed=6)[0], size=4)
    order = np.array([3, 0, 4, 1, 2])
    one, other = matched(words, targets), matched(words[order], targets)
    np.testing.assert_allclose(one[order], other, atol=0.01)


def test_halves_that_do_not_help_each_other_leave_natural_proportions():
    words = word_shards(4, seed=7, sharp=0.1)
    # each half looks like one shard and nothing like the other half
    targets = np.round(1e4 * words[[0, 1, 0, 1]])
    shares = matched(words, targets)
    assert shares.min() > 0.05  # the pull is strong: neither half is trusted


def test_a_target_in_one_part_is_pulled_by_a_tenth():
    words = word_shards(4, seed=8)
    shares = matched(words, np.round(1e6 * words[:1]))
    np.testing.assert_allclose(shares, [0.925, 0.025, 0.025, 0.025], atol=0.005)


def test_words_of_many_shards_are_matched_fast():
    words = np.random.default_rng(9).dirichlet(np.full(1_000, 0.1), size=2_000)
    targets = np.random.default_rng(10).multinomial(2_000, words[0], size=4)
    start = time.process_time()
    shares = matched(words, targets, caps=np.full(2_000, 0.05))
    assert time.process_time() - start < 30
    assert shares.sum() == pytest.approx(1) and shares.max() < 0.06
