"""The whole job as one HTML file that opens without network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from curate.records import (
    NEVER,
    Comparison,
    Index,
    Mix,
    MixContents,
    Ranking,
    StageRun,
    Verification,
)
from curate.report import chapters, numbers
from curate.report.first_screen import VERDICTS, answer, facts, question
from curate.report.repeat import repeat_lines
from curate.report.text import show, show_middle
from curate.report.theme import CHART_STYLE, PALETTE_STYLE

_JOINT = re.compile(r"[_/.-]+(?=\w)")


def render_report(
    *,
    index: Index,
    ranking: Ranking | None = None,
    mix: Mix | None = None,
    verification: Verification | None = None,
    comparisons: Sequence[Comparison] = (),
    contents: MixContents | None = None,
    history: Sequence[StageRun] = (),
    stale: Sequence[str] = (),
) -> str:
    """Return everything that a workspace holds as one HTML page.

    The page loads nothing and runs nothing: its content security policy allows only its own
    style sheet. All text from data goes through `show` and is escaped.

    Args:
        index: always there.
        ranking: None while nothing is ranked.
        mix: None while none is built, or where it is gone.
        verification: None while nothing is verified.
        comparisons: of several targets or methods, of the same index.
        contents: a look into the mix.
        history: what ran in the workspace: cost, settings and commands.
        stale: what of the workspace does not belong to the rest, for the warnings.
    """
    page = _environment().from_string(
        files("curate.report").joinpath("report.html").read_text(encoding="utf-8")
    )
    toml, commands = repeat_lines(
        history,
        [
            index.fingerprint,
            ranking.fingerprint if ranking else "",
            _mix_fingerprint(mix, verification),
            verification.fingerprint if verification else "",
        ],
    )
    return page.render(
        chart_style=Markup(PALETTE_STYLE + CHART_STYLE),
        heats_of=chapters.HEATS,
        most=chapters.MOST_SHARDS,
        made=history[-1].at[:10] if history else "",
        question=question(index, ranking, mix),
        answer=answer(index, ranking, mix, verification),
        measured=verification.sentence if verification else "",
        verdict=verification.verdict if verification else "",
        verdict_words=VERDICTS[verification.verdict] if verification else "",
        facts=facts(index, ranking, mix, verification),
        warnings=[*stale, *(ranking.warnings if ranking else ()), *_verify_warnings(verification)],
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


def show_name(text: str, width: int) -> Markup:
    """Return `show_middle(text)` as HTML that breaks at the joints of a name, not within a word.

    Example:
        >>> show_name("a_long/name", width=20)
        Markup('a_<wbr>long/<wbr>name')
    """
    return Markup(_JOINT.sub(r"\g<0><wbr>", str(escape(show_middle(text, width)))))


def show_moment(moment: str) -> str:
    """Return a moment in UTC (ISO 8601) as a person reads it.

    Example:
        >>> show_moment("2026-11-22T07:18:13.666+00:00")
        '2026-11-22 07:18:13.666'
    """
    return show(moment).replace("T", " ", 1).removesuffix("+00:00")


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
        "name": show_name,
        "moment": show_moment,
        "fate": lambda reason: chapters.REJECTED.get(reason, reason),
        "digest": style_digest,
        "tokens": numbers.format_tokens,
        "count": numbers.format_count,
        "number": numbers.format_number,
        "minus": numbers.with_minus,
        "value": numbers.format_value,
        "alignment": numbers.format_alignment,
        "share": numbers.format_share,
        "seconds": numbers.format_seconds,
        "size": numbers.format_bytes,
    }
    environment.globals |= {
        "interval": numbers.format_interval,
        "ranks": numbers.format_ranks,
        "never": NEVER,
    }
    return environment


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
    if of_mix := _mix_fingerprint(mix, verification):
        rows.append(("mix", of_mix))
    if verification is not None:
        rows.append(("verification", verification.fingerprint))
        if verification.forecast.made_at:
            rows.append(("forecast made at", verification.forecast.made_at))
    return rows


def _mix_fingerprint(mix: Mix | None, verification: Verification | None) -> str:
    """Return that of the mix, or of one that is gone from its verification; "" where none is."""
    if mix is not None:
        return mix.fingerprint
    return verification.mix_fingerprint if verification is not None else ""


def _version() -> str:
    try:
        return version("curate")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "not installed"
