"""What the losses of the arms say: intervals, the drop, the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import stats

from curate.records import Forecast, Interval, Verdict

if TYPE_CHECKING:
    from curate.records import Counts, Floats

CERTAINTY = 0.95
"""Confidence with which a mix must beat random, one-sided."""

FURTHEST = 1_000
"""Times the tokens that were measured, up to which a line through them is believed."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A measured drop."""

    interval: Interval  # nats/token, random minus mix
    certain: bool  # above 0 with 95 % confidence


def loss_draws(
    nats: Floats, tokens: Counts, *, draws: int = 2_000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return the mean loss as other items and other seeds might have given it.

    Items are resampled with replacement. Seeds are too few to resample (three of them would
    give intervals a fifth too narrow): their mean is moved by Student's t with n − 1 degrees
    of freedom times its standard error.

    Args:
        nats: (n_seeds, n_items) of each item; or paired differences of two arms.
        tokens: (n_items,), > 0.
        draws: > 0.
        seed: of the resampling.

    Returns:
        (draws,) nats/token.

    Raises:
        ValueError: shapes do not fit, or nothing is there.
    """
    nats, tokens = np.asarray(nats, np.float64), np.asarray(tokens, np.float64)
    if nats.ndim != 2 or nats.shape[1] != len(tokens) or not nats.size or (tokens <= 0).any():
        raise ValueError(f"nats {nats.shape}, tokens {tokens.shape}: need (S, I) and (I,), > 0")
    rng = np.random.default_rng(seed)
    n_seeds, n_items = nats.shape
    together = np.stack([nats.mean(axis=0), tokens], axis=1)  # (I, 2)
    part = max(1, 2**18 // n_items)  # draws at a time: memory is bounded
    sums = [
        together[rng.integers(n_items, size=(min(part, draws - start), n_items))].sum(axis=1)
        for start in range(0, draws, part)
    ]
    values = np.concatenate([drawn[:, 0] / drawn[:, 1] for drawn in sums])
    if n_seeds > 1:
        by_seed = nats.sum(axis=1) / tokens.sum()
        error = by_seed.std(ddof=1) / math.sqrt(n_seeds)
        values = values + error * rng.standard_t(n_seeds - 1, size=draws)
    return values


def mean_loss(nats: Floats, tokens: Counts) -> float:
    """Return nats/token of (n_seeds, n_items) nats: all nats per token, mean over seeds."""
    return float(np.mean(np.sum(nats, axis=1)) / np.sum(tokens))


def loss_interval(nats: Floats, tokens: Counts, *, confidence: float, seed: int = 0) -> Interval:
    """Return the loss of one arm, nats/token, with its interval over items and seeds."""
    drawn = loss_draws(nats, tokens, seed=seed)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean_loss(nats, tokens), float(low), float(high))


def measured_drop(
    control: Floats, mix: Floats, tokens: Counts, *, confidence: float, seed: int = 0
) -> Drop:
    """Return the loss of the control minus that of the mix, paired by seed and item.

    Of one item and one seed no drop is certain: nothing in it says what another would give.

    Args:
        control: (n_seeds, n_items) nats.
        mix: the same shape; seed k of one shares initialisation with seed k of the other.
        tokens: (n_items,).
        confidence: of the interval, 0 to 1.
        seed: of the resampling.
    """
    difference = np.asarray(control, np.float64) - np.asarray(mix, np.float64)
    drawn = loss_draws(difference, tokens, seed=seed)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    interval = Interval(mean_loss(difference, tokens), float(low), float(high))
    return Drop(interval, difference.size > 1 and bool(np.quantile(drawn, 1 - CERTAINTY) > 0))


def judge(drop: Drop, forecast: Forecast) -> Verdict:
    """Hold the measured drop against the forecast: refuted unless it beats random for sure."""
    if not drop.certain:
        return "refuted"
    if drop.interval.value > forecast.high:
        return "better"
    return "worse" if drop.interval.value < forecast.low else "confirmed"


def alignment_slope(alignments: Floats, losses: Floats, *, confidence: float) -> Interval:
    """Return the change in loss per unit of alignment over arms, with Student's interval.

    Zero, with an unknown interval (NaN), where the alignments are all the same; NaN too for
    two arms.
    """
    x, y = np.asarray(alignments, np.float64), np.asarray(losses, np.float64)
    if len(x) < 2 or np.ptp(x) == 0:
        return Interval(0.0, math.nan, math.nan)
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    if len(x) == 2:
        return Interval(slope, math.nan, math.nan)
    residual = y - y.mean() - slope * centred
    error = math.sqrt(residual @ residual / (len(x) - 2) / (centred @ centred))
    reach = float(stats.t.ppf(0.5 + confidence / 2, len(x) - 2)) * error
    return Interval(slope, slope - reach, slope + reach)


@dataclass(frozen=True, slots=True)
class Fit:
    """How much of the losses alignment explains."""

    r2: float
    low: float
    high: float
    p_value: float  # of no slope, two-sided


def alignment_fit(alignments: Floats, losses: Floats, *, confidence: float) -> Fit:
    """Return r² of alignment and loss over arms with its interval, and the p-value of no slope.

    The p-value is Student's with n − 2 degrees of freedom. The interval is the image of
    Fisher's z interval of r (atanh r ± q / √(n − 3)); from 0 where that holds 0.

    Args:
        alignments: (n,).
        losses: (n,).
        confidence: of the interval, 0 to 1.

    Returns:
        NaN for fewer than 3 arms; a NaN interval for fewer than 4.
    """
    x, y = np.asarray(alignments, np.float64), np.asarray(losses, np.float64)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Fit(math.nan, math.nan, math.nan, math.nan)
    r = float(np.clip(np.corrcoef(x, y)[0, 1], -1.0, 1.0))
    ratio = math.inf if r * r >= 1 else abs(r) * math.sqrt((len(x) - 2) / (1 - r * r))
    p_value = float(2 * stats.t.sf(ratio, len(x) - 2))
    if len(x) < 4:
        return Fit(r * r, math.nan, math.nan, p_value)
    reach = float(stats.norm.ppf(0.5 + confidence / 2)) / math.sqrt(len(x) - 3)
    centre = math.atanh(min(abs(r), 1 - 1e-12))
    low, high = math.tanh(max(0.0, centre - reach)), math.tanh(centre + reach)
    return Fit(r * r, low**2, high**2, p_value)


def compute_multiplier(mix: Floats, random: Floats) -> float:
    """Return how many tokens of random data reach what one token of the mix does.

    Where the mix ends lower: all tokens / the tokens after which the mix was where random ends.
    Where it ends higher, the reverse. Losses between two points are linear in log tokens. Runs
    are compared before their rate has fallen with one whose rate has, so the result is nearer
    to 1 than that of runs planned for fewer tokens.

    Args:
        mix: (n, 2) tokens (rising, > 0) and loss of the mix, the last at the end.
        random: (n, 2) the same of random.

    Returns:
        Above 1 where the mix is better; NaN without points; at most the last over the first
        tokens, where the better one was past the other's end at its first point.

    Example:
        >>> mix = np.array([[100.0, 5.0], [200.0, 4.0], [400.0, 3.0]])
        >>> random = np.array([[100.0, 6.0], [200.0, 5.0], [400.0, 4.0]])
        >>> compute_multiplier(mix, random)
        2.0
    """
    mix, random = (np.asarray(each, np.float64).reshape(-1, 2) for each in (mix, random))
    if not len(mix) or not len(random):
        return math.nan
    if mix[-1, 1] > random[-1, 1]:
        return 1 / compute_multiplier(random, mix)
    goal = random[-1, 1]
    falling = np.minimum.accumulate(mix[:, 1])
    reached = np.interp(-goal, -falling, np.log(mix[:, 0]))
    return float(random[-1, 0] / np.exp(reached))


def tokens_to_reach(points: Floats, goal: float) -> float:
    """Return the tokens at which a loss that falls linearly in log tokens reaches `goal`.

    The line goes through the last half of the points, the last one apart where there are more
    than three: it has the fall of the learning rate in it.

    Args:
        points: (n, 2) tokens (rising, > 0) and loss, n >= 2.
        goal: nats/token.

    Returns:
        Tokens; infinite where the loss does not fall, or the answer is more than `FURTHEST` times
        the tokens of the last point: no line goes on for so long.

    Example:
        >>> tokens_to_reach(np.array([[100.0, 6.0], [200.0, 5.0]]), 4.0)
        400.0
    """
    line = _line_in_log_tokens(points)
    if line is None or line[0] >= 0:
        return math.inf
    slope, at, loss = line
    tokens = math.exp(min(at + (goal - loss) / slope, 700.0))
    return float(round(tokens, 6)) if tokens <= FURTHEST * float(points[-1, 0]) else math.inf


def loss_at(points: Floats, tokens: float) -> float:
    """Return the loss at a number of tokens: between the points, or on the line after them.

    The line is that of `tokens_to_reach`. Before the first point it is the loss of that point.

    Args:
        points: (n, 2) tokens (rising, > 0) and loss, n >= 1.
        tokens: > 0.

    Returns:
        nats/token, after the last point at most that of it; the same where no line can be drawn.

    Example:
        >>> points = np.array([[100.0, 6.0], [200.0, 5.0]])
        >>> loss_at(points, 400.0), loss_at(points, 100.0)
        (4.0, 6.0)
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    if tokens <= points[-1, 0]:
        return float(np.interp(math.log(tokens), np.log(points[:, 0]), points[:, 1]))
    last, line = float(points[-1, 1]), _line_in_log_tokens(points)
    if line is None:
        return last
    slope, at, loss = line
    return min(last, round(loss + slope * (math.log(tokens) - at), 9))


def _line_in_log_tokens(points: Floats) -> tuple[float, float, float] | None:
    """Return slope, mean log tokens and mean loss of the last half of the points."""
    points = np.asarray(points, np.float64).reshape(-1, 2)
    points = points[:-1] if len(points) > 3 else points
    points = points[-max(2, len(points) // 2) :]
    x, y = np.log(points[:, 0]), points[:, 1]
    if len(points) < 2 or np.ptp(x) == 0:
        return None
    return float(np.polyfit(x - x.mean(), y, 1)[0]), float(x.mean()), float(y.mean())
