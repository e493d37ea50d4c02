"""Recall and false positives of decontamination, with leaks planted in real text.

Items of named targets are put in the middle of documents of a corpus, whole or changed; then all
is looked through. The documents with nothing planted tell the false positives: what is found in
them is printed, as it may also be a true leak.

Run: python benchmarks/leaks.py --data FOLDER --json   (FOLDER as of CURATE_DATA_DIR)
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from curate.corpus.containers import read_lines
from curate.corpus.targets import load_target
from curate.mixing.decontaminate import find_leaks, index_target
from curate.settings import TargetSettings

HOSTS = ("fiction_gutenberg", "wikipedia", "pubmed_abstracts", "patents", "shakespeare")
TARGETS = ("proofnet", "minif2f", "gsm8k")


def verbatim(text: str, rng: random.Random) -> str:
    """Return the item."""
    return text


def edited(text: str, rng: random.Random) -> str:
    """Return the item with one word changed, added or left out."""
    words = text.split(" ")
    place = rng.randrange(len(words))
    edit = rng.randrange(3)
    words[place : place + (edit != 1)] = [] if edit == 2 and len(words) > 1 else ["zebra"]
    return " ".join(words)


def renumbered(text: str, rng: random.Random) -> str:
    """Return the item with other numbers and other names: the problem is the same, no line is."""
    text = re.sub(r"\d+", lambda _: str(rng.randrange(2, 99)), text)
    return re.sub(r"(?<=[a-z,] )[A-Z][a-z]+", "Quentin", text)


def thinned(text: str, rng: random.Random) -> str:
    """Return the item with every eighth word left out: no run of 13 words is left."""
    words = text.split()
    start = rng.randrange(8)
    return " ".join(word for place, word in enumerate(words) if place % 8 != start)


CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "verbatim": verbatim, "one word edited": edited, "numbers and names changed": renumbered,
    "every eighth word left out": thinned,
}  # fmt: skip


def documents(folder: Path, name: str) -> Iterator[str]:
    """Yield pieces of at most 20,000 characters of a corpus."""
    for line in read_lines(folder / "corpora" / f"{name}.jsonl.zst", "zstd"):
        if isinstance(line, bytes):
            text = json.loads(line)["text"]
            yield from (text[start : start + 20_000] for start in range(0, len(text), 20_000))


def measure(folder: Path) -> dict[str, object]:
    """Return recall by target and change, and documents with a false alarm by corpus."""
    recall: dict[str, dict[str, float]] = {}
    alarms: dict[str, dict[str, int]] = {}
    words: dict[str, list[str]] = {}
    hosts = {name: list(islice(documents(folder, name), 400)) for name in HOSTS}
    for name in TARGETS:
        target = load_target(TargetSettings(name=name, data_dir=str(folder)))
        items = index_target(target)
        rng = random.Random(0)
        planted = [*target.select, *target.eval][:1000]
        recall[name] = {"items": len(planted)}
        for change, function in CHANGES.items():
            texts = []
            for number, item in enumerate(planted):
                host = hosts[HOSTS[number % len(HOSTS)]]
                around = host[number % len(host)]
                texts.append(f"{around[:2000]}\n{function(item, rng)}\n{around[2000:4000]}")
            found = find_leaks(texts, items)
            recall[name][change] = round(sum(map(bool, found)) / len(found), 4)
        for host_name, texts in hosts.items():
            found = find_leaks(texts, items)
            alarms.setdefault(name, {})[host_name] = sum(map(bool, found))
            words.setdefault(name, []).extend(leak.words[:100] for leak in found if leak)
    return {
        "recall": recall,
        "alarms": alarms,
        "documents": {name: len(texts) for name, texts in hosts.items()},
        "alarm_words": words,
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    arguments = parser.parse_args()
    found = measure(arguments.data)
    print(json.dumps(found) if arguments.json else json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
