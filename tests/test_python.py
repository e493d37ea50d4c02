"""The functions of `curate` as a caller meets them: values of the wrong kind, text for lists."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import curate
from curate.config import checked
from curate.settings import (
    CorpusSettings,
    EmbedSettings,
    MixSettings,
    RankSettings,
    Settings,
    VerifySettings,
)
from tests.page_home import home

__all__ = ["home"]  # a fixture


def test_settings_are_read_as_the_file_has_them():
    given = Settings(
        corpus=CorpusSettings(inputs=[Path("a"), "b"]),
        embed=EmbedSettings(probe=Path("model")),
        mix=MixSettings(budget="100M", holdout="1%", keep="web=20%", max_epochs=2),
    )
    found = checked(given)
    assert found.corpus.inputs == ("a", "b")
    assert found.embed.probe == "model"
    assert (found.mix.budget, found.mix.holdout) == (100_000_000, 0.01)
    assert found.mix.keep == ("web=20%",)
    assert type(found.mix.max_epochs) is float


def test_a_number_of_numpy_is_a_number():
    found = checked(Settings(mix=MixSettings(budget=np.int64(7), max_epochs=np.float32(2)))).mix
    assert (found.budget, found.max_epochs) == (7, 2.0)
    assert (type(found.budget), type(found.max_epochs)) == (int, float)


def test_settings_that_are_right_stay_as_they_are():
    assert checked(None) == Settings()
    given = Settings(corpus=CorpusSettings(inputs=("a",)), rank=RankSettings(method="task2vec"))
    assert checked(given) == given


@pytest.mark.parametrize(
    ("section", "values", "told"),
    [
        ("rank", RankSettings(method="foo"), "[rank] method: 'foo' is not one of task2vec, lex"),
        ("rank", RankSettings(measure="foo"), "[rank] measure: 'foo' is not one of scaled, late"),
        ("mix", MixSettings(selection="foo"), "[mix] selection: 'foo' is not one of auto, temp"),
        ("mix", MixSettings(budget=4e3), "[mix] budget: expected int, found 4000.0"),
        ("mix", MixSettings(keep=(1,)), "[mix] keep: expected a list of strings"),
        ("verify", VerifySettings(size="foo"), "[verify] size: 'foo' is not one of tiny, 1M"),
        ("verify", VerifySettings(seed=-1), "[verify] seed: expected 0 or more, found -1"),
        ("mix", 4_000, "[mix]: expected MixSettings, found 4000"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_before_anything_is_done(
    tmp_path, section, values, told
):
    """`measure` was published in a ranking that could not be read again, `budget` in a mix."""
    settings = dataclasses.replace(Settings(), **{section: values})
    stages = [curate.index, curate.plan, curate.rank, curate.compare, curate.build_mix]
    calls = [*stages, curate.verify, lambda **more: curate.explain("a", **more)]
    for call in calls:
        with pytest.raises(curate.CurateError) as caught:
            call(settings=settings, workspace=tmp_path / "work")
        assert told in str(caught.value)
        assert caught.value.exit_code == 2
    assert not (tmp_path / "work").exists()


def test_text_is_taken_for_a_list_of_one_and_for_a_number_of_tokens(home):
    small = Settings(corpus=CorpusSettings(inputs="corpus"), embed=EmbedSettings(batch_tokens=512))
    index = curate.index(settings=small)
    assert index.corpus.inputs == ("corpus",)
    ranking = curate.rank("target/select.jsonl")
    assert ranking.index_fingerprint == index.fingerprint
    both = curate.rank(["target/select.jsonl:2", Path("target/eval.jsonl")])
    assert both.target == "select:2+eval:1"
    side = curate.compare("target/select.jsonl", against="target/eval.jsonl")
    assert side.columns == ("select", "eval")
    mix = curate.build_mix("4k")
    assert (mix.budget, mix.tokens) == (4_000, 4_000)
    assert curate.open_artefact("mix") == mix
    assert curate.open_artefact("ranking") == ranking


def test_an_artefact_of_no_kind_is_named(tmp_path):
    with pytest.raises(curate.CurateError, match="artefact mixture: not a kind; one of index, ran"):
        curate.open_artefact("mixture", workspace=tmp_path)


def test_one_text_is_no_list_of_texts_and_any_iterable_is_one():
    probe = curate.load_probe("builtin")
    assert len(repr(probe)) < 400, "the model's layers are of no use on a screen"
    with pytest.raises(curate.CurateError, match=r"takes a list of texts, this is one: \[text\]"):
        curate.embed_texts("def f(x): return x", probe)
    texts = ["def f(x): return x", "a whale is a mammal"]
    listed = curate.embed_texts(texts, probe).vectors
    assert listed.shape[0] == 2
    assert (curate.embed_texts(iter(texts), probe).vectors == listed).all()


@pytest.mark.parametrize("address", ["workspace", "gs://bucket/folder", "s3://bucket", "s3://"])
def test_an_address_that_is_no_workspace_is_named_as_it_was_given(address):
    with pytest.raises(curate.CurateError, match=f"^{address}: a workspace is a local folder or"):
        curate.mirrored(address).__enter__()


def test_a_settings_file_may_be_named_by_text(tmp_path):
    (tmp_path / "my.toml").write_text('[mix]\nbudget = "1k"\n', encoding="utf-8")
    assert curate.read_settings(str(tmp_path / "my.toml")).mix.budget == 1_000


def test_a_notebook_elsewhere_is_told_where_its_inputs_are(home, monkeypatch):
    """It read `corpus: no such file or folder`, of an index that was there and whole."""
    small = Settings(embed=EmbedSettings(batches=2, batch_tokens=128))
    curate.index("corpus", settings=small)
    (home / "notebooks").mkdir()
    monkeypatch.chdir(home / "notebooks")
    with pytest.raises(curate.CurateError, match=r"^corpus: not in this folder but in .*run there"):
        curate.rank("../target/select.jsonl", workspace=home / ".curate")
    monkeypatch.chdir(home)
    assert curate.rank("target/select.jsonl").shards


def test_arguments_of_another_kind_are_named():
    probe = curate.load_probe("builtin")
    for call, said in (
        (lambda: curate.rank("x", settings={"rank": {}}), "expected curate.settings.Settings"),
        (lambda: curate.index(["a", "b"]), r"one by one, not as \['a', 'b'\]"),
        (lambda: curate.plan(["a", "b"]), "one by one"),
        (lambda: curate.embed_texts(["a b"], "builtin"), "takes a probe of curate.load_probe"),
        (lambda: curate.embed_texts(["a b", 7], probe), "takes texts, not 7"),
    ):
        with pytest.raises(curate.CurateError, match=said) as caught:
            call()
        assert caught.value.exit_code == 2
