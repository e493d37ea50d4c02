"""Do intervals of targets of a few items hold what many items give?

    python benchmarks/few_items.py --data FOLDER --corpora formal_lean3 wikipedia --json

FOLDER/corpora holds one file a corpus, FOLDER/targets the named targets. So many items of a
target are drawn without replacement, again and again, and the shards, one of each corpus, are
ranked by words: how often does the 95 % interval hold the value of all of the target's items,
and that of ranks the rank? (Intervals are drawn in by what such a drawing varies less than one of
all items that there could be.) A target may also be a corpus, whose items are then the
beginnings of its documents (--characters of each). Beside it stands the same were the words of a
target drawn one by one, not item by item: their entropy after Chao, Wang and Jost, and an interval
of the cross-entropy alone.
--vocab trains byte-pair tokens of that many kinds on the corpora, in place of the built-in
probe's 4,096. With --methods so are the other methods that read text, on small shards. With --parts
each corpus is so many shards, the target's own corpus among them: how often do a few items put
shards above 1, and what does it mend to take that off all shards, where they were cut to 1 before?
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from evidence.estimators import of_those_there, read_texts

from curate.corpus.pairs import count_pairs
from curate.corpus.targets import load_target
from curate.ranking.baselines import measure_texts
from curate.ranking.by_counts import GROUPS
from curate.ranking.entropy import entropy, item_entropy
from curate.ranking.lexical import count_items, excess, lexical, pool_items
from curate.ranking.ngram_lm import (
    ItemPairs,
    Seen,
    anchored,
    count_item_pairs,
    look_up,
    ngram_lm,
)
from curate.ranking.stats import Measured, rank_intervals, t_intervals
from curate.settings import TargetSettings
from curate.task2vec.probe import encode_texts, load_probe

Floats = npt.NDArray[np.float64]
Encode = Callable[[list[str]], Sequence[Any]]

SHARD_CHARACTERS = 1_000_000
ITEM_CHARACTERS = 500  # of a document of a corpus that is a target, if no other number is asked
MOST_ITEMS = 3_000  # of those
SMALL_DOCUMENTS = 30  # of a shard, for methods that read text
SMALL_CHARACTERS = 2_000  # of each


def read_items(name: str, data: Path, characters: int = ITEM_CHARACTERS) -> list[str]:
    """Return the items of a named target, or the beginnings of a corpus's documents.

    Args:
        name: of either.
        data: where they lie.
        characters: of a document, at most.
    """
    path = data / "corpora" / f"{name}.jsonl.zst"
    if path.is_file():
        return [text[:characters] for text in islice(read_texts(path), MOST_ITEMS)]
    target = load_target(TargetSettings(name=name, data_dir=str(data)))
    return list(target.select)


def read_shard(path: Path) -> list[str]:
    """Return the first texts of a corpus, until they are `SHARD_CHARACTERS` long together."""
    found, length = [], 0
    for text in read_texts(path):
        found.append(text)
        length += len(text)
        if length >= SHARD_CHARACTERS:
            break
    return found


def cut(counts: Any, parts: int) -> list[Floats]:
    """Return the counts of so many runs of documents, about as many tokens in each."""
    ends = np.cumsum(np.asarray(counts.sum(axis=1)).ravel())
    part = np.minimum((ends * parts / ends[-1]).astype(int), parts - 1)
    return [np.asarray(counts[np.flatnonzero(part == n)].sum(axis=0)).ravel() for n in set(part)]


def train_tokens(texts: Sequence[str], vocab: int) -> tuple[Encode, int]:
    """Return the tokens of a byte-level byte-pair encoding of texts, and how many kinds."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, initial_alphabet=letters, show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator(texts, trainer)
    return lambda some: [found.ids for found in tokenizer.encode_batch(some)], vocab


def one_by_one(counts: Any, found: Measured) -> Measured:
    """Return what is measured where the words of a target count as drawn one by one."""
    values, moves = found
    known, common = item_entropy(counts)
    other = entropy(np.asarray(counts.sum(axis=0)).ravel())
    return values - known + other, dataclasses.replace(moves, target=moves.target - common)


def holds(found: Measured, truth: Floats) -> tuple[float, float, float]:
    """Return the share of intervals that hold the truth, the mean error, and the mean reach."""
    low, high = t_intervals(*found)
    inside = (low <= truth) & (truth <= high)
    return float(inside.mean()), float((found[0] - truth).mean()), float((high - low).mean() / 2)


def of_drawing(found: Measured, drawn: int, there: int) -> Measured:
    """Return what is measured, to be held against the value of all the items that there are."""
    return found[0], of_those_there(found[1], drawn=drawn, there=there)


def error(found: Measured, truth: Floats) -> float:
    """Return the mean size of the errors of values."""
    return float(np.abs(found[0] - truth).mean())


def holds_ranks(found: Measured, truth: Floats) -> float:
    """Return the share of rank intervals that hold the true rank."""
    true_rank = 1 + (truth[:, None] < truth).sum(axis=1)
    ranks = rank_intervals(*found, confidence=0.95, draws=1_000, seed=0)
    return float(((ranks.low <= true_rank) & (true_rank <= ranks.high)).mean())


def by_words(
    counts: Any, shards: Sequence[Floats], sizes: Sequence[int], drawings: int
) -> Iterator[dict[str, Any]]:
    """Yield a line for every number of items that is at most half of them."""
    background, generator = np.sum(shards, axis=0), np.random.default_rng(0)

    def measured(items: Any) -> tuple[Any, Measured]:
        pooled = pool_items(items, most=GROUPS, seed=0)
        return pooled, lexical(pooled, shards, background=background)

    truth = measured(counts)[1][0]
    for size in [size for size in sizes if 2 * size <= counts.shape[0]]:
        rows = []
        for _ in range(drawings):
            pooled, found = measured(counts[generator.permutation(counts.shape[0])[:size]])
            found = of_drawing(found, size, counts.shape[0])
            plain = holds(one_by_one(pooled, found), truth)
            ranks = holds_ranks(found, truth)
            rows.append([*holds(found, truth), *plain, ranks, error(found, truth)])
        plain_names = ("holds_1by1", "off_1by1", "reach_1by1")
        names = ("holds", "off", "reach", *plain_names, "holds_ranks", "error")
        means = np.mean(rows, axis=0).round(3).tolist()
        yield {"items": size, **dict(zip(names, means, strict=True))}


def by_pairs(
    items: Sequence[Any], shards: Sequence[Sequence[Any]], vocab: int, sizes: Sequence[int],
    drawings: int,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield the same of alignments by token pairs, from token ids."""
    generator = np.random.default_rng(0)
    whole = count_item_pairs(items, vocab=vocab)
    counts = [np.bincount(np.concatenate(ids), minlength=vocab) for ids in shards]
    background = np.sum(counts, axis=0)
    seen = [
        look_up(whole, count_pairs(ids, vocab), mine)
        for ids, mine in zip(shards, counts, strict=True)
    ]

    def measured(rows: Any) -> Measured:
        pooled = pool_items(whole.items[rows], most=GROUPS, seed=0)
        some = ItemPairs(pooled, whole.before, whole.after, vocab)
        found = ngram_lm(some, seen, background=background)
        first = int(np.argmax(found[0]))
        level, moves = lexical(some.words, [counts[first]], background=background)
        level = level - excess(level)
        together = list(
            accumulate((seen[n] for n in np.argsort(-found[0], kind="stable")), Seen.plus)
        )
        united, _ = ngram_lm(some, together, background=background)
        over = excess(united - found[0][first] + level[0])
        return anchored(found, (level, moves), first=first, over=over)

    truth, n = measured(np.arange(len(items)))[0], len(items)
    for size in [size for size in sizes if 2 * size <= n]:
        rows = []
        for _ in range(drawings):
            found = of_drawing(measured(generator.permutation(n)[:size]), size, n)
            rows.append([*holds(found, truth), holds_ranks(found, truth)])
        names = ("holds", "off", "reach", "holds_ranks")
        means = np.mean(rows, axis=0).round(3).tolist()
        yield {"method": "ngram-lm", "items": size, **dict(zip(names, means, strict=True))}


def by_parts(
    counts: Any, shards: Sequence[Floats], sizes: Sequence[int], drawings: int
) -> Iterator[dict[str, Any]]:
    """Yield a line for every number of items: alignments cut to 1, and with the excess off."""
    background, generator = np.sum(shards, axis=0), np.random.default_rng(0)

    def measured(items: Any) -> Measured:
        return lexical(pool_items(items, most=GROUPS, seed=0), shards, background=background)

    def aligned(*logs: Floats) -> list[Floats]:
        return [np.clip(np.exp(row), 0.0, 1.0) for row in logs]

    values = measured(counts)[0]
    (truth,) = aligned(values - excess(values))
    near = truth > 0.8 * truth.max()
    for size in [size for size in sizes if 2 * size <= counts.shape[0]]:
        rows = []
        for _ in range(drawings):
            found = measured(counts[generator.permutation(counts.shape[0])[:size]])
            values, moves = of_drawing(found, size, counts.shape[0])
            over, reach = excess(values), t_intervals(values, moves)
            row = [float(over > 0), over]
            for off in (0.0, over):
                said, low, high = aligned(*(each - off for each in (values, *reach)))
                inside = (low <= truth) & (truth <= high)
                wrong = np.abs(said - truth)[near].mean()
                row += [(said == 1).sum(), inside.mean(), inside[near].mean(), wrong]
            rows.append(row)
        kinds = ("at_1", "holds", "holds_near", "error_near")
        names = ("above_1", "excess", *(f"{kind}_cut" for kind in kinds), *kinds)
        means = np.mean(rows, axis=0).round(3).tolist()
        yield {"items": size, **dict(zip(names, means, strict=True))}


def by_text(
    method: Any,
    items: list[str],
    shards: Sequence[list[str]],
    sizes: Sequence[int],
    drawings: int,
) -> Iterator[dict[str, Any]]:
    """Yield the same of another method; the shards are the same in every drawing."""
    generator = np.random.default_rng(0)

    def measured(some: list[str]) -> Measured:
        values, moves = measure_texts(method, some, shards)
        return values, dataclasses.replace(moves, shard=np.zeros_like(moves.shard))

    truth = measured(items)[0]
    for size in [size for size in sizes if 2 * size <= len(items)]:
        rows = []
        for _ in range(drawings):
            some = [items[n] for n in generator.permutation(len(items))[:size]]
            found = of_drawing(measured(some), size, len(items))
            rows.append([*holds(found, truth), holds_ranks(found, truth)])
        names = ("holds", "off", "reach", "holds_ranks")
        means = np.mean(rows, axis=0).round(3).tolist()
        yield {"method": method, "items": size, **dict(zip(names, means, strict=True))}


def main() -> None:
    """Count, draw, print one line a target and number of items."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corpora", nargs="+", required=True, help="a shard each")
    parser.add_argument("--targets", nargs="+", default=["proofnet"], help="or corpora")
    parser.add_argument("--items", nargs="+", type=int, default=[8, 20, 50, 100, 200])
    parser.add_argument("--characters", type=int, default=ITEM_CHARACTERS, help="of a document")
    parser.add_argument("--drawings", type=int, default=200)
    parser.add_argument("--vocab", type=int, default=0, help="of trained tokens; 0: built in")
    parser.add_argument("--parts", type=int, default=0, help="shards of a corpus; 0: one, not own")
    parser.add_argument("--methods", nargs="*", default=[], help="in place of words")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.parts and arguments.methods:
        parser.error("--parts is of words alone, without --methods")
    if arguments.vocab and {*arguments.methods} - {"ngram-lm"}:
        parser.error("--vocab is of words and of ngram-lm; other methods cut text in their own way")
    texts = {
        name: read_shard(arguments.data / "corpora" / f"{name}.jsonl.zst")
        for name in arguments.corpora
    }
    encode: Encode
    if arguments.vocab:
        joined = [text for each in texts.values() for text in each]
        encode, vocab = train_tokens(joined, arguments.vocab)
    else:
        probe = load_probe("builtin", device="cpu")
        encode, vocab = (lambda some: encode_texts(probe, some)), probe.info.vocab
    counted = {name: count_items(each, encode, vocab=vocab) for name, each in texts.items()}
    shards = {name: np.asarray(each.sum(axis=0)).ravel() for name, each in counted.items()}
    sizes, drawings = arguments.items, arguments.drawings
    for target in arguments.targets:
        read = read_items(target, arguments.data, arguments.characters)
        items = [item for item in read if item.strip()]
        others = [name for name in shards if name != target]
        lines = []
        if "ngram-lm" in arguments.methods:
            ids = [[np.asarray(i) for i in encode(texts[name])] for name in others]
            own = [np.asarray(i) for i in encode(items)]
            lines += by_pairs(own, ids, vocab, sizes, drawings)
        lines += [
            line
            for method in arguments.methods
            if method != "ngram-lm"
            for line in by_text(
                method,
                items,
                [[t[:SMALL_CHARACTERS] for t in texts[n][:SMALL_DOCUMENTS]] for n in others],
                sizes,
                drawings,
            )
        ]
        if not arguments.methods:
            counts = count_items(items, encode, vocab=vocab)
            if arguments.parts:
                parts = [part for each in counted.values() for part in cut(each, arguments.parts)]
                lines = list(by_parts(counts, parts, sizes, drawings))
            else:
                lines = list(by_words(counts, [shards[n] for n in others], sizes, drawings))
        for each in lines:
            line = {"target": target, "of": len(items), **each}
            print(json.dumps(line) if arguments.json else "  ".join(map(str, line.values())))


if __name__ == "__main__":
    main()
