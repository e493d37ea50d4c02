"""Documents in blocks, and what each is known by."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.corpus.blocks import AHEAD_BYTES, _line_parser, read_blocks
from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.prints import keep_prints, prints_name, read_prints, tabulate, write_prints
from curate.corpus.reader import read_documents
from curate.corpus.sketch import BINS, _fill_empty, sketch
from curate.corpus.words import number_words, window_values, windows_at
from curate.errors import CurateError
from curate.mixing.decontaminate import find_leaks, suspect
from curate.mixing.items import index_items
from curate.records import Document, RecordRange, Shard, ShardText
from curate.store.fingerprint import digest_file

GOOD = [{"id": f"d{n}", "text": f"text {n} " * (n % 5 + 1)} for n in range(40)]
ODD = [
    '{"id": 7, "text": "a number for a name"}', '{"text": "no name"}', '{"id": "", "text": "x"}',
    '{"id": "y", "text": ""}', '{"id": "y", "text": " \\n"}', '{"id": "y"}', "not json", "",
    '{"id": "y", "text": 3}', '{"id": ["y"], "text": "a list for a name"}', "   ",
    '{"id": "y", "text": null}', '{"id": "y", "text": "\\ud800"}', '{"text": "1"} {"text": "2"}',
    '{"id": "z", "url": {"x": 1}, "text": "an odd address"}',
    '{"id": "%s", "text": "l"}' % ("n" * 5000),
]  # fmt: skip


def write(path, kind):
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(GOOD), path)
    elif kind == "csv":
        path.write_text("id,text\n" + "".join(f"{r['id']},{r['text']}\n" for r in GOOD))
    else:
        lines = [json.dumps(row) for row in GOOD]
        if kind == "odd":
            lines = [line for pair in zip(lines, ODD, strict=False) for line in pair]
        if kind == "several":  # as many objects as lines, but not one a line
            lines[4:7] = ['{"text": "a"}{"text": "b"}', '{"text":', '"c"}']
        if kind == "nested":  # the same, and every line begins and ends as an object does
            lines[4:7] = ['{"text": "a"} {"text": "b"}', '{"meta": {"x": 1}', ', "text": "c"}']
        if kind == "nameless":
            lines = [json.dumps({"text": row["text"]}) for row in GOOD]
        if kind == "described":
            about = {"url": "u", "metadata": {"a": [1, "é"]}}
            lines[5:] = [json.dumps(row | about, ensure_ascii=False) for row in GOOD[5:]]
        ends = "\r\n" if kind == "windows" else "\n"
        path.write_bytes(ends.join([*lines, "" if kind != "several" else "{}"]).encode())


LINES = ["plain", "odd", "several", "nested", "nameless", "described", "windows"]


@pytest.mark.parametrize("kind", [*LINES, "parquet", "csv"])
@pytest.mark.parametrize("text", ["text", "{id}: {text}"])
@pytest.mark.parametrize(("start", "stop"), [(0, 100), (3, 17)])
def test_blocks_hold_the_documents_of_the_reader(tmp_path, kind, text, start, stop):
    path = tmp_path / f"x.{kind if kind in ('parquet', 'csv') else 'jsonl'}"
    write(path, kind)
    ledger, digest = LedgerBuilder(), digest_file(path)
    file = InputFile(path=path, source="s")
    wanted = list(read_documents(file, text=text, ledger=ledger, start=start, stop=stop))
    part = RecordRange(str(path), digest, start, stop)
    blocks = list(read_blocks(part, source="s", text=text))
    found = [
        row
        for b in blocks
        for row in zip(
            b.records.tolist(), b.ids, b.texts, b.about or [("", "")] * len(b.ids), strict=True
        )
    ]
    assert found == [(each.record, each.id, each.text, (each.url, each.meta)) for each in wanted]
    assert len(found) > 5 or (kind == "nameless" and "{id}" in text)
    with pytest.raises(CurateError, match="changed"):
        next(read_blocks(replace(part, file_digest="0"), source="s", text=text))


def test_lines_larger_than_a_block_and_cut_streams_are_no_obstacle(tmp_path):
    path = tmp_path / "x.jsonl"
    texts = ["a" * 3_000_000, "b", "c" * 1_500_000, "d"]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    part = RecordRange(str(path), digest_file(path), 1, 4)
    blocks = list(read_blocks(part, source="s", text="text"))
    assert [text for block in blocks for text in block.texts] == texts[1:]
    assert [name for block in blocks for name in block.ids] == ["s:1", "s:2", "s:3"]


def test_lines_are_taken_apart_many_at_a_time_only_where_each_is_one_object():
    parse = _line_parser("text")
    good = b'{"text": "a\\n}{"}\n{"text": "b", "id": 3}\r\n {"x": {"y": {}}}'
    assert [row.f0 for row in parse(b'{"text": "a"}\n{"text": "b"}')] == ["a", "b"]
    assert parse(good) is None  # the last begins with a blank: left to the slow way
    assert [row.f1 for row in parse(good.replace(b" {", b"{"))][1] == 3
    for bad in (
        b'{"text": "a"}{"text": "b"}\n\n',
        b'{"text": "a"}{"text": "b"}\n{"text":\n"c"}\n',
        b'{"text": "a"}{"text": "b"}\n{"x": {}\n,"text": "c"}\n',
        b'{"text": "a"} {"text": "b"}\n{"x":\n{}}\n',
        b'{"text": 3}\n',
        b'{"text": "a"}\n\n{"text": "b"}\n',
        b"",
    ):
        assert parse(bad) is None
    assert _line_parser('a"b') is None


def test_a_packed_file_is_read_ahead_to_the_same_documents(tmp_path):
    rng = np.random.default_rng(0)
    rows = [json.dumps({"text": rng.bytes(400).hex()}) + "\n" for _ in range(6_000)]
    (tmp_path / "x.jsonl").write_text("".join(rows))
    with pa.output_stream(str(tmp_path / "x.jsonl.gz"), compression="gzip") as stream:
        stream.write("".join(rows).encode())
    plain, packed = (
        [
            text
            for block in read_blocks(
                RecordRange(str(path), digest_file(path), 7, 5_000), source="s", text="text"
            )
            for text in block.texts
        ]
        for path in (tmp_path / "x.jsonl", tmp_path / "x.jsonl.gz")
    )
    assert (tmp_path / "x.jsonl.gz").stat().st_size > AHEAD_BYTES
    assert plain == packed and len(plain) == 4_993


def make_shard(path, n, *, grouped=False):
    digest = digest_file(path)
    ranges = (RecordRange(str(path), digest, 0, 20), RecordRange(str(path), digest, 25, n))
    return Shard("s", "s", ranges, n - 5, 100, "digest", grouped)


def test_prints_are_the_same_from_the_index_and_from_the_files(tmp_path):
    path = tmp_path / "x.jsonl"
    write(path, "plain")
    shard = make_shard(path, 40)
    blocks = [
        (n, block)
        for n, part in enumerate(shard.ranges)
        for block in read_blocks(part, source="s", text="text")
    ]
    documents = tuple(
        Document(text, name, "s", shard.ranges[0].file_digest, record)
        for _, block in blocks
        for record, name, text in zip(block.records.tolist(), block.ids, block.texts, strict=True)
    )
    kept = keep_prints(tmp_path / "index", ShardText(shard, documents, ()), setting="text")
    assert kept.name == prints_name(shard, text="text") != prints_name(shard, text="body")
    write_prints(tmp_path / "made.arrows", [tabulate(n, block) for n, block in blocks])
    assert kept.read_bytes() == (tmp_path / "made.arrows").read_bytes()
    found = read_prints(kept)
    assert found.record.tolist() == [*range(20), *range(25, 40)]
    assert found.file.tolist() == [0] * 20 + [1] * 15
    words = number_words([document.text for document in documents])
    assert found.bounds.tolist() == words.bounds.tolist()
    assert (found.codes == words.values >> np.uint64(48)).all()
    for column, wanted in zip(
        (found.value, found.signature, found.shingles), sketch(words), strict=True
    ):
        assert (column == wanted).all()
    assert found.ids.to_pylist() == [document.id for document in documents]
    assert found.homes.null_count == 35


def test_windows_are_numbered_alike_one_by_one_and_all_at_once():
    codes = np.random.default_rng(0).integers(0, 1 << 16, 500).astype(np.uint16)
    for length in (2, 6, 13):
        whole = window_values(codes.astype(np.uint64), length)
        places = np.array([0, 7, 499 - length + 1])
        assert windows_at(codes, places, length).tolist() == whole[places].tolist()


@pytest.mark.parametrize("ngram", [2, 3, 5, 13])
def test_every_leak_is_suspect_by_codes_alone_and_little_else(ngram):
    rng = np.random.default_rng(ngram)
    vocabulary = [f"word{n}" for n in range(3000)]
    items = [" ".join(rng.choice(vocabulary, rng.integers(4, 40))) for _ in range(60)]
    texts = [" ".join(rng.choice(vocabulary, 300)) for _ in range(60)]
    for number in range(0, 60, 3):
        words = items[number].split()
        if number % 2 and len(words) > 13:
            words[int(rng.integers(len(words)))] = "zebra"
        texts[number] = f"{texts[number][:500]} {' '.join(words)} {texts[number][500:]}"
    index, words = index_items({"eval": items}, ngram=ngram), number_words(texts)
    codes = (words.values >> np.uint64(48)).astype(np.uint16)
    leaks = [n for n, leak in enumerate(find_leaks(texts, index)) if leak]
    assert set(leaks) <= set(suspect(codes, words.bounds, index))
    assert len(suspect(codes, words.bounds, index)) <= len(leaks) + 1
    assert set(leaks) >= set(range(0, 60, 3))
    tiny = index_items({"eval": ["x = 2"]})
    assert suspect(codes, words.bounds, tiny) == list(range(60))


def test_an_empty_bin_takes_the_first_of_its_tries_that_is_not():
    rng = np.random.default_rng(0)
    tries = np.stack([rng.integers(BINS, size=BINS) for _ in range(8 * BINS)])
    empty = np.uint64(0xFFFFFFFF)
    lowest = np.full((40, BINS), empty)
    for row, count in zip(lowest, range(40), strict=True):  # the first has no shingle
        row[rng.integers(0, BINS, count)] = rng.integers(0, 1 << 30, count)
    counts = (lowest != empty).sum(axis=1)
    found = _fill_empty(lowest, counts)
    for row, (before, after) in enumerate(zip(lowest, found, strict=True)):
        for place in range(BINS):
            order = [place, *tries[:, place]]
            first = next((before[b] for b in order if before[b] != empty), empty)
            assert after[place] == first, (row, place)
