"""Does the coefficient move with the tokens embedded? Real text, 16k to 256k tokens a shard.

Every shard is embedded once, in sub-batches of 4,096 tokens; an embedding of fewer tokens is the
mean of its first sub-batches, dealt to four, which is what embedding fewer tokens gives.
Run: python benchmarks/stability.py --data DATA --corpora formal_lean3 wikipedia --json
DATA holds corpora/NAME.jsonl.zst and targets/NAME/SPLIT.jsonl.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from curate.corpus.targets import load_target
from curate.corpus.tokens import draw_batches
from curate.ranking.alignment import align_all
from curate.ranking.prepared import corpus_reference
from curate.settings import EmbedSettings, Measure, TargetSettings
from curate.task2vec.fisher import FisherSettings, fisher_blocks, fisher_rows
from curate.task2vec.probe import Probe, encode_texts, load_probe

PIECE = 4_096  # tokens of a sub-batch as embedded
BATCHES = 4  # sub-batches as aligned
SIZES = (16_384, 32_768, 65_536, 131_072, 262_144)  # tokens a shard


def read_texts(path: Path, characters: int) -> list[str]:
    """Return the first documents of a compressed corpus."""
    import pyarrow as pa

    texts, total = [], 0
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        rest = b""
        while total < characters and (block := stream.read(1 << 20)):
            *lines, rest = (rest + block).split(b"\n")
            texts += [json.loads(line)["text"] for line in lines]
            total = sum(map(len, texts))
    return texts


def embed(texts: Sequence[str], probe: Probe, pieces: int) -> np.ndarray:
    """Return one row a sub-batch of `PIECE` tokens, (n, dim), n at most `pieces`."""
    parts = draw_batches(
        encode_texts(probe, list(texts)),
        batches=pieces,
        batch_tokens=PIECE,
        block_tokens=EmbedSettings().block_tokens,
        seed=0,
    )
    parts = [part for part in parts if sum(map(len, part)) > PIECE // 2]
    found = fisher_rows(
        probe.model,
        [block for part in parts for block in part],
        groups=[group for group, part in enumerate(parts) for _ in part],
        settings=FisherSettings(),
        batch_tokens=PIECE,
    )
    return np.maximum(found.values, np.finfo(np.float32).tiny)


def dealt(rows: np.ndarray, tokens: int) -> np.ndarray | None:
    """Return `BATCHES` sub-batches of the first `tokens` tokens; None where there are fewer."""
    count = tokens // PIECE
    if count > len(rows):
        return None
    return rows[:count].reshape(-1, BATCHES, rows.shape[1]).mean(axis=0)


def main() -> None:
    """Embed, align at every size, print one line a measure and shard."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corpora", nargs="+", required=True)
    parser.add_argument("--target", default="proofnet")
    parser.add_argument("--tokens", type=int, default=SIZES[-1], help="of a shard, at most")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    probe = load_probe("builtin", device="cpu")
    blocks = fisher_blocks(probe.model, FisherSettings())
    target = load_target(TargetSettings(name=arguments.target, data_dir=str(arguments.data)))
    own = embed(target.select, probe, BATCHES)
    pieces = arguments.tokens // PIECE
    rows = {}
    for name in arguments.corpora:
        path = arguments.data / "corpora" / f"{name}.jsonl.zst"
        rows[name] = embed(read_texts(path, 8 * arguments.tokens), probe, pieces)
    for measure in get_args(Measure):
        found: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in rows}
        for size in SIZES:
            stacks = {name: dealt(each, size) for name, each in rows.items()}
            kept = {name: each for name, each in stacks.items() if each is not None}
            reference = corpus_reference(kept.values(), measure=measure, blocks=blocks)
            got = align_all(own, kept.values(), measure=measure, blocks=blocks, reference=reference)
            for name, value, raw in zip(kept, got.values, got.raw, strict=True):
                found[name][size] = (float(value), float(raw))
        for name, sizes in found.items():
            values, raws = (np.array(each) for each in zip(*sizes.values(), strict=True))
            line = {
                "measure": measure,
                "shard": name,
                "tokens": list(sizes),
                "alignment": values.round(4).tolist(),
                "uncorrected": raws.round(4).tolist(),
                "range": round(float(np.ptp(values)), 4),
                "range_uncorrected": round(float(np.ptp(raws)), 4),
            }
            print(json.dumps(line) if arguments.json else "  ".join(map(str, line.values())))


if __name__ == "__main__":
    main()
