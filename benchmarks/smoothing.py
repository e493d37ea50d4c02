"""How much should the corpus fill the gaps of a shard's vocabulary?

    python benchmarks/alignment_vs_loss.py --data DATA --out OUT --json
    python benchmarks/smoothing.py --data DATA --out OUT

Reads the training sets and measured losses of that experiment, orders the training sets by
lexical alignment with each weight of the corpus (Jelinek-Mercer) and with a prior of so many
tokens (Dirichlet), and prints how well each order agrees with the losses.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from evidence.agreement import top_one, within_spearman

from curate.corpus.targets import load_target
from curate.ranking.lexical import fill_gaps, shares_of
from curate.settings import TargetSettings
from curate.task2vec.probe import encode_texts, load_probe

WEIGHTS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
PRIORS = (100, 1_000, 10_000)


def count_texts(texts: list[str], probe: Any) -> Any:
    """Return the token counts (vocab,) of texts."""
    ids = np.concatenate(encode_texts(probe, texts))
    return np.bincount(ids, minlength=probe.info.vocab).astype(np.float64)


def read_counts(data: Path, out: Path, details: dict[str, Any]) -> tuple[Any, Any]:
    """Return token counts of the targets' select splits and of the training sets."""
    probe = load_probe("builtin", device="cpu")
    files = {path.stem: path for path in out.glob("arms/*/*.jsonl")}
    arms = [_texts(files[arm["name"]]) for arm in details["arms"]]
    targets = []
    for name in details["targets"]:
        slices = sorted(out.rglob(f"{name}-select.jsonl"))
        named = TargetSettings(name=name, data_dir=str(data))
        targets.append(_texts(slices[0]) if slices else list(load_target(named).select))
    return tuple(np.stack([count_texts(each, probe) for each in kind]) for kind in (targets, arms))


def _texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of `targets/`")
    parser.add_argument("--out", type=Path, required=True, help="of alignment_vs_loss.py")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args()
    details = json.loads((given.out / "result.json").read_text(encoding="utf-8"))["details"]
    loss = np.array(details["loss"])  # (arms, targets)
    targets, arms = read_counts(given.data / "targets", given.out, details)
    single = np.array([len(arm["shares"]) == 1 for arm in details["arms"]])
    corpus, tokens = shares_of(arms.sum(axis=0)), arms.sum(axis=1, keepdims=True)
    forms = {
        f"weight {weight:g}": [fill_gaps(row, row.sum(), corpus, weight) for row in arms]
        for weight in WEIGHTS
    } | {f"prior {prior:,}": (arms + prior * corpus) / (tokens + prior) for prior in PRIORS}
    rows = []
    if not given.json:
        print("smoothing: Spearman of all training sets, of single corpora; best corpus found")
    for name, models in forms.items():
        values = np.log(np.stack(list(models))) @ (targets / targets.sum(axis=1, keepdims=True)).T
        every, alone = within_spearman(values, loss), within_spearman(values[single], loss[single])
        best = top_one(values[single], loss[single])
        rows.append({"smoothing": name, "all": every, "single": alone, "best_found": best})
        if not given.json:
            print(f"{name}: {every:.3f}, {alone:.3f}; {best:.2f}")
    if given.json:
        print(json.dumps({"smoothing": rows}))


if __name__ == "__main__":
    main()
