"""What a reader of a verdict is warned of, and what would help."""

from __future__ import annotations

import math

import numpy as np

from curate.records import NEVER, Floats
from curate.settings import VerifySettings
from curate.verification.measured import Measured, whole_points
from curate.verification.outcome import tokens_to_reach


def find_caveats(measured: Measured, settings: VerifySettings, *, seeds_needed: int) -> list[str]:
    """Return what to know before the verdict is believed, the notes of the experiment first.

    Args:
        measured: what the verdict follows from.
        settings: as of `verify_mix`.
        seeds_needed: an arm, to show the forecast drop (`needed_seeds`).
    """
    found = list(measured.notes)
    runs, published, entropy = measured.runs, measured.forecasts[-1], measured.unigram_entropy
    mix_loss = float(np.mean([run.loss for run in runs if run.arm == "mix"]))
    if mix_loss > entropy - 1.0:
        found.append(
            f"the {learners(settings)} ({mix_loss:.2f} nats/token) are within 1 nat/token of word "
            f"frequencies alone ({entropy:.2f}): this tests which words a mix has, hardly more; "
            + _enough(whole_points(runs, "mix"), entropy - 1.0, settings)
        )
    if not published.blind:
        found.append("runs on this mix were there before the forecast was made: it is not blind")
    if published.drop is not None and published.drop.low <= 0 <= published.drop.high:
        found.append(
            "the interval of the forecast holds a drop of 0: it did not say that the mix is "
            "better; more calibration mixes (--calibration) narrow it"
        )
    controls = [run.loss for run in runs if run.arm == "random"]
    if len(controls) == 1:
        found.append("one seed an arm: the intervals leave out what seeds differ by")
    elif seeds_needed == NEVER:
        found.append(
            "no number of seeds shows the forecast drop at 90 % power: it is too small beside what "
            "the choice of eval items adds; more of them would help"
        )
    elif seeds_needed > settings.seeds:
        found.append(
            f"to see the forecast drop at 90 % power would take {seeds_needed} seeds an arm, "
            f"not {settings.seeds}"
        )
    same = {arm.tokens for arm in measured.arms if arm.name in ("all", "random")}
    if len(same) == 1 and any(arm.name == "all" for arm in measured.arms):
        found.append("all holds the documents of random here: its runs are those of random")
    n_items = len(runs[0].item_tokens)
    if n_items == 1:
        found.append("only 1 eval item: no interval holds what another would change")
    elif n_items < 30:
        found.append(f"only {n_items} eval items: the intervals are rough")
    return found


def _enough(points: Floats, goal: float, settings: VerifySettings) -> str:
    """Return what to do to get below `goal`, from how the mix's loss fell with its tokens.

    Where the line of that fall is below it sooner than the loss was, it fell no further.
    """
    needed = tokens_to_reach(points, goal)
    if not math.isfinite(needed) or needed <= points[-1, 0]:
        other = (
            "another --model may know the words already"
            if settings.model
            else "give [verify] a larger size, or a pretrained model to go on from (--model)"
        )
        return f"as the loss fell, more tokens would not be enough; {other}"
    needed = round(needed, 1 - math.floor(math.log10(needed)))
    other = "another --model may know" if settings.model else "a pretrained start (--model) knows"
    return (
        f"about {needed:,.0f} tokens a run ([verify] tokens) would be enough if the "
        f"loss goes on falling as it did; {other} the words already"
    )


def learners(settings: VerifySettings) -> str:
    """Return what the models that are trained are called."""
    return "pretrained models" if settings.model else "small models"
