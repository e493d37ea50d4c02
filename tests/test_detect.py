"""Which format a file is: by its bytes, then its name."""

import errno
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.corpus import formats
from curate.corpus.containers import BrokenFileError
from curate.corpus.formats import Format, detect_format, inner_stem, inner_suffix
from tests.test_containers import NOISE, PACK

RECORD = b'{"text": "a"}\n{"text": "b"}\n'


def detect(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return detect_format(path)


def test_containers_are_known_by_their_bytes_whatever_their_name(tmp_path):
    table = pa.table({"text": ["a"]})
    for kind, opener in (("arrow_file", pa.ipc.new_file), ("arrow_stream", pa.ipc.new_stream)):
        with opener(str(tmp_path / "a"), table.schema) as sink:
            sink.write_table(table)
        found = (tmp_path / "a").read_bytes()
        for name in ("x.jsonl", "x.arrow", "x.md", "x"):
            assert detect(tmp_path, name, found) == Format(kind, "none")
    pq.write_table(table, tmp_path / "a")
    for name in ("x.jsonl", "x.parquet", "x.md", "x"):
        found = (tmp_path / "a").read_bytes()
        assert detect(tmp_path, name, found) == Format("parquet", "none")


@pytest.mark.parametrize("compression", PACK)
def test_compressions_are_known_by_their_bytes_whatever_their_name(tmp_path, compression):
    for name in ("x.jsonl", "x.jsonl.gz", "x.ndjson.zst", "x.jsonl.xz"):
        found = detect(tmp_path, name, PACK[compression](RECORD))
        assert found == Format("jsonl", compression)


ENDINGS = {
    "jsonl": ["jsonl", "ndjson", "JSONL", "jsonl.gz", "jsonl.GZIP", "ndjson.zstd.bz2"],
    "csv": ["csv", "csv.zst", "CSV.xz"],
    "tsv": ["tsv", "tsv.bz2", "TSV"],
    "whole": ["md", "py", "txt", "vtt", "html", "HTM", "unknown", "md.gz", ""],
}


@pytest.mark.parametrize("kind", ENDINGS)
def test_text_is_told_by_its_name(tmp_path, kind):
    for ending in ENDINGS[kind]:
        assert detect(tmp_path, f"x.{ending}", b"a line\nanother\n") == Format(kind, "none"), ending


def test_text_that_begins_with_an_object_a_line_is_lines(tmp_path):
    for name in ("x.json", "x.txt", "x.text", "x", "x.unknown"):
        assert detect(tmp_path, name, RECORD).kind == "jsonl", name
        assert detect(tmp_path, name, b"\xef\xbb\xbf\n " + RECORD).kind == "jsonl", name
    for name in ("x.md", "x.py", "x.lisp"):
        assert detect(tmp_path, name, RECORD).kind == "whole", name
    for broken in (b'{\n "text": "a"\n}', b'[{"text": "a"}]', b'{"text": \xff}', b'{"a" 1}\n'):
        assert detect(tmp_path, "x.json", broken).kind == "json"
        assert detect(tmp_path, "x.txt", broken).kind == "whole"
    assert detect(tmp_path, "x.json", b'{"a": ' + b"[" * 9_000 + b"\n").kind == "json"


def test_a_first_line_longer_than_the_head_is_a_line(tmp_path):
    size = formats.HEAD_BYTES
    long = b'{"text": "' + b"x" * size
    assert detect(tmp_path, "x.json", long + b'"}\n').kind == "jsonl"
    assert detect(tmp_path, "x.json", long[:size]).kind == "jsonl"
    assert detect(tmp_path, "x.json", long[: size - 1]).kind == "json"  # seen whole: no JSON
    assert detect(tmp_path, "x.json", b"{\n" + b" " * size).kind == "json"


STRANGERS = [
    ("x.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "lfs_pointer"),
    ("x.md", b" \nVERSION https://git-lfs.github.com/spec/v1\n", "lfs_pointer"),
    ("x.jsonl", b"<!DOCTYPE HTML><p>", "html_page"),
    ("x", b"\n <html lang=en>", "html_page"),
    ("x.csv", b"\xff\xfea\x00", "bad_utf8"),
    ("x.md", b"\xfe\xff\x00a", "bad_utf8"),
    ("x.parquet", b"no parquet", ""),
    ("x.feather", b"no feather", ""),
    ("x.arrow", b"no arrow", ""),
    ("x.png", b"\x89PNG\x00", ""),
    ("x", b"a\x00b", ""),
    ("x.gz", b"", ""),
    ("x.gzip", b"", ""),
    ("x.jsonl.zst", b"", ""),
    ("x.zstd", b"", ""),
    ("x.bz2", b"", ""),
    ("x.xz", b"", ""),
    ("x.parquet", b"", ""),
    ("x.arrow", b"", ""),
    ("x.feather", b"", ""),
    ("x.gz", gzip.compress(b"PAR1" + b"x" * 90, mtime=0), ""),  # no clock in a test's name
]


@pytest.mark.parametrize(("name", "data", "reason"), STRANGERS)
def test_what_is_no_data_is_refused(tmp_path, name, data, reason):
    with pytest.raises(BrokenFileError) as caught:
        detect(tmp_path, name, data)
    assert caught.value.reason == reason


def test_what_may_look_strange_is_taken(tmp_path):
    for name in ("x.html", "x.md"):
        assert detect(tmp_path, name, b"<!doctype html><p>").kind == "whole"
    assert detect(tmp_path, "x.txt", b"a\x00b").kind == "whole"
    assert detect(tmp_path, "x.jsonl", b"a\x00b").kind == "jsonl"
    assert detect(tmp_path, "x.md", b"").kind == "whole"
    assert detect(tmp_path, "x.jsonl", b"").kind == "jsonl"
    assert detect(tmp_path, "x.md", b"\xff\xff\xff\xff").kind == "whole"  # no stream: no length
    far = b"x" * 70 + b" version https://git-lfs <html"
    assert detect(tmp_path, "x", far).kind == "whole"


def test_a_damaged_stream_is_told_by_what_unpacks(tmp_path):
    packed = gzip.compress(RECORD + NOISE[:20_000])
    assert detect(tmp_path, "x.json.gz", packed[:15_000]) == Format("jsonl", "gzip")
    with pytest.raises(BrokenFileError):
        detect(tmp_path, "x.jsonl.gz", packed[:12] + bytes(100))
    assert len(formats._head(tmp_path / "x.json.gz", "gzip")) < formats.HEAD_BYTES


def test_names_without_their_endings():
    suffixes = {"a.jsonl.zst": ".jsonl", "a.CSV.GZ": ".csv", "a.gz": "", "a": "", "a.b.md": ".md",
                "a.jsonl.gz.bz2.xz": ".jsonl"}  # fmt: skip
    assert {name: inner_suffix(Path(name)) for name in suffixes} == suffixes
    stems = {"a.jsonl.zst": "a", "a.b.CSV.gz": "a.b", "a.tar": "a.tar", "a": "a", "a.py": "a",
             "a.gz": "a", "a.jsonl.jsonl": "a.jsonl", ".jsonl": ".jsonl", "a.v1.2": "a.v1.2",
             "a.md.jsonl": "a.md", "a.": "a."}  # fmt: skip
    assert {name: inner_stem(Path(name)) for name in stems} == stems
    for ending in ("jsonl", "ndjson", "json", "csv", "tsv", "parquet", "arrow", "feather", "gz",
                   "gzip", "zst", "zstd", "bz2", "xz", "txt", "vtt"):  # fmt: skip
        assert inner_stem(Path(f"a.b.{ending}")) == "a.b", ending


def test_a_plain_file_that_the_disk_refuses_is_not_said_to_be_broken(tmp_path, monkeypatch):
    """Refused, it may be read again; broken, it would be left out for good."""
    (tmp_path / "x.jsonl").write_bytes(RECORD)

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(formats, "open_bytes", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        detect_format(tmp_path / "x.jsonl")
