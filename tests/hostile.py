"""Text as an attacker would write it, and a corpus whose every name and document is of it."""

import json
import os
import random
import unicodedata
from pathlib import Path

WORDS = {
    "math": [
        "theorem",
        "proof",
        "lemma",
        "group",
        "ring",
        "field",
        "ideal",
        "kernel",
        "image",
        "finite",
        "abelian",
        "order",
    ],
    "story": [
        "cat",
        "dog",
        "house",
        "tree",
        "river",
        "street",
        "morning",
        "evening",
        "walked",
        "quietly",
        "home",
        "again",
    ],
    "code": [
        "def",
        "return",
        "import",
        "class",
        "self",
        "print",
        "for",
        "while",
        "range",
        "len",
        "try",
        "except",
    ],
}

FIELD = 'te"x\\t\x1b[31m'
"""The field of the text: with what no JSON decoder can be made for."""

TEXTS = (
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "\x9b31mC1", "a\u202egnp.exe", "\u2066\u2069\u200f", "zero\u200bwidth\ufeff",
    "</script><script>document.title='RAN'</script>", '"><img src=x onerror="document.title=1">',
    "<svg onload=alert(1)>", "<!--", "]]>", "{{ 7*7 }}{% raw %}", "[/][bold]markup[/bold]",
    "[link=http://evil.example]x[/link]", "$x^{_2$ and `tick` | pipe", "=cmd|' /C calc'!A0",
    "+SUM(A1)", "-2+3", "@cmd", "\tx", "\rx", "nul\x00nul", "../../x", "%s%n{0}", "n" * 300,
    "line\u2028separator", "e" + "\u0301" * 60,
)  # fmt: skip

NAMES = (
    "\x1b[31mred\x1b[0m_.jsonl", "=cmd|' 'A0\u202e[bold].jsonl", "-rf.jsonl", "x%2f..%2f.jsonl",
    "<img src=x onerror=alert(1)>.jsonl", "n" * 240 + ".jsonl", "{{7*7}}\n\u2028.jsonl",
)  # fmt: skip

TARGET = "tar;'\x1b]0;x\x07get<b>.jsonl"


def texts(kind: str, count: int, *, payloads: tuple[str, ...] = TEXTS, seed: int = 0) -> list[str]:
    """Return texts of one kind of words, each with a hostile start and end."""
    rng = random.Random(f"{kind}{seed}")
    plain = (" ".join(rng.choices(WORDS[kind], k=rng.randint(20, 50))) for _ in range(count))
    return [
        f"{payloads[n % len(payloads)]} {text} {payloads[(n + 1) % len(payloads)]}"
        for n, text in enumerate(plain)
    ]


def write(path: Path, documents: list[str]) -> None:
    records = [
        {"id": TEXTS[n % len(TEXTS)] + str(n), FIELD: text, "meta": {text[:40]: text[:40]}}
        for n, text in enumerate(documents)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_corpus(folder: Path) -> Path:
    """Write a corpus of seven sources with hostile names, and a target beside it."""
    (folder / "in").mkdir(parents=True)
    for n, name in enumerate(NAMES):
        write(folder / "in" / name, texts(tuple(WORDS)[n % 3], 30 + n))
    write(folder / TARGET, [f"{n} {text}" for n, text in enumerate(texts("math", 60))])
    return folder / "in"


def controls(text: str) -> set[str]:
    """Return the characters of a text that a terminal would act on, line breaks apart."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"}


def tree(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder, locks apart."""
    return {
        os.path.relpath(path, folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
