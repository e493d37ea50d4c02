import dataclasses
import json
import math
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from click.testing import CliRunner

from curate.cli import main
from curate.corpus.pairs import count_pairs
from curate.corpus.ranges import read_ranges
from curate.corpus.tokens import count_unigrams
from curate.errors import CurateError
from curate.ranking import by_counts, candidates, measured, methods, rank, samples
from curate.ranking import words as by_words
from curate.ranking.compare import compare_methods, side_by_side
from curate.ranking.entropy import item_entropy
from curate.ranking.explain import explain_shard
from curate.ranking.explain_words import reasons_by_words
from curate.ranking.lexical import count_items, lexical
from curate.ranking.measured import Measured
from curate.ranking.measures import measure_rows, shortfalls
from curate.ranking.ngram_lm import count_item_pairs, look_up, ngram_lm
from curate.ranking.prepared import prepare
from curate.ranking.rank import open_ranking, plane, rank_shards
from curate.ranking.stats import agreement
from curate.ranking.terms import characteristic_terms, count_words
from curate.records import Embedding, Index, IndexedShard, ProbeInfo, RowBlock, Shard, Target
from curate.settings import CorpusSettings, EmbedSettings, Measure, Method, RankSettings
from curate.store.fingerprint import digest_texts
from curate.task2vec import embedding, making
from curate.task2vec.embed import build_index
from curate.task2vec.reading import load_unigrams
from curate.task2vec.tokenizer import encode_as_indexed
from curate.task2vec.vectors import write_embedding
from tests.conftest import write_jsonl

METHODS = get_args(Method)
KINDS = {
    "code": "def total_{i}(values, start={i}):\n    for value in values:\n        start += value\n"
    "    return start if start > {i} else None\n\n",
    "law": "The court of appeal held in case {i} that the plaintiff had no claim against the "
    "defendant, and the judgment of the lower court was affirmed with costs. ",
    "lean": "theorem add_{i} (a b : nat) (h : a < b) : a + {i} < b + {i} := by simp [h, add_{i}]"
    "\n\n",
}


def texts(kind, start, count):
    return [
        "".join(KINDS[kind].format(i=i) for i in range(n, n + 6))
        for n in range(start, start + count)
    ]


def make_target(items, name="proofs", evals=("held out",)):
    return Target(
        name=name,
        select=tuple(items),
        eval=tuple(evals),
        select_digest=digest_texts(tuple(items)),
        eval_digest=digest_texts(tuple(evals)),
        origin="here",
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("rank")


@pytest.fixture(scope="module")
def index(workspace):
    """Three kinds of text, two shards each, embedded by the built-in probe."""
    corpus = workspace / "corpus"
    corpus.mkdir()
    for kind in KINDS:
        for part in range(2):
            lines = [json.dumps({"text": text}) for text in texts(kind, 100 * part, 12)]
            (corpus / f"{kind}_{part}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return build_index(
        CorpusSettings(inputs=(str(corpus),)),
        EmbedSettings(batch_tokens=200, block_tokens=32, gradients=256),
        workspace=workspace,
        device="cpu",
    )


@pytest.fixture(scope="module")
def target():
    return make_target(texts("lean", 1_000, 60))


# --- with the real engine ---


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ranks_every_shard(index, target, workspace, method):
    ranking = rank_shards(
        index, target, RankSettings(method=method, bootstrap=200), workspace=workspace
    )
    assert [line.rank for line in ranking.shards] == [1, 2, 3, 4, 5, 6]
    assert sorted(line.shard for line in ranking.shards) == sorted(
        entry.shard.name for entry in index.shards
    )
    values = [line.alignment for line in ranking.shards]
    assert values == sorted(values, reverse=True)
    for line in ranking.shards:
        assert line.low <= line.alignment <= line.high
        assert 1 <= line.rank_low <= line.rank <= line.rank_high <= 6
    assert not ranking.shards[-1].tied_with_next
    assert ranking.select_digest == target.select_digest
    assert open_ranking(workspace) == ranking


LIKE = ["task2vec", "lexical", "ngram", "ngram-lm", "compression", "embedding"]


@pytest.mark.parametrize("method", LIKE)
def test_the_like_comes_first(index, target, workspace, method):
    ranking = rank_shards(
        index, target, RankSettings(method=method, bootstrap=200), workspace=workspace
    )
    assert {line.source for line in ranking.shards[:2]} == {"lean_0", "lean_1"}


@pytest.mark.parametrize("measure", get_args(Measure))
def test_every_measure_puts_the_like_first(index, target, workspace, measure):
    ranking = rank_shards(
        index,
        target,
        RankSettings(method="task2vec", measure=measure, bootstrap=200),
        workspace=workspace,
    )
    assert {line.source for line in ranking.shards[:2]} == {"lean_0", "lean_1"}
    assert all(0 <= line.low <= line.high <= 1 for line in ranking.shards)
    assert 0 <= ranking.floor <= 1
    assert 0.5 < ranking.ceiling <= 1


def test_the_map_holds_every_shard_and_the_target_last(index, target, workspace):
    ranking = rank_shards(index, target, RankSettings(method="task2vec"), workspace=workspace)
    names = [name for name, _, _ in ranking.map]
    assert names[:-1] == [line.shard for line in ranking.shards]
    assert names[-1] == "proofs"
    places = {name: np.array([x, y]) for name, x, y in ranking.map}
    assert np.isfinite(list(places.values())).all()
    to_lean = np.linalg.norm(places["lean_0"] - places["proofs"])
    assert to_lean < np.linalg.norm(places["law_0"] - places["proofs"])


def test_the_map_of_a_large_vocabulary_is_that_of_all_its_words_in_little_memory(monkeypatch):
    """Dense, the counts of 500 shards under 150,000 words would be 2 GB."""
    rng, vocab = np.random.default_rng(0), 100_000
    rows = []
    for _ in range(60):
        row = np.zeros(vocab, np.int64)
        row[rng.integers(0, vocab, 200)] = rng.integers(1, 9, 200)
        rows.append(row)
    *counts, words = rows
    shards = tuple(IndexedShard(Shard(f"s{n}", "s", (), 1, 1, ""), "") for n in range(59))
    monkeypatch.setattr("curate.ranking.rank.read_unigrams", lambda *_: iter(counts))
    found = Measured(shards, np.zeros(59), None, words=words.astype(np.float64))
    tracemalloc.start()
    places = rank._map(found, None, "aim", RankSettings())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.25 * 60 * vocab * 8
    assert [name for name, _, _ in places] == [*(f"s{n}" for n in range(59)), "aim"]
    shares = np.stack(rows) / np.stack(rows).sum(axis=1, keepdims=True)
    columns = np.sort(np.argsort(-shares.sum(axis=0), kind="stable")[: rank.WORDS])
    expected = plane(np.sqrt(shares[:, columns]))
    np.testing.assert_allclose([place[1:] for place in places], expected, atol=1e-12)


def test_the_same_command_does_nothing_again(index, target, workspace, monkeypatch):
    first = rank_shards(index, target, RankSettings(method="task2vec"), workspace=workspace)
    folder = workspace / "ranking" / "proofs-task2vec"
    written = (folder / "ranking.json").stat().st_mtime_ns
    monkeypatch.setattr(methods, "load_embedding", None)
    assert rank_shards(index, target, RankSettings(method="task2vec"), workspace=workspace) == first
    assert (folder / "ranking.json").stat().st_mtime_ns == written


def test_a_ranking_of_another_state_of_the_arithmetic_is_made_again(
    index, target, tmp_path, monkeypatch
):
    first = rank_shards(index, target, RankSettings(), workspace=tmp_path)
    monkeypatch.setattr("curate.ranking.rank.ARITHMETIC", -1)
    again = rank_shards(index, target, RankSettings(), workspace=tmp_path)
    assert again.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"confidence": 1.0}, "confidence is 1.0: it has to be between 0 and 1"),
        ({"confidence": float("nan")}, "confidence is nan"),
        ({"bootstrap": 0}, "bootstrap is 0: it has to be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(index, target, tmp_path, wrong, message):
    with pytest.raises(CurateError, match=message) as caught:
        rank_shards(index, target, RankSettings(**wrong), workspace=tmp_path)
    assert caught.value.exit_code == 2


def test_another_tokenizer_than_the_index_was_made_with_is_refused(index, target, tmp_path):
    other = dataclasses.replace(index.probe, tokenizer_digest="0" * 64)
    changed = dataclasses.replace(index, probe=other)
    with pytest.raises(CurateError, match="its tokenizer changed since the index was made"):
        rank_shards(changed, target, RankSettings(), workspace=tmp_path)


def test_a_changed_ranking_is_made_again(index, target, workspace):
    first = rank_shards(index, target, RankSettings(method="task2vec"), workspace=workspace)
    path = workspace / "ranking" / "proofs-task2vec" / "ranking.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CurateError, match="changed"):
        open_ranking(workspace)
    assert rank_shards(index, target, RankSettings(method="task2vec"), workspace=workspace) == first
    assert path.read_bytes() == whole


def test_the_eval_split_does_not_move_the_ranking(index, target, workspace):
    other = dataclasses.replace(target, eval=("x",), eval_digest=digest_texts(("x",)))
    one = rank_shards(index, target, RankSettings(method="task2vec"), workspace=workspace)
    assert rank_shards(index, other, RankSettings(method="task2vec"), workspace=workspace) == one


def test_a_second_target_embeds_itself_alone_and_no_document_is_read(
    index, target, workspace, monkeypatch
):
    """Methods that read text have kept their sample: not a byte of the corpus is there to read."""
    settings = [RankSettings(method=method, bootstrap=50) for method in METHODS]
    rank_shards(index, target, RankSettings(method="ngram"), workspace=workspace)
    embedded = []
    real = embedding.embed_parts
    monkeypatch.setattr(
        embedding, "embed_parts", lambda what, *a: embedded.append(what) or real(what, *a)
    )
    law = make_target(texts("law", 2_000, 60), name="law")
    corpus = workspace / "corpus"
    corpus.rename(workspace / "away")
    try:
        found = [rank_shards(index, law, each, workspace=workspace) for each in settings]
    finally:
        (workspace / "away").rename(corpus)
    assert embedded == ["target law"]  # one for task2vec, embedding and transfer together
    assert {line.source for line in found[0].shards[:2]} == {"law_0", "law_1"}


def test_transfer_needs_gradients_and_is_left_out_of_a_comparison_without(
    index, target, workspace, tmp_path
):
    bare = build_index(
        dataclasses.replace(index.corpus, inputs=(str(workspace / "corpus" / "law_0.jsonl"),)),
        dataclasses.replace(index.embed, gradients=0),
        workspace=tmp_path,
        device="cpu",
    )
    with pytest.raises(CurateError, match=r"has no gradients; run curate index --gradients$"):
        rank_shards(bare, target, RankSettings(method="transfer"), workspace=tmp_path)
    settings = RankSettings(method="length")
    found = compare_methods(bare, target, settings, workspace=tmp_path)
    assert "transfer" not in found.columns
    why = "the index has no gradients; run curate index --gradients"
    assert found.warnings[-1] == f"transfer is left out: {why}"


def test_a_method_that_fails_takes_no_other_with_it(index, target, workspace):
    """Here that of an encoder that is not there; its failure alone is named."""
    settings = RankSettings(method="length", encoder=str(workspace / "no-encoder"))
    found = compare_methods(index, target, settings, workspace=workspace)
    assert set(found.columns) == set(METHODS) - {"embedding"}
    (said,) = [warning for warning in found.warnings if "left out" in warning]
    assert said.startswith("embedding is left out: ")
    assert "no-encoder" in said
    assert open_ranking(workspace).method == "length"
    with pytest.raises(CurateError, match="no-encoder"):
        mine = dataclasses.replace(settings, method="embedding")
        compare_methods(index, target, mine, workspace=workspace)


def test_few_items_give_a_warning_and_wider_intervals(index, target, workspace):
    widths = []
    for count in (8, 20, 50, 60):
        few = make_target(target.select[:count], name=f"few{count}")
        found = rank_shards(index, few, RankSettings(method="lexical"), workspace=workspace)
        assert bool(found.warnings) == (count < 60)
        said = f"{count} items to rank by: intervals are wide; more than 50 would"
        assert not found.warnings or said in found.warnings[0]
        widths.append(np.mean([line.high - line.low for line in found.shards]))
    # How much wider is held in test_stats.py: these items follow one another, they are not drawn.
    assert widths[0] > widths[3]


def test_shards_that_too_high_an_entropy_puts_above_one_are_still_told_apart(
    index, target, workspace, monkeypatch
):
    def ranked(name):
        one = dataclasses.replace(target, name=name)
        settings = RankSettings(method="lexical", bootstrap=200)
        return rank_shards(index, one, settings, workspace=workspace)

    plain = ranked("plain")
    values = np.array([line.alignment for line in plain.shards])
    assert 0.5 < values[1] < values[0] < 1

    def too_high(items):
        known, moves = item_entropy(items)
        return known + 1.0, moves

    monkeypatch.setattr("curate.ranking.lexical.item_entropy", too_high)
    high = ranked("high")
    assert [line.shard for line in high.shards] == [line.shard for line in plain.shards]
    assert [line.alignment for line in high.shards] == pytest.approx(values / values[0])
    assert high.ceiling == pytest.approx(plain.ceiling / values[0])
    for line in high.shards:
        assert line.low < line.high <= 1
        assert line.low <= line.alignment <= line.high


def test_of_a_lone_item_it_is_said_that_no_interval_holds_its_choice(index, target, workspace):
    one = make_target(target.select[:1], name="one")
    found = rank_shards(index, one, RankSettings(), workspace=workspace)
    assert found.warnings[0].startswith("the target has 1 item to rank by: what another would")
    assert found.ceiling == 0  # there are no halves to compare
    fisher = rank_shards(index, one, RankSettings(method="task2vec"), workspace=workspace)
    assert fisher.warnings[0] == found.warnings[0]
    assert not any("one sub-batch" in warning for warning in fisher.warnings)  # it says no more
    assert {line.source for line in found.shards[:2]} == {"lean_0", "lean_1"}
    with pytest.raises(CurateError, match="classifier: target one has one item to rank by"):
        rank_shards(index, one, RankSettings(method="classifier"), workspace=workspace)


def test_a_target_of_any_name_has_a_folder_of_its_own(index, target, workspace):
    for name in ("../../x/a.jsonl", "y/a.jsonl"):
        odd = dataclasses.replace(target, name=name)
        rank_shards(index, odd, RankSettings(method="length"), workspace=workspace)
    folders = sorted(path.name for path in (workspace / "ranking").glob("a.jsonl-*-length"))
    assert len(folders) == 2


def test_what_cannot_be_ranked_is_said_in_one_line(index, target, workspace, tmp_path):
    empty = dataclasses.replace(index, shards=())
    with pytest.raises(CurateError, match="holds no shard"):
        rank_shards(empty, target, RankSettings(method="task2vec"), workspace=workspace)
    with pytest.raises(CurateError, match="holds no text"):
        rank_shards(index, make_target([" "]), RankSettings(method="task2vec"), workspace=workspace)
    with pytest.raises(CurateError, match="nothing ranked yet"):
        open_ranking(tmp_path)


# --- side by side ---


def test_methods_are_compared_on_one_sample_of_text(index, target, workspace, monkeypatch):
    reads = []
    real = samples.read_ranges
    monkeypatch.setattr(
        samples, "read_ranges", lambda shard, **k: reads.append(shard.name) or real(shard, **k)
    )
    for folder in (workspace / "ranking").glob("*"):
        shutil.rmtree(folder, ignore_errors=True)
    found = compare_methods(index, target, RankSettings(method="task2vec"), workspace=workspace)
    assert sorted(reads) == sorted(entry.shard.name for entry in index.shards)  # each once
    assert found.columns[0] == "task2vec"
    assert set(found.columns) == set(METHODS)
    assert open_ranking(workspace).method == "task2vec"
    values = np.array(found.values)
    np.testing.assert_allclose(found.agreement, agreement(values))
    for column, ranks in zip(values, found.ranks, strict=True):
        assert [1 + (column > value).sum() for value in column] == list(ranks)
    by_name = dict(zip(found.columns, found.ranks, strict=True))
    assert sorted(by_name["lexical"][:2]) == [1, 2]
    # another target: its own text alone is read
    law = make_target(texts("law", 1_000, 60), name="law")
    reads.clear()
    compare_methods(index, law, RankSettings(method="task2vec"), workspace=workspace)
    assert reads == []


def test_damaged_text_is_read_from_the_shards_again(index, target, workspace):
    def read():
        found = samples.read_samples(index, seed=5, workspace=workspace, notify=lambda *_: None)
        return list(found)

    first = read()
    path = workspace / "ranking" / "texts" / "texts.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    assert read() == first == read()


def test_a_sample_is_seeded_bounded_and_of_pieces_of_documents(index, workspace, monkeypatch):
    monkeypatch.setattr(samples, "READ_SHARD", 1_000)
    monkeypatch.setattr(samples, "READ_CHARACTERS", 300)
    some = samples.read_samples(index, seed=0, workspace=workspace, notify=lambda *_: None)
    for entry, texts_read in zip(index.shards, some, strict=True):
        sizes = [len(text) for text in texts_read]
        assert max(sizes) <= 300
        assert sum(sizes) >= 1_000 > sum(sizes[:-1])
        whole = [d.text for d in samples.read_ranges(entry.shard, text="text")]
        cut = {one[at : at + 300] for one in whole for at in range(0, len(one), 300)}
        assert cut.issuperset(texts_read)
    other = samples.read_samples(index, seed=1, workspace=workspace, notify=lambda *_: None)
    assert list(other) != list(some)


def test_samples_are_read_a_few_shards_at_a_time(index, workspace, monkeypatch):
    read, quiet = [], {"workspace": workspace, "notify": lambda *_: None}
    whole = list(samples.read_samples(index, seed=11, **quiet))
    assert len(whole) == len(index.shards) > 2 and all(whole)
    monkeypatch.setattr(samples, "READ_AT_ONCE", 2)
    some = samples.read_samples(index, seed=12, **quiet)
    real = samples.Samples._read
    monkeypatch.setattr(
        samples.Samples, "_read", lambda self, group: read.append(group) or real(self, group)
    )
    groups = -(-len(index.shards) // 2)
    found = list(some)
    assert len(some) == len(found) == len(whole) and read == list(range(groups))
    read.clear()
    assert some[-1] == found[-1] and read == [groups - 1]
    assert some[1:3] == found[1:3] and [some[n] for n in range(len(some))] == found
    with pytest.raises(IndexError):
        some[len(found)]


def test_a_sample_holds_long_and_short_documents_by_their_share(tmp_path, monkeypatch):
    """The first piece of each document alone would show a hundredth of the long one."""
    monkeypatch.setattr(samples, "READ_SHARD", 60_000)
    monkeypatch.setattr(samples, "READ_CHARACTERS", 300)
    short, long = texts("law", 100, 100), ["check " * 5_000]
    corpus = CorpusSettings(inputs=(str(write_jsonl(tmp_path / "a.jsonl", short + long)),))
    embed, work = EmbedSettings(batches=1, batch_tokens=128), tmp_path / "work"
    index = build_index(corpus, embed, workspace=work, device="cpu")
    (read,) = samples.read_samples(index, seed=0, workspace=work, notify=lambda *_: None)
    held = len(long[0]) / sum(map(len, short + long))
    found = sum(len(piece) for piece in read if "check check" in piece)
    assert found / sum(map(len, read)) == pytest.approx(held, abs=0.06)


def test_targets_stand_side_by_side_in_the_order_of_the_first(index, target, workspace):
    law = make_target(texts("law", 1_000, 60), name="law")
    rankings = [
        rank_shards(index, each, RankSettings(method="task2vec"), workspace=workspace)
        for each in (target, law)
    ]
    found = side_by_side(rankings, what="targets")
    assert found.columns == ("proofs", "law")
    assert found.shards == rankings[0].shards
    assert found.values[0] == tuple(line.alignment for line in rankings[0].shards)
    by_shard = {line.shard: line.alignment for line in rankings[1].shards}
    assert found.values[1] == tuple(by_shard[line.shard] for line in found.shards)
    assert found.agreement[0][1] < 1
    moved = dataclasses.replace(rankings[1], index_fingerprint="other")
    with pytest.raises(CurateError, match="index changed"):
        side_by_side([rankings[0], moved], what="targets")
    with pytest.raises(CurateError, match="no shard"):
        side_by_side([rankings[0], dataclasses.replace(rankings[1], shards=())], what="targets")
    short = dataclasses.replace(rankings[1], shards=rankings[1].shards[:4])
    assert side_by_side([rankings[0], short], what="targets").warnings[-1].startswith("2 shards")
    with pytest.raises(CurateError, match="two targets are called"):
        side_by_side([rankings[0], rankings[0]], what="targets")


# --- why ---


@pytest.mark.parametrize("measure", get_args(Measure))
def test_what_the_coordinates_take_away_is_the_distance(measure):
    rng = np.random.default_rng(0)
    x, y = rng.gamma(2, 0.5, (2, 40))
    nothing = np.zeros(40)
    lost = shortfalls(x, nothing, y, nothing, measure=measure)
    value = measure_rows(x[None], nothing[None], y[None], nothing[None], measure=measure)[0][0]
    if measure in ("kl", "jeffreys", "entropy"):
        assert lost.sum() == pytest.approx(-math.log(value))
    elif measure in ("scaled", "late", "asymmetric"):
        t = (x - y) / (x + y)
        np.testing.assert_allclose(lost, t**2 / 40)
    else:
        cosine = 2 * value - 1 if measure in ("log", "whitened") else value
        assert lost.sum() == pytest.approx(1 - cosine)


@pytest.mark.parametrize("measure", ["scaled", "kl", "jeffreys", "entropy", "log"])
def test_noise_takes_nothing_away(measure):
    rng = np.random.default_rng(1)
    truth = np.exp(rng.normal(size=4_000) * 0.3)
    one, other = (
        prepare(rng.gamma(30, truth / 30, size=(6, 4_000)), measure=measure) for _ in range(2)
    )
    rows = one.mean[0], one.variance[0], other.mean[0], other.variance[0]
    lost = shortfalls(*rows, measure=measure).sum()
    noisy = shortfalls(rows[0], 0 * rows[1], rows[2], 0 * rows[3], measure=measure).sum()
    assert abs(lost) < 0.1 * noisy


def test_an_explanation_shows_layers_rows_documents_and_terms(index, target, workspace):
    ranking = rank_shards(index, target, RankSettings(method="task2vec"), workspace=workspace)

    def explain(shard):
        return explain_shard(
            shard,
            index=index,
            target=target,
            ranking=ranking,
            settings=RankSettings(method="task2vec"),
            workspace=workspace,
        )

    law = explain("law_0")
    assert law.shard.shard == "law_0"
    assert sum(part.share for part in law.layers) == pytest.approx(1.0)
    assert sum(part.usual for part in law.layers) == pytest.approx(1.0)
    assert [part.name for part in law.layers] == [f"layer {n}" for n in range(len(law.layers))]
    assert all(row.share > row.usual for row in law.rows)
    assert all(row.target > 0 and row.shard > 0 for row in law.rows)
    values = [value for value, _ in law.nearest]
    assert values == sorted(values, reverse=True)
    assert law.farthest[0][0] <= values[-1]
    assert law.documents == 12
    assert set(law.shard_terms) <= set(count_words(texts("law", 0, 1)))
    assert "theorem" in law.target_terms
    assert not set(law.shard_terms) & set(law.target_terms)
    lean = explain("lean_0")
    assert lean.nearest[0][0] > law.nearest[0][0]
    assert "theorem" in set(lean.shard_terms) & set(lean.target_terms)
    with pytest.raises(CurateError, match="did you mean lean_1"):
        explain("lean-1")
    by_length = dataclasses.replace(ranking, method="length")
    with pytest.raises(CurateError, match="nothing to explain"):
        explain_shard(
            "law_0",
            index=index,
            target=target,
            ranking=by_length,
            settings=RankSettings(method="task2vec"),
            workspace=workspace,
        )


@pytest.mark.parametrize("method", ["ngram-lm", "lexical"])
def test_pairs_are_counted_where_nothing_else_is_asked_for(index, target, workspace, method):
    settings = RankSettings() if method == "ngram-lm" else RankSettings(method="lexical")
    ranking = rank_shards(index, target, settings, workspace=workspace)
    assert ranking.method == method
    assert {line.source for line in ranking.shards[:2]} == {"lean_0", "lean_1"}
    assert all(0 < line.low <= line.alignment <= line.high <= 1 for line in ranking.shards)
    assert 0.5 < ranking.ceiling < 1.5
    assert ranking.shards[0].alignment > 10 * ranking.shards[-1].alignment
    names = [name for name, _, _ in ranking.map]
    assert names == [*(line.shard for line in ranking.shards), "proofs"]
    places = {name: np.array([x, y]) for name, x, y in ranking.map}
    to_lean, to_law = (np.linalg.norm(places[n] - places["proofs"]) for n in ("lean_0", "law_0"))
    assert to_lean < to_law


def test_a_ranking_by_pairs_is_of_all_text_and_reads_none(index, target, tmp_path, monkeypatch):
    """As the text itself says, tokenised here; the index holds what is needed of it."""
    encode, vocab = encode_as_indexed(index), index.probe.vocab
    documents = {
        each.shard.name: [
            np.asarray(ids)
            for ids in encode([d.text for d in read_ranges(each.shard, text=index.corpus.text)])
        ]
        for each in index.shards
    }
    background = sum(count_unigrams(ids, vocab) for ids in documents.values())
    pairs = count_item_pairs([np.asarray(i) for i in encode(list(target.select))], vocab=vocab)
    seen = (
        look_up(pairs, count_pairs(ids, vocab), count_unigrams(ids, vocab))
        for ids in documents.values()
    )
    costs, _ = ngram_lm(pairs, seen, background=background)
    words = rank_shards(index, target, RankSettings(method="lexical"), workspace=tmp_path)

    monkeypatch.setattr(samples, "read_ranges", None)
    settings = RankSettings(method="ngram-lm")
    ranking = rank_shards(index, target, settings, workspace=tmp_path)
    found = {line.shard: line.alignment for line in ranking.shards}
    first = ranking.shards[0].shard
    assert first == list(documents)[int(costs.argmax())]
    by_words = next(line.alignment for line in words.shards if line.shard == first)
    assert found[first] <= by_words
    for name, cost in zip(documents, costs, strict=True):
        assert found[name] == pytest.approx(found[first] * np.exp(cost - costs.max()), rel=1e-9)
    assert ranking.ceiling == pytest.approx(1)
    assert ranking.map


def test_shards_together_are_not_above_one_either(index, target, tmp_path, monkeypatch):
    """Were the first shard's words nearly those of the target, a mix of two would be above 1."""

    def known(items):
        entropy, moves = item_entropy(items)
        return entropy + 5.0, moves  # so that the first shard stands at 1 by its words

    monkeypatch.setattr("curate.ranking.lexical.item_entropy", known)
    ranking = rank_shards(index, target, RankSettings(method="ngram-lm"), workspace=tmp_path)
    pairs = by_counts.item_pairs(index, target)
    shards = {each.shard.name: each for each in index.shards}
    best_first = [shards[line.shard] for line in ranking.shards]
    united = list(by_counts._united(pairs, best_first, index))
    tokens = [shard.shard.n_tokens for shard in best_first]
    assert [each.tokens for each in united] == [sum(tokens[:n]) for n in range(1, 7)]
    background = by_counts.corpus_words(index)
    costs, _ = ngram_lm(pairs, united, background=background)
    assert costs.max() > costs[0]
    assert ranking.shards[0].alignment == pytest.approx(np.exp(costs[0] - costs.max()))


@pytest.mark.parametrize("method", ["lexical", "ngram-lm"])
def test_a_ranking_by_words_is_explained_by_words(index, target, workspace, method):
    settings = RankSettings(method=method)
    ranking = rank_shards(index, target, settings, workspace=workspace)
    law, lean = (
        explain_shard(
            shard,
            index=index,
            target=target,
            ranking=ranking,
            settings=settings,
            workspace=workspace,
        )
        for shard in ("law_0", "lean_0")
    )
    assert law.layers == ()
    assert len(law.rows) > 4
    assert all(row.share > row.usual for row in law.rows[:4])
    assert all(row.share > 0 for row in (*law.rows, *lean.rows))  # no words that it does not lack
    assert all(row.target > row.shard for row in law.rows[:4])
    assert [value for value, _ in law.nearest] == sorted((v for v, _ in law.nearest), reverse=True)
    assert lean.nearest[0][0] > law.nearest[0][0]
    assert law.to_rows()[0]["name"] == law.rows[0].name


def test_documents_are_on_the_scale_of_the_ranking_and_not_cut_to_its_best(index, workspace):
    """Of so few words the best shard is above 1; a document of these words alone is above it."""
    law = texts("law", 7, 2)
    common = Counter(" ".join(law).split()).most_common(6)
    few = make_target(tuple(f" {word}" for word, _ in common), name="few")
    ranking = rank_shards(index, few, RankSettings(method="lexical"), workspace=workspace)
    assert ranking.shards[0].alignment == 1
    documents = ["".join(few.select), *law]
    first = ranking.shards[0].shard
    found = reasons_by_words("law_0", documents, index=index, target=few, first=first, seed=0)
    value, text = found.documents[0]
    assert text == documents[0]
    encode = encode_as_indexed(index)
    vocab = index.probe.vocab
    own = np.bincount(encode(documents[:1])[0], minlength=vocab)
    shards = [load_unigrams(Path(index.folder), entry.key) for entry in index.shards]
    items = count_items(few.select, encode, vocab=vocab)
    (one, *others), _ = lexical(items, [own, *shards], background=by_counts.corpus_words(index))
    assert max(others) > 0
    assert value == pytest.approx(np.exp(one - max(others)))
    assert value > 1


def test_a_measure_means_task2vec(index, workspace, tmp_path, target):
    for split in ("select", "eval"):
        lines = [json.dumps({"text": text}) for text in getattr(target, split)]
        (tmp_path / split).with_suffix(".jsonl").write_text("\n".join(lines))
    named = f"proofs={tmp_path}/select.jsonl,{tmp_path}/eval.jsonl"
    words = ["rank", "--workspace", str(workspace), "--target", named, "--measure", "kl"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "task2vec, kl" in done.stdout
    refused = CliRunner().invoke(main, [*words, "--method", "lexical"])
    assert refused.exit_code == 2
    assert "--measure is one of method task2vec" in refused.stderr.splitlines()[-1]


def test_terms_are_log_odds_in_standard_errors():
    own, rest = Counter(a=50, b=50, rare=1), Counter(a=10, b=900, c=90)
    found = dict(characteristic_terms(own, own + rest, count=9))
    whole = own + rest

    def odds(count, total, prior):
        return math.log((count + prior) / (total + 10_000 - count - prior))

    for word, z in found.items():
        prior = 10_000 * whole[word] / whole.total()
        delta = odds(own[word], own.total(), prior) - odds(rest[word], rest.total(), prior)
        error = math.sqrt(1 / (own[word] + prior) + 1 / (rest[word] + prior))
        assert z == pytest.approx(delta / error)
    assert list(found) == sorted(found, key=found.get, reverse=True)
    assert next(iter(found)) == "a"
    assert "b" not in found
    assert characteristic_terms(Counter(), rest, count=3) == []
    assert count_words(["a1 2b _x théorème a1"]) == Counter(
        {"a1": 2, "b": 1, "x": 1, "théorème": 1}
    )


# --- on the command line ---


def write_target(folder, kind):
    """Write the two splits of a target; return what names it."""
    paths = []
    for split, start in (("select", 2_000), ("eval", 7_000)):
        paths.append(folder / f"{kind}_{split}.jsonl")
        lines = [json.dumps({"text": text}) for text in texts(kind, start, 60)]
        paths[-1].write_text("\n".join(lines), encoding="utf-8")
    return f"{kind}={paths[0]},{paths[1]}"


def test_the_command_answers_its_other_questions_on_the_same_index(
    index, workspace, tmp_path, monkeypatch
):
    lean, law = (write_target(tmp_path, kind) for kind in ("lean", "law"))
    monkeypatch.chdir(tmp_path)
    reads = []
    real = making.read_shards
    monkeypatch.setattr(making, "read_shards", lambda *a, **k: reads.append(1) or real(*a, **k))

    def run(*words):
        command = ["rank", "--workspace", str(workspace), "--target", lean, *words]
        return CliRunner().invoke(main, command)

    table = run("--csv")
    assert table.exit_code == 0, table.output
    latest = (workspace / "ranking" / "latest.json").read_bytes()
    lines = table.stdout.splitlines()
    assert lines[0].startswith("rank,shard,source,tokens,alignment,low,high,rank_low,rank_high")
    assert [line.split(",")[0] for line in lines[1:]] == list("123456")
    why = run("--explain", "law_1", "--json")
    assert json.loads(why.stdout)["shard"] == "law_1"
    shown = run("--explain", "law_1").stdout
    assert "how often in 1,000 tokens" in shown
    assert "terms of the target" in shown
    fisher = run("--method", "task2vec", "--explain", "law_1").stdout
    assert "share of what is missing" in fisher
    assert run("--csv").exit_code == 0
    found = [json.loads(line) for line in run("--against", law, "--json").stdout.split("\n")[:-1]]
    assert list(found[0]["values"]) == ["lean", "law"]
    assert len(found) == 7
    assert found[-1]["agreement"]["lean"]["lean"] == pytest.approx(1.0)
    matrix = run("--against", law, "--csv").stdout.splitlines()
    assert matrix[0].split(",")[:3] == ["shard", "source", "tokens"]
    assert len(matrix) == 7
    assert "Spearman" in run("--against", law).stdout
    assert (workspace / "ranking" / "latest.json").read_bytes() == latest
    assert reads == []  # no question made the index again


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--explain", "law_9"], 2, "curate: shard law_9: not in the ranking; did you mean law_1?"),
        (["--explain", "law_1", "--compare"], 2, "four questions: ask one"),
        (["--csv", "--json"], 2, "--csv goes without --json, --explain and --check"),
        (["--explain", "law_1", "--method", "length"], 2, "has nothing to explain it by"),
    ],
)
def test_the_command_refuses_in_one_line(
    index, workspace, tmp_path, monkeypatch, words, code, line
):
    monkeypatch.chdir(tmp_path)
    target = write_target(tmp_path, "lean")
    command = ["rank", "--workspace", str(workspace), "--target", target, *words]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == code
    assert line in done.stderr.splitlines()[-1]
    assert done.stdout == ""


# --- with embeddings made by hand ---


def made_index(workspace: Path, count: int, dim: int = 60) -> tuple[Index, Embedding]:
    """Shard i lies i steps from the target in the log embedding; written as the engine writes."""
    rng = np.random.default_rng(0)
    root, step = rng.normal(size=dim), rng.normal(size=dim)
    blocks = (RowBlock("a", 0, "a", 0, dim // 2), RowBlock("b", 0, "b", dim // 2, dim))

    def made(place):
        noise = rng.gamma(400, 1 / 400, size=(4, dim))
        return Embedding(
            vectors=(np.exp(root + place * step) * noise).astype(np.float32),
            n_sequences=(9, 9, 9, 9),
            unigrams=np.arange(7),
            hidden=rng.normal(size=(4, 5)).astype(np.float32),
            loss=3.0,
        )

    entries = []
    for number in range(count):
        key = f"{number:064x}"
        write_embedding(
            workspace / "index" / "shards" / f"{key}.safetensors",
            made(2 * number / count),
            blocks=blocks,
            text_digest=key,
        )
        shard = Shard(f"s{number:03}", "made", (), n_documents=9, n_tokens=900, digest=key)
        entries.append(IndexedShard(shard, key))
    index = Index(
        folder=str(workspace / "index"),
        fingerprint="f" * 64,
        shards=tuple(entries),
        probe=ProbeInfo("none", "0", "0", 1, 7),
        blocks=blocks,
        corpus=CorpusSettings(),
        embed=EmbedSettings(),
        ledgers=(),
    )
    return index, made(0.0)


def test_beyond_the_flat_index_a_shortlist_is_ranked_exactly(tmp_path, monkeypatch, target):
    index, own = made_index(tmp_path, 60)
    reads = []
    real = methods.load_embedding
    monkeypatch.setattr(methods, "embed_target", lambda *a, **k: own)
    for module in (measured, methods):
        monkeypatch.setattr(
            module, "load_embedding", lambda folder, key: reads.append(key) or real(folder, key)
        )
    full = rank_shards(index, target, RankSettings(method="task2vec"), workspace=tmp_path)
    monkeypatch.setattr(methods, "EXACT_UP_TO", 50)
    monkeypatch.setattr(methods, "SHORTLIST", 20)
    other = dataclasses.replace(target, name="other")
    short = rank_shards(index, other, RankSettings(method="task2vec"), workspace=tmp_path)
    assert "60 shards the 20 on the shortlist of the flat index" in short.warnings[-1]
    assert [s.shard for s in short.shards][:12] == [s.shard for s in full.shards][:12]
    assert [s.alignment for s in short.shards][:12] == [s.alignment for s in full.shards][:12]
    reads.clear()
    rank_shards(
        index,
        dataclasses.replace(target, name="third"),
        RankSettings(method="task2vec"),
        workspace=tmp_path,
    )
    assert len(set(reads)) == 20  # the stand-ins are kept: only candidates are read


@pytest.mark.parametrize("measure", ["late", "asymmetric", "log", "cosine", "kl"])
def test_a_measure_that_stand_ins_do_not_order_by_aligns_every_shard(
    tmp_path, monkeypatch, target, measure
):
    """Nor would the mean of a shortlist do as that of the corpus."""
    index, own = made_index(tmp_path, 60)
    monkeypatch.setattr(methods, "embed_target", lambda *a, **k: own)
    settings = RankSettings(method="task2vec", measure=measure)
    full = rank_shards(index, target, settings, workspace=tmp_path)
    monkeypatch.setattr(methods, "EXACT_UP_TO", 50)
    monkeypatch.setattr(methods, "SHORTLIST", 20)
    other = dataclasses.replace(target, name="other")
    assert rank_shards(index, other, settings, workspace=tmp_path).shards == full.shards


def test_on_a_gpu_the_shortlist_is_a_product_and_says_so(tmp_path, monkeypatch, target):
    index, own = made_index(tmp_path, 60)
    monkeypatch.setattr(methods, "embed_target", lambda *a, **k: own)
    monkeypatch.setattr(methods, "EXACT_UP_TO", 50)
    monkeypatch.setattr(methods, "SHORTLIST", 20)
    found = []
    for gpu in ("", "cpu"):  # the same product there
        monkeypatch.setattr(methods, "find_gpu", lambda _, gpu=gpu: gpu)
        named = dataclasses.replace(target, name=f"on{gpu}")
        settings = RankSettings(method="task2vec")
        found.append(rank_shards(index, named, settings, workspace=tmp_path / f"on{gpu}"))
    assert found[0].shards == found[1].shards
    assert "of 60 shards the 20 on the shortlist of the flat index are" in found[0].warnings[-1]
    assert "on the shortlist of the product on the GPU are" in found[1].warnings[-1]
    assert not list((tmp_path / "oncpu").rglob("*.faiss"))


def test_the_second_opinion_on_a_shortlist_is_of_the_shortlist(tmp_path, monkeypatch, target):
    """Words have a shortlist of their own, which holds other shards."""
    index, own = made_index(tmp_path, 60)
    shards = tuple(
        dataclasses.replace(each, shard=dataclasses.replace(each.shard, source=f"of {n % 2}"))
        for n, each in enumerate(index.shards)
    )
    index = dataclasses.replace(index, shards=shards)
    monkeypatch.setattr(methods, "embed_target", lambda *a, **k: own)
    monkeypatch.setattr(methods, "EXACT_UP_TO", 10)
    monkeypatch.setattr(methods, "SHORTLIST", 20)
    real, asked = methods.measure, []

    def measure(index, target, settings, *rest):
        if settings.method == "task2vec":
            return real(index, target, settings, *rest)
        asked.append(([each.shard.name for each in index.shards], settings.exact))
        counted = np.arange(len(index.shards), dtype=float)
        return measured.Measured(index.shards, counted, None)

    monkeypatch.setattr("curate.ranking.rank.measure", measure)
    ranking = rank_shards(index, target, RankSettings(method="task2vec"), workspace=tmp_path)
    assert asked == [(sorted(line.shard for line in ranking.shards), True)]
    assert any("counting words would put of 1 first" in line for line in ranking.warnings)


@pytest.mark.parametrize("method", ["lexical", "ngram-lm"])
def test_beyond_that_words_are_kept_and_every_shard_is_still_measured(
    index, target, workspace, tmp_path, monkeypatch, method
):
    settings = RankSettings(method=method)
    full = rank_shards(index, target, settings, workspace=workspace)
    reads = []
    real = by_counts.load_unigrams
    for module in (by_counts, measured, by_words):
        monkeypatch.setattr(
            module, "load_unigrams", lambda folder, key: reads.append(key) or real(folder, key)
        )
    monkeypatch.setattr(by_words, "PART", 4)
    monkeypatch.setattr(by_counts, "EXACT_UP_TO", 3)
    monkeypatch.setattr(by_counts, "SHORTLIST", 2)
    told = []
    short = rank_shards(
        index, target, settings, workspace=tmp_path, notify=lambda *line: told.append(line)
    )
    assert [line[1:] for line in told if line[0] == "ranking shards"] == [(1, 2), (2, 2)]
    assert "of 6 shards the 2 of highest alignment by words are ranked" in short.warnings[-1]
    assert [s.shard for s in short.shards] == [s.shard for s in full.shards[:2]]
    values = [s.alignment for s in short.shards]
    assert values == pytest.approx([s.alignment for s in full.shards[:2]])
    parts = sorted((tmp_path / "ranking" / "words").glob("part-*.safetensors"))
    assert len(parts) == 2
    reads.clear()
    again = rank_shards(
        index, dataclasses.replace(target, name="again"), settings, workspace=tmp_path
    )
    assert len(set(reads)) == 2  # the counts are kept: only the best are read
    assert again.shards == short.shards
    reads.clear()
    parts[1].write_bytes(parts[1].read_bytes()[:-8])
    mended = rank_shards(
        index, dataclasses.replace(target, name="third"), settings, workspace=tmp_path
    )
    assert mended.shards == short.shards
    more = 3 if method == "ngram-lm" else 0  # the words of the first; the best ones together
    assert len(reads) == 2 + 2 + 2 + more  # of the damaged part; the best, measured and on the map


def test_damaged_stand_ins_are_computed_again(tmp_path):
    index, own = made_index(tmp_path, 8)
    reads = []

    def load(key):
        reads.append(key)
        return methods.load_embedding(Path(index.folder), key).vectors

    def find():
        return candidates.find_candidates(
            index,
            own.vectors,
            load=load,
            count=3,
            workspace=tmp_path,
            seed=0,
            notify=lambda *_: None,
        )

    assert sorted(find()) == [0, 1, 2]
    path = tmp_path / "ranking" / "shortlist" / "stand_ins.safetensors"
    whole = path.read_bytes()
    reads.clear()
    assert sorted(find()) == [0, 1, 2]
    assert reads == []
    for damaged in (whole[:50], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        assert sorted(find()) == [0, 1, 2]
        assert path.read_bytes() == whole
    assert len(reads) == 2 * 2 * 8  # the fit, and the stand-ins, of each time


def test_another_first_source_by_word_counts_is_warned_of(index, workspace, target, monkeypatch):
    plain = rank_shards(index, target, RankSettings(method="task2vec"), workspace=workspace)
    assert not any("counting words" in warning for warning in plain.warnings)
    real = methods.measure

    def turned(*words, **named):  # word counts that say the opposite
        found = real(*words, **named)
        return dataclasses.replace(found, values=-found.values)

    monkeypatch.setattr(
        "curate.ranking.rank.measure",
        lambda i, t, s, *rest: (turned if s.method == "lexical" else real)(i, t, s, *rest),
    )
    other = dataclasses.replace(target, name="elsewhere")
    (warning,) = rank_shards(
        index, other, RankSettings(method="task2vec"), workspace=workspace
    ).warnings[-1:]
    kind = plain.shards[-1].source.split("_")[0]  # two sources are of each kind
    assert f"put {kind}_" in warning and f"first, not {plain.shards[0].source}" in warning


def test_a_lone_shard_and_equal_shards_are_warned_of(tmp_path, monkeypatch, target):
    index, own = made_index(tmp_path, 4)
    monkeypatch.setattr(methods, "embed_target", lambda *a, **k: own)
    lone = dataclasses.replace(index, shards=index.shards[:1], fingerprint="1")
    ranking = rank_shards(lone, target, RankSettings(method="task2vec"), workspace=tmp_path)
    assert "one shard only" in ranking.warnings[0]
    assert ranking.map[0][0] == "s000"
    noisy = dataclasses.replace(
        own, vectors=np.random.default_rng(1).gamma(1, 1, (4, 60)).astype(np.float32)
    )
    monkeypatch.setattr(methods, "embed_target", lambda *a, **k: noisy)
    ranking = rank_shards(
        index, make_target(target.select, "n"), RankSettings(method="task2vec"), workspace=tmp_path
    )
    assert any("before correction" in warning for warning in ranking.warnings)
    single = dataclasses.replace(own, vectors=own.vectors[:1])
    monkeypatch.setattr(methods, "embed_target", lambda *a, **k: single)
    ranking = rank_shards(
        index, make_target(target.select, "1"), RankSettings(method="task2vec"), workspace=tmp_path
    )
    assert any("one sub-batch" in warning for warning in ranking.warnings)


def test_a_plane_keeps_distances_that_fit_in_one():
    rows = np.random.default_rng(0).normal(size=(6, 2)) @ np.random.default_rng(1).normal(
        size=(2, 9)
    )
    places = plane(rows)
    np.testing.assert_allclose(
        np.linalg.norm(places[:, None] - places, axis=2),
        np.linalg.norm(rows[:, None] - rows, axis=2) / 3,
        atol=1e-9,
    )
    assert plane(np.ones((1, 4))).tolist() == [[0.0, 0.0]]
