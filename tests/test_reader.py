import bz2
import errno
import gzip
import io
import lzma
import os
import random
import shutil
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.corpus import columns, containers, fields, inputs, ipc, json_rows, reader
from curate.corpus.fields import parse_template
from curate.corpus.inputs import InputFile, find_inputs
from curate.corpus.ledger import LedgerBuilder, check_disk, check_ledgers, disk_refused
from curate.corpus.reader import check_inputs, read_documents, read_labelled
from curate.errors import REJECTED, CurateError
from curate.records import FileLedger
from curate.store.meta import kind_of, publish_meta

NOISE = random.Random(0)
TEXTS = [f"document {n} says ü, \u2028 and {'x' * n}" for n in range(50)]
PACK = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
    ".bz2": bz2.compress,
    ".xz": lambda data: lzma.compress(data, preset=0),
}


def lines(texts=TEXTS):
    return b"".join(msgspec.json.encode({"id": f"d{n}", "text": t}) + b"\n"
                    for n, t in enumerate(texts))  # fmt: skip


def read(path, text="text", **range_):
    ledger = LedgerBuilder()
    file = InputFile(path=path, source="s")
    documents = list(read_documents(file, text=text, ledger=ledger, **range_))
    account = ledger.finish()
    assert account.seen == account.accepted + sum(account.rejected.values())
    assert account.accepted == len(documents)
    return documents, account


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("ending", PACK)
def test_json_lines_are_read_in_every_compression(tmp_path, ending):
    documents, account = read(write(tmp_path / f"a.jsonl{ending}", PACK[ending](lines())))
    assert [document.text for document in documents] == TEXTS
    assert [document.id for document in documents] == [f"d{n}" for n in range(50)]
    assert [document.record for document in documents] == list(range(50))
    assert len({document.file_digest for document in documents}) == 1
    assert (account.seen, account.rejected, account.error) == (50, {}, "")


def test_the_format_is_told_by_the_bytes_and_not_by_the_name(tmp_path):
    zipped = write(tmp_path / "a.jsonl", gzip.compress(lines()))
    assert [d.text for d in read(zipped)[0]] == TEXTS
    plain = write(tmp_path / "a.jsonl.zst", lines())
    assert [d.text for d in read(plain)[0]] == TEXTS
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "b.jsonl")
    assert [d.text for d in read(tmp_path / "b.jsonl")[0]] == TEXTS


UNPACKED_TOGETHER = {".gz": 8_000, ".zst": 140_000, ".bz2": 920_000, ".xz": 80_000}


@pytest.mark.parametrize("ending", [".gz", ".zst", ".bz2", ".xz"])
@pytest.mark.parametrize("keep", [0.5, 0.9, -3])
def test_a_cut_stream_is_an_error_and_what_came_before_is_salvaged(tmp_path, ending, keep):
    noise = [f"{n} {NOISE.getrandbits(2000):x}" for n in range(4000)]
    packed = PACK[ending](lines(noise))
    cut = packed[: int(len(packed) * keep) if keep > 0 else keep]
    documents, account = read(write(tmp_path / f"a.jsonl{ending}", cut))
    assert account.error
    assert [d.text for d in documents] == noise[: len(documents)]
    share = keep if keep > 0 else 1.0
    lost = len(noise) * share - len(documents)
    assert lost * 517 < UNPACKED_TOGETHER[ending]  # bytes a line
    assert set(account.rejected) <= {"truncated"}
    assert check_ledgers([account], 1.0).exit_code == REJECTED


BAD_LINES = [
    (b'{"text": "half', "bad_json"),
    (b'{"text": "\xff\xfe"}', "bad_utf8"),
    (b'{"text": "\xff', "bad_utf8"),
    (b'{"text": NaN}', "bad_json"),
    (b'{"text": "\\ud800"}', "bad_json"),
    (b'{"body": "x"}', "missing_field"),
    (b'{"text": null}', "null"),
    (b'{"text": 7}', "wrong_type"),
    (b'["text"]', "wrong_type"),
    (b'{"text": " \\n "}', "empty"),
    (b'{"text": ""}', "empty"),
    (b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b', "text": "x"}', "too_deep"),
    (b"\x00" * 40, "bad_json"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_bad_document_is_rejected_alone_and_for_its_reason(tmp_path, line, reason):
    good = lines().split(b"\n")[:-1]
    data = b"\n".join([*good[:20], line, *good[20:]]) + b"\n"
    documents, account = read(write(tmp_path / "a.jsonl", data))
    assert [d.text for d in documents] == TEXTS
    assert [d.record for d in documents] == [*range(20), *range(21, 51)]
    assert account.rejected == {reason: 1}
    assert account.error == ""


def test_a_long_line_is_passed_over_without_being_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "MAX_RECORD_BYTES", 200_000)
    data = lines(["a"]) + lines(["b" * 3_000_000]) + lines(["c"])
    documents, account = read(write(tmp_path / "a.jsonl", data))
    assert [d.text for d in documents] == ["a", "c"]
    assert account.rejected == {"too_long": 1}


def test_blank_lines_and_the_byte_order_mark_are_no_records(tmp_path):
    data = b"\xef\xbb\xbf" + lines().replace(b"\n", b"\r\n\n  \n")
    documents, account = read(write(tmp_path / "a.jsonl", data))
    assert [d.text for d in documents] == TEXTS
    assert account.seen == 50


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "lfs_pointer"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "html_page"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.parquet", "a.csv"])
def test_what_is_not_the_data_is_said_to_be_so(tmp_path, head, reason, name):
    documents, account = read(write(tmp_path / name, head))
    assert documents == []
    assert account.rejected == {reason: 1}
    assert account.error


def test_an_unpacking_bomb_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "RATIO_FROM_BYTES", 1_000_000)
    packed = PACK[".zst"](b"\n" * 15_000_000)
    documents, account = read(write(tmp_path / "a.jsonl.zst", packed))
    assert (documents, account.error) == ([], "unpacks to more than 1000 times its size")


def test_parquet_rows_keep_their_number_and_id(tmp_path):
    table = pa.table({"id": [f"d{n}" for n in range(50)], "n": list(range(50)), "text": TEXTS})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    documents, _ = read(tmp_path / "a.parquet")
    assert [(d.id, d.record, d.text) for d in documents] == [
        (f"d{n}", n, text) for n, text in enumerate(TEXTS)
    ]
    assert [d.record for d in read(tmp_path / "a.parquet", start=9, stop=12)[0]] == [9, 10, 11]
    assert read(tmp_path / "a.parquet", text="body")[1].rejected == {"missing_field": 50}
    assert read(tmp_path / "a.parquet", text="n")[1].rejected == {"wrong_type": 50}


def test_a_null_and_bad_bytes_in_parquet_reject_their_row(tmp_path):
    raw = pa.array([b"good", None, b"\xff\xff", b"fine"], type=pa.binary())
    pq.write_table(pa.table({"text": raw.view(pa.string())}), tmp_path / "a.parquet")
    documents, account = read(tmp_path / "a.parquet")
    assert [d.text for d in documents] == ["good", "fine"]
    assert account.rejected == {"null": 1, "bad_utf8": 1}


def test_a_damaged_parquet_file_is_an_error(tmp_path):
    table = pa.table({"text": TEXTS * 100})
    pq.write_table(table, tmp_path / "a.parquet", write_page_checksum=True, compression="none")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    for place, damaged in (("cut", data[:-100]), ("flip", data[:500] + b"#" + data[501:])):
        _, account = read(write(tmp_path / f"{place}.parquet", bytes(damaged)))
        assert account.error, place


@pytest.mark.parametrize("opener", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow_files_and_streams_are_read(tmp_path, opener):
    table = pa.table({"text": TEXTS})
    with opener(str(tmp_path / "a.arrow"), table.schema) as sink:
        sink.write_table(table, max_chunksize=9)
    assert [d.text for d in read(tmp_path / "a.arrow")[0]] == TEXTS


def test_csv_with_quotes_and_line_ends_in_a_field(tmp_path):
    data = b'id,text\n1,"a, ""b""\nc"\n2,plain\n3\n'
    documents, account = read(write(tmp_path / "a.csv", data))
    assert [d.text for d in documents] == ['a, "b"\nc', "plain"]
    assert account.rejected == {"wrong_columns": 1}
    tabbed, _ = read(write(tmp_path / "a.tsv", b"text\tn\nx, y\t1\n"))
    assert [d.text for d in tabbed] == ["x, y"]
    bad, account = read(write(tmp_path / "b.csv", b"text,n\n\xff,1\nok,2\n"))
    assert ([d.text for d in bad], account.rejected) == (["ok"], {"bad_utf8": 1})
    _, account = read(write(tmp_path / "c.csv", b'text,n\nx,1\n"open,2\n'))
    assert account.error


def test_a_folder_that_cannot_be_looked_into_is_said(tmp_path, monkeypatch):
    (tmp_path / "in" / "closed").mkdir(parents=True)
    write(tmp_path / "in" / "a.jsonl", lines())
    write(tmp_path / "in" / "closed" / "b.jsonl", lines())
    plain = os.scandir

    def scandir(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(CurateError, match="closed: Permission denied; make it readable"):
        find_inputs([str(tmp_path / "in")], workspace=tmp_path / "w")


def test_an_input_without_a_name_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", lines())
    with pytest.raises(CurateError, match="an input without a name"):
        find_inputs([""], workspace=tmp_path / "w")
    with pytest.raises(CurateError, match="~nobody-of-that-name/a: no such file"):
        find_inputs(["~nobody-of-that-name/a"], workspace=tmp_path / "w")


def test_blank_lines_between_quotes_are_text_and_others_no_record(tmp_path):
    data = b'\n  \nid,text\n1,"one\n\n  \ntwo"\n\n \t\n2,"\n\nthree"\n3,\n\n'
    for end in (b"\n", b"\r\n"):
        documents, account = read(write(tmp_path / "a.csv", data.replace(b"\n", end)))
        said = [document.text.encode().replace(end, b"\n") for document in documents]
        assert said == [b"one\n\n  \ntwo", b"\n\nthree"]
        assert (account.seen, account.rejected, account.error) == (3, {"empty": 1}, "")
    assert read(write(tmp_path / "b.tsv", b"text\tn\n\t\nx\t1"))[1].seen == 1


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_last_line_of_a_csv_needs_no_end(tmp_path, end):
    assert [d.text for d in read(write(tmp_path / "a.csv", b'text\n"a\n\nb"' + end))[0]] == [
        "a\n\nb"
    ]


def test_a_file_of_several_streams_is_read_to_its_end(tmp_path):
    half = len(TEXTS) // 2
    parts = [lines(TEXTS[:half]), lines(TEXTS[half:])]
    passed_over = b"\x5f\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"  # as pzstd begins
    between = {".gz": b"", ".bz2": b"", ".xz": bytes(8), ".zst": passed_over}
    for ending, filler in between.items():
        one, other = map(PACK[ending], parts)
        packed = (passed_over if ending == ".zst" else b"") + one + filler + other
        if ending == ".xz":
            packed += bytes(70_000 * 4)
        documents, account = read(write(tmp_path / f"a.jsonl{ending}", packed))
        assert ([d.text for d in documents], account.error) == (TEXTS, ""), ending
    assert (
        read(write(tmp_path / "a.txt.zst", passed_over + PACK[".zst"](b"word")))[0][0].text
        == "word"
    )


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2", ".zst"])
def test_what_follows_a_whole_stream_and_is_none_is_damage_and_costs_no_record(tmp_path, ending):
    packed = PACK[ending](lines()) + b"not a stream"
    documents, account = read(write(tmp_path / f"a.jsonl{ending}", packed))
    assert account.error
    assert [document.text for document in documents] == TEXTS


def test_a_second_stream_that_is_cut_is_an_error(tmp_path):
    one, other = PACK[".xz"](lines(TEXTS[:9])), PACK[".xz"](lines(TEXTS[9:]))
    for kept in (1, 11, 40, len(other) - 1):
        documents, account = read(write(tmp_path / "a.jsonl.xz", one + other[:kept]))
        assert account.error, kept
        assert [document.text for document in documents][:9] == TEXTS[:9], kept


def test_of_columns_of_one_name_the_first_is_read(tmp_path):
    columns_ = [pa.array(["a", "b"]), pa.array(["x", "y"]), pa.array(["c", "d"]), pa.array([1, 2])]
    table = pa.table(columns_, names=["text", "id", "text", "id"])
    pq.write_table(table, tmp_path / "a.parquet")
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as out,
    ):
        out.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        documents, _ = read(tmp_path / name)
        assert [(each.text, each.id) for each in documents] == [("a", "x"), ("b", "y")]


def test_a_parquet_file_without_the_field_to_group_by_keeps_its_documents(tmp_path):
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "a.parquet")
    ledger = LedgerBuilder()
    file = InputFile(tmp_path / "a.parquet", "s")
    found = list(read_labelled(file, text="text", label="lang", ledger=ledger))
    assert [(document.text, label) for document, label in found] == [("a", "")]
    assert ledger.rejected == {"null": 1}


def test_a_text_file_is_one_document_and_a_json_array_several(tmp_path):
    documents, _ = read(write(tmp_path / "a.md", b"# Title\n\nText\n"), text="body")
    assert [d.text for d in documents] == ["# Title\n\nText\n"]
    array = msgspec.json.encode([{"text": t} for t in TEXTS])
    assert [d.text for d in read(write(tmp_path / "a.json", array))[0]] == TEXTS
    assert [d.text for d in read(write(tmp_path / "b.txt", lines()))[0]] == TEXTS
    assert read(write(tmp_path / "c.txt", b"caf\xe9"))[1].rejected == {"bad_utf8": 1}


def test_a_template_joins_fields(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"q": "How many?", "n": 7}\n{"q": "And?"}\n')
    documents, account = read(path, text="Q: {q}\nA: {n}")
    assert [d.text for d in documents] == ["Q: How many?\nA: 7"]
    assert account.rejected == {"missing_field": 1}
    for wrong in ("", "{", "{a..b}", "{a[0]}", "{a!r}", "{}"):
        with pytest.raises(CurateError):
            parse_template(wrong)


def test_inputs_are_expanded_named_and_sorted(tmp_path):
    for name in ("web/b.jsonl.zst", "web/a.jsonl", "code/a.jsonl", "code/tree/x.py",
                 "code/tree/y.py", "web/README.md", "web/.hidden/z.jsonl"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lines())
    (tmp_path / "web/picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (tmp_path / "curate.toml").write_text("[mix]\n")
    skipped = []
    given = [str(tmp_path), str(tmp_path / "web/*.zst")]
    found = find_inputs(given, workspace=tmp_path / ".curate", skipped=skipped)
    assert [(file.source, file.path.name) for file in found] == [
        ("b", "b.jsonl.zst"), ("code", "x.py"), ("code", "y.py"),
        ("code-a", "a.jsonl"), ("web-a", "a.jsonl"),
    ]  # fmt: skip
    assert sorted(path.name for path in skipped) == ["README.md", "curate.toml", "picture.png"]
    for wrong in (
        [],
        ["nowhere"],
        ["no*thing"],
        [str(tmp_path / "web/picture.png")],
        ["ftp://b/c"],
    ):
        with pytest.raises(CurateError):
            find_inputs(wrong, workspace=tmp_path)


def test_a_mix_that_was_built_in_a_folder_is_not_read_with_it(tmp_path):
    """It is drawn from that corpus: read with it, every next index would count it once more."""
    mix, plain = tmp_path / "work" / "mix", tmp_path / "work" / "plain"
    for folder in (tmp_path / "work", mix / "data", plain):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{folder.name}.jsonl").write_bytes(lines())
    publish_meta(mix, kind="mix", fingerprint="f", files=[], body={})
    (plain / "meta.json").write_text('{"kind": "mix"}')  # another program's
    skipped = []
    found = find_inputs([str(tmp_path / "work")], workspace=tmp_path, skipped=skipped)
    assert [file.source for file in found] == ["meta", "plain", "work"] and skipped == [mix]
    for named in (mix, mix / "data", tmp_path / "work" / "m*x"):  # a mix that is named is read
        found = find_inputs([str(named)], workspace=tmp_path)
        assert "data" in [file.source for file in found]


@pytest.mark.parametrize(
    "pattern", ["*", "**", "**/*.jsonl", "*/*.jsonl", "?*", "*/data/*", "*/*/*"]
)
def test_a_mix_that_only_wildcards_find_is_not_read(tmp_path, monkeypatch, pattern):
    mix = tmp_path / "mix"
    for folder in (mix / "data", tmp_path / "sub" / "data"):
        folder.mkdir(parents=True)
        (folder / "a.jsonl").write_bytes(lines())
        (folder.parent / "b.jsonl").write_bytes(lines())
    publish_meta(mix, kind="mix", fingerprint="f", files=[], body={})
    for start in (f"{tmp_path}/", ""):
        monkeypatch.chdir(tmp_path)
        skipped = []
        found = find_inputs([f"{start}{pattern}"], workspace=tmp_path / "w", skipped=skipped)
        tops = {file.path.resolve().relative_to(tmp_path).parts[0] for file in found}
        assert tops == {"sub"}
        assert {path.resolve() for path in skipped} == {mix}
    monkeypatch.chdir(mix)  # it is the current folder: named, as the first path of a walk is
    assert find_inputs(["*.jsonl"], workspace=tmp_path / "w")
    assert find_inputs(["../mix/*.jsonl"], workspace=tmp_path / "w")
    shutil.rmtree(tmp_path / "sub")
    with pytest.raises(CurateError, match=r"(matches|holds) no file"):
        find_inputs([f"{tmp_path}/{pattern}"], workspace=tmp_path / "w")


def test_of_a_foreign_meta_json_only_the_beginning_is_read(tmp_path, monkeypatch):
    publish_meta(tmp_path / "mix", kind="mix", fingerprint="f", files=[], body={})
    assert kind_of(tmp_path / "mix") == "mix" and kind_of(tmp_path) == ""
    (tmp_path / "meta.json").write_bytes(b'{"text": "' + b"a" * 1000 + b'"}')
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read whole"))
    assert kind_of(tmp_path) == ""
    monkeypatch.undo()

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)  # the reader says what is wrong with it
    assert kind_of(tmp_path) == ""


def test_records_are_read_whatever_they_are_called(tmp_path):
    for name in ("licences.jsonl", "readmes.jsonl", "LICENSE", "dataset_infos.json"):
        (tmp_path / name).write_bytes(lines())
    found = find_inputs([str(tmp_path)], workspace=tmp_path)
    assert [file.source for file in found] == ["licences", "readmes"]


def test_files_that_differ_only_in_their_ending_are_two_sources(tmp_path):
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        (tmp_path / name).write_bytes(lines())
    found = inputs.find_inputs([str(tmp_path)], workspace=tmp_path)
    assert len({file.source for file in found}) == 3


def test_a_field_that_is_nowhere_is_said_before_reading(tmp_path):
    file = InputFile(path=write(tmp_path / "a.jsonl", b'{"content": "x", "id": 1}\n'), source="a")
    with pytest.raises(CurateError, match="no field text; it has content, id"):
        check_inputs([file], text="text")
    check_inputs([file], text="content")


def test_the_share_of_rejected_records_decides():
    def ledger(accepted, rejected):
        return FileLedger("p", "d", 1, accepted + rejected, accepted, {"empty": rejected})

    assert check_ledgers([ledger(999, 1)], 0.001) is None
    assert check_ledgers([ledger(998, 2)], 0.001).exit_code == REJECTED
    assert check_ledgers([ledger(99_999, 0), ledger(0, 20)], 0.001).exit_code == REJECTED
    assert check_ledgers([], 0.001) is None


@pytest.mark.parametrize(
    ("value", "setting"), [(["one", "two"], "{text}"), ({"body": "one\ntwo"}, "{text.body}")]
)
def test_a_file_of_lists_or_nested_texts_is_told_the_template_that_reads_it(
    tmp_path, value, setting
):
    path = tmp_path / "a.jsonl"
    path.write_bytes((msgspec.json.encode({"text": value}) + b"\n") * 10)
    none, account = read(path)
    assert not none
    said = str(check_ledgers([account], 0.001))
    assert "all 10 records rejected: wrong_type 10; " in said and f"'{setting}'" in said
    documents, _ = read(path, text=setting)
    texts = [document.text for document in documents]
    assert texts == ["one\ntwo"] * 10


MUTATIONS = st.tuples(
    st.sampled_from(["cut", "flip", "insert", "double", "drop"]), st.floats(0, 1), st.binary()
)


def mutated(data, mutation):
    kind, where, junk = mutation
    at = int(where * (len(data) - 1))
    match kind:
        case "cut":
            return data[:at]
        case "flip":
            return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
        case "insert":
            return data[:at] + junk + data[at:]
        case "double":
            return data[:at] + data[at // 2 :]
        case _:
            return data[:at] + data[at + 1 + len(junk) :]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    files = {f"a.jsonl{ending}": pack(lines()) for ending, pack in PACK.items()}
    files["a.csv"] = b"id,text\n" + b"".join(b'%d,"some text, %d"\n' % (n, n) for n in range(50))
    table = pa.table({"text": TEXTS})
    pq.write_table(table, folder / "p", write_page_checksum=True)
    files["a.parquet"] = (folder / "p").read_bytes()
    for name, opener in (("a.arrow", pa.ipc.new_file), ("b.arrow", pa.ipc.new_stream)):
        with opener(str(folder / name), table.schema) as sink:
            sink.write_table(table)
        files[name] = (folder / name).read_bytes()
    files["a.json"] = msgspec.json.encode([{"text": text} for text in TEXTS])
    files["a.md"] = b"some words\n" * 50
    return folder, files


@settings(max_examples=200, deadline=None)
@given(name=st.integers(0, 10), mutations=st.lists(MUTATIONS, min_size=1, max_size=3))
def test_every_record_of_a_damaged_file_is_accounted_for(originals, name, mutations):
    folder, files = originals
    chosen = sorted(files)[name]
    data = files[chosen]
    for mutation in mutations:
        data = mutated(data, mutation) if data else data
    documents, _ = read(write(folder / f"m-{chosen}", data))
    assert all(document.text for document in documents)


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20))
def test_reading_is_the_inverse_of_writing(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("w") / "a.jsonl.zst"
    write(path, PACK[".zst"](lines(texts)))
    documents, account = read(path)
    assert [d.text for d in documents] == [text for text in texts if text.strip()]
    assert account.seen == len(texts)


def test_the_caps_are_those_of_the_documentation():
    mega = 1 << 20
    assert containers.MAX_RECORD_BYTES == fields.MAX_DOCUMENT_CHARS == 64 * mega
    assert 128 * mega == json_rows.MAX_JSON_BYTES and json_rows.MAX_JSON_COMMAS == 6_000_000
    assert (1_000, 100 * mega) == (containers.MAX_RATIO, containers.RATIO_FROM_BYTES)
    assert 512 * mega == ipc.MAX_BATCH_BYTES
    assert columns.MAX_NESTED_BYTES == mega == containers.CHUNK_BYTES
    assert (16 * mega, 1024) == (columns.BATCH_BYTES, columns.BATCH_ROWS)
    assert (reader.MAX_NAME_BYTES, reader.MAX_META_BYTES, reader.MAX_LABEL) == (4096, 65_536, 100)


def test_the_head_of_a_damaged_file_is_what_could_be_read(tmp_path):
    path = tmp_path / "a.gz"
    text = b"".join(b"%d " % (number * 7919 % 10_007) for number in range(5_000))
    packed = gzip.compress(text, 1)
    path.write_bytes(packed[:-20])
    head, factor = containers.read_head(path, "gzip", limit=1000)
    assert head == text[:1000] and factor >= 1
    path.write_bytes(packed[:12] + bytes(200))
    with pytest.raises(containers.BrokenFileError):
        containers.read_head(path, "gzip", limit=1000)


def test_a_document_keeps_what_its_record_says_of_it(tmp_path):
    records = [
        {"text": "a", "id": "i", "url": "u", "meta": {"m": 1}, "metadata": {"n": 2}},
        {"text": "b", "metadata": {"n": 2}},
        {"text": "c", "meta": None, "url": 7},
    ]
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, records)))
    found = list(read_documents(InputFile(path, "x"), text="text", ledger=LedgerBuilder()))
    assert [(d.id, d.url, d.meta) for d in found] == [
        ("i", "u", '{"m":1}'), ("x:1", "", '{"n":2}'), ("x:2", "7", ""),
    ]  # fmt: skip


def test_a_template_is_a_field_only_where_nothing_stands_beside_it():
    fields_alone = {"text": True, "{text}": True, "x {text}": False, "{text} x": False,
                    "{a.b}": False, "{a}{b}": False}  # fmt: skip
    assert {text: parse_template(text).is_field for text in fields_alone} == fields_alone


def test_one_json_value_may_be_empty_and_has_as_many_parts_as_its_cap(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    for nothing in (b"[]", b"[ ]\n"):
        path.write_bytes(nothing)
        documents, account = read(path)
        assert (documents, account.seen, account.error) == ([], 0, "")
    path.write_bytes(b'[{"text": "a"}, {"text": "b"}, {"text": "c"}]')
    monkeypatch.setattr(json_rows, "MAX_JSON_COMMAS", 2)
    assert [document.text for document in read(path)[0]] == ["a", "b", "c"]
    monkeypatch.setattr(json_rows, "MAX_JSON_COMMAS", 1)
    assert read(path)[1].rejected == {"too_long": 1}


def test_a_share_of_one_takes_a_file_that_gave_nothing():
    nothing = FileLedger("x", "d", 1, 10, 0, {"empty": 10}, "")
    assert check_ledgers([nothing], 1.0) is None
    assert check_ledgers([nothing], 0.99).exit_code == REJECTED
    few = FileLedger("x", "d", 1, 9, 0, {"empty": 9}, "")
    assert "all 10 records" in str(check_ledgers([nothing], 0.5))
    assert "9 of 9 records" in str(check_ledgers([few], 0.5))


def test_an_account_goes_on_where_it_was_left():
    account = FileLedger("p", "d", 9, 5, 3, {"empty": 2}, "broken")
    builder = LedgerBuilder.of(account)
    assert builder.finish() == account
    builder.reject("null")
    builder.withdraw("duplicate")
    found = builder.finish()
    assert (found.seen, found.accepted) == (6, 2)
    assert list(found.rejected.items()) == [("duplicate", 1), ("empty", 2), ("null", 1)]
    assert account.rejected == {"empty": 2}  # as it was


def labelled(path, label, text="text", source="s"):
    ledger = LedgerBuilder()
    file = InputFile(path=path, source=source)
    found = list(read_labelled(file, text=text, ledger=ledger, label=label))
    return [(document.text, value) for document, value in found]


def test_documents_come_with_the_value_of_the_field_they_are_grouped_by(tmp_path):
    values = ["maths", " ships ", 7, 0.5, None, True, ["a"], "x" * 200, 10**99, ""]
    records = [{"text": f"{n}", "topic": value} for n, value in enumerate(values)]
    lines = b"".join(msgspec.json.encode(r) + b"\n" for r in [*records, {"text": "10"}])
    path = write(tmp_path / "a.jsonl", lines)
    wanted = ["maths", "ships", "7", "0.5", "", "", "", "x" * 100, str(10**99), "", ""]
    assert [value for _, value in labelled(path, "topic")] == wanted
    assert {value for _, value in labelled(path, "")} == {""}
    assert labelled(path, "text")[0] == ("0", "0")
    assert labelled(path, "topic", text="{topic}: {text}")[0] == ("maths: 0", "maths")
    whole = write(tmp_path / "b.md", b"words")
    assert labelled(whole, "topic", source="folder") == [("words", "folder")]
    assert labelled(whole, "", text="{a} {b}", source="folder") == [("words", "folder")]


def test_a_file_that_the_disk_refuses_is_told_from_one_that_is_broken(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = write(tmp_path / "a.jsonl", lines())
    broken = read(write(tmp_path / "b.jsonl", b"version https://git-lfs.github.com/spec/v1"))[1]
    whole = read(path)[1]
    monkeypatch.setattr(reader, "read_rows", refuse)
    refused = read(path)[1]
    assert refused.error == "Input/output error"
    assert disk_refused([whole, refused]) and disk_refused([refused, broken])
    assert not disk_refused([whole, broken]) and not disk_refused([])
    monkeypatch.setattr(reader, "read_rows", lambda *_, **__: (_ for _ in ()).throw(OSError("odd")))
    assert read(path)[1].error == "odd"


def test_a_disk_that_refuses_is_no_end_of_a_file():
    check_disk(LedgerBuilder(path="a", error="cut short"))
    with pytest.raises(CurateError, match="a: Input/output error; mend it and run the same"):
        check_disk(LedgerBuilder(path="a", error=os.strerror(errno.EIO)))


@pytest.mark.parametrize("ending", PACK)
def test_a_disk_that_refuses_in_a_packed_file_is_known(tmp_path, monkeypatch, ending):
    path = write(tmp_path / "a", PACK[ending](lines()))
    known = {".gz": "gzip", ".zst": "zstd", "": "none"}
    compression = known.get(ending, ending.removeprefix("."))

    class Refusing(io.FileIO):
        def read(self, size=-1):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        readinto = readall = read

    monkeypatch.setattr(Path, "open", lambda path, mode: Refusing(path))
    with pytest.raises(containers.BrokenFileError, match=os.strerror(errno.EIO)):
        list(containers.read_blocks(path, compression))


def test_fields_are_missing_only_where_no_file_has_them(tmp_path):
    lacking = InputFile(write(tmp_path / "a.jsonl", b'{"b": 1}\n'), "a")
    nothing = InputFile(write(tmp_path / "n.jsonl", b"[]\n"), "n")
    broken = InputFile(write(tmp_path / "b.parquet", b"no parquet"), "b")
    having = InputFile(write(tmp_path / "c.csv", b"text,n\na,1\n"), "c")
    many = {f"f{n}": 1 for n in range(14)}
    wide = InputFile(write(tmp_path / "w.jsonl", msgspec.json.encode(many)), "w")
    none = InputFile(write(tmp_path / "o.jsonl", b"{}\n"), "o")
    for files in ([], [broken], [lacking, having], [lacking, nothing], [broken, having]):
        check_inputs(files, text="text")
    with pytest.raises(CurateError, match=r"a.jsonl: no field x, text; it has b; name"):
        check_inputs([broken, lacking, wide], text="{x} {b} {text}")
    with pytest.raises(CurateError, match=r"f10, f11; name"):
        check_inputs([wide], text="text")
    with pytest.raises(CurateError, match=r"it has none; name"):
        check_inputs([none], text="text")
    with pytest.raises(CurateError, match="no field both"):
        check_inputs([having], text="{text} {both}")


def test_names_are_words_and_numbers_of_a_bounded_length():
    raw = msgspec.Raw
    told = [("a", "a"), (7, "7"), (0, "0"), (-3, "-3"), (True, ""), (0.5, ""), (None, ""),
            (["a"], ""), ("x" * 4096, "x" * 4096), ("x" * 4097, ""), (raw(b'"u"'), "u"),
            (raw(b"12"), "12"), (raw(b"[1]"), ""), (raw(b'"\xff"'), ""), (raw(b"true"), ""),
            (raw(b'"' + b"x" * 4094 + b'"'), "x" * 4094),
            (raw(b'"' + b"x" * 4095 + b'"'), "")]  # fmt: skip
    for value, wanted in told:
        assert reader.plain_name(value) == wanted, value


def test_what_describes_a_document_is_json_of_a_bounded_length():
    missing, cap = fields.MISSING, reader.MAX_META_BYTES
    told = [((missing, missing), ""), ((None, missing), ""), ((missing, None), ""),
            (({"a": 1}, {"b": 2}), '{"a":1}'), ((missing, {"b": 2}), '{"b":2}'),
            ((None, {"b": 2}), ""), ((msgspec.Raw(b"null"), missing), ""),
            ((msgspec.Raw(b'{"a": "\xff"}'), missing), ""),
            ((msgspec.Raw(b'{"a":1}'), missing), '{"a":1}'),
            (("x" * (cap - 2), missing), '"' + "x" * (cap - 2) + '"'),
            (("x" * (cap - 1), missing), "")]  # fmt: skip
    for (meta, metadata), wanted in told:
        assert reader.name_and_describe("u", meta, metadata) == ("u", wanted)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert reader.name_and_describe(missing, deep, missing) == ("", "")


def test_the_reasons_are_named_most_frequent_first():
    told = [FileLedger("a", "d", 1, 30, 0, {f"r{n}": n for n in range(1, 7)}),
            FileLedger("b", "d", 1, 30, 30, {"r1": 9})]  # fmt: skip
    said = str(check_ledgers([told[1], told[0]], 0.1))
    assert said.startswith("a: all 30 records rejected: r6 6, r5 5, r4 4, r3 3, r2 2")
    assert "r1" not in said
    both = FileLedger("c", "d", 1, 60, 30, {"r1": 10, "r6": 20})
    assert "(r6 20, r1 10), more than 10.00%" in str(check_ledgers([both], 0.1))
    broken = FileLedger("x", "d", 1, 3, 2, {"truncated": 1}, "Truncated stream")
    found = check_ledgers([told[1], broken], 1.0)
    assert found.exit_code == REJECTED
    assert str(found) == "x: Truncated stream; 2 documents were salvaged"
