"""The same command gives the same bytes; what should not matter to an embedding does not."""

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from curate import stages
from curate.settings import CorpusSettings, EmbedSettings, RankSettings, Settings, TargetSettings
from curate.task2vec import embedding as engine
from curate.task2vec.embed import build_index
from curate.task2vec.probe import load_probe
from curate.task2vec.reading import load_embedding
from tests import determinism
from tests.conftest import licence_prose, numpy_docstrings, python_sources, write_jsonl

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.timeout(1_200)  # many indexes: long on a machine that others use too


def test_the_same_stages_publish_the_same_bytes(tmp_path):
    """In one place twice, so that no path differs; verification has its own test."""
    found = []
    for _ in range(2):
        shutil.rmtree(tmp_path / "job", ignore_errors=True)
        determinism.write_inputs(tmp_path / "job")
        determinism.run_job(tmp_path / "job", verify=False)
        found.append(determinism.published(tmp_path / "job"))
    assert found[0] == found[1]
    assert {"report.html", "mix/manifest.json", ".curate/index/meta.json"} <= set(found[0])


@pytest.mark.slow
def test_processes_publish_the_same_bytes_whatever_their_hashes(tmp_path):
    """Five processes, five seeds of Python's hashes, every stage and its report."""
    found = []
    for seed in (0, 1, 2, 42, 4_294_967_295):
        shutil.rmtree(tmp_path / "job", ignore_errors=True)
        done = subprocess.run(
            [sys.executable, "-m", "tests.determinism", str(tmp_path / "job")],
            capture_output=True, text=True, cwd=ROOT, check=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )  # fmt: skip
        found.append(json.loads(done.stdout))
    assert ".curate/verify/verification.json" in found[0]
    for other in found[1:]:
        assert {name: other.get(name) for name in found[0]} == found[0]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twelve shards: docstrings with more and more code in place of them, and a target."""
    folder = tmp_path_factory.mktemp("graded")
    docs, code = numpy_docstrings(), python_sources()
    for step in range(11):
        mixed = [(code if n % 10 < step else docs)[(7 * n + step) % 110] for n in range(30)]
        write_jsonl(folder / "in" / f"code-{step:02d}.jsonl", [text[:700] for text in mixed])
    write_jsonl(folder / "in" / "prose.jsonl", [text[:700] for text in licence_prose()[:30]])
    write_jsonl(folder / "target.jsonl", [text[:700] for text in docs[110:190]])
    return folder


FEW = {"code-00": 0, "code-05": 5, "prose": 11}
"""Of the twelve shards, by name and place: where the numbers are compared, not the order."""


def settings_of(corpus, *, shard_tokens=20_000, only=("*",), **embed):
    small = {"batches": 2, "batch_tokens": 1_536, "block_tokens": 64}
    inputs = tuple(str(corpus / "in" / f"{name}.jsonl") for name in only)
    return Settings(
        corpus=CorpusSettings(inputs=inputs, shard_tokens=shard_tokens),
        embed=EmbedSettings(**{**small, **embed}),
        target=TargetSettings(name=str(corpus / "target.jsonl")),
        rank=RankSettings(method="task2vec"),
    )


def vectors(corpus, place, device="cpu", **embed):
    wanted = settings_of(corpus, **embed)
    index = build_index(wanted.corpus, wanted.embed, workspace=place, device=device)
    return np.stack([load_embedding(Path(index.folder), s.key).vectors for s in index.shards])


def vectors_of_few(corpus, place):
    """A shard's numbers are its own: those of a few are found among those of all."""
    return vectors(corpus, place, only=tuple(FEW))


@pytest.fixture(scope="module")
def known(corpus, tmp_path_factory):
    """The embeddings and the order of the shards as the defaults give them."""
    place = tmp_path_factory.mktemp("known")
    found = vectors(corpus, place)
    ranking = stages.rank(settings=settings_of(corpus), workspace=place, device="cpu")
    return found[[*FEW.values()]], ranking


def cosines(one, other):
    """Return the cosine of every sub-batch of every shard, (n_shards, n_batches)."""
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return (one * other).sum(axis=-1) / lengths


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("_CPU_BATCH", 100, marks=pytest.mark.slow),
        ("_CPU_BATCH", 20_000),
        ("_MOST_PADDING", -1.0),
    ],
)
def test_an_embedding_does_not_depend_on_batch_size_or_padding(
    corpus, known, tmp_path, monkeypatch, name, value
):
    monkeypatch.setattr(engine, name, value)
    found = vectors_of_few(corpus, tmp_path)
    assert cosines(known[0], found).min() >= 0.9999
    np.testing.assert_allclose(found, known[0], rtol=0.02)


def test_an_embedding_does_not_depend_on_threads(corpus, known, tmp_path):
    torch.set_num_threads(2)
    try:
        found = vectors_of_few(corpus, tmp_path)
    finally:
        torch.set_num_threads(1)
    assert cosines(known[0], found).min() >= 0.9999


def held_against(known, other, *, top=5, ties=False):
    """Hold one order of shards against another; with `ties`, only pairs that were told apart."""
    first, second = ({s.shard: s for s in r.shards} for r in (known, other))
    pairs = [
        (first[a].alignment - first[b].alignment, second[a].alignment - second[b].alignment)
        for a, b in itertools.combinations(first, 2)
        if not ties or first[a].rank_high < first[b].rank_low
    ]
    assert len(pairs) > len(first)
    tau = np.mean([np.sign(one) * np.sign(two) for one, two in pairs])
    assert tau >= 0.99, tau
    assert ties or list(first)[:top] == list(second)[:top]


@pytest.fixture
def rough(monkeypatch):
    """From when it is called, compute in what a GPU computes in: matrices of 8 bits."""
    exact = engine.fisher_rows

    def start():
        monkeypatch.setattr(
            engine, "fisher_rows", lambda *w, **more: exact(*w, **{**more, "autocast": True})
        )

    return start


@pytest.mark.slow
def test_bfloat16_keeps_embeddings_and_order_where_labels_are_those_of_the_text(
    corpus, tmp_path, rough
):
    """Precision alone: no label is drawn."""
    found, rankings = [], []
    for place in ("exact", "rough"):
        found.append(vectors(corpus, tmp_path / place, labels="data"))
        wanted = settings_of(corpus, labels="data")
        rankings.append(stages.rank(settings=wanted, workspace=tmp_path / place, device="cpu"))
        rough()
    assert not np.array_equal(*found), "nothing was computed otherwise"
    assert cosines(*found).min() >= 0.9999
    held_against(*rankings)


def test_bfloat16_keeps_the_order_of_shards(corpus, known, tmp_path, rough):
    """Labels are drawn from other logits, and nearly all of them are the same."""
    rough()
    other = stages.rank(settings=settings_of(corpus), workspace=tmp_path, device="cpu")
    assert known[1].shards != other.shards, "nothing was computed otherwise"
    held_against(known[1], other)


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """Six shards of docstrings and six of code: within a kind nearly tied."""
    folder = tmp_path_factory.mktemp("tied")
    docs, code = numpy_docstrings(), python_sources()
    for name, texts in (("docs", docs), ("code", code)):
        for part in range(6):
            chosen = [text[:700] for text in texts[18 * part : 18 * part + 18]]
            write_jsonl(folder / "in" / f"{name}-{part}.jsonl", chosen)
    write_jsonl(folder / "target.jsonl", [text[:700] for text in docs[110:190]])
    return folder


FOUR = {"batches": 4, "batch_tokens": 768, "block_tokens": 128}  # two give no intervals


def order_of(tied, place, device):
    settings = settings_of(tied, shard_tokens=200_000, **FOUR)
    return stages.rank(settings=settings, workspace=place, device=device)


@pytest.mark.slow
def test_bfloat16_keeps_the_order_of_nearly_tied_shards_that_were_told_apart(tied, tmp_path, rough):
    exact = order_of(tied, tmp_path / "exact", "cpu")
    rough()
    held_against(exact, order_of(tied, tmp_path / "rough", "cpu"), ties=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_keeps_the_order_of_shards(corpus, known, tmp_path):
    settings = settings_of(corpus)
    held_against(known[1], stages.rank(settings=settings, workspace=tmp_path, device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_keeps_the_order_of_nearly_tied_shards_that_were_told_apart(tied, tmp_path):
    exact = order_of(tied, tmp_path / "cpu", "cpu")
    held_against(exact, order_of(tied, tmp_path / "gpu", "cuda"), ties=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_keeps_embeddings_where_labels_are_those_of_the_text(corpus, tmp_path):
    found = [vectors(corpus, tmp_path / d, device=d, labels="data") for d in ("cpu", "cuda")]
    assert cosines(*found).min() >= 0.999


def test_a_revision_of_settings_is_another_artefact(corpus, known, tmp_path):
    """The comparison above would be empty if an index were taken from elsewhere."""
    wanted = settings_of(corpus, only=tuple(FEW))
    other = dataclasses.replace(wanted.embed, seed=1)
    index = build_index(wanted.corpus, other, workspace=tmp_path, device="cpu")
    found = np.stack([load_embedding(Path(index.folder), s.key).vectors for s in index.shards])
    assert not np.array_equal(found, known[0])
    assert load_probe("builtin", device="cpu").info == index.probe
