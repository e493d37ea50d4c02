"""Rows to files."""

import re

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from curate.mixing.card import escape
from curate.mixing.documents import Chosen
from curate.mixing.formats import Choice, read_rows, write_lines, write_rows
from curate.records import Document

CHOICES = {"s-00000": Choice(0.9, "top: rank 1"), "s-00001": Choice(0.5, "top: rank 2")}
HARD = ["", "\n", "a\r\nb\u2028c\u0085d", 'quote " \\ tab\t', "日本語 🙂 \x00", "=1+1"]


def make_rows(count=40):
    texts = [*HARD, *(f"text {n} " * (1 + n % 7) for n in range(count - len(HARD)))]
    return [
        Chosen(
            document=Document(text=text, id=f"d{n}", source="s", file_digest="f" * 64, record=n),
            shard=f"s-0000{n % 2}",
            text=text,
            n_tokens=len(text.split()),
            cut=n == 7,
            epoch=n // 30,
        )
        for n, text in enumerate(texts)
    ]


def write(folder, rows, **settings):
    folder.mkdir()
    arguments = {"budget": 100, "choices": CHOICES, **settings}
    return write_rows(iter(rows), folder, **arguments)


@pytest.mark.parametrize("fmt", ["parquet", "jsonl"])
@pytest.mark.parametrize("part_tokens", [1000, 20])
def test_every_row_is_read_back_byte_for_byte(tmp_path, fmt, part_tokens):
    rows = make_rows()
    files = write(tmp_path / "mix", rows, fmt=fmt, part_tokens=part_tokens)
    found = list(read_rows(tmp_path / "mix", [file.path for file in files]))
    assert sorted(found) == sorted((row.text, row.n_tokens) for row in rows)
    assert sum(file.tokens for file in files) == sum(row.n_tokens for row in rows)
    assert (len(files) > 1) == (part_tokens == 20)
    assert not (tmp_path / "mix" / "spool").exists()


@pytest.mark.parametrize("fmt", ["parquet", "jsonl"])
def test_the_same_rows_and_seed_give_the_same_bytes_and_another_seed_another_order(tmp_path, fmt):
    contents = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(tmp_path / name, make_rows(), fmt=fmt, part_tokens=30, seed=seed)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append([(str(p.relative_to(tmp_path / name)), p.read_bytes()) for p in files])
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_provenance_has_a_line_for_every_row_in_its_place(tmp_path):
    rows = {row.document.id: row for row in make_rows()}
    files = write(tmp_path / "mix", rows.values(), part_tokens=30)
    lines = pq.read_table(tmp_path / "mix" / "provenance.parquet").to_pylist()
    written = {file.path: pq.read_table(tmp_path / "mix" / file.path).to_pylist() for file in files}
    assert len(lines) == len(rows)
    for line in lines:
        row, there = rows[line["id"]], written[line["file"]][line["row"]]
        assert (there["id"], there["text"], there["tokens"]) == (line["id"], row.text, row.n_tokens)
        assert line["record"] == row.document.record and line["shard"] == row.shard
        assert line["alignment"] == CHOICES[row.shard].alignment
        assert line["reason"] == CHOICES[row.shard].reason
        assert (line["epoch"], line["cut"]) == (row.epoch, row.cut)


def test_parquet_pages_carry_checksums_that_find_a_flipped_bit(tmp_path):
    files = write(tmp_path / "mix", make_rows())
    path = tmp_path / "mix" / files[0].path
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"(?i)crc|checksum|corrupt|zstd|deserializ"):
        list(read_rows(tmp_path / "mix", [files[0].path]))


@pytest.mark.parametrize("fmt", ["parquet", "jsonl"])
def test_load_dataset_opens_the_folder(tmp_path, fmt):
    files = write(tmp_path / "mix", make_rows(), fmt=fmt, part_tokens=30)
    loaded = datasets.load_dataset(
        fmt if fmt == "parquet" else "json",
        data_files=[str(tmp_path / "mix" / file.path) for file in files],
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert loaded.column_names == ["id", "text", "source", "tokens"]
    assert loaded.num_rows == 40


def test_rows_are_shuffled(tmp_path):
    rows = make_rows(200)
    write(tmp_path / "mix", rows)
    records = pq.read_table(tmp_path / "mix" / "provenance.parquet")["record"].to_numpy()
    assert abs(np.corrcoef(records, np.arange(200))[0, 1]) < 0.3


def test_lines_are_counted_and_newlines_stay_inside(tmp_path):
    assert write_lines(tmp_path / "x.jsonl", [{"a": "1\n2"}, CHOICES["s-00000"]]) == 2
    assert (tmp_path / "x.jsonl").read_bytes().count(b"\n") == 2


def test_text_from_data_cannot_break_the_card():
    shown = escape("a|b`c`\n# [x](y) \x1b[31m<script>")
    assert "\n" not in shown and "\x1b" not in shown
    assert not re.search(r"(?<!\\)[|`<\[#]", shown)
