"""What a model answers: by a naive twin, and asked by the real harness."""

import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from curate.errors import CurateError
from curate.settings import VerifySettings
from curate.task2vec.probe import load_probe
from curate.verification.answers import alone, continuation_nats, write_greedily
from curate.verification.evaluate import item_nats
from curate.verification.small_model import SmallModel
from curate.verification.start import train_settings
from curate.verification.tasks import ask, by_metric, find_outcomes, foresee
from curate.verification.train import train_models
from tests.test_harness import write_set
from tests.test_train import EOS, SETTINGS, VOCAB, texts

KNOWN = {"eos": EOS, "block_tokens": 32}


@pytest.fixture(scope="module")
def models():
    """Two models side by side that have learnt to count."""
    settings = [dataclasses.replace(SETTINGS, seed=seed) for seed in (0, 1)]
    return train_models([texts(), texts(seed=1)], settings)[0]


@pytest.fixture(scope="module")
def model(models):
    return list(alone(models))[1]


def log_p(model, ids):
    """Naive: one sequence, all logits."""
    with torch.no_grad():
        there = torch.tensor([[[EOS, *ids[:-1]]]])
        return (model(there, torch.zeros_like(there))[0, 0] @ model.embedding[0].T).log_softmax(-1)


def test_a_continuation_of_no_tokens_takes_nothing(model):
    sequences = [np.zeros(0, np.int32), np.arange(1, 6, dtype=np.int32)]
    nats, greedy = continuation_nats(model, sequences, [1, 2], **KNOWN)
    (alone_nats,), _ = continuation_nats(model, sequences[1:], [2], **KNOWN)
    assert (nats.tolist(), bool(greedy[0])) == ([0.0, alone_nats], True)


def test_a_model_alone_is_the_one_that_stood_among_others(models, model):
    both = item_nats(models, texts(5), **KNOWN)
    np.testing.assert_allclose(item_nats(model, texts(5), **KNOWN)[0], both[1], rtol=1e-5)
    assert list(alone(model)) == [model]


@pytest.mark.parametrize("batch", [1, 32])
def test_nats_of_a_continuation_are_those_of_its_tokens_alone(model, batch):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(1, VOCAB, size).astype(np.int32) for size in (1, 7, 30, 12)]
    sequences.append(np.arange(5, 20, dtype=np.int32))
    last = [1, 3, 10, 12, 5]
    nats, greedy = continuation_nats(model, sequences, last, **KNOWN, batch=batch)
    for ids, n, found, best in zip(sequences, last, nats, greedy, strict=True):
        rows = log_p(model, ids.tolist())[-n:]
        labels = torch.from_numpy(ids[-n:].astype(np.int64))
        assert found == pytest.approx(-float(rows.gather(1, labels[:, None]).sum()), rel=1e-4)
        assert best == bool((rows.argmax(-1) == labels).all())
    assert greedy[-1] and not greedy[2]  # it counts on


def test_of_what_is_longer_than_a_block_the_end_is_read(model):
    long = np.arange(60, dtype=np.int32) % (VOCAB - 1) + 1
    nats, _ = continuation_nats(model, [long], [40], **KNOWN)
    # the 32 last labels, after the token before them
    expected, _ = continuation_nats(model, [long[28:]], [32], eos=int(long[27]), block_tokens=99)
    np.testing.assert_allclose(nats, expected, rtol=1e-5)


def test_what_is_written_is_the_likeliest_token_each_time(model):
    contexts = [np.array(ids, np.int32) for ids in ([5, 6, 7], [20], [3, 4, 5, 6, 7, 8])]
    never = lambda number, ids: False  # noqa: E731
    together = write_greedily(model, contexts, [6, 3, 0], **KNOWN, ended=never)
    assert together[0] == [8, 9, 10, 11, 12, 13] and together[2] == []
    for context, limit, found in zip(contexts, (6, 3, 0), together, strict=True):
        ids = context.tolist()
        for token in found:
            assert token == int(log_p(model, [*ids, 0])[-1].argmax())
            ids.append(token)
        assert len(found) <= limit
    stopped = write_greedily(
        model, contexts[:1], [9], **KNOWN, ended=lambda number, ids: ids[-1] == 10
    )
    assert stopped == [[8, 9, 10]]


def test_values_are_kept_by_metric_and_filter_where_every_item_has_one():
    def sample(doc_id, filter_name="none", **metrics):
        return {"doc_id": doc_id, "filter": filter_name, "metrics": [*metrics], **metrics}

    one = [sample(0, acc=1.0, odd="text"), sample(1, acc=0.0, odd="text")]
    other = [sample(0, acc=True, extra=2.0, bits=(-6.0, 3), ppl=-4.0)]
    joined_by = {"acc": "mean", "bits": "bits_per_byte", "ppl": "perplexity"}
    assert by_metric([(one, joined_by), (other, joined_by)]) == {"acc": [1.0, 0.0, 1.0]}
    assert by_metric([(other, joined_by)]) == {
        "acc": [1.0],
        "extra": [2.0],
        "bits, nats a unit": [2.0],
        "ppl, nats an answer": [4.0],
    }
    filtered = [sample(0, "strict", match=0), sample(0, "loose", match=1)]
    assert by_metric([(filtered, {})]) == {"match (strict)": [0.0], "match (loose)": [1.0]}


def test_a_pair_of_an_answer_and_the_right_one_is_no_value():
    def sample(**metrics):
        return {"doc_id": 0, "filter": "none", "metrics": [*metrics], **metrics}

    pairs = sample(f1=(1, 0), bleu=("a cat", "the cat"), brier_score=(1, [0.5, 0.5]), acc=1)
    joined_by = {"f1": "f1_score", "bleu": "bleu", "brier_score": "brier_score", "acc": "mean"}
    assert by_metric([([pairs], joined_by)]) == {"acc": [1.0]}


def test_an_outcome_that_is_no_task_is_refused():
    assert find_outcomes(VerifySettings()) is None
    with pytest.raises(CurateError, match=r"--outcome gsm8k: is no task; name one as lm-eval:T"):
        find_outcomes(VerifySettings(outcomes=("gsm8k",)))


def test_a_task_that_runs_what_models_answer_is_refused_before_any_trains(monkeypatch):
    with pytest.raises(CurateError, match="lm-eval:own: runs the code of its answers"):
        shipped(monkeypatch, **WRITTEN, unsafe_code=True)


DOCUMENTS = [{"text": f"{n} and {n} and one is {2 * n + 1}"} for n in range(40)]


def shipped(monkeypatch, **given):
    """Let `lm-eval:own` be a task of the real harness whose documents are at hand."""
    lm_eval = pytest.importorskip("lm_eval.api.task")
    datasets = pytest.importorskip("datasets")
    config = {
        "task": "own",
        "custom_dataset": lambda **_: {
            split: datasets.Dataset.from_list(DOCUMENTS[part])
            for split, part in (("train", slice(0, 30)), ("test", slice(30, 40)))
        },
        "training_split": "train",
        "test_split": "test",
        "num_fewshot": 2,
        "doc_to_text": "{{text.split(' is ')[0]}} is",
        "doc_to_target": " {{text.split(' is ')[1]}}",
        **given,
    }

    class Manager:
        all_tasks = ("own",)

        def load(self, name):
            return {"tasks": {name: lm_eval.ConfigurableTask(config=dict(config))}}

    monkeypatch.setattr("curate.corpus.harness._shipped", Manager)
    settings = VerifySettings(size="tiny", outcomes=("lm-eval:own",), eval_items=6)
    probe = load_probe("builtin", device="cpu")
    train = train_settings(settings, probe, tokens=1, seed=0)
    model, drawn = SmallModel("tiny", vocab=train.vocab, seeds=[0]), torch.Generator()
    for weights in model.parameters():  # a fresh one says the same whatever it is asked
        weights.data += 0.05 * torch.randn(weights.shape, generator=drawn)
    return find_outcomes(settings), train, model


LIKELY = {
    "output_type": "loglikelihood",
    "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
}
WRITTEN = {
    "output_type": "generate_until",
    "generation_kwargs": {"until": ["~"], "max_gen_toks": 5},
    "metric_list": [{"metric": "exact_match"}],
}


def test_models_are_asked_with_the_same_examples_each_time(monkeypatch, capsys):
    outcomes, train, model = shipped(monkeypatch, **LIKELY)
    state = random.getstate()
    first = ask(model, outcomes, train)
    assert set(first) == {"lm-eval:own perplexity, nats an answer", "lm-eval:own acc"}
    nats = first["lm-eval:own perplexity, nats an answer"]
    assert len(nats) == 6 and all(4 < each < 60 for each in nats)
    random.seed(9)
    assert ask(model, outcomes, train) == first  # examples are drawn from thirty
    assert capsys.readouterr() == ("", "")  # no bar goes through the live table
    random.setstate(state)


@pytest.mark.parametrize("kind", [LIKELY, WRITTEN])
def test_what_tasks_take_is_foreseen_by_their_prompts(monkeypatch, kind):
    outcomes, train, model = shipped(monkeypatch, **kind)
    passed = 0

    def counted(ids, starts):
        nonlocal passed
        passed += ids.numel()
        return forward(ids, starts)

    forward = model.forward
    monkeypatch.setattr(model, "forward", counted)
    monkeypatch.setattr("curate.verification.tasks.SOME_ITEMS", 3)  # of six, as long as the rest
    foreseen = foresee(outcomes, train)
    ask(model, outcomes, train)
    assert passed == pytest.approx(foreseen.positions, rel=0.1)
    assert foreseen.seconds > 0


PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from curate.errors import CurateError
from curate.settings import VerifySettings
from curate.task2vec.probe import load_probe
from curate.store.publish import read_json
from curate.records import Run
from curate.task2vec.probe import encode_texts, load_probe
from curate.verification.runs import plan_run, publish_documents
from curate.verification.schedule import train_runs
from curate.verification.start import train_settings
from curate.verification.tasks import find_outcomes
import dataclasses

try:
    find_outcomes(VerifySettings(outcomes=("lm-eval:humaneval_nothing",)))
except CurateError as error:
    print(error)
tasks = tuple("lm-eval:" + name for name in ("arc_easy", "gsm8k", "wikitext"))
settings = VerifySettings(
    size="tiny", block_tokens=64, batch_tokens=256, outcomes=tasks, eval_items=3
)
probe = load_probe("builtin", device="cpu")
documents = encode_texts(probe, ["The answer is the letter B. How many is it? Four."] * 60)
for name in ("d", "i", "c"):
    publish_documents(Path(name + ".safetensors"), documents[: 60 if name == "d" else 3])
first = train_settings(settings, probe, tokens=2_000, seed=0)
items = [
    plan_run(
        Path("runs"), arm=f"arm{seed}", settings=dataclasses.replace(first, seed=seed),
        documents=Path("d.safetensors"), items=Path("i.safetensors"), control=Path("c.safetensors"),
        n_bytes=9, device="cpu", outcomes=find_outcomes(settings),
    )
    for seed in range(2)
]
runs = train_runs(items, workers=1, side_by_side=2)
print(json.dumps([run.outcomes for run in runs]))
"""


@pytest.mark.slow  # the harness reads its 14,000 task files first
def test_every_kind_of_task_is_asked_and_every_item_scored(tmp_path):
    pytest.importorskip("lm_eval")
    chosen = [
        {
            "question": f"Which is the letter number {n}?",
            "choices": {"label": ["A", "B"], "text": ["the first", f"the letter {n}"]},
            "answerKey": "B",
        }
        for n in range(6)
    ]
    write_set(
        tmp_path / "allenai" / "ai2_arc", "ARC-Easy",
        train=chosen[:2], validation=chosen[2:3], test=chosen[2:],
    )  # fmt: skip
    asked = [{"question": f"How many is {n} and {n}?", "answer": f"#### {2 * n}"} for n in range(9)]
    write_set(tmp_path / "openai" / "gsm8k", "main", train=asked[:6], test=asked[6:])
    pages = [{"page": f" = A page = \n It is page number {n} . \n"} for n in range(5)]
    write_set(
        tmp_path / "EleutherAI" / "wikitext_document_level", "wikitext-2-raw-v1",
        train=pages[:1], validation=pages[1:2], test=pages[2:],
    )  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2_000:]
    refused, found = run.stdout.splitlines()[0], json.loads(run.stdout.splitlines()[-1])
    assert "ships no such task" in refused
    for outcomes in found:
        assert {len(values) for values in outcomes.values()} == {3}
        assert set(outcomes["lm-eval:arc_easy acc"]) <= {0.0, 1.0}
        assert set(outcomes["lm-eval:gsm8k exact_match (strict-match)"]) <= {0.0, 1.0}
        assert all(
            2 < value < 60 for value in outcomes["lm-eval:wikitext word_perplexity, nats a unit"]
        )
    assert found[0] != found[1]
