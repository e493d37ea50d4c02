"""Documents under new sources: by folder, field or topic, none lost, each with its origin."""

import os
import random
from collections import Counter
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from curate.corpus import containers, groups, prints, regroup, topics
from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.ranges import read_ranges
from curate.corpus.reader import read_documents
from curate.corpus.regroup import drop_old_groups, open_corpus
from curate.corpus.shards import read_shards
from curate.errors import CurateError
from curate.settings import CorpusSettings
from tests.test_cluster import pool
from tests.test_shards import encode


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    return path


def settings(folder, group_by, **more):
    return CorpusSettings(inputs=(str(folder),), group_by=group_by, **more)


def shards_of(wanted, workspace):
    corpus = open_corpus(wanted, workspace=workspace)
    ledgers = []
    parts = list(
        read_shards(corpus.files, wanted, encode=encode, ledgers=ledgers, grouped=corpus.ledgers)
    )
    return corpus, parts, ledgers


@pytest.fixture
def mixed(tmp_path):
    """A shuffled pool of four kinds over three files; the kind is a field."""
    texts, kinds = pool(each=25)
    for part in range(3):
        records = [
            {
                "id": f"{part}-{n}",
                "text": text,
                "kind": kind,
                "url": f"u/{n}",
                "meta": {"n": n},
            }
            for n, (text, kind) in enumerate(zip(texts[part::3], kinds[part::3], strict=True))
        ]
        write(tmp_path / "in" / f"part{part}.jsonl", records)
    return tmp_path / "in", dict(zip(texts, kinds, strict=True))


def originals(folder):
    found = []
    for path in sorted(folder.iterdir()):
        file = InputFile(path=path, source=path.stem)
        found += list(read_documents(file, text="text", ledger=LedgerBuilder()))
    return found


@pytest.mark.parametrize("group_by", ["field:kind", "cluster"])
def test_regrouping_is_a_partition_and_documents_keep_their_origin(mixed, tmp_path, group_by):
    folder, _ = mixed
    wanted = settings(folder, group_by, clusters=4, shard_tokens=2_000)
    corpus, parts, ledgers = shards_of(wanted, tmp_path / "w")
    kept = [
        (d.text, d.id, d.file_digest, d.record, d.url, d.meta) for p in parts for d in p.documents
    ]
    there = [(d.text, d.id, d.file_digest, d.record, d.url, d.meta) for d in originals(folder)]
    assert sorted(kept) == sorted(there)
    assert kept[0][4].startswith("u/") and kept[0][5].startswith('{"n":')
    assert sum(group.n_documents for group in corpus.groups) == 100
    assert [ledger.path for ledger in ledgers] == sorted(str(p) for p in folder.iterdir())
    assert sum(ledger.accepted for ledger in ledgers) == 100
    for part in parts:
        assert part.shard.grouped
        assert tuple(read_ranges(part.shard, text="whatever")) == part.documents


def test_a_field_names_the_sources(mixed, tmp_path):
    folder, kinds = mixed
    write(folder / "part3.jsonl", [{"text": "nobody's"}, {"text": "sixth", "kind": 6}])
    _, parts, _ = shards_of(settings(folder, "field:kind"), tmp_path / "w")
    counts = Counter({p.shard.source: p.shard.n_documents for p in parts})
    assert counts == Counter({**Counter(kinds.values()), "no-kind": 1, "6": 1})


def test_a_field_that_no_document_has_is_refused_with_those_that_it_has(mixed, tmp_path):
    folder, _ = mixed
    told = []
    with pytest.raises(CurateError) as refused:
        open_corpus(
            settings(folder, "field:kinds"),
            workspace=tmp_path / "w",
            notify=lambda *a: told.append(a),
        )
    said = f"no field kinds to group by in {folder}/part0.jsonl; it has id, text, kind, url, meta"
    assert str(refused.value) == f"group_by: {said}" and refused.value.exit_code == 2
    assert told[0][0] == f"{said}; looking for it in all documents"  # before all is read
    assert not list((tmp_path / "w").rglob("*.zst"))
    with pytest.raises(CurateError, match="group_by: no field meta that holds a word or a number"):
        open_corpus(settings(folder, "field:meta"), workspace=tmp_path / "w")
    write(folder / "part3.jsonl", [{"text": "none"}, {"text": "one", "kinds": "a"}])
    assert len(open_corpus(settings(folder, "field:kinds"), workspace=tmp_path / "w").groups) == 2


def test_topics_are_the_kinds_and_say_what_they_are_about(mixed, tmp_path):
    folder, kinds = mixed
    corpus, parts, _ = shards_of(settings(folder, "cluster", clusters=4), tmp_path / "w")
    found = [(kinds[d.text], p.shard.source) for p in parts for d in p.documents]
    assert adjusted_mutual_info_score(*zip(*found, strict=True)) > 0.95
    for group in corpus.groups:
        assert group.name == "-".join(group.terms[:3])
        assert len(group.examples) == 3
        assert all(any(text.startswith(e) for text in kinds) for e in group.examples)


def test_the_sample_limit_still_places_every_document(mixed, tmp_path, monkeypatch):
    folder, kinds = mixed
    monkeypatch.setattr(topics, "SAMPLE", 40)
    _, parts, _ = shards_of(settings(folder, "cluster", clusters=4), tmp_path / "w")
    found = [(kinds[d.text], p.shard.source) for p in parts for d in p.documents]
    assert len(found) == 100
    assert adjusted_mutual_info_score(*zip(*found, strict=True)) > 0.9


def test_the_number_of_topics_follows_the_size(mixed, tmp_path):
    folder, _ = mixed
    wanted = settings(folder, "cluster", shard_tokens=1_200)
    assert len(open_corpus(wanted, workspace=tmp_path / "w").groups) == 4


def test_workers_and_ranges_change_nothing(mixed, tmp_path, monkeypatch):
    folder, _ = mixed
    write(folder / "bad.jsonl", [{"text": "fine"}, {"text": None}, {"text": "fine too"}])
    wanted = settings(folder, "cluster", clusters=4)
    alone = open_corpus(wanted, workspace=tmp_path / "one", workers=1)
    monkeypatch.setattr(topics, "RANGE_RECORDS", 7)
    ranges = open_corpus(wanted, workspace=tmp_path / "two", workers=1)
    several = open_corpus(wanted, workspace=tmp_path / "three", workers=2)
    for other in (ranges, several):
        assert other.groups == alone.groups
        assert other.ledgers == alone.ledgers
        for one, two in zip(alone.files, other.files, strict=True):
            assert one.path.read_bytes() == two.path.read_bytes()


def test_grouping_again_reads_what_was_written(mixed, tmp_path, monkeypatch):
    folder, _ = mixed
    wanted = settings(folder, "cluster", clusters=4)
    first = open_corpus(wanted, workspace=tmp_path / "w")
    monkeypatch.setattr(regroup, "fit_topics", None)
    assert open_corpus(wanted, workspace=tmp_path / "w") == first
    first.files[0].path.write_bytes(b"damaged")
    with pytest.raises(TypeError):  # it is made again, and fit_topics was taken away
        open_corpus(wanted, workspace=tmp_path / "w")


def test_another_way_of_reading_makes_groups_and_prints_anew(mixed, tmp_path, monkeypatch):
    wanted = settings(mixed[0], "field:kind")
    before, parts, _ = shards_of(wanted, tmp_path / "w")
    name = prints.prints_name(parts[0].shard, text="text")
    monkeypatch.setattr(regroup, "READING", regroup.READING + 1)
    monkeypatch.setattr(prints, "READING", prints.READING + 1)
    assert {file.path for file in before.files}.isdisjoint(
        file.path for file in open_corpus(wanted, workspace=tmp_path / "w").files
    )
    assert prints.prints_name(parts[0].shard, text="text") != name


def test_buffers_do_not_change_what_is_read_back(mixed, tmp_path, monkeypatch):
    folder, _ = mixed
    wanted = settings(folder, "field:kind")
    _, one, _ = shards_of(wanted, tmp_path / "one")
    monkeypatch.setattr(groups, "GROUP_BYTES", 700)
    monkeypatch.setattr(groups, "WAITING_BYTES", 900)
    _, two, _ = shards_of(wanted, tmp_path / "two")
    assert [p.documents for p in one] == [p.documents for p in two]
    assert [p.shard.digest for p in one] == [p.shard.digest for p in two]


def test_a_group_file_is_held_to_no_cap_of_inputs(tmp_path, monkeypatch):
    texts = ["line of a long text\n" * 60, *["the same again " * 20] * 500]
    write(tmp_path / "in" / "a.jsonl", [{"text": text, "kind": "k"} for text in texts])
    wanted = settings(tmp_path / "in", "field:kind")
    corpus = open_corpus(wanted, workspace=tmp_path / "w")
    monkeypatch.setattr(containers, "MAX_RECORD_BYTES", 1_250)
    monkeypatch.setattr(containers, "RATIO_FROM_BYTES", 1_000)
    monkeypatch.setattr(containers, "MAX_RATIO", 3)
    found = [
        each.text for file in corpus.files for each in groups.read_group(file.path, source="k")
    ]
    assert found == texts


def test_a_run_that_dies_leaves_no_group_file(mixed, tmp_path, monkeypatch):
    folder, _ = mixed
    monkeypatch.setattr(groups, "GROUP_BYTES", 100)
    calls = iter(range(10**6))
    plain = regroup.GroupWriter.add

    def dies(writer, group, document):
        if next(calls) == 50:
            raise OSError(28, "No space left on device")
        plain(writer, group, document)

    monkeypatch.setattr(regroup.GroupWriter, "add", dies)
    with pytest.raises(CurateError, match="No space left"):
        open_corpus(settings(folder, "field:kind"), workspace=tmp_path / "w")
    assert not [path for path in (tmp_path / "w").rglob("*") if path.is_file()]
    monkeypatch.setattr(regroup.GroupWriter, "add", plain)
    corpus = open_corpus(settings(folder, "field:kind"), workspace=tmp_path / "w")
    assert sum(group.n_documents for group in corpus.groups) == 100


def test_groups_that_no_index_uses_are_dropped(mixed, tmp_path):
    folder, _ = mixed
    workspace = tmp_path / "w"
    open_corpus(settings(folder, "field:kind"), workspace=workspace)
    kept = open_corpus(settings(folder, "cluster", clusters=4), workspace=workspace)
    assert len(list((workspace / "groups").iterdir())) == 2
    drop_old_groups(workspace, kept)
    assert [p.name for p in (workspace / "groups").iterdir()] == [kept.files[0].path.parent.name]


def test_folders_are_sources(tmp_path):
    for name in ("web/a.jsonl", "web/b.jsonl", "x/code/c.jsonl", "y/code/d.jsonl"):
        write(tmp_path / "in" / name, [{"text": name}])
    corpus = open_corpus(settings(tmp_path / "in", "folder"), workspace=tmp_path / "w")
    assert [file.source for file in corpus.files] == ["web", "web", "x-code", "y-code"]


@pytest.mark.parametrize("wrong", ["", "topic", "field", "field:", "file:x", "cluster:3"])
def test_an_unknown_grouping_is_named(tmp_path, wrong):
    write(tmp_path / "a.jsonl", [{"text": "a"}])
    with pytest.raises(CurateError, match="is not file, folder, field:NAME or cluster"):
        open_corpus(settings(tmp_path, wrong), workspace=tmp_path / "w")


def test_a_field_of_too_many_values_is_named(tmp_path, monkeypatch):
    write(tmp_path / "a.jsonl", [{"text": "a", "url": str(n)} for n in range(9)])
    monkeypatch.setattr(regroup, "MAX_GROUPS", 5)
    with pytest.raises(CurateError, match="more than 5 values"):
        open_corpus(settings(tmp_path, "field:url"), workspace=tmp_path / "w")


def test_labels_of_parquet_and_of_whole_files(tmp_path):
    table = pa.table({"text": ["a", "b", "c"], "year": [1999, 2000, None]})
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    (tmp_path / "in" / "note.md").write_text("some words")
    _, parts, _ = shards_of(settings(tmp_path / "in", "field:year"), tmp_path / "w")
    assert sorted(p.shard.source for p in parts) == ["1999", "2000", "in", "no-year"]


def test_skipped_files_are_said(tmp_path):
    write(tmp_path / "in" / "a.jsonl", [{"text": "a"}])
    for n in range(7):
        (tmp_path / "in" / f"p{n}.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (tmp_path / "in" / "linked").symlink_to(tmp_path, target_is_directory=True)
    said = []
    open_corpus(
        settings(tmp_path / "in", "file"),
        workspace=tmp_path / "w",
        notify=lambda what, *_: said.append(what),
    )
    assert len(said) == 1
    assert said[0].startswith("8 skipped, no documents") and said[0].endswith("and 3 more")


CORPORA = Path(os.environ.get("CURATE_DATA_DIR", "absent")) / "corpora"


@pytest.mark.skipif(not CORPORA.is_dir(), reason="needs the real corpora")
def test_the_domains_of_a_shuffled_pool_of_real_corpora_are_found_again(tmp_path):
    """Up to 250 documents of each corpus, shuffled into one file, clustered into as many topics."""
    records = []
    for path in sorted(CORPORA.glob("*.jsonl.zst")):
        found = read_documents(
            InputFile(path=path, source=path.name), text="text", ledger=LedgerBuilder()
        )
        documents = random.Random(0).sample(list(found), 250)
        records += [{"text": d.text, "domain": d.source} for d in documents]
    random.Random(0).shuffle(records)
    write(tmp_path / "in" / "pool.jsonl", records)
    domains = len({record["domain"] for record in records})
    domain_of = {record["text"]: record["domain"] for record in records}
    wanted = settings(tmp_path / "in", "cluster", clusters=domains, shard_tokens=10_000_000)
    corpus = open_corpus(wanted, workspace=tmp_path / "w")
    pairs = [
        (domain_of[document.text], file.source)
        for file in corpus.files
        for document in groups.read_group(file.path, source=file.source)
    ]
    assert adjusted_mutual_info_score(*zip(*pairs, strict=True)) >= 0.8
