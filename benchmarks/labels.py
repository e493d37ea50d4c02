"""How many labels another precision changes: the draw of the engine, and two others.

`python benchmarks/labels.py [--probe builtin] [--texts 40] [--json]`. Logits in float32 and as a
GPU computes them (bfloat16 forward pass and head); the same seeds. No way of drawing can change
fewer labels than half the sum of the differences of the probabilities (`least`).
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curate.task2vec.labels import draw_labels
from curate.task2vec.probe import Probe, encode_texts, load_probe


def logits_of(model: Any, ids: Tensor, *, rough: bool) -> Tensor:
    """Return (T, V) float32, of a forward pass in bfloat16 where `rough`."""
    head = model.get_output_embeddings()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=rough):
        return head(model.base_model(ids[None]).last_hidden_state[0]).float()


def weights_of(logits: Tensor) -> Tensor:
    """Return what the engine draws by: probabilities, unnormalised."""
    return torch.exp(logits - logits.amax(dim=-1, keepdim=True))


def by_inverse_cdf(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw as the distribution function says, tokens in the order of their numbers."""
    cdf = torch.softmax(logits, -1).cumsum(-1)
    point = torch.rand(len(logits), 4, generator=generator) * cdf[:, -1:]
    return torch.searchsorted(cdf, point, right=True).clamp_(max=logits.shape[1] - 1)


def by_gumbel(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the largest of logits and noise: a random number for every token."""
    noise = [torch.empty_like(logits).exponential_(generator=generator).log() for _ in range(4)]
    return torch.stack([(logits - each).argmax(-1) for each in noise], -1)


def measure(probe: Probe, texts: list[str]) -> dict[str, float]:
    """Return the mean share of labels that differ, by way of drawing, and the least possible."""
    found: dict[str, list[float]] = {}
    for number, tokens in enumerate(encode_texts(probe, texts)):
        ids = torch.from_numpy(tokens[:128].astype(np.int64))
        pair = [logits_of(probe.model, ids, rough=rough) for rough in (False, True)]
        seeds = np.random.default_rng(number).integers(1 << 32, size=(len(ids), 4))
        drawn = {
            "tree": [draw_labels(weights_of(one), torch.from_numpy(seeds)) for one in pair],
            "inverse_cdf": [by_inverse_cdf(x, torch.Generator().manual_seed(number)) for x in pair],
            "gumbel": [by_gumbel(x, torch.Generator().manual_seed(number)) for x in pair],
        }
        for name, (one, other) in drawn.items():
            found.setdefault(name, []).append(float((one != other).float().mean()))
        gap = torch.softmax(pair[0], -1) - torch.softmax(pair[1], -1)
        found.setdefault("least", []).append(float(gap.abs().sum(-1).mean()) / 2)
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def main() -> None:
    """Measure on documentation that every installation holds, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--probe", default="builtin")
    parser.add_argument("--texts", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    docs = (getattr(np, name).__doc__ or "" for name in sorted(dir(np)))
    texts = [text for text in docs if len(text) > 700][: arguments.texts]
    found = measure(load_probe(arguments.probe, device="cpu"), texts)
    for name, share in found.items():
        if not arguments.json:
            print(f"{name:12} {share:.2%} of the labels differ")
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
