"""The whole job as one HTML file that opens without network."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from curate.records import (
    Comparison,
    Index,
    Mix,
    MixContents,
    Ranking,
    StageRun,
    Verification,
)
from curate.report import chapters, numbers
from curate.report.ranking_table import has_ceiling
from curate.report.repeat import repeat_lines
from curate.report.text import show, show_middle
from curate.report.theme import CHART_STYLE, PALETTE_STYLE

_VERDICTS = {
    "confirmed": "the measured drop agrees with the forecast",
    "better": "the measured drop is larger than forecast",
    "worse": "there is a drop, but smaller than forecast",
    "refuted": "no drop was measured",
}


def render_report(
    *,
    index: Index,
    ranking: Ranking | None = None,
    mix: Mix | None = None,
    verification: Verification | None = None,
    comparisons: Sequence[Comparison] = (),
    contents: MixContents | None = None,
    history: Sequence[StageRun] = (),
) -> str:
    """Return everything that a workspace holds as one HTML page.

    The page loads nothing and runs nothing: its content security policy allows only its own
    style sheet. All text from data goes through `show` and is escaped.

    Args:
        index: always there.
        ranking: None while nothing is ranked.
        mix: None while none is built.
        verification: None while nothing is verified.
        comparisons: of several targets or methods, of the same index.
        contents: a look into the mix.
        history: what ran in the workspace: cost, settings and commands.
    """
    page = _environment().from_string(
        files("curate.report").joinpath("report.html").read_text(encoding="utf-8")
    )
    shown = [record for record in (index, ranking, mix, verification) if record is not None]
    toml, commands = repeat_lines(history, [record.fingerprint for record in shown])
    return page.render(
        chart_style=Markup(PALETTE_STYLE + CHART_STYLE),
        heats_of=chapters.HEATS,
        most=chapters.MOST_SHARDS,
        question=_question(index, ranking, mix),
        answer=_answer(index, ranking, mix, verification),
        verdict=verification.verdict if verification else "",
        verdict_words=_VERDICTS[verification.verdict] if verification else "",
        facts=_facts(index, ranking, mix, verification),
        warnings=[*(ranking.warnings if ranking else ()), *_verify_warnings(verification)],
        ranking=chapters.ranking_part(ranking) if ranking else None,
        heats=[chapters.heat_part(comparison) for comparison in comparisons],
        mix=chapters.mix_part(mix, index, contents) if mix else None,
        forecast=chapters.forecast_part(verification) if verification else None,
        verification=chapters.verification_part(verification) if verification else None,
        corpus=chapters.corpus_part(index),
        cost=chapters.cost_part(history, verification),
        toml=toml,
        commands=commands,
        digests=_digests(index, ranking, mix, verification),
        versions=history[-1].versions if history else {"curate": _version()},
    )


def style_digest(style: str) -> str:
    """Return the source expression by which a content security policy allows `style`."""
    digest = hashlib.sha256(style.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "show": show,
        "middle": show_middle,
        "digest": style_digest,
        "tokens": numbers.format_tokens,
        "count": numbers.format_count,
        "value": numbers.format_value,
        "share": numbers.format_share,
        "seconds": numbers.format_seconds,
        "size": numbers.format_bytes,
    }
    environment.globals |= {"interval": numbers.format_interval, "ranks": numbers.format_ranks}
    return environment


def _question(index: Index, ranking: Ranking | None, mix: Mix | None) -> str:
    number = len(index.shards)
    question = "Should I train on this shard"
    if number != 1:
        question = f"Which of these {numbers.format_count(number)} shards should I train on"
    if ranking is not None:
        question += f", to be good at {show_middle(ranking.target, 60)}"
    if mix is not None:
        question += f", with {numbers.format_tokens(mix.budget)} tokens"
    return f"{question}?"


def _answer(
    index: Index, ranking: Ranking | None, mix: Mix | None, verification: Verification | None
) -> str:
    if verification is not None:
        return verification.sentence
    if mix is not None:
        return (
            f"A mix of {numbers.format_tokens(mix.tokens)} tokens is built. "
            f"Its forecast has not been verified: run curate verify."
        )
    if ranking is not None and ranking.shards:
        best = ", ".join(show_middle(shard.shard, 30) for shard in ranking.shards[:3])
        return f"Closest to the target: {best}. No mix has been built yet."
    return f"{numbers.format_count(len(index.shards))} shards are indexed; none is ranked yet."


def _facts(
    index: Index, ranking: Ranking | None, mix: Mix | None, verification: Verification | None
) -> list[tuple[str, str, list[str]]]:
    """Return (what, number, lines of small print) of the first screen, most telling first."""
    facts: list[tuple[str, str, list[str]]] = []
    if verification is not None:
        drop = verification.drop
        between = numbers.format_interval(drop.low, drop.high, signed=True)
        value = numbers.format_value(drop.value, signed=True)
        facts.append(("measured drop, nats/token", value, [between, *_perplexity(drop.value)]))
    if mix is not None:
        forecast = verification.forecast if verification is not None else mix.forecast
        between = numbers.format_interval(forecast.low, forecast.high, signed=True)
        value = numbers.format_value(forecast.drop, signed=True)
        facts.append(("forecast drop, nats/token", value, [between]))
        sources = "one source" if len(mix.sources) == 1 else f"{len(mix.sources)} sources"
        of = f"{numbers.format_count(mix.tokens)} from {sources}"
        facts.append(("tokens in the mix", numbers.format_tokens(mix.tokens), [of]))
        between = numbers.format_interval(mix.low, mix.high)
        facts.append(("alignment of the mix", numbers.format_value(mix.alignment), [between]))
    tokens = sum(indexed.shard.n_tokens for indexed in index.shards)
    documents = sum(indexed.shard.n_documents for indexed in index.shards)
    of = f"{len(index.shards)} shards, {numbers.format_count(documents)} documents"
    facts.append(("tokens to choose from", numbers.format_tokens(tokens), [of]))
    if ranking is not None and mix is None and has_ceiling(ranking):
        value = numbers.format_value(ranking.ceiling)
        facts.append(("ceiling", value, [f"floor {numbers.format_value(ranking.floor)}"]))
    return facts[:4]


def _perplexity(drop: float) -> list[str]:
    if not math.isfinite(drop) or abs(drop) > 20:
        return []
    change = 1 - math.exp(-drop)
    direction = "lower" if change >= 0 else "higher"
    return [f"perplexity {numbers.format_share(abs(change))} {direction}"]


def _verify_warnings(verification: Verification | None) -> tuple[str, ...]:
    return verification.warnings if verification is not None else ()


def _digests(
    index: Index, ranking: Ranking | None, mix: Mix | None, verification: Verification | None
) -> list[tuple[str, str]]:
    """Return (what, value) of all that has to be equal for the result to be the same."""
    probe = index.probe
    rows = [
        ("probe", f"{probe.name} at {probe.revision}"),
        ("tokenizer", probe.tokenizer_digest),
        ("index", index.fingerprint),
    ]
    if ranking is not None:
        rows += [("ranking", ranking.fingerprint), ("select split", ranking.select_digest)]
    if mix is not None:
        rows.append(("mix", mix.fingerprint))
    if verification is not None:
        rows.append(("verification", verification.fingerprint))
        if verification.forecast.made_at:
            rows.append(("forecast made at", verification.forecast.made_at))
    return rows


def _version() -> str:
    try:
        return version("curate")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "not installed"
