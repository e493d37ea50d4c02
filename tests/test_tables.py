import dataclasses
import doctest
import io
import itertools
import json
import math
import re
import unicodedata
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console

from curate.corpus.named_targets import list_targets
from curate.mixing.card import write_card
from curate.mixing.forecast import Prior, forecast_without_runs
from curate.ranking.check import check_alignment
from curate.records import (
    NEVER,
    Contribution,
    Explanation,
    Finding,
    Forecast,
    IndexPlan,
    Interval,
    MixPart,
    PlannedSource,
    RunState,
)
from curate.report import grid
from curate.report.comparison import check_table, comparison_table, explanation_table
from curate.report.grid import bar, result_console
from curate.report.html import render_report
from curate.report.json_lines import (
    index_json,
    ledger_json,
    mix_json,
    ranking_json,
    verification_json,
)
from curate.report.overview import doctor_table, plan_table, targets_table
from curate.report.progress import progress_notify, progress_of_runs
from curate.report.ranking_table import ranking_table, tie_mark
from curate.report.svg import tick_text
from curate.report.tables import index_table, ledger_table, mix_table
from curate.report.verdict import verification_table
from curate.settings import MixSettings
from tests.report_records import (
    HOSTILE,
    SOURCES,
    comparison,
    index,
    mix,
    ranking,
    verification,
    with_a_task,
)


def printed(renderable, *, width=140):
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    console.print(renderable)
    return console.file.getvalue()


def safe(text):
    return not any(unicodedata.category(char)[0] == "C" for char in text.replace("\n", ""))


def test_ranking_table_shows_ties_intervals_and_share_of_the_ceiling():
    lines = printed(ranking_table(ranking())).splitlines()
    first = next(line for line in lines if "scipy-docstrings" in line)
    assert first.split()[:5] == ["╭", "1", "scipy-docstrings", "60k", "0.930"]
    assert "0.900 to 0.955" in first
    assert "1–3" in first
    assert first.rstrip().endswith("96%")
    assert any(line.split()[:2] == ["│", "2"] for line in lines)
    assert any(line.split()[:2] == ["╰", "3"] for line in lines)
    assert any("ceiling 0.970 · floor 0.120" in line for line in lines)
    assert lines[-1].startswith("! only 40 items")


def test_ranking_table_drops_columns_on_a_narrow_terminal_but_never_the_interval():
    for width in (60, 80, 100):
        text = printed(ranking_table(ranking()), width=width)
        assert ("networkx-docstrings" if width >= 80 else "networkx…") in text
        assert "0.900 to 0.955" in text
        assert "1–3" in text
        assert ("of ceiling" in text) == (width >= 100)


def every_table(tmp_path):
    """The tables that commands print, of records whose names are long."""
    long = tuple(f"a-long-folder/of-shards-{letter * 8}" for letter in "abcdefgh")
    kept = tmp_path / "kept.jsonl"
    kept.write_text(ranking_json(ranking()), encoding="utf-8")
    methods = ("lexical", "task2vec", "ngram", "classifier", "compression", "embedding")
    part = Contribution("layers.weight row", 0.01, 0.02, 1.25, 3.45)
    why = {"nearest": ((0.81, "some text " * 9),), "farthest": ((0.12, "a word"),)}
    terms = {"documents": 24, "shard_terms": ("a",), "target_terms": ("b",)}
    source = PlannedSource("a-long-folder/of-a-source-named-so", 12, 3_456_789, 1_234, 567_000, 3)
    return {
        "rank": ranking_table(ranking()),
        "rank, long names": ranking_table(ranking(long)),
        "rank --compare": comparison_table(comparison(what="methods", columns=methods)),
        "rank --against": comparison_table(comparison()),
        "rank --check": check_table(check_alignment(ranking(), kept)),
        "rank --explain": explanation_table(
            Explanation(ranking(), ranking().shards[0], (part,), (part,), **why, **terms)
        ),
        "index": index_table(index(long)),
        "index --dry-run": plan_table(
            IndexPlan((source,), 3, 12.0, 9_000_000, exact=False, skipped=0)
        ),
        "show ledger": ledger_table(index()),
        "build-mix": mix_table(mix()),
        "verify": verification_table(with_a_task("lm-eval:arc-easy acc")),
        "targets": targets_table(list_targets("", ask_hub=False)),
        "doctor": doctor_table([Finding("torch", "2.13.0", good=True, advice="words " * 9)]),
    }


def test_an_explanation_names_the_ranks_of_an_interval_only_where_there_are_several():
    def line(low, high):
        shard = dataclasses.replace(ranking().shards[0], rank=1, rank_low=low, rank_high=high)
        terms = {"documents": 1, "shard_terms": (), "target_terms": ()}
        found = Explanation(ranking(), shard, (), (), (), (), **terms)
        return printed(explanation_table(found), width=200).splitlines()[0]

    n = len(ranking().shards)
    assert f": rank 1 of {n}, alignment to" in line(1, 1)
    assert f": rank 1 of {n} (ranks 1–2), alignment to" in line(1, 2)


def test_no_number_is_a_negative_zero():
    """Neither on a terminal nor in JSON, a card, a report, a chart or the line of a record."""
    none = Interval(-1e-7, -1e-7, -0.0)
    basis = forecast_without_runs(-1e-7, Prior(slope=1.0, residual_sd=0.0, n=0, command="")).basis
    forecast = Forecast(-1e-7, -1e-7, -0.0, basis)
    ranked = ranking()
    shards = [
        dataclasses.replace(shard, alignment=-1e-7, low=-1e-7, high=-0.0) for shard in ranked.shards
    ]
    ranked = dataclasses.replace(ranked, shards=tuple(shards))
    made = dataclasses.replace(mix(), alignment=-1e-7, low=-1e-7, high=-0.0, forecast=forecast)
    outcome = verification()
    arms = tuple(dataclasses.replace(arm, alignment=-1e-7, low=-0.0) for arm in outcome.arms)
    outcome = dataclasses.replace(
        outcome, arms=arms, drop=none, forecast=forecast, price=none, slope=none, r2=-1e-7,
        r2_low=-1e-7, r2_high=-0.0, p_value=0.5, spearman=-1e-7,
    )  # fmt: skip
    texts = {
        "rank": printed(ranking_table(ranked)),
        "build-mix": printed(mix_table(made)),
        "verify": printed(verification_table(outcome)),
        "repr": "\n".join(each.summary() for each in (ranked, made, outcome)),
        "card": write_card(
            made, index=index(), target=SimpleNamespace(name="t", licence=""), files=[],
            settings=MixSettings(budget=1),
        ),
        "report": render_report(index=index(), ranking=ranked, mix=made, verification=outcome),
        "rank --json": ranking_json(dataclasses.replace(ranked, shards=(
            dataclasses.replace(ranked.shards[0], alignment=-0.0, low=-0.0),
        ))),
        "build-mix --json": mix_json(made),
        "verify --json": verification_json(outcome),
        "axis": tick_text(-1e-7, [-1.0, 0.0]),
    }  # fmt: skip
    negative = r"(?<![\w.)])[-−]0(?:\.0+)?%?(?![\w.%])"
    for what, text in texts.items():
        assert not re.findall(negative, text), what


def test_the_line_of_a_mix_calls_no_part_nothing_or_all():
    parts = (MixPart("a", "a", 9_996, 1.0, 0.5), MixPart("b", "b", 4, 1.0, 0.5))
    made = dataclasses.replace(mix(), parts=parts, tokens=10_000)
    assert "(a >99.9%, b <0.1%)" in made.summary()


def numbers_in(text):
    """Return what stands between spaces and brackets and holds a digit, names left out."""
    words = re.findall(r"[^\s()]*\d[^\s()]*", text)
    return {word.rstrip(".,:;") for word in words if not re.search("[a-zA-Z…]{2}", word)}


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_table_cuts_a_number_or_is_wider_than_its_terminal(width, tmp_path):
    for command, table in every_table(tmp_path).items():
        text, whole = printed(table, width=width), printed(table, width=400)
        assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= width, command
        assert numbers_in(text) <= numbers_in(whole), command


@pytest.mark.parametrize("crumbs", [3, 4])
def test_many_sources_that_give_next_to_nothing_stand_in_one_line(crumbs):
    whole = mix()
    parts = tuple(
        dataclasses.replace(whole.parts[0], shard=f"s{n}", source=f"s{n}", tokens=100 + n)
        for n in range(crumbs)
    )
    given = sum(part.tokens for part in parts)
    made = dataclasses.replace(whole, parts=whole.parts + parts, tokens=whole.tokens + given)
    text = printed(mix_table(made), width=100)
    assert all(part.source in text for part in whole.parts)
    assert ("s2" in text) == (crumbs == 3)
    assert bool(re.search(r"… 4 others +406 +0\.1%", text)) == (crumbs == 4)
    assert {part.source for part in parts} <= set(json.loads(mix_json(made))["sources"])


def test_a_ranking_of_small_alignments_is_one_table_at_forty_columns():
    """Below 0.01 they have a decimal more."""
    first, *others = ranking().shards
    small = dataclasses.replace(others[-1], alignment=0.0038, low=0.0034, high=0.0043)
    text = printed(
        ranking_table(dataclasses.replace(ranking(), shards=(first, *others[:-1], small))), width=40
    )
    (line,) = [line for line in text.splitlines() if "0.0034 to 0.0043" in line]
    assert line.split()[:3] == ["15", "chan…logs", "0.0038"]


def test_an_alignment_that_is_not_zero_does_not_read_as_zero():
    first, second, *_ = ranking().shards
    tiny = dataclasses.replace(first, alignment=3.1e-6, low=2.9e-7, high=3.3e-4)
    none = dataclasses.replace(second, alignment=0.0, low=0.0, high=0.0)
    text = printed(ranking_table(dataclasses.replace(ranking(), shards=(tiny, none))))
    assert "3e-06" in text and "3e-07 to 0.0003" in text and "0.000 to 0.000" in text


def test_what_a_table_keeps_at_forty_columns_is_what_it_is_for(tmp_path):
    kept = {
        "rank": [f"{s.low:.3f} to {s.high:.3f}" for s in ranking().shards],
        "rank --compare": ["lexical", "task2vec", "compression", "embedding"],
        "verify": [f"{arm.low:.3f} to {arm.high:.3f}" for arm in verification().arms],
        "build-mix": ["tokens", "share", "epochs", "32%"],
        "show ledger": ["empty: 3", "bad_json: 4"],
        "rank --check": ["0.900 to 0.955"],
    }
    tables = every_table(tmp_path)
    for command, words in kept.items():
        text = printed(tables[command], width=40)
        assert [word for word in words if word not in text] == [], command


def test_ranking_table_of_a_baseline_has_no_ceiling():
    baseline = dataclasses.replace(ranking(), method="lexical", ceiling=0.0, floor=0.0)
    text = printed(ranking_table(baseline))
    assert "of ceiling" not in text
    assert "lexical" in text
    assert "alignment 1: words just as likely as in the target" in text
    assert "half of the target" not in text
    known = printed(ranking_table(dataclasses.replace(baseline, ceiling=0.714)))
    assert "half of the target reaches 0.714 on the other half" in known


def test_a_long_ranking_shows_its_two_ends():
    many = ranking(tuple(f"shard-{i:05d}" for i in range(500)))
    text = printed(ranking_table(many))
    assert "460 shards between" in text
    assert "shard-00029" in text
    assert "shard-00490" in text
    assert "shard-00030" not in text


def test_tie_marks_join_neighbours():
    shards = ranking().shards
    assert [tie_mark(shards, rank) for rank in range(1, 8)] == ["╭", "│", "╰", " ", "╭", "╰", " "]


def test_bar_fills_in_eighths():
    assert [bar(share, 2) for share in (0, 0.0625, 0.5, 1, 7, math.nan)] == [
        "  ", "▏ ", "█ ", "██", "██", "  ",
    ]  # fmt: skip
    assert doctest.testmod(grid).failed == 0


def test_mix_table_says_tokens_by_source_and_the_forecast():
    text = printed(mix_table(mix()))
    assert "scipy-docstrings" in text
    assert "32%" in text
    assert "forecast drop +0.350 nats/token (+0.200 to +0.500)" in text
    assert "7 documents that hold an item of the target, 31 duplicates" in text


def test_the_epochs_of_a_source_are_its_tokens_over_those_of_its_shards():
    parts = (
        MixPart("a-0", "a", 100, 1.0, 0.9),
        MixPart("a-1", "a", 150, 0.5, 0.8),
        MixPart("b", "b", 90, 2.0, 0.7),
    )
    lines = printed(mix_table(dataclasses.replace(mix(), parts=parts, tokens=340))).splitlines()
    epochs = [(line.split()[0], line.split()[-1]) for line in lines[2:4]]
    assert epochs == [("a", "0.62"), ("b", "2.00")]  # 250 of 400, 90 of 45


def test_what_is_held_out_is_said_and_so_is_that_nothing_is():
    for held, words in (
        (3089, "held out: 3,089 tokens beside them\nforecast drop"),
        (0, "! nothing is held out: "),
    ):
        assert words in printed(mix_table(dataclasses.replace(mix(), held_out=held)))
    assert "held out" not in printed(mix_table(mix()))


def test_a_mix_that_was_chosen_by_one_item_says_so():
    assert "1 item" not in printed(mix_table(mix()))
    assert "! the target has 1 item to choose by: alignment and forecast are of that item" in (
        printed(mix_table(dataclasses.replace(mix(), items=1)))
    )


def test_a_mix_that_is_forecast_to_do_worse_is_warned_of():
    assert "worse than natural" not in printed(mix_table(mix()))
    poor = dataclasses.replace(mix().forecast, drop=-0.9, low=-1.5, high=-0.3)
    assert "! this mix is forecast to do worse" in printed(
        mix_table(dataclasses.replace(mix(), forecast=poor))
    )


def test_verification_table_starts_with_the_verdict_and_the_best_arm():
    lines = [line for line in printed(verification_table(verification())).splitlines() if line]
    assert lines[0].startswith("CONFIRMED  Training on the mix lowers")
    arms = [line.split()[0] for line in lines if line.split()[0] in {"mix", "random", "worst"}]
    assert arms == ["mix", "random", "worst"]
    assert any("measured drop +0.336 nats/token (+0.281 to +0.392)" in line for line in lines)


@pytest.mark.parametrize(
    ("needed", "said"), [(18, "18 seeds an arm show"), (NEVER, "no number of seeds an arm shows")]
)
def test_the_seeds_that_show_the_forecast_drop_are_said(needed, said):
    shown = printed(verification_table(dataclasses.replace(verification(), seeds_needed=needed)))
    assert f"{said} the forecast drop at 90 % power" in shown
    assert "90 %" not in printed(
        verification_table(dataclasses.replace(verification(), seeds_needed=0))
    )


def test_tasks_have_a_row_an_arm_with_intervals():
    lines = printed(verification_table(with_a_task())).splitlines()
    (first,) = [line for line in lines if "lm-eval:arc_easy acc" in line]
    assert first.split()[2:] == ["mix", "0.500", "0.400", "to", "0.600", "+0.100", "(−0.020", "to",
                                 "+0.220)"]  # fmt: skip
    after = lines[lines.index(first) + 1]
    assert after.split()[0] == "random" and "0.300 to 0.500" in after
    assert "lm-eval" not in printed(verification_table(verification()))
    (task,) = json.loads(verification_json(with_a_task()))["outcomes"]
    assert task["task"] == "lm-eval:arc_easy acc"
    assert task["gain"] == {"value": 0.1, "low": -0.02, "high": 0.22}
    assert {"mix", "random", "worst"} <= set(task["arms"])


def test_index_table_accounts_for_every_record():
    text = printed(index_table(index()))
    assert "1,060 records seen, 1,053 accepted, 7 rejected" in text
    assert "bad_json: 4" in text
    assert "data/code.jsonl: cut at byte 1,999" in text


def test_rank_json_is_one_line_a_shard_best_first():
    lines = ranking_json(ranking()).split("\n")
    assert len(lines) == len(SOURCES)
    assert list(json.loads(lines[0])) == [
        "rank", "shard", "source", "tokens", "alignment", "low", "high", "target", "method",
        "measure",
    ]  # fmt: skip
    assert [json.loads(line)["rank"] for line in lines] == list(range(1, len(SOURCES) + 1))


def test_mix_json_has_the_keys_that_others_script_against():
    body = json.loads(mix_json(mix()))
    assert list(body) == ["budget", "tokens", "alignment", "forecast", "out", "sources"]
    assert body["forecast"] == {"drop": 0.35, "low": 0.2, "high": 0.5}
    assert body["sources"]["numpy-docstrings"] == 71_000
    assert sum(body["sources"].values()) == body["tokens"] == body["budget"]


def test_verify_json_has_the_keys_that_others_script_against():
    body = json.loads(verification_json(verification()))
    assert list(body)[:4] == ["verdict", "drop", "forecast", "arms"]
    assert list(body["drop"]) == ["value", "low", "high"]
    assert list(body["forecast"]) == ["drop", "low", "high"]
    assert list(body["arms"][0])[:5] == ["arm", "loss", "low", "high", "seeds"]


def test_the_ledger_accounts_for_every_file_those_in_trouble_first():
    lines = printed(ledger_table(index())).splitlines()
    assert lines[2].split()[:4] == ["data/code.jsonl", "50", "47", "3"]
    assert lines[2].endswith("empty: 3, cut at byte 1,999")
    assert lines[3].split() == ["data/docs.jsonl.zst", "1,000", "996", "4", "bad_json:", "4"]
    assert lines[4].split() == ["data/law.jsonl", "10", "10", "0"]
    few = printed(ledger_table(index(), most=1))
    assert "2 more files" in few and "1,060 records seen, 1,053 accepted, 7 rejected" in few
    for line in ledger_json(index()).splitlines():
        file = json.loads(line)
        assert file["seen"] == file["accepted"] + sum(file["rejected"].values()), file["path"]


def test_json_has_no_nan():
    shard = dataclasses.replace(ranking().shards[0], low=math.nan, high=math.inf)
    line = ranking_json(dataclasses.replace(ranking(), shards=(shard,)))
    assert json.loads(line)["low"] is None
    assert json.loads(line)["high"] is None


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_reach_no_terminal(hostile):
    names = (hostile, "plain")
    checked = dataclasses.replace(verification(), sentence=hostile, warnings=(hostile,))
    troubled = dataclasses.replace(
        index(names),
        ledgers=(dataclasses.replace(index().ledgers[1], path=hostile, error=hostile),),
    )
    arms = tuple(dataclasses.replace(arm, arm=hostile) for arm in checked.arms)
    for renderable in (
        ranking_table(ranking(names, target=hostile)),
        mix_table(dataclasses.replace(mix(names), folder=hostile, target=hostile)),
        verification_table(dataclasses.replace(checked, arms=arms)),
        index_table(troubled),
        ledger_table(troubled),
    ):
        assert safe(printed(renderable))
        assert safe(printed(renderable, width=60))
    assert safe(ranking_json(ranking(names)))
    assert json.loads(index_json(index(names)).split("\n")[0])["shard"] == hostile
    assert json.loads(ledger_json(troubled))["path"] == hostile


def test_markup_in_names_is_shown_as_text():
    assert "[/][bold]markup[/bold]" in printed(ranking_table(ranking(("[/][bold]markup[/bold]",))))


def test_result_console_is_plain_and_wide_off_a_terminal(capsys):
    result_console().print(ranking_table(ranking()))
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out
    assert captured.err == ""
    assert "networkx-docstrings" in captured.out


# --- progress ---


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def plain(calls, *, every=5.0):
    clock = Clock()
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    with progress_notify(console, every=every, clock=clock) as notify:
        for seconds, *call in calls:
            clock.now = 100 + seconds
            notify(*call)
    return console.file.getvalue().splitlines()


def test_plain_progress_is_a_line_now_and_then_and_one_at_the_end():
    steps = [(i * 0.1, "embed", i * 1_000, 200_000) for i in range(201)]
    assert plain(steps) == [
        "embed: 0% · 0 of 200k",
        "embed: 25% · 50k of 200k · 10k/s · 15 s left",
        "embed: 50% · 100k of 200k · 10k/s · 10 s left",
        "embed: 75% · 150k of 200k · 10k/s · 5 s left",
        "embed: 100% · 200k of 200k · 10k/s · took 20 s",
    ]


def test_what_takes_seconds_each_is_not_shown_as_nothing_a_second():
    paper, now = io.StringIO(), [0.0]
    console = Console(file=paper, width=200)
    with progress_notify(console, every=0, clock=lambda: now[0]) as notify:
        for done in range(3):
            now[0] = 40.0 * done
            notify("train", done, 4)
    assert paper.getvalue().splitlines()[-1] == "train: 50% · 2 of 4 · 40 s each · 1 min 20 s left"


def test_time_left_after_a_resume_counts_only_what_was_done_now():
    lines = plain([(0, "embed", 90, 100), (6, "embed", 96, 100)])
    assert lines[-1] == "embed: 96% · 96 of 100 · 1/s · 4 s left"


def test_a_remark_is_a_line_and_an_unknown_total_shows_the_rate():
    lines = plain([(0, "no index yet: indexing", 0, 0), (0, "read", 1, 0), (6, "read", 601, 0)])
    assert lines == ["no index yet: indexing", "read: 601 · 100/s"]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_step_names_are_shown_safely(hostile, terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, no_color=True)
    with progress_notify(console) as notify:
        notify(hostile, 0, 0)
        for done in range(4):
            notify(hostile, done, 3)
    text = console.file.getvalue()
    for bad in ("\x1b[31m", "\x1b]0", "\x9b", "\x07", "\u202e", "\u200b"):
        assert bad not in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_what_goes_on_is_readable_on_a_narrow_terminal(width):
    """The amounts stand on one line from 60 columns on; no name of an arm, no loss is cut."""
    paper = io.StringIO()
    console = Console(file=paper, force_terminal=True, width=width, no_color=True)
    clock = itertools.count(0, 30)
    with progress_of_runs(console, clock=lambda: float(next(clock))) as (notify, watch):
        notify("train the mix", 0, 12)
        notify("train the mix", 3, 12)
        states = [RunState("calibration-1", seed, 500, 1_000, 5.123) for seed in range(3)]
        watch(states)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", paper.getvalue())
    assert "calibration-1" in shown and "5.12 at" in shown
    assert ("each · 1 min 30 s left" in shown) == (width >= 60)
    assert max(cell_len(line.rstrip()) for line in re.split(r"[\r\n]", shown)) <= width


def test_bars_leave_stdout_alone(capsys):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress_notify(console) as notify:
        notify("embed", 5, 10)
        result_console().print("the result")
        notify("embed", 10, 10)
        for run in range(20):
            notify(f"run {run}", 1, 1)
    assert capsys.readouterr().out == "the result\n"
    assert "embed" in console.file.getvalue()
    assert "run 19" in console.file.getvalue()
