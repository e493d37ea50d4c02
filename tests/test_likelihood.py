"""What a mixture costs a target by its pairs, of all shards at once, and how it could cost less."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.corpus.pairs import count_pairs
from curate.corpus.tokens import count_unigrams
from curate.mixing.expected import ExpectedSeen
from curate.mixing.likelihood import Likelihood
from curate.ranking.lexical import shares_of
from curate.ranking.ngram_lm import count_item_pairs, look_up, ngram_lm

VOCAB = 30


class Pool:
    """A few shards of documents, and a target."""

    def __init__(self, seed=0, n=4, length=40):
        rng = np.random.default_rng(seed)
        kinds = rng.dirichlet(np.full(VOCAB, 0.2), size=(n, VOCAB))
        shards = [[self.text(rng, kind, length) for _ in range(12)] for kind in kinds]
        items = [self.text(rng, kinds[number % 2], 15) for number in range(6)]
        self.target = count_item_pairs(items, vocab=VOCAB)
        self.weights = np.asarray(self.target.items.sum(axis=0)).ravel()
        self.words = [count_unigrams(shard, VOCAB) for shard in shards]
        self.background = np.sum(self.words, axis=0)
        own = [count_pairs(shard, VOCAB) for shard in shards]
        self.said = [
            (look_up(self.target, pairs, words), pairs.repeats)
            for pairs, words in zip(own, self.words, strict=True)
        ]
        self.sizes = np.array([seen.tokens for seen, _ in self.said])
        self.corpus = shares_of(self.background)[self.target.after]

    @staticmethod
    def text(rng, kind, length):
        ids = [int(rng.integers(VOCAB))]
        while len(ids) < length:
            ids.append(int(rng.choice(VOCAB, p=kind[ids[-1]])))
        return np.array(ids)

    def likelihood(self, said=None, stands_for=None):
        said = self.said if said is None else said
        times = np.ones(len(said)) if stands_for is None else np.array(stands_for)
        return Likelihood(self.target, iter(said), stands_for=times, corpus=self.corpus)

    def cost(self, tokens):
        return self.likelihood().cost(np.asarray(tokens, float), self.weights)

    def naive(self, tokens):
        """The same, shard by shard, as a mixture is described."""
        seen = ExpectedSeen(len(self.target.after))
        for (said, repeats), mine in zip(self.said, tokens, strict=True):
            seen.add(said, share=mine / said.tokens, repeats=repeats)
        found, _ = ngram_lm(self.target, [seen.seen(self.corpus)], background=self.background)
        return -found[0]


@pytest.mark.parametrize(
    "parts", [[0.1, 0.2, 0.3, 0.05], [0.9, 0, 0, 0.01], [1.6, 0.4, 0, 2.3], [0, 0, 0, 0.7]]
)
def test_the_cost_is_that_of_the_mixture_shard_by_shard(parts):
    pool = Pool()
    tokens = pool.sizes * parts
    assert pool.cost(tokens)[0] == pytest.approx(pool.naive(tokens), abs=1e-5)


def test_a_part_of_one_long_document_makes_no_count_less_than_none():
    """Of so uneven a count a log-normal one would often be below 0, and its logarithm too low."""
    pool, rng = Pool(), np.random.default_rng(0)
    document = rng.integers(VOCAB, size=200_000)
    words, pairs = count_unigrams([document], VOCAB), count_pairs([document], VOCAB)
    pool.said.append((look_up(pool.target, pairs, words), pairs.repeats))
    tokens = np.array([*pool.sizes * 0.2, 0.0005 * 200_000])
    value, slopes = pool.cost(tokens)
    assert value == pytest.approx(pool.naive(tokens), abs=1e-4)
    step = np.array([1.0, 0.0, 0.0, 0.0, -1.0])
    change = (pool.naive(tokens + step) - pool.naive(tokens - step)) / 2
    assert slopes @ step == pytest.approx(change, rel=0.02, abs=1e-6)


def test_a_whole_shard_costs_what_the_shard_does():
    pool = Pool()
    for place, (seen, _) in enumerate(pool.said):
        alone, _ = ngram_lm(pool.target, [seen], background=pool.background)
        tokens = np.where(np.arange(4) == place, pool.sizes, 0.0)
        assert pool.cost(tokens)[0] == pytest.approx(-alone[0], abs=1e-4)


@given(st.integers(0, 1_000), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_the_gradient_is_the_change_where_one_shard_makes_room_for_another(seed, one, other):
    pool = Pool()
    tokens = pool.sizes * np.random.default_rng(seed).uniform(0.05, 0.95, size=4)
    _, slopes = pool.cost(tokens)
    step = 1.0 * ((np.arange(4) == one).astype(float) - (np.arange(4) == other))
    change = (pool.naive(tokens + step) - pool.naive(tokens - step)) / 2
    assert slopes[one] - slopes[other] == pytest.approx(change, rel=0.02, abs=2e-6)


def test_the_gradient_of_shards_that_are_full_is_that_of_a_little_less():
    pool = Pool()
    tokens = pool.sizes * [1.0, 0.3, 0.2, 1.0]
    _, slopes = pool.cost(tokens)
    step = np.array([-1.0, 1.0, 0.0, 0.0])
    change = pool.naive(tokens + step) - pool.naive(tokens)
    assert slopes[1] - slopes[0] == pytest.approx(change, rel=0.1)


def test_what_a_shard_that_comes_again_adds():
    pool = Pool()
    tokens = pool.sizes * [1.3, 0.3, 2.4, 0.2]
    _, slopes = pool.cost(tokens)
    step = np.array([1.0, -1.0, 1.0, -1.0])
    change = (pool.naive(tokens + step) - pool.naive(tokens - step)) / 2
    assert slopes @ step == pytest.approx(change, rel=0.02)


def test_a_shard_may_stand_for_others_like_it():
    pool = Pool()
    thrice = pool.likelihood([pool.said[0]] * 3 + pool.said[1:])
    once = pool.likelihood(stands_for=[3.0, 1.0, 1.0, 1.0])
    parts = np.array([0.2, 0.4, 0.1, 0.3]) * pool.sizes
    value, slopes = thrice.cost(np.concatenate([parts[:1]] * 3 + [parts[1:]]), pool.weights)
    found, few = once.cost(parts * [3, 1, 1, 1], pool.weights)
    assert found == pytest.approx(value, abs=1e-6)
    np.testing.assert_allclose(few, slopes[2:], rtol=1e-4)


def test_the_order_of_shards_and_the_scale_of_the_target_are_nothing():
    pool, order = Pool(), np.array([2, 0, 3, 1])
    tokens = pool.sizes * [0.2, 0.5, 0.1, 0.9]
    value, slopes = pool.cost(tokens)
    other = pool.likelihood([pool.said[n] for n in order])
    turned, turned_slopes = other.cost(tokens[order], 7 * pool.weights)
    assert turned == pytest.approx(value, abs=1e-6)
    np.testing.assert_allclose(turned_slopes, slopes[order], rtol=1e-3, atol=1e-9)


def test_shards_that_hold_nothing_of_a_target_say_nothing():
    pool = Pool(n=2)
    nothing = count_pairs([np.zeros(0, np.int64)], VOCAB)
    empty = (look_up(pool.target, nothing, np.zeros(VOCAB)), nothing.repeats)
    both = pool.likelihood([*pool.said, empty])
    tokens = np.array([*pool.sizes * 0.5, 0.0])
    value, slopes = both.cost(tokens, pool.weights)
    assert value == pytest.approx(pool.naive(tokens[:2]), abs=1e-5)
    assert np.isfinite(slopes).all()
