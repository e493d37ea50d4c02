"""Runs, arms and the verdict over a forecast."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from curate.frames import Frame, plain
from curate.records.mixing import Forecast
from curate.records.values import NOT_MEASURED, Interval

Verdict = Literal["confirmed", "better", "worse", "refuted"]


NEVER = 10_000
"""Of `seeds_needed`: no number of seeds shows the drop."""


def seeds_that_show(needed: int, *, size: str = "") -> str:
    """Return how many seeds an arm show the forecast drop, with its size where that is given."""
    seeds = "no number of seeds an arm shows" if needed == NEVER else f"{needed} seeds an arm show"
    return f"{seeds} the forecast drop{size and f' of {size}'} at 90 % power"


@dataclass(frozen=True, slots=True)
class Run:
    """One small model, trained."""

    arm: str  # mix, random, worst, calibration-1, …, by-METHOD, all
    seed: int  # of the model's start and the order of text
    tokens: int  # trained on
    loss: float  # nats/token on the eval split of the target, mean over its tokens
    bpb: float  # bits a byte on the same items
    item_nats: tuple[float, ...]  # summed nats of each item
    item_tokens: tuple[int, ...]  # of each item
    curve: tuple[tuple[int, float], ...]  # (tokens seen, training loss)
    seconds: float  # of training
    started_at: str = ""  # UTC, ISO 8601
    forecast: str = ""  # digest of the forecast published before it trained; "" for none
    points: tuple[tuple[int, float], ...] = ()  # (tokens seen, loss on some eval items)
    control_nats: tuple[float, ...] = ()  # summed nats of each document of the control set
    control_tokens: tuple[int, ...] = ()  # of each of them
    outcomes: dict[str, tuple[float, ...]] = field(default_factory=dict)  # task → of each item


@dataclass(frozen=True, slots=True)
class RunState:
    """How far one run is."""

    arm: str
    seed: int
    tokens: int  # seen; 0: it waits
    of: int  # tokens of the whole run
    loss: float  # in training, the latest; of the eval split once it has ended; NaN while it waits
    ended: bool = False


Watch = Callable[[Sequence[RunState]], None]
"""Told now and then how far runs are."""


def unwatched(states: Sequence[RunState]) -> None:
    """Ignore how far runs are: the default of every stage."""


@dataclass(frozen=True, slots=True)
class ArmResult:
    """All runs of one arm."""

    arm: str  # mix, random, worst, calibration-1, …, by-METHOD, all
    loss: float  # nats/token, mean over seeds
    low: float  # of the interval: 90 %, or [verify] confidence
    high: float
    seeds: int  # runs, a seed each
    alignment: float  # of the arm's own mixture
    forecast_loss: float  # predicted before the arm trained; NaN where nothing was
    forecast_low: float = float("nan")  # of its interval, likewise
    forecast_high: float = float("nan")
    forecast_at: str = ""  # UTC, ISO 8601: when that was published
    trained_at: str = ""  # UTC: when its first run started
    bpb: float = float("nan")  # bits a byte on the eval split, mean over seeds
    control_loss: float = float("nan")  # nats/token on held-out documents of the natural mix
    sources: dict[str, float] = field(default_factory=dict)  # source → share of the tokens
    outcomes: dict[str, Interval] = field(default_factory=dict)  # task and metric → mean

    @property
    def perplexity(self) -> float:
        """Perplexity a token: e to the loss; infinite beyond what a number holds."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(frozen=True, slots=True, repr=False)
class Verification(Frame):
    """The forecast held against the measurement."""

    target: str  # its name
    verdict: Verdict
    sentence: str  # the verdict as a person would quote it
    drop: Interval  # nats/token, random minus mix, measured
    forecast: Forecast  # of that drop, published before the mix trained
    arms: tuple[ArmResult, ...]
    runs: tuple[Run, ...]  # of all arms
    slope: Interval  # loss per unit of alignment over all arms
    spearman: float  # of −alignment and loss over all arms
    unigram_entropy: float  # nats/token of the eval split under the mix's unigrams
    warnings: tuple[str, ...]  # a sentence each
    fingerprint: str  # of all that it was made from
    law: str = ""  # that the forecast follows
    forecast_digest: str = ""  # each run of the mix holds it too
    price: Interval = NOT_MEASURED  # control set: loss of the mix minus random, nats/token
    multiplier: float = float("nan")  # tokens of random per token of the mix, for one loss
    r2: float = float("nan")  # of alignment and loss over all arms
    p_value: float = float("nan")  # of that slope being 0
    seeds_needed: int = 0  # an arm, for the forecast drop at 90 % power; 0: unknown; or `NEVER`
    r2_low: float = float("nan")  # of its interval
    r2_high: float = float("nan")
    outcomes: dict[str, Interval] = field(default_factory=dict)  # of tasks: mix minus random
    mix_fingerprint: str = ""  # of the mix that was verified; "" in one of an earlier state
    learner: str = ""  # digest of target, model and tokenizer: of one, losses compare by tokens

    def summary(self) -> str:
        """Return the verdict in one line."""
        return f"{self.verdict}: {self.sentence}"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row an arm, lowest loss first."""
        return [plain(arm) for arm in sorted(self.arms, key=lambda arm: arm.loss)]


@dataclass(frozen=True, slots=True)
class VerificationPlan:
    """What a verification will take, said before it starts."""

    runs: int
    at_once: int
    tokens: int  # a run
    steps: int  # a run
    parameters: int  # of a model, embedding included
    seconds_a_step: float  # measured on this machine
    seconds: float  # all runs, nothing there yet
    enough_tokens: float  # a run, to get 1 nat/token below word frequencies; infinite: none are
    unigram_entropy: float = float("nan")  # nats/token of eval items under word frequencies alone
    expected_loss: float = float("nan")  # nats/token of the mix at the end of a run, about
    start_loss: float = float("nan")  # of the pretrained start; of `builtin` where there is none
    from_pilot: bool = False  # whether these are of a pilot, not of the last verification
    task_seconds: float = 0.0  # that each model is asked tasks for, counted in `seconds`
    model: str = ""  # pretrained, that the runs go on from; "": from scratch
