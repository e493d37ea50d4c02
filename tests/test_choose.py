"""Which documents, and where the last one is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.mixing.choose import Taken, choose_rows, gather_rows
from curate.mixing.shuffle import divide_rows


def taken(tokens, epochs=1.0):
    tokens = np.array(tokens, np.int64)
    return Taken(np.arange(len(tokens)), np.cumsum(tokens), int(tokens.sum() * epochs))


def cut_exactly(shard, place, wanted):
    return 10 * wanted, wanted


def cut_in_steps(shard, place, wanted):
    """Cut like a tokenizer with merges: only even numbers can be had."""
    return 10 * wanted, wanted - wanted % 2


def choose(sizes, parts, *, epochs=1.0, cut=cut_exactly, whole=False):
    shards = [taken(tokens, epochs) for tokens in sizes]
    budget = int(sum(parts))
    given = choose_rows(shards, np.array(parts), budget=budget, cut=cut, whole=whole)
    return given, gather_rows(shards)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), epochs=st.sampled_from([1.0, 1.5, 3.0]))
def test_the_budget_is_met_exactly_within_every_room(seed, epochs):
    rng = np.random.default_rng(seed)
    sizes = [rng.integers(1, 60, rng.integers(1, 9)).tolist() for _ in range(rng.integers(1, 6))]
    room = np.array([int(sum(tokens) * epochs) for tokens in sizes])
    parts = (room * rng.uniform(0, 1, len(room))).astype(int)
    if not parts.sum():
        return
    given, rows = choose(sizes, parts.tolist(), epochs=epochs)
    assert given == parts.sum() == rows.tokens.sum()
    spent = np.bincount(rows.shard, rows.tokens, minlength=len(sizes))
    assert (spent <= room).all()
    for shard, place, epoch, tokens, end in zip(
        rows.shard, rows.place, rows.epoch, rows.tokens, rows.end, strict=True
    ):
        whole = sizes[shard][place]
        assert tokens == whole if end < 0 else 0 < tokens < whole
        assert epoch < np.ceil(epochs)
    lines = set(zip(rows.shard.tolist(), rows.place.tolist(), rows.epoch.tolist(), strict=True))
    assert len(lines) == len(rows.shard)


def test_parts_are_met_by_whole_documents_where_they_are_small():
    sizes = [[10] * 100, [7] * 100]
    given, rows = choose(sizes, [405, 395])
    assert given == 800
    spent = np.bincount(rows.shard, rows.tokens)
    assert np.abs(spent - [405, 395]).max() <= 0.02 * 405 + 7
    assert (rows.end >= 0).sum() <= 1


def test_a_large_document_is_cut_for_its_part():
    given, rows = choose([[1000], [1000]], [300, 200])
    assert given == 500
    assert rows.tokens.tolist() == [300, 200] and (rows.end > 0).all()


def test_documents_are_repeated_only_after_all_were_given():
    given, rows = choose([[5, 5, 5]], [25], epochs=2.0)
    assert given == 25
    assert rows.place.tolist() == [0, 1, 2, 0, 1] and rows.epoch.tolist() == [0, 0, 0, 1, 1]


def test_steps_of_a_tokenizer_are_made_up_by_another_document():
    given, rows = choose([[40], [30], [1]], [7, 4, 0], cut=cut_in_steps)
    assert given == 11 == rows.tokens.sum()


def test_whole_documents_come_as_near_as_they_can():
    given, rows = choose([[10, 10, 10], [4, 4]], [17, 6], whole=True)
    assert (rows.end < 0).all()
    assert abs(given - 23) <= 2


def test_what_a_shard_has_given_is_counted_through_its_epochs():
    shard = taken([4, 6, 5], epochs=3.0)
    assert (shard.total, shard.room, shard.given, shard.next_tokens) == (15, 45, 0, 4)
    counted = [(0, 4), (4, 6), (10, 5), (15, 4), (19, 6), (25, 5), (30, 4)]
    for whole, (spent, following) in enumerate(counted):
        shard.whole = whole
        assert (shard.given, shard.next_tokens) == (spent, following)
    shard.part = 3
    assert shard.given == 33
    empty = taken([])
    assert (empty.total, empty.given, empty.next_tokens) == (0, 0, 0)


def test_rows_say_shard_document_epoch_tokens_and_cut():
    first = Taken(np.array([7, 3]), np.array([4, 10]), 40, whole=3, part=2, end=20)
    last = Taken(np.array([5]), np.array([8]), 8, whole=1)
    rows = gather_rows([first, Taken(np.array([1]), np.array([9]), 9), last])
    assert rows.shard.tolist() == [0, 0, 0, 0, 2]
    assert rows.place.tolist() == [7, 3, 7, 3, 5]
    assert rows.epoch.tolist() == [0, 0, 1, 1, 0]
    assert rows.tokens.tolist() == [4, 6, 4, 2, 8]
    assert rows.end.tolist() == [-1, -1, -1, 20, -1]
    assert {column.dtype for column in (rows.shard, rows.end)} == {np.dtype(np.int64)}


def test_a_part_is_rounded_to_a_document_within_two_percent_and_cut_beyond():
    wholes = {}
    for part in (980, 981, 990, 1000, 1019, 1020, 1021):
        _, rows = choose([[100] * 20, [1] * 2000], [part, 500])
        wholes[part] = (rows.tokens[rows.shard == 0].sum(), (rows.end[rows.shard == 0] >= 0).sum())
    assert wholes[1000] == (1000, 0)
    assert wholes[981] == wholes[990] == (1000, 0)  # up, as that is nearer
    assert wholes[1019] == wholes[1020] == (1000, 0)  # down
    assert wholes[1021] == (1021, 1)  # 21 of 1,021 is more than 2 %: cut
    assert wholes[980] == (980, 1)


def test_what_one_shard_gives_too_little_or_too_much_the_next_makes_up():
    given, rows = choose([[100] * 20, [1] * 2000], [1010, 500])
    spent = np.bincount(rows.shard, rows.tokens).tolist()
    assert given == 1510 and spent == [1000, 510]
    given, rows = choose([[100] * 20, [1] * 2000], [990, 500])
    assert given == 1490 and np.bincount(rows.shard, rows.tokens).tolist() == [1000, 490]
    given, rows = choose([[5], [9]], [0, 9])
    assert rows.shard.tolist() == [1]


def test_a_whole_document_that_just_fits_the_budget_is_taken():
    given, rows = choose([[100] * 10, [1] * 100], [990, 10])
    assert given == 1000 and rows.tokens.tolist() == [100] * 10


def test_no_more_than_the_budget_and_the_room_is_taken():
    given, rows = choose([[100] * 10], [990])  # one more whole document would be above the budget
    assert given == 990 and rows.tokens.tolist() == [100] * 9 + [90]
    shard = Taken(np.arange(10), np.cumsum([100] * 10), 990)
    assert choose_rows([shard], np.array([990]), budget=990, cut=cut_exactly) == 990
    assert (shard.whole, shard.part, shard.end) == (9, 90, 900)


def test_shards_of_a_part_are_filled_up_before_those_of_none():
    shards = [taken([50]), taken([50]), taken([50])]
    assert choose_rows(shards, np.array([0, 20, 0]), budget=80, cut=cut_exactly) == 80
    assert [shard.given for shard in shards] == [30, 50, 0]
    shards = [taken([50]), taken([50]), taken([50])]
    assert choose_rows(shards, np.array([0, 20, 10]), budget=160, cut=cut_exactly) == 150
    assert [shard.given for shard in shards] == [50, 50, 50]


def test_a_document_that_cannot_be_cut_closer_is_left_for_another():
    asked = []

    def cut(shard, place, wanted):
        asked.append((shard, place, wanted))
        return 10 * wanted, 0 if shard == 0 else wanted

    shards = [Taken(np.array([9]), np.array([40]), 40), taken([30])]
    assert choose_rows(shards, np.array([7, 4]), budget=11, cut=cut) == 11
    assert [shard.given for shard in shards] == [0, 11] and asked[0] == (0, 9, 7)
    assert (shards[0].whole, shards[0].part) == (0, 0)


def test_whole_documents_go_on_while_that_is_nearer_and_there_is_room():
    given, rows = choose([[10] * 9, [6] * 9], [26, 0], whole=True)
    assert given == 30 and rows.shard.tolist() == [0, 0, 0]
    given, rows = choose([[10, 10], [6] * 9], [20, 0], whole=True)
    assert given == 20
    shards = [Taken(np.arange(3), np.array([10, 20, 30]), 19), taken([6] * 9)]
    assert choose_rows(shards, np.array([19, 0]), budget=27, cut=cut_exactly, whole=True) == 28
    assert [shard.given for shard in shards] == [10, 18]
    given, _ = choose([[10] * 9], [25], whole=True)
    assert given == 20  # as near as 30, and less


def test_whole_documents_end_nearest_to_a_room_that_no_boundary_lies_in():
    rng = np.random.default_rng(0)
    sizes = [rng.integers(50, 150, 5).tolist() for _ in range(200)]
    total = sum(map(sum, sizes))
    parts = [int(sum(each) * 1.5) for each in sizes]
    given, _ = choose(sizes, parts, epochs=1.5, whole=True)
    assert abs(given / (1.5 * total) - 1) < 0.01  # 7 % below it, where none went beyond its room
    shards = [taken(each, 1.5) for each in sizes]
    choose_rows(shards, np.array(parts), budget=sum(parts), cut=cut_exactly, whole=True)
    assert all(abs(each.given - each.room) < 75 for each in shards)  # half a document
    # what others can give within their room comes first, and whole epochs are kept to
    shards = [taken([100] * 3, 1.5), taken([7] * 90)]
    assert choose_rows(shards, np.array([450, 0]), budget=450, cut=cut_exactly, whole=True) == 449
    assert [each.given for each in shards] == [400, 49]
    assert choose([[100, 10, 10]], [240], epochs=2.0, whole=True)[0] == 240
    shards = [taken([100, 10, 10], 2.0)]
    assert choose_rows(shards, np.array([240]), budget=400, cut=cut_exactly, whole=True) == 240


def test_nothing_more_to_give_is_said():
    shards = [taken([3, 3])]
    assert choose_rows(shards, np.array([6]), budget=9, cut=cut_exactly) == 6
    assert len(gather_rows([taken([])]).shard) == 0


@pytest.mark.parametrize("part_tokens", [10, 37, 400, 1000, 3000])
def test_parts_hold_every_row_once(part_tokens):
    tokens = np.random.default_rng(0).integers(1, 9, 100)
    parts = divide_rows(tokens, part_tokens=part_tokens)
    assert [row for a, b in parts for row in range(a, b)] == list(range(100))
    assert all(b > a for a, b in parts)
    assert len(parts) % 2 == 0 or 4 * tokens.sum() < part_tokens
    if part_tokens == 37:
        sizes = [tokens[a:b].sum() for a, b in parts]
        assert max(sizes) - min(sizes) < 20


def test_the_document_nearest_to_the_budget_comes_from_a_shard_that_has_a_part():
    given, rows = choose([[4], [6, 5]], [0, 10], whole=True)
    assert given == 11 and rows.shard.tolist() == [1, 1]


def test_many_small_parts_are_met_by_whole_documents_of_some_shards():
    sizes = [[90, 100, 110]] * 300  # each shard gives a third of a document
    given, rows = choose(sizes, [33] * 300)
    assert given == 9900 and (rows.end >= 0).sum() <= 1
    assert 90 <= len(rows.shard) <= 112
    spent = np.bincount(rows.shard, rows.tokens, minlength=300)
    assert np.abs(np.cumsum(spent - 33)).max() <= 99  # a hundredth of the budget, at every shard


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_shards_up_to_any_give_what_they_should_to_within_a_hundredth(seed):
    rng = np.random.default_rng(seed)
    sizes = [rng.integers(1, 400, 40).tolist() for _ in range(rng.integers(1, 60))]
    parts = np.array([int(sum(each) * rng.uniform(0, 0.6)) for each in sizes])
    given, rows = choose(sizes, parts.tolist())
    spent = np.bincount(rows.shard, rows.tokens, minlength=len(sizes))
    rough = np.maximum(0.01 * parts.sum(), 0.02 * parts) + 1
    assert given == parts.sum()
    late = np.abs(np.cumsum(spent - parts))
    assert (late <= 2 * np.maximum.accumulate(rough)).all()  # once more: what is filled up at last


def test_a_document_longer_than_a_hundredth_of_the_budget_is_cut_for_a_small_part():
    given, rows = choose([[5000], [5000], [10] * 2000], [300, 300, 9400])
    assert given == 10_000 and (rows.end >= 0).sum() == 2
    assert np.bincount(rows.shard, rows.tokens).tolist() == [300, 300, 9400]


def words_of(length):
    """Return ends of a text of words of one to six signs of three tokens, and how it is cut."""
    signs = np.random.default_rng(0).integers(1, 7, length).tolist()
    ends = np.cumsum([tokens for n in signs for tokens in [3] * n + [1]])

    def cut(shard, place, wanted):
        found = int(np.searchsorted(ends, wanted, side="right"))
        return (found, int(ends[found - 1])) if found else (0, 0)

    return ends.tolist(), cut


@pytest.mark.parametrize("budget", range(100, 130))
def test_texts_whose_signs_are_of_three_tokens_meet_every_budget(budget):
    ends, cut = words_of(40)
    shards = [Taken(np.arange(2), np.array([ends[-1], 2 * ends[-1]]), 2 * ends[-1])
              for _ in range(3)]  # fmt: skip
    parts = np.array([budget - 40, 20, 20])
    assert choose_rows(shards, parts, budget=budget, cut=cut) == budget
    assert sum(each.given for each in shards) == budget
    for shard in shards:
        assert shard.part in (0, *ends) and (shard.end >= 0) == (shard.part > 0)


def test_where_no_two_documents_meet_it_what_was_taken_stays():
    def cut(shard, place, wanted):
        return wanted // 3, wanted - wanted % 3

    shards = [taken([300]), taken([300])]
    assert choose_rows(shards, np.array([100, 0]), budget=100, cut=cut) == 99
    assert [(each.part, each.end) for each in shards] == [(99, 33), (0, -1)]
