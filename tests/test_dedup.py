"""The same text once."""

import numpy as np

from curate.mixing.dedup import Seen, find_duplicate, minhash, normalise

VOCABULARY = [f"word{n}" for n in range(400)]


def make_text(seed, size=200):
    return " ".join(np.random.default_rng(seed).choice(VOCABULARY, size))


def change(text, number, seed=0):
    words = text.split()
    for place in np.random.default_rng(seed).choice(len(words), number, replace=False):
        words[place] = "other"
    return " ".join(words)


def test_an_exact_copy_names_the_text_that_stays():
    seen = Seen()
    assert find_duplicate("A first  text", "a", seen) is None
    found = find_duplicate("a FIRST\ntext ", "b", seen)
    assert (found.kept, found.kind, found.overlap) == ("a", "exact", 1.0)


def test_near_copies_are_found_and_different_texts_are_not():
    seen, missed, wrong = Seen(), 0, 0
    for number in range(60):
        text = make_text(number)
        wrong += find_duplicate(text, f"{number}", seen) is not None
        found = find_duplicate(change(text, 2, seed=number), f"{number}-near", seen)
        missed += found is None or found.kept != f"{number}"
    assert wrong == 0
    assert missed <= 3


def test_the_estimated_overlap_is_the_jaccard_overlap_of_shingles():
    one, two = make_text(1, 600), change(make_text(1, 600), 8)
    sets = [
        {tuple(words[n : n + 5]) for n in range(len(words) - 4)}
        for words in (one.split(), two.split())
    ]
    exact = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    estimate = minhash(one).jaccard(minhash(two))
    assert abs(estimate - exact) < 3 * (exact * (1 - exact) / 64) ** 0.5


def test_near_search_can_be_left_out():
    seen = Seen(near=False)
    find_duplicate(make_text(2), "a", seen)
    assert find_duplicate(change(make_text(2), 1), "b", seen) is None
    assert find_duplicate(make_text(2), "c", seen).kept == "a"


def test_a_limit_counts_what_it_leaves_unchecked():
    seen = Seen(limit=2)
    for number in range(5):
        find_duplicate(make_text(number), str(number), seen)
    assert len(seen.signatures) == 2
    assert seen.unchecked == 3
    assert find_duplicate(make_text(4), "again", seen).kept == "4"


def test_texts_shorter_than_a_shingle_are_only_compared_exactly():
    seen = Seen()
    assert minhash("only four words here") is None
    assert find_duplicate("only four words here", "a", seen) is None
    assert find_duplicate("only four words there", "b", seen) is None
    assert find_duplicate("", "c", seen) is None
    assert find_duplicate(" \n", "d", seen).kept == "c"


def test_normalising_joins_unicode_forms():
    assert normalise("ﬁeld  É") == normalise("FIELD\né") == "field é"
