"""The experiment: the forecast before the mix, resumable, refutable; what verify refuses."""

import csv
import dataclasses
import math
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from scipy import stats

from curate.errors import CurateError
from curate.ranking.ngram_lm import pair_cross_entropy
from curate.records import NEVER, Forecast, Interval, Run, Verification
from curate.settings import VerifySettings
from curate.store.publish import publish_json
from curate.verification import prepared
from curate.verification import training as training_module
from curate.verification.arms import plan_arms
from curate.verification.caveats import _enough, find_caveats
from curate.verification.checkpoint import read_checkpoint
from curate.verification.experiment import run_experiment
from curate.verification.export import write_tables
from curate.verification.measured import whole_points
from curate.verification.outcome import (
    FURTHEST,
    Drop,
    alignment_fit,
    alignment_slope,
    compute_multiplier,
    judge,
    loss_at,
    loss_draws,
    loss_interval,
    measured_drop,
    tokens_to_reach,
)
from curate.verification.power import item_error, seeds_needed
from curate.verification.prepared import Experiment
from curate.verification.published import (
    Look,
    MeasuredArm,
    digest_forecast,
    publish_forecast,
    read_forecast,
)
from curate.verification.runs import plan_run, publish_documents, read_documents
from curate.verification.train import TrainSettings
from curate.verification.verdict import _outcomes, _sentence, places_for

SETTINGS = VerifySettings(
    size="tiny", tokens=2_048, seeds=2, calibration=2, block_tokens=32, batch_tokens=256
)
VOCAB = 60
ROOM = np.array([3_000, 3_000, 3_000, 3_000])
ALIGNMENTS = np.array([0.9, 0.6, 0.3, 0.1])
KINDS = ("a", "b", "c", "d")


def write(kind, n_tokens, seed):
    """Documents of four kinds: the tokens of a kind overlap with those of its neighbours."""
    rng = np.random.default_rng([kind, seed])
    first = 1 + 12 * kind
    made = []
    while n_tokens > 0:
        size = min(n_tokens, int(rng.integers(10, 40)))
        made.append(rng.integers(first, first + 20, size=size).astype(np.int32))
        n_tokens -= size
    return made


def arm_documents(arm):
    return [doc for kind, n in enumerate(arm.tokens) for doc in write(kind, n, seed=1)]


def look(mixtures):
    shares = np.array([[mixture.get(kind, 0.0) for kind in KINDS] for mixture in mixtures])
    return Look(shares @ ALIGNMENTS, shares, np.log(shares + 0.01))


def make_experiment(folder, *, mix=(2_000, 0, 0, 0), settings=SETTINGS):
    arms = plan_arms(
        ALIGNMENTS,
        ROOM,
        np.array(mix),
        tokens=2_000,
        calibration=settings.calibration,
        seeds=settings.seeds,
    )
    items = write(0, 900, seed=3)
    return Experiment(
        target="toy",
        arms=arms,
        shards=KINDS,
        sources=("formal", "formal", "prose", "prose"),
        look=look,
        select=write(0, 900, seed=2),
        items=items,
        control=[doc for kind in range(4) for doc in write(kind, 60, seed=4)],
        n_bytes=4 * 900,
        train=TrainSettings(
            size=settings.size,
            vocab=VOCAB,
            eos=0,
            tokens=settings.tokens,
            block_tokens=settings.block_tokens,
            batch_tokens=settings.batch_tokens,
            learning_rate=settings.learning_rate or 1e-2,
            seed=settings.seed,
        ),
        start=None,
        documents_key="toy",
        corpus_key="toy",
        fingerprint="toy",
        folder=folder,
        device="cpu",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    return folder, run_experiment(make_experiment(folder), arm_documents, SETTINGS, workers=1)


def test_a_forecast_goes_by_the_token_pairs_of_the_documents(finished):
    """Loss follows which tokens follow each other: words alone would call both orders alike."""
    folder, _ = finished
    forecast = read_forecast(folder / "forecast.json")
    experiment = make_experiment(folder)
    for point in forecast.points:
        (arm,) = (arm for arm in experiment.arms if arm.name == point.arm)
        wanted = pair_cross_entropy(experiment.select, arm_documents(arm), vocab=VOCAB)
        assert point.pairs == pytest.approx(wanted, rel=1e-12)
    assert len({point.pairs for point in forecast.points}) == len(forecast.points) > 2


def test_loss_that_rises_less_far_from_the_target_is_forecast_by_the_logarithm(tmp_path):
    """As in the demo: five mixes near the target and one far away, which bends a straight line."""
    known = {"a": 4.9, "b": 5.2, "c": 5.4, "d": 5.7, "e": 6.0, "far": 11.0}
    points = [
        MeasuredArm(name, name, {name: 1.0}, pairs, 5.1 * math.log(pairs) - 3.4, 1, "")
        for name, pairs in known.items()
    ]
    one = np.ones((len(points) + 1, 1))
    found = publish_forecast(
        tmp_path / "forecast.json",
        points=points,
        arms={"mix": 4.8},
        look=Look(one[:, 0], one, one),
        random_loss=None,
        confidence=0.9,
        blind=True,
    )
    assert found.arms[0].loss == pytest.approx(5.1 * math.log(4.8) - 3.4, abs=1e-6)
    assert found.law.startswith("logarithm")


def test_of_very_many_documents_some_are_counted(monkeypatch):
    documents = write(0, 900, seed=1)
    monkeypatch.setattr(prepared, "COUNTED", 300)
    found = prepared.pair_entropy(write(0, 200, seed=2), documents, vocab=VOCAB)
    thirds = pair_cross_entropy(write(0, 200, seed=2), documents[::3], vocab=VOCAB)
    assert found == thirds


def outcome(verification):
    """All that may not differ between two calls: neither times nor seconds."""
    runs = [
        dataclasses.replace(run, seconds=0, started_at="", forecast="") for run in verification.runs
    ]
    arms = [dataclasses.replace(arm, forecast_at="", trained_at="") for arm in verification.arms]
    forecast = dataclasses.replace(verification.forecast, made_at="")
    return msgspec.json.encode(
        dataclasses.replace(
            verification,
            runs=tuple(runs),
            arms=tuple(arms),
            forecast=forecast,
            forecast_digest="",
        )
    )


# --- the experiment ---


def test_a_mix_of_the_right_kind_beats_random(finished):
    _, found = finished
    assert found.verdict != "refuted"
    assert found.drop.low > 0
    losses = {arm.arm: arm.loss for arm in found.arms}
    assert losses["mix"] < losses["random"] < losses["worst"]
    assert found.spearman > 0.8 and found.slope.value < 0
    assert found.sentence.startswith("Trained on the mix") and "toy" in found.sentence


def test_every_arm_trains_on_equal_tokens_and_the_same_items(finished):
    _, found = finished
    assert {run.tokens for run in found.runs} == {2_048}
    assert len({run.item_tokens for run in found.runs}) == 1
    by_arm = {arm.arm: arm.seeds for arm in found.arms}
    assert by_arm == {"mix": 2, "random": 2, "worst": 2, "calibration-1": 1, "calibration-2": 1}
    for run in found.runs:
        assert run.loss == pytest.approx(sum(run.item_nats) / sum(run.item_tokens))
        assert run.bpb == pytest.approx(sum(run.item_nats) / math.log(2) / 3_600)


def test_the_forecast_is_published_before_the_mix_is_trained(finished):
    folder, found = finished
    mix = {run.item_nats for run in found.runs if run.arm == "mix"}
    for path in (folder / "runs").iterdir():
        run = msgspec.json.decode(path.read_bytes(), type=Run)
        forecast_first = (folder / "forecast.json").stat().st_mtime_ns < path.stat().st_mtime_ns
        assert forecast_first == (run.item_nats in mix)


def test_the_seeds_that_are_needed_are_said_with_the_forecast(finished):
    folder, found = finished
    said = []
    again = make_experiment(folder)
    run_experiment(
        again, arm_documents, SETTINGS, workers=1, notify=lambda what, *_: said.append(what)
    )
    calibration, controls, of_controls, mix, seeds, of_mix = said
    assert calibration == "train calibration: 2 of 2 runs are there already"
    assert "4 of 4" in of_controls and "2 of 2" in of_mix
    assert controls.startswith("forecast of") and mix.startswith("forecast of")
    assert f"{found.seeds_needed} seeds an arm show the forecast drop" in seeds
    assert seeds.endswith("at 90 % power; 2 are trained")


def test_the_same_call_trains_nothing_and_keeps_the_forecast(finished, monkeypatch):
    folder, found = finished
    before = (folder / "forecast.json").read_bytes()
    monkeypatch.setattr(training_module, "train_models", None)
    again = run_experiment(make_experiment(folder), lambda arm: None, SETTINGS, workers=1)
    assert msgspec.json.encode(again) == msgspec.json.encode(found)
    assert (folder / "forecast.json").read_bytes() == before


def test_worker_processes_give_the_same_result(finished, tmp_path):
    """Of one step, the mix's: a step more starts its processes anew. All: test_engines.py."""
    folder, found = finished
    (tmp_path / "runs").mkdir()
    for path in (folder / "runs").glob("*.json"):
        if msgspec.json.decode(path.read_bytes(), type=Run).arm != "mix":
            shutil.copy(path, tmp_path / "runs")
    spread = run_experiment(make_experiment(tmp_path), arm_documents, SETTINGS, workers=2)
    assert outcome(spread) == outcome(found)


def test_a_killed_experiment_resumes_with_the_same_result(finished, tmp_path):
    _, found = finished
    folder = tmp_path / "verify"
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from curate.verification import training
        from test_verify import SETTINGS, arm_documents, make_experiment, run_experiment
        training.CHECKPOINT_SECONDS = float("inf")
        run_experiment(make_experiment(Path({str(folder)!r})), arm_documents, SETTINGS, workers=1)
    """
    # 5 arms, items, control set: 7 files; 2 runs and 2 points of calibration; a forecast, twice;
    # the 14th and 15th are runs of `random`.
    environment = {**os.environ, "CURATE_FAILPOINT": "publish.before_rename:15=kill"}
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment)
    assert died.returncode == -9
    there = {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*.json")}
    assert len(there) == 3
    again = run_experiment(make_experiment(folder), arm_documents, SETTINGS, workers=1)
    assert outcome(again) == outcome(found)
    assert {path: path.stat().st_mtime_ns for path in there} == there


def test_a_mix_no_better_than_random_is_refuted(finished, tmp_path):
    folder, _ = finished
    (tmp_path / "runs").symlink_to(folder / "runs")  # controls are trained already
    bad = make_experiment(tmp_path, mix=(0, 0, 0, 2_000))
    found = run_experiment(bad, arm_documents, SETTINGS, workers=1)
    assert found.verdict == "refuted"
    assert found.drop.value < 0
    assert "not better than random" in found.sentence


def test_a_forecast_made_after_the_mix_was_trained_says_so(finished, tmp_path):
    folder, found = finished
    assert not any("blind" in warning for warning in found.warnings)
    (tmp_path / "runs").symlink_to(folder / "runs")
    more = dataclasses.replace(SETTINGS, calibration=3)
    again = run_experiment(make_experiment(tmp_path, settings=more), arm_documents, more, workers=1)
    assert any("not blind" in warning for warning in again.warnings)


def test_word_statistics_are_called_so(finished):
    _, found = finished  # tokens are drawn independently: there is nothing but frequencies
    assert any("hardly more" in warning for warning in found.warnings)


def test_divergence_names_the_run_and_the_setting(tmp_path):
    wild = dataclasses.replace(SETTINGS, learning_rate=1e4)
    with pytest.raises(
        CurateError, match=r"calibration-1, seed 0: training diverged .*learning_rate"
    ):
        run_experiment(make_experiment(tmp_path, settings=wild), arm_documents, wild, workers=1)


def test_a_last_update_that_went_too_far_is_a_divergence(tmp_path):
    """The loss of a step is measured before its update: that of the last is seen in evaluation."""
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("documents", "items", "control")}
    documents = [np.arange(5, 60, dtype=np.int32) % 50 for _ in range(3)]
    for path in paths.values():
        publish_documents(path, documents)
    settings = TrainSettings("tiny", 64, 0, 64, 64, 64, math.inf, 0)
    item = plan_run(tmp_path, arm="mix", settings=settings, n_bytes=9, device="cpu", **paths)
    with pytest.raises(CurateError, match=r"mix, seed 0: training diverged \(no finite"):
        training_module.train_stack(training_module.RunStack((item,)))
    assert not item.path.exists()


def test_no_source_takes_the_place_of_a_key_in_the_tables(finished, tmp_path):
    found = finished[1]
    arms = tuple(dataclasses.replace(a, sources={"index": 0.25, "b": 0.75}) for a in found.arms)
    ratios, metrics = write_tables(dataclasses.replace(found, arms=arms), tmp_path)
    (header, *rows) = csv.reader(ratios.read_text(encoding="utf-8").splitlines())
    assert header == ["run", "name", "index", "index (source)", "b"]
    assert [row[2:] for row in rows] == [[str(n), "0.25", "0.75"] for n in range(len(found.runs))]
    assert len(metrics.read_text(encoding="utf-8").splitlines()) == 1 + len(found.runs)


def test_a_perplexity_beyond_all_numbers_is_infinite(finished):
    arm = finished[1].arms[0]
    assert dataclasses.replace(arm, loss=2.5e9).perplexity == math.inf
    assert dataclasses.replace(arm, loss=2.0).perplexity == math.exp(2)


def test_an_arm_without_documents_is_said(tmp_path):
    with pytest.raises(CurateError, match="arm mix: no documents"):
        run_experiment(make_experiment(tmp_path), lambda arm: [], SETTINGS, workers=1)


def test_documents_are_read_back_as_published(tmp_path):
    documents = [np.array([1, 2], np.int32), np.zeros(0, np.int32), np.array([3], np.int32)]
    publish_documents(tmp_path / "d.safetensors", documents)
    for found, expected in zip(read_documents(tmp_path / "d.safetensors"), documents, strict=True):
        np.testing.assert_array_equal(found, expected)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "d.safetensors").read_bytes()[:30])
    with pytest.raises(CurateError, match=r"cut\.safetensors: missing or changed"):
        read_documents(tmp_path / "cut.safetensors")


# --- the numbers ---


def test_one_seed_leaves_only_the_items_to_vary():
    nats, tokens = np.full((1, 50), 6.0), np.full(50, 2)
    assert loss_interval(nats, tokens, confidence=0.9) == Interval(3.0, 3.0, 3.0)


def test_intervals_over_items_and_seeds_cover():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, size=80)
    covered = 0
    for trial in range(200):
        items, seeds = rng.normal(0, 0.5, size=80), rng.normal(0, 0.1, size=(3, 1))
        nats = tokens * (3.0 + items + seeds)
        found = loss_interval(nats, tokens, confidence=0.9, seed=trial)
        covered += found.low <= 3.0 <= found.high
    assert 0.85 <= covered / 200 <= 0.99


def test_pairing_takes_out_what_items_share():
    rng = np.random.default_rng(1)
    tokens = np.full(60, 10)
    hard = rng.normal(0, 30, size=60)
    random = 40 + hard + rng.normal(0, 0.3, size=(3, 60))
    mix = random - 2 + rng.normal(0, 0.3, size=(3, 60))
    found = measured_drop(random, mix, tokens, confidence=0.9)
    assert found.certain
    assert found.interval.value == pytest.approx(0.2, abs=0.02)
    assert found.interval.high - found.interval.low < 0.05


def test_the_verdict_needs_certainty_first():
    forecast = Forecast(0.2, 0.1, 0.3, "")

    def verdict(value, certain=True):
        return judge(Drop(Interval(value, 0, 1), certain), forecast)

    assert [verdict(v) for v in (0.2, 0.4, 0.05)] == ["confirmed", "better", "worse"]
    assert verdict(0.2, certain=False) == "refuted"


def test_the_slope_is_that_of_least_squares():
    x = np.array([0.1, 0.2, 0.4, 0.8])
    found = alignment_slope(x, 5 - 2 * x, confidence=0.9)
    assert found.value == pytest.approx(-2)
    assert found.high - found.low < 1e-6
    assert math.isnan(alignment_slope(np.ones(4), x, confidence=0.9).low)


def test_more_seeds_are_needed_for_a_smaller_drop():
    losses = np.array([3.0, 3.1, 3.2])
    assert seeds_needed(losses, 5.0) == 2
    many = seeds_needed(losses, 0.02)  # the normal approximation holds for many
    assert many == pytest.approx(2 * (2.9264 * 0.1 / 0.02) ** 2, rel=0.01)
    assert seeds_needed(np.array([3.0, 3.0]), 0.1) == 2
    assert seeds_needed(losses, 0.2, of_items=0.0) <= seeds_needed(losses, 0.2, of_items=0.06)
    assert seeds_needed(losses, 0.2, of_items=0.07) == NEVER  # 0.2 < 2.93 · 0.07


def test_the_error_of_the_items_is_that_of_other_items():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 60, 200)
    nats = tokens * rng.normal(0.1, 0.5, 200)
    drawn = loss_draws(nats[None], tokens)
    assert item_error(nats, tokens) == pytest.approx(drawn.std(), rel=0.06)
    assert item_error(nats[:1], tokens[:1]) == 0


@pytest.mark.parametrize("of_items", [0.03, 0.06])
def test_the_seeds_that_are_called_enough_see_the_drop_through_the_choice_of_items(of_items):
    rng = np.random.default_rng(0)
    spread, drop, trials = np.array([-0.1, 0.0, 0.1]), 0.25, 40_000
    n = seeds_needed(spread, drop, of_items=of_items)

    def power(n):
        apart = rng.normal(0, np.sqrt(2) * 0.1, (trials, n))
        found = drop + apart.mean(1) + rng.normal(0, of_items, trials)
        of_seeds = apart.var(axis=1, ddof=1) / n
        error = of_seeds + of_items**2
        df = (n - 1) * (error / of_seeds) ** 2
        return (found > stats.t.ppf(0.95, df) * np.sqrt(error)).mean()

    assert power(n) > 0.87
    assert power(n - 1) < 0.91
    assert n >= seeds_needed(spread, drop) + (of_items > 0.03)


@pytest.mark.parametrize("drop", [0.2, 0.35])
def test_the_seeds_that_are_called_enough_see_the_drop_nine_times_in_ten(drop):
    rng = np.random.default_rng(0)
    spread = np.array([-0.1, 0.0, 0.1])  # its standard deviation is 0.1
    n = seeds_needed(spread, drop)

    def power(n):
        apart = drop + rng.normal(0, 0.1, (20_000, n)) - rng.normal(0, 0.1, (20_000, n))
        return (stats.ttest_1samp(apart, 0, axis=1, alternative="greater").pvalue < 0.05).mean()

    assert power(n) > 0.89
    assert power(n - 1) < 0.9


@pytest.mark.parametrize(
    ("nats", "tokens"),
    [(np.ones((2, 3)), np.ones(2)), (np.ones((0, 3)), np.ones(3)), (np.ones((1, 1)), np.zeros(1))],
)
def test_losses_that_do_not_fit_are_refused(nats, tokens):
    with pytest.raises(ValueError, match="need"):
        loss_draws(nats, tokens)


def test_a_verification_survives_json(finished):
    _, found = finished
    assert isinstance(found, Verification)


# --- what is said before, and that it stays ---


def test_every_arm_but_calibration_is_forecast_before_it_trains(finished):
    folder, found = finished
    for arm in found.arms:
        if arm.arm.startswith("calibration"):
            assert math.isnan(arm.forecast_loss) and not arm.forecast_at
        else:
            assert arm.forecast_low < arm.forecast_loss < arm.forecast_high
            assert arm.forecast_at < arm.trained_at
    forecast = read_forecast(folder / "forecast.json")
    assert {run.forecast for run in found.runs if run.arm == "mix"} == {forecast.digest}
    assert found.forecast_digest == forecast.digest and found.law == forecast.law


def test_a_changed_forecast_is_put_back_from_its_copy_and_refused_without_one(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "forecast.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"made_at": "2', b'"made_at": "1'))
    run_experiment(make_experiment(tmp_path / "copy"), arm_documents, SETTINGS, workers=1)
    assert path.read_bytes() == before
    path.write_bytes(before.replace(b'"made_at": "2', b'"made_at": "1'))
    shutil.rmtree(path.parent / "forecasts")
    with pytest.raises(CurateError, match=r"forecast\.json: changed since it was published"):
        run_experiment(make_experiment(tmp_path / "copy"), arm_documents, SETTINGS, workers=1)


def test_a_forecast_that_was_replaced_with_its_digest_is_refused(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "forecast.json"
    forged = read_forecast(path)
    forged = dataclasses.replace(forged, drop=dataclasses.replace(forged.drop, low=-9.0, high=9.0))
    publish_json(path, dataclasses.replace(forged, digest=digest_forecast(forged)))
    with pytest.raises(CurateError, match="it was replaced"):
        run_experiment(make_experiment(tmp_path / "copy"), arm_documents, SETTINGS, workers=1)


def test_an_earlier_verification_of_the_same_corpus_is_reused(finished, tmp_path):
    folder, _ = finished
    for name in ("runs", "measured"):
        shutil.copytree(folder / name, tmp_path / name)
    other = make_experiment(tmp_path, mix=(1_000, 1_000, 0, 0))
    heard = []
    found = run_experiment(
        other, arm_documents, SETTINGS, workers=1, notify=lambda *call: heard.append(call)
    )
    said = [what for what, *_ in heard]
    points = read_forecast(tmp_path / "forecast.json").points
    own, earlier = {arm.name for arm in other.arms}, [point.arm for point in points]
    assert len(points) > 4 and earlier.count("mix") == 1  # the earlier mix, not this one's
    assert own >= set(earlier)
    assert found.forecast.basis.startswith(f"{len(points)} measured mixtures")
    n_earlier = len(points) - 4  # calibration, random and worst are its own
    assert (
        f"it rests on {len(points)} measured mixtures, {n_earlier} of them of earlier"
        in " ".join(said)
    )
    assert "train controls: 4 of 4 runs are there already" in said
    # The clock of a step starts before its first run, whose time would be missing.
    assert [call[1:] for call in heard if call[0] == "train the mix"] == [(0, 2), (1, 2), (2, 2)]
    elsewhere = dataclasses.replace(other, corpus_key="other corpus", folder=tmp_path / "else")
    shutil.copytree(folder / "measured", tmp_path / "else" / "measured")
    shutil.copytree(tmp_path / "runs", tmp_path / "else" / "runs")
    run_experiment(elsewhere, arm_documents, SETTINGS, workers=1)
    assert len(read_forecast(tmp_path / "else" / "forecast.json").points) == 4


def test_what_the_gain_costs_elsewhere_is_measured(finished):
    _, found = finished
    assert found.price.low > 0  # a mix of one kind is worse on all four
    by_arm = {arm.arm: arm.control_loss for arm in found.arms}
    assert found.price.value == pytest.approx(by_arm["mix"] - by_arm["random"])


# --- a run that is killed ---


def test_a_run_killed_between_steps_goes_on_to_the_same_numbers(finished, tmp_path):
    _, found = finished
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from curate.verification import training
        from test_verify import SETTINGS, arm_documents, make_experiment, run_experiment
        training.CHECKPOINT_SECONDS = 0.0
        run_experiment(make_experiment(Path({str(tmp_path)!r})), arm_documents, SETTINGS, workers=1)
    """
    environment = {**os.environ, "CURATE_FAILPOINT": "train.step:6=kill"}
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment)
    assert died.returncode == -9
    (left,) = (tmp_path / "runs").glob("*.checkpoint.safetensors")
    snapshot, started = read_checkpoint(left)
    assert snapshot.step == 6 and len(started.points) == 4
    again = run_experiment(make_experiment(tmp_path), arm_documents, SETTINGS, workers=1)
    assert outcome(again) == outcome(found)
    assert not list((tmp_path / "runs").glob("*.checkpoint.safetensors"))


def test_a_file_that_is_no_checkpoint_is_not_used(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    assert read_checkpoint(tmp_path / "bad.safetensors") is None


# --- more numbers ---


def test_the_fit_is_that_of_scipy():
    x, y = np.array([0.1, 0.2, 0.4, 0.8]), np.array([5.0, 4.5, 4.6, 3.0])
    line, found = stats.linregress(x, y), alignment_fit(x, y, confidence=0.9)
    assert (found.r2, found.p_value) == pytest.approx((line.rvalue**2, line.pvalue))
    low, high = stats.pearsonr(x, -y).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((max(0.0, low) ** 2, high**2))
    sure = alignment_fit(x, 5 - 2 * x, confidence=0.9)
    assert (sure.r2, sure.p_value) == pytest.approx((1.0, 0.0), abs=1e-9)
    assert math.isnan(alignment_fit(np.ones(4), y, confidence=0.9).r2)
    three = alignment_fit(x[:3], y[:3], confidence=0.9)
    assert math.isfinite(three.r2) and math.isnan(three.low)


def test_the_multiplier_of_equal_curves_is_one_and_of_swapped_ones_its_inverse():
    tokens = np.array([100.0, 200, 400, 800])
    one = np.stack([tokens, 9 - np.log(tokens)], axis=1)
    faster = np.stack([tokens, 9 - np.log(3 * tokens)], axis=1)
    assert compute_multiplier(one, one) == pytest.approx(1)
    assert compute_multiplier(faster, one) == pytest.approx(3)
    assert compute_multiplier(one, faster) == pytest.approx(1 / 3)
    assert math.isnan(compute_multiplier(np.zeros((0, 2)), one))


def test_tokens_to_a_loss_follow_the_line_in_log_tokens():
    tokens = np.array([100.0, 200, 400, 800, 1600])
    curve = np.stack([tokens, 9 - 0.5 * np.log(tokens)], axis=1)
    curve[-1, 1] -= 0.3  # the fall of the rate is no part of it
    assert tokens_to_reach(curve, 9 - 0.5 * math.log(6400)) == pytest.approx(6400)
    assert tokens_to_reach(curve[:1], 1.0) == math.inf
    assert tokens_to_reach(np.array([[1.0, 2.0], [2.0, 2.0]]), 1.0) == math.inf
    far = 9 - 0.5 * math.log(1_600 * FURTHEST)
    assert tokens_to_reach(curve, far + 0.01) < 1_600 * FURTHEST
    assert tokens_to_reach(curve, far - 0.01) == math.inf


@pytest.mark.parametrize(("low", "said"), [(-3.73, True), (0.0, True), (0.01, False)])
def test_a_forecast_that_promised_nothing_is_said_to_be_one(low, said):
    """Whatever is measured lies in an interval from -4 to 4: "confirmed" is not worth much."""
    runs = [SimpleNamespace(arm=arm, loss=5.0, item_tokens=(9,) * 30) for arm in ("mix", "random")]
    drop = SimpleNamespace(drop=0.3, low=low, high=4.25)
    measured = SimpleNamespace(
        notes=(), runs=runs, arms=(), unigram_entropy=9.0,
        forecasts=(SimpleNamespace(blind=True, drop=drop),),
    )  # fmt: skip
    found = find_caveats(measured, SETTINGS, seeds_needed=0)
    assert any("holds a drop of 0" in each for each in found) == said


@pytest.mark.parametrize(
    ("low", "high", "verdict", "times"),
    [
        (-21.0, 22.0, "confirmed", "53"),  # nothing at all could have refuted it
        (0.0, 1.6, "confirmed", "2"),
        (0.01, 1.6, "confirmed", None),
        (-0.1, 1.4, "confirmed", None),
        (1.0, 9.0, "worse", None),  # it has missed
    ],
)
def test_a_confirmation_that_could_hardly_have_failed_is_said_to_be_one(low, high, verdict, times):
    arms = [SimpleNamespace(arm="mix", loss=4.2), SimpleNamespace(arm="random", loss=5.0)]
    drop, forecast = Interval(0.8, 0.7, 0.9), Forecast(0.5, low, high, "")
    assert judge(Drop(drop, certain=True), forecast) == verdict
    said = _sentence("t", arms, drop, forecast, SETTINGS, verdict=verdict)
    wide = f"; but its interval is {times} times as wide as the drop: it could hardly have missed."
    assert said.endswith(wide) == (times is not None)
    assert ("as wide" in said) == (times is not None)


def test_the_tokens_that_would_be_enough_are_said_with_two_digits():
    points = np.array([(100.0, 6.0), (200.0, 5.0)])
    assert _enough(points, 5.0 - 6.6, SETTINGS).startswith("about 19,000 tokens a run ")
    assert _enough(points, 3.0, SETTINGS).startswith("about 800 tokens a run ")


def test_no_fewer_tokens_than_were_trained_on_are_called_enough():
    """The points are of some items, on which the loss may be lower, or has ceased to fall."""
    points = ((100, 6.0), (200, 5.0), (400, 4.0))
    runs = [SimpleNamespace(arm="mix", points=points, loss=6.5)]  # 2.5 more on all of them
    assert whole_points(runs, "mix").tolist() == [[100, 8.5], [200, 7.5], [400, 6.5]]
    assert "about 3,200 tokens" in _enough(whole_points(runs, "mix"), 3.5, SETTINGS)
    flat = np.array([(100.0, 6.0), (200.0, 5.0), (400.0, 4.0), (800.0, 3.9)])
    assert "more tokens would not be enough" in _enough(flat, 3.5, SETTINGS)


def test_the_loss_at_fewer_tokens_is_what_was_measured_there():
    points = np.array([(100.0, 6.0), (200.0, 5.0), (400.0, 4.0), (800.0, 2.8)])
    assert [loss_at(points, tokens) for tokens in (50, 100, 400, 800)] == [6.0, 6.0, 4.0, 2.8]
    assert loss_at(points, 200 * 2**0.5) == pytest.approx(4.5)
    assert loss_at(points, 3_200) == pytest.approx(1.0)  # the line without the fall of the rate
    assert loss_at(points, 900) == 2.8


@pytest.mark.parametrize(("items", "said"), [(1, "only 1 eval item:"), (2, "only 2 eval items:")])
def test_few_eval_items_are_said(items, said):
    runs = [
        SimpleNamespace(arm=arm, loss=5.0, item_tokens=(9,) * items) for arm in ("mix", "random")
    ]
    measured = SimpleNamespace(
        notes=(), runs=runs, arms=(), unigram_entropy=9.0,
        forecasts=(SimpleNamespace(blind=True, drop=None),),
    )  # fmt: skip
    found = find_caveats(measured, SETTINGS, seeds_needed=0)
    assert any(each.startswith(said) for each in found)


def test_one_item_under_one_seed_is_no_evidence():
    sure = [measured_drop(np.full(shape, 9.0), np.zeros(shape), np.ones(shape[1]), confidence=0.9)
            for shape in ((1, 1), (2, 1), (1, 2))]  # fmt: skip
    assert [drop.certain for drop in sure] == [False, True, True]


@pytest.mark.parametrize(("confidence", "said"), [(0.9, "90%"), (0.975, "97.5%"), (0.999, "99.9%")])
def test_the_sentence_rounds_no_confidence_up_and_gives_zero_no_sign(confidence, said):
    arms = [SimpleNamespace(arm="mix", loss=4.7), SimpleNamespace(arm="random", loss=5.0)]
    settings = dataclasses.replace(SETTINGS, confidence=confidence)
    drop, forecast = Interval(0.3, -0.004, 0.6), Forecast(-0.001, -0.2, 0.3, "")
    text = _sentence("t", arms, drop, forecast, settings, verdict="refuted")
    assert f"a drop of 0.30 ({said} interval 0.00 to 0.60), forecast 0.00 (-0.20 to 0.30)" in text


@pytest.mark.parametrize("goal", [3.0, -60.0])  # 800 tokens, and more than there are
def test_who_goes_on_from_a_model_is_sent_to_another_one_and_to_no_size(goal):
    points = np.array([(100.0, 6.0), (200.0, 5.0)])
    advice = _enough(points, goal, dataclasses.replace(SETTINGS, model="builtin"))
    assert "another --model may know the words already" in advice and "size" not in advice
    scratch = _enough(points, goal, SETTINGS)
    assert "(--model)" in scratch and ("larger size" in scratch) == (goal < 0)


@pytest.mark.parametrize(
    ("drop", "said"), [(0.84, "0.84"), (-0.1, "-0.10"), (0.044, "0.044"), (-0.0067, "-0.0067")]
)
def test_a_small_drop_is_said_with_the_places_that_it_needs(drop, said):
    assert f"{drop:.{places_for(drop)}f}" == said


def test_the_sentence_names_pretrained_models_as_such(finished, tmp_path):
    folder, found = finished
    assert found.sentence.startswith("Trained on the mix, small models reach ")
    (tmp_path / "runs").symlink_to(folder / "runs")
    settings = dataclasses.replace(SETTINGS, model="builtin")  # which the experiment's start is
    again = run_experiment(make_experiment(tmp_path), arm_documents, settings, workers=1)
    assert again.sentence.startswith("Trained further on the mix, pretrained models reach ")


def test_a_rival_that_had_trained_before_leaves_the_forecast_of_the_mix_blind(tmp_path):
    arms = plan_arms(
        ALIGNMENTS,
        ROOM,
        np.array((1_000, 1_000, 0, 0)),
        tokens=2_000,
        calibration=SETTINGS.calibration,
        seeds=SETTINGS.seeds,
        all_tokens=2_000,
    )
    experiment = dataclasses.replace(make_experiment(tmp_path), arms=arms)
    found = run_experiment(experiment, arm_documents, SETTINGS, workers=1)
    assert not any("blind" in warning for warning in found.warnings)
    assert any("its runs are those of random" in warning for warning in found.warnings)
    losses = {arm.arm: arm.loss for arm in found.arms}
    assert losses["all"] == losses["random"] != losses["mix"]


def test_tasks_are_compared_pair_by_pair(finished):
    _, found = finished
    scores = {"mix": (1.0, 1.0, 0.0, 1.0), "random": (1.0, 0.0, 0.0, 1.0)}
    runs = tuple(
        dataclasses.replace(run, outcomes={"lm-eval:t acc": scores.get(run.arm, (0.0,) * 4)})
        for run in found.runs
    )
    (gain,) = _outcomes(runs, SETTINGS).values()
    assert gain.value == 0.25 and gain.low <= 0.25 <= gain.high
    assert _outcomes(found.runs, SETTINGS) == {}


# --- all of it once more, by hand ---


def test_every_number_follows_from_the_runs_by_scipy_alone(finished):
    _, found = finished
    sizes = np.array(found.runs[0].item_tokens)

    def nats(arm, field="item_nats"):
        return np.array([getattr(run, field) for run in found.runs if run.arm == arm])

    losses = {arm.arm: nats(arm.arm).sum(axis=1).mean() / sizes.sum() for arm in found.arms}
    for arm in found.arms:
        assert arm.loss == pytest.approx(losses[arm.arm])
        assert arm.perplexity == pytest.approx(math.exp(losses[arm.arm]))
        assert arm.bpb == pytest.approx(losses[arm.arm] * sizes.sum() / math.log(2) / 3_600)
    assert found.drop.value == pytest.approx(losses["random"] - losses["mix"])
    x = [arm.alignment for arm in found.arms]
    y = [losses[arm.arm] for arm in found.arms]
    line = stats.linregress(x, y)
    reach = stats.t.ppf(0.95, len(x) - 2) * line.stderr
    assert found.slope.value == pytest.approx(line.slope)
    assert (found.slope.low, found.slope.high) == pytest.approx(
        (line.slope - reach, line.slope + reach)
    )
    assert (found.r2, found.p_value) == pytest.approx((line.rvalue**2, line.pvalue))
    r_interval = stats.pearsonr(x, -np.array(y)).confidence_interval(0.9)
    assert found.r2_high == pytest.approx(r_interval.high**2)
    assert found.spearman == pytest.approx(stats.spearmanr(x, -np.array(y)).statistic)
    prices = nats("mix", "control_nats").sum(axis=1) - nats("random", "control_nats").sum(axis=1)
    assert found.price.value == pytest.approx(prices.mean() / sum(found.runs[0].control_tokens))
    points = {
        arm: np.mean([run.points for run in found.runs if run.arm == arm], axis=0)
        for arm in ("mix", "random")
    }
    goal, reached = points["random"][-1, 1], points["mix"]
    after = int(np.argmax(reached[:, 1] <= goal))  # the first point of the mix at that loss
    if after == 0:
        at = math.log(reached[0, 0])
    else:
        (t0, l0), (t1, l1) = reached[after - 1 : after + 1]
        at = np.interp(-goal, [-l0, -l1], np.log([t0, t1]))
    assert found.multiplier == pytest.approx(points["random"][-1, 0] / math.exp(at), rel=1e-6)
