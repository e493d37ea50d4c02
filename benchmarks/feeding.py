"""What feeds the device? The processor time of the process that reads, part by part.

    python benchmarks/feeding.py --shards 200 --json
    python benchmarks/feeding.py --shards 40 --shard-tokens 1000000 --json

One pass of `curate index` over written documents, with nobody who embeds: each work item is let
go when it is made. Then the same with one shard made after the other and with the next one
tokenised meanwhile, in turn, on the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline import write_corpus

from curate.corpus.inputs import find_inputs
from curate.corpus.prints import keep_prints
from curate.corpus.regroup import open_corpus
from curate.corpus.shards import read_shards
from curate.engine.ahead import ahead
from curate.settings import CorpusSettings, EmbedSettings
from curate.task2vec import making
from curate.task2vec.items import draw_tokens, publish_tokens
from curate.task2vec.probe import Probe, encode_texts, load_probe


class NobodyEmbedsError(Exception):
    """All work items are made."""


def parts(folder: Path, corpus: CorpusSettings, embed: EmbedSettings, probe: Probe) -> Any:
    """Return shards, tokens, and processor seconds of each part of the work."""
    spent = dict.fromkeys(("tokenise", "read_and_cut", "prints", "draw", "publish"), 0.0)
    clock, shards, tokens = time.process_time, 0, 0

    def encode(texts: list[str]) -> Any:
        began = clock()
        found = encode_texts(probe, texts)
        spent["tokenise"] += clock() - began
        return found

    inputs = find_inputs(corpus.inputs, workspace=folder)
    began = clock()
    for text in read_shards(inputs, corpus, encode=encode, ledgers=[]):
        marks = [clock()]
        keep_prints(folder / "prints", text, setting="")
        marks.append(clock())
        drawn = draw_tokens(text, embed, vocab=probe.info.vocab)
        marks.append(clock())
        publish_tokens(folder / "items" / f"{shards}.safetensors", drawn)
        marks.append(clock())
        for name, first, last in zip(("prints", "draw", "publish"), marks, marks[1:], strict=False):
            spent[name] += last - first
        shards, tokens = shards + 1, tokens + text.shard.n_tokens
    spent["read_and_cut"] = clock() - began - sum(spent.values())
    return shards, tokens, spent


def feed(folder: Path, corpus: CorpusSettings, embed: EmbedSettings, probe: Probe) -> float:
    """Make all work items; return the seconds on the clock."""
    work = making.Making(folder / "index", corpus, embed, probe.info, device="cpu")
    opened = open_corpus(corpus, workspace=folder, notify=lambda *_: None)
    began = time.monotonic()
    try:
        making.embed_all(work, opened, probe, making.Crew(1, "cpu", here=False), lambda *_: None)
    except NobodyEmbedsError:
        return time.monotonic() - began
    raise AssertionError("somebody embedded")


def let_go(_: Any, items: Iterator[Any], **__: Any) -> Any:
    """Stand in the place of those who embed."""
    for item in items:
        item.tokens.unlink()
    raise NobodyEmbedsError


def in_its_turn(items: Iterator[Any], *, most: int) -> Iterator[Any]:
    """Make shards as they are wanted, as before they were read ahead."""
    return (item for item in items) if most == making.READ_AHEAD else ahead(items, most=most)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--shard-tokens", type=int, default=16_384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    probe = load_probe("builtin", device="cpu")
    embed = EmbedSettings(batch_tokens=min(16_384, given.shard_tokens // 4))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "in").mkdir()
        write_corpus(place / "in", shards=given.shards, shard_tokens=given.shard_tokens, files=4)
        corpus = CorpusSettings((str(place / "in"),), shard_tokens=given.shard_tokens)
        parts(place / "warm", corpus, embed, probe)
        shards, tokens, spent = parts(place / "parts", corpus, embed, probe)
        seconds: dict[str, list[float]] = {"in_turn": [], "ahead": []}
        for turn in range(2 * given.repeats):
            which = ("in_turn", "ahead")[turn % 2]
            made = in_its_turn if which == "in_turn" else ahead
            with mock.patch.multiple(making, ahead=made, run_items=let_go):
                seconds[which].append(feed(place / "feed", corpus, embed, probe))
            shutil.rmtree(place / "feed")
    least = {name: min(each) for name, each in seconds.items()}
    found = {
        "shards": shards, "tokens": tokens,
        "cpu_ms_a_shard": {name: round(1000 * s / shards, 2) for name, s in spent.items()},
        "tokens_per_cpu_s": round(tokens / sum(spent.values())),
        "in_turn_s": round(least["in_turn"], 2), "ahead_s": round(least["ahead"], 2),
        "in_turn_over_ahead": round(least["in_turn"] / least["ahead"], 2),
        "load": round(os.getloadavg()[0], 1), "cores": os.cpu_count(),
    }  # fmt: skip
    print(json.dumps(found) if given.json else "\n".join(f"{k:20} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
