"""What a mix may be asked for: the edge of every rule, on both sides."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from curate.errors import UNREACHABLE, USAGE, CurateError
from curate.mixing.bounds import bound_spread, read_rule
from curate.mixing.checks import PAYLOAD, check_out, check_request, check_room
from curate.mixing.choose import Taken, choose_by_source, choose_rows
from curate.mixing.draw import _deeper, _split, _too_few
from curate.mixing.filters import Looked, Wish
from curate.mixing.weights import Spread, blend_tokens, spread_tokens, tokens_of
from curate.settings import MixSettings

RANKED = {
    "index": SimpleNamespace(fingerprint="i"),
    "ranking": SimpleNamespace(index_fingerprint="i", target="t", select_digest="d"),
    "target": SimpleNamespace(name="t", select_digest="d"),
}


def ask(fmt="parquet", **settings):
    check_request(**RANKED, settings=MixSettings(**{"budget": 1, **settings}), fmt=fmt)


@pytest.mark.parametrize(
    ("name", "last_good", "first_bad", "need"),
    [
        ("budget", 1, 0, "above 0"), ("budget", 1, -5, "above 0"), ("ngram", 2, 1, "at least 2"),
        ("max_epochs", 1.0, 0.99, "from 1 to 1,000,000"),
        ("max_epochs", 1.0, float("nan"), "from 1 to 1,000,000"),
        ("max_epochs", 1e6, 1e300, "from 1 to 1,000,000"),
        ("temperature", 1e-9, -1e-9, r"0 \(chosen\), or from 1e-9 to 1e9"),
        ("temperature", 0.0, 5e-324, r"0 \(chosen\), or from 1e-9 to 1e9"),
        ("temperature", 1e9, float("inf"), r"0 \(chosen\), or from 1e-9 to 1e9"),
        ("temperature", 1.0, float("nan"), r"0 \(chosen\), or from 1e-9 to 1e9"),
        ("holdout", 0.0, -0.01, "at least 0 and below 1"), ("near_documents", 0, -1, "at least 0"),
        ("holdout", 0.99, 1.0, "at least 0 and below 1"),
        ("cosine", 1.0, 1.01, "above 0 and at most 1"),
        ("cosine", 0.01, 0.0, "above 0 and at most 1"),
    ],
)  # fmt: skip
def test_a_setting_is_refused_from_the_first_bad_value_on(name, last_good, first_bad, need):
    ask(**{name: last_good})
    with pytest.raises(CurateError, match=rf"\[mix\] {name} is .*: it has to be {need}$") as caught:
        ask(**{name: first_bad})
    assert caught.value.exit_code == USAGE


def test_formats_are_known_ones():
    for fmt in ("parquet", "jsonl", "tokens", "megatron", "manifest"):
        ask(fmt)
    with pytest.raises(CurateError, match="format csv: not known; use parquet") as caught:
        ask("csv")
    assert caught.value.exit_code == USAGE


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        ("ranking", {"index_fingerprint": "other"}, "made from another index"),
        ("ranking", {"target": "other"}, "not the items that were ranked for"),
        ("ranking", {"select_digest": "other"}, "not the items that were ranked for"),
        ("target", {"name": "other"}, "not the items that were ranked for"),
    ],
)
def test_records_that_do_not_belong_together_are_refused(which, change, message):
    changed = {**RANKED, which: SimpleNamespace(**{**vars(RANKED[which]), **change})}
    with pytest.raises(CurateError, match=message):
        check_request(**changed, settings=MixSettings(budget=1), fmt="parquet")


def test_room_is_enough_to_the_last_token():
    tokens = np.array([30, 70])
    check_room(MixSettings(budget=100), tokens)
    check_room(MixSettings(budget=150, max_epochs=1.5), tokens)
    with pytest.raises(CurateError) as caught:
        check_room(MixSettings(budget=101), tokens)
    assert caught.value.exit_code == UNREACHABLE
    assert "the ranked shards hold 100 tokens, 100 at 1 epoch; allow --max-epochs 1.1" in str(
        caught.value
    )
    assert str(caught.value).endswith("at most 100, less what leaks and copies take out")
    for one in ({"decontaminate": False}, {"dedup": False}):
        with pytest.raises(CurateError, match=r"less what leaks and copies take out$"):
            check_room(MixSettings(budget=101, **one), tokens)
    with pytest.raises(CurateError, match=r"at most 100$"):
        check_room(MixSettings(budget=101, decontaminate=False, dedup=False), tokens)
    with pytest.raises(CurateError, match=r"--max-epochs 2,|--max-epochs 2\b"):
        check_room(MixSettings(budget=200), tokens)
    with pytest.raises(CurateError, match="at most 0"):
        check_room(MixSettings(budget=5), np.array([0]))


def test_the_epochs_that_are_advised_are_enough():
    """Each shard gives whole tokens: seven of 11 at 3.5 epochs give 266, not 269."""
    tokens, budget = np.full(7, 11), 269
    with pytest.raises(CurateError) as refused:
        check_room(MixSettings(budget=budget, max_epochs=3.5), tokens)
    advised = float(re.search(r"--max-epochs ([\d.]+)", str(refused.value))[1])
    assert advised == 3.6
    check_room(MixSettings(budget=budget, max_epochs=advised), tokens)


def test_the_epochs_that_are_advised_for_what_is_clean_are_enough():
    def refused(clean, **given):
        states = [
            SimpleNamespace(clean=n, facts=None, copies_of=[], held=np.zeros(0)) for n in clean
        ]
        return str(_too_few(states, Wish(budget=269, names=(), spread=Spread(), **given)))

    said = refused([11] * 7, max_epochs=3.5)
    assert "gives 266 tokens at 3.5 epochs" in said and "allow --max-epochs 3.6, " in said
    assert np.floor(np.full(7, 11) * 3.6).sum() >= 269
    assert refused([0, 0]).endswith(
        "(0 documents hold items of the target, 0 are copies); index more data"
    )


def index_of(*, inputs=(), read=()):
    ledgers = [SimpleNamespace(path=str(path)) for path in read]
    return SimpleNamespace(corpus=SimpleNamespace(inputs=tuple(map(str, inputs))), ledgers=ledgers)


OURS = (
    *PAYLOAD, "meta.json", "data/part-00000.parquet", "data/part-123456.jsonl",
    "data/holdout-00001.ds", "data/part-00000.ds.index", "data/part-00000.bin",
    "data/part-00000.idx", "data/.x.tmp", ".meta.json.1.tmp", "data/train/index.json",
    "data/holdout/index.json", "data/train/part-00000.mds", "data/holdout/.x.tmp",
)  # fmt: skip
NOT_OURS = (
    "notes.txt", "data/notes.txt", "data/part-0000.parquet", "data/part-00000.csv",
    "data/meta.json",
    "part-00000.parquet", "data/deep/part-00000.parquet", "data/train-00000.parquet",
    "data/train/notes.txt", "data/other/index.json", "data/index.json", "train/part-00000.mds",
    "index.json", "deep/.x.tmp", "other/README.md", "data/part-00000.parquet.old",
)  # fmt: skip


def test_the_names_of_a_mix_are_these():
    assert set(PAYLOAD) == {
        "README.md", "decontamination.jsonl", "duplicates.jsonl", "manifest.json",
        "provenance.parquet", "selection.parquet",
        "train_transformers.py", "nanotron.yaml", "olmo_core_mix.py", "torchtitan_mix.py",
        "axolotl.yaml", "litgpt_mix.py",
    }  # fmt: skip


@pytest.mark.parametrize("name", [*OURS, *NOT_OURS])
def test_a_folder_may_hold_what_a_mix_holds_and_nothing_else(tmp_path, name):
    path = tmp_path / "mix" / name
    path.parent.mkdir(parents=True)
    path.write_text("x")
    if name in OURS:
        check_out(tmp_path / "mix", index_of())
        return
    with pytest.raises(CurateError, match="which no mix does"):
        check_out(tmp_path / "mix", index_of())


def test_a_mix_goes_into_no_input_and_around_none(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a").write_text("x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CurateError, match="a file; name a folder"):
        check_out(tmp_path / "file", index_of())
    for out in ("in", "in/deep", "in/deep/mix"):
        if out != "in":
            with pytest.raises(CurateError, match="inside the input"):
                check_out(tmp_path / out, index_of(inputs=[tmp_path / "in"]))
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "mix").mkdir()
    (tmp_path / "mix" / "README.md").write_text("x")
    with pytest.raises(CurateError, match="is in it"):
        check_out(tmp_path / "mix", index_of(read=[tmp_path / "mix" / "README.md"]))
    with pytest.raises(CurateError, match="is in it"):
        check_out(tmp_path / "new", index_of(read=[tmp_path / "new"]))
    check_out(tmp_path / "mix", index_of(inputs=[tmp_path / "in"], read=[tmp_path / "in" / "a"]))
    check_out(tmp_path / "new", index_of(inputs=["hf:org/name", tmp_path / "file"]))


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("web=20%", ("web", "=", 0.2)), ("web>=0.2", ("web", "=", 0.2)), ("a b = 1", None),
        ("web<=5%", ("web", "<=", 0.05)), (" web =100%", ("web", "=", 1.0)),
        ("web=0", ("web", "=", 0)), ("web=.", None), ("web=1.1", None),
        ("web=1", ("web", "=", 1.0)), ("web=.5", ("web", "=", 0.5)),
        ("web=101%", None), ("web=1.2.3", None), ("web", None), ("=20%", None), ("web=-1", None),
    ],
)  # fmt: skip
def test_a_rule_is_read_or_refused(rule, found):
    if found is None:
        with pytest.raises(CurateError, match=r"--keep .*: not a share of a source") as caught:
            read_rule(rule, option="keep")
        assert caught.value.exit_code == USAGE
        return
    assert read_rule(rule, option="keep") == pytest.approx(found)


SHARDS = [SimpleNamespace(source=name) for name in ("web", "web", "law", "code")]
ROOM = np.array([30, 10, 40, 100])


def bounded(keep=(), blend=(), budget=100):
    settings = MixSettings(budget=budget, keep=keep, blend=blend)
    return bound_spread(Spread(order=np.arange(4)), settings, SHARDS, ROOM)


def test_rules_become_bounds_of_groups():
    found = bounded(("web=20%", "law<=10%"), ("general=10%", "code=5%"))
    assert found.groups.tolist() == [2, 2, 1, 0]  # sources in the order of their names
    assert found.floors == {2: 0.2} and found.ceilings == {1: 0.1}
    assert found.blend == ((0, 0.05), (-1, 0.1))
    assert found.order.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("keep", "blend", "code", "message"),
    [
        (("other=1%",), (), USAGE, "no such source in the index; known: code, law, web"),
        (("other=1%",), (), USAGE, "--keep other: no such source"),
        ((), ("other=1%",), USAGE, "--blend other: no such source"),
        (("law",), (), USAGE, "--keep law: not a share"),
        ((), ("law",), USAGE, "--blend law: not a share"),
        ((), ("web<=1%",), USAGE, "write web=1%"),
        (("web=40%", "law=30%"), ("general=31%",), USAGE, "ask for 101%"),
        (("web=20%", "web<=19%"), (), USAGE, "floor is above its ceiling"),
        (
            ("web=20%", "web>=10%"),
            (),
            USAGE,
            "--keep web>=10%: web has that bound already, 20%; name",
        ),
        (("web<=20%", "web<=30%"), (), USAGE, "web has that bound already, 20%; name one"),
        (("web=41%",), (), UNREACHABLE, "--keep asks for 41 tokens, it can give 40"),
        (("web<=30%", "law<=30%", "code<=39%"), (), UNREACHABLE, "together are 99%"),
        ((), ("web=41%",), UNREACHABLE, "--blend asks for 41 tokens, it can give 40"),
        (("code<=10%",), ("code=30%",), USAGE, "30.0% of the mix from code, --keep allows 10%;"),
        (
            (),
            ("law=10%", "law=20%"),
            USAGE,
            "--blend law=20%: law is blended in already, 10%; name",
        ),
        ((), ("general=1%", "general=1%"), USAGE, "general is blended in already, 1%; name one"),
        ((), ("web<=12.5%",), USAGE, r"write web=12\.5%"),
        (("web<=30%", "law<=30%", "code<=39.999%"), (), UNREACHABLE, r"together are 99\.999%"),
        (("web=40%", "law=30%"), ("general=30.01%",), USAGE, r"ask for 100\.01%"),
        (("code<=10%",), ("general=90%",), USAGE, "50.0% of the mix from code, --keep allows"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(keep, blend, code, message):
    with pytest.raises(CurateError, match=message) as caught:
        bounded(keep, blend)
    assert caught.value.exit_code == code


def test_a_floor_is_refused_by_what_was_read_and_never_by_a_guess():
    def look(source, *, depth, clean):
        shard = SimpleNamespace(source=source, n_documents=10)
        return SimpleNamespace(shard=shard, depth=depth, complete=depth == 10, size=9, clean=clean)

    def parts(*states, **rules):
        spread = Spread(order=np.array([1, 0]), groups=np.arange(2), **rules)
        return _split(states, Wish(budget=200, names=("a", "b"), spread=spread)).tolist()

    rest = look("b", depth=10, clean=1000)
    for rules in ({"floors": {0: 0.5}}, {"blend": ((0, 0.5),)}):
        assert parts(look("a", depth=5, clean=45), rest, **rules) == [100, 100]  # guessed: 90
        with pytest.raises(CurateError, match="asks for 100 tokens, it can give 90") as caught:
            parts(look("a", depth=10, clean=90), rest, **rules)
        assert caught.value.exit_code == UNREACHABLE
    assert parts(look("a", depth=5, clean=45), rest, ceilings={1: 0.5}) == [100, 100]
    with pytest.raises(CurateError, match="ceilings of --keep leave less"):
        parts(look("a", depth=10, clean=90), rest, ceilings={1: 0.5})


def test_the_sum_of_shares_may_be_off_by_rounding_and_by_no_more():
    bounded(("web=10%", "law=20%"), ("general=70%",))  # 0.1 + 0.2 + 0.7 > 1 in floats
    bounded(("web=10%", "law=20%", "code=69.99999999%"), ("general=0.00000001%",))
    with pytest.raises(CurateError, match="ask for"):
        bounded(("web=10%", "law=20%"), ("general=70.000001%",))
    with pytest.raises(CurateError, match="ask for 110%"):
        bounded(("web=10%",), ("general=100%",))
    bounded(("web<=30%", "law<=30%", "code<=39.99999999%"))
    with pytest.raises(CurateError, match="leave no mix"):
        bounded(("web<=30%", "law<=30%", "code<=39.999%"))


def test_what_is_blended_in_from_a_source_counts_towards_its_floor():
    spread = bounded(("code>=60%",), ("code=60%",))
    found = spread_tokens(spread, ROOM, budget=100)
    assert found.tolist() == [30, 10, 0, 60]  # the rest in order
    for floor, blended in ((70, 60), (60, 70)):  # whichever is more is what it gets
        spread = bounded((f"code>={floor}%", "law>=30%"), (f"code={blended}%",))
        assert spread_tokens(spread, ROOM, budget=100).tolist() == [0, 0, 30, 70]
    with pytest.raises(CurateError, match="ask for 101%"):
        bounded(("code>=70%", "law>=31%"), ("code=60%",))


@pytest.mark.parametrize("blend", [("general=50%", "web=40%"), ("web=40%", "general=50%")])
def test_all_sources_together_leave_what_is_blended_in_from_one(blend):
    """In whatever order: `general` first left 29 of web's 40 tokens, and 11 fewer were blended."""
    spread = bounded((), blend)
    given = blend_tokens(spread, ROOM, budget=100)
    assert given.tolist() == [30, 10, 14, 36]


def test_sources_that_are_not_known_are_told_the_first_twelve():
    shards = [SimpleNamespace(source=f"s{number:02d}") for number in range(14)]
    settings = MixSettings(budget=1, keep=("x=1%",))
    with pytest.raises(CurateError, match=r"known: s00, .*, s11$"):
        bound_spread(Spread(order=np.arange(14)), settings, shards, np.ones(14))


def test_rules_that_can_just_be_kept_are_taken():
    bounded(("web=40%", "law=30%"), ("general=30%",))
    bounded(("web=20%", "web<=20%"))
    bounded(("web<=30%", "law<=30%", "code<=40%"))
    bounded(("web<=1%", "law<=1%"))
    bounded(("code<=30%",), ("code=30%",))
    bounded(("web=40%",))


@pytest.mark.parametrize("budget", [101, 103])
@pytest.mark.parametrize(
    ("keep", "blend"),
    [
        (("a=50%", "b=50%"), ()),
        (("a<=50%", "b<=50%"), ()),
        ((), ("a=50%", "b=50%")),
        (("a=50%",), ("b=50%",)),
    ],
)
def test_halves_of_an_odd_budget_are_the_budget_to_the_token(keep, blend, budget):
    shards = [SimpleNamespace(source=name) for name in "ab"]
    settings, room = MixSettings(budget=budget, keep=keep, blend=blend), np.array([90, 90])
    spread = bound_spread(Spread(order=np.arange(2)), settings, shards, room)
    found = spread_tokens(spread, room, budget=budget)
    assert found.sum() == budget
    assert np.abs(found - budget / 2).max() < 1


def test_a_share_is_a_whole_number_of_tokens():
    assert [tokens_of(0.29, 100), tokens_of(0.29, 100, most=True)] == [29, 29]
    assert [tokens_of(0.5, 3), tokens_of(0.5, 3, most=True)] == [1, 2]
    assert tokens_of(0.3, 15 * 10**12) == 45 * 10**11


def test_documents_are_cut_unless_they_are_to_stay_whole():
    def shard():
        return Taken(np.arange(3), np.array([10, 20, 30]), 30)

    def cut(place, document, wanted):
        return 10 * wanted, wanted

    fresh = shard()
    assert (fresh.whole, fresh.part, fresh.end, fresh.given, fresh.next_tokens) == (0, 0, -1, 0, 10)
    assert choose_rows([shard()], np.array([15]), budget=15, cut=cut) == 15
    assert choose_rows([shard()], np.array([14]), budget=14, cut=cut, whole=True) == 10
    half = shard()
    choose_rows([half], np.array([13]), budget=13, cut=cut)
    assert (half.whole, half.part, half.end) == (1, 3, 30)
    half = shard()
    assert choose_rows([half], np.array([30]), budget=30, cut=cut) == 30
    assert (half.whole, half.part, half.end) == (3, 0, -1)


def test_a_shard_without_room_gives_nothing():
    found = spread_tokens(Spread(shares=np.array([0.9, 0.1])), np.array([0, 50]), budget=50)
    assert found.tolist() == [0, 50]
    found = spread_tokens(Spread(shares=np.array([0.5, 0.5])), np.array([51, 50]), budget=101)
    assert found.tolist() == [51, 50]
    with pytest.raises(ValueError, match="room for 100 tokens, budget 101"):
        spread_tokens(Spread(shares=np.array([0.5, 0.5])), np.array([50, 50]), budget=101)


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ({"floors": {2: 0.1}}, [0, 900, 100]),  # no half of the book: the others make it up
        ({"floors": {0: 0.3}}, [0, 850, 150]),
        ({"blend": ((0, 0.6),)}, [1000, 0, 0]),  # all of it, and so nothing of the others
        ({"ceilings": {1: 0.6}}, [0, 600, 400]),
    ],
)
def test_of_whole_documents_sources_without_rules_make_up_for_what_others_miss(rules, wanted):
    sizes = [[1000], [50] * 40, [10] * 40]
    taken = [Taken(np.arange(len(each)), np.cumsum(each), sum(each)) for each in sizes]
    spread = Spread(shares=np.ones(3), groups=np.arange(3), **rules)
    book = 600 if "blend" in rules else 300
    parts = np.array([book, 900 - book, 100])
    given = choose_by_source(
        taken, parts, spread, cut=lambda shard, place, tokens: (1, tokens), whole=True
    )
    assert given == sum(each.given for each in taken)
    assert [each.given for each in taken] == wanted


def of_signs(sizes, room=None):
    """Return shards of documents, and a cut of texts of which each sign is so many tokens."""
    shards = [Taken(np.arange(2), np.array([100, 200]), room or 200) for _ in sizes]
    return shards, lambda shard, place, tokens: (1, tokens - tokens % sizes[shard])


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ({"floors": {0: 0.1}}, [12, 88]),  # a sign more, which is not below the floor
        ({"ceilings": {0: 0.1}}, [9, 91]),  # a sign fewer, which is not above the ceiling
        ({"blend": ((0, 0.1),)}, [12, 88]),
    ],
)
def test_what_signs_of_several_tokens_miss_the_sources_without_rules_make_up(rules, wanted):
    taken, cut = of_signs([3, 1])
    spread = Spread(shares=np.ones(2), groups=np.arange(2), **rules)
    assert choose_by_source(taken, np.array([10, 90]), spread, cut=cut) == 100
    assert [each.given for each in taken] == wanted


def test_what_a_source_with_a_rule_has_not_been_read_of_no_other_makes_up():
    taken, cut = of_signs([1, 1])
    taken[0].room = 50  # of the 80 that it is to give: more of it has to be looked at
    spread = Spread(shares=np.ones(2), groups=np.arange(2), floors={0: 0.4})
    assert choose_by_source(taken, np.array([80, 100]), spread, cut=cut) == 150
    assert [each.given for each in taken] == [50, 100]


def test_all_shards_are_looked_at_in_few_rounds_where_no_cut_meets_a_part():
    """Each round filters all documents again: there was one for each shard."""
    states = [Looked(SimpleNamespace(n_documents=1_000), None, 1.0) for _ in range(500)]
    parts, rounds = np.arange(500) % 3, []
    while needed := _deeper(states, parts):
        rounds.append(needed)
        for place, depth in needed.items():
            assert states[place].depth < depth <= 1_000
            states[place].depth = depth
    assert len(rounds) < 60
    assert rounds[0] == {1: 64}  # the first that has a part
    assert all(state.complete for state in states)
