"""The drop predicted before anything is trained."""

import importlib.resources

import msgspec
import pytest
from scipy import stats

from curate.mixing.forecast import Prior, forecast_without_runs


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
