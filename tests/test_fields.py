"""A record becomes a text: one field or a template, or the reason why not."""

import pytest

from curate.corpus import fields
from curate.corpus.fields import MISSING, parse_template, render, row_names
from curate.errors import USAGE, CurateError


def test_a_row_holds_what_is_asked_for_then_what_documents_keep_each_once():
    assert row_names(("text",)) == ("text", "id", "url", "meta", "metadata")
    assert row_names(("url", "q", "q")) == ("url", "q", "id", "meta", "metadata")


def test_a_template_is_taken_apart():
    plain = parse_template("a field")
    assert (plain.fields, plain.parts) == (("a field",), (("", 0, ()),))
    found = parse_template("Q: {q.in.ner}, {a}{q}!")
    assert found.fields == ("q", "a")
    assert found.parts == (
        ("Q: ", 0, ("in", "ner")), (", ", 1, ()), ("", 0, ()), ("!", -1, ()),
    )  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    ["", "{", "}", "a}", "{}", "{a..b}", "{.a}", "{a.}", "{a[0]}", "{a!r}", "{a:>3}", "{{a}}",
     "no {{field}} in it", "\ud800", "a\udfff"],
)  # fmt: skip
def test_what_names_no_field_is_a_mistake_of_usage(wrong):
    with pytest.raises(CurateError) as caught:
        parse_template(wrong)
    assert caught.value.exit_code == USAGE and str(caught.value).startswith("text: ")


def test_names_may_be_of_any_text():
    for name in ("\ud7ff", "\ue000", "a b", "a.b", '"'):
        assert parse_template(name).fields == (name,)


VALUES = [
    ("a text", "a text", ""),
    (" a ", " a ", ""),
    ("", "", "empty"),
    (" \n\t", "", "empty"),
    (MISSING, "", "missing_field"),
    (None, "", "null"),
    (b"\xff", "", "bad_utf8"),
    (7, "", "wrong_type"),
    (["a"], "", "wrong_type"),
    ({"a": 1}, "", "wrong_type"),
]


@pytest.mark.parametrize(("value", "text", "reason"), VALUES)
def test_a_field_of_its_own_is_a_string(value, text, reason):
    assert render(parse_template("text"), (value, MISSING)) == (text, reason)


PARTS = [
    (7, "7", ""),
    (0.5, "0.5", ""),
    (["a", 1, 0.5], "a\n1\n0.5", ""),
    (["a", ""], "a\n", ""),
    (True, "", "wrong_type"),
    ([True], "", "wrong_type"),
    (["a", ["b"]], "", "wrong_type"),
    (["a", None], "", "wrong_type"),
    ([], "", "empty"),
    ({"a": 1}, "", "wrong_type"),
    (None, "", "null"),
    (MISSING, "", "missing_field"),
    (b"\xff", "", "bad_utf8"),
    (" ", "", "empty"),
]


@pytest.mark.parametrize(("value", "text", "reason"), PARTS)
def test_a_template_also_takes_numbers_and_lists_of_both(value, text, reason):
    wanted = (f"<{text}>", "") if not reason else ("", reason)
    assert render(parse_template("<{x}>"), (value, MISSING)) == wanted


def test_one_field_with_text_is_enough_wherever_it_stands():
    template = parse_template("{a}-{b}")
    assert render(template, ("x", "")) == ("x-", "")
    assert render(template, ("", "x")) == ("-x", "")
    assert render(template, ("", " ")) == ("", "empty")
    assert render(template, ("x", MISSING)) == ("", "missing_field")
    assert render(parse_template("{a} {a}."), ("x",)) == ("x x.", "")


INSIDE = [
    ({"b": {"c": "x"}}, "x", ""),
    ({"b": {"c": None}}, "", "null"),
    ({"b": {}}, "", "missing_field"),
    ({"b": None}, "", "null"),
    ({}, "", "missing_field"),
    (None, "", "null"),
    (MISSING, "", "missing_field"),
    ("text", "", "wrong_type"),
    ({"b": "text"}, "", "wrong_type"),
    ({"b": {"c": {}}}, "", "wrong_type"),
]


@pytest.mark.parametrize(("value", "text", "reason"), INSIDE)
def test_a_path_reads_inside_objects(value, text, reason):
    assert render(parse_template("{a.b.c}"), (value,)) == (text, reason)


def test_a_text_is_as_long_as_the_cap_at_most(monkeypatch):
    monkeypatch.setattr(fields, "MAX_DOCUMENT_CHARS", 5)
    assert render(parse_template("text"), ("abcde",)) == ("abcde", "")
    assert render(parse_template("text"), ("abcdef",)) == ("", "too_long")
    assert render(parse_template("{a}."), ("abcd",)) == ("abcd.", "")
    assert render(parse_template("{a}."), ("abcde",)) == ("", "too_long")


CHATS = [
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a\nb", ""),
    ([{"content": "a"}, {"content": None, "tool_calls": []}, {"role": "tool"}], "a", ""),
    ([{"content": ["a", "b"]}, {"content": "c"}], "a\nb\nc", ""),
    ([{"content": None}], "", "null"),
    ([{"role": "user"}], "", "missing_field"),
    ([{"content": "a"}, "b"], "", "wrong_type"),
    ([{"content": {"text": "a"}}], "", "wrong_type"),
    ([{"content": " "}], "", "empty"),
    ([], "", "empty"),
]


@pytest.mark.parametrize(("turns", "text", "reason"), CHATS)
def test_the_turns_of_a_chat_are_read_one_a_line(turns, text, reason):
    """Every chat was rejected: the format that most fine-tuning data has could not be read."""
    assert render(parse_template("{messages.content}"), (turns,)) == (text, reason)


def test_parts_of_a_turn_are_read_too():
    turns = [{"content": [{"type": "text", "text": "a"}, {"type": "image"}]},
             {"content": [{"type": "text", "text": "b"}]}]  # fmt: skip
    assert render(parse_template("{m.content.text}"), (turns,)) == ("a\nb", "")
