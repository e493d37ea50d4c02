"""Do methods that read text order training sets better by shorter pieces of them?

    python benchmarks/alignment_vs_loss.py --data DATA --out OUT --json
    python benchmarks/pieces.py --data DATA --out OUT --json

Reads the training sets and measured losses of that experiment, draws a sample of every training
set in pieces of so many characters (`rank` has 4,000), and says how well each method orders by it:
Spearman within each target, the mean over seeds of the sample, and the paired difference to the
first form with an interval that draws training sets and targets anew. A form is CHARACTERS, or
CHARACTERSxPIECES for `compression`, which pairs so many pieces of a shard with every item.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence.agreement import within_spearman
from evidence.data import Files, find_file, read_result

from curate.corpus.targets import load_target
from curate.ranking import samples
from curate.ranking.baselines import PAIRED, measure_texts
from curate.ranking.compression import compression
from curate.ranking.methods import READ_ITEMS
from curate.records import Index, silent
from curate.settings import TargetSettings
from curate.task2vec.reading import open_index

FORMS = ("4000x32", "2000x32", "2000x64", "1000x32", "1000x64", "1000x128", "500x32", "500x128")
METHODS = ("ngram", "classifier", "compression")
Form = tuple[int, int]  # characters of a piece, pieces that are paired


def measure(
    index: Index, targets: Sequence[Sequence[str]], method: Any, forms: Sequence[Form], *, seed: int
) -> Iterator[tuple[Form, Any, float]]:
    """Yield each form, its values (shards, targets) and processor seconds a shard and target.

    Forms are grouped by the length of their pieces; for a method that pairs none, the first of a
    length stands for all. The pieces of fewer pairs are the first of those of more.
    """
    for length in dict.fromkeys(length for length, _ in forms):
        texts = read_pieces(index, length, seed=seed)
        pairs = [paired for each, paired in forms if each == length]
        if method != "compression":
            started = time.process_time()
            values = [measure_texts(method, each, texts, seed=seed)[0] for each in targets]
            yield (length, pairs[0]), np.stack(values, axis=1), _each(started, values)
            continue
        started, most = time.process_time(), max(pairs)
        found = [compression(each, [pieces[:most] for pieces in texts]) for each in targets]
        seconds = _each(started, [values for values, _ in found])
        there = found[0][1].shard_batches  # pieces of each shard, `most` at most
        for paired in pairs:
            firsts = [_of_first(*each, paired) for each in found]
            part = np.minimum(there, paired).sum() / there.sum()
            yield (length, paired), np.stack(firsts, axis=1), seconds * float(part)


def read_pieces(index: Index, length: int, *, seed: int) -> list[list[str]]:
    """Return what `rank` would read of every shard, were its pieces so long."""
    usual = samples.READ_CHARACTERS
    samples.READ_CHARACTERS = length
    try:
        with tempfile.TemporaryDirectory() as folder:
            return list(
                samples.read_samples(index, seed=seed, workspace=Path(folder), notify=silent)
            )
    finally:
        samples.READ_CHARACTERS = usual


def hold(
    tables: dict[str, list[Any]], loss: Any, *, draws: int, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return the Spearman of each form, and its difference to the first with a 95 % interval.

    Args:
        tables: form → values (arms, targets) by each seed of the sample.
        loss: (arms, targets).
        draws: of arms and targets, the same for all forms.
        seed: of the draws.
    """
    generator, (arms, targets) = np.random.default_rng(seed), loss.shape
    picks = [np.ix_(np.arange(arms), np.arange(targets))] + [
        np.ix_(generator.integers(0, arms, arms), generator.integers(0, targets, targets))
        for _ in range(draws)
    ]
    found = {
        form: np.array([np.mean([within_spearman(v[p], loss[p]) for v in each]) for p in picks])
        for form, each in tables.items()
    }
    rows = {}
    for form, each in found.items():
        minus = each - next(iter(found.values()))
        low, high = np.quantile(minus[1:], [0.025, 0.975])
        by_seed = [within_spearman(values, loss) for values in tables[form]]
        rows[form] = {"spearman": each[0], "minus": minus[0], "low": low, "high": high}
        rows[form] = {key: round(float(value), 4) for key, value in rows[form].items()}
        rows[form]["by_seed"] = [round(value, 4) for value in by_seed]
    return rows


def read_targets(
    names: Sequence[str], data: Path, out: Path, files: Files
) -> list[tuple[str, ...]]:
    """Return the items of every target's select split, held-out slices of corpora among them."""
    found = []
    for name in names:
        halves = [find_file(out, files, "slices", f"{name}-{half}") for half in ("select", "eval")]
        given = f"{name}={halves[0]},{halves[1]}" if all(halves) else name
        settings = TargetSettings(name=given, data_dir=str(data / "targets"))
        found.append(load_target(settings).select)
    return found


def _of_first(values: Any, moves: Any, paired: int) -> Any:
    """Return the values by the first pieces alone, from those by more and each one's influence."""
    counts = np.minimum(moves.shard_batches, paired)
    return values + np.array([row[:n].mean() for row, n in zip(moves.shard, counts, strict=True)])


def _each(started: float, values: Sequence[Any]) -> float:
    return (time.process_time() - started) / sum(map(len, values))


def _form(text: str) -> Form:
    length, _, paired = text.partition("x")
    return int(length), int(paired or PAIRED)


def main() -> None:
    """Read the arguments and print a line for every method and form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of `targets/`")
    parser.add_argument("--out", type=Path, required=True, help="of alignment_vs_loss.py")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--forms", nargs="+", type=_form, default=[_form(f) for f in FORMS])
    parser.add_argument("--seeds", type=int, default=1, help="of the sample, and of the items")
    parser.add_argument("--items", type=int, default=READ_ITEMS, help="of a target, at most")
    parser.add_argument("--draws", type=int, default=400, help="bootstrap resamples")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args()
    details, files = read_result(given.out)
    index = open_index(given.out / "arms-index")
    names = [entry.shard.name for entry in index.shards]
    order = [names.index(arm["name"]) for arm in details["arms"]]
    targets = read_targets(details["targets"], given.data, given.out, files)
    result: dict[str, Any] = {}
    for method in given.methods:
        tables: dict[str, list[Any]] = {}
        seconds: dict[str, float] = {}
        for seed in range(given.seeds):
            drawn = [samples.draw_items(each, given.items, seed=seed) for each in targets]
            for form, values, each in measure(index, drawn, method, given.forms, seed=seed):
                name = "x".join(map(str, form))
                tables.setdefault(name, []).append(values[order])
                seconds[name] = each
        result[method] = hold(tables, np.array(details["loss"]), draws=given.draws)
        for name, row in result[method].items():
            row["seconds"] = round(seconds[name], 4)
            if not given.json:
                line = "{spearman:.3f}, {minus:+.3f} ({low:+.3f} to {high:+.3f}), {seconds} s"
                print(f"{method} {name}: {line.format(**row)}")
    if given.json:
        print(json.dumps({"pieces": result}))


if __name__ == "__main__":
    main()
