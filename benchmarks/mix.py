"""Throughput of build-mix beside decompress + compress of the same bytes, in one process.

The corpus is made of words drawn by a power law (or given with --corpus), the index and the
ranking are made without a probe, so that only the mix is measured: read, look at, choose,
shuffle, write. The limit is what no mix in one thread can be faster than: unpack the input, pack
the text. The mix unpacks in a thread beside its own, in one process: `wall_vs_recompress` counts
that as a gain, `cpu_vs_recompress` adds the seconds of both.

Run: python benchmarks/mix.py --tokens 20M --json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import sparse

from curate.corpus.inputs import find_inputs
from curate.corpus.prints import keep_prints
from curate.corpus.shards import read_shards
from curate.engine.run import working_on
from curate.mixing.dedup import Seen as Copies
from curate.mixing.descent import descend, within
from curate.mixing.documents import cutter
from curate.mixing.draw import draw_rows
from curate.mixing.filters import Wish
from curate.mixing.foresight import LOOKED, PULL, path_to, representatives
from curate.mixing.formats import Choice
from curate.mixing.likelihood import Likelihood
from curate.mixing.look import Look, write_target
from curate.mixing.matching import match_embeddings
from curate.mixing.reading import read_some
from curate.mixing.weights import Spread
from curate.mixing.write import Layout, write_files
from curate.ranking.ngram_lm import ItemPairs, Seen
from curate.records import Embedding, FileLedger, Floats, ProbeInfo, RowBlock, Shard, Target
from curate.report.numbers import parse_tokens
from curate.settings import CorpusSettings, RunSettings
from curate.task2vec.tokenizer import load_encode
from curate.task2vec.vectors import write_embedding

Found = dict[str, object]

LEVEL = 3  # of zstd, as the mix is written
ONE = (RowBlock("", 0, "", 0, 1),)
PROBE = ProbeInfo(name="builtin", revision="", tokenizer_digest="", n_parameters=0, vocab=0)


def probe_of_index() -> ProbeInfo:
    """Return the probe as an index names it: with the digest by which its tokenizer is known.

    Without it `load_encode` asks `transformers`, which no mix does.
    """
    return dataclasses.replace(PROBE, tokenizer_digest=load_encode("builtin", PROBE)[1])


def make_corpus(folder: Path, *, tokens: int, files: int = 8) -> None:
    """Write zstd JSON lines of about `tokens` tokens: words by a power law, documents of 2 KB."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(rng.choice(letters[:18], rng.integers(2, 10))) for _ in range(30_000)]
    weight = 1 / np.arange(1, len(words) + 1)
    for number in range(files):
        lines: list[str] = []
        left = tokens // files
        while left > 0:
            drawn = rng.choice(len(words), 350, p=weight / weight.sum())
            text = " ".join(words[n] for n in drawn)
            lines.append(json.dumps({"id": f"{number}-{len(lines)}", "text": f"{text}."}))
            left -= 600
        data = pa.Codec("zstd", LEVEL).compress(("\n".join(lines) + "\n").encode(), asbytes=True)
        (folder / f"source{number}.jsonl.zst").write_bytes(data)


def recompress(corpus: Path) -> int:
    """Unpack every file and pack its bytes again: the limit; return the bytes."""
    total = 0
    for path in sorted(corpus.glob("*.zst")):
        with pa.OSFile(str(path)) as raw, pa.CompressedInputStream(raw, "zstd") as stream:
            data = stream.read()
        pa.Codec("zstd", LEVEL).compress(data)
        total += len(data)
    return total


def index_shards(corpus: Path, folder: Path) -> dict[str, tuple[Shard, Path]]:
    """Cut the corpus into shards of 1M tokens and keep their counts, as `curate index` does."""
    encode, _ = load_encode("builtin", PROBE)
    ledgers: list[FileLedger] = []
    found = {}
    nothing = Embedding(np.ones((1, 1)), (1,), np.zeros(1, np.int64), np.zeros((1, 1)), 0.0)
    settings = CorpusSettings(inputs=(str(corpus),))
    inputs = find_inputs(settings.inputs, workspace=folder)
    for part in read_shards(inputs, settings, encode=encode, ledgers=ledgers):
        path = folder / f"{part.shard.name}.safetensors"
        counts = [len(ids) for ids in part.tokens]
        write_embedding(path, nothing, blocks=ONE, text_digest="", lengths=counts)
        keep_prints(folder / "prints", part, setting="text")
        found[part.shard.name] = (part.shard, path)
    return found


def build(
    shards: dict[str, tuple[Shard, Path]], folder: Path, facts: Path, *, probe: ProbeInfo,
    budget: int, look: Look, seen: Copies | None, workers: int,
) -> None:  # fmt: skip
    """Draw and write one mix, as the stage does after its weights are chosen."""
    encode, _ = load_encode("builtin", probe)
    wish = Wish(
        budget=budget,
        names=tuple(shards),
        spread=Spread(order=np.arange(len(shards))),
        seen=seen,
    )
    with working_on(RunSettings(), folder=facts):  # worker processes are started once
        drawn = draw_rows(
            {name: shard for name, (shard, _) in shards.items()}, wish, look,
            embedding=lambda shard: shards[shard.name][1], read=partial(read_some, text="text"),
            cut=cutter(encode), folder=facts, workers=workers,
        )  # fmt: skip
        choices = [
            Choice(shard.name, shard.source, shard.ranges, 0.5, "x") for shard in drawn.shards
        ]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_files(
            drawn, choices, text="text", folder=folder, layout=Layout(), seed=0, workers=workers
        )


def processor() -> float:
    """Return the processor seconds of this process and of those that it has waited for."""
    mine, theirs = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


def clock(function: Callable[[], object]) -> tuple[float, float]:
    """Return wall-clock and processor seconds."""
    began, spent = time.perf_counter(), processor()
    function()
    return time.perf_counter() - began, processor() - spent


def measure(corpus: Path | None, *, tokens: int, workers: int, repeats: int) -> dict[str, object]:
    """Return seconds, tokens per second and ratios."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if corpus is None:
            corpus = place / "corpus"
            corpus.mkdir()
            make_corpus(corpus, tokens=tokens)
        (place / "counts").mkdir()
        shards = index_shards(corpus, place / "counts")
        held = sum(shard.n_tokens for shard, _ in shards.values())
        items = tuple(f"an item number {n} of the target that nothing has" * 2 for n in range(300))
        target = Target("t", items[:150], items[150:], "", "", "")
        facts, probe = place / "facts", probe_of_index()
        kept = str(place / "counts" / "prints")
        full = Look(text="text", seed=0, target=write_target(facts, target), kept=kept)
        cases = {
            "first": (full, Copies(), workers),  # with what the index keeps of the documents
            "again": (full, Copies(), workers),  # and what the first mix found out
            "two workers": (full, Copies(), 2),  # that, in two processes
            "unfiltered": (dataclasses.replace(full, target=""), None, workers),
            "old index": (dataclasses.replace(full, kept=""), Copies(), workers),  # keeps nothing
        }
        seconds: dict[str, list[tuple[float, float]]] = {"limit": [], **{c: [] for c in cases}}
        for _ in range(repeats):
            shutil.rmtree(facts)
            write_target(facts, target)
            seconds["limit"].append(clock(partial(recompress, corpus)))
            for case, (look, seen, processes) in cases.items():
                make = partial(
                    build, shards, place / "mix", facts, probe=probe, budget=held * 9 // 10,
                    look=look, seen=seen, workers=processes,
                )  # fmt: skip
                seconds[case].append(clock(make))
        wall, cpu = (
            {case: min(pair[which] for pair in pairs) for case, pairs in seconds.items()}
            for which in (0, 1)
        )
        return {
            "tokens": held * 9 // 10,
            "shards": len(shards),
            "workers": workers,
            "mb": round(recompress(corpus) / 1e6),
            "wall_s": {case: round(value, 2) for case, value in wall.items()},
            "cpu_s": {case: round(value, 2) for case, value in cpu.items()},
            "tokens_per_cpu_s": round(held * 0.9 / cpu["first"]),
            "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "cpu_vs_recompress": {case: round(0.9 * cpu["limit"] / cpu[case], 3) for case in cases},
            "wall_vs_recompress": {
                case: round(0.9 * wall["limit"] / wall[case], 3) for case in cases
            },
            "mix_vs_recompress": round(0.9 * wall["limit"] / wall["first"], 3),
        }


def measure_match(shards: int, dim: int) -> Found:
    """Return how long the weights of `match` take for so many shards."""
    rng = np.random.default_rng(0)
    topics = rng.gamma(2.0, size=(40, dim)).astype(np.float32)
    vectors = rng.dirichlet(np.full(40, 0.1), shards).astype(np.float32) @ topics
    vectors *= rng.gamma(50.0, 1 / 50, size=vectors.shape).astype(np.float32)
    target = vectors[: shards // 100].mean(0) * rng.gamma(50.0, 1 / 50, size=(4, dim))
    natural = np.full(shards, 1 / shards)
    began, spent = time.perf_counter(), time.process_time()
    shares = match_embeddings(vectors, target, natural=natural, caps=np.full(shards, 0.01))
    found = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - spent}

    def cosine(mixture: np.ndarray) -> float:
        relative, wanted = mixture / vectors.mean(0), target.mean(0) / vectors.mean(0)
        return float(relative @ wanted / np.linalg.norm(relative) / np.linalg.norm(wanted))

    return {
        "match_shards": shards,
        "dim": dim,
        **{name: round(seconds, 1) for name, seconds in found.items()},
        "cosine_natural": round(cosine(natural @ vectors), 4),
        "cosine_match": round(cosine(shares @ vectors), 4),
        "effective_shards": round(float(1 / (shares**2).sum())),
        **measure_match_by_pairs(shards),
    }


def measure_match_by_pairs(shards: int, *, kinds: int = 8_000, held: int = 100_000) -> Found:
    """Return the same by token pairs: reading from files left out, nearly all pairs in each.

    Args:
        shards: ranked; of more than `LOOKED` some stand for their neighbours.
        kinds: pairs of the target.
        held: tokens of each shard.
    """
    rng, words = np.random.default_rng(0), kinds // 4
    target = ItemPairs(
        sparse.csr_array(np.ones((1, kinds))), np.sort(rng.integers(words, size=kinds)),
        rng.integers(words, size=kinds), words,
    )  # fmt: skip
    topics = rng.gamma(0.3, size=(40, kinds))

    def said() -> Iterator[tuple[Seen, float]]:
        for _ in looked:
            pairs = rng.poisson(3 * rng.dirichlet(np.full(40, 0.1)) @ topics).astype(np.float64)
            before, after = (
                2 * np.bincount(ids, pairs, words)[ids] for ids in (target.before, target.after)
            )
            yield Seen(pairs, before, after, float(held)), 0.5

    looked, group = representatives(shards, most=LOOKED)
    each = list(said())
    began, spent = time.perf_counter(), time.process_time()
    likelihood = Likelihood(
        target, each, stands_for=np.bincount(group).astype(np.float64),
        corpus=np.full(kinds, 1 / words),
    )  # fmt: skip
    budget, natural = 0.05 * shards * held, np.bincount(group) / shards

    def cost(shares: Floats) -> tuple[float, Floats]:
        value, slopes = likelihood.cost(budget * shares, topics[0] / topics[0].sum())
        return value, budget * slopes

    shares = descend(cost, natural, within(natural / 0.05), path_to(PULL))[-1]
    return {
        "by_pairs_wall_s": round(time.perf_counter() - began, 1),
        "by_pairs_cpu_s": round(time.process_time() - spent, 1),
        "by_pairs_natural": round(cost(natural)[0], 3),
        "by_pairs_match": round(cost(shares)[0], 3),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="10M", help="size of the corpus that is made")
    parser.add_argument("--corpus", type=Path, help="a folder of .jsonl.zst instead")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--match", type=int, help="time the weights of so many shards instead")
    parser.add_argument("--dim", type=int, default=4_096, help="coordinates, with --match")
    arguments = parser.parse_args()
    if arguments.match:
        found = measure_match(arguments.match, arguments.dim)
    else:
        found = measure(
            arguments.corpus,
            tokens=parse_tokens(arguments.tokens),
            workers=arguments.workers,
            repeats=arguments.repeats,
        )
    if arguments.json:
        print(json.dumps(found))
    else:
        print("  ".join(f"{name} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
