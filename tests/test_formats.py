"""Rows to files."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.corpus.groups import GroupWriter, group_path
from curate.corpus.inputs import find_inputs
from curate.corpus.ledger import LedgerBuilder as Ledger
from curate.corpus.reader import read_documents
from curate.engine.listing import to_text
from curate.engine.run import run_items
from curate.errors import CurateError
from curate.mixing import write as write_module
from curate.mixing.card import escape
from curate.mixing.choose import Rows
from curate.mixing.draw import draw_rows
from curate.mixing.drawn import Drawn
from curate.mixing.filters import Wish
from curate.mixing.formats import Choice, write_lines
from curate.mixing.look import Look
from curate.mixing.opened import read_rows
from curate.mixing.publish import publish_files
from curate.mixing.shuffle import BY_SHARD, read_plan, write_plan
from curate.mixing.weights import Spread
from curate.mixing.write import Layout, write_files
from curate.records import RecordRange, Shard
from curate.store.fingerprint import digest_file

HARD = ["\n x", "a\r\nb\u2028c\u0085d", 'quote " \\ tab\t', "日本語 🙂 \x00", "=1+1"]


def count(texts):
    return [len(text.split()) for text in texts]


def make_shards(folder, n=60):
    """Two shards in one file, and one over two files."""
    texts = [*HARD, *(f"text {k} " * (1 + k % 7) for k in range(n - len(HARD)))]
    shards, start = [], 0
    for name, size in (("a", 40), ("b", 10), ("c", 10)):
        path = folder / f"{name}.jsonl"
        lines = [json.dumps({"id": f"{name}{k}", "text": texts[start + k]}) for k in range(size)]
        path.write_text("\n".join(lines) + "\n")
        shards.append((str(path), digest_file(path), size, texts[start : start + size]))
        start += size
    (a, da, _, ta), (b, db, _, tb), (c, dc, _, tc) = shards

    def shard(name, ranges, texts):
        return Shard(name, "s", tuple(ranges), len(texts), sum(count(texts)), name)

    return [
        shard("s-00000", [RecordRange(a, da, 0, 25)], ta[:25]),
        shard("s-00001", [RecordRange(a, da, 25, 40)], ta[25:]),
        shard("s-00002", [RecordRange(b, db, 0, 10), RecordRange(c, dc, 0, 10)], tb + tc),
    ], texts


def draw(shards, folder):
    names = tuple(shard.name for shard in shards)
    wish = Wish(
        budget=sum(shard.n_tokens for shard in shards),
        names=names,
        spread=Spread(order=np.arange(len(names))),
    )
    return draw_rows(
        dict(zip(names, shards, strict=True)),
        wish,
        Look(text="text", seed=0, count=count, counted_by="words"),
        embedding=lambda shard: None,
        read=lambda homes: [""] * len(homes),
        cut=lambda *_: (0, 0),
        folder=folder / "facts",
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Drawn, list[str]]:
    folder = tmp_path_factory.mktemp("rows")
    shards, texts = make_shards(folder)
    return draw(shards, folder), texts


def write(folder, drawn, *, part_tokens=1000, chunk_chars=1000, fmt="parquet", **settings):
    folder.mkdir()
    choices = [Choice(s.name, s.source, s.ranges, 0.5, "top: rank 1") for s in drawn.shards]
    layout = Layout(fmt, part_tokens=part_tokens, chunk_chars=chunk_chars)
    arguments = {"text": "text", "seed": 0, **settings}
    files, _ = write_files(drawn, choices, folder=folder, layout=layout, **arguments)
    return files


def contents(folder):
    files = sorted(path for path in (folder / "mix").rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in files]


@pytest.mark.parametrize("fmt", ["parquet", "jsonl"])
@pytest.mark.parametrize("part_tokens", [5000, 50])
def test_every_row_is_read_back_byte_for_byte(tmp_path, drawn, fmt, part_tokens):
    files = write(tmp_path / "x", drawn[0], fmt=fmt, part_tokens=part_tokens)
    found = list(read_rows(tmp_path / "x" / "mix", [file.path for file in files]))
    assert sorted(found) == sorted(zip(drawn[1], count(drawn[1]), strict=True))
    assert (len(files) > 1) == (part_tokens == 50)


@pytest.mark.parametrize("fmt", ["parquet", "jsonl"])
def test_neither_chunks_nor_workers_change_a_byte_but_the_seed_does(tmp_path, drawn, fmt):
    plain = write(tmp_path / "a", drawn[0], fmt=fmt, part_tokens=60)
    write(tmp_path / "b", drawn[0], fmt=fmt, part_tokens=60, chunk_chars=40)
    write(tmp_path / "c", drawn[0], fmt=fmt, part_tokens=60, seed=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")
    if fmt == "parquet":
        write(tmp_path / "d", drawn[0], fmt=fmt, part_tokens=60, workers=2)
        assert contents(tmp_path / "a") == contents(tmp_path / "d")
    assert len(plain) > 1


def test_no_work_item_carries_what_is_known_of_all_shards(tmp_path, drawn, monkeypatch):
    told = []

    def listen(function, items, **named):
        told.extend(to_text(item) for item in items)
        return run_items(function, items, **named)

    monkeypatch.setattr(write_module, "run_items", listen)
    files = write(tmp_path / "x", drawn[0], part_tokens=60)
    assert len(told) > len(files)
    assert not [text for text in told if "top: rank 1" in text]
    assert all(len(text) < 1_500 for text in told[-len(files) :])


def test_provenance_has_a_line_for_every_row_in_its_place(tmp_path, drawn):
    files = write(tmp_path / "x", drawn[0], part_tokens=60)
    mix = tmp_path / "x" / "mix"
    lines = pq.read_table(mix / "provenance.parquet").to_pylist()
    written = {file.path: pq.read_table(mix / file.path).to_pylist() for file in files}
    records = {}
    for shard in drawn[0].shards:
        for part in shard.ranges:
            rows = [
                json.loads(line) for line in Path(part.path).read_text("utf-8").split("\n") if line
            ]
            records[part.file_digest] = rows
    assert len(lines) == len(drawn[1]) == sum(file.rows for file in files)
    for line in lines:
        there = written[line["file"]][line["row"]]
        origin = records[line["file_digest"]][line["record"]]
        assert (there["id"], there["text"]) == (line["id"], origin["text"])
        assert origin["id"] == line["id"] and there["tokens"] == line["tokens"]
        assert (line["alignment"], line["reason"], line["epoch"]) == (0.5, "top: rank 1", 0)
        assert not line["cut"]


def test_regrouped_documents_are_traced_to_the_file_that_they_came_from(tmp_path):
    """Three files regrouped by a field, read as two shards of one group file."""
    origins = {}
    for name in "abc":
        path = tmp_path / "in" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        records = [
            {"id": f"{name}{k}", "text": f"text {name} {k}", "url": f"u/{k}", "meta": {"k": k}}
            for k in range(6)
        ]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        origins[digest_file(path)] = records
    files = find_inputs([str(tmp_path / "in")], workspace=tmp_path)
    documents = [d for file in files for d in read_documents(file, text="text", ledger=Ledger())]
    with GroupWriter(tmp_path / "g") as writer:
        for document in documents[::-1]:
            writer.add(0, document)
    group = group_path(tmp_path / "g", 0)
    digest, tokens = digest_file(group), count([d.text for d in documents])[0] * 9
    shards = [
        Shard(f"g-{n}", "g", (RecordRange(str(group), digest, a, b),), 9, tokens, str(n), True)
        for n, (a, b) in enumerate(((0, 9), (9, 18)))
    ]
    write(tmp_path / "x", draw(shards, tmp_path))
    lines = pq.read_table(tmp_path / "x" / "mix" / "provenance.parquet").to_pylist()
    assert len(lines) == 18
    for line in lines:
        origin = origins[line["file_digest"]][line["record"]]
        assert (line["id"], line["url"]) == (origin["id"], origin["url"])
        assert json.loads(line["meta"]) == origin["meta"]
    found = draw(shards, tmp_path).facts  # places in the group file, from which a mix is read again
    assert [sorted(facts.record.tolist()) for facts in found] == [[*range(9)], [*range(9, 18)]]


def test_parquet_pages_carry_checksums_that_find_a_flipped_bit(tmp_path, drawn):
    files = write(tmp_path / "x", drawn[0])
    path = tmp_path / "x" / "mix" / files[0].path
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"(?i)crc|checksum|corrupt|zstd|deserializ"):
        list(read_rows(tmp_path / "x" / "mix", [files[0].path]))


def test_load_dataset_opens_the_files(tmp_path, drawn):
    for fmt in ("parquet", "jsonl"):
        files = write(tmp_path / fmt, drawn[0], fmt=fmt, part_tokens=60)
        loaded = datasets.load_dataset(
            fmt if fmt == "parquet" else "json",
            data_files=[str(tmp_path / fmt / "mix" / file.path) for file in files],
            split="train",
            cache_dir=str(tmp_path / "cache"),
        )
        assert loaded.column_names == ["id", "text", "source", "tokens"]
        assert loaded.num_rows == 60


def test_a_plan_of_very_many_shards_takes_no_pass_over_all_rows_for_each(tmp_path):
    """The rows of each shard were looked for among all: 6.5 s of this, not 0.6."""
    count = 150_000
    empty, places = np.zeros(0, np.int64), np.arange(count)
    facts = [
        SimpleNamespace(number=np.array([n, n + 1]), file=np.array([0, 7]), record=np.array([5, n]))
        for n in range(count)
    ]
    ones = np.ones(count, np.int64)
    drawn = SimpleNamespace(
        facts=facts, rows=Rows(places, ones, 0 * ones, ones, -ones), held=Rows(*[empty] * 5)
    )
    start = time.process_time()
    write_plan(tmp_path / "plan.arrow", drawn, seed=3)
    assert time.process_time() - start < 4
    plan = read_plan(str(tmp_path / "plan.arrow"))
    assert sorted(plan["shard"].tolist()) == places.tolist() != plan["shard"].tolist()
    np.testing.assert_array_equal(plan["number"], plan["shard"] + 1)
    np.testing.assert_array_equal(plan["record"], plan["shard"])
    assert set(plan["file"].tolist()) == {7}
    np.testing.assert_array_equal(plan["shard"][plan[BY_SHARD]], places)


def test_rows_are_shuffled_over_all_files(tmp_path, drawn):
    write(tmp_path / "x", drawn[0], part_tokens=60)
    lines = pq.read_table(tmp_path / "x" / "mix" / "provenance.parquet").to_pylist()
    order = [int(re.sub(r"\D", "", line["id"])) for line in lines]
    assert abs(np.corrcoef(order, np.arange(60))[0, 1]) < 0.4
    first = {line["shard"] for line in lines if line["file"].endswith("00000.parquet")}
    assert len(first) == 3


def test_a_selection_names_every_record_and_copies_nothing(tmp_path, drawn):
    assert write(tmp_path / "x", drawn[0], fmt="manifest") == []
    lines = pq.read_table(tmp_path / "x" / "mix" / "selection.parquet").to_pylist()
    assert sum(line["stop"] - line["start"] for line in lines) == 60
    assert sum(line["tokens"] for line in lines) == sum(count(drawn[1]))
    assert len(lines) == 4  # runs of records: two of one file, and two files
    assert not (tmp_path / "x" / "mix" / "data").exists()


def test_lines_are_counted_and_newlines_stay_inside(tmp_path):
    assert write_lines(tmp_path / "x.jsonl", [{"a": "1\n2"}, {"b": 1}]) == 2
    assert (tmp_path / "x.jsonl").read_bytes().count(b"\n") == 2


def test_text_from_data_cannot_break_the_card():
    shown = escape("a|b`c`\n# [x](y) \x1b[31m<script>")
    assert "\n" not in shown and "\x1b" not in shown
    assert not re.search(r"(?<!\\)[|`<\[#]", shown)


def test_a_part_that_reads_back_changed_is_not_published(tmp_path):
    staging, out = tmp_path / "staging", tmp_path / "out"
    staging.mkdir()
    path = staging / "part.parquet"
    table = pa.table({"text": ["a" * 500, "b" * 500]})
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, path, write_page_checksum=True, **plain)
    data = bytearray(path.read_bytes())
    data[data.index(b"a" * 400) + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CurateError, match=r"part\.parquet: cannot be written"):
        publish_files(staging, out)
    assert list(out.iterdir()) == []


def read_mds(path):
    """Read a shard of version 2 by its description: a naive reader."""
    data = path.read_bytes()
    (count,) = np.frombuffer(data, "<u4", 1)
    offsets = np.frombuffer(data, "<u4", count + 1, 4).tolist()
    assert offsets[-1] == len(data)
    head = json.loads(data[4 + 4 * (count + 1) : offsets[0]])
    for begin in offsets[:-1]:
        fixed = head["column_sizes"]
        sizes = np.frombuffer(data, "<u4", fixed.count(None), begin).tolist()
        place, row = begin + 4 * len(sizes), {}
        for name, kind, size in zip(
            head["column_names"], head["column_encodings"], fixed, strict=True
        ):
            length = sizes.pop(0) if size is None else size
            value = data[place : place + length]
            row[name] = value.decode() if kind == "str" else int.from_bytes(value, "little")
            place += length
        yield row


def test_mds_shards_hold_the_rows_and_their_index_names_them(tmp_path, drawn):
    files = write(tmp_path / "x", drawn[0], fmt="mds", part_tokens=60)
    write(tmp_path / "y", drawn[0], fmt="parquet", part_tokens=60)
    mix = tmp_path / "x" / "mix"
    shards = json.loads((mix / "data" / "train" / "index.json").read_text())["shards"]
    assert [f"data/train/{s['raw_data']['basename']}" for s in shards] == [f.path for f in files]
    found = []
    for file, shard in zip(files, shards, strict=True):
        assert (mix / file.path).stat().st_size == shard["raw_data"]["bytes"]
        rows = list(read_mds(mix / file.path))
        assert len(rows) == shard["samples"] == file.rows
        found += rows
    parts = sorted((tmp_path / "y" / "mix" / "data").iterdir())
    assert found == [row for path in parts for row in pq.read_table(path).to_pylist()]


@pytest.mark.slow
@pytest.mark.skipif("CURATE_TRAINERS_PYTHON" not in os.environ, reason="needs mosaicml-streaming")
def test_the_reader_of_mosaicml_streaming_opens_the_shards(tmp_path, drawn):
    write(tmp_path / "x", drawn[0], fmt="mds", part_tokens=60)
    lines = (
        "import sys, json; from streaming import StreamingDataset;"
        "rows = StreamingDataset(local=sys.argv[1], split='train', batch_size=1, shuffle=False);"
        "print(json.dumps(sorted([r['text'], r['tokens']] for r in rows)))"
    )
    command = [os.environ["CURATE_TRAINERS_PYTHON"], "-c", lines, str(tmp_path / "x/mix/data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    wanted = sorted(map(list, zip(drawn[1], count(drawn[1]), strict=True)))
    assert json.loads(done.stdout.splitlines()[-1]) == wanted
