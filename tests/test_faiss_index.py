from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from curate.ranking.candidates import find_candidates
from curate.ranking.index import (
    build_faiss,
    draw_frequencies,
    features,
    find_gpu,
    fit_projection,
    index_kind,
    log_embedding,
    open_faiss,
    shortlist,
    shortlist_by_product,
    stand_ins,
)
from curate.records import RowBlock, silent
from curate.store.fingerprint import fingerprint
from curate.task2vec.fisher import FisherSettings, fisher_rows
from curate.task2vec.probe import encode_texts, load_probe
from tests.conftest import licence_prose, numpy_docstrings, python_sources


@pytest.fixture(scope="module")
def logs():
    """1,500 log embeddings with a falling spectrum and noise of their own."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(1_500, 24)) * np.arange(1, 25) ** -0.7
    rows = latent @ rng.normal(size=(24, 600)) * 0.35 + rng.normal(size=(1_500, 600)) * 0.15
    raw = np.exp(rows + rng.normal(size=600))
    return np.stack([log_embedding(row[None]) for row in raw])


@pytest.fixture(scope="module")
def vectors(logs):
    return stand_ins(logs, fit_projection(logs[::3], seed=0))


def exact(query, logs):
    """The measure `scaled` of one against all, straight from its definition."""
    a, b = np.exp(query), np.exp(logs)
    x, y = a / (a + b), b / (a + b)
    return (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))


def test_features_are_unit_and_their_inner_product_estimates_the_kernel(logs):
    rows = features(logs[:50], draw_frequencies(600, seed=0))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-5)
    t = np.tanh((logs[:50, None] - logs[None, :50]) / 2)
    assert np.abs(rows @ rows.T - (1 - t**2).mean(axis=2)).max() < 0.03


def test_few_coordinates_have_many_frequencies_each():
    assert draw_frequencies(8_000, seed=0).shape == (1, 8_000)
    assert draw_frequencies(600, seed=0).shape == (7, 600)
    assert draw_frequencies(3, seed=0).size >= 4_096


def test_frequencies_have_the_kernel_as_their_characteristic_function():
    drawn = draw_frequencies(200_000, seed=1)
    for u in (0.5, 1.0, 3.0):
        assert np.cos(drawn * u).mean() == pytest.approx(1 / np.cosh(u / 2) ** 2, abs=0.01)


def test_no_more_embeddings_than_the_width_keep_their_inner_products(logs):
    projection = fit_projection(logs[:40], width=128)
    rows = features(logs[:40], projection.frequencies)
    found = stand_ins(logs[:40], projection)
    np.testing.assert_allclose(found @ found.T, rows @ rows.T, atol=1e-4)


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_the_shortlist_holds_the_exact_top_100(logs, vectors, kind):
    index = build_faiss(vectors, kind=kind)
    if kind == "ivf":
        index.nprobe = index.nlist // 2  # 1,500 shards are few lists
    recalls = []
    for number in range(0, 1_500, 150):
        best = np.argsort(-exact(logs[number], logs))[:100]
        recalls.append(np.isin(best, shortlist(index, vectors[number], count=400)).mean())
    assert np.mean(recalls) >= 0.99, np.mean(recalls)


@pytest.mark.slow
def test_the_shortlist_holds_the_exact_top_100_of_real_embeddings():
    """400 pieces of real text of 128 tokens, embedded by the built-in probe, targets among them."""
    probe = load_probe("builtin", device="cpu")
    rows = []
    for texts in (numpy_docstrings(), python_sources(), licence_prose()):
        ids = np.concatenate(encode_texts(probe, texts))
        rows += [ids[n : n + 128] for n in range(0, len(ids) - 128, 128)][:134]
    found = fisher_rows(
        probe.model,
        rows,
        groups=list(range(len(rows))),
        settings=FisherSettings(),
        batch_tokens=4_096,
    )
    values = np.maximum(found.values, np.finfo(np.float32).tiny)
    logs = np.stack([log_embedding(row[None], blocks=found.blocks) for row in values])
    index_of = stand_ins(logs, fit_projection(logs))
    index = build_faiss(index_of)
    recalls = []
    for number in range(0, len(rows), 10):
        best = np.argsort(-exact(logs[number], logs))[:100]
        recalls.append(np.isin(best, shortlist(index, index_of[number], count=200)).mean())
    assert np.mean(recalls) >= 0.99, np.mean(recalls)


def test_kind_follows_the_number_of_shards():
    assert index_kind(100_000) == "flat"
    assert index_kind(100_001) == "ivf"


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_one_matrix_product_finds_what_the_flat_index_does(vectors, device, monkeypatch):
    index = build_faiss(vectors, kind="flat")
    for rows in (1 << 20, 700):  # of 1,500 at a time
        monkeypatch.setattr("curate.ranking.index.PRODUCT_ROWS", rows)
        for number in (3, 900):
            wanted = shortlist(index, vectors[number], count=200)
            found = shortlist_by_product(vectors, vectors[number], count=200, device=device)
            products = vectors[[wanted, found]] @ vectors[number]
            np.testing.assert_allclose(products[1], products[0], atol=1e-5)
            assert found[0] == number


def test_a_gpu_is_what_the_user_names_or_what_torch_finds(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [find_gpu(name) for name in ("auto", "cuda:1", "cpu")] == ["cuda", "cuda:1", ""]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert find_gpu("auto") == ""


def test_a_shortlist_is_no_longer_than_the_corpus(logs):
    vectors = stand_ins(logs[:7], fit_projection(logs[:7]))
    assert len(shortlist_by_product(vectors, vectors[3], count=100, device="cpu")) == 7
    found = shortlist(build_faiss(vectors), vectors[3], count=100)
    assert sorted(found) == list(range(7))
    assert found[0] == 3


def test_the_cache_is_rebuilt_when_it_or_the_vectors_change(tmp_path, logs):
    vectors = stand_ins(logs[:60], fit_projection(logs[:60]))
    path = tmp_path / "cache.faiss"
    first = shortlist(open_faiss(path, vectors), vectors[0], count=5)
    written = path.read_bytes()
    np.testing.assert_array_equal(shortlist(open_faiss(path, vectors), vectors[0], count=5), first)
    path.write_bytes(written[: len(written) // 2])
    np.testing.assert_array_equal(shortlist(open_faiss(path, vectors), vectors[0], count=5), first)
    assert path.read_bytes() == written
    assert open_faiss(path, vectors[:30]).ntotal == 30


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match="matrix"):
        build_faiss(np.full((3, 4), np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match="log embeddings"):
        fit_projection(np.zeros((0, 5)))


def test_the_shortlist_follows_added_and_removed_shards(tmp_path):
    """What is published for one index serves no other: neither its shards nor its numbers."""
    rng = np.random.default_rng(3)
    stacks = {f"k{n}": np.exp(rng.normal(size=(2, 24)).astype(np.float32)) for n in range(70)}
    blocks = (RowBlock("w", 0, "w", 0, 24),)
    read = []

    def ask(keys, wanted):
        index = SimpleNamespace(
            fingerprint=fingerprint(keys=keys),
            shards=[SimpleNamespace(key=key) for key in keys],
            blocks=blocks,
        )
        read.clear()
        found = find_candidates(
            index, stacks[wanted], load=lambda key: read.append(key) or stacks[key], count=3,
            workspace=tmp_path, seed=0, notify=silent,
        )  # fmt: skip
        assert open_faiss(
            tmp_path / "ranking" / "shortlist" / "stand_ins.faiss",
            load_file(tmp_path / "ranking" / "shortlist" / "stand_ins.safetensors")["vectors"],
        ).ntotal == len(keys)
        return [keys[number] for number in found]

    keys = [f"k{n}" for n in range(60)]
    assert ask(keys, "k7")[0] == "k7"
    assert ask(keys, "k9")[0] == "k9" and read == []  # the same index is not read again
    changed = [*keys[20:50], "k65", *keys[:7], *keys[8:20]]  # k7 and the last ten gone, one new
    assert ask(changed, "k65")[0] == "k65" and set(read) == set(changed)
    assert "k7" not in ask(changed, "k7")
    assert ask(keys, "k7")[0] == "k7"
