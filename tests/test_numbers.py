import doctest
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.report import numbers
from curate.report.numbers import (
    format_bytes,
    format_interval,
    format_ranks,
    format_seconds,
    format_share,
    format_tokens,
    format_value,
    parse_tokens,
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("250k", 250_000),
        ("100M", 100_000_000),
        ("1.5B", 1_500_000_000),
        ("1b", 1_000_000_000),
        ("2T", 2_000_000_000_000),
        (" 1_500 ", 1_500),
        ("1,500,000", 1_500_000),
        ("1e9", 1_000_000_000),
        ("0.001k", 1),
        ("0", 0),
    ],
)
def test_parse_tokens_reads_what_people_write(text, tokens):
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize(
    "text",
    ["", "k", "-5", "1.5", "0.0001k", "5 q", "1MB", "ten", "1..5", "nan", "inf", "１k", "1e999",
     "1,5M", "12,34", "1,,500", "1,000,", "1_000,000"],
)  # fmt: skip
def test_parse_tokens_refuses_what_is_not_a_whole_number_of_tokens(text):
    with pytest.raises(ValueError, match="number of tokens"):
        parse_tokens(text)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1k"),
        (1_500_000, "1.5M"),
        (1_234_567, "1.23M"),
        (123_456, "123k"),
        (999_499, "999k"),
        (999_960, "1M"),
        (1_500_000_000, "1.5B"),
        (5e15, "5000T"),
        (0.25, "0.2"),
        (9.94, "9.9"),
        (9.96, "10"),
        (-1_500, "−1.5k"),
        (-0.04, "0"),
        (-0.0, "0"),
        (math.nan, "–"),
    ],
)
def test_format_tokens(tokens, text):
    assert format_tokens(tokens) == text


@given(st.integers(min_value=1, max_value=10**14))
def test_format_tokens_is_right_to_half_a_percent(tokens):
    assert abs(parse_tokens(format_tokens(tokens)) / tokens - 1) <= 0.005


def test_values_intervals_and_shares():
    assert format_value(0.12345, signed=True) == "+0.123"
    assert format_value(-0.0001) == "−0.0001"
    assert format_value(-0.00001) == "0.000"
    assert format_value(math.inf) == "–"
    assert format_interval(-0.1, 0.2, signed=True) == "−0.100 to +0.200"
    assert [format_share(s) for s in (0, 0.0001, 0.0994, 0.0999, 0.994, 0.996, 0.9996, 1)] == [
        "0%",
        "<0.1%",
        "9.9%",
        "10%",
        "99%",
        "99.6%",
        ">99.9%",
        "100%",
    ]
    shares = (-0.0, -0.0004, -0.034, -0.5)
    assert [format_share(s) for s in shares] == ["0%", "0%", "−3.4%", "−50%"]
    assert (format_ranks(3, 3), format_ranks(2, 5)) == ("3", "2–5")


def test_durations_and_sizes():
    assert [format_seconds(s) for s in (0, 0.2, 0.5, 60, 3_599.9, 3_660, 200_000, math.nan)] == [
        "0 s",
        "<1 s",
        "<1 s",
        "1 min",
        "1 h",
        "1 h 1 min",
        "2 d 7 h",
        "–",
    ]
    assert [format_bytes(n) for n in (12, 1_500, 2_000_000)] == ["12 B", "1.5 kB", "2 MB"]


def test_docstring_examples():
    assert doctest.testmod(numbers).failed == 0


def test_numbers_load_nothing_heavy():
    code = "import sys, curate.report.numbers; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"numpy", "torch", "rich", "jinja2", "transformers", "datasets", "faiss", "sklearn"}
    assert not heavy & set(loaded.stdout.split())
