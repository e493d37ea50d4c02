"""Mixes before they are written: what each is forecast to gain, and the one searched for."""

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from curate.corpus.targets import load_target
from curate.mixing import foresight
from curate.mixing.descent import within
from curate.mixing.foresight import PULL, Foresight, path_to, representatives
from curate.mixing.plan import plan_shards
from curate.mixing.stock import Stock
from curate.mixing.weights import spread_tokens
from curate.ranking.rank import rank_shards
from curate.settings import CorpusSettings, EmbedSettings, MixSettings, RankSettings, TargetSettings
from curate.task2vec.embed import build_index

KINDS = {
    "sums": "theorem proof lemma group ring field ideal kernel image finite abelian order",
    "rivers": "water bank stream flood bridge boat fish delta mouth valley source rapids",
    "code": "def return import class self print for while range len try except",
}
TOKENS = 3_000


@pytest.fixture(scope="module")
def looks(tmp_path_factory):
    """Return Foresight for a target of sums and rivers in a pool where sums come twice."""
    folder = tmp_path_factory.mktemp("foresight")
    rng = random.Random(4)

    def texts(kind, n):
        return [" ".join(rng.choices(KINDS[kind].split(), k=40)) for _ in range(n)]

    for name, kind in [*((kind, kind) for kind in KINDS), ("sums_again", "sums")]:
        (folder / f"{name}.txt").write_text("\n\n".join(texts(kind, 60)))
    items = [text for pair in zip(texts("sums", 20), texts("rivers", 20), strict=True)
             for text in pair]  # fmt: skip
    (folder / "ask.txt").write_text("\n".join(items[:20]))
    (folder / "judge.txt").write_text("\n".join(items[20:]))
    index = build_index(
        CorpusSettings(inputs=tuple(str(folder / f"{name}.txt") for name in (*KINDS, "sums_again")),
                       shard_tokens=400),
        EmbedSettings(batches=1, batch_tokens=64, block_tokens=32),
        workspace=folder / "ws", device="cpu",
    )  # fmt: skip
    target = load_target(TargetSettings(name=f"both={folder / 'ask.txt'},{folder / 'judge.txt'}"))
    ranking = rank_shards(index, target, RankSettings(), workspace=folder / "ws", device="cpu")
    return lambda tokens=TOKENS: Foresight(Stock(index), ranking, target, None, tokens)


def shares_of(look):
    tokens = np.array([line.tokens for line in look.ranking.shards], float)
    return tokens / tokens.sum(), tokens / look.tokens


def match(look, **given):
    """Return the mixture that is searched for."""
    natural, caps = shares_of(look)
    return within(caps)(look.match(natural, within(caps), **given))


def drop(look, shares):
    names = [line.shard for line in look.ranking.shards]
    return look.drops([dict(zip(names, shares * look.tokens, strict=True))])[0]


def by_source(look, shares):
    found = dict.fromkeys((*KINDS, "sums_again"), 0.0)
    for line, share in zip(look.ranking.shards, shares, strict=True):
        found[line.source] += share
    return found


def test_natural_proportions_gain_nothing(looks):
    look = looks()
    natural, _ = shares_of(look)
    assert drop(look, natural) == pytest.approx(0, abs=1e-4)


def test_the_drop_is_that_of_the_description(looks):
    look = looks()
    names = [line.shard for line in look.ranking.shards]
    shares = match(look)
    parts = dict(zip(names, shares * TOKENS, strict=True))
    assert look.drops([parts])[0] == pytest.approx(
        look.compare(parts)["mix"].forecast.drop, abs=1e-4
    )


def test_a_target_of_two_kinds_gets_both_though_one_is_there_twice(looks):
    look = looks()
    found = by_source(look, match(look))
    assert found["code"] < 0.1
    assert min(found["rivers"], found["sums"] + found["sums_again"]) > 0.25


def test_no_mixture_of_sources_on_a_grid_is_forecast_to_gain_more(looks):
    look = looks()
    natural, caps = shares_of(look)
    sources = [line.source for line in look.ranking.shards]
    best = drop(look, match(look, pull=0.01))
    grid = [(a, b, 1 - a - b) for a in np.linspace(0, 1, 11) for b in np.linspace(0, 1 - a, 6)]
    own = by_source(look, natural)
    for sums, rivers, code in grid:
        wanted = {"sums": sums / 2, "sums_again": sums / 2, "rivers": rivers, "code": code}
        shares = natural * [wanted[each] / own[each] for each in sources]
        if (shares <= caps).all():
            assert drop(look, shares) <= best + 0.01


def test_a_pull_is_a_price(looks):
    look = looks()
    _, caps = shares_of(look)
    shares = [match(look, pull=pull) for pull in (100.0, 1.0, PULL, 0.01)]
    drops = [drop(look, each) for each in shares]
    assert drops == sorted(drops) and drops[0] < 0.1 * drops[-1]
    for each in shares:
        assert each.sum() == pytest.approx(1) and (each <= caps + 1e-9).all()


def test_a_budget_of_all_takes_all(looks):
    total = sum(line.tokens for line in looks().ranking.shards)
    look = looks(total)
    natural, _ = shares_of(look)
    np.testing.assert_allclose(match(look), natural)


@pytest.mark.parametrize(
    "rules", [{"blend": ("general=60%",)}, {"blend": ("sums=50%",)}, {"keep": ("code>=40%",)}]
)
def test_what_the_rules_of_sources_take_anyway_is_counted_on(looks, rules):
    """Found under the rules, it gains at least what the free mixture gains put under them."""
    look = looks()
    settings = MixSettings(budget=TOKENS, selection="match", temperature=0.01, **rules)
    planned = plan_shards(look, settings)
    natural, caps = shares_of(look)
    free = replace(planned.spread, shares=look.match(natural, within(caps), pull=0.01))
    room = np.array([line.tokens for line in look.ranking.shards], np.int64)
    parts = spread_tokens(free, room, budget=TOKENS)
    names = [line.shard for line in look.ranking.shards]
    scaled = dict(zip(names, parts.tolist(), strict=True))
    found, other = look.drops([planned.tokens, scaled])
    assert sum(planned.tokens.values()) == TOKENS
    assert found > other - 0.003
    if "blend" in rules:
        assert found > other + 0.002


def test_shards_that_go_by_their_neighbours_give_nearly_the_same_mixture(looks, monkeypatch):
    whole = looks()
    natural, caps = shares_of(whole)
    monkeypatch.setattr(foresight, "LOOKED", len(natural) // 2)
    few = looks()
    found = match(few)
    assert found.sum() == pytest.approx(1) and (found <= caps + 1e-9).all()
    assert drop(whole, found) > 0.9 * drop(whole, match(whole))


@pytest.mark.parametrize(("n", "most"), [(1, 4), (4, 4), (5, 4), (100, 10), (1_000_003, 2_048)])
def test_the_best_go_by_themselves_and_the_others_by_a_neighbour(n, most):
    looked, group = representatives(n, most=most)
    assert len(group) == n and len(looked) <= most
    assert (np.diff(looked) > 0).all() and (np.diff(group) >= 0).all()
    np.testing.assert_array_equal(group[looked], np.arange(len(looked)))
    alone = n if n <= most else most // 2
    np.testing.assert_array_equal(looked[:alone], np.arange(alone))
    assert len(set(np.bincount(group)[alone:-1].tolist())) <= 1  # groups of one size


def test_a_path_ends_at_the_pull_that_was_asked_for():
    assert path_to(3.0) == [3.0]
    assert path_to(1.0) == [1.0]
    found = path_to(0.1)
    assert found[0] == 1.0 and found[-1] == 0.1 and found == sorted(found, reverse=True)
    assert all(after / before > 0.7 for before, after in pairwise(found))
