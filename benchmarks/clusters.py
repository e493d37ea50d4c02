"""Does it pay to regroup a shuffled pool by topic before its shards are ranked?

A pool is drawn from corpora, shuffled into one file, indexed twice (as it lies, and by topic),
ranked towards one target, mixed to one budget, and verified with the same small models.
With --recover it only says how well the topics recover the corpora: adjusted mutual information,
as many topics as corpora and as many as the size suggests, three seeds each.
Run: python benchmarks/clusters.py --data data --target proofnet --json
(`--data` holds corpora/NAME.jsonl.zst and targets/, as CURATE_DATA_DIR does.)
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
from sklearn.metrics import adjusted_mutual_info_score

import curate
from curate.corpus.groups import read_group
from curate.corpus.reader import InputFile, LedgerBuilder, read_documents
from curate.corpus.regroup import open_corpus
from curate.settings import (
    CorpusSettings,
    EmbedSettings,
    MixSettings,
    Settings,
    TargetSettings,
    VerifySettings,
)


def write_pool(folder: Path, path: Path, *, chars: int) -> int:
    """Write about `chars` characters of each corpus, shuffled, as one file; return documents."""
    records = []
    for corpus in sorted(folder.glob("*.jsonl.zst")):
        file = InputFile(path=corpus, source=corpus.name.split(".")[0])
        documents = list(read_documents(file, text="text", ledger=LedgerBuilder()))
        random.Random(0).shuffle(documents)
        taken = 0
        for document in documents:
            if taken < chars:
                records.append({"text": document.text, "domain": document.source})
                taken += len(document.text)
    random.Random(0).shuffle(records)
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


def run(pool: Path, place: Path, group_by: str, wanted: argparse.Namespace) -> dict[str, Any]:
    """Index, rank, mix and verify; return what verification measured."""
    settings = Settings(
        corpus=CorpusSettings(
            inputs=(str(pool),), shard_tokens=wanted.shard_tokens, group_by=group_by
        ),
        embed=EmbedSettings(batches=4, batch_tokens=wanted.batch_tokens),
        target=TargetSettings(name=wanted.target, data_dir=str(wanted.data)),
        mix=MixSettings(budget=wanted.budget),
        verify=VerifySettings(size="tiny", seeds=wanted.seeds, calibration=2),
    )
    began = time.process_time()
    index = curate.index(settings=settings, workspace=place)
    ranking = curate.rank(settings=settings, workspace=place)
    curate.build_mix(settings=settings, workspace=place, out=place / "mix")
    found = curate.verify(settings=settings, workspace=place)
    arms = {arm.arm: arm for arm in found.arms}
    values = [line.alignment for line in ranking.shards]
    return {
        "group_by": group_by,
        "shards": len(index.shards),
        "best": [line.shard for line in ranking.shards[:4]],
        "alignment_spread": round(max(values) - min(values), 4),
        **{name: [round(value, 3) for value in (arms[name].loss, arms[name].low, arms[name].high)]
           for name in ("mix", "random", "worst") if name in arms},
        "drop": [round(value, 3) for value in (found.drop.value, found.drop.low, found.drop.high)],
        "cpu_s": round(time.process_time() - began),
    }  # fmt: skip


def main() -> None:
    """Measure, and print one line for each way of grouping and one for both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--target", default="proofnet")
    parser.add_argument("--chars", type=int, default=250_000, help="of each corpus")
    parser.add_argument("--shard-tokens", type=int, default=50_000)
    parser.add_argument("--batch-tokens", type=int, default=1_024)
    parser.add_argument("--budget", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recover", action="store_true", help="topics against corpora, no model")
    parser.add_argument("--json", action="store_true", help="JSON lines")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder) / "pool.jsonl"
        documents = write_pool(arguments.data / "corpora", pool, chars=arguments.chars)
        if arguments.recover:
            size = {"shard_tokens": arguments.shard_tokens, "documents": documents}
            for line in recover(pool, Path(folder) / "w", **size):
                print(json.dumps(line) if arguments.json else line, flush=True)
            return
        found = [run(pool, Path(folder) / kind, kind, arguments) for kind in ("file", "cluster")]
    both = {
        "documents": documents,
        "random_shards_mix": found[0]["mix"],
        "clusters_mix": found[1]["mix"],
        "clusters_gain": round(found[0]["mix"][0] - found[1]["mix"][0], 3),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    for line in [*found, both]:
        print(json.dumps(line) if arguments.json else line, flush=True)


if __name__ == "__main__":
    main()
