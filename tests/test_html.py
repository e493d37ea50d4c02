import dataclasses
import doctest
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from curate.config import read_settings
from curate.records import NEVER, Group, Interval
from curate.report import chapters, html, repeat
from curate.report.first_screen import answer
from curate.report.html import render_report, show_name, style_digest
from curate.report.repeat import repeat_lines, settings_toml
from curate.settings import Settings
from tests.report_records import (
    HOSTILE,
    comparison,
    contents,
    history,
    index,
    mix,
    ranking,
    verification,
    with_a_task,
)

ROOT = Path(__file__).parents[1]
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and visible text; raises where tags do not close in order."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self._open = [], [], [], []
        self.feed(html.replace("<wbr>", ""))  # where a name may break
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text.append(data)


def whole(**more):
    records = {
        "index": index(),
        "ranking": ranking(),
        "mix": mix(),
        "verification": verification(),
        "comparisons": [comparison(), comparison(what="methods", columns=("task2vec", "lexical"))],
        "contents": contents(),
        "history": history(),
    }
    return render_report(**{**records, **more})


def words(html):
    return " ".join(" ".join(Page(html).text).split())


def test_the_first_screen_has_question_answer_and_numbers():
    start = words(whole())[:700]
    assert "Which of these 15 shards should I train on, to be good at scipy-held-out" in start
    assert "numpy-docstrings (24%), sympy-docstrings" in start
    assert "Training on the mix lowers the loss on scipy-held-out by 0.336" in start
    assert "confirmed" in start
    assert "+0.336 +0.281 to +0.392" in start
    assert "+0.318 +0.210 to +0.430" in start


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"a": 300}, "a (100%)"),
        ({"a": 100, "b": 200}, "b (67%) and a (33%)"),
        ({"a": 30, "b": 20, "c": 40, "d": 10}, "c (40%), a (30%), b (20%) and d (10%)"),
        ({"a": 5, "b": 20, "c": 40, "d": 5, "e": 30}, "c (40%), e (30%), b (20%) and 2 more"),
        ({"a": 9_000, "b": 990_999, "c": 1}, "b (99%) and 2 more sources (0.9%)."),
        ({"a": 700_000, "b": 299_100, "c": 900}, "a (70%) and b (30%)."),
        ({f"s{n}": 1 for n in range(400)}, "s0 (0.2%), s1 (0.2%), s10 (0.2%) and 397 more"),
    ],
)
def test_the_answer_names_what_to_train_on(sources, expected):
    part = mix().parts[0]
    parts = tuple(
        dataclasses.replace(part, shard=name, source=name, tokens=n) for name, n in sources.items()
    )
    held = dataclasses.replace(mix(), parts=parts, tokens=sum(sources.values()))
    assert answer(index(), ranking(), held, verification()).startswith(expected)


def test_of_a_mix_that_is_gone_the_answer_is_what_was_trained_on():
    found = verification()
    arms = tuple(
        dataclasses.replace(arm, sources={"a": 0.7, "b": 0.3, "c": 0.0}) for arm in found.arms
    )
    known = dataclasses.replace(found, arms=arms)
    assert answer(index(), ranking(), None, known) == "a (70%) and b (30%)."
    assert answer(index(), ranking(), None, found) == "The mix that was trained on."


def test_a_refuted_mix_is_no_recommendation():
    refuted = dataclasses.replace(verification(), verdict="refuted")
    said = answer(index(), ranking(), mix(), refuted)
    assert said.startswith("None, as far as was seen: ")
    # a drop may have been measured, but not beyond doubt
    assert said.endswith(" was not better than random documents beyond doubt.")
    assert "no drop beyond doubt was measured" in words(whole(verification=refuted))


def test_the_floor_is_said_as_what_it_is_and_negative_numbers_have_their_sign():
    fell = dataclasses.replace(verification(), sentence="a drop of -0.13 (-1.02 to 0.59)")
    text = words(whole(verification=fell))
    assert "a drop of −0.13 (−1.02 to 0.59)" in text
    assert "(the floor) a shard differs from it by more than noise" in text


def test_one_of_a_thing_is_not_called_several():
    one, kept = index(("a",)), mix(("a",))
    kept = dataclasses.replace(kept, decontaminated=1, duplicates=1)
    text = words(whole(index=one, ranking=ranking(("a",)), mix=kept))
    assert answer(one, None, None, None) == "1 shard is indexed; none is ranked yet."
    assert "1 shard, 100 documents" in words(render_report(index=one))
    assert "1 document was taken out because it holds an item" in text
    assert (
        re.findall(r"\b1 (?:more )?(?:shard|document|source|item|record|file|seed|run)s\b", text)
        == []
    )


def test_small_alignments_and_p_values_do_not_read_as_zero():
    found = ranking()
    small = tuple(dataclasses.replace(s, alignment=3.1e-6 / s.rank) for s in found.shards)
    fit = dataclasses.replace(verification(), r2=0.99, r2_low=0.9, r2_high=1.0, p_value=3.2e-6)
    text = words(whole(ranking=dataclasses.replace(found, shards=small), verification=fit))
    assert "3e-06" in text and "2e-07" in text
    assert "p-value of no slope 3.2e-06" in text


def test_runs_of_one_step_have_no_chapter_on_how_training_went():
    found = verification()
    runs = tuple(
        dataclasses.replace(run, curve=((300, 4.0),), points=((300, 4.0),)) for run in found.runs
    )
    text = words(whole(verification=dataclasses.replace(found, runs=runs)))
    assert "How training went" not in text and "How training went" in words(whole())


def test_price_and_worth_are_on_the_first_screen_where_they_are_known():
    known = dataclasses.replace(
        verification(), price=Interval(1.569, 1.367, 1.773), multiplier=4.52, seeds_needed=2
    )
    text = words(whole(verification=known))
    assert "a token of the mix is worth 4.52 tokens drawn at random" in text[:900]
    assert "price on other text +1.569 +1.367 to +1.773" in text[:900]
    assert "2 seeds an arm would show the forecast drop" in text
    hidden = words(whole(verification=dataclasses.replace(known, seeds_needed=NEVER)))
    assert "No number of seeds an arm would show the forecast drop" in hidden


def test_every_part_is_there():
    text = words(whole())
    for part in (
        "Which shards are closest", "How they lie to each other", "What the mix holds",
        "What was measured", "Does alignment foretell the loss?", "How training went",
        "What was read", "How to repeat", "only 40 items", "7 documents were taken out",
        "31 because another is the same", "Of 1,060 records 1,053 were taken and 7 rejected",
        "not valid JSON bad_json", "cut at byte 1,999", "curate build-mix --out mix",
        "curate verify",
        "[mix] budget = 300000", "seeds = 5", "Shards and targets", "Shards and methods",
        "What it is about", "array, axis", "A document of each source",
        "holds select:4 of the target", "is like numpy-docstrings:3 (83% alike)",
        "What it cost", "4 min in all", "1.5 GB", "torch 2.13.0",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("stages", range(3))
def test_the_report_of_an_unfinished_job_says_what_is_missing(stages):
    html = render_report(
        index=index(),
        ranking=ranking() if stages > 0 else None,
        mix=mix() if stages > 1 else None,
        verification=None,
    )
    expected = [
        "15 shards are indexed; none is ranked yet.",
        "Closest to the target: scipy-docstrings, numpy-docstrings, sympy-docstrings.",
        "That has not been verified: run curate verify.",
    ]
    assert expected[stages] in words(html)
    assert "What was measured" not in words(html)


def test_the_page_loads_and_runs_nothing():
    page = Page(whole())
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(page.tags)
    for _, name, value in page.attributes:
        assert name not in {"src", "srcset", "style", "data", "action", "xlink:href"}
        assert not name.startswith("on")
        if name == "href":
            assert value.startswith("#")
    assert "url(" not in whole()
    assert "@import" not in whole()


def test_the_policy_allows_exactly_the_page_s_own_style():
    html = whole()
    (style,) = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy.startswith("default-src 'none'; style-src '")
    # jinja escapes the base64 digest's + in an attribute
    assert style_digest(style) in policy.replace("&#43;", "+")
    assert "unsafe" not in policy


def test_links_lead_to_parts_that_exist():
    page = Page(whole())
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    assert {value[1:] for _, name, value in page.attributes if name == "href"} <= set(ids)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_strings_stay_text(hostile):
    names = (hostile, "plain")
    ledger = dataclasses.replace(
        index().ledgers[1], path=hostile, error=hostile, rejected={hostile: 3}
    )
    arms = tuple(dataclasses.replace(arm, arm=hostile) for arm in verification().arms)
    hostile_index = dataclasses.replace(index(names), ledgers=(ledger,))
    html = whole(
        index=hostile_index,
        ranking=dataclasses.replace(ranking(names, target=hostile), warnings=(hostile,)),
        mix=dataclasses.replace(
            mix(names),
            folder=hostile,
            target=hostile,
            forecast=dataclasses.replace(mix().forecast, basis=hostile),
        ),
        verification=dataclasses.replace(
            verification(), sentence=hostile, warnings=(hostile,), arms=arms, target=hostile
        ),
        comparisons=[comparison(columns=(hostile, hostile))],
        contents=contents(hostile),
        history=[dataclasses.replace(run, command=f"curate {hostile}") for run in history()],
    )
    page = Page(html)
    assert not {"script", "img", "bold"} & set(page.tags)
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    for bad in ("\x1b", "\x07", "\x9b", "\u202e", "\u200b", "\ud800"):
        assert bad not in html
    html.encode("utf-8")


def test_the_settings_shown_are_those_that_ran():
    runs = history()
    prints = [run.fingerprint for run in runs]
    toml, commands = repeat_lines(runs, prints)
    assert commands == [run.command for run in runs]
    read = tomllib.loads(toml)
    assert read == {
        "corpus": {"inputs": ["data/*"]},
        "target": {"name": "proofnet"},
        "mix": {"budget": 300_000},
        "verify": {"seeds": 5},
    }
    broken = [dataclasses.replace(run, ended=False) for run in runs]
    assert repeat_lines(broken, prints) == ("", [])


@pytest.mark.parametrize("name", [*HOSTILE[:-1], 'a "quoted" \\ path', "del\x7f"])
def test_settings_read_back_as_they_were(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    defaults = Settings()
    settings = dataclasses.replace(
        defaults,
        corpus=dataclasses.replace(defaults.corpus, inputs=(name, "b"), max_rejected=0.5),
        target=dataclasses.replace(defaults.target, name=name),
        rank=dataclasses.replace(defaults.rank, exact=True, method="lexical"),
    )
    path = tmp_path / "curate.toml"
    path.write_text(settings_toml(settings), encoding="utf-8")
    assert read_settings(path) == settings
    assert settings_toml(defaults) == ""


def test_a_workspace_without_a_history_says_how_to_get_one():
    text = words(whole(history=()))
    assert "holds no note of the commands" in text
    assert "What it cost" not in text


def test_the_deepest_colour_is_the_closest_target_and_the_first_rank():
    html = whole(comparisons=[comparison()])
    cells = re.findall(r'<td class="(h\d)">([\d.]+)</td>', html)
    best = max(cells, key=lambda cell: float(cell[1]))
    assert best[0] == "h9"
    html = whole(comparisons=[comparison(what="methods", columns=("task2vec", "lexical"))])
    assert '<td class="h9">1</td>' in html


def test_a_long_ranking_names_what_it_leaves_out():
    names = tuple(f"shard-{i:04d}" for i in range(300))
    text = words(whole(ranking=ranking(names), index=index(names)))
    assert "240 shards between" in text
    assert "Which of these 300 shards" in text


def test_what_is_missing_or_not_finite_reads_as_a_dash():
    baseline = dataclasses.replace(ranking(), method="compression", ceiling=0.0, floor=0.0, map=())
    text = words(whole(ranking=baseline))
    assert "of ceiling" not in text
    assert "Ordered by compression" in text
    assert "nan" not in text.split()


def test_a_ranking_by_words_says_what_one_is():
    by_words = dataclasses.replace(ranking(), method="lexical", ceiling=0.71, floor=0.0)
    text = words(whole(ranking=by_words))
    assert "how well a shard's words predict the target's" in text
    assert "One half of the target gives 0.710 on the other half" in text
    assert "of ceiling" not in text
    alone = words(whole(ranking=dataclasses.replace(by_words, ceiling=0.0)))
    assert "One half of the target" not in alone
    assert "nan" not in alone.split()


def test_a_ranking_by_pairs_says_where_the_first_stands():
    by_pairs = dataclasses.replace(ranking(), method="ngram-lm", ceiling=0.71, floor=0.0)
    text = words(whole(ranking=by_pairs))
    assert "how well a shard's token pairs predict the target" in text
    assert "The first shard stands where its words put it" in text
    assert "One half of the target gives 0.710 on the other half" in text
    assert "of ceiling" not in text


def test_topics_are_shown_with_an_example():
    group = Group(
        "ring-ideal", 7, terms=("ring", "<b>ideal"), examples=("Let R be a ring\x1b[31m",)
    )
    grouped = dataclasses.replace(
        index(),
        groups=(group,),
        corpus=dataclasses.replace(index().corpus, group_by="cluster", clusters=4),
    )
    text = words(whole(index=grouped))
    assert "ring, <b>ideal 7 Let R be a ring\ufffd[31m" in text


def test_tasks_gains_and_the_times_of_forecasts_are_shown():
    measured = with_a_task("lm-eval:<b>acc")
    arms = [
        dataclasses.replace(
            measured.arms[0],
            forecast_at="2026-01-01T08:00:00.125+00:00",
            trained_at="2026-01-02T09:00:00.250+00:00",
        )
    ]
    page = whole(verification=dataclasses.replace(measured, arms=(*arms, *measured.arms[1:])))
    text = words(page)
    assert "Tasks that every model was asked" in text and "&lt;b&gt;acc" in page
    assert "Which items gain" in text and "have a lower loss after the mix" in text
    assert text.index("2026-01-01 08:00:00.125 ") < text.index("2026-01-02 09:00:00.250 ")
    assert "Tasks that every model" not in words(whole())


def test_each_arm_is_shown_in_every_unit_that_was_measured():
    measured = verification()
    arm = dataclasses.replace(measured.arms[0], loss=2.0, bpb=0.987, control_loss=4.321)
    text = words(whole(verification=dataclasses.replace(measured, arms=(arm, *measured.arms[1:]))))
    row = text[text.index("arm loss interval forecast bits/byte perplexity on other text") :]
    assert f"{arm.arm} 2.000" in row and "0.987 7.389 4.321" in row


def test_the_arms_that_were_asked_for_are_explained_where_they_are_shown():
    measured = verification()
    arm = measured.arms[0]
    rivals = tuple(dataclasses.replace(arm, arm=name) for name in ("by-ngram", "by-length", "all"))
    said = "An arm by-METHOD takes the best shards by that method. All is documents of the whole"
    shown = words(whole(verification=dataclasses.replace(measured, arms=measured.arms + rivals)))
    assert shown.count(said) == 1
    assert "by-METHOD" not in words(whole()) and "All is documents" not in words(whole())


def test_names_break_at_their_joints_and_stay_harmless():
    assert doctest.testmod(html).failed == 0
    assert doctest.testmod(repeat).failed == 0
    assert show_name("<i>_x/y'&\x1b", 40) == "&lt;i&gt;_<wbr>x/<wbr>y&#39;&amp;\ufffd"
    assert "calibration arms are other mixes" in words(whole())


def test_every_reason_of_a_rejection_is_said_in_words():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = page.split("| reason | the record |")[1].split("\n\n")[0]
    known = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row[:60])}
    assert "truncated" in known and known == set(chapters.REJECTED)


def test_a_line_through_too_few_arms_is_not_called_a_fit():
    assert "r² –" not in words(whole())
    fitted = dataclasses.replace(verification(), r2=0.9, r2_low=0.8, r2_high=1.0, p_value=0.01)
    assert "r² 0.90 (0.80 to 1.00), p-value of no slope 0.01." in words(whole(verification=fitted))
