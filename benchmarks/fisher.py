"""What an exact embedding costs, against a plain training step on the same tokens.

    python benchmarks/fisher.py --json

Each repeat times one forward and backward pass of the unmodified model (every weight gradient
formed, no optimiser) and one pass of the engine, in alternating order, on the same sequences
in the same batch. The ratio is the median over the repeats of one run; on a CPU it is of
processor seconds, which neighbours on a shared machine change less than wall time. With --data,
the published recipe and other estimators stand beside the exact one (evidence/estimators.py).
The last line is one JSON object.

On a machine with a GPU, all that it has to answer in one call:

    python benchmarks/fisher.py --device cuda --signs 0 32 --memory --gradients --json
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence.estimators import accuracy_table, reference_ceiling, speedup_vs_published
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from curate.settings import LabelSource
from curate.task2vec.fisher import fisher_blocks, fisher_rows
from curate.task2vec.quantity import FisherSettings
from curate.task2vec.sketch import draw_projection, project_rows

SHAPES = (
    ["builtin", "gpt2-2-layers"],
    ["gpt2-gpu-T256", "gpt2-gpu-T512", "gpt2-gpu-T1024", "llama-1b"],
)
"""What is measured without --shapes, on a CPU and on a GPU."""


def build_shape(name: str) -> tuple[Any, int, int]:
    """Return a model of random weights, sequences a batch, and tokens a sequence."""
    torch.manual_seed(0)
    if name == "builtin":  # the shape of the built-in probe
        config = LlamaConfig(
            vocab_size=4096, hidden_size=192, intermediate_size=512, num_hidden_layers=4,
            num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=1024,
            tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return LlamaForCausalLM(config), 16, 256
    if name == "gpt2-2-layers":  # GPT-2 small's widths and vocabulary, two of its twelve layers
        return GPT2LMHeadModel(GPT2Config(n_layer=2)), 8, 256
    if name == "gpt2":
        return GPT2LMHeadModel(GPT2Config()), 4, 256
    if name == "gpt2-T512":
        return GPT2LMHeadModel(GPT2Config()), 2, 512
    if name.startswith("gpt2-gpu-T"):  # 16,384 tokens a batch
        length = int(name.removeprefix("gpt2-gpu-T"))
        return GPT2LMHeadModel(GPT2Config()), 16_384 // length, length
    if name == "llama-1b":
        config = LlamaConfig(
            vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
            num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=2048,
            tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return LlamaForCausalLM(config), 8, 1024
    raise ValueError(f"no shape {name}")


def train_step(model: Any, ids: torch.Tensor, *, autocast: bool) -> None:
    """Run one plain forward and backward pass."""
    model.requires_grad_(True)
    with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=autocast):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    model.zero_grad(set_to_none=True)


def seconds(work: Callable[[], object], device: str) -> float:
    """Return how long `work` takes: wall seconds on a GPU, processor seconds on a CPU."""
    if device != "cuda":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(name: str, *, repeats: int, device: str, layers: str, signs: int = 0) -> dict[str, Any]:
    """Time both on one shape, alternating which goes first."""
    model, n, length = build_shape(name)
    model = model.to(device).eval()
    rng = np.random.default_rng(0)
    sequences = list(rng.integers(0, model.config.vocab_size, (n, length), dtype=np.int32))
    ids = torch.from_numpy(np.stack(sequences)).long().to(device)
    autocast = device == "cuda"
    settings = FisherSettings(layers=layers, signs=signs)

    def embed() -> None:
        fisher_rows(model, sequences, settings=settings, batch_tokens=n * length, autocast=autocast)

    def step() -> None:
        train_step(model, ids, autocast=autocast)

    embed(), step()
    pairs = []
    for repeat in range(repeats):
        if repeat % 2:
            ours, plain = seconds(embed, device), seconds(step, device)
        else:
            plain, ours = seconds(step, device), seconds(embed, device)
        pairs.append((ours, plain))
    ratios = sorted(ours / plain for ours, plain in pairs)
    return {
        "shape": name,
        "device": device,
        "layers": layers if not signs else f"{layers}, {signs} signs",
        "batch": n,
        "tokens": length,
        "cost_vs_train_step": round(float(np.median(ratios)), 3),
        "lowest": round(ratios[0], 3),
        "highest": round(ratios[-1], 3),
        "tokens_per_device_s": round(n * length / float(np.median([ours for ours, _ in pairs]))),
        "train_tokens_per_device_s": round(n * length / float(np.median([p for _, p in pairs]))),
    }


def peak_bytes(name: str, what: str, device: str) -> int:
    """Return the most memory that one pass takes in a process of its own, above its model."""
    found = subprocess.run(
        [sys.executable, __file__, "--peak", name, what, "--device", device],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(found.stdout.split()[-1])


def run_once(name: str, what: str, device: str) -> None:
    """Run one pass and print by how many bytes it raised this process' peak, or the GPU's."""
    model, n, length = build_shape(name)
    model.to(device).eval()
    rng = np.random.default_rng(0)
    sequences = list(rng.integers(0, model.config.vocab_size, (n, length), dtype=np.int32))
    ids, gpu = torch.from_numpy(np.stack(sequences)).long().to(device), device == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # from here on a new peak
        before = _memory("VmRSS")
    if what == "step":
        train_step(model, ids, autocast=gpu)
    else:
        fisher_rows(model, sequences, batch_tokens=n * length, autocast=gpu)
    print((torch.cuda.max_memory_allocated() if gpu else _memory("VmHWM")) - before)


def _memory(key: str) -> int:
    """Return a line of this process' status (Linux), bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def documents_share(name: str, *, repeats: int, width: int) -> float:
    """Return what vectors of `width` for every sequence add to the engine's time, as a share."""
    model, n, length = build_shape(name)
    model.eval()
    rng = np.random.default_rng(0)
    sequences = list(rng.integers(0, model.config.vocab_size, (n, length), dtype=np.int32))
    blocks = fisher_blocks(model, FisherSettings())
    projection = draw_projection(blocks, width=width, seed=0, device=torch.device("cpu"))
    shares = []
    for _ in range(repeats):
        parts: list[Any] = []
        whole = seconds(lambda: fisher_rows(model, sequences, receive=parts.append), "cpu")  # noqa: B023
        added = seconds(lambda: [project_rows(projection, p.rows) for p in parts], "cpu")  # noqa: B023
        shares.append(added / whole)
    return round(float(np.median(shares)), 4)


def gradients_price(name: str, *, repeats: int, device: str) -> dict[str, float]:
    """Return what mean gradients of 4,096 numbers multiply the engine's time by.

    Beside labels from the model they take a backward pass of their own; where the Fisher
    information is of the text's own labels, one serves both.
    """
    model, n, length = build_shape(name)
    model = model.to(device).eval()
    rng = np.random.default_rng(0)
    sequences = list(rng.integers(0, model.config.vocab_size, (n, length), dtype=np.int32))

    def run(labels: LabelSource, width: int) -> float:
        settings = FisherSettings(labels=labels, gradients=width)
        return seconds(
            lambda: fisher_rows(
                model, sequences, settings=settings, batch_tokens=n * length,
                autocast=device == "cuda",
            ),
            device,
        )  # fmt: skip

    kinds: tuple[LabelSource, ...] = ("model", "data")
    ratios: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repeats + 1):
        for kind in kinds:
            ratios[kind].append(run(kind, 4_096) / run(kind, 0))
    return {kind: round(float(np.median(each[1:])), 3) for kind, each in ratios.items()}


def main() -> None:
    """Measure the shapes asked for; print a line each, and the JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="*", help="those of the device by default")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--layers", nargs="+", default=["all", "last:2"])
    parser.add_argument("--signs", nargs="+", type=int, default=[0])
    parser.add_argument("--data", type=Path, help="folder whose corpora/*.jsonl.zst are domains")
    parser.add_argument("--domains", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=8_192, help="largest embedding of --data")
    parser.add_argument("--tuned-tokens", type=int, default=2_048)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", action="store_true", help="peak memory too")
    parser.add_argument("--documents", action="store_true", help="cost of document vectors too")
    parser.add_argument("--gradients", action="store_true", help="price of mean gradients too")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="only the JSON object")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.shapes is None:
        chosen.shapes = SHAPES[chosen.device == "cuda"]
    if chosen.peak:
        run_once(*chosen.peak, chosen.device)
        return
    results = []
    for name in chosen.shapes:
        for layers, signs in itertools.product(chosen.layers, chosen.signs):
            found = measure(
                name, repeats=chosen.repeats, device=chosen.device, layers=layers, signs=signs
            )
            results.append(found)
            if not chosen.json:
                print(
                    f"{name:14} {found['layers']:16} "
                    f"{found['cost_vs_train_step']:.2f} × a training step "
                    f"({found['lowest']:.2f} to {found['highest']:.2f}), "
                    f"{found['tokens_per_device_s']:,} tokens a device second"
                )
    more: dict[str, Any] = {}
    if chosen.memory:
        more["peak_bytes"] = {
            name: {what: peak_bytes(name, what, chosen.device) for what in ("engine", "step")}
            for name in chosen.shapes
        }
    if chosen.documents:
        more["documents_share"] = {
            name: documents_share(name, repeats=chosen.repeats, width=512) for name in chosen.shapes
        }
    if chosen.gradients:
        more["gradients_price"] = {
            name: gradients_price(name, repeats=chosen.repeats, device=chosen.device)
            for name in chosen.shapes
        }
    if chosen.data:
        lines = accuracy_table(
            chosen.data,
            most=chosen.domains,
            tokens=chosen.tokens,
            tuned_tokens=chosen.tuned_tokens,
            log=lambda text: print(text, file=sys.stderr, flush=True),
        )
        exact = [line for line in lines if line["estimator"] == "exact"]
        more |= {
            "accuracy": lines,
            **speedup_vs_published(lines),
            "reference": reference_ceiling(
                [line["tokens"] for line in exact],
                [line["spearman"] for line in exact],
                reference=2 * chosen.tokens,
            ),
        }
    costs = {f"{r['shape']}/{r['device']}/{r['layers']}": r["cost_vs_train_step"] for r in results}
    print(
        json.dumps(
            {
                "benchmark": "fisher",
                "cost_vs_train_step": costs,
                "repeats": chosen.repeats,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "results": results,
                **more,
            }
        )
    )


if __name__ == "__main__":
    main()
