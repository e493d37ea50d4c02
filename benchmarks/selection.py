"""Does selection pay? Mixes of every selection and of every baseline, trained against random.

    python benchmarks/selection.py --data DIR --out DIR --json

One pool of all of DIR/corpora, shuffled, is regrouped by topic and cut into shards; for every
target each arm ranks them and builds a mix of the same budget, decontaminated alike; small
models are trained on the mixes and on natural proportions, all of equal tokens. Compared are
the losses on the eval split of the target, the tokens of random data that reach the same loss,
and the loss on held-out text of every corpus, which is the price. All through the product's own
stages; all of it resumes. Written to --out: NAME.json, NAME.md, NAME.svg.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from alignment_vs_loss import note
from evidence import data, models, page
from evidence.plan import Arm, Settings

from curate.corpus.targets import load_target
from curate.errors import CurateError
from curate.mixing.build import build_mix
from curate.mixing.opened import read_mix_texts
from curate.ranking.rank import rank_shards
from curate.records import Index, Target
from curate.settings import (
    CorpusSettings,
    EmbedSettings,
    Method,
    MixSettings,
    RankSettings,
    Selection,
    TargetSettings,
)
from curate.store.fingerprint import fingerprint
from curate.store.publish import publish_bytes, publish_json
from curate.task2vec.embed import build_index
from curate.task2vec.probe import Probe, encode_texts, load_probe
from curate.verification.runs import publish_documents

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

RANDOM = "random"
ALL_ALIKE = 1e6  # a temperature at which every shard gives in proportion to its size
GENERAL = "general"
OWN_RANDOM = "random without it"
"""Natural proportions that are kept clean of one target, as the arm `random` of `verify` is: what
its mixes are held against where it is among the choices."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How an arm chooses: what ranks, and how a budget is spread over the ranking."""

    method: Method
    selection: Selection = "top"
    temperature: float = MixSettings().temperature


CHOICES: dict[str, Choice] = {
    "top by words": Choice("lexical"),
    "temperature by words": Choice("lexical", "temperature"),
    "match by words": Choice("lexical", "match"),
    "top by pairs": Choice("ngram-lm"),
    "temperature by pairs": Choice("ngram-lm", "temperature"),
    "match by pairs": Choice("ngram-lm", "match"),
    "match 0.25 by pairs": Choice("ngram-lm", "match", 0.25),
    "match 0.125 by pairs": Choice("ngram-lm", "match", 0.125),
    "match 0.088 by pairs": Choice("ngram-lm", "match", 0.0883883),
    "temperature 0.05 by pairs": Choice("ngram-lm", "temperature", 0.05),
    "top by task2vec": Choice("task2vec"),
    "match by task2vec": Choice("task2vec", "match"),
    OWN_RANDOM: Choice("lexical", "temperature", ALL_ALIKE),
    "n-gram importance": Choice("ngram"),
    "temperature by n-gram importance": Choice("ngram", "temperature"),
    "compression": Choice("compression"),
    "embedding cosine": Choice("embedding"),
    "classifier": Choice("classifier"),
    "temperature by classifier": Choice("classifier", "temperature"),
}


def make_pool(folder: Path, out: Path, settings: Settings, *, piece: int) -> Path:
    """Write the pool: every corpus, cut to pieces of a document and shuffled, one file."""
    pools = [data.make_pool(corpus, out, settings) for corpus in data.find_corpora(folder, out)]
    key = fingerprint(pools=[str(pool.relative_to(out)) for pool in pools])[:12]
    path = out / f"pool-{settings.pool_tokens}-{piece}-{settings.seed}-{key}.jsonl"
    if path.is_file():
        return path
    texts = []
    for pool in pools:
        lines = pool.read_bytes().splitlines()
        whole = [msgspec.json.decode(line)["text"] for line in lines]
        texts += [t[at : at + piece] for t in whole for at in range(0, len(t), piece)]
    random.Random(settings.seed).shuffle(texts)
    kept = [text for text in texts if text.strip()]
    publish_bytes(path, b"".join(msgspec.json.encode({"text": text}) + b"\n" for text in kept))
    return path


def load_slices(folder: Path, out: Path, settings: Settings) -> list[Target]:
    """Return the text that is held out of every corpus: a target each."""
    pools = [data.make_pool(corpus, out, settings) for corpus in data.find_corpora(folder, out)]
    return data.load_targets(pools, folder, dataclasses.replace(settings, targets=()))


def general_target(slices: Sequence[Target]) -> Target:
    """Return held-out text of all corpora as one target: what a selection costs elsewhere."""
    held_out = tuple(text for each in slices for text in each.eval)
    return dataclasses.replace(slices[0], name=GENERAL, eval=held_out)


def make_mixes(
    index: Index,
    targets: Sequence[Target],
    everything: Target,
    budget: int,
    out: Path,
    tokenizer: Probe,
    *,
    lengths: Sequence[int],
    choices: Sequence[str],
) -> tuple[dict[str, Path], dict[str, float]]:
    """Build every arm's mix by the product; return where its documents are, and its forecast.

    Args:
        index: of the pool.
        targets: each gets a mix of every choice.
        everything: all of them as one target, that random is kept clean of.
        budget: tokens of a mix.
        out: workspace.
        tokenizer: of the small models.
        lengths: tokens of random mixes.
        choices: names of `CHOICES`.
    """
    alike = Choice("lexical", "temperature", ALL_ALIKE)
    wanted = [(f"{RANDOM} {length}", everything, alike, length) for length in lengths]
    wanted += [(f"{t.name}: {name}", t, CHOICES[name], budget) for t in targets for name in choices]
    found, drops = {}, {}
    for number, (name, target, choice, tokens) in enumerate(wanted):
        mix_settings = MixSettings(
            budget=tokens, selection=choice.selection, temperature=choice.temperature
        )
        ranking = rank_shards(
            index, target, RankSettings(method=choice.method, bootstrap=20),
            workspace=out, device="cpu",
        )  # fmt: skip
        folder = out / "mixes" / f"{tokens}-{name.replace(': ', '-').replace(' ', '-')}"
        mix = build_mix(index, ranking, target, mix_settings, workspace=out, out=folder, workers=1)
        documents = out / "documents" / f"{mix.fingerprint}.jsonl"
        if not data.token_path(documents).is_file():
            texts = [text for text, _ in read_mix_texts(mix)]
            publish_documents(data.token_path(documents), encode_texts(tokenizer, texts))
        found[name] = documents  # by this name `models` finds the tokens
        drops[name] = mix.forecast.drop
        note(f"mixes of {tokens:,}", number + 1, len(wanted))
    return found, drops


def compare(
    losses: models.Losses,
    names: Sequence[str],
    targets: Sequence[Target],
    drops: Mapping[str, float],
    *,
    draws: int,
    seed: int,
) -> dict[str, dict[str, Row]]:
    """Return target → arm → what was measured, random among the arms; the last target is general.

    Beside each stands the drop that `build-mix` forecast before a token was written.

    Intervals: items of the target and seeds are drawn anew, the same for the arm and random.
    """
    rng = np.random.default_rng(seed)
    common = next(number for number, name in enumerate(names) if name.startswith(RANDOM))
    ends = np.cumsum([0, *losses.sizes])
    found: dict[str, dict[str, Row]] = {}
    for place, target in enumerate(targets[:-1]):
        part = slice(ends[place], ends[place + 1])
        own = f"{target.name}: {OWN_RANDOM}"
        base = names.index(own) if own in names else common
        mine = {
            number: name.removeprefix(f"{target.name}: ")
            for number, name in enumerate(names)
            if name.startswith(f"{target.name}: ")
        }
        found[target.name] = {
            name: {
                "loss": float(losses.mean[number, place]),
                "drop": float(losses.mean[base, place] - losses.mean[number, place]),
                "interval": interval(
                    losses.item_nats[:, base, part] - losses.item_nats[:, number, part],
                    losses.item_tokens[part],
                    draws=draws,
                    rng=rng,
                ),
                "forecast": drops.get(names[number], 0.0),
                "price": float(losses.mean[number, -1] - losses.mean[base, -1]),
                "seeds": [float(each[number, place]) for each in losses.seeds],
            }
            for number, name in {**mine, base: RANDOM}.items()
        }
    return found


def interval(
    saved: Floats, tokens: Floats, *, draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the 90 % bootstrap interval of the mean of what items save, nats/token.

    Args:
        saved: (seeds, items), summed nats.
        tokens: (items,).
        draws: of seeds and items with replacement.
        rng: that draws.
    """
    n_seeds, n_items = saved.shape
    items = rng.integers(n_items, size=(draws, n_items))
    seeds = rng.integers(n_seeds, size=(draws, n_seeds))
    sums = saved[seeds[:, :, None], items[:, None, :]].mean(axis=1).sum(axis=1)
    low, high = np.quantile(sums / tokens[items].sum(axis=1), [0.05, 0.95]).tolist()
    return low, high


def multiplier(loss: float, budget: int, curve: Sequence[tuple[int, float]]) -> float:
    """Return how many times the budget random data needs for a loss.

    Between two lengths the loss is taken as linear in the logarithm of the tokens. Beyond the
    curve nothing is guessed: infinity below it, and 0 above it, where fewer tokens would do.

    Args:
        loss: nats/token.
        budget: tokens of the mix that has it.
        curve: (tokens, loss) of random data, tokens rising.
    """
    tokens, falling = np.array([t for t, _ in curve]), np.array([v for _, v in curve])
    falling = np.minimum.accumulate(falling)
    if loss < falling[-1]:
        return float("inf")
    if loss > falling[0]:
        return 0.0
    first = np.append(True, np.diff(falling) < 0)  # more tokens for the same loss are not needed
    reached = np.interp(-loss, -falling[first], np.log(tokens[first]))
    return float(np.exp(reached) / budget)


def run(folder: Path, out: Path, settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Run or resume the whole bench; return what it found."""
    settings = dataclasses.replace(settings, tokens=1, pool=float(options.pool_tokens))
    index = index_pool(folder, out, settings, options)
    tokenizer = load_probe("builtin", device="cpu")
    held = sum(each.shard.n_tokens for each in index.shards)
    budget = int(held * options.share)
    lengths = [budget, *(budget * times for times in options.random_times)]
    slices = load_slices(folder, out, settings)
    named = [
        load_target(TargetSettings(name=name, data_dir=str(folder))) for name in settings.targets
    ]
    targets = slices if options.slices else named
    paths, drops = make_mixes(
        index, targets,
        load_target(TargetSettings(names=settings.targets, data_dir=str(folder))),
        budget, out, tokenizer, lengths=lengths, choices=options.choices,
    )  # fmt: skip
    judged = [*targets, general_target(slices)]

    def train(names: Sequence[str], tokens: int, seeds: int) -> models.Losses:
        chosen = dataclasses.replace(settings, tokens=tokens)
        arms = [Arm(name, {}, seeds) for name in names]
        return models.measure_losses(
            arms, paths, judged, tokenizer, out, chosen,
            workers=options.workers, device="cpu", notify=note,
        )  # fmt: skip

    longer = {length: f"{RANDOM} {length}" for length in lengths[1:]}
    equal = [name for name in paths if name not in longer.values()]
    losses = train(equal, budget, settings.seeds)
    found = compare(losses, equal, judged, drops, draws=options.draws, seed=settings.seed)
    curves = {name: [(budget, rows[RANDOM]["loss"])] for name, rows in found.items()}
    for length, name in longer.items():
        more = train([name], length, 1)
        for place, target in enumerate(targets):
            curves[target.name].append((length, float(more.mean[0, place])))
    for name, rows in found.items():
        for row in rows.values():
            row["multiplier"] = multiplier(row["loss"], budget, curves[name])
    result = {
        "budget": budget, "pool_tokens": held, "shards": len(index.shards), "share": options.share,
        "arms": found, "random": curves, "settings": dataclasses.asdict(settings),
        "trained_s": losses.trained_s,
    }  # fmt: skip
    publish_json(out / f"{options.name}.json", page.as_plain(result))
    publish_bytes(out / f"{options.name}.md", describe(result).encode())
    publish_bytes(out / f"{options.name}.svg", page.selection_chart(found).encode())
    return result


def index_pool(folder: Path, out: Path, settings: Settings, options: argparse.Namespace) -> Index:
    """Index the pool by topic, as `curate index --group-by cluster` does."""
    pool = make_pool(folder, out, settings, piece=options.piece)
    note("index the pool", 0, 0)
    return build_index(
        CorpusSettings(inputs=(str(pool),), shard_tokens=options.shard_tokens, group_by="cluster"),
        EmbedSettings(batches=4, batch_tokens=settings.embed_tokens),
        workspace=out,
    )


def describe(result: Mapping[str, Any]) -> str:
    """Return one table a target, the lowest loss first, as Markdown."""
    head = ["arm", "loss", "drop against random (90 %)", "forecast", "times the tokens", "price"]
    parts = []
    for target, rows in result["arms"].items():
        longest = result["random"][target][-1][0] / result["budget"]
        lines = [
            [name, *describe_row(row, longest)]
            for name, row in sorted(rows.items(), key=lambda pair: pair[1]["loss"])
        ]
        parts.append(f"## {target}\n\n{page.plain_table(head, lines)}\n")
    return "\n".join(parts)


def describe_row(row: Row, longest: float) -> list[object]:
    """Return the cells of one arm; below 1 and beyond `longest` no multiplier was measured."""
    low, high = row["interval"]
    times = f"{row['multiplier']:.1f}" if np.isfinite(row["multiplier"]) else f"> {longest:.0f}"
    times = times if row["multiplier"] else "< 1"
    drop = f"{row['drop']:+.3f} ({low:+.3f} to {high:+.3f})"
    return [row["loss"], drop, f"{row['forecast']:+.3f}", times, f"{row['price']:+.3f}"]


def main() -> None:
    """Read the options, run, print the tables or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = Settings(seeds=3, eval_tokens=10_000)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--targets", nargs="+", default=list(defaults.targets))
    parser.add_argument(
        "--slices", action="store_true", help="aim at the held-out text of each corpus instead"
    )
    parser.add_argument(
        "--choices",
        nargs="+",
        default=[name for name in CHOICES if name != OWN_RANDOM],
        choices=list(CHOICES),
    )
    parser.add_argument("--pool-tokens", type=int, default=360_000, help="of each corpus")
    parser.add_argument("--shard-tokens", type=int, default=25_000)
    parser.add_argument("--piece", type=int, default=6_000, help="characters a document is cut to")
    parser.add_argument("--share", type=float, default=0.05, help="of the pool: the budget")
    parser.add_argument("--random-times", type=int, nargs="*", default=[2, 4, 8])
    parser.add_argument("--seeds", type=int, default=defaults.seeds)
    parser.add_argument("--size", default=defaults.size)
    parser.add_argument("--batch-tokens", type=int, default=defaults.batch_tokens)
    parser.add_argument("--embed-tokens", type=int, default=2_048, help="of four sub-batches")
    parser.add_argument("--eval-tokens", type=int, default=defaults.eval_tokens)
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    parser.add_argument("--draws", type=int, default=1_000, help="bootstrap resamples")
    parser.add_argument("--name", default="selection", help="of the files written to --out")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    kept = ("seeds", "size", "batch_tokens", "embed_tokens", "eval_tokens")
    settings = dataclasses.replace(
        defaults,
        targets=tuple(options.targets),
        **{name: getattr(options, name) for name in kept},
    )
    try:
        found = run(options.data, options.out, settings, options)
    except CurateError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(page.as_plain(found)) if options.json else describe(found))


if __name__ == "__main__":
    main()
