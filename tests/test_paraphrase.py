"""Items told in other words."""

from functools import partial

import numpy as np
import pytest

from curate.corpus.prints import word_codes
from curate.corpus.words import number_words
from curate.mixing.items import index_items
from curate.mixing.paraphrase import MOST, compare, find_places
from curate.ranking.encoder import encode, load_encoder
from curate.task2vec.probe import BUILTIN

COMMON = [f"common{n}" for n in range(40)]
RARE = [f"rare{n}" for n in range(3000)]


def make_items(rng, count=20):
    items = []
    for _ in range(count):
        words = [*rng.choice(RARE, 10, replace=False), *rng.choice(COMMON, 10)]
        items.append(" ".join(rng.permutation(words)))
    return items


def reordered(rng, item, lost=2):
    """The item's words in another order, some of the rare ones replaced."""
    words = list(rng.permutation(item.split()))
    for place in [n for n, word in enumerate(words) if word in set(RARE)][:lost]:
        words[place] = f"other{place}"
    return " ".join(words)


def places_of(texts, items):
    words = number_words(texts)
    return find_places(word_codes(words.values), words.bounds, items), words


def test_an_item_in_another_order_is_found_in_its_place_and_other_text_is_not():
    rng = np.random.default_rng(0)
    wanted = make_items(rng)
    filler = [" ".join(rng.choice(COMMON, 200)) for _ in range(40)]
    texts = [
        f"{text} {reordered(rng, wanted[n // 2])} {text}" if n % 2 else text
        for n, text in enumerate(filler)
    ]
    found, words = places_of(texts, index_items({"eval": wanted}))
    best = {place.text: place for place in found}
    assert set(best) == set(range(1, 40, 2))
    for number, place in best.items():
        assert place.item == number // 2
        mine = set(words.spelled(
            int(words.bounds[number]) + place.first, int(words.bounds[number]) + place.last
        ))  # fmt: skip
        assert len(mine & set(wanted[number // 2].split())) >= 8
        assert 0.5 <= place.share <= 1.001


def test_words_far_apart_or_in_two_texts_are_no_place():
    rng = np.random.default_rng(1)
    (item,) = make_items(rng, 1)
    rare = [word for word in item.split() if word in set(RARE)]
    far = " ".join(f"{word} {' '.join(rng.choice(COMMON, 60))}" for word in rare)
    half = [" ".join(rare[:4]), " ".join(rare[4:8])]
    again = " ".join([rare[0]] * 30)
    noise = [" ".join(rng.choice(COMMON, 300)) for _ in range(5)]
    found, _ = places_of([far, *half, again, *noise], index_items({"eval": [item]}))
    assert found == []


def test_a_text_is_compared_with_few_items_and_short_items_with_none():
    rng = np.random.default_rng(2)
    (item,) = make_items(rng, 1)
    noise = " ".join(rng.choice(COMMON, 300))
    found, _ = places_of([reordered(rng, item), noise], index_items({"eval": [item] * 9}))
    assert len(found) == MOST
    assert places_of(["a b c d e"], index_items({"eval": ["a b c d e"]}))[0] == []
    assert places_of([], index_items({"eval": [item]}))[0] == []


def test_the_encoder_knows_a_text_again_and_does_not_depend_on_its_company():
    embed = partial(encode, load_encoder(str(BUILTIN)))
    texts = ["every finite group has an order", "x", "the street was quiet in the evening " * 9]
    vectors = embed(texts)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[1], embed(texts[1:2])[0], atol=1e-5)
    assert compare(texts, texts, embed=embed) == pytest.approx([1, 1, 1], abs=1e-5)
    assert len(compare([], [], embed=embed)) == 0
