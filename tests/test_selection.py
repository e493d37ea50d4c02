"""The benches of selection and robustness: their statistics."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # a bench is a script with its rooms beside it

import robustness  # noqa: E402
import selection  # noqa: E402
from evidence import page  # noqa: E402
from evidence.models import Losses  # noqa: E402

from curate.records import Target  # noqa: E402

CURVE = [(100, 5.0), (200, 4.5), (400, 4.6), (800, 4.0)]


@pytest.mark.parametrize(("loss", "times"), [(5.0, 1.0), (4.5, 2.0), (4.75, 2**0.5), (4.0, 8.0)])
def test_a_multiplier_reads_the_curve_of_random_data(loss, times):
    assert selection.multiplier(loss, 100, CURVE) == pytest.approx(times)


def test_a_loss_below_the_whole_curve_has_no_multiplier():
    assert selection.multiplier(3.9, 100, CURVE) == float("inf")


def test_a_loss_above_random_is_worth_less_than_the_budget_and_is_said_so():
    assert selection.multiplier(5.01, 100, CURVE) == 0
    row = {"loss": 5.01, "drop": -0.01, "interval": (-0.1, 0.1), "forecast": 0.0, "price": 0.0}

    def said(times):
        return selection.describe_row(row | {"multiplier": times}, 8.0)[3]

    assert [said(0.0), said(1.0), said(float("inf"))] == ["< 1", "1.0", "> 8"]


def measured(saving, *, seeds=3, items=40, noise=0.0):
    """Losses of random and of one arm that saves so many nats a token, on two targets."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 20, 2 * items).astype(float)
    base = 5 * tokens + rng.normal(size=(seeds, 2 * items))
    arm = base - saving * tokens + noise * rng.normal(size=base.shape)
    nats = np.stack([base, arm], axis=1)
    halves = [slice(0, items), slice(items, None)]
    each = np.stack([nats[:, :, h].sum(2) / tokens[h].sum() for h in halves], axis=2)
    return Losses(each.mean(0), tuple(each), each[0], each[0], 0.0, nats, tokens, (items, items))


def compared(losses):
    targets = [Target(name, (), (), "", "", "") for name in ("t", "general")]
    names = ["random 100", "t: top"]
    return selection.compare(losses, names, targets, {"t: top": 0.6}, draws=400, seed=1)["t"]


def test_an_arm_is_held_against_random_item_by_item():
    rows = compared(measured(0.25))
    assert rows["random"]["drop"] == 0 and rows["random"]["interval"] == (0.0, 0.0)
    assert rows["top"]["drop"] == pytest.approx(0.25)
    assert (rows["top"]["forecast"], rows["random"]["forecast"]) == (0.6, 0.0)
    assert rows["top"]["interval"] == pytest.approx((0.25, 0.25))  # pairs: no noise of items
    assert rows["top"]["price"] == pytest.approx(-0.25)
    assert len(rows["top"]["seeds"]) == 3


def test_a_target_with_random_documents_of_its_own_is_held_against_those():
    losses = measured(0.25)
    nats = np.concatenate([losses.item_nats, losses.item_nats[:, 1:] - 2.0], axis=1)
    three = Losses(
        np.vstack([losses.mean, losses.mean[1] - 0.1]), (), *(np.zeros(1),) * 2, 0.0, nats,
        losses.item_tokens, losses.sizes,
    )  # fmt: skip
    targets = [Target(name, (), (), "", "", "") for name in ("t", "general")]
    names = ["random 100", "t: top", f"t: {selection.OWN_RANDOM}"]
    rows = selection.compare(three, names, targets, {}, draws=10, seed=1)["t"]
    assert set(rows) == {"random", "top"} and rows["random"]["drop"] == 0
    assert rows["top"]["drop"] == pytest.approx(-0.1)
    assert rows["top"]["price"] == pytest.approx(0.1)


def test_the_chart_has_a_dot_an_arm_and_target_the_best_arm_on_top():
    def rows(low, high):
        saved = {"random": 0.0, "classifier": low, "match by words": high}
        return {n: {"drop": v, "interval": (v - 0.1, v + 0.1)} for n, v in saved.items()}

    chart = page.selection_chart({"gsm8k": rows(-0.3, 0.2), "math": rows(0.4, 0.6)})
    assert chart.count("<circle") == 4 and "random</text>" not in chart.replace("below random", "")
    assert chart.index("match by words") < chart.index("classifier")
    right = [float(x) for x in re.findall(r'<circle class="fill-main" cx="([0-9.]+)"', chart)]
    left = [float(x) for x in re.findall(r'<circle class="fill-warm" cx="([0-9.]+)"', chart)]
    one, other = right[0] - left[0], right[1] - left[1]  # 0.5 and 0.2 nats on one scale
    assert one == pytest.approx(2.5 * other, abs=1)


def test_an_interval_holds_the_saving_nine_times_of_ten():
    found = [
        selection.interval(
            0.1 + np.random.default_rng(n).normal(0, 1, (1, 60)),
            np.ones(60),
            draws=300,
            rng=np.random.default_rng(n),
        )
        for n in range(200)
    ]
    held = np.mean([low <= 0.1 <= high for low, high in found])
    assert 0.83 <= held <= 0.95


def test_what_no_seed_shares_widens_an_interval():
    def width(noise):
        low, high = compared(measured(0.25, noise=noise))["top"]["interval"]
        return high - low

    assert width(0.0) < width(1.0) < width(4.0)


def test_agreement_of_an_order_with_itself_and_with_its_reverse():
    base = np.array([[0.1, 0.5, 0.3], [0.9, 0.2, 0.4]])
    assert robustness.agree(base, 2 * base) == {"tau": 1.0, "least_tau": 1.0, "first_kept": 2}
    assert robustness.agree(base, -base)["tau"] == -1.0
