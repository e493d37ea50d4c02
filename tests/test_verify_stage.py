"""`verify_mix` on a real index, ranking and mix: what it publishes, and what it refuses."""

import csv
import dataclasses
import io
import json
import math
import re
import shutil
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from curate.errors import CurateError
from curate.mixing.build import build_mix
from curate.mixing.items import index_target
from curate.mixing.opened import read_mix_texts
from curate.ranking.rank import rank_shards
from curate.records import Target, VerificationPlan
from curate.report.json_lines import verification_json
from curate.report.overview import verification_plan_table
from curate.settings import CorpusSettings, EmbedSettings, MixSettings, RankSettings, VerifySettings
from curate.store.fingerprint import digest_texts
from curate.store.publish import publish_json, read_json
from curate.task2vec.embed import build_index
from curate.task2vec.probe import encode_texts, load_probe
from curate.verification import pilot
from curate.verification import training as training_module
from curate.verification.checks import alike_items, check_published
from curate.verification.control_set import draw_control_set
from curate.verification.documents import cut_documents, draw_texts
from curate.verification.estimate import estimate_verification
from curate.verification.export import write_tables
from curate.verification.published import open_verification
from curate.verification.runs import read_documents
from curate.verification.verify import verify_mix
from tests.conftest import write_jsonl

CONTROL = 12
SETTINGS = VerifySettings(
    size="tiny",
    seeds=1,
    calibration=2,
    block_tokens=64,
    batch_tokens=256,
    eval_items=20,
    control_items=CONTROL,
    against=("lexical", "all"),
)
NOUNS = [
    "group",
    "ring",
    "field",
    "sheaf",
    "module",
    "lattice",
    "cat",
    "dog",
    "river",
    "stone",
    "bread",
    "lamp",
    "engine",
    "bolt",
    "wheel",
]
VERBS = [
    "maps",
    "acts",
    "extends",
    "splits",
    "runs",
    "sleeps",
    "flows",
    "falls",
    "burns",
    "turns",
    "drives",
    "holds",
]


def sentences(kind, n, seed):
    """Texts of a kind: it has its own five nouns and four verbs, and shares the rest."""
    rng = np.random.default_rng([kind, seed])
    nouns, verbs = NOUNS[5 * kind : 5 * kind + 5], VERBS[4 * kind : 4 * kind + 4]
    return [
        " ".join(
            f"The {rng.choice(nouns)} {rng.choice(verbs)} {rng.integers(1000)} {rng.choice(nouns)}."
            for _ in range(12)
        )
        for _ in range(n)
    ]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Index, ranking, mix and target of three kinds; the target is of the first kind."""
    place = tmp_path_factory.mktemp("chain")
    (place / "in").mkdir()
    for kind, name in enumerate(["algebra", "nature", "machines"]):
        rows = [json.dumps({"text": text}) for text in sentences(kind, 60, seed=1)]
        (place / "in" / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    select, items = tuple(sentences(0, 30, seed=2)), tuple(sentences(0, 30, seed=3))
    target = Target("toy", select, items, digest_texts(select), digest_texts(items), "code")
    workspace = place / "workspace"
    index = build_index(
        CorpusSettings(inputs=(str(place / "in"),)),
        EmbedSettings(batches=2, batch_tokens=512, block_tokens=64),
        workspace=workspace,
        device="cpu",
    )
    ranking = rank_shards(index, target, RankSettings(), workspace=workspace, device="cpu")
    mix = build_mix(
        index, ranking, target, MixSettings(budget=3_000), workspace=workspace, out=place / "mix"
    )
    return index, ranking, mix, target, workspace


@pytest.fixture(scope="module")
def verified(chain):
    *known, workspace = chain
    return verify_mix(*known, SETTINGS, workspace=workspace, device="cpu", workers=1)


def test_a_verification_is_published_whole(chain, verified):
    workspace = chain[-1]
    again = open_verification(workspace)
    assert msgspec.json.encode(again) == msgspec.json.encode(verified)
    assert {run.tokens for run in verified.runs} == {3_000 // 64 * 64}
    assert {"by-lexical", "all"} < {arm.arm for arm in verified.arms}
    assert {len(run.item_nats) for run in verified.runs} == {20}
    mix, *others = verified.arms
    assert mix.forecast_loss > 0
    for arm in others:
        assert math.isnan(arm.forecast_loss) == arm.arm.startswith("calibration")
    assert {len(run.control_nats) for run in verified.runs} == {CONTROL}
    assert math.isfinite(verified.price.value)
    assert mix.alignment == pytest.approx(chain[2].alignment, abs=1e-6)


def test_the_same_verification_is_read_back(chain, verified, monkeypatch):
    *known, workspace = chain
    monkeypatch.setattr(training_module, "train_models", None)
    again = verify_mix(*known, SETTINGS, workspace=workspace, device="cpu")
    assert msgspec.json.encode(again) == msgspec.json.encode(verified)


def test_another_state_of_the_arithmetic_concludes_anew_and_trains_only_where_it_has_to(
    chain, verified, tmp_path, monkeypatch
):
    *known, workspace = chain
    shutil.copytree(workspace, tmp_path / "w")
    monkeypatch.setattr(training_module, "train_models", None)
    monkeypatch.setattr("curate.verification.arithmetic.CONCLUDED", -1)
    again = verify_mix(*known, SETTINGS, workspace=tmp_path / "w", device="cpu", workers=1)
    assert again.fingerprint != verified.fingerprint and again.runs == verified.runs
    assert again.forecast_digest == verified.forecast_digest  # published is published
    monkeypatch.setattr("curate.verification.arithmetic.TRAINED", 1)  # other losses: trained anew
    with pytest.raises(TypeError):
        verify_mix(*known, SETTINGS, workspace=tmp_path / "w", device="cpu", workers=1)


def test_a_forecast_changed_afterwards_is_seen(chain, verified):
    path = chain[-1] / "verify" / "forecast.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"drop": ', b'"drop": 1'))
    try:
        with pytest.raises(CurateError, match=r"forecast\.json: missing or changed"):
            open_verification(chain[-1])
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"eval": "select"}, "ranking has seen its eval split"),
        ({"eval": "one"}, r"1 of 31 eval items \(the first is number 30\)"),
        ({"select_digest": "other"}, "its select split is not the one that ranking saw"),
        ({"name": "other"}, "the mix is for toy"),
    ],
)
def test_a_target_that_ranking_has_seen_is_refused(chain, tmp_path, changed, message):
    index, ranking, mix, target, _ = chain
    if changed.get("eval") == "select":
        changed = {"eval": target.select, "eval_digest": target.select_digest}
    elif changed.get("eval") == "one":  # it differs by case and spaces only
        changed = {"eval": (*target.eval, target.select[4].upper().replace(" ", "\n "))}
    with pytest.raises(CurateError, match=message):
        verify_mix(
            index,
            ranking,
            mix,
            dataclasses.replace(target, **changed),
            SETTINGS,
            workspace=tmp_path,
        )


def test_eval_items_that_read_like_one_that_ranking_saw_are_warned_of(chain):
    target = chain[3]
    assert alike_items(target) == []
    twin = target.select[4].upper().replace("0", "7") + "!"
    (said,) = alike_items(dataclasses.replace(target, eval=(*target.eval, twin)))
    assert said.startswith("1 of 31 eval items read like one that ranking saw")


@pytest.mark.parametrize(
    ("part", "message"),
    [("ranking", "another index"), ("mix", "another ranking")],
)
def test_what_does_not_belong_together_is_refused(chain, tmp_path, part, message):
    index, ranking, mix, target, _ = chain
    if part == "ranking":
        ranking = dataclasses.replace(ranking, index_fingerprint="other")
    else:
        mix = dataclasses.replace(mix, ranking_fingerprint="other")
    with pytest.raises(CurateError, match=message):
        verify_mix(index, ranking, mix, target, SETTINGS, workspace=tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("against", ("scores",)),
        ("against", ("ngram", "all", "ngram")),
        ("control_items", -1),
        ("seeds", 0),
        ("calibration", 1),
        ("block_tokens", 1),
        ("batch_tokens", 10),
        ("learning_rate", -1.0),
        ("confidence", 1.0),
        ("tokens", -1),
        ("eval_items", 0),
    ],
)
def test_settings_out_of_range_are_named(chain, tmp_path, field, value):
    *known, _ = chain
    settings = dataclasses.replace(SETTINGS, **{field: value})
    with pytest.raises(CurateError, match=rf"\[verify\] {field} is") as caught:
        verify_mix(*known, settings, workspace=tmp_path)
    assert caught.value.exit_code == 2


def test_documents_are_drawn_uniformly_in_one_pass():
    documents = [(str(number), 10) for number in range(50)]
    counts = np.zeros(50)
    for seed in range(400):
        drawn = draw_texts(iter(documents), tokens=95, seed=seed)
        assert len(drawn) == len(set(drawn)) == 10
        counts[[int(text) for text in drawn]] += 1
    assert abs(counts - 80).max() < 4.5 * math.sqrt(80 * 0.8)
    assert len(draw_texts(documents, tokens=10_000, seed=0)) == 50


def test_documents_are_cut_to_exactly_the_tokens_asked_for():
    documents = [np.arange(4), np.zeros(0, int), np.arange(5)]
    assert [len(part) for part in cut_documents(documents, tokens=6)] == [4, 2]
    assert [len(part) for part in cut_documents(documents, tokens=99)] == [4, 5]


def test_no_arm_holds_a_document_of_the_control_set(chain, verified):
    arms = chain[-1] / "verify" / "arms"
    (path,) = arms.glob("control-*")
    control = read_documents(path)
    held_out = {tuple(document) for document in control}
    assert len(held_out) == CONTROL
    for other in arms.glob("*.safetensors"):
        if not other.name.startswith(("control-", "items-")):
            texts = {tuple(document[:64]) for document in read_documents(other)}
            assert texts and not texts & held_out, other.name


def test_the_control_set_holds_no_item_and_no_document_of_the_mix(chain):
    index, _, mix, target, _ = chain
    probe = load_probe("builtin", device="cpu")

    def draw(**changed):
        known = {"items": index_target(target, ngram=13), "count": 40, "seed": 0}
        texts = [text for text, _ in read_mix_texts(mix)]
        return draw_control_set(
            index, texts, encode=lambda t: encode_texts(probe, t), **{**known, **changed}
        )

    control = draw()
    assert control and len(set(control)) == len(control) <= 40
    assert not set(control) & {text for text, _ in read_mix_texts(mix)}
    as_item = dataclasses.replace(target, eval=(*target.eval, control[0]))
    assert control[0] not in draw(items=index_target(as_item, ngram=13))
    assert draw(count=0) == []


def test_a_corpus_of_copies_and_items_gives_what_control_set_it_can(tmp_path):
    own, items = sentences(0, 6, seed=1), sentences(1, 30, seed=1)
    probe = load_probe("builtin", device="cpu")
    sieve = index_target(Target("t", (), tuple(items), "", "", "code"), ngram=13)

    def draw(name, texts):
        write_jsonl(tmp_path / f"{name}.jsonl", texts)
        index = build_index(
            CorpusSettings(inputs=(str(tmp_path / f"{name}.jsonl"),)),
            EmbedSettings(batches=1, batch_tokens=256, block_tokens=64),
            workspace=tmp_path / name,
            device="cpu",
        )
        encode = partial(encode_texts, probe)
        return draw_control_set(index, own[:2], encode=encode, items=sieve, count=128, seed=0)

    assert sorted(draw("some", own * 9 + items)) == sorted(own[2:])  # a quarter is not there
    assert draw("none", items) == []


def test_checking_trains_nothing_and_refuses_what_is_stale(chain, verified, tmp_path, monkeypatch):
    *known, workspace = chain
    monkeypatch.setattr(training_module, "train_models", None)
    again = verify_mix(*known, SETTINGS, workspace=workspace, device="cpu", train=False)
    assert msgspec.json.encode(again) == msgspec.json.encode(verified)
    other = dataclasses.replace(SETTINGS, tokens=999)
    with pytest.raises(CurateError, match="of other inputs or settings"):
        verify_mix(*known, other, workspace=workspace, train=False)
    with pytest.raises(CurateError, match="nothing verified yet"):
        verify_mix(*known, SETTINGS, workspace=tmp_path, train=False)


def test_checking_refuses_a_mix_that_trained_before_its_forecast(chain, verified, tmp_path):
    shutil.copytree(chain[-1] / "verify", tmp_path / "verify")
    meta = read_json(tmp_path / "verify" / "meta.json", dict)
    key = meta["fingerprint"]
    check_published(tmp_path / "verify", fingerprint=key)
    (run,) = [run for run in meta["body"]["runs"] if run["arm"] == "mix"]
    run["started_at"] = "2000-01-01T00:00:00+00:00"
    publish_json(tmp_path / "verify" / "meta.json", meta)
    with pytest.raises(CurateError, match="it is not blind"):
        check_published(tmp_path / "verify", fingerprint=key)


def test_an_estimate_counts_the_runs_and_times_the_steps(chain, verified):
    _, _, mix, target, workspace = chain
    settings = dataclasses.replace(SETTINGS, seeds=2, calibration=3)
    plan = estimate_verification(
        mix, target, settings, workspace=workspace, device="cpu", workers=1
    )
    assert plan.runs == 3 + 2 * 5  # mix, random, worst, two rivals
    assert plan.steps == math.ceil(3_000 / 256) and plan.tokens == 3_000
    assert plan.seconds > plan.runs * plan.steps * plan.seconds_a_step
    assert not plan.from_pilot  # the last verification knows better


def test_an_estimate_does_not_go_by_a_verification_of_another_model(chain, verified, monkeypatch):
    monkeypatch.setattr(pilot, "SECONDS", 0.5)
    _, _, mix, target, workspace = chain
    settings = dataclasses.replace(SETTINGS, model="builtin", tokens=600)
    plan = estimate_verification(
        mix, target, settings, workspace=workspace, device="cpu", workers=1
    )
    assert plan.from_pilot and plan.model == "builtin"


def test_the_plan_for_a_model_proposes_another_model_and_no_size():
    plan = VerificationPlan(
        8, 1, 8_000, 16, 182_016, 0.1, 12.8, math.inf,
        unigram_entropy=6.1, expected_loss=6.9, start_loss=7.0, model="gpt",
    )  # fmt: skip
    shown = console_text(verification_plan_table(plan))
    assert "another --model might" in shown and "--size" not in shown
    scratch = console_text(verification_plan_table(dataclasses.replace(plan, model="")))
    assert ": 1 step each" in console_text(
        verification_plan_table(dataclasses.replace(plan, steps=1))
    )
    assert "a larger --size might; or go on from a pretrained model" in scratch


def test_a_pilot_promises_no_more_than_it_knows():
    plan = VerificationPlan(
        8, 1, 8_000, 16, 182_016, 0.1, 12.8, 64_000,
        unigram_entropy=6.1, expected_loss=4.62, start_loss=7.0, from_pilot=True,
    )  # fmt: skip

    def said(loss, **other):
        return console_text(
            verification_plan_table(dataclasses.replace(plan, expected_loss=loss, **other))
        )

    near, far, measured = said(4.62), said(3.62), said(4.62, from_pilot=False)
    assert "a pilot of seconds, which may be a nat off, models" in near
    assert "end at about 4.6 nats/token" in near and "this may test more than" in near
    assert "this tests more than" in far and "this tests more than" in measured
    assert "about 4.62 nats/token" in measured
    assert "; in the order of 64k tokens a run" in said(5.5)


def test_a_pilot_says_whether_runs_would_test_more_than_words(chain, tmp_path, monkeypatch):
    monkeypatch.setattr(pilot, "SECONDS", 1.0)
    _, _, mix, target, _ = chain

    def plan(**given):
        settings = dataclasses.replace(SETTINGS, **given)
        return estimate_verification(
            mix, target, settings, workspace=tmp_path, device="cpu", workers=1
        )

    short = plan(tokens=600)
    assert short.from_pilot and not list(tmp_path.iterdir())
    assert short.expected_loss > short.unigram_entropy - 1 and short.enough_tokens > 600
    shown = console_text(verification_plan_table(short))
    assert "which words a mix has, hardly more" in shown and "steps" in shown
    assert short.start_loss > 0  # what `builtin` knows, which is little of such sentences
    long = plan(tokens=6_000)
    assert long.expected_loss < long.unigram_entropy - 1
    assert "more than which words a mix has" in console_text(verification_plan_table(long))
    going_on = plan(model="builtin")
    assert going_on.start_loss == going_on.expected_loss == pytest.approx(short.start_loss)


def console_text(shown):
    console = Console(file=io.StringIO(), width=400)
    console.print(shown)
    return console.file.getvalue()


def test_tables_for_mixture_laws_have_a_row_a_run_and_shares_that_sum_to_one(verified, tmp_path):
    ratios, metrics = write_tables(verified, tmp_path / "tables")
    mixed, measured = (
        list(csv.DictReader(path.read_text().splitlines())) for path in (ratios, metrics)
    )
    assert list(mixed[0]) == ["run", "name", "index", *verified.arms[0].sources]
    assert len(mixed) == len(measured) == len(verified.runs)
    for row, of, run in zip(mixed, measured, verified.runs, strict=True):
        assert [row[key] for key in ("run", "name", "index")] == [
            of[key] for key in ("run", "name", "index")
        ]
        assert sum(float(row[name]) for name in verified.arms[0].sources) == pytest.approx(1)
        assert float(of["loss"]) == run.loss


def test_the_page_names_every_key_of_the_json(verified):
    page = (Path(__file__).parents[1] / "docs" / "commands" / "verify.md").read_text("utf-8")
    listed = re.search(r"`--json` prints `(.*?)`\.\n", page)[1]
    told = json.loads(verification_json(verified))
    outside = re.sub(r"\[.*?\]", "", re.sub(r"\{.*?\}", "", listed))
    assert set(told) == set(re.findall(r"\w+", outside))
    (of_an_arm,) = re.findall(r"arms \[\{(.*?)\}\]", listed)
    assert {key for arm in told["arms"] for key in arm} == set(re.findall(r"\w+", of_an_arm))


def test_a_verification_goes_on_from_a_pretrained_model(chain):
    *known, workspace = chain
    settings = dataclasses.replace(
        SETTINGS, model="builtin", tokens=512, seeds=1, eval_items=8, control_items=4
    )
    found = verify_mix(*known, settings, workspace=workspace, device="cpu", workers=1)
    first = {run.arm: run.points[0][1] for run in found.runs}
    assert all(run.loss < 6 for run in found.runs)  # a model from scratch starts at ln 4,096 = 8.3
    assert len(first) == len(found.arms)
    plan = estimate_verification(
        known[2], known[3], settings, workspace=workspace, device="cpu", workers=1
    )
    assert plan.parameters > 2e6 and plan.at_once == 1
