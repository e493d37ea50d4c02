"""Text from elsewhere made harmless where it leaves: no secrets, no controls, no formulas."""

from __future__ import annotations

import os
import re
import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
HIDDEN = "***"

_BREAKS = dict.fromkeys(map(ord, "\n\t\r\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}"), " ")
_MOST_MARKS = 4  # combining marks on one letter; more only paint over the lines around
_SECRET_NAME = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_KEY(_ID)?)$", re.IGNORECASE
)
_SHORTEST_SECRET = 8  # characters; a shorter value is a switch or a number
_SHAPES = re.compile(r"\bhf_[A-Za-z0-9]{16,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")
_CREDENTIALS = re.compile(r"(?<=://)[^\s/?#]*@")
_QUERY = re.compile(r"(?<=://)([^\s?#'\"<>]+)\?[^\s'\"<>)#]+")
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")


def hide_secrets(text: str) -> str:
    """Return a message without credentials: of URLs, of the environment, known by their shape.

    Taken out: user and password of a URL and its query (where signed URLs carry their
    signature); the value of every environment variable whose name ends as those of secrets
    do (`HF_TOKEN`, `AWS_SECRET_ACCESS_KEY`, …); keys of the hub and of AWS by their shape.

    Example:
        >>> hide_secrets("https://me:word@host/a.jsonl?sig=1 refused")
        'https://***@host/a.jsonl?*** refused'
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and value in text and _SECRET_NAME.search(name):
            text = text.replace(value, HIDDEN)
    text = _SHAPES.sub(HIDDEN, text)
    if "://" in text:
        text = _CREDENTIALS.sub(f"{HIDDEN}@", text)
        text = _QUERY.sub(rf"\1?{HIDDEN}", text)
    return text


def without_controls(text: str) -> str:
    r"""Return one line without control, invisible, bidirectional or lone surrogate characters.

    Every character of Unicode category C becomes U+FFFD, a line break or tab a space.

    Example:
        >>> without_controls("red\x1b[31m\nname")
        'red�[31m name'
    """
    if text.isascii() and text.isprintable():
        return text
    kept: list[str] = []
    marks = 0
    for char in text.translate(_BREAKS):
        category = unicodedata.category(char)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks <= _MOST_MARKS:
            kept.append(REPLACEMENT if category.startswith("C") else char)
    return "".join(kept)


def csv_cell(text: str) -> str:
    """Return text as a cell that a spreadsheet shows and does not compute.

    What would begin a formula gets an apostrophe before it, as spreadsheets write text.

    Example:
        >>> csv_cell("=1+1"), csv_cell("web-00001")
        ("'=1+1", 'web-00001')
    """
    clean = without_controls(text)
    return f"'{clean}" if _FORMULA.match(clean) else clean
