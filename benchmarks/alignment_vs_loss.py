"""Does alignment predict loss? Every measure of `rank` against models that were trained.

    python benchmarks/alignment_vs_loss.py --data DIR --out DIR --json

DIR/corpora holds one file a corpus, DIR/targets the named targets. A small model is trained on
every corpus, on their natural mixture and on random mixtures, all of equal tokens and none
holding an item of a named target; each is evaluated on the eval split of every target and on a
held-out slice of every corpus. Every method and measure of `curate rank` then says how close
each training set is to each target's select split, and is held against the losses. All of it
runs through the product's own stages; all of it resumes. Written to --out: result.json,
result.md (the tables), result-agreement.svg, result-cells.svg.
With --json the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence import agreement, data, forecasts, measures, models, page
from evidence.plan import Arm, Settings, is_near, is_same, plan_arms

from curate.errors import CurateError
from curate.records import Target
from curate.store.publish import publish_bytes, publish_json
from curate.task2vec.probe import load_probe

LEXICAL = "lexical"
PUBLISHED = "task2vec scaled"
MEANS = {
    "mean of lexical and task2vec": (LEXICAL, PUBLISHED),
    "mean of lexical and ngram-lm": (LEXICAL, "ngram-lm"),
}
"""Combinations without a fit: standardised within each target, then averaged."""
LEARNT = {
    "learnt of lexical and task2vec": (LEXICAL, PUBLISHED),
    "learnt of all kinds": (
        LEXICAL, "ngram", "ngram-lm", "classifier", "compression", "embedding", PUBLISHED
    ),
}  # fmt: skip
"""What a learnt combination may weigh, where it is there: one measure of each kind."""


def run(
    data_dir: Path, out: Path, settings: Settings, options: argparse.Namespace
) -> dict[str, Any]:
    """Run or resume the whole bench; return what it found."""
    started = time.monotonic()
    corpora = data.find_corpora(data_dir, out)
    pools = [data.make_pool(corpus, out, settings) for corpus in corpora]
    targets = data.load_targets(pools, data_dir, settings)
    named = targets[: len(settings.targets)]
    tokenizer = load_probe(settings.model or "builtin", device="cpu")
    note("index the pools", 0, 0)
    index = data.index_pools(pools, out)
    arms = plan_arms([pool.stem for pool in pools], settings)
    paths = data.make_arms(arms, index, named, tokenizer, out, settings, notify=note)
    losses = models.measure_losses(
        arms, paths, targets, tokenizer, out, settings,
        workers=options.workers, device=options.device, notify=note,
    )  # fmt: skip
    if options.only_losses:
        return {"trained_s": losses.trained_s}
    note("index the arms", 0, 0)
    indexed = data.index_arms([paths[arm.name] for arm in arms], out, settings)
    values = measures.measure_all(
        indexed, [arm.name for arm in arms], targets, out,
        device=options.device, only=options.measures, notify=note,
    )  # fmt: skip
    embeddings = data.log_embeddings(indexed, [arm.name for arm in arms])
    found = analyse(arms, targets, values, losses, embeddings, settings, draws=options.draws)
    found["bench"] = {
        "settings": dataclasses.asdict(settings),
        "device": options.device,
        "probe": dataclasses.asdict(indexed.probe),
        "files": data.note_files(out, paths, pools),
        "trained_s": losses.trained_s,
        "seconds": time.monotonic() - started,
    }
    write(out / options.name, arms, targets, values, losses, found)
    return found


def analyse(
    arms: Sequence[Arm],
    targets: Sequence[Target],
    values: dict[str, measures.Floats],
    losses: models.Losses,
    embeddings: measures.Floats,
    settings: Settings,
    *,
    draws: int,
) -> dict[str, Any]:
    """Hold every measure against the losses, on several subsets of the cells."""
    names = [target.name for target in targets]
    loss = losses.mean
    values |= {name: -entropy for name, entropy in losses.ngrams.items()}
    for name, wanted in MEANS.items():
        if all(part in values for part in wanted):
            values[name] = agreement.mean_of_ranks({part: values[part] for part in wanted})
    reference = LEXICAL if LEXICAL in values else next(iter(values))
    weights = {}
    for name, wanted in LEARNT.items():
        if parts := {part: values[part] for part in wanted if part in values}:
            values[name], weights[name] = agreement.learn_combination(
                parts, loss, seed=settings.seed
            )
    single = np.array([bool(arm.source) for arm in arms])[:, None]
    is_named = (np.arange(len(names)) < len(settings.targets))[None, :]
    same, near = is_same(arms, names), is_near(arms, names)
    everything = np.ones(loss.shape, dtype=bool)
    subsets = {
        "sources": single & everything,
        "sources, other corpora": single & ~same,
        "sources, named targets": single & is_named,
        "sources, near and other": single & near & ~same,
        "sources, far": single & ~near,
        "sources and mixtures": everything,
        "sources and mixtures, named targets": is_named & everything,
        "mixtures": ~single & everything,
    }
    return {
        "agreement": {
            name: agreement.compare(
                values, loss, kept=kept, reference=reference, draws=draws, seed=settings.seed
            )
            for name, kept in subsets.items()
        },
        "cells": {name: int(kept.sum()) for name, kept in subsets.items()},
        "weights": weights,
        "reference": reference,
        "seeds": seeds_agree(losses),
        "lexical_stage": lexical_stage(arms, names, losses),
        "forecast": describe_forecasts(arms, names, values, losses, embeddings, settings),
    }


def seeds_agree(losses: models.Losses) -> dict[str, float]:
    """Return how well one seed's losses forecast another's: how far these losses repeat.

    No ceiling: both seeds are noisy, so a perfect measure is nearer to their mean than either is
    to the other. Where two agree by r, it reaches about the root of n r / (1 + (n - 1) r) against
    the mean of n (Spearman, Brown: 1910).
    """
    if len(losses.seeds) < 2:
        return {}
    one, other = losses.seeds[0], losses.seeds[1]
    return {
        "spearman": agreement.within_spearman(-one, other),
        "concordance": agreement.concordance(-one, other),
        "top_1": agreement.top_one(-one, other),
        "sd_nats": float(np.nanstd(one - other) / np.sqrt(2)),
    }


def lexical_stage(
    arms: Sequence[Arm], names: Sequence[str], losses: models.Losses
) -> dict[str, float]:
    """Return how far below word frequencies each model is on its own corpus, nats/token."""
    gains = losses.unigram - losses.mean
    return {
        arm.source: float(gains[number, names.index(arm.source)])
        for number, arm in enumerate(arms)
        if arm.source in names
    }


def describe_forecasts(
    arms: Sequence[Arm],
    names: Sequence[str],
    values: Mapping[str, measures.Floats],
    losses: models.Losses,
    embeddings: measures.Floats,
    settings: Settings,
) -> dict[str, Any]:
    """Test the forecast's laws.

    Every named target with each training set left out, from its scalars alone; every target from
    few training sets, by all laws, the median over targets.
    """
    shares = forecasts.shares_of(arms)
    kinds = [
        forecasts.kinds_of_scalars(
            {name: table[:, column] for name, table in losses.ngrams.items()},
            values[PUBLISHED][:, column] if PUBLISHED in values else None,
            forecasts.breadth_of(shares),
        )
        for column in range(len(names))
    ]
    found: dict[str, Any] = {
        name: {
            kind: forecasts.hold_forecasts(scalars, losses.mean[:, column])
            for kind, scalars in kinds[column].items()
        }
        for column, name in enumerate(names[: len(settings.targets)])
    }
    found["few"] = {
        str(mixes): {
            kind: _medians(
                forecasts.hold_few(
                    each[kind], shares, embeddings, losses.mean[:, column],
                    spread=losses.ngrams["single tokens"][:, column],
                    mixes=mixes, seed=settings.seed,
                )
                for column, each in enumerate(kinds)
            )
            for kind in kinds[0]
        }
        for mixes in forecasts.FEW
        if mixes < len(arms) - 2
    }  # fmt: skip
    return found


def _medians(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    listed = list(rows)
    return {name: float(np.median([row[name] for row in listed])) for name in listed[0]}


def write(
    path: Path,
    arms: Sequence[Arm],
    targets: Sequence[Target],
    values: Mapping[str, measures.Floats],
    losses: models.Losses,
    found: Mapping[str, Any],
) -> None:
    """Publish the result, its tables and its figures: `path` and an ending each."""
    names = [target.name for target in targets]
    tables = [
        f"## {name} ({found['cells'][name]} cells)\n\n{page.agreement_table(part)}"
        for name, part in found["agreement"].items()
    ]
    tables.append(
        "## loss, nats/token\n\n"
        + page.plain_table(
            ["arm", *names],
            [[arm.name, *losses.mean[n].tolist()] for n, arm in enumerate(arms)],
        )
    )
    forecast = found["forecast"]
    left_out = {name: forecast[name] for name in names if name in forecast}
    tables.append(f"## forecasts, each training set left out\n\n{page.forecast_table(left_out)}")
    if few := forecast["few"]:
        title = "## forecasts from so many training sets, median of all targets"
        tables.append(f"{title}\n\n{page.forecast_table(few)}")
    publish_bytes(path.with_suffix(".md"), "\n\n".join([*tables, ""]).encode())
    subsets = {
        name: found["agreement"][name]
        for name in ("sources", "sources, other corpora", "sources, far")
    }
    publish_bytes(
        path.with_name(f"{path.name}-agreement.svg"), page.agreement_chart(subsets).encode()
    )
    panels = {name: values[name] for name in (PUBLISHED, found["reference"]) if name in values}
    near = is_near(list(arms), names)
    figure = page.cells_chart(panels, losses.mean, near)
    publish_bytes(path.with_name(f"{path.name}-cells.svg"), figure.encode())
    details = {
        "arms": [dataclasses.asdict(arm) for arm in arms],
        "targets": names,
        "loss": losses.mean,
        "unigram": losses.unigram,
        "ngrams": losses.ngrams,
        "values": dict(values),
    }
    publish_json(path.with_suffix(".json"), page.as_plain({**found, "details": details}))


def note(what: str, done: float, total: float) -> None:
    """Say on stderr how far a step is."""
    print(f"{time.strftime('%H:%M:%S')} {what} {done:g}/{total:g}", file=sys.stderr, flush=True)


def main() -> None:
    """Read the options, run, print the main table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    defaults = Settings()
    for field in dataclasses.fields(Settings):
        value = getattr(defaults, field.name)
        kind = str if isinstance(value, tuple) else type(value)
        many = {"nargs": "*"} if isinstance(value, tuple) else {}
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=value, **many)
    parser.add_argument("--device", default="cpu", help="of the small models and the probe")
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    parser.add_argument("--draws", type=int, default=200, help="bootstrap resamples")
    parser.add_argument("--measures", nargs="*", default=(), help="only these; none is all")
    parser.add_argument("--only-losses", action="store_true", help="stop when models are trained")
    parser.add_argument("--name", default="result", help="of the files written to --out")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(Settings)}
    settings = Settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    try:
        found = run(options.data, options.out, settings, options)
    except CurateError as error:
        sys.exit(f"error: {error}")
    if options.json:
        print(json.dumps(page.as_plain(found)))
    elif "agreement" in found:
        print(page.agreement_table(found["agreement"]["sources"]))


if __name__ == "__main__":
    main()
