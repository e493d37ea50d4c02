"""From a ranking and a budget to a mix of exactly that many tokens."""

import dataclasses
import json
import random
import re
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from curate.errors import UNREACHABLE, CurateError
from curate.mixing.build import build_mix, open_mix, read_mix_texts
from curate.mixing.decontaminate import index_items
from curate.mixing.dedup import Seen
from curate.mixing.documents import Filters, cut_text, select_documents
from curate.mixing.tokenizer import load_encode
from curate.records import (
    CorpusSettings,
    EmbedSettings,
    MixSettings,
    RankSettings,
    Target,
)

VOCABULARY = """
math: theorem proof lemma group ring field ideal kernel image finite abelian order
story: cat dog house tree river street morning evening walked quietly home again
code: def return import class self print for while range len try except
"""
WORDS = {kind: words.split() for kind, words in re.findall(r"(\w+): (.+)", VOCABULARY)}


def make_texts(rng, kind, count, size=(20, 90)):
    return [" ".join(rng.choices(WORDS[kind], k=rng.randint(*size))) for _ in range(count)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small corpus with leaks and copies, its index, target and ranking."""
    from curate.ranking.rank import rank_shards
    from curate.store.fingerprint import digest_texts
    from curate.task2vec.embed import build_index

    folder = tmp_path_factory.mktemp("mixing")
    rng = random.Random(0)
    items = make_texts(rng, "math", 24, size=(20, 40))
    target = Target(
        name="sums",
        select=tuple(items[:12]),
        eval=tuple(items[12:]),
        select_digest=digest_texts(items[:12]),
        eval_digest=digest_texts(items[12:]),
        origin="made in code",
    )
    (folder / "in").mkdir()
    for kind in WORDS:
        texts = make_texts(rng, kind, 60)
        if kind == "math":
            texts[5] = f"{texts[5]} {items[3]}. {texts[6]}"
            texts[20] = f"{texts[20]} {items[15]}"
            texts[30] = texts[31].upper()
        lines = [json.dumps({"text": text, "id": f"{kind}{n}"}) for n, text in enumerate(texts)]
        (folder / "in" / f"{kind}.jsonl").write_text("\n".join(lines) + "\n")
    index = build_index(
        CorpusSettings(inputs=(str(folder / "in"),), shard_tokens=3000),
        EmbedSettings(batches=2, batch_tokens=256, block_tokens=64),
        workspace=folder / "ws",
        device="cpu",
    )
    ranking = rank_shards(index, target, RankSettings(), workspace=folder / "ws", device="cpu")
    encode, _ = load_encode("builtin", index.probe)
    return folder, index, target, ranking, encode


@pytest.fixture
def build(place, tmp_path):
    folder, index, target, ranking, _ = place

    def call(out="mix", fmt="parquet", notify=None, **settings):
        arguments = {"budget": 4001, **settings}
        return build_mix(
            index,
            ranking,
            target,
            MixSettings(**arguments),
            workspace=folder / "ws",
            out=tmp_path / out,
            fmt=fmt,
            notify=notify or (lambda *_: None),
        )

    return call


def recount(mix, encode):
    return sum(len(ids) for ids in encode([text for text, _ in read_mix_texts(mix)]))


@pytest.mark.parametrize("selection", ["top", "temperature", "match"])
@pytest.mark.parametrize("budget", [1, 777, 6003])
def test_the_budget_is_met_to_the_token(build, place, selection, budget):
    mix = build(budget=budget, selection=selection)
    assert mix.tokens == budget == recount(mix, place[4])
    assert sum(part.tokens for part in mix.parts) == budget
    assert all(n == len(place[4]([text])[0]) for text, n in read_mix_texts(mix))


def test_jsonl_and_repetitions_meet_it_too(build, place):
    total = sum(entry.shard.n_tokens for entry in place[1].shards)
    mix = build(budget=total + 500, max_epochs=2.0, fmt="jsonl")
    assert mix.tokens == total + 500 == recount(mix, place[4])
    lines = pq.read_table(Path(mix.folder) / "provenance.parquet").to_pylist()
    times = Counter((line["file_digest"], line["record"]) for line in lines if not line["cut"])
    assert set(times.values()) <= {1, 2} and max(times.values()) == 2


def test_the_best_shards_come_first_and_the_forecast_is_said_before(build):
    told = []
    mix = build(notify=lambda what, *_: told.append(what))
    assert max(mix.sources, key=mix.sources.get) == "math"
    first = next(n for n, what in enumerate(told) if "forecast drop" in what)
    assert first < told.index("write the mix")
    assert mix.forecast.drop > 0 and "no measured runs yet" in mix.forecast.basis
    manifest = json.loads((Path(mix.folder) / "manifest.json").read_text())
    found = {name: each["alignment"] for name, each in manifest["planned"].items()}
    assert found["mix"] > found["random"] > found["worst"]
    assert mix.low <= mix.alignment <= mix.high


def test_no_item_of_either_split_is_in_the_mix_and_the_report_says_what_went(build, place):
    total = sum(e.shard.n_tokens for e in place[1].shards if e.shard.source == "math")
    mix = build(budget=total)  # more than clean mathematics: all of it is looked at
    texts = [text for text, _ in read_mix_texts(mix)]
    assert not any(item in text for item in (*place[2].select, *place[2].eval) for text in texts)
    lines = (Path(mix.folder) / "decontamination.jsonl").read_text().splitlines()
    report = {line["id"]: line for line in map(json.loads, lines)}
    assert {name: line["of"] for name, line in report.items()} == {
        "math5": "select:3",
        "math20": "eval:3",
    }
    assert report["math5"]["words"] == place[2].select[3]
    assert (mix.decontaminated, mix.duplicates) == (2, 1)


def test_decontamination_and_deduplication_can_be_turned_off(build, place):
    total = sum(e.shard.n_tokens for e in place[1].shards)
    mix = build(budget=total, decontaminate=False, dedup=False)
    assert (mix.decontaminated, mix.duplicates, mix.tokens) == (0, 0, total)
    with pytest.raises(
        CurateError, match="2 documents hold items of the target, 1 are copies"
    ) as e:
        build(budget=total)
    assert e.value.exit_code == UNREACHABLE


def test_every_row_traces_to_its_record(build, place):
    mix = build()
    sources = {}
    for path in (place[0] / "in").iterdir():
        records = [json.loads(line) for line in path.read_text().splitlines()]
        sources[path.stem] = records
    rows = pq.read_table(Path(mix.folder) / "data").to_pylist()
    lines = pq.read_table(Path(mix.folder) / "provenance.parquet").to_pylist()
    for row, line in zip(rows, lines, strict=True):
        origin = sources[line["source"]][line["record"]]["text"]
        assert origin == row["text"] or (line["cut"] and row["text"] in origin)
    assert sum(line["cut"] for line in lines) == 1


def test_load_dataset_opens_the_folder(build, tmp_path):
    for fmt in ("parquet", "jsonl"):
        mix = build(out=f"mix-{fmt}", fmt=fmt)
        loaded = datasets.load_dataset(mix.folder, split="train", cache_dir=str(tmp_path / "c"))
        assert sum(loaded["tokens"]) == mix.tokens


def contents(folder):
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name != ".lock"}


def test_the_same_command_gives_the_same_bytes_and_a_rerun_does_nothing(build):
    one, two = build(out="one"), build(out="two")
    assert contents(one.folder) == contents(two.folder)
    stamps = {p: p.stat().st_mtime_ns for p in Path(one.folder).rglob("*") if p.name != ".lock"}
    again = build(out="one")
    assert again == one
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}
    assert build(out="two", seed=1).fingerprint != one.fingerprint


def test_a_failure_leaves_no_half_mix_and_the_next_run_mends_it(build, monkeypatch, tmp_path):
    oracle = contents(build(out="oracle").folder)
    build(out="mix", budget=500)
    monkeypatch.setattr("curate.store.failpoint._counts", {})
    monkeypatch.setenv("CURATE_FAILPOINT", "publish.before_rename:5=enospc")
    with pytest.raises(CurateError, match="No space left"):
        build(out="mix")
    assert not (tmp_path / "mix" / "meta.json").exists()
    assert [path.name for path in tmp_path.iterdir() if "staging" in path.name] == []
    monkeypatch.delenv("CURATE_FAILPOINT")
    assert contents(build(out="mix").folder) == oracle


def test_a_changed_file_of_the_mix_is_noticed(build, place):
    mix = build()
    path = Path(mix.folder) / "data" / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CurateError, match="changed since it was published"):
        open_mix(place[0] / "ws")


@pytest.mark.parametrize(
    ("settings", "message", "code"),
    [
        ({"budget": 10**9}, "allow --max-epochs", UNREACHABLE),
        ({"budget": 0}, "budget is 0", 2),
        ({"max_epochs": 0.5}, "max_epochs", 2),
        ({"fmt": "csv"}, "format csv", 2),
        ({"tokenizer": "/no/such/folder"}, "tokenizer /no/such/folder", 1),
    ],
)
def test_what_cannot_be_done_is_one_line(build, settings, message, code):
    with pytest.raises(CurateError, match=message) as error:
        build(**settings)
    assert error.value.exit_code == code
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_mix_is_left_alone(build, place, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(CurateError, match=r"thesis\.txt"):
        build(out="mine")
    with pytest.raises(CurateError, match=r"holds \w+\.jsonl"):
        build(out=str(place[0] / "in"))
    with pytest.raises(CurateError, match="inside the input"):
        build(out=str(place[0] / "in" / "mix"))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_another_ranking_or_target_is_refused(place, tmp_path):
    folder, index, target, ranking, _ = place
    settings, where = MixSettings(budget=100), {"workspace": folder / "ws", "out": tmp_path / "m"}
    other = dataclasses.replace(ranking, index_fingerprint="x")
    with pytest.raises(CurateError, match="another index"):
        build_mix(index, other, target, settings, **where)
    with pytest.raises(CurateError, match="not the items that were ranked"):
        build_mix(index, ranking, dataclasses.replace(target, name="y"), settings, **where)


def test_control_arms_get_their_shares_without_leaks(place):
    _, index, target, _, encode = place
    natural = {entry.shard.name: float(entry.shard.n_tokens) for entry in index.shards}
    filters = Filters(items=index_items({"eval": target.eval}), seen=Seen())
    rows = list(select_documents(index, natural, budget=3000, encode=encode, filters=filters))
    tokens = Counter()
    for row in rows:
        tokens[row.shard] += row.n_tokens
    assert sum(tokens.values()) == 3000
    total = sum(natural.values())
    assert all(abs(tokens[name] - 3000 * n / total) <= 1 for name, n in natural.items())
    assert all(each.of == "eval:3" for each in filters.dropped if each.reason == "leak")


def test_a_shortfall_of_one_shard_is_met_by_the_others(place):
    _, index, _, _, encode = place
    names = [entry.shard.name for entry in index.shards]
    whole = {entry.shard.name: entry.shard.n_tokens for entry in index.shards}
    room = whole[names[0]] + 50
    rows = list(
        select_documents(
            index, {names[0]: 1, names[1]: 0}, budget=room, encode=encode, refill="order"
        )
    )
    given = {name: sum(row.n_tokens for row in rows if row.shard == name) for name in names[:2]}
    assert given == {names[0]: room - 50, names[1]: 50}


def test_a_refill_goes_on_where_a_document_was_cut(place):
    _, index, target, _, encode = place
    whole = {entry.shard.name: entry.shard.n_tokens for entry in index.shards}
    # the mathematics loses its leaks, so every other shard is visited twice
    filters = Filters(items=index_items({"s": target.select, "e": target.eval}))
    budget = sum(whole.values()) - 400
    rows = list(select_documents(index, whole, budget=budget, encode=encode, filters=filters))
    assert sum(row.n_tokens for row in rows) == budget
    texts = Counter((row.document.file_digest, row.document.record) for row in rows if not row.cut)
    assert max(texts.values()) == 1


@pytest.mark.parametrize("text", ["plain words in a row " * 30, "日本語🙂🙂é" * 40, "a" * 500])
def test_a_cut_encodes_to_exactly_what_was_asked(place, text):
    encode = place[4]
    size = len(encode([text])[0])
    missed = 0
    for wanted in np.linspace(1, size - 1, 12).astype(int).tolist():
        begun, found = cut_text(text, wanted, encode=encode)
        assert text.startswith(begun)
        assert found == len(encode([begun])[0]) <= wanted
        missed += found < wanted
    assert missed <= (0 if text.isascii() else 12)
