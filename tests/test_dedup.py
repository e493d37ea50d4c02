"""The same text once."""

import numpy as np
import pytest

from curate.corpus.sketch import sketch
from curate.corpus.words import number_words
from curate.mixing.dedup import Seen, _several, alike_groups, find_copies, normalise, overlaps

VOCABULARY = [f"word{n}" for n in range(400)]


def make_text(seed, size=200):
    return " ".join(np.random.default_rng(seed).choice(VOCABULARY, size))


def change(text, number, seed=0):
    words = text.split()
    for place in np.random.default_rng(seed).choice(len(words), number, replace=False):
        words[place] = "other"
    return " ".join(words)


def copies(texts, **seen):
    return find_copies(*sketch(number_words(texts)), seen=Seen(**seen))


def jaccard(one, other):
    sets = [
        {tuple(words[n : n + 5]) for n in range(len(words) - 4)}
        for words in (one.split(), other.split())
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_an_exact_copy_names_the_first():
    found = copies(["A first  text", "another", "a FIRST\ntext ", "A first text"])
    assert found.kept.tolist() == [0, 1, 0, 0]
    assert found.exact.all() and found.overlap[2] == 1.0


def test_near_copies_are_found_and_different_texts_are_not():
    texts = [make_text(n) for n in range(100)]
    near = [change(text, 2, seed=n) for n, text in enumerate(texts)]
    found = copies(texts + near)
    assert found.kept[:100].tolist() == list(range(100))
    right = found.kept[100:] == np.arange(100)
    truth = np.array([jaccard(a, b) for a, b in zip(texts, near, strict=True)])
    assert right[truth > 0.9].all()
    assert not found.exact[100:].any()


@pytest.mark.parametrize("size", [12, 40, 200, 800])
def test_the_overlap_estimates_the_jaccard_overlap_of_shingles(size):
    texts = [make_text(n, size) for n in range(150)]
    other = [change(text, max(1, size // 40), seed=n) for n, text in enumerate(texts)]
    _, signatures, _ = sketch(number_words(texts + other))
    found = overlaps(signatures, np.arange(150), np.arange(150, 300))
    truth = np.array([jaccard(a, b) for a, b in zip(texts, other, strict=True)])
    error = np.sqrt(np.mean(truth * (1 - truth)) / 64)
    assert abs(np.mean(found - truth)) < 4 * error / np.sqrt(150) + 0.01
    assert np.std(found - truth) < 1.5 * error + 0.01


def test_a_sketch_does_not_depend_on_the_texts_beside_it():
    texts = [make_text(n, size) for n, size in enumerate([3, 5, 12, 300, 70])]
    whole = sketch(number_words(texts))
    for number, text in enumerate(texts):
        alone = sketch(number_words([text]))
        assert all((a[number] == b[0]).all() for a, b in zip(whole, alone, strict=True))


def test_a_group_of_many_near_copies_keeps_one():
    text = make_text(3, 400)
    found = copies([change(text, 1, seed=n) for n in range(60)])
    assert set(found.kept.tolist()) == {0}


def test_near_search_can_be_left_out_or_limited():
    texts = [make_text(2), change(make_text(2), 1), make_text(2)]
    assert copies(texts, near=False).kept.tolist() == [0, 1, 0]
    assert copies(texts, limit=1).kept.tolist() == [0, 1, 0]


def test_texts_shorter_than_a_shingle_are_only_compared_exactly():
    found = copies(["only four words here", "only four words there", "", " \n", "a b c d"])
    assert found.kept.tolist() == [0, 1, 2, 2, 4]
    assert len(copies([]).kept) == 0


def test_like_texts_share_a_group_below_the_mark_of_copies():
    texts = [make_text(n) for n in range(40)]
    like = [change(text, 6, seed=n) for n, text in enumerate(texts)]
    truth = np.array([jaccard(a, b) for a, b in zip(texts, like, strict=True)])
    assert (truth < 0.8).any()
    groups = alike_groups(*sketch(number_words(texts + like)))
    assert (groups[:40] == groups[40:])[truth > 0.7].mean() > 0.97
    assert len(set(groups[:40].tolist())) == 40


def test_normalising_joins_unicode_forms():
    assert normalise("ﬁeld  É") == normalise("FIELD\né") == "field é"


def test_copies_are_those_that_a_plain_comparison_of_all_finds():
    rng = np.random.default_rng(1)
    owner = rng.integers(60, size=400)
    signatures = rng.integers(1 << 16, size=(60, 64)).astype(np.uint16)[owner]
    for signature in signatures:  # two of one owner differ in half of their bands at most
        signature[rng.choice(64, 4, replace=False)] += 1
    values = rng.permutation(400).astype(np.uint64)
    values[200:300], signatures[200:300] = values[:100], signatures[:100]
    found = find_copies(values, signatures, np.ones(400, np.int64), seen=Seen())
    alike = (values == values[:, None]) | ((signatures == signatures[:, None]).mean(2) >= 0.8)
    reach = np.linalg.matrix_power(alike.astype(float), 8) > 0
    assert found.kept.tolist() == reach.argmax(1).tolist()
    same = values == values[:, None]
    assert found.exact.tolist() == (same.argmax(1) == found.kept).tolist()
    shared = (signatures == signatures[found.kept]).mean(1)
    assert found.overlap.tolist() == shared.tolist()


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_all_values_that_occur_twice_are_among_those_sorted_and_few_others(count):
    values = np.random.default_rng(0).integers(1 << 62, size=count).astype(np.uint64)
    values = np.concatenate([values, values[::3]])
    found = _several(values)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    twice = np.flatnonzero(counts[inverse] > 1)
    assert set(twice.tolist()) <= set(found.tolist()) and (np.diff(found) > 0).all()
    assert len(found) - len(twice) <= len(values) / 4
