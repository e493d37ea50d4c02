"""Files read in pieces by several processes give what one reading gives."""

from itertools import pairwise

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.corpus import pieces
from curate.corpus.containers import find_line
from curate.corpus.inputs import InputFile, find_inputs
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.pieces import divide_file, read_in_pieces
from curate.corpus.reader import read_documents
from curate.corpus.shards import read_shards
from curate.engine.local import run_local
from curate.settings import CorpusSettings
from tests.test_shards import encode

LINES = st.sampled_from(
    [
        b"", b"  ", b"\r", b"{", b"[1]", b'{"text": null}', b'{"text": "\xff"}', b'{"text": ""}',
        b'{"text": "one"}', b'{"text": "two", "id": "a:0"}', b'{"text": "three", "id": "own"}\r',
        '{"text": "four \u2028 lines"}'.encode(), b'{"text": "' + b"long " * 40 + b'"}',
        b'{"text": "u", "url": "http://u", "meta": {"k": 1}}',
    ]
)  # fmt: skip


def one_reading(files):
    found = []
    for file in files:
        ledger = LedgerBuilder()
        documents = list(read_documents(file, text="text", ledger=ledger))
        found.append((documents, ledger.finish()))
    return found


def in_pieces(files, workers=2):
    opened = read_in_pieces(files, text="text", workers=workers)
    return [(list(documents), ledger.finish()) for ledger, documents in opened]


@pytest.fixture(scope="module")
def here():
    """Pieces of 64 bytes, read in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", 64)
        patch.setattr(pieces, "SMALL_BYTES", 100)
        patch.setattr(pieces, "run_local", lambda function, tasks, **_: map(function, tasks))
        yield patch


@given(lines=st.lists(LINES, max_size=30), end=st.sampled_from([b"", b"\n"]), bom=st.booleans())
@settings(max_examples=60, deadline=None)
def test_lines_in_pieces_are_those_of_one_reading(here, tmp_path_factory, lines, end, bom):
    path = tmp_path_factory.mktemp("p") / "a.jsonl"
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + b"\n".join(lines) + end)
    files = [InputFile(path=path, source="a")]
    spans = divide_file(files[0])
    if spans:
        assert (spans[0][0], spans[-1][1]) == (0, path.stat().st_size)
        assert all(one[1] == other[0] for one, other in pairwise(spans))
    assert in_pieces(files) == one_reading(files)


def test_a_line_begins_where_the_one_before_ended(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"ab\n\ncd\ne")
    assert [find_line(path, n) for n in range(9)] == [0, 3, 3, 3, 4, 7, 7, 7, 8]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.parquet"
    table = pa.table(
        {
            "text": [None if n % 7 == 3 else f"text {n} " * 9 for n in range(300)],
            "id": [f"i{n}" if n % 2 else None for n in range(300)],
        }
    )
    pq.write_table(table, path, row_group_size=40, write_page_checksum=True, compression="none")
    return path


def test_row_groups_in_pieces_are_those_of_one_reading(here, rows):
    files = [InputFile(path=rows, source="rows")]
    assert len(divide_file(files[0])) == 8
    found = in_pieces(files)
    assert found == one_reading(files)
    assert found[0][1].seen == 300 and found[0][1].rejected == {"null": 43}


def test_a_range_of_rows_reads_its_row_groups_alone(rows, monkeypatch):
    file = InputFile(path=rows, source="rows")
    whole = {d.record: d for d in read_documents(file, text="text", ledger=LedgerBuilder())}
    asked = []
    real = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda self, **named: asked.append(named["row_groups"]) or real(self, **named),
    )
    for start, stop in ((0, 5), (39, 41), (90, 130), (299, 300), (300, 310), (10, 10)):
        ledger = LedgerBuilder()
        found = read_documents(file, text="text", ledger=ledger, start=start, stop=stop)
        assert list(found) == [whole[n] for n in range(start, stop) if n in whole]
        assert ledger.seen == max(0, min(stop, 300) - start)
    assert asked == [[0], [0], [1], [2], [3], [7]]


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5])
def test_damage_loses_the_same_rows_whoever_reads(here, rows, place):
    data = bytearray(rows.read_bytes())
    data[int(len(data) * place)] ^= 0xFF
    rows.write_bytes(data)
    files = [InputFile(path=rows, source="rows")]
    found = in_pieces(files)
    assert found == one_reading(files)
    assert "damaged after" in found[0][1].error
    assert found[0][1].seen % 40 == 0  # what stands in the row groups before is salvaged


def test_a_piece_that_unpacks_to_very_much_is_read_on_where_it_is_wanted(here, tmp_path):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl.zst"]
    lines = b"".join(msgspec.json.encode({"text": f"{n} " * 99}) + b"\n" for n in range(40))
    paths[0].write_bytes(lines)
    paths[1].write_bytes(pa.compress(lines, codec="zstd", asbytes=True))
    files = [InputFile(path=path, source=path.name) for path in paths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "HELD_CHARS", 300)
        patch.setattr(pieces, "PIECE_BYTES", 2_000)
        patch.setattr(pieces, "SMALL_BYTES", 100_000)
        assert in_pieces(files) == one_reading(files)


def test_shards_are_the_same_whatever_the_number_of_workers(tmp_path, rows, monkeypatch):
    """Processes, really: a large jsonl in pieces, a compressed file and a broken one."""
    monkeypatch.setattr(pieces, "run_local", run_local)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1 << 20)
    monkeypatch.setattr(pieces, "SMALL_BYTES", 1 << 10)
    folder = rows.parent
    lines = b"".join(msgspec.json.encode({"text": "word " * 200}) + b"\n" for _ in range(3_000))
    (folder / "large.jsonl").write_bytes(lines)
    (folder / "packed.jsonl.zst").write_bytes(pa.compress(lines, codec="zstd", asbytes=True))
    (folder / "cut.parquet").write_bytes(rows.read_bytes()[:-9])
    files = find_inputs([str(folder)], workspace=tmp_path)
    assert len(divide_file(next(f for f in files if f.source == "large"))) == 3
    wanted = CorpusSettings(shard_tokens=400_000)
    both = []
    for workers in (1, 2):
        ledgers = []
        parts = read_shards(files, wanted, encode=encode, ledgers=ledgers, workers=workers)
        both.append(([part.shard for part in parts], ledgers))
    assert both[0] == both[1] and len(both[0][1]) == 4
