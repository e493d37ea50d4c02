"""Training small models: share of the machine's rate that is used, and twelve runs against one.

The rate that a machine could have is measured beside it, by a plain matrix product of the same
number type. Documents are drawn at random: the time does not depend on what they say. The twelve
runs are trained as `curate verify` trains them, or with so many side by side in one process.
On a GPU: python benchmarks/train.py --size 124M --tokens 20M --json      (its share of the rate)
          python benchmarks/train.py --size 3M --tokens 1M --json          (twelve against one)
Anywhere: python benchmarks/train.py --size 3M --tokens 50k --side-by-side 1 12 --json
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curate.engine.local import count_cores
from curate.report.numbers import parse_tokens
from curate.verification.runs import plan_run, publish_documents
from curate.verification.schedule import train_runs
from curate.verification.small_model import SHAPES
from curate.verification.train import TrainSettings, train_models

VOCAB, EOS = 4_097, 0


def documents(tokens: int) -> list[np.ndarray]:
    """Return random token ids of documents of 300 tokens."""
    ids = np.random.default_rng(0).integers(1, VOCAB, size=(max(1, tokens // 300), 300))
    return [row.astype(np.int32) for row in ids]


def matmul_rate(device: str) -> float:
    """Return floating-point operations a second of a plain matrix product, the best of 5."""
    n, kind = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    a = torch.randn(n, n, device=device, dtype=kind)
    best = 0.0
    for _ in range(5):
        started = seconds_of(device)
        for _ in range(8):
            a @ a
        best = max(best, 8 * 2 * n**3 / (seconds_of(device) - started))
    return best


def seconds_of(device: str) -> float:
    """Return a clock: a GPU's after all it was given, a CPU's of this process alone."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def processor_seconds() -> float:
    """Return the processor time of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def parameters(size: str) -> int:
    """Return the parameters that a token passes: the blocks and the head."""
    blocks, width, _ = SHAPES[size]
    return 12 * width**2 * blocks + VOCAB * width


def settings(size: str, tokens: int, seed: int = 0) -> TrainSettings:
    """Return the settings of a run."""
    batch = 1_024 if SHAPES[size][1] < 512 else 65_536
    return TrainSettings(size, VOCAB, EOS, tokens, 256, batch, 1e-2, seed)


def utilisation(size: str, tokens: int, device: str, *, compiled: bool) -> float:
    """Return 6·N·tokens a second over the rate of a matrix product, on one CPU thread or GPU.

    The steps before the first tenth of the run are not timed: caches and compilers warm up.
    """
    torch.set_num_threads(1)
    texts, rate = documents(tokens), matmul_rate(device)
    at: list[tuple[int, float]] = []
    train_models(
        [texts],
        [settings(size, tokens)],
        device=device,
        compiled=compiled,
        on_step=lambda now: at.append((now.tokens, seconds_of(device))),
    )
    first = len(at) // 10
    trained, took = (end - start for end, start in zip(at[-1], at[first], strict=True))
    return 6 * parameters(size) * trained / took / rate


def twelve_against_one(
    size: str, tokens: int, device: str, *, side_by_side: int
) -> dict[str, float]:
    """Return the seconds of one run, of twelve, and their ratio.

    With `side_by_side` 0 as `curate verify` trains them, else so many as one, in one process.

    Processor seconds are those of all processes: on a machine that does other work as well they
    tell what an idle one would need.
    """
    seconds = {}
    for n in (1, 12):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            publish_documents(folder / "d.safetensors", documents(tokens))
            publish_documents(folder / "i.safetensors", documents(600))
            publish_documents(folder / "c.safetensors", [])
            items = [
                plan_run(
                    folder / "runs",
                    arm="mix",
                    settings=settings(size, tokens, seed),
                    documents=folder / "d.safetensors",
                    items=folder / "i.safetensors",
                    control=folder / "c.safetensors",
                    n_bytes=1,
                    device=device,
                )
                for seed in range(n)
            ]
            started, processor = time.perf_counter(), processor_seconds()
            train_runs(items, workers=min(1, side_by_side), side_by_side=side_by_side)
            seconds[f"seconds_{n}"] = time.perf_counter() - started
            seconds[f"processor_seconds_{n}"] = processor_seconds() - processor
    return {**seconds, "stacked_12_vs_1": seconds["seconds_12"] / seconds["seconds_1"]}


def main() -> None:
    """Measure, and print one line or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SHAPES, default="3M")
    parser.add_argument("--tokens", type=parse_tokens, default=30_000)
    parser.add_argument("--device", choices=["cpu", "cuda"], default=None)
    parser.add_argument("--side-by-side", type=int, nargs="*", default=[0])
    parser.add_argument("--compile", action="store_true", help="fuse the model's operations")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    found = {
        "size": given.size,
        "tokens": given.tokens,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cores": count_cores(),
        "model_flops_utilisation": utilisation(
            given.size, given.tokens, device, compiled=given.compile
        ),
    }
    for side_by_side in given.side_by_side:
        ratio = twelve_against_one(given.size, given.tokens, device, side_by_side=side_by_side)
        show({**found, "side_by_side": side_by_side, **ratio}, as_json=given.json)


def show(found: dict[str, Any], *, as_json: bool) -> None:
    """Print a result."""
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:>24}  {value:.3g}" if isinstance(value, float) else f"{name:>24}  {value}")


if __name__ == "__main__":
    main()
