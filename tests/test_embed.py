"""The stage: every shard once, whatever happens in between."""

import dataclasses
import errno
import json
import os
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from curate.corpus import reader
from curate.engine.listing import to_text
from curate.engine.outcome import Outcome, portable
from curate.errors import LOCKED, REJECTED, CurateError
from curate.records import ProbeInfo, RowBlock, Target
from curate.settings import CorpusSettings, EmbedSettings
from curate.stages import rejected
from curate.store.fingerprint import digest_texts
from curate.store.lock import locked
from curate.task2vec import embedding, items, making, vectors
from curate.task2vec.embed import build_index
from curate.task2vec.embedding import embed_texts
from curate.task2vec.fisher import fisher_rows
from curate.task2vec.head import tune_head
from curate.task2vec.probe import encode_texts, load_probe
from curate.task2vec.quantity import FisherSettings
from curate.task2vec.reading import (
    index_is_current,
    load_embedding,
    load_pairs,
    open_index,
)
from curate.task2vec.sketch import draw_projection, project_rows
from curate.task2vec.target import embed_target
from curate.task2vec.vectors import (
    check_embedding,
    quantise,
    read_embedding,
    restore,
    write_embedding,
)
from tests.test_probe import save_probe

torch.set_num_threads(1)

WORDS = {
    "code": ["def", "return", "lambda", "import", "class", "self", "yield", "assert", "while"],
    "prose": ["the", "a", "whale", "sea", "captain", "night", "wind", "harbour", "light"],
    "maths": ["lemma", "proof", "let", "prime", "group", "field", "kernel", "ideal", "ring"],
}


def write_corpus(folder, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name, words in WORDS.items():
        lines = [
            json.dumps({"text": " ".join(rng.choice(words, int(rng.integers(5, 30))))})
            for _ in range(12)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def probe_folder(tmp_path_factory):
    return save_probe(tmp_path_factory.mktemp("probe"))


@pytest.fixture
def case(tmp_path, probe_folder):
    items._coordinates.cache_clear()  # some tests change what it rests on
    corpus = CorpusSettings(inputs=(str(write_corpus(tmp_path / "in")),))
    embed = EmbedSettings(
        probe=str(probe_folder), batches=3, batch_tokens=256, block_tokens=48, seed=1
    )
    return corpus, embed, tmp_path / "work"


@pytest.fixture
def embedded(monkeypatch):
    """Names of the things that went through the engine."""
    names, plain = [], items.embed_parts

    def spy(what, *rest, **named):
        names.append(what)
        return plain(what, *rest, **named)

    monkeypatch.setattr(embedding, "embed_parts", spy)
    monkeypatch.setattr(items, "embed_parts", spy)
    return names


def published(workspace):
    return {
        path.relative_to(workspace): path.read_bytes()
        for path in sorted(workspace.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def target(items=("lemma prime", "proof let group", "ideal ring kernel field")):
    return Target(
        name="toy",
        select=tuple(items),
        eval=("lemma",),
        select_digest=digest_texts(tuple(items)),
        eval_digest="",
        origin="",
    )


def test_every_shard_has_an_embedding(case):
    corpus, embed, workspace = case
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    assert [s.shard.name for s in index.shards] == ["code", "maths", "prose"]
    for one in index.shards:
        found = load_embedding(workspace, one.key)
        assert found.vectors.shape == (3, index.blocks[-1].stop)
        assert found.vectors.dtype == np.float32
        assert np.all(found.vectors > 0) and np.all(np.isfinite(found.vectors))
        assert found.unigrams.sum() == one.shard.n_tokens
        assert found.unigrams.shape == (index.probe.vocab,)
        assert found.hidden.shape == (3, 16)
        assert 0 < found.loss < 40
        assert np.array_equal(load_embedding(workspace / "index", one.key).vectors, found.vectors)
    assert open_index(workspace) == index


def test_a_rerun_does_nothing(case, embedded):
    corpus, embed, workspace = case
    first = build_index(corpus, embed, workspace=workspace, device="cpu")
    assert embedded == ["shard code", "shard maths", "shard prose"]
    before = published(workspace)
    assert index_is_current(corpus, embed, workspace)
    assert build_index(corpus, embed, workspace=workspace, device="cpu") == first
    assert len(embedded) == 3
    assert published(workspace) == before


def test_an_index_with_labels_drawn_in_another_way_is_made_again(case, embedded, monkeypatch):
    corpus, embed, workspace = case
    monkeypatch.setattr(vectors, "COINS", 0)
    older = build_index(corpus, embed, workspace=workspace, device="cpu")
    monkeypatch.undo()
    assert not index_is_current(corpus, embed, workspace)
    assert build_index(corpus, embed, workspace=workspace, device="cpu").fingerprint != (
        older.fingerprint
    )


def test_an_interrupted_run_resumes_to_the_same_bytes(case, embedded, monkeypatch, tmp_path):
    corpus, embed, workspace = case
    monkeypatch.setenv("CURATE_FAILPOINT", "publish.after_tmp:4=enospc")
    monkeypatch.setattr("curate.store.failpoint._counts", {})
    with pytest.raises(CurateError, match="cannot be written"):
        build_index(corpus, embed, workspace=workspace, device="cpu")
    assert not index_is_current(corpus, embed, workspace)
    monkeypatch.delenv("CURATE_FAILPOINT")
    build_index(corpus, embed, workspace=workspace, device="cpu")
    assert embedded == ["shard code", "shard maths", "shard maths", "shard prose"]
    build_index(corpus, embed, workspace=tmp_path / "straight", device="cpu")
    assert published(workspace) == published(tmp_path / "straight")


def test_one_process_hands_tokens_over_in_memory(case, monkeypatch):
    corpus, embed, workspace = case
    monkeypatch.setattr(making, "publish_tokens", None)
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    assert len(published(workspace)) == 2 * len(index.shards) + 1  # prints and embedding each
    assert json.loads((workspace / "index" / "meta.json").read_bytes())["files"] == {}


def test_a_shard_that_cannot_be_embedded_is_left_out_and_named(case, embedded, tmp_path):
    corpus, embed, workspace = case
    (tmp_path / "in" / "crumb.jsonl").write_text('{"text": "a"}')
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    assert [s.shard.name for s in index.shards] == ["code", "maths", "prose"]
    assert [(r.shard.name, r.reason) for r in index.rejected] == [
        ("crumb", "shard crumb: 1 tokens are too few to embed; leave it out")
    ]
    assert embedded.count("shard crumb") == 2  # the second time alone
    assert open_index(workspace) == index
    assert rejected(index).exit_code == REJECTED
    assert "1 of 4 shards rejected, the first crumb" in str(rejected(index))
    assert index_is_current(corpus, embed, workspace)  # whoever ranks does not read it all again
    del embedded[:]
    build_index(corpus, embed, workspace=workspace, device="cpu")
    assert embedded == ["shard crumb"] * 2  # the same command does try again
    assert not (workspace / "index" / "items").exists()


def test_where_no_shard_can_be_embedded_the_first_reason_is_the_error(case, tmp_path):
    _, embed, workspace = case
    (tmp_path / "crumbs").mkdir()
    for number in range(30):
        (tmp_path / "crumbs" / f"{number}.jsonl").write_text('{"text": "a"}')
    corpus = CorpusSettings(inputs=(str(tmp_path / "crumbs"),))
    with pytest.raises(CurateError, match="too few to embed"):
        build_index(corpus, embed, workspace=workspace, device="cpu")


def test_a_worker_sends_back_less_than_a_kilobyte(case):
    corpus, embed, workspace = case
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    stored = check_embedding(workspace / "index" / "shards" / f"{index.shards[0].key}.safetensors")
    sent = portable(Outcome(items.Embedded(0, stored)))
    assert len(ForkingPickler.dumps(sent)) < 1024 and len(to_text(sent.result)) < 1024


@pytest.mark.slow
def test_workers_die_and_the_index_is_that_of_one_process(case, tmp_path, monkeypatch):
    corpus, embed, workspace = case
    corpus = replace(corpus, shard_tokens=300)
    build_index(corpus, embed, workspace=tmp_path / "straight", device="cpu")
    # Every process is killed at its fourth shard, embedded and not yet published.
    monkeypatch.setenv("CURATE_FAILPOINT", "embed.item:4=kill")
    index = build_index(corpus, embed, workspace=workspace, device="cpu", workers=2)
    assert len(index.shards) > 4 and not index.rejected
    assert published(workspace) == published(tmp_path / "straight")


def test_one_changed_shard_is_embedded_again_alone(case, embedded, tmp_path):
    corpus, embed, workspace = case
    build_index(corpus, embed, workspace=workspace, device="cpu")
    del embedded[:]
    path = tmp_path / "in" / "maths.jsonl"
    path.write_text(path.read_text().replace("lemma", "Lemma", 1))
    assert not index_is_current(corpus, embed, workspace)
    build_index(corpus, embed, workspace=workspace, device="cpu")
    assert embedded == ["shard maths"]


def test_a_renamed_file_costs_nothing(case, embedded, tmp_path):
    corpus, embed, workspace = case
    build_index(corpus, embed, workspace=workspace, device="cpu")
    del embedded[:]
    (tmp_path / "in" / "maths.jsonl").rename(tmp_path / "in" / "algebra.jsonl")
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    assert [s.shard.name for s in index.shards] == ["algebra", "code", "prose"]
    assert embedded == []


def test_new_files_add_shards_and_removed_files_drop_out(case, embedded, tmp_path):
    corpus, embed, workspace = case
    build_index(corpus, embed, workspace=workspace, device="cpu")
    del embedded[:]
    lines = (tmp_path / "in" / "code.jsonl").read_text().splitlines()
    (tmp_path / "in" / "more.jsonl").write_text("\n".join(lines[::-1]) + "\n")
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    assert [s.shard.name for s in index.shards] == ["code", "maths", "more", "prose"]
    assert embedded == ["shard more"]
    (tmp_path / "in" / "code.jsonl").unlink()
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    assert [s.shard.name for s in index.shards] == ["maths", "more", "prose"]
    assert {Path(ledger.path).stem for ledger in index.ledgers} == {"maths", "more", "prose"}
    assert embedded == ["shard more"]
    assert open_index(workspace) == index


@pytest.mark.parametrize("group_by", ["folder", "field:kind", "cluster"])
def test_a_regrouped_corpus_is_indexed_once_and_resumes(case, embedded, tmp_path, group_by):
    corpus, embed, workspace = case
    corpus = replace(corpus, group_by=group_by, clusters=3)
    for path in (tmp_path / "in").glob("*.jsonl"):  # the field is the same in all
        rows = map(json.loads, path.read_text("utf-8").splitlines())
        path.write_text("".join(json.dumps(row | {"kind": "one"}) + "\n" for row in rows), "utf-8")
    first = build_index(corpus, embed, workspace=workspace, device="cpu")
    done = list(embedded)
    assert len(done) == len(first.shards) == (3 if group_by == "cluster" else 1)
    assert sum(s.shard.n_documents for s in first.shards) == 36
    assert len(first.ledgers) == 3
    assert build_index(corpus, embed, workspace=workspace, device="cpu") == first
    (workspace / "index" / "meta.json").unlink()
    assert build_index(corpus, embed, workspace=workspace, device="cpu") == first
    for path in (workspace / "groups").rglob("00000.jsonl.zst"):
        path.write_bytes(path.read_bytes()[:-9])
        assert not index_is_current(corpus, embed, workspace)
    assert build_index(corpus, embed, workspace=workspace, device="cpu") == first
    assert index_is_current(corpus, embed, workspace)
    assert embedded == done


@pytest.mark.parametrize("damage", ["flip", "pairs", "note", "cut", "delete"])
def test_a_damaged_embedding_is_found_and_made_again(case, embedded, damage):
    """What is read is held against its digest: of a file whose pairs are damaged, the pairs."""
    corpus, embed, workspace = case
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    before = published(workspace)
    path = workspace / "index" / "shards" / f"{index.shards[1].key}.safetensors"
    data = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")  # of the arrays; the pairs are the last
    places = {"flip": begin + 3, "pairs": -3}
    data[places.get(damage, data.index(b"n_sequences") + 16)] ^= 1
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    load = load_pairs if damage == "pairs" else load_embedding
    with pytest.raises(CurateError, match="missing or changed"):
        load(workspace, index.shards[1].key)
    assert not index_is_current(corpus, embed, workspace)
    del embedded[:]
    build_index(corpus, embed, workspace=workspace, device="cpu")
    assert embedded == ["shard maths"]
    assert published(workspace) == before


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_what_documents_are_known_by_is_made_again_without_embedding(case, embedded, damage):
    corpus, embed, workspace = case
    build_index(corpus, embed, workspace=workspace, device="cpu")
    before = published(workspace)
    path = next((workspace / "index" / "prints").iterdir())
    data = path.read_bytes()
    path.unlink()
    if damage == "flip":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert not index_is_current(corpus, embed, workspace)
    del embedded[:]
    build_index(corpus, embed, workspace=workspace, device="cpu")
    assert embedded == [] and published(workspace) == before
    assert index_is_current(corpus, embed, workspace)


def test_settings_decide_the_embedding(case, embedded):
    corpus, embed, workspace = case
    build_index(corpus, embed, workspace=workspace, device="cpu")
    other = EmbedSettings(**{**_fields(embed), "seed": 2})
    assert not index_is_current(corpus, other, workspace)
    build_index(corpus, other, workspace=workspace, device="cpu")
    assert len(embedded) == 6


def test_batch_size_does_not_matter(case, monkeypatch, tmp_path):
    corpus, embed, workspace = case
    one = build_index(corpus, embed, workspace=workspace, device="cpu")
    monkeypatch.setattr(embedding, "_CPU_BATCH", 60)
    two = build_index(corpus, embed, workspace=tmp_path / "two", device="cpu")
    for a, b in zip(one.shards, two.shards, strict=True):
        x, y = (load_embedding(w, a.key).vectors for w in (workspace, tmp_path / "two"))
        assert a.key == b.key
        assert np.allclose(x, y, rtol=2e-3)


def test_target_is_embedded_once_with_every_item(case, embedded):
    corpus, embed, workspace = case
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    del embedded[:]
    found = embed_target(target(), index, workspace=workspace, device="cpu")
    again = embed_target(target(), index, workspace=workspace, device="cpu")
    assert embedded == ["target toy"]
    assert np.array_equal(found.vectors, again.vectors)
    assert found.n_sequences == (1, 1, 1)
    assert found.vectors.shape[1] == index.blocks[-1].stop


def test_one_item_still_fills_the_sub_batches(case):
    corpus, embed, workspace = case
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    found = embed_target(target(("ring " * 60,)), index, workspace=workspace, device="cpu")
    assert sum(found.n_sequences) == -(-300 // 48)
    assert len(found.n_sequences) == 3


def test_a_probe_that_changed_is_named(case, tmp_path):
    corpus, embed, workspace = case
    folder = save_probe(tmp_path / "mine")
    index = build_index(
        corpus,
        EmbedSettings(**{**_fields(embed), "probe": str(folder)}),
        workspace=workspace,
        device="cpu",
    )
    save_probe(folder, seed=7)
    with pytest.raises(CurateError, match="changed since the index was made"):
        embed_target(target(), index, workspace=workspace, device="cpu")


def test_texts_embed_in_a_few_lines(probe_folder):
    probe = load_probe(str(probe_folder), device="cpu")
    settings = EmbedSettings(batches=2, block_tokens=64)
    found = embed_texts(["def f(x): return x", "def g(y): return y", "x = 1"], probe, settings)
    assert found.vectors.shape[0] == 2
    assert sum(found.n_sequences) == 3


def test_embeddings_tell_kinds_of_text_apart(case, tmp_path):
    corpus, embed, workspace = case
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    other = CorpusSettings(inputs=(str(write_corpus(tmp_path / "again", seed=9)),))
    twin = build_index(other, embed, workspace=tmp_path / "twin", device="cpu")
    logs = [
        [np.log(load_embedding(w, s.key).vectors.mean(0)) for s in i.shards]
        for w, i in ((workspace, index), (tmp_path / "twin", twin))
    ]
    for n, vector in enumerate(logs[0]):
        distances = [np.linalg.norm(vector - other) for other in logs[1]]
        assert int(np.argmin(distances)) == n


def document_vectors(workspace, key):
    """What docs/concepts.md says that a reader finds: columns document, tokens, vector."""
    path = workspace / "index" / "shards" / f"{key}.documents.parquet"
    table = pq.read_table(path, page_checksum_verification=True)
    vectors = table["vector"].combine_chunks()
    values = vectors.values.to_numpy(zero_copy_only=False).reshape(len(vectors), -1)
    return table["document"].to_numpy(), table["tokens"].to_numpy(), values


def test_documents_have_vectors_from_the_same_pass(case):
    corpus, embed, workspace = case
    settings = EmbedSettings(**{**_fields(embed), "documents": 64})
    plain = build_index(corpus, embed, workspace=workspace.parent / "plain", device="cpu")
    index = build_index(corpus, settings, workspace=workspace, device="cpu")
    for one, other in zip(index.shards, plain.shards, strict=True):
        documents, tokens, vectors = document_vectors(workspace, one.key)
        assert documents.tolist() == sorted(set(documents.tolist()))
        assert vectors.shape == (len(documents), 64)
        assert vectors.dtype == np.float16
        assert np.all(np.isfinite(vectors))
        assert documents.max() < one.shard.n_documents
        assert tokens.sum() <= one.shard.n_tokens
        same = load_embedding(workspace.parent / "plain", other.key).vectors
        assert np.array_equal(load_embedding(workspace, one.key).vectors, same)
    assert not list((workspace.parent / "plain").rglob("*.documents.parquet"))


def test_a_documents_vector_is_that_of_the_document_alone(case, tmp_path, probe_folder):
    corpus, embed, workspace = case
    settings = EmbedSettings(**{**_fields(embed), "documents": 64, "block_tokens": 64})
    index = build_index(corpus, settings, workspace=workspace, device="cpu")
    documents, tokens, vectors = document_vectors(workspace, index.shards[0].key)
    probe = load_probe(str(probe_folder), device="cpu")
    lines = (tmp_path / "in" / "code.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    whole = [i for i, d in enumerate(documents) if tokens[i] == len(texts[d]) <= 64]
    assert whole
    for i in whole:
        (ids,) = encode_texts(probe, [texts[documents[i]]])
        rows = fisher_rows(probe.model, [ids], settings=FisherSettings(seed=embed.seed))
        projection = draw_projection(
            rows.blocks, width=64, seed=embed.seed, device=torch.device("cpu")
        )
        expected = project_rows(projection, torch.from_numpy(rows.values).float())[0].numpy()
        assert np.allclose(vectors[i], expected, rtol=5e-3, atol=5e-3)
        assert tokens[i] == len(ids)


def test_damaged_document_vectors_are_made_again(case, embedded):
    corpus, embed, workspace = case
    settings = EmbedSettings(**{**_fields(embed), "documents": 16})
    index = build_index(corpus, settings, workspace=workspace, device="cpu")
    before = published(workspace)
    path = workspace / "index" / "shards" / f"{index.shards[0].key}.documents.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    assert not index_is_current(corpus, settings, workspace)
    del embedded[:]
    build_index(corpus, settings, workspace=workspace, device="cpu")
    assert embedded == ["shard code"]
    assert published(workspace) == before


def test_a_sketch_is_the_mean_of_neighbouring_rows(case):
    corpus, embed, workspace = case
    settings = EmbedSettings(**{**_fields(embed), "sketch": 40})
    whole = build_index(corpus, embed, workspace=workspace.parent / "whole", device="cpu")
    small = build_index(corpus, settings, workspace=workspace, device="cpu")
    assert len(small.blocks) == len(whole.blocks)
    assert len(small.blocks) <= small.blocks[-1].stop <= 40
    for one, other in zip(small.shards, whole.shards, strict=True):
        few = load_embedding(workspace, one.key).vectors
        many = load_embedding(workspace.parent / "whole", other.key).vectors
        for a, b in zip(small.blocks, whole.blocks, strict=True):
            assert a.name == b.name
            starts = np.arange(a.stop - a.start) * (b.stop - b.start) // (a.stop - a.start)
            pieces = np.split(many[:, b.start : b.stop], starts[1:], axis=1)
            means = np.stack([piece.mean(1) for piece in pieces], axis=1)
            assert np.allclose(few[:, a.start : a.stop], means, rtol=2e-3)


def test_a_shard_holds_at_most_two_megabytes(monkeypatch, case):
    corpus, embed, workspace = case
    monkeypatch.setattr(embedding, "_SHARD_BYTES", 600)
    index = build_index(corpus, embed, workspace=workspace, device="cpu")
    assert index.blocks[-1].stop * 2 * embed.batches <= 600


def test_a_sketch_narrower_than_the_matrices_is_refused(case):
    corpus, embed, workspace = case
    settings = EmbedSettings(**{**_fields(embed), "sketch": 3})
    with pytest.raises(CurateError, match="sketch is 3; the 14 matrices"):
        build_index(corpus, settings, workspace=workspace, device="cpu")


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_tokens": 0}, {"block_tokens": 1}, {"block_tokens": 10**6}, {"gradients": -1},
        {"layers": "foo"}, {"layers": "last:9"}, {"sketch": 1},
        {"recipe": "published", "documents": 8},
    ],
)  # fmt: skip
def test_settings_that_no_probe_allows_are_a_mistake_of_usage(wrong):
    probe = load_probe("builtin", device="cpu")
    with pytest.raises(CurateError) as caught:
        embedding.check_probe(probe, dataclasses.replace(EmbedSettings(), **wrong))
    assert caught.value.exit_code == 2


def test_a_projection_keeps_inner_products_in_expectation():
    blocks = (RowBlock("a", 0, "a", 0, 30), RowBlock("b", 0, "b", 30, 80))
    rows = torch.rand(2, 80, generator=torch.Generator().manual_seed(0)) + 0.1
    scaled = torch.cat([part / part.mean(1, keepdim=True) for part in rows.split([30, 50], 1)], 1)
    exact = float(scaled[0].sqrt() @ scaled[1].sqrt())
    found = []
    for seed in range(300):
        projection = draw_projection(blocks, width=16, seed=seed, device=torch.device("cpu"))
        x, y = project_rows(projection, rows)
        found.append(float(x @ y))
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - exact) < 4 * error


@pytest.mark.parametrize(
    "change",
    [
        {"labels": "data"}, {"rows": "both"}, {"layers": "last:1"}, {"draws": 2},
        {"also": ("norms", "embeddings", "head")}, {"square": "position"}, {"signs": 8},
        {"head": "tuned"}, {"recipe": "published"},
    ],
    ids=str,
)  # fmt: skip
def test_every_option_changes_the_embedding_and_is_recorded(case, tmp_path, change):
    _, embed, _ = case
    probe = load_probe(str(save_probe(tmp_path / "probe", positions=128)), device="cpu")
    texts = ["one two three four", "def f(x): return x", "lemma proof prime", "the sea at night"]
    settings = EmbedSettings(**{**_fields(embed), **change})
    plain, other = embed_texts(texts, probe, embed), embed_texts(texts, probe, settings)
    assert other.vectors.shape != plain.vectors.shape or not np.allclose(
        other.vectors, plain.vectors, rtol=1e-2
    )
    assert other.vectors.shape[1] == embedding.check_probe(probe, settings)[-1].stop
    keys = [making.shard_key("text", s, probe.info) for s in (embed, settings)]
    assert keys[0] != keys[1]


def test_a_tuned_head_fits_the_text_and_leaves_the_probe_alone(probe_folder):
    probe = load_probe(str(probe_folder), device="cpu")
    before = probe.model.lm_head.weight.clone()
    sequences = encode_texts(probe, ["the sea the sea the sea"] * 8)
    loss = []
    for epochs in (0, 40):
        head = tune_head(probe.model, sequences, epochs=epochs)
        loss.append(fisher_rows(probe.model, sequences, head=head).loss)
    assert loss[1] < loss[0] - 0.3
    assert torch.equal(probe.model.lm_head.weight, before)
    assert torch.equal(tune_head(probe.model, sequences, epochs=0), before)


def test_short_texts_share_rows_with_the_same_answer(probe_folder, monkeypatch):
    probe = load_probe(str(probe_folder), device="cpu")
    settings = EmbedSettings(block_tokens=64, batches=2)
    texts = ["a b c d e f g h i j k l m n o p q r s t u v w x y z"] + ["short", "text"] * 9
    padded = embed_texts(texts, probe, settings)
    rows, plain = [], embedding.fisher_rows

    def spy(*given, **named):
        rows.append(named["packed"])
        return plain(*given, **named)

    monkeypatch.setattr(embedding, "fisher_rows", spy)
    monkeypatch.setattr(embedding, "_MOST_PADDING", 2.0)
    alone = embed_texts(texts, probe, settings)
    monkeypatch.setattr(embedding, "_MOST_PADDING", 0.1)
    packed = embed_texts(texts, probe, settings)
    assert rows == [False, True]
    assert np.allclose(packed.vectors, alone.vectors, rtol=1e-3)
    assert np.allclose(padded.vectors, packed.vectors, rtol=1e-3)


def test_little_free_memory_makes_small_batches(probe_folder, monkeypatch):
    probe = load_probe(str(probe_folder), device="cpu")
    settings = EmbedSettings(block_tokens=64)
    found = []
    for free in (0, 4 << 20, 64 << 30):
        monkeypatch.setattr(embedding, "_free_memory", lambda free=free: free)
        found.append(embedding._batch_tokens(probe, settings))
    assert found[0] == 64 < found[1] < found[2] == embedding._CPU_BATCH


def test_too_little_text_is_named(probe_folder):
    probe = load_probe(str(probe_folder), device="cpu")
    settings = EmbedSettings(block_tokens=64)
    with pytest.raises(CurateError, match="texts: 1 tokens are too few"):
        embed_texts(["a"], probe, settings)


def test_blocks_longer_than_the_probe_reads_are_refused(case):
    corpus, embed, workspace = case
    with pytest.raises(CurateError, match="block_tokens = 64"):
        build_index(
            corpus,
            EmbedSettings(**{**_fields(embed), "block_tokens": 128}),
            workspace=workspace,
            device="cpu",
        )


def test_the_published_recipe_needs_a_probe_that_reads_its_rows(probe_folder):
    probe = load_probe(str(probe_folder), device="cpu")
    settings = EmbedSettings(recipe="published", block_tokens=64)
    with pytest.raises(CurateError, match="reads 64 positions, the published recipe 128"):
        embed_texts(["the sea at night"], probe, settings)


def test_input_rows_and_mean_gradients_come_together(probe_folder):
    probe = load_probe(str(probe_folder), device="cpu")
    texts = ["the sea at night", "def f(x): return x"]
    settings = EmbedSettings(gradients=16, block_tokens=64, batches=1)
    one, both = (
        embed_texts(texts, probe, dataclasses.replace(settings, rows=rows)).gradients
        for rows in ("output", "both")
    )
    assert np.allclose(both, one)


def test_malformed_layers_are_a_users_mistake(case):
    corpus, embed, workspace = case
    with pytest.raises(CurateError, match="last:K"):
        build_index(
            corpus,
            EmbedSettings(**{**_fields(embed), "layers": "first:1"}),
            workspace=workspace,
            device="cpu",
        )


def test_a_live_run_holds_the_index(case):
    corpus, embed, workspace = case
    with locked(workspace / "index"), pytest.raises(CurateError) as caught:
        build_index(corpus, embed, workspace=workspace, device="cpu")
    assert caught.value.exit_code == LOCKED


def test_no_index_is_named(tmp_path):
    with pytest.raises(CurateError, match="run curate index first"):
        open_index(tmp_path)


def test_sixteen_bits_keep_values_to_a_thousandth():
    rng = np.random.default_rng(0)
    vectors = np.exp2(rng.uniform(-40, 0, size=(3, 500)))
    levels, low, step = quantise(vectors, stops=[100, 101, 500])
    back = restore(levels, low=low, step=step, stops=[100, 101, 500])
    assert np.max(np.abs(back / vectors - 1)) < 3e-4


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_values_that_are_no_information_are_refused(bad):
    vectors = np.ones((1, 4))
    vectors[0, 2] = bad
    with pytest.raises(ValueError, match="finite and positive"):
        quantise(vectors, stops=[4])


def test_an_embedding_reads_back_as_written(tmp_path, probe_folder):
    probe = load_probe(str(probe_folder), device="cpu")
    found = embed_texts(["one two", "three four"], probe, EmbedSettings(block_tokens=64))
    blocks = (RowBlock("all", 0, "all", 0, found.vectors.shape[1]),)
    path = tmp_path / "x.safetensors"
    write_embedding(path, found, blocks=blocks, text_digest="t")
    back = read_embedding(path)
    assert np.allclose(back.vectors, found.vectors, rtol=1e-3)
    assert np.array_equal(back.unigrams, found.unigrams)
    assert np.array_equal(back.hidden, found.hidden)
    assert (back.n_sequences, back.loss) == (found.n_sequences, found.loss)


def _fields(settings):
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def test_the_key_of_an_embedding_holds_all_that_decides_it(monkeypatch):
    info = ProbeInfo("p", "revision", "tokenizer", 10, 4)
    settings = EmbedSettings()
    key = making.shard_key("text", settings, info)
    others = {making.shard_key("other text", settings, info)}
    for name in ("revision", "tokenizer_digest"):
        others.add(making.shard_key("text", settings, dataclasses.replace(info, **{name: "x"})))
    for field in dataclasses.fields(settings):
        if field.name != "probe":
            changed = dataclasses.replace(settings, **{field.name: "another"})
            others.add(making.shard_key("text", changed, info))
    monkeypatch.setattr("curate.store.fingerprint.SCHEMA", -1)
    others.add(making.shard_key("text", settings, info))
    monkeypatch.undo()
    for name in ("COINS", "CONTRAST"):
        monkeypatch.setattr(vectors, name, -1)
        others.add(making.shard_key("text", settings, info))
        monkeypatch.undo()
    assert key not in others
    assert len(others) == 3 + len(dataclasses.fields(settings)) - 1 + 1 + 2
    # where the probe lies, and what it is called, decides nothing
    moved = dataclasses.replace(settings, probe="elsewhere")
    assert making.shard_key("text", moved, dataclasses.replace(info, name="q")) == key


def test_an_input_that_the_disk_refused_is_read_again(case, tmp_path, monkeypatch):
    """What the disk refuses once is no damage: the next run does not take the rest for all."""
    corpus, embed, _ = case
    real, refused = reader.read_rows, []

    def read_rows(path, *given, **rest):
        if not refused:
            refused.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, *given, **rest)

    monkeypatch.setattr(reader, "read_rows", read_rows)
    partial = build_index(corpus, embed, workspace=tmp_path, device="cpu")
    assert refused and [ledger.error for ledger in partial.ledgers if ledger.error]
    assert not index_is_current(corpus, embed, tmp_path)
    whole = build_index(corpus, embed, workspace=tmp_path, device="cpu")
    assert not [ledger.error for ledger in whole.ledgers if ledger.error]
    assert len(whole.shards) > len(partial.shards)
    assert index_is_current(corpus, embed, tmp_path)
