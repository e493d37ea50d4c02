"""A look into a published mix."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.mixing.contents import LEFT_OUT, LOOKED_AT, read_contents
from curate.store.publish import publish_json
from tests.report_records import mix

KINDS = {
    "proofs": "theorem lemma proof of the algebra ring ideal module exact sequence",
    "ships": "whale captain ocean harpoon sail the ship storm deck sailor harbour",
}


def rows(number=200):
    names = list(KINDS)
    return [
        {"id": f"d{n}", "text": f"{KINDS[names[n % 2]]} {n}\n{KINDS[names[n % 2]]}",
         "source": names[n % 2], "tokens": 10}
        for n in range(number)
    ]  # fmt: skip


def published(tmp_path, form, lines, *, left_out=()):
    folder = tmp_path / form
    (folder / "data").mkdir(parents=True)
    name = f"data/part-00000.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(lines), folder / name)
    else:
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    for file in ("decontamination", "duplicates"):
        (folder / f"{file}.jsonl").write_text("")
    (folder / "duplicates.jsonl").write_text("".join(json.dumps(x) + "\n" for x in left_out))
    publish_json(folder / "manifest.json", {"files": [{"path": name}]})
    parts = tuple(
        dataclasses.replace(part, source=source)
        for part, source in zip(mix().parts, KINDS, strict=False)
    )
    return dataclasses.replace(mix(), folder=str(folder), parts=parts)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_topics_shares_and_examples_are_those_of_the_rows(tmp_path, form):
    found = read_contents(published(tmp_path, form, rows()))
    assert (found.rows, found.tokens) == (200, 2_000)
    assert [example.source for example in found.examples] == list(KINDS)
    assert sum(topic.share for topic in found.topics) == pytest.approx(1)
    shares = [topic.share for topic in found.topics]
    assert shares == sorted(shares, reverse=True)
    for topic in found.topics:
        words = KINDS[topic.example.source].split()
        assert topic.terms
        assert set(topic.terms) <= set(words), "a topic is of one kind"
    assert "\n" not in found.examples[0].text


def test_the_forms_give_the_same(tmp_path):
    one, other = (read_contents(published(tmp_path, form, rows())) for form in ("parquet", "jsonl"))
    assert one == other


def test_only_the_first_rows_are_looked_at(tmp_path):
    found = read_contents(published(tmp_path, "jsonl", rows(LOOKED_AT + 50)))
    assert found.rows == LOOKED_AT


@pytest.mark.parametrize("number", [0, 1, 15])
def test_few_rows_have_no_topics(tmp_path, number):
    found = read_contents(published(tmp_path, "jsonl", rows(number)))
    assert found.topics == ()
    assert len(found.examples) == min(number, 2)


def test_a_mix_without_text_has_nothing_to_show(tmp_path):
    empty = published(tmp_path, "ds", rows(3))
    found = read_contents(empty)
    assert (found.rows, found.examples, found.topics) == (0, (), ())


def test_some_of_each_reason_are_shown(tmp_path):
    lines = [
        {"reason": reason, "source": "s", "id": f"{reason}{n}", "of": "o", "words": "",
         "overlap": 0.9, "shard": "unread", "record": 3}
        for n in range(20) for reason in ("near", "exact")
    ]  # fmt: skip
    found = read_contents(published(tmp_path, "jsonl", rows(4), left_out=lines)).left_out
    assert [one.reason for one in found].count("near") == LEFT_OUT
    assert [one.reason for one in found].count("exact") == LEFT_OUT
