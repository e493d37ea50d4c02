"""The drop predicted before anything is trained."""

import importlib.resources

import msgspec
import numpy as np
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


def test_the_interval_knows_how_much_the_items_differ():
    prior = Prior(slope=0.5, residual_sd=0.1, n=8, command="make evidence")

    def half(moves):
        found = forecast_without_runs(0.8, prior, moves=moves)
        assert found.drop == pytest.approx(0.4)
        assert found.high - found.drop == pytest.approx(found.drop - found.low)
        return found.high - found.drop

    line = 0.1 * stats.t.ppf(0.95, 7)
    alike, one = np.zeros(20), np.array([3.0])
    assert half(None) == half(alike) == half(one) == pytest.approx(line)
    moves = np.random.default_rng(0).normal(0, 0.4, 8)
    moves -= moves.mean()  # of a mean they sum to nothing
    mean = np.sqrt(2) * moves.std(ddof=1) / np.sqrt(8) * stats.t.ppf(0.95, 7)
    assert half(moves) == pytest.approx(np.hypot(line, 0.5 * mean))
    assert half(np.tile(moves, 32)) < 1.01 * line < half(moves)
    # with no line in doubt: does it hold the mean of other items, nine times in ten?
    sure = Prior(slope=1.0, residual_sd=0.0, n=8, command="")
    rng, held = np.random.default_rng(1), 0
    for _ in range(2_000):
        one, other = rng.normal(0.5, 0.3, (2, 8))
        found = forecast_without_runs(one.mean(), sure, moves=one - one.mean())
        held += found.low <= other.mean() <= found.high
    assert 0.88 < held / 2_000 < 0.94


def test_the_shipped_prior_is_plain_data():
    data = (importlib.resources.files("curate.mixing") / "prior.json").read_bytes()
    prior = msgspec.json.decode(data, type=Prior)
    assert prior.slope > 0 and prior.residual_sd > 0 and prior.n >= 0
