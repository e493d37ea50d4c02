"""The bench that settles the defaults: its statistics, and a small run of all of it.

The small run is the guard of the ranking: models are trained on real text, and a change that
makes a method of `rank` worse at forecasting their losses fails here.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from scipy.stats import t as student

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # the bench is a script with its rooms beside it

import alignment_vs_loss as bench  # noqa: E402
import pieces  # noqa: E402
import pooled  # noqa: E402
import smoothing  # noqa: E402
from evidence import agreement, data, estimators, forecasts, measures, models  # noqa: E402
from evidence.estimators import published_distance  # noqa: E402
from evidence.plan import Arm, Settings, is_near, is_same, plan_arms  # noqa: E402

from curate.errors import CurateError  # noqa: E402
from curate.ranking import samples  # noqa: E402
from curate.ranking.baselines import PAIRED  # noqa: E402
from curate.ranking.compression import compression  # noqa: E402
from curate.ranking.stats import Influences, t_intervals  # noqa: E402
from curate.records import Target  # noqa: E402
from curate.settings import CorpusSettings, EmbedSettings  # noqa: E402
from curate.store.fingerprint import digest_texts  # noqa: E402
from curate.task2vec.embed import build_index  # noqa: E402
from curate.verification.published import forecast_scalars  # noqa: E402

nan = float("nan")
UNGRADED = {f"task2vec {measure}" for measure in ("cosine", "log", "whitened")}
UNGRADED |= {"perplexity", "compression", "transfer"}
"""Methods that do not ask for the target, or hardly order anything; raw cosine is set by the few
rows of largest Fisher, and `log` and `whitened` have their origin among the shards that they rank:
each puts some mixture of docstrings and code below pure code."""
GUARD = {"ngram-lm": 0.7, "lexical": 0.7, "task2vec scaled": 0.5}
"""Within-target Spearman over arms. Other draws of the documents gave 0.83 to 0.93 and 0.66 to
0.80; an order without sense gives 0."""


@pytest.fixture
def tables():
    """Values and losses of 6 arms and 4 targets, with ties and cells left out."""
    rng = np.random.default_rng(3)
    values, loss = rng.integers(0, 5, (6, 4)).astype(float), rng.normal(5, 1, (6, 4))
    loss[1, 0] = loss[2, 2] = nan
    return values, loss


def cells(values, loss, target):
    kept = np.isfinite(values[:, target] + loss[:, target])
    return values[kept, target], loss[kept, target]


# --- the statistics against their definitions ---


def test_spearman_is_the_mean_over_targets(tables):
    values, loss = tables
    naive = [spearmanr(x, -y).statistic for x, y in (cells(values, loss, t) for t in range(4))]
    assert agreement.within_spearman(values, loss) == pytest.approx(np.mean(naive))


def test_concordance_counts_pairs(tables):
    values, loss = tables
    right = []
    for target in range(4):
        for (x, y), (z, w) in itertools.combinations(zip(*cells(values, loss, target)), 2):  # noqa: B905
            right.append(0.5 if x == z else float((x > z) == (y < w)))
    assert agreement.concordance(values, loss) == pytest.approx(np.mean(right))


def test_r_squared_is_of_all_cells_and_centred_of_each_target(tables):
    values, loss = tables
    pairs = [cells(values, loss, target) for target in range(4)]
    x, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
    assert agreement.r_squared(values, loss) == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    centred = [(x - x.mean(), y - y.mean()) for x, y in pairs]
    x, y = (np.concatenate(part) for part in zip(*centred, strict=True))
    assert agreement.r_squared_centred(values, loss) == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)


def test_a_hard_target_is_no_achievement():
    """Two targets of different difficulty: all of r² over cells, nothing of it within."""
    values = np.array([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0], [3.0, 13.0]])
    loss = np.array([[9.0, 1.0], [9.0, 1.1], [9.1, 1.0], [9.0, 1.0]])
    assert agreement.r_squared(values, loss) > 0.9
    assert agreement.r_squared_centred(values, loss) < 0.1


def test_top_one_and_regret_of_a_choice():
    values = np.array([[3.0, 1.0], [2.0, 2.0], [1.0, nan]])
    loss = np.array([[4.0, 6.0], [5.0, 5.0], [3.5, 1.0]])
    assert agreement.top_one(values, loss) == 0.5
    assert agreement.regret(values, loss) == pytest.approx(0.25)  # 0.5 and, of two arms, 0


def test_of_arms_that_share_the_first_place_each_is_as_likely():
    values = np.array([[2.0, 0.0], [2.0, 0.0], [1.0, 0.0], [nan, 0.0]])
    loss = np.array([[5.0, 1.0], [4.0, 2.0], [6.0, 3.0], [0.0, 6.0]])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        assert agreement.top_one(values[order], loss[order]) == pytest.approx((1 / 2 + 1 / 4) / 2)
        assert agreement.regret(values[order], loss[order]) == pytest.approx((0.5 + 2.0) / 2)


@pytest.mark.parametrize("name", agreement.STATISTICS)
def test_a_perfect_measure_is_perfect_and_order_and_scale_do_not_matter(name, tables):
    values, loss = tables
    work = agreement.STATISTICS[name]
    perfect = {"regret": 0.0}.get(name, 1.0)
    assert work(-loss, loss) == pytest.approx(perfect)
    shuffle = np.random.default_rng(0).permutation(6)
    distinct = values + np.random.default_rng(1).uniform(0, 0.1, values.shape)
    assert work(3 * distinct + 7, loss) == pytest.approx(work(distinct, loss))
    assert work(distinct[shuffle], loss[shuffle]) == pytest.approx(work(distinct, loss))


def test_statistics_of_nothing_are_not_numbers_and_do_not_warn():
    none = np.full((3, 2), nan)
    assert np.isnan(agreement.within_spearman(none, none))
    assert np.isnan(agreement.concordance(none, none))
    assert np.isnan(agreement.regret(none, none))
    assert agreement.r_squared(none, none) == 0


def test_intervals_hold_the_value_and_a_measure_does_not_differ_from_itself(tables):
    values, loss = tables
    measures = {"good": -loss + 0.1 * values, "poor": values}
    kept = np.isfinite(loss)
    found = agreement.compare(measures, loss, kept=kept, reference="poor", draws=100)
    for row in found.values():
        assert row["concordance"].low <= row["concordance"].value <= row["concordance"].high
    same = found["poor"]["spearman_minus"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert found["good"]["spearman_minus"].value > 0
    assert found == agreement.compare(measures, loss, kept=kept, reference="poor", draws=100)


def test_intervals_widen_with_fewer_targets():
    rng = np.random.default_rng(5)
    loss = rng.normal(size=(14, 20))
    values = {"some": -loss + rng.normal(size=loss.shape)}

    def width(count):
        part = {name: row[:, :count] for name, row in values.items()}
        found = agreement.compare(
            part, loss[:, :count], kept=np.ones((14, count), bool), reference="some", draws=200
        )["some"]["spearman"]
        return found.high - found.low

    assert width(3) > 1.2 * width(20)


# --- the learnt combination ---


def test_a_combination_finds_the_weights_and_never_sees_the_cell_it_forecasts():
    rng = np.random.default_rng(1)
    a, b, useless = (rng.normal(size=(12, 8)) for _ in range(3))
    loss = -(2 * a + b)
    forecast, weights = agreement.learn_combination({"a": a, "b": b, "useless": useless}, loss)
    assert weights["a"] == pytest.approx(2 / 3, abs=0.06)
    assert weights["useless"] < 0.02
    assert agreement.within_spearman(forecast, loss) > 0.97
    changed = loss.copy()
    changed[:, 3] = rng.normal(size=12)  # another outcome of target 3 may not move its forecast
    again, _ = agreement.learn_combination({"a": a, "b": b, "useless": useless}, changed)
    assert np.array_equal(again[:, 3], forecast[:, 3])
    assert not np.array_equal(again[:, 4], forecast[:, 4])


def test_a_combination_of_noise_does_not_look_good():
    rng = np.random.default_rng(2)
    noise = {str(n): rng.normal(size=(14, 10)) for n in range(8)}
    forecast, _ = agreement.learn_combination(noise, rng.normal(size=(14, 10)))
    assert abs(agreement.within_spearman(forecast, rng.normal(size=(14, 10)))) < 0.25


def test_the_mean_of_measures_counts_each_target_by_its_own_spread():
    one = np.array([[1.0, 100.0], [2.0, 200.0], [3.0, 300.0]])
    assert agreement.mean_of_ranks({"a": one, "b": 5 * one}) == pytest.approx(
        (one - one.mean(0)) / one.std(0)
    )


# --- forecasts, arms, losses ---


def test_forecasts_of_a_linear_world_are_right_nine_times_of_ten():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=40)
    loss = 6 - 2 * x + rng.normal(0, 0.05, 40)
    found = forecasts.hold_forecasts({"x": x}, loss)
    assert 0.8 <= found["coverage"] <= 1 and found["spearman"] > 0.9
    assert found["rmse"] == pytest.approx(0.05, rel=0.4)


def world_of_mixes(rng, n=30, corpora=5):
    shares = rng.dirichlet(np.ones(corpora), n)
    pairs = 4 + 4 * shares @ np.linspace(0, 1, corpora)
    return shares, pairs, 2 + 0.8 * pairs + rng.normal(0, 0.02, n)


def test_a_few_mixes_forecast_all_others_by_what_decides_and_not_by_noise():
    rng = np.random.default_rng(1)
    _, pairs, loss = world_of_mixes(rng)
    by = {
        name: forecasts.hold_few(
            scalars, np.ones((30, 1)), np.ones((30, 0)), loss, spread=pairs, mixes=6, draws=8
        )
        for name, scalars in {"right": {"x": pairs}, "noise": {"x": rng.normal(size=30)}}.items()
    }
    assert by["right"]["error"] < 0.03 and by["right"]["spearman"] > 0.98
    assert by["noise"]["error"] > 5 * by["right"]["error"]
    assert by["noise"]["width"] > 5 * by["right"]["width"]
    assert 0.8 <= by["right"]["coverage"] <= 1


def test_what_is_forecast_from_first_is_what_verify_takes():
    rng = np.random.default_rng(2)
    shares, pairs, _ = world_of_mixes(rng)
    kinds = forecasts.kinds_of_scalars(
        {"single tokens": pairs + 1, "token pairs": pairs}, pairs, forecasts.breadth_of(shares)
    )
    first = next(iter(kinds.values()))
    assert first.keys() == forecast_scalars(pairs).keys() and len(kinds) == 6
    assert np.array_equal([*first.values()], [pairs, np.log(pairs)])


def test_breadth_is_the_entropy_of_shares():
    shares = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert forecasts.breadth_of(shares) == pytest.approx([0, np.log(2)])


def test_arms_are_sources_natural_and_mixtures_of_two_to_six():
    names = [f"corpus_{n}" for n in range(9)]
    arms = plan_arms(names, Settings(mixtures=20))
    assert [arm.source for arm in arms[:9]] == names and arms[9].name == "natural"
    for arm in arms:
        assert sum(arm.shares.values()) == pytest.approx(1)
    assert {len(arm.shares) for arm in arms[10:]} == {2, 3, 4, 5, 6}
    assert arms == plan_arms(names, Settings(mixtures=20))
    assert arms[10:15] == plan_arms(names, Settings(mixtures=5))[10:]  # more only adds


def test_near_and_same_are_about_the_corpus_and_its_family():
    arms = [Arm("formal_coq", {"formal_coq": 1.0}), Arm("mix", {"patents": 0.6, "mine": 0.4})]
    targets = ["proofnet", "formal_coq", "patents", "mine"]
    assert is_near(arms, targets).tolist() == [
        [True, True, False, False],
        [False, False, True, False],
    ]
    assert is_same(arms, targets).tolist() == [
        [False, True, False, False],
        [False, False, True, True],
    ]


def test_a_run_over_all_items_gives_each_target_its_own_loss():
    class Run:
        item_nats, item_tokens = (2.0, 4.0, 9.0), (1, 2, 3)

    assert models.per_target(Run, [2, 1]).tolist() == [2.0, 3.0]


def test_the_recipe_is_timed_on_the_tokens_that_its_accuracy_is_of():
    def lines(*rows):
        names = ("estimator", "tokens", "seconds", "spearman")
        return [dict(zip(names, row, strict=True)) for row in rows]

    recipes = (("published", 2_048, 6.3, 0.86), ("published, head not tuned", 4_096, 1.5, 0.80))
    exact = (("exact", 512, 0.1, 0.85), ("exact", 1_024, 0.2, 0.95), ("exact", 4_096, 0.8, 0.98))
    found = estimators.speedup_vs_published(lines(*recipes, *exact))
    assert (found["published_seconds"], found["exact_tokens_to_that"]) == (6.3, 1_024)
    assert found["speedup_vs_published"] == 31.5
    assert found["published_seconds_as_published"] == pytest.approx(32 * 6.3)
    better = lines(recipes[0], ("published, head not tuned", 4_096, 1.5, 0.90), *exact)
    assert estimators.speedup_vs_published(better)["speedup_vs_published"] == 7.5
    assert "speedup_vs_published" not in estimators.speedup_vs_published(lines(*recipes, exact[0]))


def test_intervals_of_half_of_the_items_hold_the_mean_of_all_as_often_as_they_say():
    rng = np.random.default_rng(0)
    population = rng.normal(size=40)
    held = {"there": [], "could be": []}
    for _ in range(1_000):
        drawn = rng.permutation(population)[:20]
        moves = Influences((drawn - drawn.mean())[None], np.zeros((1, 2)), np.array([2]))
        there = estimators.of_those_there(moves, drawn=20, there=40)
        for name, each in {"there": there, "could be": moves}.items():
            low, high = t_intervals(np.array([drawn.mean()]), each)
            held[name].append(bool(low[0] <= population.mean() <= high[0]))
    assert np.mean(held["there"]) == pytest.approx(0.95, abs=0.02)
    assert np.mean(held["could be"]) > 0.985


def test_the_ceiling_of_a_noisy_reference_is_recovered():
    """Distances of 4,000 pairs, noise of variance k/n: what the formula says, and its inverse."""
    rng = np.random.default_rng(0)
    truth, k, reference = rng.normal(size=4_000), 120.0, 8_192
    sizes = (512, 1_024, 2_048, 4_096)

    def noisy(n):
        return truth + rng.normal(size=truth.shape) * np.sqrt(k / n)

    converged = noisy(reference)
    measured = [np.corrcoef(noisy(n), converged)[0, 1] for n in sizes]
    found = estimators.reference_ceiling(sizes, measured, reference=reference)
    assert found["ceiling_of_reference"] == pytest.approx((1 + k / reference) ** -0.5, abs=1e-3)
    assert found["tokens_to_0.995_of_converged"] == pytest.approx(99.25 * k, rel=0.1)
    assert found["largest_misfit"] < 5e-3
    enough = found["tokens_to_0.995_of_converged"]
    assert np.corrcoef(noisy(enough), truth)[0, 1] == pytest.approx(0.995, abs=1e-3)


# --- a known order ---


@pytest.fixture(scope="module")
def graded(corpus_folder, tmp_path_factory):
    """Five shards from all code to all docstrings, and docstrings as the target."""
    folder = tmp_path_factory.mktemp("graded")
    docs, code = (
        [json.loads(line)["text"] for line in (corpus_folder / name).read_text().splitlines()]
        for name in ("docstrings.jsonl", "code.jsonl")
    )
    for eighths in range(0, 9, 2):
        texts = docs[:24][: 3 * eighths] + code[: 24 - 3 * eighths]
        lines = [json.dumps({"text": text[:1_200]}) for text in texts]
        (folder / f"part_{eighths}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    index = build_index(
        CorpusSettings(inputs=(str(folder),)),
        EmbedSettings(batch_tokens=1_536),
        workspace=folder / "work",
        device="cpu",
    )
    items = tuple(text[:1_200] for text in docs[40:80])
    digest = digest_texts(items)
    return index, Target("docs", items, items, digest, digest, "here"), folder / "work"


@pytest.mark.parametrize("name", sorted(measures.ranking_methods().keys() - UNGRADED))
def test_more_of_the_targets_kind_ranks_higher(graded, name):
    index, target, workspace = graded
    found = measures.ranking_methods()[name](index, target, workspace, "cpu")
    values = [found[f"part_{eighths}"] for eighths in range(0, 9, 2)]
    assert values == sorted(values)


@pytest.fixture
def measured_out(graded, tmp_path):
    """What the bench of pieces reads, of the graded shards: the more docstrings, the less loss."""
    _, target, workspace = graded
    (tmp_path / "arms-index").symlink_to(workspace)
    for half in ("select", "eval"):
        lines = [json.dumps({"text": text}) for text in getattr(target, half)]
        (tmp_path / f"docs-{half}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    names = [f"part_{eighths}" for eighths in (8, 0, 4, 2, 6)]  # in an order of its own
    details = {
        "arms": [{"name": name} for name in names],
        "targets": ["docs"],
        "loss": [[9.0 - int(name[-1])] for name in names],
    }
    (tmp_path / "result.json").write_text(json.dumps({"details": details}), encoding="utf-8")
    return tmp_path


def test_pieces_are_compared_by_the_order_that_they_give(measured_out, monkeypatch, capsys):
    words = ["--data", str(measured_out), "--out", str(measured_out), "--draws", "20", "--json"]
    forms = ["--forms", "4000", "300x4", "300x8", "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", ["pieces.py", *words, *forms])
    pieces.main()
    found = json.loads(capsys.readouterr().out)["pieces"]
    assert set(found) == set(pieces.METHODS)
    assert list(found["ngram"]) == ["4000x32", "300x4"]
    assert list(found["compression"]) == ["4000x32", "300x4", "300x8"]
    assert found["ngram"]["4000x32"] | {"seconds": 0} == {
        "spearman": 1, "minus": 0, "low": 0, "high": 0, "by_seed": [1, 1], "seconds": 0
    }  # fmt: skip
    for rows in found.values():
        for row in rows.values():
            assert row["low"] <= row["high"] and len(row["by_seed"]) == 2
            assert row["minus"] == pytest.approx(
                row["spearman"] - rows["4000x32"]["spearman"], abs=2e-4
            )


def test_fewer_pairs_are_the_first_of_more(graded):
    """What the bench infers from one pass is what the method gives; the product's own form too."""
    index, target, workspace = graded
    items = list(target.select)
    forms = [(300, 3), (300, 9), (300, 999)]
    measured = list(pieces.measure(index, [items], "compression", forms, seed=0))
    found = {form: values[:, 0] for form, values, _ in measured}
    seconds = [each for _, _, each in measured]
    texts = pieces.read_pieces(index, 300, seed=0)
    assert max(len(text) for each in texts for text in each) == 300
    for (_, paired), values in found.items():
        direct, _ = compression(items, [each[:paired] for each in texts])
        assert values == pytest.approx(direct, abs=1e-12)
    assert not np.allclose(found[300, 3], found[300, 9])
    sizes = [[min(len(each), paired) for each in texts] for _, paired in forms]
    assert np.divide(seconds, seconds[-1]) == pytest.approx(
        np.sum(sizes, axis=1) / np.sum(sizes[-1])
    )  # a shard has fewer than 999
    usual = [(samples.READ_CHARACTERS, PAIRED)]
    ((_, values, _),) = pieces.measure(index, [items], "compression", usual, seed=0)
    ranked = measures.ranking_methods()["compression"](index, target, workspace, "cpu")
    assert values[:, 0] == pytest.approx([ranked[one.shard.name] for one in index.shards])
    assert min(seconds) > 0


def test_texts_are_those_of_the_run_whose_losses_are_read(tmp_path):
    """A folder may hold several runs: what a result has noted is read, and nothing is guessed."""
    out = tmp_path / "out"

    def write(run):
        arm, pool = out / "arms" / run / "coq.jsonl", out / "pool" / run / "coq.jsonl"
        halves = [pool.parent / "slices" / f"coq-{half}.jsonl" for half in ("select", "eval")]
        for path in (arm, pool, *halves):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"text": f"{run} {path.stem}"}), encoding="utf-8")
        return data.note_files(out, {"coq": arm}, [pool])

    details = {"arms": [{"name": "coq"}], "targets": ["coq"]}
    files = write("one")
    only = ([["one coq-select"]], [["one coq"]])
    assert smoothing.read_texts(tmp_path, out, details, {}) == only
    other = write("another")
    assert smoothing.read_texts(tmp_path, out, details, files) == only
    assert smoothing.read_texts(tmp_path, out, details, other)[1] == [["another coq"]]
    with pytest.raises(CurateError, match="2 files of coq"):
        smoothing.read_texts(tmp_path, out, details, {})


# --- all of it, small ---


@pytest.fixture(scope="module")
def small_run(corpus_folder, target_files, tmp_path_factory):
    """Three real corpora, three mixtures of them, models of 5,000 tokens: about 15 seconds."""
    data = tmp_path_factory.mktemp("data")
    (data / "corpora").symlink_to(corpus_folder)
    out = tmp_path_factory.mktemp("out")
    select, held_out = target_files
    words = [
        "--data", data, "--out", out, "--targets", f"docs={select},{held_out}",
        "--tokens", 5_000, "--pool", 10, "--slice-tokens", 3_000,
        "--mixtures", 2, "--seeds", 1, "--eval-tokens", 1_000, "--embed-tokens", 384,
        "--draws", 10, "--json", "--measures", *GUARD, "embedding", "perplexity",
    ]  # fmt: skip
    return [str(word) for word in words], out


def call(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alignment_vs_loss.py", *words])
    bench.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_methods_forecast_the_losses_of_models_that_were_trained(small_run, monkeypatch, capsys):
    words, out = small_run
    monkeypatch.setattr(forecasts, "FEW", (2,))
    found = call(words, monkeypatch, capsys)
    every = found["agreement"]["sources and mixtures"]
    assert found["cells"]["sources and mixtures"] == 24
    for name, least in GUARD.items():
        assert every[name]["spearman"][0] >= least, name
    assert every["perplexity"]["spearman"][0] < every["lexical"]["spearman"][0]
    assert (out / "result-agreement.svg").read_text().startswith("<svg")
    files = found["bench"]["files"]
    assert set(files) == {"arms", "slices"} and len(files["arms"]) == 6
    assert all((out / path).is_file() for kind in files.values() for path in kind.values())
    text = (out / "result.md").read_text()
    assert "| lexical |" in text and "| token pairs, their logarithm |" in text
    assert "| 2 | Task2Vec alignment |" in text
    few = found["forecast"]["few"]["2"]["token pairs"]
    assert np.isfinite(few["error"]) and few["width"] > few["error"]

    def fail(*_):
        raise AssertionError("trained or measured again")

    monkeypatch.setattr("curate.verification.training.train_models", fail)
    monkeypatch.setattr("curate.ranking.methods.measure", fail)
    (out / "result.json").unlink()
    again = call(words, monkeypatch, capsys)
    assert again["agreement"] == found["agreement"]


def test_distance_is_the_published_formula():
    a, b = np.array([1.0, 2.0, 0.0]), np.array([1.0, 0.0, 0.0])
    x, y = np.array([0.5, 1.0, 0.0]), np.array([0.5, 0.0, 0.0])
    expected = 1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    assert published_distance(a, b) == pytest.approx(expected, abs=1e-7)
    assert published_distance(a, a) == pytest.approx(0, abs=1e-7)
    a, b = np.array([1.0, 2e-8]), np.array([1.0, 0.0])  # the 1e-8 is not scale-free
    assert abs(published_distance(a, b) - published_distance(1e8 * a, 1e8 * b)) > 0.02


def test_series_together_tell_more_than_one(tmp_path):
    """Of ten training sets one measure is right, one is noise, one is the first by another name."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(2):
        loss = rng.normal(size=(10, 4))
        values = {"right": -loss, "same": -2 * loss, "noise": rng.normal(size=loss.shape)}
        tables = {name: table.tolist() for name, table in values.items()}
        arms = [{"name": f"set {n}"} for n in range(10)]
        details = {"arms": arms, "targets": list("abcd"), "loss": loss.tolist(), "values": tables}
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps({"details": details}), encoding="utf-8")
    both, one = [pooled.read_series(path) for path in paths], [pooled.read_series(paths[0])]
    same = pooled.differences(both, "right", "same", draws=20, seed=0)["spearman"]
    assert (same["ahead"], same["low"], same["high"]) == (0, 0, 0)
    rows = [
        pooled.differences(some, "right", "noise", draws=200, seed=0)["spearman"]
        for some in (one, both)
    ]
    wanted = 1 - np.mean(
        [agreement.within_spearman(each["values"]["noise"], each["loss"]) for each in both]
    )
    assert rows[1]["ahead"] == pytest.approx(wanted)
    assert 0 < rows[1]["low"] < rows[1]["ahead"] < rows[1]["high"]
    widths = [row["high"] - row["low"] for row in rows]
    assert widths[1] < widths[0]


def test_a_line_through_what_gains_on_natural_proportions_is_recovered():
    values = np.array([[-5.0, -6.0], [-4.0, -8.0], [-4.5, -5.5]])  # the first set is natural
    loss = np.array([[5.0, 6.0], [4.3, 99.0], [4.65, 5.65]])  # where nothing is gained: any
    one = {"sets": ["natural", "a", "b"], "values": {"pairs": values}, "loss": loss}
    found = pooled.prior_line([one, one], "pairs")
    assert found["n"] == 6
    assert found["slope"] == pytest.approx(0.7)
    assert found["residual_sd"] == pytest.approx(0, abs=1e-12)


def test_a_line_is_held_against_targets_and_series_that_it_was_not_fitted_on():
    """Nine targets of one slope and one of another: the interval of all holds it, theirs do not."""
    rng = np.random.default_rng(0)
    gain = np.vstack([np.zeros(10), rng.uniform(0.5, 1.0, (6, 10))])
    slopes = np.append(np.ones(9), 1.5)

    def series(seed):
        noise = 0.1 * np.random.default_rng(seed).normal(size=gain.shape)
        sets = ["natural", *"abcdef"]
        return {"sets": sets, "values": {"pairs": gain}, "loss": 5 - slopes * gain + noise}

    every = [series(1), series(2)]
    found = pooled.prior_line(every, "pairs")
    cells = pooled.read_gains(every, "pairs")
    held = []
    for target in range(10):  # by hand
        other = cells["target"] != target
        slope = (cells["gain"] * cells["drop"])[other].sum() / (cells["gain"] ** 2)[other].sum()
        off = cells["drop"] - slope * cells["gain"]
        half = student.ppf(0.95, other.sum() - 1) * np.sqrt(
            (off[other] ** 2).sum() / (other.sum() - 1)
        )
        held.append(np.mean(np.abs(off[~other]) <= half))
    assert found["n"] == 120 and found["held_target"] == pytest.approx(np.mean(held))
    assert found["least_target"] == min(held) == held[-1] < 0.5
    assert 0.85 < found["held_series"] <= 1 and found["held"] > found["held_target"]
    assert "held_series" not in pooled.prior_line(every[:1], "pairs")
