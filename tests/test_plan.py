"""The plan of an index says what the index then is."""

import gzip
import json

import numpy as np
import pytest
from click.testing import CliRunner

from curate.cli import main
from curate.corpus import survey
from curate.corpus.pairs import count_pairs
from curate.errors import CurateError
from curate.settings import CorpusSettings, EmbedSettings
from curate.task2vec.embed import build_index
from curate.task2vec.plan import estimate_pair_bytes, plan_index
from curate.task2vec.vectors import pack_pairs
from tests.test_embed import probe_folder, write_corpus  # noqa: F401
from tests.test_regroup import write


@pytest.fixture
def case(tmp_path, probe_folder):  # noqa: F811
    corpus = CorpusSettings(inputs=(str(write_corpus(tmp_path / "in")),), shard_tokens=150)
    embed = EmbedSettings(probe=str(probe_folder), batches=3, batch_tokens=64, block_tokens=48)
    return corpus, embed, tmp_path / "w"


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_small_corpus_is_counted_exactly_and_nothing_is_written(case, tmp_path):
    corpus, embed, workspace = case
    before = snapshot(tmp_path)
    plan = plan_index(corpus, embed, workspace=workspace, device="cpu")
    assert snapshot(tmp_path) == before
    assert not workspace.exists()
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    assert plan.exact
    assert sum(one.documents for one in plan.sources) == 36
    assert sum(one.tokens for one in plan.sources) == sum(s.shard.n_tokens for s in index.shards)
    assert plan.shards == pytest.approx(len(index.shards), abs=2)
    assert plan.seconds > 0
    on_disk = sum(p.stat().st_size for p in (workspace / "index" / "shards").iterdir())
    assert plan.disk_bytes / plan.shards == pytest.approx(on_disk / len(index.shards), rel=0.25)


def test_texts_longer_than_the_trial_are_tried_too(tmp_path, probe_folder):  # noqa: F811
    """A corpus of books: not one fits into the trial, and it was said to take no time."""
    (tmp_path / "book.txt").write_text("the sea at night " * 600)  # bytes are tokens
    corpus = CorpusSettings(inputs=(str(tmp_path / "book.txt"),))
    embed = EmbedSettings(probe=str(probe_folder), batches=1, batch_tokens=256, block_tokens=48)
    plan = plan_index(corpus, embed, workspace=tmp_path / "w", device="cpu")
    build_index(corpus, embed, workspace=tmp_path / "w", device="cpu")
    on_disk = sum(p.stat().st_size for p in (tmp_path / "w" / "index" / "shards").iterdir())
    assert plan.seconds > 0.01
    assert plan.disk_bytes == pytest.approx(on_disk, rel=0.25)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_large_file_is_estimated_from_its_beginning(case, tmp_path, monkeypatch, pack):
    _, embed, workspace = case
    monkeypatch.setattr(survey, "HEAD_BYTES", 20_000)
    lines = [json.dumps({"text": f"word{n * 7919 % 1000} " * (5 + n % 9)}) for n in range(9_000)]
    path = tmp_path / "a.jsonl"
    path.write_bytes(pack(("\n".join(lines) + "\n").encode()))
    plan = plan_index(CorpusSettings(inputs=(str(path),)), embed, workspace=workspace)
    assert not plan.exact
    assert plan.sources[0].documents == pytest.approx(9_000, rel=0.1)


def test_items_of_a_large_json_array_are_counted(case, tmp_path, monkeypatch):
    _, embed, workspace = case
    monkeypatch.setattr(survey, "HEAD_BYTES", 2_000)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "some words here"}] * 4_000))
    plan = plan_index(CorpusSettings(inputs=(str(path),)), embed, workspace=workspace)
    assert plan.sources[0].documents == 4_000
    assert not plan.exact


def test_rows_of_a_columnar_file_are_counted_and_many_files_are_sampled(
    case, tmp_path, monkeypatch
):
    import pyarrow as pa
    import pyarrow.parquet as pq

    _, embed, workspace = case
    monkeypatch.setattr(survey, "HEAD_BYTES", 2_000)
    monkeypatch.setattr(survey, "LOOKED_INTO", 5)
    pq.write_table(pa.table({"text": ["some words here"] * 4_000}), tmp_path / "p.parquet")
    tree = tmp_path / "tree"
    tree.mkdir()
    for n in range(40):
        (tree / f"f{n}.py").write_text("x = 1\n" * 20)
    wanted = CorpusSettings(inputs=(str(tmp_path / "p.parquet"), str(tree)))
    plan = plan_index(wanted, embed, workspace=workspace)
    found = {one.source: (one.files, one.documents) for one in plan.sources}
    assert found == {"p": (1, 4_000), "tree": (40, 40)}


def test_clusters_and_skipped_files_and_hub_inputs_are_in_the_plan(case, tmp_path):
    corpus, embed, workspace = case
    (tmp_path / "in" / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    corpus = CorpusSettings(
        inputs=(*corpus.inputs, "hf:org/name"), group_by="cluster", clusters=9, shard_tokens=10_000
    )
    plan = plan_index(corpus, embed, workspace=workspace)
    assert (plan.shards, plan.skipped, plan.uncounted) == (9, 1, ("hf:org/name",))


def test_a_field_that_is_not_there_is_said_before_a_model_is_loaded(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", [{"body": "x"}])
    monkeypatch.setattr("curate.task2vec.plan.load_probe", None)
    monkeypatch.setattr("curate.task2vec.items.load_probe", None)
    wanted = CorpusSettings(inputs=(str(path),))
    for stage in (plan_index, build_index):
        with pytest.raises(CurateError, match="no field text; it has body"):
            stage(wanted, EmbedSettings(), workspace=tmp_path / "w")


def test_the_command_prints_the_plan(case, tmp_path):
    corpus, embed, workspace = case
    words = ["index", *corpus.inputs, "--probe", embed.probe, "--dry-run"]
    (tmp_path / "c.toml").write_text("[embed]\nblock_tokens = 48\n")
    words += ["--workspace", str(workspace), "--config", str(tmp_path / "c.toml")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "36 documents" in done.stdout and "1 shards" not in done.stderr
    plan = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert [one["source"] for one in plan["sources"]] == ["code", "maths", "prose"]
    assert not workspace.exists()


def test_what_pairs_take_is_foreseen_from_a_tenth_of_the_text():
    """Tokens as rare as words are (Zipf): new pairs come slower the more text there is."""
    rng = np.random.default_rng(0)
    vocab = 4_096
    weights = 1 / np.arange(1, vocab + 1)
    documents = [
        rng.choice(vocab, 500, p=weights / weights.sum()).astype(np.int32) for _ in range(200)
    ]
    real = pack_pairs(count_pairs(documents, vocab)).nbytes
    found = estimate_pair_bytes(documents[:20], vocab, tokens=100_000)
    assert 0.7 * real < found < 1.5 * real
    assert estimate_pair_bytes([], vocab, tokens=100_000) == 0
    assert estimate_pair_bytes(documents[:1], vocab, tokens=500) < 2_000


def test_one_line_longer_than_what_is_looked_at_is_counted(case, tmp_path, monkeypatch):
    """A document of 30 MB was announced as none, with no tokens."""
    _, embed, workspace = case
    monkeypatch.setattr(survey, "HEAD_BYTES", 2_000)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "some words here " * 500}) + "\n" + '{"text": "b c"}\n')
    plan = plan_index(CorpusSettings(inputs=(str(path),)), embed, workspace=workspace)
    assert plan.sources[0].tokens == pytest.approx(8_000, rel=0.1)
    assert plan.sources[0].documents == 1


def test_many_small_sources_cost_what_they_hold(case, tmp_path, monkeypatch):
    """Beside them a large one was said to be embedded whole: three hours for some minutes."""
    _, embed, workspace = case
    for number in range(40):
        (tmp_path / f"{number}.jsonl").write_text('{"text": "a few words"}\n')
    large = tmp_path / "large.jsonl"
    large.write_text("".join('{"text": "%s"}\n' % ("some words here " * 20) for _ in range(200)))
    monkeypatch.setattr("curate.task2vec.plan._trial", lambda *_: (1.0, 100))
    monkeypatch.setattr("curate.task2vec.plan.time.monotonic", lambda: 0.0)
    inputs = tuple(map(str, sorted(tmp_path.glob("*.jsonl"))))
    plan = plan_index(CorpusSettings(inputs=inputs), embed, workspace=workspace)
    (of_large,) = (one.tokens for one in plan.sources if one.source == "large")
    rest = sum(one.tokens for one in plan.sources) - of_large
    assert of_large > 192 and plan.seconds == rest + 192  # 3 sub-batches of 64 tokens
