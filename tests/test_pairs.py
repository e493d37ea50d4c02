import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.corpus.pairs import count_pairs, pair_keys
from curate.corpus.tokens import count_unigrams
from curate.ranking.lexical import count_items, lexical, lexical_cross_entropy
from curate.ranking.ngram_lm import (
    Seen,
    anchored,
    count_item_pairs,
    look_up,
    ngram_lm,
    own_pair_halves,
    pair_cross_entropy,
    pair_probabilities,
)
from curate.ranking.stats import t_intervals
from curate.task2vec.vectors import pack_pairs

VOCAB = 6


def draw(seed, sizes, *, vocab=VOCAB):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocab, size).astype(np.int32) for size in sizes]


ITEMS = draw(1, (9, 1, 14))
SHARDS = [draw(2, (30, 4)), draw(3, (7, 0, 20)), draw(4, (5,))]


def seen_of(target, documents):
    return look_up(
        target, count_pairs(documents, target.vocab), count_unigrams(documents, target.vocab)
    )


def measure(items=ITEMS, shards=SHARDS, **options):
    target = count_item_pairs(items, vocab=VOCAB)
    background = count_unigrams([ids for shard in shards for ids in shard], VOCAB)
    return ngram_lm(
        target, (seen_of(target, shard) for shard in shards), background=background, **options
    )


# --- pairs of a text ---


@given(
    st.lists(st.lists(st.integers(0, 4), max_size=12), max_size=6).map(
        lambda rows: [np.array(row, np.int64) for row in rows]
    )
)
def test_pairs_are_those_of_a_dictionary_and_none_crosses_documents(documents):
    vocab = 5
    wanted = Counter()
    for ids in documents:
        row = [vocab, *ids.tolist()]
        wanted.update(itertools.pairwise(row))
    found = count_pairs(documents, vocab)
    keys = found.keys(vocab).tolist()
    assert keys == sorted(keys)
    assert {divmod(key, vocab + 1): n for key, n in zip(keys, found.counts, strict=True)} == wanted
    kinds = [set(itertools.pairwise([vocab, *ids.tolist()])) for ids in documents]
    assert found.by_document == sum(map(len, kinds))
    followed = Counter()
    for (before, _), count in wanted.items():
        followed[before] += count
    assert found.followed(vocab).tolist() == [followed[token] for token in range(vocab + 1)]


def test_pairs_are_small_whole_numbers():
    found = count_pairs([np.zeros(300, np.int32), np.arange(300)], 4_096)
    assert (found.before.dtype, found.after.dtype) == (np.uint16, np.uint16)
    assert found.counts.dtype == np.uint16
    assert found.counts.max() == 299
    packed = pack_pairs(found)
    assert packed.nbytes < 2_000  # and does not grow with the vocabulary
    assert pair_keys(np.zeros(0, np.int32), 9).tolist() == []


@pytest.mark.parametrize("wrong", [-1, VOCAB])
def test_an_id_outside_the_vocabulary_is_refused(wrong):
    with pytest.raises(ValueError, match=f"vocabulary of {VOCAB}"):
        count_pairs([np.array([0, wrong])], VOCAB)


# --- the language model ---


def naive(items, shard, corpus, *, strength=100.0, filled=0.001):
    """The same model with dictionaries, one token at a time: nats of each item."""
    singles = Counter(int(t) for ids in shard for t in ids)
    everywhere = Counter(int(t) for ids in corpus for t in ids)
    pairs = Counter()
    for ids in shard:
        row = ["<", *map(int, ids)]
        pairs.update(itertools.pairwise(row))
    nats = []
    for ids in items:
        total, before = 0.0, "<"
        for token in map(int, ids):
            fill = (everywhere[token] + 0.5) / (everywhere.total() + 0.5 * VOCAB)
            word = (1 - filled) * singles[token] / singles.total() + filled * fill
            context = sum(n for (first, _), n in pairs.items() if first == before)
            total -= math.log((pairs[before, token] + strength * word) / (context + strength))
            before = token
        nats.append(total)
    return nats


@pytest.mark.parametrize("strength", [0.5, 100.0])
def test_the_model_is_that_of_dictionaries(strength):
    values, influence = measure(strength=strength)
    corpus = [ids for shard in SHARDS for ids in shard]
    tokens = np.array([len(ids) for ids in ITEMS])
    for shard, value, moves in zip(SHARDS, values, influence.target, strict=True):
        nats = np.array(naive(ITEMS, shard, corpus, strength=strength))
        assert value == pytest.approx(-nats.sum() / tokens.sum(), rel=1e-12)
        rate = nats.sum() / tokens.sum()
        assert moves == pytest.approx((rate * tokens - nats) / tokens.mean(), abs=1e-12)


def test_probabilities_of_what_may_follow_sum_to_one():
    pairs = [np.array([first, second]) for first in range(VOCAB) for second in range(VOCAB)]
    target = count_item_pairs(pairs, vocab=VOCAB)
    corpus = np.full(VOCAB, 1 / VOCAB)[target.after]
    found = pair_probabilities(seen_of(target, SHARDS[0]), corpus)
    sums = np.bincount(target.before, found)
    assert sums == pytest.approx(np.ones(VOCAB + 1))


def test_without_end_of_strength_it_is_the_lexical_cross_entropy():
    background = count_unigrams([ids for shard in SHARDS for ids in shard], VOCAB)
    items = count_items(["x"] * 3, lambda _: ITEMS, vocab=VOCAB)
    counts = [count_unigrams(shard, VOCAB) for shard in SHARDS]
    words, moves = lexical(items, counts, background=background)
    for strength, tolerance in ((np.inf, 1e-12), (1e9, 1e-6)):
        values, influence = measure(strength=strength)
        assert np.diff(values) == pytest.approx(np.diff(words), rel=tolerance)
        apart = np.diff(influence.target, axis=0)
        assert apart == pytest.approx(np.diff(moves.target, axis=0), abs=1e-6)


def test_order_of_tokens_tells_where_their_numbers_do_not():
    rng = np.random.default_rng(0)
    successor = rng.permutation(30)

    def text(ordered):
        ids = [0]
        for _ in range(2_000):
            ids.append(int(successor[ids[-1]]) if ordered else int(rng.integers(30)))
        return np.array(ids)

    target = count_item_pairs([text(True)[:50] for _ in range(4)], vocab=30)
    seen = [seen_of(target, [text(ordered)]) for ordered in (False, True)]
    even = np.ones(30)
    one, two = (
        ngram_lm(target, seen, background=even, strength=strength)[0]
        for strength in (np.inf, 100.0)
    )
    assert two[1] - two[0] > 1 > abs(one[1] - one[0])


def test_order_of_documents_and_items_does_not_matter():
    values, influence = measure()
    turned, moves = measure(ITEMS[::-1], [shard[::-1] for shard in SHARDS])
    assert turned == pytest.approx(values, rel=1e-12)
    assert moves.target[:, ::-1] == pytest.approx(influence.target, abs=1e-12)


def test_what_texts_say_adds_up():
    target = count_item_pairs(ITEMS, vocab=VOCAB)
    one, two, both = (seen_of(target, d) for d in (SHARDS[0], SHARDS[1], SHARDS[0] + SHARDS[1]))
    added = one.plus(two)
    for name in ("pairs", "before", "after", "tokens"):
        assert getattr(added, name) == pytest.approx(getattr(both, name))
    halved = Seen(*(np.zeros(len(target.after)),) * 3, 0.0).plus(both, weight=0.5)
    assert halved.pairs == pytest.approx(both.pairs / 2)
    assert halved.tokens == both.tokens / 2


def test_items_hold_the_words_of_their_pairs():
    target = count_item_pairs(ITEMS, vocab=VOCAB)
    wanted = np.stack([np.bincount(ids, minlength=VOCAB) for ids in ITEMS])
    assert target.words.toarray().tolist() == wanted.tolist()
    assert count_item_pairs([*ITEMS, np.zeros(0, np.int32)], vocab=VOCAB).items.shape[0] == 3
    with pytest.raises(ValueError, match="no token"):
        count_item_pairs([np.zeros(0, np.int32)], vocab=VOCAB)


def test_a_shard_without_a_token_is_the_corpus():
    target = count_item_pairs(ITEMS, vocab=VOCAB)
    nothing = seen_of(target, [np.zeros(0, np.int32)])
    corpus = np.full(len(target.after), 0.25)
    assert pair_probabilities(nothing, corpus).tolist() == corpus.tolist()


# --- alignment ---


def test_the_first_shard_stands_where_its_words_put_it():
    found = measure()
    first = int(found[0].argmax())
    background = count_unigrams([ids for shard in SHARDS for ids in shard], VOCAB)
    items = count_items(["x"] * 3, lambda _: ITEMS, vocab=VOCAB)
    words = lexical(items, [count_unigrams(SHARDS[first], VOCAB)], background=background)
    logs, influence = anchored(found, words, first=first)
    assert logs[first] == words[0][0] == logs.max()
    assert np.diff(logs) == pytest.approx(np.diff(found[0]))
    assert influence.target[first] == pytest.approx(words[1].target[0])
    apart = np.diff(influence.target, axis=0)
    assert apart == pytest.approx(np.diff(found[1].target, axis=0))


def test_intervals_of_differences_cover():
    """Items drawn anew: how much a token costs more in one shard than in another."""
    rng = np.random.default_rng(5)
    chain = rng.dirichlet(np.full(20, 0.3), size=20)
    shards = [[rng.integers(0, 20, 4_000)], [walk(rng, chain, 4_000)]]

    def difference(count):
        items = [walk(rng, chain, int(rng.integers(5, 60))) for _ in range(count)]
        target = count_item_pairs(items, vocab=20)
        values, influence = ngram_lm(
            target, [seen_of(target, s) for s in shards], background=np.ones(20)
        )
        moves = influence.target[1] - influence.target[0]
        reach = 1.96 * np.sqrt((moves**2).sum() / (count * (count - 1)))
        return values[1] - values[0], reach

    truth, _ = difference(4_000)
    held = [abs(value - truth) <= reach for value, reach in (difference(40) for _ in range(300))]
    assert 0.91 <= np.mean(held) <= 0.98


def walk(rng, chain, count):
    steps, uniform, ids = np.cumsum(chain, axis=1), rng.random(count), [0]
    for number in range(1, count):
        ids.append(min(int(np.searchsorted(steps[ids[-1]], uniform[number])), len(chain) - 1))
    return np.array(ids)


def test_what_some_text_would_be_above_one_by_is_off_all():
    found = measure()
    words = (np.array([-0.5]), found[1])
    here, there = (anchored(found, words, first=0, over=nats)[0] for nats in (0.0, 0.25))
    assert here - there == pytest.approx(np.full(len(here), 0.25))


def test_halves_by_hand():
    target = count_item_pairs(ITEMS[:2], vocab=VOCAB)
    background = count_unigrams(ITEMS, VOCAB)
    wanted = []
    for mine, other in ((0, 1), (1, 0)):
        one = count_item_pairs([ITEMS[mine]], vocab=VOCAB)
        seen = seen_of(one, [ITEMS[other]])
        wanted.append(float(ngram_lm(one, [seen], background=background)[0][0]))
    assert own_pair_halves(target, background=background) == pytest.approx(np.mean(wanted))
    lone = count_item_pairs(ITEMS[:1], vocab=VOCAB)
    assert math.isnan(own_pair_halves(lone, background=background))


def test_an_interval_of_one_item_is_a_point():
    values, influence = measure(ITEMS[:1])
    low, high = t_intervals(values, influence)
    assert low.tolist() == values.tolist() == high.tolist()


# --- the model of a mix, for its forecast ---


@pytest.mark.parametrize("strength", [3.0, math.inf])
def test_the_model_of_a_mix_is_over_lidstone(strength):
    documents = SHARDS[0]
    found = pair_cross_entropy(ITEMS, documents, vocab=VOCAB, pseudo=0.3, strength=strength)
    counts, wanted = (count_unigrams(part, VOCAB) for part in (documents, ITEMS))
    tokens = int(counts.sum())
    if math.isinf(strength):
        plain = lexical_cross_entropy(wanted, counts / tokens, tokens=tokens, pseudo=0.3)
        assert found == pytest.approx(plain, rel=1e-12)
        return
    pairs = Counter()
    for ids in documents:
        row = ["<", *map(int, ids)]
        pairs.update(itertools.pairwise(row))
    nats = []
    for ids in ITEMS:
        for before, token in zip(["<", *map(int, ids)], map(int, ids), strict=False):
            word = (counts[token] + 0.3) / (tokens + 0.3 * VOCAB)
            context = sum(n for (first, _), n in pairs.items() if first == before)
            nats.append(-math.log((pairs[before, token] + strength * word) / (context + strength)))
    assert found == pytest.approx(np.mean(nats), rel=1e-12)


def test_the_model_of_a_mix_knows_neither_order_nor_type_nor_emptiness():
    documents = SHARDS[0]
    whole = pair_cross_entropy(ITEMS, documents, vocab=VOCAB)
    turned = [row.astype(np.int64) for row in documents[::-1]] + [np.zeros(0, np.int32)]
    assert pair_cross_entropy(ITEMS[::-1], turned, vocab=VOCAB) == pytest.approx(whole, rel=1e-12)
    assert pair_cross_entropy(ITEMS, [], vocab=VOCAB) == pytest.approx(math.log(VOCAB))
    assert pair_cross_entropy(ITEMS, ITEMS, vocab=VOCAB) < whole
    for wrong in ({"vocab": 0}, {"vocab": VOCAB, "strength": 0}, {"vocab": VOCAB, "pseudo": 0.0}):
        with pytest.raises(ValueError, match="needed"):
            pair_cross_entropy(ITEMS, documents, **wrong)
    with pytest.raises(ValueError, match="no token"):
        pair_cross_entropy([np.zeros(0, np.int64)], documents, vocab=VOCAB)
