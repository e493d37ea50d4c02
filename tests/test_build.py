"""From a ranking and a budget to a mix of exactly that many tokens."""

import dataclasses
import itertools
import json
import os
import random
import re
import struct
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import tokenizers
import transformers
from click.testing import CliRunner

from curate.cli import main
from curate.corpus.ranges import read_ranges
from curate.corpus.words import number_words
from curate.errors import UNREACHABLE, CurateError
from curate.mixing import choose, mixture, reading, stock, sums, write
from curate.mixing.build import build_mix
from curate.mixing.dedup import Seen
from curate.mixing.documents import Filters, cut_text, cutter, select_documents
from curate.mixing.foresight import PULL, Foresight
from curate.mixing.items import index_items
from curate.mixing.mixture import Mixture, put_in_words
from curate.mixing.opened import open_mix, read_mix_texts
from curate.mixing.plan import plan_shards
from curate.mixing.reading import read_some
from curate.mixing.stock import Stock
from curate.mixing.survey import survey
from curate.mixing.tokenizer import count_tokens
from curate.mixing.weights import temperatures
from curate.mixing.write import choose_workers
from curate.records import Forecast, RecordRange, Shard, Target
from curate.settings import CorpusSettings, EmbedSettings, MixSettings, RankSettings
from curate.store.fingerprint import digest_file
from curate.task2vec.reading import embedding_path
from curate.task2vec.tokenizer import load_encode
from curate.task2vec.vectors import read_lengths

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

    def call(out="mix", fmt="parquet", notify=None, workers=1, trainer="", **settings):
        arguments = {"budget": 4001, **settings}
        return build_mix(
            index,
            ranking,
            target,
            MixSettings(**arguments),
            workspace=folder / "ws",
            out=tmp_path / out,
            fmt=fmt,
            workers=workers,
            trainer=trainer,
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


def test_after_a_ranking_by_counts_the_match_is_by_pairs(place, tmp_path):
    """A target of two kinds: whole shards from the top hold one of them, the match holds both."""
    from curate.ranking.rank import rank_shards
    from curate.store.fingerprint import digest_texts

    _, index, _, _, encode = place
    rng = random.Random(7)
    items = [text for pair in zip(*(make_texts(rng, k, 40) for k in ("math", "code")), strict=True)
             for text in pair]  # fmt: skip
    target = Target("both", tuple(items[:60]), tuple(items[60:]), digest_texts(items[:60]),
                    digest_texts(items[60:]), "made in code")  # fmt: skip
    ranking = rank_shards(
        index, target, RankSettings(method="lexical"), workspace=tmp_path / "ws", device="cpu"
    )
    mixes = {
        selection: build_mix(
            index, ranking, target, MixSettings(budget=700, selection=selection),
            workspace=tmp_path / "ws", out=tmp_path / selection,
        )
        for selection in ("top", "match")
    }  # fmt: skip
    assert len(mixes["top"].sources) == 1
    shares = {name: tokens / 700 for name, tokens in mixes["match"].sources.items()}
    assert shares["math"] > 0.3 and shares["code"] > 0.3 and shares.get("story", 0) < 0.2
    assert mixes["match"].forecast.drop > mixes["top"].forecast.drop
    assert recount(mixes["match"], encode) == 700


def test_what_a_kill_after_the_meta_left_goes_with_the_next_call(build, tmp_path):
    first, staging = build(), tmp_path / ".mix.staging"
    staging.mkdir()
    (staging / "mark").write_text("of a run that was killed")
    (staging / "part.arrow").write_text("spooled")
    assert build() == first and not staging.exists()
    staging.mkdir()
    (staging / "mine.txt").write_text("nothing of ours")  # without a mark it is not touched
    assert build() == first and (staging / "mine.txt").is_file()


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
    assert mix.forecast.drop > 0 and "measured mixes" in mix.forecast.basis
    manifest = json.loads((Path(mix.folder) / "manifest.json").read_text())
    found = {name: each["alignment"] for name, each in manifest["planned"].items()}
    assert found["mix"] > found["random"] > found["worst"]
    assert mix.low <= mix.alignment <= mix.high


def test_what_is_said_before_a_mix_has_the_numbers_of_its_table():
    def mixture(alignment, *drop):
        found = Forecast(*drop, basis="")
        return Mixture(alignment, alignment - 0.1, alignment + 0.1, 5.0, found)

    found = {"mix": mixture(0.5, -0.0004, -0.00002, 0.25), "random": mixture(0.3, 0, 0, 0),
             "worst": mixture(0.004, 0, 0, 0)}  # fmt: skip
    assert put_in_words(found) == (
        "alignment 0.500 (0.400 to 0.600), random 0.300, worst 0.0040; forecast drop −0.0004 "
        "nats/token (0.000 to +0.250)"
    )


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


def test_where_all_is_held_out_more_epochs_are_not_advised(build):
    with pytest.raises(CurateError, match=r"gives 0 tokens .* are held out\); ") as error:
        build(holdout=0.999999)
    assert error.value.exit_code == UNREACHABLE
    advice = str(error.value).partition("); ")[2]
    assert advice == "keep copies with --no-dedup, hold out less, or index more data"


def test_after_a_ranking_by_words_the_mix_is_matched(build):
    mix = build()
    lines = pq.read_table(Path(mix.folder) / "provenance.parquet").to_pylist()
    assert all(line["reason"].startswith("match: rank") for line in lines)
    assert build(out="same", selection="match").fingerprint == mix.fingerprint
    assert len(mix.parts) > len(build(out="top", selection="top").parts)


def of_plans(look, settings, monkeypatch):
    """Return the plan that is chosen, and the drops that it was chosen by."""
    seen, drops = [], look.drops
    monkeypatch.setattr(look, "drops", lambda plans: seen.extend(drops(plans)) or seen)
    return plan_shards(look, settings), seen


def test_the_temperature_is_the_highest_that_is_forecast_nearly_the_largest_drop(
    build, place, monkeypatch
):
    _, index, target, ranking, _ = place
    look = Foresight(Stock(index), ranking, target, None, 4001)
    settings = MixSettings(budget=4001, selection="temperature")
    plan, seen = of_plans(look, settings, monkeypatch)
    tried = temperatures(np.array([line.alignment for line in ranking.shards]))
    chosen = tried.index(plan.settings.temperature)
    assert len(seen) == len(tried) and 0 < chosen < len(tried) - 1
    assert seen[chosen] >= 0.98 * max(seen) > max(seen[:chosen])

    mix = build(selection="temperature", decontaminate=False)
    manifest = json.loads((Path(mix.folder) / "manifest.json").read_text())
    assert manifest["settings"]["temperature"] == tried[chosen]
    assert manifest["planned"]["mix"]["forecast"]["drop"] == pytest.approx(seen[chosen], abs=1e-5)
    leaky = {"selection": "temperature", "decontaminate": False}
    given = build(out="given", temperature=tried[chosen], **leaky)
    assert given.parts == mix.parts
    warm = build(out="warm", temperature=10.0, **leaky)
    assert warm.sources["math"] < mix.sources["math"]


def test_a_match_gains_more_than_any_temperature_and_less_where_it_is_pulled_back(build, place):
    def planned(out, selection, **how):
        """Return the mix, and its forecast before documents are rounded to."""
        mix = build(out=out, selection=selection, **how)
        manifest = json.loads((Path(mix.folder) / "manifest.json").read_text())
        drop = manifest["planned"]["mix"]["forecast"]["drop"]
        return mix, drop, manifest["settings"]["temperature"]

    mix, drop, pull = planned("mix", "match")
    _, soft, _ = planned("soft", "temperature")
    sharp, most, given = planned("sharp", "match", temperature=0.02)
    assert most > drop > 0 and most > soft
    warm, least, _ = planned("warm", "match", temperature=100.0)  # hardly leaves natural parts
    assert abs(least) < 0.1 * drop
    assert warm.sources["math"] < mix.sources["math"] <= sharp.sources["math"]
    assert (pull, given) == (PULL, 0.02)
    assert build(out="given", selection="match", temperature=PULL).parts == mix.parts


def test_every_row_traces_to_its_record(build, place):
    mix = build(selection="top")
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


def test_tokens_that_no_document_ends_at_are_not_called_too_few(build, monkeypatch):
    """There are thousands: to be told to ask for at most as many helps nobody."""
    with pytest.raises(CurateError, match="budget 1: every document is more than twice") as error:
        build(budget=1, whole_documents=True)
    assert error.value.exit_code == UNREACHABLE
    monkeypatch.setattr("curate.mixing.build.cutter", lambda encode: lambda text, wanted: (0, 0))
    with pytest.raises(CurateError, match="budget 4,001: no document can be cut") as error:
        build(budget=4001)
    assert error.value.exit_code == UNREACHABLE
    assert "max-epochs" not in str(error.value)


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
    assert all(abs(tokens[name] - 3000 * n / total) <= 90 for name, n in natural.items())
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


def test_what_is_cut_is_read_in_one_pass_over_each_file(place, monkeypatch):
    """One by one, each cut unpacked its file from the beginning."""
    _, index, _, _, encode = place
    parts = {each.shard.name: 333.0 for each in index.shards}
    monkeypatch.setattr(choose, "DRIFT", 0.0)  # so that each of the parts is cut
    passes, read_blocks = [], reading.read_blocks
    monkeypatch.setattr(
        reading,
        "read_blocks",
        lambda part, **how: (passes.append(part), read_blocks(part, **how))[1],
    )
    budget = 333 * len(parts)
    rows = list(select_documents(index, parts, budget=budget, encode=encode))
    cut = [row for row in rows if row.cut]
    files = {part.path for each in index.shards for part in each.shard.ranges}
    assert len(cut) == len(parts) > len(files) and sum(row.n_tokens for row in rows) == budget
    assert len(passes) == 3 * len(files)  # words, cuts, texts
    for row in cut:
        assert row.document.text.startswith(row.text) and len(encode([row.text])[0]) == row.n_tokens


def test_no_file_is_read_by_two_tasks():
    def shard(path, start, *more):
        ranges = tuple(RecordRange(name, "d", a, a + 5) for name, a in ((path, start), *more))
        return Shard(f"{path}{start}", "s", ranges, 5, 10, "d")

    shards = [shard("b", 0), shard("a", 5), shard("a", 0), shard("b", 5, ("c", 0)), shard("c", 5)]
    assert reading.divide(shards, task_tokens=1) == [[2, 1], [0, 3, 4]]
    apart = [shard(name, 0) for name in "abcde"]
    assert reading.divide(apart, task_tokens=20) == [[0, 1], [2, 3], [4]]


def test_documents_are_read_wherever_they_are_and_their_absence_is_said(place):
    _, index, _, _, _ = place
    shards = [each.shard for each in index.shards]
    homes = [(shard, 0, record) for shard in reversed(shards)
             for record in (shard.ranges[0].stop - 1, shard.ranges[0].start)]  # fmt: skip
    texts = {(d.file_digest, d.record): d.text for shard in shards
             for d in read_ranges(shard, text=index.corpus.text)}  # fmt: skip
    expected = [texts[shard.ranges[0].file_digest, record] for shard, _, record in homes]
    assert read_some([*homes, homes[0]], text=index.corpus.text) == [*expected, expected[0]]
    with pytest.raises(CurateError, match=r"record 999 is gone; run curate index again"):
        read_some([(shards[0], 0, 999)], text=index.corpus.text)


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


def test_a_book_is_cut_without_encoding_it_over_and_over(place):
    """30 MB in one line took 80 seconds a cut and 4 GB: it was encoded whole, then by halves."""
    encode, read = place[4], []
    text = "日本語の文書です。" * 300_000  # more than a token a character

    def counted(texts):
        read.append(sum(map(len, texts)))
        return encode(texts)

    wanted = 3 * len(encode([text[:100_000]])[0])
    begun, found = cut_text(text, wanted, encode=counted)
    assert wanted - 8 < found == len(encode([begun])[0]) <= wanted
    assert max(read) < len(text) / 2 and sum(read) < 80 * len(begun)


def script(name, *words):
    path = Path(__file__).parent / name
    env = {**os.environ, "PYTHONPATH": str(path.parents[1])}
    command = [sys.executable, str(path), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_after_kill_9_the_same_call_gives_the_same_bytes(tmp_path):
    lines = script("mix_killed.py", tmp_path)
    assert len(lines) == 9  # before the last three runs a bit of every staged file was flipped
    for line in lines:
        assert line["killed"] and line["again"] == 0, line
        assert line["same"] and line["clean"] and not line["half"], line
    assert len(lines[3]["kept"]) == 3  # what was done is not done again


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_a_mix_of_twenty_times_the_memory_is_written(tmp_path):
    taken = []
    for number in range(2):  # the allocator alone moves what is taken from 5 to 9 MB
        (tmp_path / f"{number}").mkdir()
        (line,) = script("mix_in_little_memory.py", tmp_path / f"{number}", 192)
        assert line["text"] >= 188_000_000
        taken.append(line["taken"])
        if line["taken"] <= line["text"] / 20:
            break
    assert min(taken) <= line["text"] / 20, taken


def test_a_held_out_slice_shares_nothing_with_the_mix(build, place, tmp_path):
    mix = build(budget=9000, holdout=0.1)
    assert mix.tokens == 9000 == recount(mix, place[4])
    loaded = datasets.load_dataset(mix.folder, cache_dir=str(tmp_path / "c"))
    held = set(loaded["holdout"]["text"])
    assert held and not held & set(loaded["train"]["text"])
    manifest = json.loads((Path(mix.folder) / "manifest.json").read_text())
    assert manifest["holdout"]["tokens"] == sum(loaded["holdout"]["tokens"])
    assert 0.02 < manifest["holdout"]["tokens"] / 9000 < 0.25
    assert mix.held_out == manifest["holdout"]["tokens"]
    assert mix.items == len(place[2].select)
    lines = pq.read_table(Path(mix.folder) / "provenance.parquet").to_pylist()
    assert {line["epoch"] for line in lines if "holdout" in line["file"]} == {-1}
    assert [build(budget=500, holdout=share).held_out for share in (0.0001, 0.0)] == [0, None]
    assert build(budget=500, holdout=0.1, seed=2).held_out > 0  # a large product warned on stderr


def test_a_forecast_is_of_as_many_tokens_as_whole_documents_make(build, place):
    _, index, target, ranking, _ = place
    mix = build(budget=30, whole_documents=True, decontaminate=False)
    assert mix.tokens != 30
    look = Foresight(Stock(index), ranking, target, None, mix.tokens)
    parts = {part.shard: part.tokens for part in mix.parts}
    assert mix.forecast == look.compare(parts)["mix"].forecast


def test_whole_documents_end_at_the_nearest_boundary(build, place):
    mix = build(budget=4001, whole_documents=True)
    assert mix.tokens == recount(mix, place[4])
    assert 0 < abs(mix.tokens - 4001) <= 90
    lines = pq.read_table(Path(mix.folder) / "provenance.parquet").to_pylist()
    assert not any(line["cut"] for line in lines)


def test_floors_ceilings_and_blends_hold_in_what_is_written(build):
    build = partial(build, budget=2500, temperature=0.05)
    free = build()
    assert set(free.sources) == {"math"}
    kept = build(keep=("story=20%", "math<=60%"))
    assert kept.sources["math"] == 1500 and kept.sources["story"] >= 500  # to the token
    whole = build(keep=("story=20%", "math<=60%"), whole_documents=True)
    assert abs(whole.sources["math"] - 1500) <= 45
    blended = build(blend=("general=30%",))
    assert set(blended.sources) == {"math", "story", "code"}
    others = 2500 - blended.sources["math"]
    assert abs(others - 2 / 3 * 0.3 * 2500) < 250


@pytest.mark.parametrize(
    ("settings", "message", "code"),
    [
        ({"keep": ("novels=20%",)}, "no such source in the index; known: code, math, story", 2),
        ({"keep": ("math",)}, "write SOURCE=20%", 2),
        ({"priority": ("meth",)}, "--priority meth: no such source in the index; known: code", 2),
        ({"keep": ("math=90%", "story=20%")}, "110% of the mix", 2),
        ({"keep": ("math=30%", "math<=20%")}, "floor is above its ceiling", 2),
        ({"keep": ("story=90%",), "budget": 8000}, "--keep asks for 7,200 tokens", UNREACHABLE),
        ({"keep": ("math<=1%", "story<=1%", "code<=1%")}, "leave no mix", UNREACHABLE),
        ({"holdout": 1.0}, "holdout", 2),
    ],
)
def test_rules_that_cannot_be_kept_are_one_line(build, settings, message, code):
    with pytest.raises(CurateError, match=message) as error:
        build(**settings)
    assert error.value.exit_code == code
    assert "\n" not in str(error.value)


def test_a_floor_that_the_filters_make_unreachable_is_refused_not_passed_over(build, place):
    index = place[1]
    held = sum(each.shard.n_tokens for each in index.shards if each.shard.source == "math")
    for rule in ({"keep": ("math=90%",)}, {"blend": ("math=90%",)}):
        with pytest.raises(
            CurateError, match=r"source math: --\w+ asks for .*, it can give"
        ) as error:
            build(budget=held * 10 // 9, **rule)
        assert error.value.exit_code == UNREACHABLE
    clean = build(budget=held * 10 // 9, keep=("math=90%",), decontaminate=False, dedup=False)
    assert clean.tokens == held * 10 // 9
    with pytest.raises(CurateError, match="ceilings of --keep leave less") as error:
        build(budget=held, keep=("story<=1%", "code<=1%"))
    assert error.value.exit_code == UNREACHABLE


def save_letters(folder):
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())  # a letter is a token
    backend.add_tokens(sorted({*"".join(VOCABULARY.lower().split()), " ", "."}))
    backend.add_special_tokens(["<end>"])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    fast.save_pretrained(folder)
    return fast


def test_a_forecast_is_of_the_text_whatever_counts_the_budget(build, place, tmp_path):
    save_letters(tmp_path / "letters")
    letters, _ = load_encode(str(tmp_path / "letters"), place[1].probe)
    mix = build(budget=3000, selection="top")
    how = {"budget": recount(mix, letters), "tokenizer": str(tmp_path / "letters")}
    same = build(**how, selection="top", out="same")
    assert [text for text, _ in read_mix_texts(same)] == [text for text, _ in read_mix_texts(mix)]
    assert same.forecast.drop == pytest.approx(mix.forecast.drop, abs=0.01)
    assert same.alignment == pytest.approx(mix.alignment, abs=0.01)
    planned = json.loads((Path(same.folder) / "manifest.json").read_text())["planned"]
    assert planned["mix"]["forecast"]["drop"] == pytest.approx(mix.forecast.drop, abs=0.05)


@pytest.mark.parametrize("fmt", ["parquet", "tokens"])
def test_a_budget_is_met_in_the_tokens_of_another_tokenizer(build, place, tmp_path, fmt):
    fast = save_letters(tmp_path / "letters")
    letters, _ = load_encode(str(tmp_path / "letters"), place[1].probe)
    how = {"budget": 20_001, "tokenizer": str(tmp_path / "letters"), "selection": "top"}
    mix, texts = build(**how, fmt=fmt), build(**how, out="texts")
    assert mix.tokens == 20_001 == recount(texts, letters)
    assert mix.parts == texts.parts and 0.8 < mix.parts[0].epochs <= 1  # not of the probe's tokens
    if fmt == "tokens":
        ids = np.concatenate([np.fromfile(path, "<u2") for path in tmp_path.glob("mix/data/*.ds")])
        rows = json.loads((tmp_path / "mix" / "manifest.json").read_text())["rows"]["all"]
        assert (ids == fast.eos_token_id).sum() == rows and len(ids) == 20_001 + rows


def test_a_tokenizer_of_the_probe_that_changed_is_refused_and_not_counted_with(place, tmp_path):
    folder, index, target, ranking, _ = place
    probe = dataclasses.replace(index.probe, tokenizer_digest="0" * 64)
    changed, settings = dataclasses.replace(index, probe=probe), MixSettings(budget=1000)
    where = {"workspace": folder / "ws", "out": tmp_path / "mix"}
    with pytest.raises(CurateError, match="its tokenizer changed since the index was made"):
        build_mix(changed, ranking, target, settings, **where)
    assert not (tmp_path / "mix").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoder", "x"], "--encoder goes with --decontaminate semantic"),
        (["--encoder", "x", "--no-decontaminate"], "--encoder goes with --decontaminate semantic"),
        (["--priority", "a", "--no-dedup"], "--priority goes without --no-dedup"),
        (["--manifest-only", "--format", "parquet"], "no text in any format: leave out --format"),
    ],
)
def test_an_option_that_would_decide_nothing_is_refused(tmp_path, options, message):
    done = CliRunner().invoke(main, ["build-mix", "--workspace", str(tmp_path / "ws"), *options])
    assert done.exit_code == 2 and message in done.output


def test_the_copy_of_the_source_with_priority_stays(place, tmp_path):
    target = place[2]
    from curate.ranking.rank import rank_shards
    from curate.task2vec.embed import build_index

    texts = make_texts(random.Random(5), "math", 30)
    (tmp_path / "in").mkdir()
    for name in ("one", "two"):
        lines = [json.dumps({"text": text, "id": f"{name}{n}"}) for n, text in enumerate(texts)]
        (tmp_path / "in" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    embed = EmbedSettings(batches=2, batch_tokens=256, block_tokens=64)
    corpus = CorpusSettings(inputs=(str(tmp_path / "in"),))
    ws = tmp_path / "ws"
    index = build_index(corpus, embed, workspace=ws, device="cpu")
    ranking = rank_shards(index, target, RankSettings(), workspace=ws, device="cpu")
    budget = index.shards[0].shard.n_tokens - 10
    for source in ("one", "two"):
        settings = MixSettings(budget=budget, priority=(source,), selection="temperature")
        mix = build_mix(index, ranking, target, settings, workspace=ws, out=tmp_path / source)
        assert set(mix.sources) == {source}
        lines = (Path(mix.folder) / "duplicates.jsonl").read_text().splitlines()
        dropped = [json.loads(line) for line in lines]
        assert {line["source"] for line in dropped} <= {"one", "two"} - {source}
        assert all(line["of"].startswith(f"{source}:") for line in dropped)


def test_a_manifest_alone_names_what_the_mix_would_hold(build, place):
    whole, alone = build(out="whole"), build(out="alone", fmt="manifest")
    assert alone.tokens == whole.tokens and alone.parts == whole.parts
    lines = pq.read_table(Path(alone.folder) / "selection.parquet").to_pylist()
    traced = pq.read_table(Path(whole.folder) / "provenance.parquet").to_pylist()
    named = {
        (line["file_digest"], record)
        for line in lines
        for record in range(line["start"], line["stop"])
    }
    assert named == {(line["file_digest"], line["record"]) for line in traced}
    assert sum(line["tokens"] for line in lines) == 4001
    weights = json.loads((Path(alone.folder) / "manifest.json").read_text())["weights"]
    assert sum(weights.values()) == pytest.approx(1)


def test_a_mix_reads_the_counts_of_every_shard_once_and_then_only_those_of_its_own(
    build, monkeypatch
):
    reads = []
    real = stock.load_unigrams
    for module in (mixture, stock):
        monkeypatch.setattr(
            module, "load_unigrams", lambda folder, key: reads.append(key) or real(folder, key)
        )
    monkeypatch.setattr(sums, "load_embedding", None)  # after a ranking by words it reads none
    mix = build(selection="top")
    n_shards = len(set(reads))
    first = reads[n_shards]  # the best shard, beside each pass
    assert len(set(reads[:n_shards])) == n_shards > len(mix.parts)
    assert len(reads[n_shards + 1 : -1]) == len(mix.parts)
    assert reads[-1] == first


def test_probabilities_for_interleaving_are_over_documents_not_tokens(build):
    mix = build(budget=6000, selection="temperature")
    chances = json.loads((Path(mix.folder) / "manifest.json").read_text())["interleave"]
    rows = pq.read_table(Path(mix.folder) / "data").to_pylist()
    lengths = {name: [r["tokens"] for r in rows if r["source"] == name] for name in chances}
    share = {name: sum(found) / 6000 / np.mean(found) for name, found in lengths.items()}
    total = sum(share.values())
    assert chances == pytest.approx({name: value / total for name, value in share.items()})
    assert sum(chances.values()) == pytest.approx(1)


def test_a_manifest_holds_no_text(build):
    alone = build(out="alone", fmt="manifest")
    with pytest.raises(CurateError, match="--manifest-only"):
        read_mix_texts(alone)


def read_ds(path):
    """Read documents as datatrove lays them out: raw tokens, and the ends of documents."""
    ids = np.memmap(path, np.uint16, "r")
    ends = np.fromfile(f"{path}.index", np.uint64).astype(int)
    return [ids[a:b].tolist() for a, b in itertools.pairwise([0, *ends.tolist()])]


def read_megatron(path):
    """Read sequences as Megatron's IndexedDataset does."""
    data = path.with_suffix(".idx").read_bytes()
    assert data[:9] == b"MMIDIDX\x00\x00"
    version, code, n, documents = struct.unpack("<QBQQ", data[9:34])
    assert (version, code) == (1, 8)
    sizes = np.frombuffer(data, "<i4", n, 34)
    pointers = np.frombuffer(data, "<i8", n, 34 + 4 * n)
    edges = np.frombuffer(data, "<i8", documents, 34 + 12 * n)
    assert len(data) == 34 + 12 * n + 8 * documents
    assert edges.tolist() == list(range(n + 1))
    raw = path.read_bytes()
    return [
        np.frombuffer(raw, "<u2", size, start).tolist()
        for size, start in zip(sizes.tolist(), pointers.tolist(), strict=True)
    ]


@pytest.mark.parametrize(("fmt", "read"), [("tokens", read_ds), ("megatron", read_megatron)])
def test_tokenised_files_hold_the_same_rows_and_exactly_the_budget(build, place, fmt, read):
    whole, mix = build(out="whole"), build(out=fmt, fmt=fmt)
    (name,) = json.loads((Path(mix.folder) / "manifest.json").read_text())["files"]
    found = read(Path(mix.folder) / name["path"])
    ends = {ids[-1] for ids in found}
    assert len(ends) == 1
    expected = [ids.tolist() for ids in place[4]([text for text, _ in read_mix_texts(whole)])]
    assert [ids[:-1] for ids in found] == expected
    assert sum(len(ids) - 1 for ids in found) == 4001 == mix.tokens
    with pytest.raises(CurateError, match="holds no text to read"):
        read_mix_texts(mix)


def test_processes_are_started_where_the_work_pays_for_them(monkeypatch):
    monkeypatch.setattr(write, "count_cores", lambda: 4)
    found = [choose_workers(0, tokens) for tokens in (1, 150_000_000, 250_000_000, 10**12)]
    assert found == [1, 1, 2, 4]
    assert choose_workers(0, 60_000_000, tokenises=True) == 3
    assert choose_workers(7, 1) == 7


def test_what_a_worker_process_runs_loads_no_tensor_library():
    code = (
        "import sys, curate.mixing.survey, curate.mixing.shuffle, curate.mixing.formats\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'datasets'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tokens_come_from_the_index_and_are_counted_where_it_has_none(build, place, monkeypatch):
    files = [embedding_path(place[0] / "ws" / "index", entry.key) for entry in place[1].shards]
    held = [read_lengths(path).sum() for path in files]
    assert held == [entry.shard.n_tokens for entry in place[1].shards]
    counted = []
    monkeypatch.setattr(
        "curate.mixing.build.count_tokens", lambda texts, **_: counted.append(texts) or []
    )
    one = build(out="one")
    assert not counted
    monkeypatch.undo()
    asked = []

    def uncounted(shards, depths, embeddings, *, look, **rest):
        asked.extend(embeddings)
        count = partial(count_tokens, name=place[1].embed.probe, info=place[1].probe)
        look = dataclasses.replace(look, count=count, counted_by="here")
        return survey(shards, depths, [None] * len(embeddings), look=look, **rest)

    monkeypatch.setattr("curate.mixing.draw.survey", uncounted)
    two = build(out="two")
    assert set(asked) <= set(files) and asked
    assert contents(one.folder) == contents(two.folder)


def test_what_the_index_keeps_of_documents_spares_the_mix_a_look_at_their_text(
    build, place, monkeypatch
):
    prints = place[0] / "ws" / "index" / "prints"
    assert len(list(prints.iterdir())) == len(place[1].shards)  # a file a shard
    read = []

    def counted(texts):
        read.extend(texts)
        return number_words(texts)

    monkeypatch.setattr("curate.mixing.leaks.number_words", counted)
    monkeypatch.setattr("curate.mixing.survey.tabulate", lambda *_: pytest.fail("made again"))
    total = sum(entry.shard.n_tokens for entry in place[1].shards)
    one = build(out="one", budget=total - 700, ngram=12)  # no earlier mix has looked for 12 words
    assert one.decontaminated == 2 <= len(read) <= 4
    monkeypatch.undo()
    prints.rename(prints.with_name("away"))
    try:
        two = build(out="two", budget=total - 700, ngram=12)
    finally:
        prints.with_name("away").rename(prints)
    assert contents(one.folder) == contents(two.folder)


def test_regrouped_documents_are_traced_to_the_files_they_come_from(place, tmp_path):
    from curate.ranking.rank import rank_shards
    from curate.task2vec.embed import build_index

    (tmp_path / "in").mkdir()
    rng = random.Random(6)
    rows, sources = {}, [kind for kind in WORDS for _ in range(40)]
    rng.shuffle(sources)
    for name in ("one", "two"):
        rows[name] = [
            {"id": f"{name}{n}", "kind": kind, "text": make_texts(rng, kind, 1)[0]}
            for n, kind in enumerate(sources)
        ]
        rows[name][7]["text"] = rows["one"][7]["text"]
        path = tmp_path / "in" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
    corpus = CorpusSettings(inputs=(str(tmp_path / "in"),), group_by="field:kind")
    embed = EmbedSettings(batches=2, batch_tokens=256, block_tokens=64)
    index = build_index(corpus, embed, workspace=tmp_path / "ws", device="cpu")
    target = place[2]
    where = {"workspace": tmp_path / "ws"}
    ranking = rank_shards(index, target, RankSettings(), device="cpu", **where)
    digests = {digest_file(tmp_path / "in" / f"{name}.jsonl"): name for name in rows}
    total = sum(entry.shard.n_tokens for entry in index.shards)
    mix = build_mix(
        index, ranking, target, MixSettings(budget=total - 900), out=tmp_path / "mix", **where
    )
    texts = {row["id"]: row["text"] for row in pq.read_table(tmp_path / "mix/data").to_pylist()}
    lines = pq.read_table(tmp_path / "mix" / "provenance.parquet").to_pylist()
    assert {digests[line["file_digest"]] for line in lines} == {"one", "two"}
    for line in lines:
        row = rows[digests[line["file_digest"]]][line["record"]]
        assert row["id"] == line["id"] and row["kind"] == line["source"]
        assert row["text"].startswith(texts[row["id"]])
    (copy,) = (tmp_path / "mix" / "duplicates.jsonl").read_text().splitlines()
    copy = json.loads(copy)
    assert rows[digests[copy["file_digest"]]][copy["record"]]["id"] == copy["id"]
    assert mix.tokens == total - 900


def test_an_item_in_other_words_is_taken_out_and_the_report_shows_both(build, place):
    folder, index, target, ranking, _ = place
    given = {"budget": 6000, "decontaminate": True, "cosine": 0.5}
    settings = MixSettings(**given, paraphrases=True)
    where = {"workspace": folder / "ws"}
    text = next(iter(read_mix_texts(build(out="plain"))))[0]
    near = dataclasses.replace(
        target, eval=(" ".join(sorted(text.split()[:40])), *target.eval[1:]), eval_digest="near"
    )
    plain, found = (
        build_mix(index, ranking, near, each, out=folder / name, **where)
        for name, each in (("p", MixSettings(**given)), ("s", settings))
    )
    assert found.decontaminated > plain.decontaminated
    lines = (folder / "s" / "decontamination.jsonl").read_text().splitlines()
    told = [each for each in map(json.loads, lines) if each["kind"] == "paraphrase"]
    assert len(told) >= found.decontaminated - plain.decontaminated > 0
    assert all(line["cosine"] >= 0.5 and line["words"] and line["place"] for line in told)
    assert "in other words" in (folder / "s" / "README.md").read_text()


def test_a_mix_of_another_state_of_the_arithmetic_is_made_again(build, tmp_path, monkeypatch):
    first = build()
    manifest = tmp_path / "mix" / "manifest.json"
    written = manifest.stat().st_mtime_ns
    assert build() == first and manifest.stat().st_mtime_ns == written
    monkeypatch.setattr("curate.mixing.build.ARITHMETIC", -1)
    again = build()
    assert again.fingerprint != first.fingerprint and again.parts == first.parts
    assert manifest.stat().st_mtime_ns > written


def test_a_trainer_gets_its_file_and_the_mix_is_read_back_with_it(build):
    mix = build(out="mix", trainer="axolotl")
    folder = Path(mix.folder)
    assert str(folder.resolve() / "data") in (folder / "axolotl.yaml").read_text()
    assert not (Path(build(out="mix").folder) / "axolotl.yaml").exists()


def test_a_trainer_finds_a_tokenizer_that_was_named_from_here(build, tmp_path, monkeypatch):
    save_letters(tmp_path / "letters")
    monkeypatch.chdir(tmp_path)
    mix = build(budget=2_000, tokenizer="letters", trainer="axolotl")
    named = f"tokenizer_config: {(tmp_path / 'letters').resolve()}"
    assert named in (Path(mix.folder) / "axolotl.yaml").read_text().replace('"', "").replace(
        "'", ""
    )


def test_a_draw_that_looks_deeper_does_not_cut_anew(place):
    """Where a source lacks its last token, each of its many rounds cut the same books again."""
    asked = []
    cut = cutter(lambda texts: asked.append(1) or place[4](texts))
    first = cut("some words in a row " * 40, 50)
    before = len(asked)
    assert cut("some words in a row " * 40, 50) == first and len(asked) == before
    assert cut("some words in a row " * 40, 49) != first and len(asked) > before
