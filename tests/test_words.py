"""Words as numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.corpus import words as module
from curate.corpus.words import (
    fold,
    number_words,
    split_words,
    text_of,
    text_values,
    window_values,
)

TEXT = st.text(alphabet=st.one_of(st.characters(), st.sampled_from("ab \n.,É ﬁ日")), max_size=60)


@settings(max_examples=80, deadline=None)
@given(st.lists(TEXT, max_size=5))
def test_the_words_are_those_of_the_regular_expression(texts):
    words = number_words(texts)
    for text, (first, last) in enumerate(
        zip(words.bounds[:-1].tolist(), words.bounds[1:].tolist(), strict=True)
    ):
        assert words.spelled(first, last) == split_words(texts[text])


def test_equal_words_have_equal_numbers_and_others_do_not():
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in rng.integers(0, 5000, 3000)) for _ in range(3)]
    words = number_words(texts)
    spelled = words.spelled(0, len(words.values))
    assert len(set(spelled)) == len(set(words.values.tolist()))
    assert len({*zip(spelled, words.values.tolist(), strict=True)}) == len(set(spelled))


@pytest.mark.parametrize("length", [1, 2, 5, 13])
def test_a_window_has_the_number_of_its_words_wherever_it_stands(length):
    one = number_words(["x y z the quick brown fox jumps over a lazy dog and so on and on it goes"])
    other = number_words(["the quick brown fox jumps over a lazy dog and so on and on it goes"])
    assert window_values(one.values, length)[3:].tolist() == (
        window_values(other.values, length).tolist()
    )
    assert len(window_values(other.values, 99)) == 0


def test_blocks_do_not_matter(monkeypatch):
    text = " ".join(f"word{n % 97}, then" for n in range(3000)) + " " + "x" * 3000
    whole = number_words([text])
    windows, value = window_values(whole.values, 5), text_values(whole)
    monkeypatch.setattr(module, "BLOCK", 500)
    assert number_words([text]).values.tolist() == whole.values.tolist()
    assert window_values(whole.values, 5).tolist() == windows.tolist()
    assert len(np.unique(windows)) > 90 and value.shape == (1,)


def test_very_long_words_differ_by_their_beginning_and_length():
    words = number_words(["x" * 5000, "x" * 5001, "y" + "x" * 4999, "x" * 5000])
    assert len(set(words.values.tolist())) == 3


def test_a_text_has_one_number_and_the_order_of_words_counts():
    words = number_words(["to be or not", "TO  be or\nnot", "not or be to", "", " "])
    values = text_values(words).tolist()
    assert values[0] == values[1] != values[2]
    assert values[3] == values[4]
    assert text_of(words).tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_folding_joins_forms_and_nothing_is_fine():
    assert fold("ﬁ É") == "fi é"
    assert len(number_words([]).values) == 0
    assert number_words(["", ""]).bounds.tolist() == [0, 0, 0]
