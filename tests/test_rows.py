"""Records of every format: the same rows, any range of them, and what is wrong with the others."""

import gzip
from itertools import product

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.corpus import columnar, containers, json_rows, rows
from curate.corpus.columnar import column_names, count_rows, parquet_rows
from curate.corpus.containers import BrokenFileError
from curate.corpus.fields import MISSING
from curate.corpus.formats import detect_format
from curate.corpus.rows import field_names, read_rows

RECORDS = [{"text": f"text {n}", "id": f"i{n}", "url": f"u{n}"} for n in range(25)]
ROWS = [(f"text {n}", f"i{n}", f"u{n}", MISSING, MISSING) for n in range(25)]


def write_columns(path, table, kind="arrow_file"):
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=4)
    else:
        opener = pa.ipc.new_file if kind == "arrow_file" else pa.ipc.new_stream
        with opener(str(path), table.schema) as sink:
            sink.write_table(table, max_chunksize=4)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same records in every format."""
    folder = tmp_path_factory.mktemp("formats")
    lines = b"".join(msgspec.json.encode(one) + b"\n" for one in RECORDS)
    (folder / "a.jsonl").write_bytes(lines)
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "a.json").write_bytes(msgspec.json.encode(RECORDS))
    for ending, sign in (("csv", ","), ("tsv", "\t")):
        told = [sign.join(RECORDS[0]), *(sign.join(one.values()) for one in RECORDS)]
        (folder / f"a.{ending}").write_text("\n".join(told) + "\n")
    table = pa.Table.from_pylist(RECORDS)
    for kind in ("parquet", "arrow_file", "arrow_stream"):
        write_columns(folder / f"a.{kind}", table, kind)
    return sorted(folder.iterdir())


def raw(row):
    """Decode what stands undecoded in a row."""
    return tuple(msgspec.json.decode(v) if isinstance(v, msgspec.Raw) else v for v in row)


def test_every_range_of_every_format_is_that_part_of_all(files):
    assert len(files) == 8
    for path, (start, stop) in product(
        files, [(0, None), (0, 25), (3, 9), (4, 8), (24, 99), (25, None), (30, 40), (7, 7)]
    ):
        found = read_rows(path, detect_format(path), ("text",), start=start, stop=stop)
        assert [raw(row) for row in found] == ROWS[start:stop], (path.name, start, stop)


def test_fields_are_known_before_anything_is_read(files, tmp_path):
    for path in files:
        names = None if path.name == "a.json" else ("text", "id", "url")
        assert field_names(path, detect_format(path)) == names, path.name
    told = {"x.jsonl": b"[1]\n", "y.jsonl": b'{"a": \n', "z.jsonl": b"", "e.csv": b"",
            "w.md": b"words"}  # fmt: skip
    for name, data in told.items():
        (tmp_path / name).write_bytes(data)
        wanted = () if name == "e.csv" else None
        assert field_names(tmp_path / name, detect_format(tmp_path / name)) == wanted, name


def test_a_file_that_is_one_document_is_one_row(tmp_path, monkeypatch):
    path = tmp_path / "a.md"
    path.write_text("some words")
    form = detect_format(path)
    nothing = (MISSING,) * 3
    assert list(read_rows(path, form, ("text",))) == [("some words", "a.md", *nothing)]
    assert list(read_rows(path, form, ("a", "b"))) == [
        ("some words", "some words", "a.md", *nothing)
    ]
    assert list(read_rows(path, form, ("text",), start=1)) == []
    monkeypatch.setattr(rows, "MAX_RECORD_BYTES", 10)
    assert next(iter(read_rows(path, form, ("text",))))[0] == "some words"
    monkeypatch.setattr(rows, "MAX_RECORD_BYTES", 9)
    assert list(read_rows(path, form, ("text",))) == ["too_long"]


def told(path, data, *fields):
    path.write_bytes(data)
    return [raw(r) if isinstance(r, tuple) else r
            for r in read_rows(path, detect_format(path), fields)]  # fmt: skip


def test_csv_columns_are_found_by_their_names(tmp_path):
    found = told(tmp_path / "a.csv", b"n,text,id\n1,a,x\n2,b\n3,c,y,z\n\n4,\xff,w\n", "text", "no")
    nothing = (MISSING,) * 3
    assert found == [
        ("a", MISSING, "x", *nothing), "wrong_columns", "wrong_columns",
        (b"\xff", MISSING, "w", *nothing),
    ]  # fmt: skip
    assert told(tmp_path / "b.csv", b"", "text") == []
    assert told(tmp_path / "c.csv", b"text\n", "text") == []


def test_csv_that_breaks_off_is_broken(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_bytes(b'text,n\na,1\n"b,2\n')
    found = read_rows(tmp_path / "a.csv", detect_format(tmp_path / "a.csv"), ("text",))
    assert next(found)[0] == "a"
    with pytest.raises(BrokenFileError) as caught:
        next(found)
    assert caught.value.reason == "truncated"
    monkeypatch.setattr(containers, "MAX_RECORD_BYTES", 20)
    with pytest.raises(BrokenFileError, match="a line that is too long"):
        told(tmp_path / "b.csv", b"text\n" + b"x" * 3_000_000 + b"\n", "text")


NESTED = b'{"q": "Why?", "choices": ["a", 1], "m": {"k": "v"}, "id": "i", "meta": {"x": [1]}}\n'


def test_lists_and_objects_are_taken_apart_for_a_template(tmp_path):
    found = told(tmp_path / "a.jsonl", NESTED, "q", "choices", "m")
    assert found == [("Why?", ["a", 1], {"k": "v"}, "i", MISSING, {"x": [1]}, MISSING)]
    lacking = told(tmp_path / "b.jsonl", b'{"choices": [1]}\n', "q", "choices")
    assert lacking == [(MISSING, [1], *[MISSING] * 4)]
    strange = b'{"q": [1], "choices": "\\ud800"}\n{"q": [1], "choices": "\xff"}\n{"q": [1]}{\n'
    assert told(tmp_path / "c.jsonl", strange, "q", "choices") == [
        "bad_json", "bad_utf8", "bad_json",
    ]  # fmt: skip


def test_a_list_or_object_is_taken_apart_up_to_its_cap(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_NESTED_BYTES", 9)
    lines = (
        b'{"q": ["12345"]}\n{"q": ["123456"]}\n{"q": {"a": 123}}\n{"q": ["1"], "r": "long text"}\n'
    )
    found = told(tmp_path / "a.jsonl", lines, "q", "r")
    assert [row if isinstance(row, str) else row[:2] for row in found] == [
        (["12345"], MISSING), "wrong_type", "wrong_type", (["1"], "long text"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ['we"ird', "back\\slash", "tab\there"])
def test_fields_of_any_name_are_found(tmp_path, name):
    records = [{name: "a", "id": "i", "meta": {"m": 1}}, {name: 7}, {"other": 1}, {name: ["a"]}]
    lines = b"".join(msgspec.json.encode(one) + b"\n" for one in records)
    assert told(tmp_path / "a.jsonl", lines + b"[1]\n", name) == [
        ("a", "i", MISSING, {"m": 1}, MISSING), (7, *[MISSING] * 4), (MISSING,) * 5,
        (["a"], *[MISSING] * 4), "wrong_type",
    ]  # fmt: skip


def test_one_json_value_is_held_up_to_its_cap(tmp_path, monkeypatch):
    one = b' {"text": "a",\n "id": 1}'
    nothing = (MISSING,) * 3
    assert told(tmp_path / "a.json", one, "text") == [("a", 1, *nothing)]
    monkeypatch.setattr(json_rows, "MAX_JSON_BYTES", len(one))
    assert told(tmp_path / "a.json", one, "text") == [("a", 1, *nothing)]
    monkeypatch.setattr(json_rows, "MAX_JSON_BYTES", len(one) - 1)
    with pytest.raises(BrokenFileError) as caught:
        told(tmp_path / "a.json", one, "text")
    assert caught.value.reason == "too_long"
    monkeypatch.undo()
    assert told(tmp_path / "b.json", b" \n", "text") == told(tmp_path / "c.json", b"", "text") == []
    for broken in (b'[{"text": "a"}', b"[" * 100_000):
        with pytest.raises(BrokenFileError) as caught:
            told(tmp_path / "d.json", broken, "text")
        assert caught.value.reason == "bad_json"
    mixed = b'[{"text": "a"}, 7, {"text": "b"}]'
    assert told(tmp_path / "e.json", mixed, "text")[1] == "wrong_type"


def test_rows_are_counted_without_reading_them(files, tmp_path):
    for path in files:
        form = detect_format(path)
        if form.kind in ("parquet", "arrow_file", "arrow_stream"):
            assert count_rows(path, form) == 25
            assert column_names(path, form) == ("text", "id", "url")
            data = path.read_bytes()
            cut = tmp_path / path.name
            cut.write_bytes(data[: len(data) // 2] + bytes(20))
            with pytest.raises(BrokenFileError):
                count_rows(cut, form)


def test_row_groups_of_a_part_and_rows_of_these(files):
    path = next(path for path in files if path.suffix == ".parquet")
    for span, start in product([(0, 7), (2, 5), (6, 7), (3, 3)], [0, 1, 4, 5, 11, 12, 30]):
        first, stop = 4 * span[0], min(25, 4 * span[1])
        wanted = ROWS[first:stop][start:]
        assert list(parquet_rows(path, ("text",), start, span)) == wanted, (span, start)
        none = list(parquet_rows(path, ("nothing",), start, span))
        assert none == ["missing_field"] * len(wanted), (span, start)
    assert [row[:2] for row in parquet_rows(path, ("text", "no"), 23, None)] == [
        ("text 23", MISSING), ("text 24", MISSING)
    ]  # fmt: skip


def test_damage_says_how_many_rows_came_before(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"text {n} " * 20 for n in range(40)]})
    pq.write_table(table, path, row_group_size=10, compression="none", write_page_checksum=True,
                   use_dictionary=False)  # fmt: skip
    data = bytearray(path.read_bytes())
    at = pq.read_metadata(path).row_group(2).column(0).data_page_offset
    data[at + 1_000] ^= 0xFF
    path.write_bytes(data)
    for span in (None, (1, 4)):
        found = []
        with pytest.raises(BrokenFileError, match="damaged after 20 rows: "):
            for row in parquet_rows(path, ("text",), 0, span):
                found.append(row)
        assert len(found) == (10 if span else 20)


def test_columns_that_unpack_to_very_much_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": ["x" * 50_000] * 2, "id": ["a", "b"]}), path, use_dictionary=False
    )
    of_text = pq.read_metadata(path).row_group(0).column(0)
    size, packed = of_text.total_uncompressed_size, of_text.total_compressed_size
    monkeypatch.setattr(columnar, "MAX_RATIO", 0)
    for cap, taken in ((size, True), (size - 1, False)):
        monkeypatch.setattr(columnar, "RATIO_FROM_BYTES", cap)
        assert is_read(path) == taken
    for ratio, taken in ((-(-size // packed), True), (size // packed, False)):
        monkeypatch.setattr(columnar, "MAX_RATIO", ratio)
        assert is_read(path) == taken
    monkeypatch.undo()
    for cap, taken in ((-(-size // 2), True), (size // 2 - 1, False)):
        monkeypatch.setattr(columnar, "MAX_RECORD_BYTES", cap)
        assert is_read(path) == taken
    monkeypatch.setattr(columnar, "MAX_RECORD_BYTES", 0)  # of other columns nothing is asked
    with pytest.raises(BrokenFileError, match="row group 0: longer than a document"):
        list(parquet_rows(path, ("text",), 0, None))
    only_id = pq.ParquetFile(path).metadata
    assert columnar._batch_size(only_id, ["no such column"]) == 4096


def is_read(path):
    try:
        return len(list(parquet_rows(path, ("text",), 0, None))) == 2
    except BrokenFileError:
        return False


def test_a_batch_is_as_many_rows_as_its_bytes_allow(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x" * 999] * 300, "n": [1] * 300}), path, row_group_size=100,
                   compression="none", use_dictionary=False)  # fmt: skip
    metadata = pq.read_metadata(path)
    size = sum(metadata.row_group(n).column(0).total_uncompressed_size for n in range(3))
    monkeypatch.setattr(columnar, "BATCH_BYTES", 10_000)
    assert columnar._batch_size(metadata, ["text"]) == 10_000 * 300 // size == 9
    monkeypatch.setattr(columnar, "BATCH_BYTES", 10)
    assert columnar._batch_size(metadata, ["text"]) == 1
    monkeypatch.setattr(columnar, "BATCH_BYTES", 1 << 40)
    assert columnar._batch_size(metadata, ["text"]) == 4096


@pytest.mark.parametrize("kind", ["arrow_file", "arrow_stream"])
@pytest.mark.parametrize("wide", [False, True])
def test_a_text_that_is_not_utf8_is_its_rows_fault(tmp_path, kind, wide):
    values = pa.array([b"good", b"\xff", None, b"fine"], pa.large_binary() if wide else pa.binary())
    text = values.view(pa.large_string() if wide else pa.string())
    table = pa.table({"text": text, "n": [1, 2, 3, 4]})
    path = write_columns(tmp_path / "a", table, kind)
    found = [row[0] for row in read_rows(path, detect_format(path), ("text",))]
    assert found == ["good", b"\xff", None, "fine"]
