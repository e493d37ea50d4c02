"""What a mixture that is not drawn yet can be expected to hold."""

import inspect

import numpy as np
import pytest
from scipy import stats

from curate.corpus.pairs import Pairs, count_pairs
from curate.corpus.tokens import count_unigrams
from curate.mixing.expected import Expected, ExpectedSeen
from curate.ranking.lexical import shares_of
from curate.ranking.ngram_lm import Seen, count_item_pairs, look_up, ngram_lm

COUNTS = np.array([0.0, 1, 2, 3, 7, 40, 900])
ADDED = np.array([0.01, 0.01, 0.3, 5.0, 0.02, 0.1, 100.0])


def of(*parts):
    found = Expected(len(COUNTS))
    for counts, share, repeats in parts:
        found.add(np.asarray(counts, float), share=share, repeats=repeats)
    return found


def mean_log(draws, added):
    return np.log(draws + added).mean(axis=0)


def draw(rng, counts, share, repeats, n):
    """Draw a part of a shard n times as the model says: documents of equal parts, drawn or not."""
    counts = np.asarray(counts, np.int64)
    whole, part = divmod(share, 1.0)
    later = np.maximum(counts - 1, 0)
    documents = 1 + rng.binomial(later, 1 - repeats, size=(n, len(counts)))
    return whole * counts + counts * rng.binomial(documents, part) / documents


@pytest.mark.parametrize("repeats", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.8, 1.4])
def test_the_logarithm_is_that_of_draws(share, repeats):
    """The naive twin: parts of three shards, drawn ten thousand times."""
    rng = np.random.default_rng(1)
    parts = [(rng.permutation(COUNTS), share * (1 + 0.1 * n), repeats) for n in range(3)]
    draws = sum(draw(rng, *part, 10_000) for part in parts)
    expected = np.log(of(*parts).effective(ADDED) + ADDED)
    np.testing.assert_allclose(expected, mean_log(draws, ADDED), atol=0.15)
    np.testing.assert_allclose(of(*parts).mean, draws.mean(axis=0), rtol=0.2)
    np.testing.assert_allclose(np.exp(of(*parts).log_none), (draws == 0).mean(axis=0), atol=0.02)


def test_a_binomial_draw_in_closed_form():
    """Where nothing repeats within a document, n are there with the share's probability each."""
    expected = np.log(of((COUNTS, 0.25, 0.0)).effective(ADDED) + ADDED)
    for n, added, found in zip(COUNTS.astype(int), ADDED, expected, strict=True):
        k = np.arange(n + 1)
        assert found == pytest.approx(stats.binom.pmf(k, n, 0.25) @ np.log(k + added), abs=0.05)


def test_what_comes_all_in_one_document_is_there_or_not():
    found = of((COUNTS, 0.25, 1.0)).effective(ADDED)
    logs = 0.25 * np.log(COUNTS + ADDED) + 0.75 * np.log(ADDED)
    np.testing.assert_allclose(np.log(found + ADDED), logs)


@pytest.mark.parametrize("repeats", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("share", [1.0, 3.0])
def test_whole_shards_are_there_as_they_are(share, repeats):
    np.testing.assert_allclose(of((COUNTS, share, repeats)).effective(ADDED), share * COUNTS)


def test_no_count_is_above_its_mean_and_more_of_a_shard_is_not_less():
    before = np.zeros(len(COUNTS))
    for share in (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999, 1.0, 1.2, 2.0):
        found = of((COUNTS, share, 0.6))
        effective = found.effective(ADDED)
        assert (effective <= found.mean + 1e-12).all() and (effective >= before - 1e-9).all()
        before = effective


def test_the_order_of_shards_is_nothing_and_one_may_stand_for_several():
    one, two = (COUNTS, 0.3, 0.2), (COUNTS[::-1], 1.7, 0.8)
    np.testing.assert_allclose(of(one, two).effective(ADDED), of(two, one).effective(ADDED))
    several = Expected(len(COUNTS))
    several.add(COUNTS, share=0.3, repeats=0.2, times=3)
    np.testing.assert_allclose(several.effective(ADDED), of(one, one, one).effective(ADDED))


def test_nothing_is_expected_of_nothing():
    assert not of().effective(1.0).any()
    assert not of((np.zeros(len(COUNTS)), 0.5, 0.0)).effective(ADDED).any()
    assert not of((COUNTS, 0.0, 0.5)).effective(ADDED).any()
    nothing = ExpectedSeen(2).seen(np.array([0.5, 0.5]))
    assert not nothing.pairs.any() and nothing.tokens == 0


# --- on text ---


def as_ids(texts):
    words = {}
    return [
        np.array([words.setdefault(word, len(words)) for word in text.split()]) for text in texts
    ], words


@pytest.fixture(scope="module")
def documents():
    """The docstrings of numpy and of its arrays: token ids, and how many there are."""
    owners = (np, np.ndarray, np.linalg, np.fft, np.random, np.ma)
    texts = {inspect.getdoc(getattr(owner, name)) or "" for owner in owners for name in dir(owner)}
    ids, words = as_ids(sorted(text for text in texts if len(text) > 200))
    return ids, len(words)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
def test_a_part_of_real_documents_costs_a_target_what_was_expected(documents, share):
    ids, vocab = documents
    rng = np.random.default_rng(0)
    ids = [ids[n] for n in rng.permutation(len(ids))]
    shard, target = ids[80:], count_item_pairs(ids[:80], vocab=vocab)
    pairs, words = count_pairs(shard, vocab), count_unigrams(shard, vocab)
    corpus, whole = shares_of(words)[target.after], look_up(target, pairs, words)

    def cost(seen):
        return -ngram_lm(target, [seen], background=words)[0][0]

    real = []
    for _ in range(12):
        order = rng.permutation(len(shard))
        ends = np.cumsum([len(shard[n]) for n in order])
        part = [shard[n] for n in order[: np.searchsorted(ends, share * ends[-1]) + 1]]
        seen = look_up(target, count_pairs(part, vocab), count_unigrams(part, vocab))
        real.append(cost(seen))
    expected = ExpectedSeen(len(target.after))
    expected.add(whole, share=share, repeats=pairs.repeats)
    error = cost(expected.seen(corpus)) - np.mean(real)
    mean = Seen(share * whole.pairs, share * whole.before, share * whole.after, share * words.sum())
    assert abs(error) < 0.15
    assert cost(mean) - np.mean(real) < -4 * abs(error)  # a little of everything is too good


def test_repeats_are_those_of_documents():
    """Twenty copies of a document, and one of twenty times its text: half of it again, and all."""
    once = np.array([0, 1, 2, 1, 2])  # of its five pairs (1, 2) is there twice
    apart = count_pairs([once] * 20, 3)
    assert apart.by_document == 80
    assert apart.repeats == pytest.approx(1 - (80 - 4) / (100 - 4))
    assert count_pairs([np.tile(once, 20)], 3).repeats == 1
    assert count_pairs([np.array([0, 1, 2])], 3).repeats == 0
    none = np.zeros(0, np.int64)
    assert Pairs(none, none, none, 0).repeats == 0
