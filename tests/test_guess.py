"""Where the text of a file is likely to be, by its first record."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from curate.cli import main
from curate.corpus.guess import guess_of, guess_text, propose_text

TURN = {"role": "user", "content": "Why?"}

RECORDS = [
    ({"title": "a much longer title than the text", "text": "b"}, "text"),
    ({"dataset": "a long name of a data set", "id": "7", "messages": [TURN, TURN]},
     "{messages.content}"),
    ({"conversations": [{"from": "human", "value": "a"}], "name": "b"}, "{conversations.value}"),
    ({"prompt": [TURN], "completion": [TURN]}, "{prompt.content}\n{completion.content}"),
    ({"instruction": "a", "input": "", "output": "b"}, "{instruction}\n{input}\n{output}"),
    ({"prompt": "a", "chosen": "b", "rejected": "a longer one"}, "{prompt}\n{chosen}"),
    ({"data": {"text": "a"}, "n": 7}, "{data.text}"),
    ({"story": "once upon a time", "author": "b"}, "story"),
    ({"tags": ["a"], "n": 7}, ""),
    ({"messages": [{"content": 7}, "a"]}, ""),
    ({"messages.of": [TURN]}, ""),
    ({}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("record", "text"), RECORDS)
def test_the_setting_that_a_record_asks_for(record, text):
    assert guess_of(record) == text


def test_a_table_is_looked_into_as_lines_are(tmp_path):
    rows = [{"uid": "a", "conversations": [{"from": "human", "value": "why?"}]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("prompt,response\nwhy?,because\n")
    (tmp_path / "bad.jsonl").write_text("{")
    assert guess_text(tmp_path / "a.parquet") == "{conversations.value}"
    assert propose_text(tmp_path / "a.csv") == r"--text '{prompt}\n{response}'"
    assert [propose_text(tmp_path / name) for name in ("bad.jsonl", "none.jsonl")] == ["", ""]


def run(*words):
    return CliRunner(catch_exceptions=False).invoke(main, list(words))


def write_chats(path):
    line = json.dumps({"dataset": "helpful-and-harmless", "messages": [TURN, TURN]}) + "\n"
    path.write_text(line * 12)


def test_a_message_says_how_a_chat_is_read(tmp_path, monkeypatch):
    """It named a label and the id: `--text '{dataset} {id}'`; init took the label for the text."""
    monkeypatch.chdir(tmp_path)
    write_chats(tmp_path / "chat.jsonl")
    assert "as a template: --text '{messages.content}'" in run("index", "chat.jsonl").output
    wrong = run("index", "chat.jsonl", "--text", "messages")
    assert wrong.exit_code == 3
    assert "its first record would be read by --text '{messages.content}'" in wrong.output
    tried = run("index", "chat.jsonl", "--text", "messages", "--dry-run").output
    assert "chat.jsonl: the first 12 records rejected: wrong_type 12" in tried
    run("init")
    assert 'text = "{messages.content}"' in (tmp_path / "curate.toml").read_text()
    counted = run("index", "--dry-run").output
    assert "12 documents" in counted and "rejected" not in counted


def test_a_shell_writes_line_breaks_in_a_template(tmp_path, monkeypatch):
    """The two signs went into every text, between the question and its answer."""
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "curate.stages.plan", lambda *_, settings, **__: seen.append(settings.corpus.text) or 1 / 0
    )
    for given in (r"{q}\n{a}\t", "{q}\n{a}", r"a\n"):
        with pytest.raises(ZeroDivisionError):
            run("index", "a.jsonl", "--dry-run", "--text", given)
    assert seen == ["{q}\n{a}\t", "{q}\n{a}", r"a\n"]
