"""Does it pay to regroup a shuffled pool by topic before its shards are ranked?

Pools that share no document are dealt from corpora and shuffled, each into one file, indexed twice
(as it lies, and by topic), ranked towards each target, mixed to one budget, and tiny models are
trained on both mixes with the same seeds. What is compared is pairs: one pool, one target, one
method of ranking, both ways of grouping. Documents are cut to --piece characters: a random shard
of web size holds a thousand documents and is like any other, and a small one is so only if its
documents are short.
With --recover it only says how well the topics recover the corpora: adjusted mutual information,
as many topics as corpora and as many as the size suggests, three seeds each.
Run: python benchmarks/clusters.py --data data --json
(`--data` holds corpora/NAME.jsonl.zst and targets/, as CURATE_DATA_DIR does.)
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy import stats
from sklearn.metrics import adjusted_mutual_info_score

import curate
from curate.corpus.groups import read_group
from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.reader import read_documents
from curate.corpus.regroup import open_corpus
from curate.corpus.targets import load_target
from curate.mixing.opened import read_rows
from curate.settings import (
    CorpusSettings,
    EmbedSettings,
    Method,
    MixSettings,
    RankSettings,
    Settings,
    TargetSettings,
)
from curate.task2vec.probe import encode_texts, load_probe
from curate.verification.evaluate import item_nats
from curate.verification.train import TrainSettings, train_model

Pair = dict[str, Any]


def write_pool(folder: Path, path: Path, *, chars: int, piece: int, number: int) -> int:
    """Write about `chars` characters of each corpus, shuffled, as one file; return documents.

    Pools of other numbers hold other documents, as long as a corpus has them.

    Args:
        folder: of corpora.
        path: to write.
        chars: of each corpus, about.
        piece: characters that a document is cut to; 0 leaves it whole.
        number: of the pool.
    """
    records = []
    for corpus in sorted(folder.glob("*.jsonl.zst")):
        file = InputFile(path=corpus, source=corpus.name.split(".")[0])
        documents = list(read_documents(file, text="text", ledger=LedgerBuilder()))
        random.Random(0).shuffle(documents)
        dealt = 0
        for document in documents:
            if dealt // chars == number:
                size = piece or len(document.text)
                starts = range(0, len(document.text), size)
                records += [
                    {"text": document.text[start : start + size], "domain": document.source}
                    for start in starts
                    if not document.text[start : start + size].isspace()
                ]
            dealt += len(document.text)
    random.Random(number).shuffle(records)
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    return len(records)


def recover(pool: Path, place: Path, *, shard_tokens: int, documents: int) -> list[dict[str, Any]]:
    """Return the adjusted mutual information of topics and corpora."""
    domains = {
        record["text"]: record["domain"]
        for record in map(msgspec.json.decode, pool.read_bytes().splitlines())
    }
    found = []
    for clusters, seed in product((len(set(domains.values())), 0), (0, 1, 2)):
        wanted = CorpusSettings(
            inputs=(str(pool),),
            shard_tokens=shard_tokens,
            group_by="cluster",
            clusters=clusters,
            seed=seed,
        )
        began = time.process_time()
        corpus = open_corpus(wanted, workspace=place)
        pairs = [
            (domains[document.text], file.source)
            for file in corpus.files
            for document in read_group(file.path, source=file.source)
        ]
        found.append(
            {
                "documents": documents,
                "clusters": len(corpus.groups),
                "chosen": not clusters,
                "seed": seed,
                "ami": round(float(adjusted_mutual_info_score(*zip(*pairs, strict=True))), 3),
                "cpu_s": round(time.process_time() - began, 1),
                "names": [group.name for group in corpus.groups][:20],
            }
        )
    return found


def run(pool: Path, place: Path, group_by: str, wanted: argparse.Namespace) -> Iterator[Pair]:
    """Index, and for each target and method rank, mix and train; yield what models reached."""
    index = curate.index(settings=_settings(pool, group_by, wanted), workspace=place)
    tokenizer = load_probe("builtin", device="cpu")
    for target, method in product(wanted.targets, wanted.methods):
        settings = _settings(pool, group_by, wanted, target, method)
        ranking = curate.rank(settings=settings, workspace=place)
        out = place / f"mix-{target}-{method}"
        mix = curate.build_mix(settings=settings, workspace=place, out=out)
        documents = _tokens_of(out, tokenizer)
        items = encode_texts(tokenizer, list(load_target(settings.target).eval[: wanted.items]))
        values = [line.alignment for line in ranking.shards]
        yield {
            "target": target,
            "method": method,
            "group_by": group_by,
            "shards": len(index.shards),
            "best": [line.shard for line in ranking.shards[:3]],
            "alignment_spread": round(max(values) - min(values), 4),
            "mix_tokens": mix.tokens,
            "losses": [
                round(train(documents, items, tokenizer, seed, wanted.passes), 4)
                for seed in range(wanted.seeds)
            ],
        }


def train(
    documents: list[Any], items: list[Any], tokenizer: Any, seed: int, passes: float
) -> float:
    """Train a tiny model on documents; return its loss on the items, nats/token."""
    settings = TrainSettings(
        size="tiny",
        vocab=tokenizer.info.vocab,
        eos=int(tokenizer.tokenizer.eos_token_id),
        tokens=int(passes * sum(map(len, documents))),
        block_tokens=256,
        batch_tokens=1_024,
        learning_rate=1e-2,
        seed=seed,
    )
    model, _ = train_model(documents, settings)
    nats = item_nats(model, items, eos=settings.eos, block_tokens=settings.block_tokens)
    return float(nats.sum() / sum(map(len, items)))


def compare(found: Sequence[Pair]) -> Iterator[dict[str, Any]]:
    """Yield the mean gain over pools with its 90 % t interval, nats/token.

    For each method and target, and for each method over its targets. Gains are averaged over
    seeds, and over targets for `all`: what is drawn anew is the pool.
    """
    gains: dict[tuple[str, str], list[float]] = {}
    for one, other in zip(found[::2], found[1::2], strict=True):
        gain = float(np.mean(one["losses"]) - np.mean(other["losses"]))
        gains.setdefault((one["method"], one["target"]), []).append(gain)
    for method in dict.fromkeys(method for method, _ in gains):
        of_method = [values for (name, _), values in gains.items() if name == method]
        gains[method, "all"] = np.mean(of_method, axis=0).tolist()
    for (method, target), values in sorted(gains.items()):
        mean, n = float(np.mean(values)), len(values)
        interval = None  # of one pool there is none
        if n > 1:
            half = float(stats.t.ppf(0.95, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
            interval = [round(mean - half, 3), round(mean + half, 3)]
        yield {
            "method": method,
            "target": target,
            "pools": n,
            "clusters_gain": round(mean, 3),
            "interval_90": interval,
            "gains": [round(value, 3) for value in values],
        }


def _settings(
    pool: Path,
    group_by: str,
    wanted: argparse.Namespace,
    target: str = "",
    method: Method = "task2vec",
) -> Settings:
    return Settings(
        corpus=CorpusSettings(
            inputs=(str(pool),), shard_tokens=wanted.shard_tokens, group_by=group_by
        ),
        embed=EmbedSettings(batches=4, batch_tokens=wanted.batch_tokens),
        target=TargetSettings(name=target, data_dir=str(wanted.data)),
        rank=RankSettings(method=method),
        mix=MixSettings(budget=wanted.budget),
    )


def _tokens_of(mix: Path, tokenizer: Any) -> list[Any]:
    files = sorted(f"data/{path.name}" for path in mix.glob("data/part-*.parquet"))
    return encode_texts(tokenizer, [text for text, _ in read_rows(mix, files)])


def main() -> None:
    """Measure, and print one line for each way of grouping and one for both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--targets", nargs="+", default=["proofnet", "math", "gsm8k"])
    parser.add_argument("--methods", nargs="+", default=["lexical"])
    parser.add_argument("--piece", type=int, default=1_500, help="characters a document; 0: all")
    parser.add_argument("--chars", type=int, default=100_000, help="of each corpus")
    parser.add_argument("--shard-tokens", type=int, default=17_000)
    parser.add_argument("--batch-tokens", type=int, default=128)
    parser.add_argument("--budget", type=int, default=50_000)
    parser.add_argument("--passes", type=float, default=1.0, help="over the mix, in training")
    parser.add_argument("--pools", type=int, default=3, help="that share no document")
    parser.add_argument("--seeds", type=int, default=1, help="models a mix")
    parser.add_argument("--items", type=int, default=200, help="of the eval split")
    parser.add_argument("--recover", action="store_true", help="topics against corpora, no model")
    parser.add_argument("--json", action="store_true", help="JSON lines")
    arguments = parser.parse_args()
    began, found = time.process_time(), list[Pair]()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1 if arguments.recover else arguments.pools):
            place = Path(folder) / str(number)
            pool = place / "pool.jsonl"
            place.mkdir()
            documents = write_pool(
                arguments.data / "corpora",
                pool,
                chars=arguments.chars,
                piece=arguments.piece,
                number=number,
            )
            if arguments.recover:
                size = {"shard_tokens": arguments.shard_tokens, "documents": documents}
                for line in recover(pool, place / "w", **size):
                    show(line, as_json=arguments.json)
                return
            both = [run(pool, place / kind, kind, arguments) for kind in ("file", "cluster")]
            for pair in zip(*both, strict=True):
                for line in pair:
                    show({"pool": number, **line}, as_json=arguments.json)
                found += pair
    for line in compare(found):
        show(line, as_json=arguments.json)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    show({"cpu_s": round(time.process_time() - began), "rss_mb": rss}, as_json=arguments.json)


def show(line: dict[str, Any], *, as_json: bool) -> None:
    """Print one result."""
    print(json.dumps(line) if as_json else line, flush=True)


if __name__ == "__main__":
    main()
