"""The loss of a mix from other mixes: the law that is chosen, and intervals that hold."""

import numpy as np
import pytest
from scipy import stats

from curate.mixing.laws import Views, _Candidate, _fit, forecast_losses
from tests.mixture_worlds import TRUTHS, draw_world


def scalar(x, **others):
    x = np.asarray(x, float)
    return Views({"x": x, **others}, np.ones((len(x), 1)), np.ones((len(x), 0)))


def test_a_line_is_found_with_the_mean_and_width_of_the_textbook():
    rng = np.random.default_rng(4)
    x = rng.normal(size=60)
    loss = 5 - 2 * x + rng.normal(0, 0.1, 60)
    law, (there,) = forecast_losses(scalar([*x, 0.7]), loss, confidence=0.9)
    line = stats.linregress(x, loss)
    assert law.name == "x"
    assert there.loss == pytest.approx(line.intercept + 0.7 * line.slope)
    s = np.sqrt(((loss - line.intercept - line.slope * x) ** 2).sum() / 58)
    spread = ((x - x.mean()) ** 2).sum()
    half = stats.t.ppf(0.95, 58) * s * np.sqrt(1 + 1 / 60 + (0.7 - x.mean()) ** 2 / spread)
    assert (there.high - there.low) / 2 == pytest.approx(half, rel=0.05)


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("floor", [None, 0.5])
def test_left_out_errors_in_closed_form_are_those_of_leaving_out(penalty, floor):
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(7, 3))
    rows -= rows.mean(0)
    loss = 4 + 0.3 * rows @ np.ones(3) + rng.normal(0, 0.05, 7)
    loss[0] = loss.min() - 0.2  # the floor must not move when another mix is left out
    gram = rows @ rows.T
    # the penalty is relative to the spread of the known mixes: make it the same without each
    found = _fit(
        _Candidate("c", gram, penalty, floor), loss, np.arange(7)[None], np.zeros((1, 0), int)
    )
    errors = []
    for i in range(7):
        rest = np.delete(np.arange(7), i)
        centred = rows[rest] - rows[rest].mean(0)
        absolute = penalty * np.trace(gram) / 7
        own = penalty and absolute / (np.trace(centred @ centred.T) / 6)
        share = floor and floor * loss.min() / loss[rest].min()
        left = _fit(_Candidate("c", gram, own, share), loss, rest[None], np.array([[i]]))
        errors.append(loss[i] - left.values[0, 0])
    assert found.error[0] == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-6)


def test_a_ridge_has_the_variance_of_its_bayesian_twin():
    rng = np.random.default_rng(3)
    x, new = rng.normal(size=(6, 4)), rng.normal(size=(2, 4))
    x -= x.mean(0)
    rows = np.vstack([x, new])
    loss = x @ rng.normal(size=4) + rng.normal(0, 0.1, 6)
    found = _fit(_Candidate("c", rows @ rows.T, 0.4), loss, np.arange(6)[None], np.array([[6, 7]]))
    penalty = 0.4 * np.trace(x @ x.T) / 6
    inverse = np.linalg.inv(x.T @ x + penalty * np.eye(4))
    np.testing.assert_allclose(found.values[0], loss.mean() + new @ inverse @ x.T @ loss)
    expected = 1 + 1 / 6 + np.einsum("ij,jk,ik->i", new, inverse, new)
    np.testing.assert_allclose(found.spread[0] ** 2, expected)


@pytest.mark.parametrize(
    ("truth", "name"), [("shares", "log-linear"), ("embedding", "embedding"), ("lexical", "lex")]
)
def test_the_law_of_the_world_is_chosen(truth, name):
    rng = np.random.default_rng(2)
    chosen = []
    for _ in range(12):
        views, losses = draw_world(rng, truth, n=12, noise=0.01)
        chosen.append(forecast_losses(views, losses[:12])[0].name)
    assert sum(name in each for each in chosen) >= 8


def test_noise_is_mostly_called_noise():
    rng = np.random.default_rng(8)
    names = [
        forecast_losses(scalar(rng.normal(size=11)), rng.normal(size=10))[0].name for _ in range(60)
    ]
    assert sum("mean" in name for name in names) > 45


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = []
    for turn in range(150):
        views, losses = draw_world(rng, TRUTHS[turn % 5], n=6)
        _, (there,) = forecast_losses(views, losses[:6], confidence=0.9)
        covered.append(there.low <= losses[6] <= there.high)
    assert 0.84 <= np.mean(covered) <= 0.96  # 0.9 within 2.5 standard errors of 150 worlds


def test_no_interval_is_narrower_than_what_held_every_mix_left_out():
    x = np.array([*np.linspace(0, 1, 11), 0.5])
    loss = 3 - x[:11]
    loss[5] += 0.5  # one mix is far off, all others lie on the line
    _, (there,) = forecast_losses(scalar(x), loss, confidence=0.9)
    rest = np.delete(np.arange(11), 5)
    line = stats.linregress(x[rest], loss[rest])
    missed = loss[5] - line.intercept - line.slope * x[5]
    assert (there.high - there.low) / 2 > 0.95 * missed


def test_two_mixes_give_their_mean_and_a_wide_interval():
    law, (there,) = forecast_losses(scalar([1.0, 2.0, 3.0]), np.array([3.0, 4.0]))
    assert "mean" in law.name and there.loss == 3.5
    assert there.high - there.low > 4


def test_equal_mixes_give_no_law():
    law, (there,) = forecast_losses(scalar([2.0] * 6), np.array([1.0, 2, 3, 4, 5]))
    assert "mean" in law.name and there.loss == pytest.approx(3)


def test_units_of_a_feature_and_an_offset_of_the_loss_do_not_matter():
    rng = np.random.default_rng(5)
    x = rng.normal(size=8)
    loss = 3 - x[:7] + rng.normal(0, 0.1, 7)
    _, (one,) = forecast_losses(scalar(x), loss)
    _, (other,) = forecast_losses(scalar(1000 * x + 7), loss + 5)
    np.testing.assert_allclose(
        [one.loss, one.low, one.high], np.array([other.loss, other.low, other.high]) - 5
    )


@pytest.mark.parametrize(
    ("views", "loss", "confidence"),
    [
        (scalar([1.0, 2.0]), [1.0], 0.9),
        (scalar([1.0, 2.0]), [1.0, 2.0, 3.0], 0.9),
        (scalar([1.0, np.nan, 2.0]), [1.0, 2.0], 0.9),
        (scalar([1.0, 2.0, 3.0]), [1.0, np.inf], 0.9),
        (scalar([1.0, 2.0, 3.0]), [1.0, 2.0], 1.0),
        (scalar([1.0, 2.0, 3.0], y=np.ones(2)), [1.0, 2.0], 0.9),
    ],
)
def test_what_cannot_be_fitted_is_refused(views, loss, confidence):
    with pytest.raises(ValueError):
        forecast_losses(views, np.array(loss), confidence=confidence)
