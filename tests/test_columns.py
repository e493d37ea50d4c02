"""Columns become Python values a bounded part at a time, and no value fills the memory."""

import numpy as np
import pyarrow as pa
import pytest

from curate.corpus import columns


def batch(**given):
    return pa.record_batch({name: pa.array(values) if isinstance(values, list) else values
                            for name, values in given.items()})  # fmt: skip


def test_parts_are_small_and_in_order(monkeypatch):
    monkeypatch.setattr(columns, "BATCH_BYTES", 1000)
    sizes = np.random.default_rng(0).integers(0, 700, 3000)
    one = batch(text=["x" * size for size in sizes], id=list(range(3000)))
    found = list(columns._parts(one))
    assert sum(part.num_rows for part in found) == 3000
    assert all(part.num_rows == 1 or part.nbytes <= 1000 for part in found)
    assert max(part.num_rows for part in found) > 1
    assert [row[1] for row in columns.batch_rows(one, ("text",))] == list(range(3000))
    many = batch(text=pa.nulls(3000))
    assert [part.num_rows for part in columns._parts(many)] == [1024, 1024, 952]


def test_a_text_above_the_cap_is_its_own_records_fault(monkeypatch):
    monkeypatch.setattr(columns, "MAX_RECORD_BYTES", 100)
    monkeypatch.setattr(columns, "BATCH_BYTES", 50)
    one = batch(text=["short", "x" * 160, "x" * 200, "last"])
    found = [row if isinstance(row, str) else row[0] for row in columns.batch_rows(one, ("text",))]
    assert found == ["short", "x" * 160, "too_long", "last"]


def test_lists_are_taken_apart_up_to_their_cap(monkeypatch):
    monkeypatch.setattr(columns, "MAX_NESTED_BYTES", 400)
    small, large = [1, 2], list(range(200))
    column = pa.array([small, large, None, small])
    assert columns.values(column) == [small, False, None, small]
    one = batch(text=column, meta=column)
    found = [(row[0], row[3]) for row in columns.batch_rows(one, ("text",))]
    assert found == [(small, small), (False, None), (None, None), (small, small)]
    assert columns.values(pa.array([{"a": "b"}, {"a": None}])) == [{"a": "b"}, {"a": None}]


VIEW = pa.array(["a", None, "long enough not to stand in the view itself"], pa.string_view())
UNBOUNDED = {
    "list of nothing": pa.array([[None] * 5]),
    "list of empty objects": pa.array([[{}]], pa.list_(pa.struct([]))),
    "objects of nothing": pa.array([{"a": None}]),
    "list of views": pa.array([["a"]], pa.list_(pa.string_view())),
    "list view": pa.array([[1, 2]], pa.list_view(pa.int64())),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["a"])),
    "fixed lists": pa.array([[None, None]], pa.list_(pa.null(), 2)),
    "map of nothing": pa.array([[("a", None)]], pa.map_(pa.string(), pa.null())),
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_types_that_no_bytes_bound_are_not_taken_apart(name):
    assert columns.values(UNBOUNDED[name]) == [False]
    assert columns.values(UNBOUNDED[name], odd=None) == [None]
    assert next(columns.batch_rows(batch(text=UNBOUNDED[name]), ("text",)))[0] is False


@pytest.mark.parametrize(
    "column",
    [
        VIEW, VIEW.cast(pa.binary_view()), pa.array(["a"]), pa.array(["a"], pa.large_string()),
        pa.array([b"a", None]), pa.array([b"a"], pa.large_binary()), pa.array([1, None]),
        pa.array([0.5]), pa.array([True]), pa.nulls(2), pa.array([[("a", 1)]],
        pa.map_(pa.string(), pa.int64())), pa.array(["a", "a"]).dictionary_encode(),
        pa.array([[["a"]]]), pa.array([{"a": [1]}]), pa.array([[1]], pa.large_list(pa.int8())),
    ],
    ids=lambda column: str(column.type),
)  # fmt: skip
def test_every_other_type_is_given_as_python_has_it(column):
    wanted = [v.decode() if isinstance(v, bytes) else v for v in column.to_pylist()]
    assert columns.values(column) == wanted


def test_views_are_given_one_row_at_a_time():
    assert [part.num_rows for part in columns._parts(batch(text=VIEW))] == [1, 1, 1]
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([3], pa.int32()), pa.array(["a"]))
    assert [part.num_rows for part in columns._parts(batch(text=runs))] == [1, 1, 1]


def test_text_that_is_not_utf8_stays_bytes_and_an_index_outside_is_an_error():
    bad = pa.array([b"ok", b"\xff"])
    assert columns.values(bad) == ["ok", b"\xff"]
    assert columns.values(bad.view(pa.string())) == ["ok", b"\xff"]
    assert columns.values(bad.cast(pa.large_binary()).view(pa.large_string())) == ["ok", b"\xff"]
    outside = pa.DictionaryArray.from_arrays(pa.array([0, 2]), pa.array(["a", "b"]), safe=False)
    with pytest.raises(pa.ArrowInvalid):
        columns.values(outside)
    unused = pa.DictionaryArray.from_arrays(pa.array([None, None], pa.int8()), pa.array(["a"]))
    assert columns.values(unused) == [None, None]
