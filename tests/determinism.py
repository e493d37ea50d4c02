"""One job from inputs to report, in this process: what it published, by digest, as JSON.

`python -m tests.determinism FOLDER`. Run twice, the same digests are printed, whatever the
seed of Python's hashes is; see tests/test_determinism.py.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import torch

from curate import stages
from curate.settings import (
    CorpusSettings,
    EmbedSettings,
    MixSettings,
    Settings,
    TargetSettings,
    VerifySettings,
)
from curate.store.fingerprint import digest_bytes
from tests import hostile
from tests.conftest import write_jsonl

CLOCK = re.compile(
    rb'"(?:seconds|made_at|forecast_at|trained_at|started_at)": (?:"[^"]*"|[-+.\deE]+)'
    rb"|\d{4}-\d\d-\d\d(?:T[\d:.]+\+00:00| \d\d:\d\d:\d\d\.\d+)"
    rb"|[\d.]+ (?:s|min) in all|whose times add up to [^.]*"
)
"""What a clock decides: left out of the comparison, and all that is."""

OVER_CLOCK = re.compile(
    rb'"(?:digest|forecast|forecast_digest|blake2b|bytes)": ?(?:"[0-9a-f]{64}"|\d+)'
)
"""Of `verify/` alone: digests and sizes of records that hold a time."""


def write_inputs(folder: Path) -> None:
    """Write a corpus of three sources and a target."""
    for kind in hostile.WORDS:
        texts = hostile.texts(kind, 60, payloads=("", "of the"))
        write_jsonl(folder / "in" / f"{kind}.jsonl", texts)
    for split, seed in (("select", 1), ("eval", 2)):
        texts = hostile.texts("math", 30, payloads=("",), seed=seed)
        write_jsonl(folder / f"{split}.jsonl", texts)


def run_job(folder: Path, *, verify: bool = True) -> None:
    """Run every stage in `folder`, with paths that are relative to it."""
    settings = Settings(
        corpus=CorpusSettings(inputs=("in",), shard_tokens=1500),
        embed=EmbedSettings(batches=2, batch_tokens=256, block_tokens=64, documents=32),
        target=TargetSettings(name="t=select.jsonl,eval.jsonl"),
        mix=MixSettings(budget=2_000, selection="match", holdout=0.1),
        verify=VerifySettings(size="tiny", tokens=1_024, seeds=1, calibration=2),
    )
    here = Path.cwd()
    os.chdir(folder)
    try:
        stages.rank(settings=settings)
        stages.build_mix(settings=settings, workers=1)
        if verify:
            stages.verify(settings=settings)
        stages.write_report(out="report.html")
    finally:
        os.chdir(here)


def published(folder: Path) -> dict[str, str]:
    """Return the digest of every published file, without what a clock decides."""
    found = {}
    for name, data in hostile.tree(folder).items():
        if name.endswith("history.jsonl"):  # a log of times and memory
            continue
        plain = CLOCK.sub(b"", data)
        plain = re.sub(rb'<section id="cost">.*?</section>', b"", plain, flags=re.DOTALL)
        if "/verify/" in name:
            plain = OVER_CLOCK.sub(b"", plain)
        found[name] = digest_bytes(re.sub(rb"<dt>forecast.*?</dd>", b"", plain))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    write_inputs(place)
    run_job(place)
    print(json.dumps(published(place)))  # noqa: T201
