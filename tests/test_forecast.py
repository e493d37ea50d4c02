"""The drop predicted before anything is trained."""

import importlib.resources

import msgspec
import numpy as np
import pytest
from scipy import stats

from curate.mixing.forecast import (
    Prior,
    forecast_without_runs,
    lexical_cross_entropy,
)


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


def test_without_runs_the_forecast_says_on_what_it_rests():
    bare = Prior(slope=1.0, residual_sd=0.5, n=0, command="no runs yet")
    forecast = forecast_without_runs(0.8, bare)
    assert forecast.drop == pytest.approx(0.8)
    assert forecast.high - forecast.drop == pytest.approx(0.5 * stats.norm.ppf(0.95))
    assert "no measured runs yet" in forecast.basis
    fitted = Prior(slope=0.5, residual_sd=0.1, n=8, command="make evidence")
    forecast = forecast_without_runs(-0.8, fitted)
    assert forecast.drop == pytest.approx(-0.4)
    assert forecast.drop - forecast.low == pytest.approx(0.1 * stats.t.ppf(0.95, 7))
    assert "8 measured mixes (make evidence)" in forecast.basis


def test_the_shipped_prior_is_plain_data():
    data = (importlib.resources.files("curate.mixing") / "prior.json").read_bytes()
    prior = msgspec.json.decode(data, type=Prior)
    assert prior.slope > 0 and prior.residual_sd > 0 and prior.n >= 0
