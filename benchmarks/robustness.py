"""How far does a ranking move when what should not matter is changed?

    python benchmarks/robustness.py --data FOLDER --probe SmolLM2.gguf --json

FOLDER/corpora holds one file a corpus, FOLDER/targets the named targets. Corpora are ordered
towards every target by words and by Task2Vec; then one thing at a time is changed: the documents
that are drawn, the tokens read of each corpus, the length of its documents, the tokenizer or
probe (another one, and for Task2Vec one that has learnt nothing) and the length of sequences.
Printed is Kendall's tau between the order and the changed one, mean and least over the targets,
and for how many targets the first corpus stays first. What only another draw of documents moves
is the line to hold the others against. With --json the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from evidence.estimators import read_texts
from scipy.stats import kendalltau

from curate.corpus.targets import load_target
from curate.corpus.tokens import count_unigrams
from curate.ranking.alignment import align_all
from curate.ranking.lexical import count_items, lexical
from curate.settings import EmbedSettings, TargetSettings
from curate.task2vec.embedding import check_probe, embed_texts
from curate.task2vec.probe import Probe, encode_texts, load_probe

Floats = npt.NDArray[np.float64]
Texts = dict[str, list[str]]

UNTRAINED = "untrained"
BATCHES = 4
TARGET_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class Knobs:
    """What may be changed."""

    method: str  # words or task2vec
    tokens: int  # read of each corpus, by the probe's tokenizer; of a target at most TARGET_TOKENS
    probe: str = "builtin"
    characters: int = 0  # that a document of a corpus is cut to; 0 leaves it whole
    block_tokens: int = EmbedSettings().block_tokens
    draw: int = 0  # of documents


@cache
def open_probe(name: str) -> Probe:
    """Load a probe; `untrained` is the built-in one with weights drawn anew."""
    if name != UNTRAINED:
        return load_probe(name, device="cpu")
    probe = load_probe("builtin", device="cpu")
    torch.manual_seed(0)
    return dataclasses.replace(probe, model=type(probe.model)(probe.model.config).eval())


def take(texts: Sequence[str], knobs: Knobs) -> list[str]:
    """Draw documents of about so many tokens, each cut to so many characters."""
    size = knobs.characters or max(map(len, texts))
    pieces = [text[at : at + size] for text in texts for at in range(0, len(text), size)]
    order = np.random.default_rng([0, knobs.draw]).permutation(len(pieces)).tolist()
    probe, found, left = open_probe(knobs.probe), [], knobs.tokens
    for number in order:
        ids = encode_texts(probe, [pieces[number]])[0]
        if len(ids) > left:  # the last one is cut, about to the token
            found.append(pieces[number][: len(pieces[number]) * left // len(ids)])
            break
        found.append(pieces[number])
        left -= len(ids)
    return [text for text in found if text.strip()]


def of_target(knobs: Knobs) -> Knobs:
    """Return what a target is read by: whole items, the same ones whatever is read of corpora."""
    return dataclasses.replace(knobs, tokens=TARGET_TOKENS, characters=0, draw=0)


def by_words(corpora: Texts, targets: Texts, knobs: Knobs) -> Floats:
    """Return the lexical alignments, (targets, corpora)."""
    probe = open_probe(knobs.probe)
    vocab = probe.info.vocab

    def encode(texts: list[str]) -> Sequence[Any]:
        return encode_texts(probe, texts)

    counts = [count_unigrams(encode(take(each, knobs)), vocab) for each in corpora.values()]
    whole = np.sum(counts, axis=0)
    rows = []
    for texts in targets.values():
        items = count_items(take(texts, of_target(knobs)), encode, vocab=vocab)
        rows.append(lexical(items, counts, background=whole)[0])
    return np.exp(rows)


def by_task2vec(corpora: Texts, targets: Texts, knobs: Knobs) -> Floats:
    """Return the alignments of embeddings, (targets, corpora)."""
    probe = open_probe(knobs.probe)
    settings = EmbedSettings(
        batches=BATCHES, batch_tokens=knobs.tokens // BATCHES, block_tokens=knobs.block_tokens
    )
    blocks = check_probe(probe, settings)
    shards = [embed_texts(take(each, knobs), probe, settings).vectors for each in corpora.values()]
    rows = []
    for texts in targets.values():
        own = embed_texts(take(texts, of_target(knobs)), probe, settings).vectors
        rows.append(align_all(own, shards, measure="scaled", blocks=blocks).values)
    return np.array(rows)


METHODS: dict[str, Callable[[Texts, Texts, Knobs], Floats]] = {
    "words": by_words,
    "task2vec": by_task2vec,
}


def agree(base: Floats, other: Floats) -> dict[str, float]:
    """Return how well two sets of alignments (targets, corpora) agree about the order."""
    taus = [kendalltau(one, two).statistic for one, two in zip(base, other, strict=True)]
    first = base.argmax(axis=1) == other.argmax(axis=1)
    return {
        "tau": round(float(np.mean(taus)), 3),
        "least_tau": round(float(np.min(taus)), 3),
        "first_kept": int(first.sum()),
    }


def changes(options: argparse.Namespace) -> list[tuple[str, Knobs]]:
    """Return what is changed, one thing at a time."""
    found = []
    for method in options.methods:
        base = Knobs(method, options.words if method == "words" else options.task2vec)
        found += [(f"{method}: as it is", base)]
        found += [(f"{method}: other documents", dataclasses.replace(base, draw=1))]
        found += [
            (f"{method}: {tokens:,} tokens", dataclasses.replace(base, tokens=tokens))
            for tokens in options.tokens
            if tokens != base.tokens
        ]
        found += [
            (f"{method}: texts of {size:,} characters", dataclasses.replace(base, characters=size))
            for size in options.characters
        ]
        if method == "task2vec":
            found += [
                (f"{method}: sequences of {n}", dataclasses.replace(base, block_tokens=n))
                for n in options.blocks
            ]
            found += [(f"{method}: untrained probe", dataclasses.replace(base, probe=UNTRAINED))]
        if options.probe:
            size = base.tokens if method == "words" else options.probe_tokens
            other = dataclasses.replace(base, probe=options.probe, tokens=size)
            found += [(f"{method}: {Path(options.probe).stem}, {size:,} tokens", other)]
    return found


def main() -> None:
    """Measure, and print one line a change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--targets", nargs="+", default=["proofnet", "minif2f", "gsm8k", "math"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--words", type=int, default=262_144, help="tokens that words count")
    parser.add_argument("--task2vec", type=int, default=16_384, help="tokens that are embedded")
    parser.add_argument("--tokens", type=int, nargs="*", default=[4_096, 16_384, 65_536, 262_144])
    parser.add_argument("--characters", type=int, nargs="*", default=[300, 1_500])
    parser.add_argument("--blocks", type=int, nargs="*", default=[64, 128, 512])
    parser.add_argument("--probe", default="", help="another probe, and its tokenizer")
    parser.add_argument("--probe-tokens", type=int, default=2_048, help="that it reads of a corpus")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    files = sorted((options.data / "corpora").glob("*.jsonl.zst"))
    corpora = {path.name.split(".")[0]: list(read_texts(path)) for path in files}
    targets = {
        name: list(load_target(TargetSettings(name=name, data_dir=str(options.data))).select)
        for name in options.targets
    }
    bases: dict[str, Floats] = {}
    result: dict[str, Any] = {"corpora": len(corpora), "targets": len(targets), "changes": {}}
    for name, knobs in changes(options):
        began = time.process_time()
        found = METHODS[knobs.method](corpora, targets, knobs)
        bases.setdefault(knobs.method, found)
        line = agree(bases[knobs.method], found)
        line["cpu_s"] = round(time.process_time() - began, 1)
        result["changes"][name] = line
        print(f"{name:48} {line}", file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
