"""What the pages assume to be there, and how their numbers are made small enough for a test."""

import json
import re
from pathlib import Path

import pytest
import zstandard

from curate.settings import (
    CorpusSettings,
    EmbedSettings,
    MixSettings,
    Settings,
    TargetSettings,
    VerifySettings,
)
from curate.verification.control_set import draw_control_set
from tests.conftest import licence_prose, numpy_docstrings, python_sources, write_jsonl

ROOT = Path(__file__).parents[1]
# Numbers that a real run needs and a test cannot pay for; nothing else of a line is changed.
SMALLER = {
    "100M": "8k", "200k": "4k", "5M": "2k", "3M": "tiny", "--seeds 3": "--seeds 2",
    "batch_tokens = 2048": "batch_tokens = 256", "calibration = 4": "calibration = 2",
    "seeds = 3": "seeds = 2", "60_000": "4_000", "2_048": "256",
}  # fmt: skip
BUILTIN = str(ROOT / "curate" / "task2vec" / "builtin")
# The pages of commands name models and corpora of the reader's: these are those of the test.
OF_THE_TEST = {
    "corpora/": "corpus/", "data/*.parquet": "data/*.jsonl.zst", "gpt2": BUILTIN,
    "models/all-MiniLM-L6-v2": BUILTIN, "wikipedia=20%": "manual=20%", "1B": "8k", "100B": "8k",
    "--size 1M": "--size tiny", "--tokens 1M": "--tokens 2k", "--budget 1M": "--budget 8k",
    "--workers 8": "--workers 2", "ngram,compression,all": "ngram",
}  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder that holds what the pages assume: a corpus, data with other names, questions."""
    kinds = {
        "docstrings": [text[:800] for text in numpy_docstrings()[:30]],
        "code": [text[:800] for text in python_sources()[:24]],
        "manual": [text[:800] for text in licence_prose()[:24]],
    }
    short = [text[:300] for text in numpy_docstrings()]  # what a run of verify costs: the items
    questions = short[40:80]
    for name, texts in kinds.items():
        write_jsonl(tmp_path / "corpus" / f"{name}.jsonl", texts)
        rows = [{"text": text, "body": text, "title": name} for text in texts]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "data").mkdir(exist_ok=True)
        packed = zstandard.compress(lines.encode())
        (tmp_path / "data" / f"{name}.jsonl.zst").write_bytes(packed)
    write_jsonl(tmp_path / "target" / "select.jsonl", questions[0::2])
    write_jsonl(tmp_path / "target" / "eval.jsonl", questions[1::2])
    pairs = [json.dumps({"question": text[:200], "answer": text[200:]}) for text in questions]
    (tmp_path / "questions.jsonl").write_text("\n".join(pairs), encoding="utf-8")
    chats = [
        json.dumps({
            "dataset": name,
            "messages": [{"role": "user", "content": text[:200]},
                         {"role": "assistant", "content": text[200:]}],
        })
        for name, texts in kinds.items() for text in texts
    ]  # fmt: skip
    (tmp_path / "chat.jsonl").write_text("\n".join(chats), encoding="utf-8")
    for name, texts in {"proofnet": questions, "minif2f": short[80:120]}.items():
        named = tmp_path / "named" / "targets" / name
        named.mkdir(parents=True)
        for split, part in {"valid": texts[0::2], "test": texts[1::2]}.items():
            items = [
                {
                    "nl_statement": t[:150],
                    "formal_statement": t[150:],
                    "formal_statement_lean4": t[150:],
                }
                for t in part
            ]
            lines = "\n".join(map(json.dumps, items))
            (named / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    # A process more takes seconds to start, and changes nothing (test_verify.py holds it).
    monkeypatch.setattr("curate.engine.run.count_cores", lambda: 1)
    # Each model reads the control set: a quarter of the usual is the least that has no warning.
    monkeypatch.setattr("curate.verification.conduct.draw_control_set", draw_few)
    monkeypatch.setenv("CURATE_DATA_DIR", str(tmp_path / "named"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw_few(*given, count, **named):
    return draw_control_set(*given, count=-(-count // 4), **named)


def smaller(text):
    for shown, paid in (OF_THE_TEST | SMALLER).items():
        text = re.sub(rf"(?<![\w.]){re.escape(shown)}(?!\w)", paid, text)
    return text


def small_demo(inputs, target):
    """The settings of the demo for three small sources and a minute less of training."""
    return Settings(
        corpus=CorpusSettings(inputs=("corpus",)),
        embed=EmbedSettings(batch_tokens=256),
        target=TargetSettings(name="docs=target/select.jsonl,target/eval.jsonl"),
        mix=MixSettings(budget=8_000),
        verify=VerifySettings(size="tiny", tokens=2_000, seeds=2, calibration=2),
    )
