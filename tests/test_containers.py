"""Bytes to blocks and lines: against a naive twin, at every cap, and after damage."""

import bz2
import gzip
import lzma
import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.corpus import containers
from curate.corpus.containers import (
    BrokenFileError,
    before_damage,
    find_line,
    one_line,
    read_blocks,
    read_head,
    read_line_blocks,
    read_lines,
    read_whole,
    split_lines,
)

PACK = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "bz2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
}
NOISE = random.Random(1).randbytes(3_000_000).replace(b"\n", b" ")


def write(path, data):
    path.write_bytes(data)
    return path


def naive_lines(data, cap):
    """Every line that is not blank, "too_long" in place of one above the cap."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    for line in data.split(b"\n"):
        if len(line) > cap:
            yield "too_long"
        elif line and not line.isspace():
            yield line


LINE = st.one_of(
    st.sampled_from([b"", b" ", b"\r", b"a", b"bc\r", b"\xe2\x80\xa8"]),
    st.integers(1, 40).map(lambda n: b"x" * n),
)


@given(
    lines=st.lists(LINE, max_size=25),
    end=st.sampled_from([b"", b"\n"]),
    chunk=st.integers(1, 20),
    bom=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_lines_are_those_of_splitting_the_whole(tmp_path_factory, lines, end, chunk, bom):
    """Whatever a block holds, of one byte on; the mark is whole in the first."""
    data = (b"\xef\xbb\xbf" if bom else b"") + b"\n".join(lines) + end
    path = write(tmp_path_factory.mktemp("l") / "a", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(containers, "CHUNK_BYTES", max(chunk, 3 * bom))
        patch.setattr(containers, "MAX_RECORD_BYTES", 22)
        wanted = list(naive_lines(data, 22))
        assert list(read_lines(path, "none")) == wanted
        found = []
        for block in read_line_blocks(path, "none"):
            found += [block] if isinstance(block, str) else split_lines(block)
        assert found == wanted


@pytest.mark.parametrize("compression", PACK)
def test_lines_before_a_cut_are_salvaged_and_the_rest_is_truncated(tmp_path, compression):
    lines = [NOISE[at : at + 1_000] for at in range(0, 2_400_000, 1_000)]
    packed = PACK[compression](b"\n".join(lines) + b"\n")
    path = write(tmp_path / "a", packed[: len(packed) * 9 // 10])
    found = []
    with pytest.raises(BrokenFileError):
        for line in read_lines(path, compression):
            found.append(line)
    rest = found.pop() if found[-1:] == ["truncated"] else ""
    assert found == lines[: len(found)] and len(found) > 900
    assert rest or sum(map(len, found)) + len(found) == len(b"".join(read(path, compression)))


def read(path, compression):
    blocks = []
    with pytest.raises(BrokenFileError):
        for block in read_blocks(path, compression):
            blocks.append(block)
    return blocks


def test_what_unpacks_before_the_damage_is_given_once_and_in_order(tmp_path):
    path = write(tmp_path / "a", gzip.compress(NOISE)[:-200_000])
    whole = b"".join(read(path, "gzip"))
    assert NOISE.startswith(whole) and len(NOISE) - len(whole) < 210_000
    assert b"".join(before_damage(path, "gzip", skip=2 << 20)) == whole[2 << 20 :]
    assert len(b"".join(before_damage(path, "gzip"))) == 1 << 20  # a block, no more


def test_zeros_after_gzip_are_padding_and_anything_else_is_damage(tmp_path):
    one, two = gzip.compress(b"a\n"), gzip.compress(b"b\n")
    zeros = bytes(20_000)
    for packed in (one + zeros + two, one + two + zeros, one + bytes(1) + two + bytes(1)):
        assert b"".join(read_blocks(write(tmp_path / "a", packed), "gzip")) == b"a\nb\n"
    for packed in (one + zeros + b"x", one + zeros + two[:-1], one + b"x" + zeros):
        assert b"".join(read(write(tmp_path / "a", packed), "gzip")) in (b"a\n", b"a\nb\n")


@pytest.mark.parametrize("compression", ["bz2", "zstd"])
def test_zeros_after_other_streams_are_said_and_cost_nothing(compression, tmp_path):
    packed = PACK[compression](b"a\nb\n") + bytes(512)
    assert b"".join(read(write(tmp_path / "a", packed), compression)) == b"a\nb\n"


def test_a_part_of_a_plain_file_is_its_bytes(tmp_path, monkeypatch):
    data = b"\xef\xbb\xbfab\ncd\nef"
    path = write(tmp_path / "a", data)
    monkeypatch.setattr(containers, "CHUNK_BYTES", 4)
    assert b"".join(read_blocks(path, "none")) == data[3:]
    assert b"".join(read_blocks(path, "none", span=(0, 6))) == data[3:6]
    assert b"".join(read_blocks(path, "none", span=(6, 9))) == data[6:9]
    assert list(read_blocks(path, "none", span=(5, 5))) == []
    assert list(read_lines(path, "none", span=(6, 9))) == [b"cd"]
    mark = write(tmp_path / "b", b"ab\n\xef\xbb\xbfcd")
    assert b"".join(read_blocks(mark, "none", span=(3, 8))) == b"\xef\xbb\xbfcd"


def test_a_stream_may_unpack_to_its_cap_and_no_further(tmp_path, monkeypatch):
    packed = gzip.compress(bytes(50_000))
    path = write(tmp_path / "a.gz", packed)
    monkeypatch.setattr(containers, "MAX_RATIO", 0)
    monkeypatch.setattr(containers, "RATIO_FROM_BYTES", 50_000)
    assert len(b"".join(read_blocks(path, "gzip"))) == 50_000
    monkeypatch.setattr(containers, "RATIO_FROM_BYTES", 49_999)
    with pytest.raises(BrokenFileError, match="unpacks to more than"):
        list(read_blocks(path, "gzip"))
    monkeypatch.setattr(containers, "MAX_RATIO", -(-50_000 // len(packed)))
    assert len(b"".join(read_blocks(path, "gzip"))) == 50_000
    monkeypatch.setattr(containers, "MAX_RATIO", 50_000 // len(packed) - 1)
    with pytest.raises(BrokenFileError):
        list(read_blocks(path, "gzip"))


def test_a_line_is_found_beyond_any_block(tmp_path):
    path = write(tmp_path / "a", b"x" * 200_000 + b"\n" + b"y" * 100_000)
    assert find_line(path, 0) == find_line(path, -1) == 0
    assert find_line(path, 1) == find_line(path, 70_000) == find_line(path, 200_001) == 200_001
    assert find_line(path, 200_002) == 300_001


@pytest.mark.parametrize("compression", ["none", *PACK])
def test_a_whole_file_is_as_long_as_the_limit_at_most(tmp_path, compression):
    data = b"some words " * 1_000
    packed = data if compression == "none" else PACK[compression](data)
    path = write(tmp_path / "a", packed)
    assert read_whole(path, compression, limit=11_000) == data
    assert read_whole(path, compression, limit=10_999) is None
    if compression != "none":
        with pytest.raises(BrokenFileError) as caught:
            read_whole(write(tmp_path / "b", packed[:-8]), compression, limit=11_000)
        assert caught.value.reason == "truncated"


@pytest.mark.parametrize("compression", ["none", *PACK])
def test_a_head_says_how_many_times_as_much_the_file_holds(tmp_path, compression):
    data = NOISE[:40_000]
    packed = data if compression == "none" else PACK[compression](data)
    path = write(tmp_path / "a", packed)
    head, factor = read_head(path, compression, limit=1_000)
    assert head == data[:1_000]
    assert factor == pytest.approx(40, rel=0.01)
    assert read_head(path, compression, limit=50_000) == (data, 1.0)


def test_a_head_of_a_large_file_is_measured_by_what_was_read_of_it(tmp_path):
    path = write(tmp_path / "a", gzip.compress(NOISE))
    head, factor = read_head(path, "gzip", limit=10_000)
    assert head == NOISE[:10_000]
    assert factor == pytest.approx(300, rel=0.2)
    assert read_head(write(tmp_path / "none", b""), "none", limit=10) == (b"", 0.0)


def test_up_to_64_times_a_head_the_file_is_read_to_its_end(tmp_path):
    """What packs well at first and badly then would be estimated wrongly."""
    uneven = b" " * 1_500_000 + NOISE[:1_500_000]
    path = write(tmp_path / "a", gzip.compress(uneven))
    assert read_head(path, "gzip", limit=100_000)[1] == 30
    assert read_head(path, "gzip", limit=10_000)[1] > 400  # 300: a guess from the packed bytes


def test_an_error_is_one_line_of_200_characters_at_most():
    assert one_line(ValueError(" a\n  b\t")) == "a b"
    assert one_line(ValueError()) == "ValueError"
    assert one_line(ValueError("x" * 200)) == "x" * 200
    assert one_line(ValueError("x" * 201)) == "x" * 199 + "…"
    assert BrokenFileError("a").reason == "" and str(BrokenFileError("a", reason="b")) == "a"
