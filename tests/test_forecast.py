"""The drop predicted before training."""

import importlib.resources

import msgspec
import numpy as np
import pytest
from scipy import stats

from curate.mixing.forecast import (
    Prior,
    fit_law,
    forecast_without_runs,
    lexical_cross_entropy,
    mixture_unigrams,
    predict,
    predict_drop,
)


def test_the_unigrams_of_a_mixture_are_those_of_its_text():
    rng = np.random.default_rng(0)
    parts = rng.integers(0, 50, size=(3, 20))
    parts[:, 0] += 1
    together = parts.sum(0)
    shares = parts.sum(1) / together.sum()
    np.testing.assert_allclose(mixture_unigrams(parts, shares), together / together.sum())


def test_cross_entropy_with_itself_is_the_entropy():
    target = np.array([70, 20, 10])
    p = target / 100
    assert lexical_cross_entropy(target, p, tokens=1e12) == pytest.approx(-(p @ np.log(p)))


def test_a_missing_word_costs_a_finite_amount_and_less_in_a_smaller_mix():
    target, mixture = np.array([0, 10]), np.array([1.0, 0.0])
    small = lexical_cross_entropy(target, mixture, tokens=1e3)
    large = lexical_cross_entropy(target, mixture, tokens=1e6)
    assert small == pytest.approx(-np.log(0.5 / 1001))
    assert np.isfinite(large) and large > small


def test_the_law_is_least_squares_with_the_textbook_interval():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(12, 1))
    loss = 5 - 2 * x[:, 0] + rng.normal(0, 0.1, 12)
    law = fit_law(x, loss)
    line = stats.linregress(x[:, 0], loss)
    mean, low, high = predict(law, np.array([0.7]), confidence=0.9)
    assert mean == pytest.approx(line.intercept + 0.7 * line.slope)
    residual = loss - line.intercept - line.slope * x[:, 0]
    s = np.sqrt(residual @ residual / 10)
    spread = ((x[:, 0] - x.mean()) ** 2).sum()
    half = stats.t.ppf(0.95, 10) * s * np.sqrt(1 + 1 / 12 + (0.7 - x.mean()) ** 2 / spread)
    assert (high - low) / 2 == pytest.approx(half)


def test_leave_one_out_keeps_the_feature_that_matters():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(10, 2))
    loss = 3 + 0.8 * x[:, 1] + rng.normal(0, 0.05, 10)
    assert fit_law(x, loss).features == (1,)
    noise = [fit_law(rng.normal(size=(10, 1)), rng.normal(size=10)).features for _ in range(60)]
    assert noise.count(()) > 45


def test_prediction_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(400):
        x = rng.normal(size=7)
        loss = 4 - 3 * x[:6] + rng.normal(0, 0.3, 6)
        _, low, high = predict(fit_law(x[:6, None], loss), x[6:], confidence=0.9)
        covered += low <= 4 - 3 * x[6] + rng.normal(0, 0.3) <= high
    assert 0.86 < covered / 400 < 0.94


def test_few_or_constant_mixes_fall_back_to_the_mean():
    law = fit_law(np.array([[1.0], [2.0]]), np.array([3.0, 4.0]))
    assert law.features == () and law.df == 1
    law = fit_law(np.full((5, 2), 2.0), np.array([1.0, 2, 3, 4, 5]))
    assert predict(law, np.array([2.0, 2.0]))[0] == pytest.approx(3)


def test_a_drop_does_not_depend_on_the_intercept():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(9, 1))
    loss = 2 * x[:, 0] + rng.normal(0, 0.1, 9)
    one = predict_drop(fit_law(x, loss), np.array([1.0]), np.array([0.0]))
    two = predict_drop(fit_law(x, loss + 100), np.array([1.0]), np.array([0.0]))
    np.testing.assert_allclose(one, two)
    assert one[0] == pytest.approx(2, abs=0.2) and one[1] < one[0] < one[2]


@pytest.mark.parametrize(
    ("x", "loss"),
    [
        (np.zeros((1, 1)), np.zeros(1)),
        (np.zeros((3, 1)), np.zeros(2)),
        (np.full((3, 1), np.nan), np.zeros(3)),
    ],
)
def test_a_law_refuses_what_it_cannot_fit(x, loss):
    with pytest.raises(ValueError):
        fit_law(x, loss)


def test_without_runs_the_forecast_says_on_what_it_rests():
    target = np.array([90, 10])
    close, far = np.array([0.9, 0.1]), np.array([0.1, 0.9])
    bare = Prior(slope=1.0, residual_sd=0.5, n=0, command="no runs yet")
    forecast = forecast_without_runs(target, close, far, tokens=1e6, prior=bare)
    assert forecast.drop == pytest.approx(0.8 * np.log(9), abs=1e-3)
    assert forecast.high - forecast.drop == pytest.approx(0.5 * stats.norm.ppf(0.95))
    assert "no measured runs yet" in forecast.basis
    fitted = Prior(slope=0.5, residual_sd=0.1, n=8, command="make evidence")
    forecast = forecast_without_runs(target, close, far, tokens=1e6, prior=fitted)
    assert "8 measured mixes (make evidence)" in forecast.basis


def test_the_shipped_prior_is_plain_data():
    data = (importlib.resources.files("curate.mixing") / "prior.json").read_bytes()
    prior = msgspec.json.decode(data, type=Prior)
    assert prior.slope > 0 and prior.residual_sd > 0 and prior.n >= 0


@pytest.mark.parametrize("shares", [[0.5, 0.6], [-0.5, 1.5], [1.0]])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(ValueError):
        mixture_unigrams(np.ones((2, 3)), np.array(shares))
