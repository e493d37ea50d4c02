"""Every reason for which a record is rejected, and broken containers, through `curate index`."""

import bz2
import gzip
import json
import lzma
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from curate.cli import main
from curate.corpus import containers
from curate.task2vec.reading import open_index

RNG = random.Random(0)
GOOD = [json.dumps({"text": f"document {n} {RNG.getrandbits(400):x}"}) for n in range(120)]
RECORDS = {
    "bad_json": b'{"text": "half',
    "bad_utf8": b'{"text": "\xff\xfe"}',
    "empty": b'{"text": " "}',
    "missing_field": b'{"body": "x"}',
    "null": b'{"text": null}',
    "too_deep": b'{"a": ' + b"[" * 60_000 + b"]" * 60_000 + b', "text": "x"}',
    "too_long": b'{"text": "' + b"x" * 3_000_000 + b'"}',
    "wrong_type": b'{"text": 7}',
}
FILES = {
    "html_page": ("page.jsonl", b"<!DOCTYPE html><html><body>404</body></html>"),
    "lfs_pointer": ("lfs.jsonl", b"version https://git-lfs.github.com/spec/v1\nsize 9\n"),
    "truncated": ("cut.md.gz", gzip.compress("\n".join(GOOD).encode())[:-400]),
}


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def index(tmp_path, *words):
    small = ("--batches", 2, "--batch-tokens", 64, "--workspace", tmp_path / "w")
    return run("index", tmp_path / "data", *small, *words)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def ledgers(tmp_path):
    """The published account of each file, by the file's name."""
    return {Path(ledger.path).name: ledger for ledger in open_index(tmp_path / "w").ledgers}


def test_every_reason_is_counted_printed_and_published_and_decides_the_exit_code(
    tmp_path, data, monkeypatch
):
    monkeypatch.setattr(containers, "MAX_RECORD_BYTES", 200_000)
    lines = [*(line.encode() for line in GOOD), *RECORDS.values()]
    (data / "a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (data / "b.csv").write_text("text,id\na row of words,1\ntoo,many,fields\n")
    allowed = index(tmp_path, "--max-rejected", "10%")
    assert allowed.exit_code == 0, allowed.output
    for reason in (*RECORDS, "wrong_columns"):
        assert f"  {reason}: 1" in allowed.output
    assert "130 records seen, 121 accepted, 9 rejected" in allowed.output
    refused = index(tmp_path, "--max-rejected", "5%")
    assert refused.exit_code == 3
    assert "9 of 130 records rejected" in refused.stderr and "more than 5.00%" in refused.stderr
    assert index(tmp_path, "--max-rejected", 0.07).exit_code == 0
    assert ledgers(tmp_path)["a.jsonl"].rejected == dict.fromkeys(sorted(RECORDS), 1)


def test_a_share_is_between_nothing_and_all(tmp_path):
    for wrong in ("120%", "-1%", "many"):
        found = run("index", tmp_path, "--max-rejected", wrong)
        assert found.exit_code == 2
        assert f"'{wrong}' is not a share such as 1% or 0.01" in found.stderr


def test_broken_containers_are_named_with_what_was_salvaged(tmp_path, data):
    packed = "\n".join(GOOD).encode() + b"\n"
    table = pa.table({"text": [json.loads(line)["text"] for line in GOOD]})
    pq.write_table(table, tmp_path / "whole.parquet", row_group_size=40, compression="zstd",
                   write_page_checksum=True)  # fmt: skip
    column = pq.read_metadata(tmp_path / "whole.parquet").row_group(1).column(0)
    parquet = bytearray((tmp_path / "whole.parquet").read_bytes())
    parquet[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    broken = {
        "p.parquet": (bytes(parquet), 40),  # its first row group
        "x.jsonl.xz": (lzma.compress(packed)[:-60], 110),
        "g.jsonl.gz": (gzip.compress(packed)[:-60], 110),
        "b.jsonl.bz2": (bz2.compress(packed)[:-60], 0),  # one block holds all of it
        "z.jsonl.zst": (pa.compress(packed, codec="zstd", asbytes=True)[:-60], 0),
    }
    for name, (content, _) in broken.items():
        (data / name).write_bytes(content)
    for name, content in FILES.values():
        (data / name).write_bytes(content)
    (data / "good.jsonl").write_bytes(packed)
    found = index(tmp_path, "--max-rejected", "100%")
    assert found.exit_code == 3  # whatever share of records may be rejected
    account = ledgers(tmp_path)
    assert account["good.jsonl"].accepted == 120 and not account["good.jsonl"].error
    for name, (_, at_least) in broken.items():
        one = account[name]
        assert one.error and name in found.output
        assert one.accepted >= at_least, one
        assert one.seen == one.accepted + sum(one.rejected.values())
    for reason, (name, _) in FILES.items():
        assert account[name].rejected == {reason: 1} and account[name].error
    assert "documents were salvaged" in found.stderr
    indexed = sum(entry.shard.n_documents for entry in open_index(tmp_path / "w").shards)
    assert indexed == sum(one.accepted for one in account.values())
