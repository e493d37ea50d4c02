"""What a mix can have of shards: what was counted, less the documents that hold items."""

import json
import random
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.corpus.pairs import count_pairs
from curate.corpus.tokens import count_unigrams
from curate.errors import CurateError
from curate.mixing import leaks
from curate.mixing.build import build_mix
from curate.mixing.look import Look, write_target
from curate.mixing.stock import Stock, count_kept_out, take_stock
from curate.mixing.survey import leaked_tokens, survey
from curate.mixing.tokenizer import encode_named
from curate.ranking.rank import rank_shards
from curate.records import Target
from curate.settings import CorpusSettings, EmbedSettings, MixSettings, RankSettings
from curate.store.fingerprint import digest_texts
from curate.task2vec.embed import build_index
from curate.task2vec.reading import load_pairs, load_unigrams
from curate.task2vec.tokenizer import load_encode

VOCAB = 5
TEXTS = st.lists(
    st.lists(st.integers(0, VOCAB - 1), max_size=9).map(lambda ids: np.array(ids, np.int32)),
    max_size=6,
)
VOCABULARY = """
sums: theorem proof lemma group ring field ideal kernel image finite abelian order
tale: cat dog house tree river street morning evening walked quietly home again
"""
WORDS = {kind: words.split() for kind, words in re.findall(r"(\w+): (.+)", VOCABULARY)}


@given(TEXTS, TEXTS)
def test_the_pairs_of_what_is_left_are_those_of_a_text_without_it(kept, taken):
    left = count_pairs([*kept, *taken], VOCAB).without(count_pairs(taken, VOCAB), VOCAB)
    alone = count_pairs(kept, VOCAB)
    assert left.keys(VOCAB).tolist() == alone.keys(VOCAB).tolist()
    assert left.counts.tolist() == alone.counts.tolist()
    assert left.by_document == alone.by_document and left.repeats == alone.repeats


def test_what_a_text_has_not_cannot_be_taken_out_of_it():
    some = count_pairs([np.array([1, 2, 1])], VOCAB)
    for other in ([1, 2, 1, 2], [4], [0, 1]):
        with pytest.raises(ValueError, match="the text has not"):
            some.without(count_pairs([np.array(other)], VOCAB), VOCAB)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a pool of two kinds, of each two sources, one of which holds the target's items."""
    folder = tmp_path_factory.mktemp("stock")
    rng = random.Random(1)

    def text(kind, n):
        return " ".join(rng.choices(WORDS[kind], k=n))

    items = [text("sums", 25) for _ in range(12)]
    (folder / "in").mkdir()
    for name in ("sums", "tale", "tale_with_items"):
        texts = [text(name[:4], rng.randint(20, 60)) for _ in range(60)]
        if name == "tale_with_items":  # a third of its documents
            texts[::5] = [f"{text('tale', 20)} {item}. {text('tale', 9)}" for item in items]
        lines = [json.dumps({"text": each}) for each in texts]
        (folder / "in" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    index = build_index(
        CorpusSettings(inputs=(str(folder / "in"),), shard_tokens=1500),
        EmbedSettings(batches=1, batch_tokens=64, block_tokens=32),
        workspace=folder / "ws",
        device="cpu",
    )
    target = Target(
        name="asked", select=tuple(items[:6]), eval=tuple(items[6:]),
        select_digest=digest_texts(items[:6]), eval_digest=digest_texts(items[6:]), origin="here",
    )  # fmt: skip
    return folder, index, target


def look_for(place, **given):
    folder, index, target = place
    return Look(
        text="text", seed=0, target=write_target(folder / "facts", target),
        kept=str(Path(index.folder) / "prints"),
        encode=partial(encode_named, name="builtin", info=index.probe), **given,
    )  # fmt: skip


def test_a_shard_has_what_its_documents_without_items_hold(place):
    folder, index, target = place
    names = [each.shard.name for each in index.shards]
    stock = take_stock(index, target, names, ngram=13, folder=folder / "facts")
    assert {name.rsplit("-", 1)[0] for name in stock.kept_out} == {"tale_with_items"}

    encode, _ = load_encode("builtin", index.probe)
    items, clean = {*target.select, *target.eval}, {}
    for source in ("sums", "tale", "tale_with_items"):
        lines = (folder / "in" / f"{source}.jsonl").read_text().splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        clean[source] = [text for text in texts if not any(item in text for item in items)]
    assert [len(each) for each in clean.values()] == [60, 60, 48]

    vocab = index.probe.vocab
    for source, texts in clean.items():
        ids = encode(texts)
        entries = [each for each in index.shards if each.shard.source == source]
        words = sum(stock.words(each) for each in entries)
        np.testing.assert_array_equal(words, count_unigrams(ids, vocab))
        assert sum(stock.tokens(each) for each in entries) == words.sum()
        found = {}
        for each in entries:
            pairs = stock.pairs(each)
            for key, count in zip(pairs.keys(vocab).tolist(), pairs.counts.tolist(), strict=True):
                found[key] = found.get(key, 0) + count
        whole = count_pairs(ids, vocab)
        keys = whole.keys(vocab).tolist()
        assert found == dict(zip(keys, whole.counts.tolist(), strict=True))
    assert stock.room == {each.shard.name: stock.tokens(each) for each in index.shards}

    held = {each.shard.name: each.shard.n_tokens for each in index.shards}
    few, most = stock.natural(100), stock.natural(10**9)
    assert sum(few.values()) == pytest.approx(100) and most == stock.room  # and all there is
    share = 100 / sum(held.values())  # in proportion to what the index has, leaks among it
    assert few == pytest.approx({name: share * tokens for name, tokens in held.items()})


def test_shards_that_are_not_looked_at_are_as_they_were_counted(place, tmp_path):
    _, index, target = place
    for stock in (Stock(index), take_stock(index, target, [], ngram=13, folder=tmp_path)):
        assert not stock.kept_out
        for each in index.shards:
            assert stock.tokens(each) == each.shard.n_tokens
            np.testing.assert_array_equal(
                stock.words(each), load_unigrams(Path(index.folder), each.key)
            )
            own = load_pairs(Path(index.folder), each.key)
            assert stock.pairs(each).counts.tolist() == own.counts.tolist()


def test_tokens_of_leaks_are_found_once_and_again_where_they_are_gone(place, monkeypatch, tmp_path):
    _, index, _ = place
    look, shards = look_for(place), [each.shard for each in index.shards]
    plain = replace(look, encode=None)  # leaks alone, as an earlier look left them
    survey(shards, [5] * len(shards), [None] * len(shards), look=replace(plain, count=_sizes),
           folder=tmp_path)  # fmt: skip
    assert not [*tmp_path.rglob("*.safetensors")]
    first = leaked_tokens(shards, look=look, folder=tmp_path)
    assert sum(map(len, first)) == 12
    held = list(tmp_path.rglob("*.safetensors"))
    assert held

    searched = []
    monkeypatch.setattr(leaks, "index_target", lambda *_, **__: searched.append(1))
    again = leaked_tokens(shards, look=look, folder=tmp_path)
    assert not searched
    monkeypatch.undo()
    held[0].write_bytes(held[0].read_bytes()[:-1])  # cut by a crash
    once_more = leaked_tokens(shards, look=look, folder=tmp_path)
    for other in (again, once_more):
        assert [[ids.tolist() for ids in each] for each in other] == [
            [ids.tolist() for ids in each] for each in first
        ]


def _sizes(texts):
    return [len(text.split()) for text in texts]


def test_a_mix_is_not_drawn_to_shards_whose_likeness_is_the_items_that_they_hold(place, tmp_path):
    folder, index, target = place
    ranking = rank_shards(index, target, RankSettings(), workspace=folder / "ws", device="cpu")
    clean = build_mix(
        index, ranking, target, MixSettings(budget=2000), workspace=folder / "ws",
        out=tmp_path / "clean",
    )  # fmt: skip
    leaky = build_mix(
        index, ranking, target, MixSettings(budget=2000, decontaminate=False),
        workspace=folder / "ws", out=tmp_path / "leaky",
    )  # fmt: skip
    assert leaky.sources["tale_with_items"] > 2 * clean.sources.get("tale_with_items", 0)
    assert leaky.sources["tale_with_items"] > 2 * leaky.sources.get("tale", 0)
    other = max(clean.sources.get(name, 0) for name in ("tale", "tale_with_items"))
    assert other < 200 and clean.sources["sums"] > 1700  # the one tale is worth what the other is
    plan, written = (
        json.loads((tmp_path / "clean" / "manifest.json").read_text())[when]["mix"]
        for when in ("planned", "written")
    )
    assert plan["forecast"]["drop"] == pytest.approx(written["forecast"]["drop"], abs=0.02)


def test_a_kept_out_document_is_counted_by_its_tokens():
    out = count_kept_out([np.array([1, 2, 1]), np.array([4])], VOCAB)
    assert out.tokens == 4 and out.words.tolist() == [0, 2, 1, 0, 1]
    assert out.pairs.counts.sum() == 4


def test_an_input_that_changed_is_said(place, tmp_path):
    folder, index, _ = place
    path = folder / "in" / "tale_with_items.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"cat", b"dog"))
    try:
        with pytest.raises(CurateError, match=r"changed|run curate index again"):
            leaked_tokens(
                [each.shard for each in index.shards], look=look_for(place), folder=tmp_path
            )
    finally:
        path.write_bytes(whole)
