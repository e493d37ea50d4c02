"""The first screen of the report: the question, the answer, the numbers that it rests on."""

from __future__ import annotations

import math

from curate.records import Index, Mix, Ranking, Verification
from curate.report.gains import token_worth
from curate.report.numbers import (
    format_count,
    format_interval,
    format_number,
    format_share,
    format_tokens,
    format_value,
)
from curate.report.ranking_table import has_ceiling
from curate.report.text import show_middle

VERDICTS = {
    "confirmed": "the measured drop agrees with the forecast",
    "better": "the measured drop is larger than forecast",
    "worse": "there is a drop, but smaller than forecast",
    "refuted": "no drop beyond doubt was measured",
}
_MOST_NAMED = 3  # sources, where there are more than one more
_LEAST_NAMED = 0.01  # of the mix: a source of less is no answer
_LEAST_TOLD = 0.001  # of it: less would be told as <0.1%

Fact = tuple[str, str, list[str]]
"""What, its number, lines of small print."""


def question(index: Index, ranking: Ranking | None, mix: Mix | None) -> str:
    """Return what was asked, as a person would ask it."""
    number = len(index.shards)
    asked = "Should I train on this shard"
    if number != 1:
        asked = f"Which of these {format_count(number)} shards should I train on"
    if ranking is not None:
        asked += f", to be good at {show_middle(ranking.target, 60)}"
    if mix is not None:
        asked += f", with {format_tokens(mix.budget)} tokens"
    return f"{asked}?"


def answer(
    index: Index, ranking: Ranking | None, mix: Mix | None, verification: Verification | None
) -> str:
    """Return which shards: by name and share, and whether that is known yet."""
    if mix is not None or verification is not None:
        held = _held(_shares(mix, verification))
        if verification is None:
            return f"{held}. That has not been verified: run curate verify."
        if verification.verdict == "refuted":
            found = "was not better than random documents beyond doubt"
            return f"None, as far as was seen: {held} {found}."
        return f"{held}."
    if ranking is not None and ranking.shards:
        best = ", ".join(show_middle(shard.shard, 30) for shard in ranking.shards[:3])
        return f"Closest to the target: {best}. No mix has been built yet."
    number = len(index.shards)
    are = "is" if number == 1 else "are"
    return f"{format_number(number, 'shard')} {are} indexed; none is ranked yet."


def facts(
    index: Index, ranking: Ranking | None, mix: Mix | None, verification: Verification | None
) -> list[Fact]:
    """Return the four numbers of the first screen, most telling first."""
    found = _measured(verification) if verification is not None else []
    planned = verification or mix
    if planned is not None:
        forecast = planned.forecast
        between = format_interval(forecast.low, forecast.high, signed=True)
        value = format_value(forecast.drop, signed=True)
        found.insert(1, ("forecast drop, nats/token", value, [between]))
    if mix is not None:
        of = f"{format_count(mix.tokens)} from {format_number(len(mix.sources), 'source')}"
        found.append(("tokens in the mix", format_tokens(mix.tokens), [of]))
        between = format_interval(mix.low, mix.high)
        found.append(("alignment of the mix", format_value(mix.alignment), [between]))
    tokens = sum(indexed.shard.n_tokens for indexed in index.shards)
    documents = sum(indexed.shard.n_documents for indexed in index.shards)
    of = f"{format_number(len(index.shards), 'shard')}, {format_number(documents, 'document')}"
    found.append(("tokens to choose from", format_tokens(tokens), [of]))
    if ranking is not None and mix is None and has_ceiling(ranking):
        value = format_value(ranking.ceiling)
        found.append(("ceiling", value, [f"floor {format_value(ranking.floor)}"]))
    return found[:4]


def _shares(mix: Mix | None, verification: Verification | None) -> dict[str, float]:
    """Return each source's share of the mix, of one that is gone as it was trained on."""
    if mix is not None:
        return {name: tokens / (mix.tokens or 1) for name, tokens in mix.sources.items()}
    arms = verification.arms if verification is not None else ()
    trained = next((arm.sources for arm in arms if arm.arm == "mix"), {})
    return {name: share for name, share in trained.items() if share > 0}


def _held(sources: dict[str, float]) -> str:
    """Return the sources of a mix with their shares, largest first, the small ones together.

    Those of less than a hundredth are named only where none is larger; what is left of less than
    a thousandth stays in the table of the mix.
    """
    if not sources:  # gone, and verified by an earlier state that noted none
        return "The mix that was trained on"
    shares = sorted(sources.items(), key=lambda pair: (-pair[1], pair[0]))
    large = [pair for pair in shares if pair[1] >= _LEAST_NAMED] or shares
    named = large if len(large) <= _MOST_NAMED + 1 else large[:_MOST_NAMED]
    words = [f"{show_middle(name, 30)} ({format_share(share)})" for name, share in named]
    rest = shares[len(named) :]
    if (left := sum(share for _, share in rest)) >= _LEAST_TOLD:
        share = format_share(left)
        words.append(f"{format_number(len(rest), 'more source')} ({share})")
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _measured(verification: Verification) -> list[Fact]:
    """Return the drop, what a token is worth, and the price, where they are known."""
    drop, price = verification.drop, verification.price
    between = format_interval(drop.low, drop.high, signed=True)
    value = format_value(drop.value, signed=True)
    found = [("measured drop, nats/token", value, [between, *_perplexity(drop.value)])]
    if worth := token_worth(verification):
        found.append(("a token of the mix is worth", worth, ["tokens drawn at random"]))
    if math.isfinite(price.value):
        between = format_interval(price.low, price.high, signed=True)
        what = ["nats/token, natural mix"]
        value = format_value(price.value, signed=True)
        found.append(("price on other text", value, [between, *what]))
    return found


def _perplexity(drop: float) -> list[str]:
    if not math.isfinite(drop) or abs(drop) > 20:
        return []
    change = 1 - math.exp(-drop)
    direction = "lower" if change >= 0 else "higher"
    return [f"perplexity {format_share(abs(change))} {direction}"]
