"""Does the coefficient move with the tokens embedded? Real text, 16k to 256k tokens a shard.

Every shard is embedded once, in sub-batches of 4,096 tokens; an embedding of fewer tokens is the
mean of its first sub-batches, dealt to four, which is what embedding fewer tokens gives. Then 95 %
intervals of embeddings of 16k tokens, drawn from the sub-batches without replacement, are held
against the value of all of them. With --items 8 20 50 so are intervals of targets of so many of
its items, drawn without replacement (by words: few_items.py). With --published the published
recipe stands beside it, on the same tokens in rows of 128: --published 0 leaves its head as it is
(its vectors are then means over mini-batches, so that one pass serves all sizes), 10 tunes it as
published, for every size anew.
Run: python benchmarks/stability.py --data DATA --corpora formal_lean3 wikipedia --json
DATA holds corpora/NAME.jsonl.zst and targets/NAME/SPLIT.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from evidence.estimators import of_those_there, published_distance

from curate.corpus.targets import load_target
from curate.corpus.tokens import cut_blocks, draw_batches
from curate.ranking.alignment import Alignments, align_all
from curate.ranking.prepared import corpus_reference
from curate.ranking.stats import rank_intervals, t_intervals
from curate.records import RowBlock
from curate.settings import EmbedSettings, Measure, TargetSettings
from curate.task2vec.batches import Ids
from curate.task2vec.fisher import FisherSettings, fisher_blocks, fisher_rows
from curate.task2vec.probe import Probe, encode_texts, load_probe
from curate.task2vec.published import PublishedSettings, published_rows

PIECE = 4_096  # tokens of a sub-batch as embedded
BATCHES = 4  # sub-batches as aligned
SIZES = (16_384, 32_768, 65_536, 131_072, 262_144)  # tokens a shard
DRAWINGS = 200


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


def cut(texts: Sequence[str], probe: Probe, pieces: int) -> list[list[Ids]]:
    """Return sub-batches of `PIECE` tokens, `pieces` at most, as sequences."""
    parts = draw_batches(
        encode_texts(probe, list(texts)),
        batches=pieces,
        batch_tokens=PIECE,
        block_tokens=EmbedSettings().block_tokens,
        seed=0,
    )
    return [part for part in parts if sum(map(len, part)) > PIECE // 2]


def embed(parts: Sequence[Sequence[Ids]], probe: Probe) -> np.ndarray:
    """Return one row a sub-batch, (n, dim)."""
    found = fisher_rows(
        probe.model,
        [block for part in parts for block in part],
        groups=[group for group, part in enumerate(parts) for _ in part],
        settings=FisherSettings(),
        batch_tokens=PIECE,
    )
    return np.maximum(found.values, np.finfo(np.float32).tiny)


def embed_published(
    parts: Sequence[Sequence[Ids]], probe: Probe, sizes: Sequence[int], epochs: int
) -> dict[int, np.ndarray]:
    """Return the recipe's vector of the first tokens of the parts, by their number."""
    pad = int(probe.tokenizer.eos_token_id or 0)

    def run(some: Sequence[Sequence[Ids]], seed: int) -> np.ndarray:
        rows = [row for part in some for row in cut_blocks(part, block_tokens=128)]
        recipe = PublishedSettings(epochs=epochs, seed=seed)
        return published_rows(probe.model, rows, pad=pad, settings=recipe)[0]

    counts = {size: size // PIECE for size in sizes if size // PIECE <= len(parts)}
    if epochs:
        return {size: run(parts[:count], 42) for size, count in counts.items()}
    each = np.stack([run([part], seed) for seed, part in enumerate(parts)])
    return {size: each[:count].mean(axis=0) for size, count in counts.items()}


def dealt(rows: np.ndarray, tokens: int) -> np.ndarray | None:
    """Return `BATCHES` sub-batches of the first `tokens` tokens; None where there are fewer."""
    count = tokens // PIECE
    if count > len(rows):
        return None
    return rows[:count].reshape(-1, BATCHES, rows.shape[1]).mean(axis=0)


def measure_lines(
    own: np.ndarray, rows: dict[str, np.ndarray], blocks: Sequence[RowBlock]
) -> Iterator[dict[str, Any]]:
    """Yield a line for every measure and shard: alignment by tokens embedded."""
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
            yield line(measure, name, list(sizes), values) | {
                "uncorrected": raws.round(4).tolist(),
                "range_uncorrected": round(float(np.ptp(raws)), 4),
            }


def line(measure: str, name: str, sizes: Sequence[int], values: np.ndarray) -> dict[str, Any]:
    """Return what is said of one measure on one shard."""
    return {
        "measure": measure,
        "shard": name,
        "tokens": list(sizes),
        "alignment": values.round(4).tolist(),
        "range": round(float(np.ptp(values)), 4),
    }


def coverage(
    own: np.ndarray, rows: dict[str, np.ndarray], blocks: Sequence[RowBlock]
) -> dict[str, float]:
    """Return how often intervals and ranks from 4 sub-batches hold what all of them give.

    A drawing takes `BATCHES` of the sub-batches of every shard. The target is all its sub-batches
    in every drawing: it is the same text, so its part of the intervals is left out.
    """
    generator = np.random.default_rng(0)
    truth = align_all(own, rows.values(), blocks=blocks).values
    true_rank = 1 + (truth[:, None] < truth).sum(axis=1)
    held, ranked = [], []
    for _ in range(DRAWINGS):
        some = [each[generator.permutation(len(each))[:BATCHES]] for each in rows.values()]
        found = align_all(own, some, blocks=blocks)
        moves = dataclasses.replace(found.moves, target=np.zeros_like(found.moves.target))
        low, high = t_intervals(found.values, moves)
        held.append((low <= truth) & (truth <= high))
        ranks = rank_intervals(found.values, moves, confidence=0.95, draws=1_000, seed=0)
        ranked.append((ranks.low <= true_rank) & (true_rank <= ranks.high))
    return {"coverage": float(np.mean(held)), "rank_coverage": float(np.mean(ranked))}


def item_coverage(
    items: Sequence[Ids], probe: Probe, rows: dict[str, np.ndarray], sizes: Sequence[int]
) -> Iterator[dict[str, float]]:
    """Yield how often intervals of targets of a few items hold what all of the items give.

    Every item is embedded once. The shards are the same in every drawing, so their part of the
    intervals is left out; so is what a drawing varies less than one of items without end.
    """
    sequences = [cut_blocks([ids], block_tokens=EmbedSettings().block_tokens) for ids in items]
    blocks = fisher_blocks(probe.model, FisherSettings())
    each, counts = embed(sequences, probe), np.array([len(own) for own in sequences])
    shards = [found for own in rows.values() if (found := dealt(own, SIZES[0])) is not None]
    generator = np.random.default_rng(0)

    def aligned(count: int) -> Alignments:
        parts: list[list[int]] = [[] for _ in range(BATCHES)]
        for item in generator.permutation(len(items))[:count].tolist():
            min(parts, key=lambda part: sum(len(items[n]) for n in part)).append(item)
        own = np.stack([np.average(each[part], axis=0, weights=counts[part]) for part in parts])
        return align_all(own, shards, blocks=blocks)

    truth = aligned(len(items)).values
    for size in sizes:
        held, plain, off = [], [], []
        for _ in range(DRAWINGS):
            found = aligned(size)
            moves = dataclasses.replace(found.moves, shard=np.zeros_like(found.moves.shard))
            moves = of_those_there(moves, drawn=size, there=len(items))
            for kept, each_moves in ((held, moves), (plain, dataclasses.replace(moves, bias=None))):
                low, high = t_intervals(found.values, each_moves)
                kept.append((low <= truth) & (truth <= high))
            off.append(found.values - truth)
        yield {
            "items": size,
            "coverage": round(float(np.mean(held)), 3),
            "coverage_without_bias": round(float(np.mean(plain)), 3),
            "off": round(float(np.mean(off)), 4),
        }


def main() -> None:
    """Embed, align at every size, print one line a measure and shard."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corpora", nargs="+", required=True)
    parser.add_argument("--target", default="proofnet")
    parser.add_argument("--tokens", type=int, default=SIZES[-1], help="of a shard, at most")
    parser.add_argument("--published", nargs="*", type=int, default=[], help="epochs of its head")
    parser.add_argument(
        "--published-tokens", type=int, default=SIZES[0], help="of the recipe, at most"
    )
    parser.add_argument("--items", nargs="*", type=int, default=[], help="of small targets")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    probe = load_probe("builtin", device="cpu")
    blocks = fisher_blocks(probe.model, FisherSettings())
    target = load_target(TargetSettings(name=arguments.target, data_dir=str(arguments.data)))
    own = cut(target.select, probe, BATCHES)
    parts = {}
    for name in arguments.corpora:
        path = arguments.data / "corpora" / f"{name}.jsonl.zst"
        texts = read_texts(path, 8 * arguments.tokens)
        parts[name] = cut(texts, probe, arguments.tokens // PIECE)
    rows = {name: embed(each, probe) for name, each in parts.items()}
    mine = embed(own, probe)
    lines: list[dict[str, Any]] = [*measure_lines(mine, rows, blocks)]
    if min(map(len, rows.values())) > BATCHES:  # of as many there is one drawing, the truth
        lines.append(coverage(mine, rows, blocks))
    tokens = encode_texts(probe, list(target.select)) if arguments.items else []
    if tokens:
        lines += item_coverage(tokens, probe, rows, arguments.items)
    for epochs in arguments.published:
        sizes = [size for size in SIZES if size <= arguments.published_tokens]
        targets = embed_published(own, probe, [PIECE * len(own)], epochs)
        for name, each in parts.items():
            found = embed_published(each, probe, sizes, epochs)
            values = [1 - published_distance(*targets.values(), each) for each in found.values()]
            lines.append(line(f"published, {epochs} epochs", name, list(found), np.array(values)))
    for each in lines:
        print(json.dumps(each) if arguments.json else "  ".join(map(str, each.values())))


if __name__ == "__main__":
    main()
