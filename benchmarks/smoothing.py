"""How much should the corpus fill the gaps of a shard's vocabulary, and do longer n-grams help?

    python benchmarks/alignment_vs_loss.py --data DATA --out OUT --json
    python benchmarks/smoothing.py --data DATA --out OUT

Reads the training sets and measured losses of that experiment, orders the training sets by
lexical alignment with each weight of the corpus (Jelinek-Mercer) and with a prior of so many
tokens (Dirichlet), and prints how well each order agrees with the losses. With --pairs also by
the token pairs of all text, with which a shard's words have several strengths (`ngram_lm`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from evidence.agreement import r_squared, top_one, within_spearman
from evidence.data import Files, find_file, read_result

from curate.corpus.pairs import count_pairs
from curate.corpus.targets import load_target
from curate.corpus.tokens import count_unigrams
from curate.errors import CurateError
from curate.ranking.lexical import fill_gaps, shares_of
from curate.ranking.methods import READ_ITEMS
from curate.ranking.ngram_lm import count_item_pairs, look_up, ngram_lm
from curate.ranking.samples import draw_items
from curate.settings import TargetSettings
from curate.task2vec.probe import encode_texts, load_probe

WEIGHTS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
PRIORS = (100, 1_000, 10_000)
STRENGTHS = (1, 10, 30, 100, 300, 1_000, 3_000, np.inf)


def count_texts(texts: list[str], probe: Any) -> Any:
    """Return the token counts (vocab,) of texts."""
    ids = np.concatenate(encode_texts(probe, texts))
    return np.bincount(ids, minlength=probe.info.vocab).astype(np.float64)


def read_texts(
    data: Path, out: Path, details: dict[str, Any], files: Files
) -> tuple[list[list[str]], list[list[str]]]:
    """Return the texts of the targets' select splits and of the training sets.

    Raises:
        CurateError: it cannot be told which they are.
    """
    arms, targets = [], []
    for name in (arm["name"] for arm in details["arms"]):
        documents = find_file(out, files, "arms", name)
        if documents is None:
            raise CurateError(f"{out}: the documents of {name} are not there")
        arms.append(_texts(documents))
    for name in details["targets"]:
        held_out = find_file(out, files, "slices", f"{name}-select")
        named = TargetSettings(name=name, data_dir=str(data))
        targets.append(_texts(held_out) if held_out else list(load_target(named).select))
    return targets, arms


def measure_strengths(
    targets: list[list[str]], arms: list[list[str]], probe: Any
) -> dict[str, Any]:
    """Return (arms, targets) of the pair models of all text by name: `ngram_lm`, its strengths."""
    vocab = probe.info.vocab
    items = [
        count_item_pairs(encode_texts(probe, draw_items(each, READ_ITEMS, seed=0)), vocab=vocab)
        for each in targets
    ]
    found: dict[str, Any] = {
        f"pairs, strength {m:g}": np.zeros((len(arms), len(items))) for m in STRENGTHS
    }
    documents = [encode_texts(probe, each) for each in arms]
    background = sum(count_unigrams(each, vocab) for each in documents)
    for number, ids in enumerate(documents):
        pairs, words = count_pairs(ids, vocab), count_unigrams(ids, vocab)
        for place, target in enumerate(items):
            seen = [look_up(target, pairs, words)]
            for m, table in zip(STRENGTHS, found.values(), strict=True):
                values, _ = ngram_lm(target, seen, background=background, strength=m)
                table[number, place] = values[0]
    return found


def measure_weights(targets: Any, arms: Any) -> dict[str, Any]:
    """Return (arms, targets) of lexical alignment by weight and by prior, from token counts."""
    corpus, tokens = shares_of(arms.sum(axis=0)), arms.sum(axis=1, keepdims=True)
    forms = {
        f"weight {weight:g}": np.stack([fill_gaps(r, r.sum(), corpus, weight) for r in arms])
        for weight in WEIGHTS
    } | {f"prior {prior:,}": (arms + prior * corpus) / (tokens + prior) for prior in PRIORS}
    shares = (targets / targets.sum(axis=1, keepdims=True)).T
    return {name: np.log(model) @ shares for name, model in forms.items()}


def _texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of `targets/`")
    parser.add_argument("--out", type=Path, required=True, help="of alignment_vs_loss.py")
    parser.add_argument("--pairs", action="store_true", help="also token pairs of all text")
    parser.add_argument("--save", type=Path, help="file of values and losses, for pooled.py")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args()
    details, files = read_result(given.out)
    loss = np.array(details["loss"])  # (arms, targets)
    targets, arms = read_texts(given.data / "targets", given.out, details, files)
    single = np.array([len(arm["shares"]) == 1 for arm in details["arms"]])
    probe = load_probe("builtin", device="cpu")
    values = measure_weights(
        *(np.stack([count_texts(each, probe) for each in kind]) for kind in (targets, arms))
    )
    if given.pairs:
        values |= measure_strengths(targets, arms, probe)
    if given.save:
        tables = {name: table.tolist() for name, table in values.items()}
        kept = {name: details[name] for name in ("arms", "targets", "loss")} | {"values": tables}
        given.save.write_text(json.dumps({"details": kept}), encoding="utf-8")
    rows = []
    if not given.json:
        print("form: Spearman and r2 of all training sets; of single corpora; best corpus found")
    for name, table in values.items():
        row = {
            "form": name,
            "all": within_spearman(table, loss),
            "r2": r_squared(table, loss),
            "single": within_spearman(table[single], loss[single]),
            "best_found": top_one(table[single], loss[single]),
        }
        rows.append(row)
        if not given.json:
            print("{form}: {all:.3f}, {r2:.2f}; {single:.3f}; {best_found:.2f}".format(**row))
    if given.json:
        print(json.dumps({"smoothing": rows}))


if __name__ == "__main__":
    main()
