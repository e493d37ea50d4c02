"""A ranking held against one that was kept."""

import dataclasses
import json

import pytest

from curate.errors import CurateError
from curate.ranking.check import check_alignment
from curate.report.comparison import check_json, check_table
from curate.report.grid import result_console
from curate.report.json_lines import ranking_json
from tests.report_records import HOSTILE, ranking


def moved(found, by, *, source=None):
    """The ranking with alignments and intervals moved, of one source or of all."""
    lines = tuple(
        dataclasses.replace(
            line, alignment=line.alignment + by, low=line.low + by, high=line.high + by
        )
        if source in (None, line.source)
        else line
        for line in found.shards
    )
    return dataclasses.replace(found, shards=lines)


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "alignment.jsonl"
    path.write_text(ranking_json(ranking()) + "\n", encoding="utf-8")
    return path


def test_the_same_ranking_did_not_fall(kept):
    check = check_alignment(ranking(), kept)
    assert not check.fell
    assert check.changes[0].source == ""
    assert check.changes[0].before == check.changes[0].after
    assert "did not fall" in repr(check)


@pytest.mark.parametrize("name", ["target", "method"])
def test_a_ranking_of_something_else_is_not_compared(kept, name):
    other = dataclasses.replace(ranking(), **{name: "ngram"})
    with pytest.raises(CurateError, match=f"kept of {name} .*, this ranking is of ngram") as caught:
        check_alignment(other, kept)
    assert caught.value.exit_code == 2


def test_a_ranking_of_an_earlier_version_does_not_say_of_what_it_is(kept):
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    for line in lines:
        del line["target"], line["method"], line["measure"]
    kept.write_text("\n".join(map(json.dumps, lines)))
    assert not check_alignment(dataclasses.replace(ranking(), method="ngram"), kept).fell


def test_a_fall_beyond_the_intervals_is_said_a_smaller_one_is_not(kept):
    wide = max(line.high - line.low for line in ranking().shards)
    assert check_alignment(moved(ranking(), -1.5 * wide), kept).fell
    assert not check_alignment(moved(ranking(), -0.1 * wide), kept).fell
    assert not check_alignment(moved(ranking(), +1.5 * wide), kept).fell


def test_one_source_that_fell_is_named(kept):
    check = check_alignment(moved(ranking(), -0.3, source="licences"), kept)
    assert [change.source for change in check.changes if change.fell] == ["licences"]
    assert "fell: licences" in check.summary()


def test_the_whole_is_the_mean_by_tokens(kept):
    lines = ranking().shards
    expected = sum(s.alignment * s.tokens for s in lines) / sum(s.tokens for s in lines)
    assert check_alignment(ranking(), kept).changes[0].after.value == pytest.approx(expected)


def test_a_bad_source_that_is_added_lowers_the_whole(kept):
    found = ranking()
    worst = dataclasses.replace(
        found.shards[-1], shard="spam", source="spam", alignment=0.0, low=0.0, high=0.01,
        tokens=100 * sum(line.tokens for line in found.shards),
    )  # fmt: skip
    check = check_alignment(dataclasses.replace(found, shards=(*found.shards, worst)), kept)
    assert check.changes[0].fell
    (new,) = (change for change in check.changes if change.source == "spam")
    assert new.before is None
    assert not new.fell


def test_a_source_that_is_gone_is_shown(kept):
    found = ranking()
    check = check_alignment(dataclasses.replace(found, shards=found.shards[1:]), kept)
    console = result_console()
    with console.capture() as capture:
        console.print(check_table(check))
    assert "gone" in capture.get()
    assert check_json(check).count("\n") == len(check.changes) - 1


@pytest.mark.parametrize(
    "content", [None, "", "not json\n", '{"shard": 1}\n', "\x00\n", '{"source": "a"}\n']
)
def test_a_file_that_is_no_ranking_is_one_clear_line(tmp_path, content):
    path = tmp_path / "kept.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CurateError, match=r"kept\.jsonl: "):
        check_alignment(ranking(), path)


@pytest.mark.parametrize("hostile", HOSTILE[:-1])
def test_names_from_data_are_shown_safely(tmp_path, hostile):
    found = ranking((hostile, "plain"), target=hostile)
    path = tmp_path / "kept.jsonl"
    path.write_text(ranking_json(found), encoding="utf-8")
    console = result_console()
    with console.capture() as capture:
        console.print(check_table(check_alignment(found, path)))
    assert "\x1b[31m" not in capture.get()
    assert "\x07" not in capture.get()
