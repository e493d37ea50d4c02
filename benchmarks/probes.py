"""How far two probes agree about the order of corpora for a target.

    python benchmarks/probes.py --data FOLDER --probes builtin FILE.gguf --json

FOLDER/corpora holds the corpora, FOLDER/targets/proofnet/valid.jsonl the target. Every corpus is
embedded from a seeded choice of its documents with few tokens, the target likewise; both probes
read the same documents. The last line is one JSON object: rankings, Kendall's tau and Spearman's
rho of the alignments, for the rows of all blocks and of the last tenth of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from evidence.estimators import read_texts
from scipy.stats import kendalltau, spearmanr

from curate.ranking.alignment import alignment
from curate.records import Embedding, RowBlock
from curate.settings import EmbedSettings
from curate.task2vec.embedding import check_probe, embed_texts
from curate.task2vec.probe import load_probe

TEMPLATE = "informal statement {nl_statement} formal statement {formal_statement}"


def choose_texts(folder: Path, *, documents: int) -> dict[str, list[str]]:
    """Return seeded documents of every corpus, each cut to its first 4,000 characters."""
    chosen = {}
    for path in sorted((folder / "corpora").glob("*.jsonl.zst")):
        texts = list(itertools.islice(read_texts(path), 20 * documents))
        order = np.random.default_rng(0).permutation(len(texts))[:documents]
        chosen[path.name.split(".")[0]] = [texts[n][:4_000] for n in order]
    lines = (folder / "targets" / "proofnet" / "valid.jsonl").read_text("utf-8").splitlines()
    items = [TEMPLATE.format(**json.loads(line)) for line in lines]
    order = np.random.default_rng(0).permutation(len(items))[:documents]
    return {**chosen, "proofnet": [items[n] for n in order]}


def align(
    texts: dict[str, list[str]], name: str, settings: EmbedSettings
) -> dict[str, dict[str, float]]:
    """Return the alignment of every corpus with the target, by the blocks that it rests on."""
    probe = load_probe(name, device="cpu")
    blocks = check_probe(probe, settings)
    found: dict[str, Embedding] = {}
    for what, some in texts.items():
        start = time.process_time()
        found[what] = embed_texts(some, probe, settings)
        print(f"{name} {what} {time.process_time() - start:.1f} s", file=sys.stderr, flush=True)
    if settings.layers != "all":
        return {settings.layers: _align(found, blocks)}
    n_layers = probe.model.config.num_hidden_layers
    last = [b for b in blocks if b.layer >= n_layers - max(1, n_layers // 10)]
    return {"all": _align(found, blocks), "last": _align(found, last)}


def _align(found: dict[str, Embedding], blocks: Any) -> dict[str, float]:
    first = blocks[0].start
    moved = [RowBlock(b.name, b.layer, b.kind, b.start - first, b.stop - first) for b in blocks]
    target = found["proofnet"].vectors[:, first:]
    return {
        name: alignment(target, one.vectors[:, first:], measure="scaled", blocks=moved)
        for name, one in found.items()
        if name != "proofnet"
    }


def main() -> None:
    """Embed with both probes and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--probes", nargs=2, default=["builtin", "gpt2"])
    parser.add_argument("--layers", nargs=2, default=["all", "all"], help="all or last:K, of each")
    parser.add_argument("--documents", type=int, default=24)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--batch-tokens", type=int, default=512)
    parser.add_argument("--block-tokens", type=int, default=128)
    parser.add_argument("--json", action="store_true", help="only the JSON object")
    chosen = parser.parse_args()
    settings = EmbedSettings(
        batches=chosen.batches, batch_tokens=chosen.batch_tokens, block_tokens=chosen.block_tokens
    )
    texts = choose_texts(chosen.data, documents=chosen.documents)
    aligned = {
        name: align(texts, name, dataclasses.replace(settings, layers=layers))
        for name, layers in zip(chosen.probes, chosen.layers, strict=True)
    }
    names = [name for name in texts if name != "proofnet"]
    result: dict[str, Any] = {
        "benchmark": "probes",
        "tokens": settings.batches * settings.batch_tokens,
    }
    for (a, left), (b, right) in itertools.combinations(_views(aligned), 2):
        x, y = [left[name] for name in names], [right[name] for name in names]
        result[f"{a} against {b}"] = {
            "kendall": round(float(kendalltau(x, y)[0]), 3),
            "spearman": round(float(spearmanr(x, y)[0]), 3),
        }
    result["alignment"] = {
        view: {name: round(value, 4) for name, value in sorted(found.items(), key=lambda p: -p[1])}
        for view, found in _views(aligned)
    }
    if not chosen.json:
        for view, found in _views(aligned):
            print(view, " ".join(sorted(found, key=lambda name: -found[name])))
    print(json.dumps(result))


def _views(aligned: dict[str, dict[str, dict[str, float]]]) -> list[tuple[str, dict[str, float]]]:
    return [
        (f"{Path(probe).name} {layers}", found)
        for probe, views in aligned.items()
        for layers, found in views.items()
    ]


if __name__ == "__main__":
    main()
