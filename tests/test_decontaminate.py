"""No item of the target in the mix."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from curate.corpus.prints import word_codes
from curate.corpus.words import number_words, split_words, window_values
from curate.mixing.decontaminate import _hits, find_leaks, suspect
from curate.mixing.items import index_items, index_target, item_parts
from curate.records import Target

WORDS = [
    "let",
    "group",
    "ring",
    "prove",
    "that",
    "every",
    "finite",
    "map",
    "is",
    "open",
    "closed",
    "compact",
    "abelian",
    "order",
    "element",
    "of",
    "the",
    "a",
    "in",
    "for",
    "all",
    "there",
    "exists",
    "some",
    "such",
    "with",
    "not",
    "continuous",
    "ideal",
    "prime",
    "field",
    "kernel",
    "image",
]
FILLER = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "rivers",
    "run",
    "past",
    "old",
    "mills",
]


def make_item(rng, size):
    return " ".join(rng.choice(WORDS, size))


def make_filler(rng, size):
    return " ".join(rng.choice(FILLER, size))


def plant(rng, text):
    return f"{make_filler(rng, 40)}. {text}; {make_filler(rng, 30)}"


@pytest.mark.parametrize("size", [4, 5, 6, 9, 12, 13, 14, 20, 26, 27, 60])
def test_every_verbatim_item_is_found_and_named(size):
    rng = np.random.default_rng(size)
    texts = [make_item(rng, size) for _ in range(40)]
    items = index_items({"select": texts[:20], "eval": texts[20:]})
    names = [f"select:{n}" for n in range(20)] + [f"eval:{n}" for n in range(20)]
    leaks = find_leaks([plant(rng, text) for text in texts], items)
    assert [leak.item for leak in leaks] == names
    assert [leak.words for leak in leaks] == [" ".join(split_words(text)) for text in texts]
    assert {leak.kind for leak in leaks} == {"whole"}


def test_case_spacing_and_unicode_forms_do_not_hide_an_item():
    rng = np.random.default_rng(0)
    item = "Show that the ﬁeld ℝ is complete, and that each of its ordered subfields is not"
    items = index_items({"eval": [item]})
    hidden = item.upper().replace("ﬁ".upper(), "FI").replace(" ", "\n\t ")
    assert find_leaks([plant(rng, hidden)], items)[0].item == "eval:0"


@pytest.mark.parametrize("ngram", [2, 3, 5, 8, 10, 11, 13])
def test_the_sieve_lets_every_window_through_wherever_it_stands(ngram):
    rng = np.random.default_rng(ngram)
    texts = [make_item(rng, size) for size in (4, 5, 7, 9, 13, 30) for _ in range(6)]
    items = index_items({"eval": texts}, ngram=ngram)
    codes = word_codes(number_words([f"{make_filler(rng, 9)} {make_filler(rng, 9)}"]).values)
    wanted = [np.concatenate([codes[:shift], each, codes]) for shift in range(9)
              for each in items.codes]  # fmt: skip
    joined, ends = np.concatenate(wanted), np.cumsum([0, *map(len, wanted)])
    for table, (positions, lines) in zip(items.tables, _hits(joined, items), strict=True):
        naive = window_values(joined.astype(np.uint64), table.length).tolist()
        keys = np.repeat(table.keys, np.diff(table.edges)).tolist()
        where = [
            (n, line)
            for n, key in enumerate(naive)
            for line, (wanted, shift) in enumerate(zip(keys, table.shift.tolist(), strict=True))
            if key == wanted and naive[n + shift : n + shift + 1] == [int(table.second[line])]
        ]
        assert sorted(zip(positions.tolist(), lines.tolist(), strict=True)) == where
        assert not table.keys.size or where
    assert suspect(joined, ends, items) == list(range(len(wanted)))


@pytest.mark.parametrize("size", [13, 14, 17, 20, 25, 26, 27, 40, 80])
@pytest.mark.parametrize("edit", ["change", "add", "drop"])
def test_one_word_edits_are_found_from_thirteen_words_on(size, edit):
    rng = np.random.default_rng(size)
    texts = [make_item(rng, size) for _ in range(30)]
    edited = []
    for text in texts:
        words, place = text.split(), int(rng.integers(size))
        if edit == "change":
            words[place] = "zebra"
        elif edit == "add":
            words.insert(place, "zebra")
        else:
            del words[place]
        edited.append(plant(rng, " ".join(words)))
    found = [leak is not None for leak in find_leaks(edited, index_items({"eval": texts}))]
    assert all(found)


def test_a_part_of_thirteen_words_is_found_and_one_of_twelve_is_not():
    rng = np.random.default_rng(3)
    text = " ".join(rng.permutation(WORDS)[:30])
    items = index_items({"eval": [text]})
    part, less = " ".join(text.split()[5:18]), " ".join(text.split()[5:17])
    leak, none = find_leaks([plant(rng, part), plant(rng, less)], items)
    assert leak.kind == "run" and leak.n_words == 13 and leak.words == part
    assert none is None


def test_an_item_of_which_more_than_a_half_is_gone_is_not_compared():
    """Both ends of a half have to stand: an opening that any text has is passed over."""
    rng = np.random.default_rng(5)
    texts = [make_item(rng, 40) for _ in range(8)]
    items = index_items({"eval": texts})
    opening = word_codes(number_words([" ".join(text.split()[:12]) for text in texts]).values)
    assert all(len(positions) == 0 for positions, _ in _hits(opening, items))
    half = word_codes(number_words([texts[0]]).values)[:20]
    assert [len(positions) for positions, _ in _hits(half, items)[1:]] == [1]


def test_wording_that_all_items_share_is_no_leak_but_their_own_is():
    rng = np.random.default_rng(4)
    shared = " ".join(f"stock{n}" for n in range(16))
    texts = [f"{shared} {make_item(rng, 16)}" for _ in range(10)]
    items = index_items({"eval": texts})
    stock, whole = find_leaks([plant(rng, shared), plant(rng, texts[7])], items)
    assert stock is None
    assert whole.item == "eval:7"


def test_a_run_of_signs_is_no_leak_until_it_is_long():
    rng = np.random.default_rng(9)
    item = make_item(rng, 20) + " ( x ) ^ 2 >= 0 $ for all $ ( y ) in { z } + [ w ] / ( v ) - u"
    items = index_items({"eval": [item]})
    signs = "( x ) ^ 2 >= 0 $ for all $ ( y )"
    none, found = find_leaks([plant(rng, signs), plant(rng, item[-58:])], items)
    assert none is None
    assert found.kind == "run"


def test_an_item_without_words_of_its_own_is_matched_whole():
    rng = np.random.default_rng(5)
    text = make_item(rng, 40)
    items = index_items({"eval": [text] * 6})
    part = " ".join(text.split()[:20])
    none, whole = find_leaks([plant(rng, part), plant(rng, text)], items)
    assert none is None
    assert whole.kind == "whole"


def test_tiny_items_are_matched_to_whole_lines_only():
    items = index_items({"eval": ["x = 2", "prove Fermat"]})
    leaks = find_leaks(["so x = 2 holds", "Answer:\n X = 2 \nDone", "prove  fermat"], items)
    assert [leak and leak.item for leak in leaks] == [None, "eval:0", "eval:1"]


def test_items_do_not_match_across_two_documents():
    rng = np.random.default_rng(6)
    text = make_item(rng, 20)
    first, second = " ".join(text.split()[:10]), " ".join(text.split()[10:])
    assert find_leaks([first, second, "", "\n"], index_items({"eval": [text]})) == [None] * 4


def test_the_result_does_not_depend_on_how_texts_are_grouped():
    rng = np.random.default_rng(7)
    texts = [make_item(rng, int(n)) for n in rng.integers(4, 50, 25)]
    documents = [plant(rng, t) if n % 3 else make_filler(rng, 90) for n, t in enumerate(texts)]
    items = index_items({"eval": texts})
    assert find_leaks(documents, items) == [find_leaks([d], items)[0] for d in documents]


def test_no_items_and_no_texts_are_fine():
    assert find_leaks(["some text"], index_items({"eval": []})) == [None]
    assert find_leaks([], index_items({"eval": ["some text here and there"]})) == []
    with pytest.raises(ValueError, match="below 2"):
        index_items({"eval": []}, ngram=1)


@pytest.mark.skipif("CURATE_DATA_DIR" not in os.environ, reason="needs CURATE_DATA_DIR")
def test_every_planted_proofnet_item_is_found_and_shakespeare_is_clean():
    folder = Path(os.environ["CURATE_DATA_DIR"]) / "targets" / "proofnet"
    splits = {}
    for split, name in (("select", "valid"), ("eval", "test")):
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
        splits[split] = [
            f"informal statement {r['nl_statement']} formal statement {r['formal_statement']}"
            for r in rows
        ]
    items = index_items(splits)
    rng = np.random.default_rng(8)
    planted = [plant(rng, text) for texts in splits.values() for text in texts]
    assert all(find_leaks(planted, items))
    edited = []
    for texts in splits.values():
        for text in texts:
            words = text.split()
            words[int(rng.integers(len(words)))] = "zebra"
            edited.append(plant(rng, " ".join(words)))
    assert np.mean([leak is not None for leak in find_leaks(edited, items)]) > 0.99
    assert not any(find_leaks([make_filler(rng, 500) for _ in range(50)], items))


def test_fields_inside_fields_are_looked_for_one_by_one():
    template = "Q: {question.text} A: {answer.0} C: {context.text}"
    item = "Q: why does the sky look blue? A: light C: " + "the passage goes on and on " * 5
    parts = item_parts(item, template)
    assert parts == ("why does the sky look blue?\nlight", "why does the sky look blue?")


def test_each_item_of_several_targets_is_taken_apart_by_its_own_template():
    first, second = "Name the {animal} of Bolivia", "{question}\n{passage}"
    asked = "which of the rivers here is longest?"
    passage = "a passage that anyone may quote, with many more words than thirteen in it, really"
    target = Target(
        name="a:1+b:2",
        select=("Name the llama of Bolivia", f"{asked}\n{passage}"),
        eval=(f"a different question of the rest?\n{passage}",),
        select_digest="s",
        eval_digest="e",
        origin="",
        spare=("Name the tapir of Bolivia",),
        templates=((first, 1, 0, 1), (second, 1, 1, 0)),
    )
    items = index_target(target)
    texts = [f"He said: {asked} And left.", f"Quoted: {passage}", "Name the tapir of Bolivia"]
    found = [leak and leak.item for leak in find_leaks(texts, items)]
    assert found == ["select:1", None, "spare:0"]
