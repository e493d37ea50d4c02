import errno
import itertools
import os
import random

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.corpus import passes, reader
from curate.corpus.inputs import find_inputs
from curate.corpus.ranges import read_ranges
from curate.corpus.reader import read_documents
from curate.corpus.regroup import open_corpus
from curate.corpus.shards import read_shards
from curate.errors import CurateError
from curate.mixing.reading import read_blocks_of
from curate.settings import CorpusSettings
from curate.store.fingerprint import digest_texts


def encode(texts):
    return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32) for text in texts]


def write(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode({"text": text}) + b"\n" for text in texts))


def shards_of(folder, shard_tokens=100, inputs=None):
    ledgers = []
    found = inputs or find_inputs([str(folder)], workspace=folder / ".curate")
    wanted = CorpusSettings(shard_tokens=shard_tokens)
    return list(read_shards(found, wanted, encode=encode, ledgers=ledgers)), ledgers


def test_a_source_is_cut_greedily_and_numbered(tmp_path):
    write(tmp_path / "a.jsonl", ["x" * 40] * 5)
    write(tmp_path / "b.jsonl", ["y" * 30, "", "y" * 30])
    parts, ledgers = shards_of(tmp_path)
    shards = [part.shard for part in parts]
    assert [(s.name, s.source, s.n_documents, s.n_tokens) for s in shards] == [
        ("a-00000", "a", 2, 80),
        ("a-00001", "a", 2, 80),
        ("a-00002", "a", 1, 40),
        ("b", "b", 2, 60),
    ]
    assert [(r.start, r.stop) for p in parts for r in p.shard.ranges] == [
        (0, 2), (2, 4), (4, 5), (0, 3),
    ]  # fmt: skip
    assert [(ledger.seen, ledger.accepted, ledger.rejected) for ledger in ledgers] == [
        (5, 5, {}), (3, 2, {"empty": 1}),
    ]  # fmt: skip
    assert parts[3].shard.digest == digest_texts(["y" * 30, "y" * 30])


def test_a_longer_document_is_a_shard_of_its_own(tmp_path):
    write(tmp_path / "a.jsonl", ["x" * 10, "x" * 500, "x" * 10])
    assert [p.shard.n_tokens for p in shards_of(tmp_path)[0]] == [10, 500, 10]


def test_many_small_files_of_one_source_are_one_shard(tmp_path):
    for name in "cab":
        (tmp_path / "tree").mkdir(exist_ok=True)
        (tmp_path / "tree" / f"{name}.py").write_text(f"text of {name}")
    parts, ledgers = shards_of(tmp_path)
    assert [(p.shard.name, len(p.shard.ranges)) for p in parts] == [("tree", 3)]
    assert [d.text for d in parts[0].documents] == ["text of a", "text of b", "text of c"]
    assert len(ledgers) == 3


@settings(max_examples=30, deadline=None)
@given(
    files=st.lists(st.lists(st.text("ab \n", max_size=60), max_size=12), min_size=1, max_size=4),
    shard_tokens=st.integers(1, 150),
    seed=st.integers(0, 9),
)
def test_sharding_is_a_partition_in_any_order_of_files(tmp_path_factory, files, shard_tokens, seed):
    folder = tmp_path_factory.mktemp("s")
    write(folder / "keep.jsonl", ["one document at least"])
    for number, texts in enumerate(files):
        write(folder / f"f{number}.jsonl", texts)
    parts, ledgers = shards_of(folder, shard_tokens)
    texts = [d.text for part in parts for d in part.documents]
    everything = [text for texts in [*files, ["one document at least"]] for text in texts]
    assert texts == [text for text in everything if text.strip()]
    assert sum(ledger.accepted for ledger in ledgers) == len(texts)
    assert sum(ledger.seen for ledger in ledgers) == len(everything)
    assert len({part.shard.name for part in parts}) == len(parts)
    for part in parts:
        assert part.shard.n_tokens == sum(map(len, part.tokens))
        assert part.shard.n_tokens <= shard_tokens or part.shard.n_documents == 1
        assert list(read_ranges(part.shard, text="text")) == list(part.documents)
    found = find_inputs([str(folder)], workspace=folder)
    random.Random(seed).shuffle(found)
    assert [p.shard for p in shards_of(folder, shard_tokens, found)[0]] == [p.shard for p in parts]


def test_the_tokenizer_batch_does_not_change_the_shards(tmp_path, monkeypatch):
    write(tmp_path / "a.jsonl", [f"text {n} " * (n % 7 + 1) for n in range(60)])
    whole = [p.shard for p in shards_of(tmp_path)[0]]
    monkeypatch.setattr("curate.corpus.shards.ENCODE_DOCUMENTS", 1)
    assert [p.shard for p in shards_of(tmp_path)[0]] == whole


def test_no_two_shards_share_a_name(tmp_path):
    write(tmp_path / "a.jsonl", ["x" * 80] * 3)
    write(tmp_path / "a-00000.jsonl", ["y" * 20])
    names = [p.shard.name for p in shards_of(tmp_path)[0]]
    assert len(set(names)) == 4


def test_a_changed_input_is_refused(tmp_path):
    write(tmp_path / "a.jsonl", ["first text"])
    part = shards_of(tmp_path)[0][0]
    write(tmp_path / "a.jsonl", ["other text, longer"])
    with pytest.raises(CurateError, match="changed since it was indexed"):
        list(read_ranges(part.shard, text="text"))
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(CurateError, match="No such file"):
        list(read_ranges(part.shard, text="text"))


def test_no_range_holds_a_text_without_tokens_which_no_shard_counts(tmp_path):
    texts = ["\u200b", "one", "\u200b", "", "two", "three", "", "four", "\u200b"]
    write(tmp_path / "in" / "a.jsonl", texts)
    write(tmp_path / "in" / "b.jsonl", texts)

    def without_marks(parts):
        return encode([part.replace("\u200b", "") for part in parts])

    for group_by in ("folder", "field:kind"):
        if group_by == "field:kind":
            for name in "ab":
                lines = [msgspec.json.encode({"text": text, "kind": "k"}) for text in texts]
                (tmp_path / "in" / f"{name}.jsonl").write_bytes(b"\n".join(lines))
        wanted = CorpusSettings(inputs=(str(tmp_path / "in"),), group_by=group_by)
        corpus = open_corpus(wanted, workspace=tmp_path / "w")
        ledgers = []
        (part,) = read_shards(
            corpus.files, wanted, encode=without_marks, ledgers=ledgers, grouped=corpus.ledgers
        )
        found = [document.text for document in read_ranges(part.shard, text="text")]
        assert found == ["one", "two", "three", "four"] * 2
        assert part.shard.n_documents == len(found)
        blocks = read_blocks_of([part.shard], text="text")  # raises where their number differs
        assert [text for block in blocks for text in block.block.texts] == found
        assert [(x.seen, x.accepted, x.rejected) for x in ledgers] == [(9, 4, {"empty": 5})] * 2


def test_nothing_accepted_is_an_error(tmp_path):
    write(tmp_path / "a.jsonl", ["", " "])
    with pytest.raises(CurateError, match="2 of 2 records rejected"):
        shards_of(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b"")
    with pytest.raises(CurateError, match="no document in it"):
        shards_of(tmp_path)


def test_a_text_without_tokens_is_rejected_and_counted(tmp_path):
    write(tmp_path / "a.jsonl", ["good", "silent"])
    ledgers = []
    found = find_inputs([str(tmp_path)], workspace=tmp_path)
    mute = lambda texts: [np.arange(0 if t == "silent" else 4, dtype=np.int32) for t in texts]  # noqa: E731
    list(read_shards(found, CorpusSettings(), encode=mute, ledgers=ledgers))
    assert (ledgers[0].seen, ledgers[0].accepted, ledgers[0].rejected) == (2, 1, {"empty": 1})


def document(number):
    """A text of 40 to 120 bytes that is its own."""
    rng = random.Random(number)
    return " ".join(str(rng.randrange(10**6)) for _ in range(rng.randrange(7, 18)))


@pytest.mark.parametrize(("change", "most"), [("insert", 7), ("delete", 7), ("edit", 3)])
def test_a_change_inside_a_file_leaves_most_other_shards_as_they_are(tmp_path, change, most):
    redone = []
    for seed in range(6):
        texts = [document(seed * 1000 + n) for n in range(500)]
        write(tmp_path / "a.jsonl", texts)
        before = [p.shard.digest for p in shards_of(tmp_path, 2_000)[0]]
        place = 100 + 20 * seed
        if change == "insert":
            texts[place:place] = [document(10**6 + n) for n in range(7)]
        elif change == "delete":
            del texts[place : place + 4]
        else:
            texts[place] += " and more"
        write(tmp_path / "a.jsonl", texts)
        after = [p.shard.digest for p in shards_of(tmp_path, 2_000)[0]]
        assert len(before) > 20
        assert before[:3] == after[:3] and before[-1] == after[-1]
        redone.append(len(set(after) - set(before)))
    assert min(redone) >= 1
    assert sum(redone) / len(redone) <= most


def test_shards_are_half_full_at_least(tmp_path):
    write(tmp_path / "a.jsonl", [document(n) for n in range(600)])
    sizes = [p.shard.n_tokens for p in shards_of(tmp_path, 2_000)[0]]
    assert all(1_000 <= size <= 2_000 for size in sizes[:-1])
    assert 0.7 < sum(sizes[:-1]) / len(sizes[:-1]) / 2_000 < 0.8
    assert len(set(sizes)) > 10


def test_shards_of_one_file_take_one_pass_over_it(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl.zst"
    lines = b"".join(msgspec.json.encode({"text": f"text {n:03d}"}) + b"\n" for n in range(200))
    path.write_bytes(pa.compress(lines, codec="zstd", asbytes=True))
    parts, _ = shards_of(tmp_path, shard_tokens=80)
    assert len(parts) > 15
    started = []
    monkeypatch.setattr(
        passes,
        "read_documents",
        lambda *given, **named: started.append(named["start"]) or read_documents(*given, **named),
    )
    passes._passes.clear()
    for part in parts:
        assert list(read_ranges(part.shard, text="text")) == list(part.documents)
    assert started == [0]  # one pass over the file serves all its shards
    for part in parts[::-1]:
        assert list(read_ranges(part.shard, text="text")) == list(part.documents)
    assert len(started) > 10  # backwards each shard is looked for again, and found


def test_a_pass_that_was_left_in_the_middle_goes_on_without_a_loss(tmp_path):
    write(tmp_path / "a.jsonl", [f"{n:010d}" for n in range(50)])
    parts, _ = shards_of(tmp_path)
    one, other = parts[0].shard, parts[1].shard
    assert next(read_ranges(one, text="text")) == parts[0].documents[0]
    assert list(read_ranges(other, text="text")) == list(parts[1].documents)
    assert list(read_ranges(one, text="text")) == list(parts[0].documents)
    again = zip(read_ranges(one, text="text"), read_ranges(other, text="text"), strict=False)
    assert list(again)[:3] == list(zip(parts[0].documents, parts[1].documents, strict=False))[:3]


def test_a_disk_that_refuses_in_the_middle_of_a_shard_is_no_shorter_shard(tmp_path, monkeypatch):
    write(tmp_path / "a.jsonl", [f"text {n}" for n in range(9)])
    (found,), _ = shards_of(tmp_path, shard_tokens=1000)
    real = reader.read_rows

    def read_rows(*given, **rest):
        yield from itertools.islice(real(*given, **rest), 4)
        raise OSError(errno.EIO, os.strerror(errno.EIO), "a.jsonl")

    monkeypatch.setattr(reader, "read_rows", read_rows)
    with pytest.raises(CurateError, match=r"a\.jsonl: Input/output error"):
        list(read_ranges(found.shard, text="text"))
