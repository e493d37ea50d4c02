"""Terminal pages that are about the tool itself: targets, doctor, demo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from curate.records import DemoResult, Finding, IndexPlan, NamedTarget, VerificationPlan
from curate.report.grid import Columns
from curate.report.json_lines import to_json
from curate.report.numbers import (
    format_bytes,
    format_count,
    format_number,
    format_seconds,
    format_tokens,
    format_value,
)
from curate.report.ranking_table import ranking_table
from curate.report.tables import mix_table
from curate.report.text import show
from curate.report.verdict import verification_table

_MOST_SOURCES = 40

_REACH = {"hub": "from the hub", "cache": "from the hub's cache"}


def targets_table(targets: Sequence[NamedTarget]) -> RenderableType:
    """Return the named targets, and where each is at hand."""
    headers = ("target", "select split", "eval split", "licence", "reachable", "hub")
    rows = [
        (
            target.name,
            target.select,
            target.eval,
            target.licence,
            Text(show(target.at_hand or _REACH.get(target.reach, "no"))),
            Text(target.hub, style="dim"),
        )
        for target in targets
    ]
    return Columns(headers, rows, lost=("hub", "licence"), prose=headers[1:])


def plan_table(plan: IndexPlan) -> RenderableType:
    """Return what an index would hold and cost; an estimated number has a ~ before it."""
    about = "" if plan.exact else "~"
    rows = [
        (
            one.source,
            format_count(one.files),
            format_bytes(one.n_bytes),
            about + format_count(one.documents),
            about + format_tokens(one.tokens),
            f"~{format_count(one.shards)}",
        )
        for one in plan.sources[:_MOST_SOURCES]
    ]
    headers = ("source", "files", "bytes", "documents", "tokens", "shards")
    table = Columns(headers, rows, lost=("files", "documents"))
    more = len(plan.sources) - _MOST_SOURCES
    lines = [f"and {format_number(more, 'more source')}"] if more > 0 else []
    documents = sum(one.documents for one in plan.sources)
    tokens = sum(one.tokens for one in plan.sources)
    lines.append(
        f"{about}{format_number(documents, 'document')}, {about}{format_tokens(tokens)} tokens, "
        f"~{format_number(plan.shards, 'shard')}: about {format_seconds(plan.seconds)} and at most "
        f"{format_bytes(plan.disk_bytes)} on disk, less what is indexed already"
    )
    if plan.skipped:
        lines.append(f"{format_count(plan.skipped)} skipped, no documents of a corpus")
    lines += [f"{show(name)}: not counted, it is streamed when it is indexed"
              for name in plan.uncounted]  # fmt: skip
    return Group(table, *[Text(line) for line in lines])


def plan_json(plan: IndexPlan) -> str:
    """Return the plan as one JSON object."""
    return to_json(asdict(plan))


def doctor_table(findings: Sequence[Finding]) -> RenderableType:
    """Return what is installed and what to do about what is not."""
    rows = []
    for finding in findings:
        mark = Text("ok", style="green") if finding.good else Text("missing", style="red")
        rows.append((mark, show(finding.what), show(finding.found), show(finding.advice)))
    return Columns(("", "what", "found", "advice"), rows, name="what", prose=("found", "advice"))


def verification_plan_table(plan: VerificationPlan) -> RenderableType:
    """Return what a verification will take, and the tokens that would be enough."""
    lines = [
        f"{format_number(plan.runs, 'run')} of {format_tokens(plan.tokens)} tokens, "
        f"{plan.at_once} at a time: {format_number(plan.steps, 'step')} each",
        f"a model has {format_tokens(plan.parameters)} parameters; a step takes "
        f"{plan.seconds_a_step:.3g} s here (measured)",
        f"about {format_seconds(plan.seconds)} in all, less what is there already",
    ]
    if plan.task_seconds:
        lines.append(
            f"each model is asked its tasks for about {format_seconds(plan.task_seconds)} of that, "
            "by their prompts and the longest answers"
        )
    return Group(*[Text(line) for line in [*lines, *_beyond_words(plan)]])


def _beyond_words(plan: VerificationPlan) -> list[str]:
    """Return whether the small models will know more than word frequencies; if not, what would."""
    pilot = plan.from_pilot  # of seconds, drawn out: it has been a nat off
    source = "a pilot of seconds, which may be a nat off," if pilot else "the last verification"
    goal = plan.unigram_entropy - 1.0
    said = (
        f"by {source} models trained on the mix end at about "
        f"{format_value(plan.expected_loss, decimals=1 if pilot else 2)} nats/token; word "
        f"frequencies alone are at {format_value(plan.unigram_entropy, decimals=2)}"
    )
    if plan.expected_loss < goal:
        sure = not pilot or plan.expected_loss < goal - 1.0
        tests = "tests" if sure else "may test"
        return [f"{said}: this {tests} more than which words a mix has"]
    advice = "within 1 nat/token of them: this tests which words a mix has, hardly more"
    if math.isfinite(plan.enough_tokens) and plan.enough_tokens > plan.tokens:
        steps = plan.steps * plan.enough_tokens / plan.tokens
        advice += (
            f"; {'in the order of' if pilot else 'about'} "
            f"{format_tokens(plan.enough_tokens)} tokens a run (--tokens), "
            f"{format_tokens(steps)} steps, would be enough if the loss goes on falling as it did"
        )
    else:
        other = "another --model" if plan.model else "a larger --size"
        advice += f"; more tokens would not change that, {other} might"
    if plan.model:
        return [said, advice]
    if plan.start_loss < goal:
        advice += (
            f"; going on from --model builtin would be from the first step: it is at "
            f"{format_value(plan.start_loss, decimals=2)} already"
        )
    else:
        advice += "; or go on from a pretrained model that knows the words (--model NAME)"
    return [said, advice]


def demo_summary(result: DemoResult) -> RenderableType:
    """Return the whole job on one screen, and what it came to, good or bad."""
    return Group(
        Rule("ranking"),
        Text(show(result.index.summary())),
        ranking_table(result.ranking, most=8),
        Rule("mix"),
        mix_table(result.mix),
        Rule("verification"),
        verification_table(result.verification),
        Rule("in short"),
        *[Text(line) for line in _short(result)],
    )


def _short(result: DemoResult) -> list[str]:
    drop = result.verification.drop
    expected, found = show(", ".join(result.expected)), show(", ".join(result.found))
    ranking = "found them" if result.ranking_found_them else f"put {found} first instead"
    gained = "less" if drop.value >= 0 else "MORE"
    confirmed = result.verification.verdict == "confirmed"
    return [
        f"A person would name {expected}; the ranking {ranking}.",
        f"A model trained on the mix loses {format_value(abs(drop.value))} nats/token {gained} on "
        "the target than one trained on a random mix of the same tokens.",
        f"The forecast {'held' if confirmed else 'did not hold'}: {result.verification.verdict}.",
        f"Report: {show(result.report)}. Took {format_seconds(result.seconds)}.",
    ]
