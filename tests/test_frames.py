"""Results in a notebook and in pandas."""

import builtins

import pytest

from curate.errors import CurateError
from tests.report_records import HOSTILE, comparison, index, mix, ranking, verification

RESULTS = {
    "index": index, "ranking": ranking, "comparison": comparison, "mix": mix,
    "verification": verification,
}  # fmt: skip


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_becomes_a_frame_with_a_row_for_each_line(kind):
    result = RESULTS[kind]()
    frame = result.to_pandas()
    lines = {"mix": "parts", "verification": "arms"}.get(kind, "shards")
    assert len(frame) == len(getattr(result, lines)) > 0
    assert list(frame.columns) == list(result.to_rows()[0])


def test_the_frame_keeps_order_values_and_types():
    frame = ranking().to_pandas()
    assert frame["alignment"].tolist() == [line.alignment for line in ranking().shards]
    assert frame["alignment"].dtype == "float64"
    assert frame["rank"].tolist() == list(range(1, len(frame) + 1))
    losses = verification().to_pandas()["loss"]
    assert losses.is_monotonic_increasing
    assert comparison().to_pandas()["gsm8k"].tolist() == list(comparison().values[1])


@pytest.mark.parametrize("kind", RESULTS)
def test_a_repr_is_one_line_that_tells_something(kind):
    line = repr(RESULTS[kind]())
    assert "\n" not in line
    assert 20 < len(line) < 400
    assert line.startswith(f"<{type(RESULTS[kind]()).__name__}: ")


def test_a_repr_names_the_best_and_the_verdict():
    assert "15 shards by task2vec for scipy-held-out: scipy-docstrings 0." in repr(ranking())
    assert "<Verification: confirmed: Training on the mix lowers" in repr(verification())
    assert "forecast drop +0.350 nats/token" in repr(mix())
    assert repr(index(("a",))) == "<Index: 1 shard, 60,000 tokens, probe builtin>"
    assert "<Ranking: 1 shard by task2vec for" in repr(ranking(("a",)))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_from_data_is_safe_in_a_notebook(hostile):
    found = ranking((hostile, "plain"), target=hostile)
    for text in (repr(found), found._repr_html_()):
        for bad in ("\x1b", "\x07", "\x9b", "\u202e", "\u200b", "\ud800", "<script", "<img"):
            assert bad not in text or (bad.startswith("<") and text == repr(found))


def test_a_long_table_is_cut_and_says_so():
    found = ranking(tuple(f"shard-{n}" for n in range(100)))._repr_html_()
    assert found.count("<tr>") == 61
    assert "40 more rows" in found


def test_without_pandas_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CurateError, match="pip install pandas"):
        ranking().to_pandas()
