"""Arms → losses: one small model an arm and seed, evaluated on every target at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curate.corpus.tokens import count_unigrams
from curate.ranking.lexical import lexical_cross_entropy
from curate.ranking.methods import READ_ITEMS
from curate.ranking.ngram_lm import STRENGTH, pair_cross_entropy
from curate.ranking.samples import draw_items
from curate.records import Notify, Run, Target
from curate.settings import VerifySettings
from curate.store.fingerprint import fingerprint
from curate.task2vec.probe import Probe, encode_texts
from curate.verification.runs import (
    RunItem,
    plan_run,
    publish_documents,
    read_documents,
)
from curate.verification.schedule import train_runs
from curate.verification.start import find_start, train_settings
from evidence.data import eval_items, token_path
from evidence.plan import BLOCK_TOKENS, Arm, Settings

Floats = npt.NDArray[np.float64]
NGRAMS = {"single tokens": np.inf, "token pairs": STRENGTH}


@dataclass(frozen=True, slots=True)
class Losses:
    """What was measured: nats/token of every arm on every target."""

    mean: Floats  # (arms, targets), over seeds
    seeds: tuple[Floats, ...]  # (arms, targets) each; NaN where an arm has no such seed
    unigram: Floats  # (arms, targets): cross-entropy under the arm's own word frequencies
    ngrams: Mapping[str, Floats]  # (arms, targets): of the select splits, under the arm's n-grams
    trained_s: float  # seconds that all runs took
    item_nats: Floats  # (seeds, arms, items of all targets); NaN where an arm has no such seed
    item_tokens: Floats  # (items of all targets,)
    sizes: tuple[int, ...]  # items of each target


def measure_losses(
    arms: Sequence[Arm],
    paths: Mapping[str, Path],
    targets: Sequence[Target],
    tokenizer: Probe,
    out: Path,
    settings: Settings,
    *,
    workers: int,
    device: str,
    notify: Notify,
) -> Losses:
    """Train what is not published yet, and return all losses.

    Args:
        arms: each with its number of seeds.
        paths: arm → its documents, from `make_arm`.
        targets: their eval splits are what the models are measured on.
        tokenizer: of the small models.
        out: gets `runs/`.
        settings: size, tokens, learning rate.
        workers: processes.
        device: cpu or cuda.
        notify: progress.
    """
    texts = [eval_items(target, tokenizer, settings) for target in targets]
    items = [encode_texts(tokenizer, part) for part in texts]
    key = fingerprint(items=texts, tokenizer=tokenizer.info.tokenizer_digest)[:12]
    items_path = out / "items" / f"{key}.safetensors"
    if not items_path.is_file():
        publish_documents(items_path, [ids for part in items for ids in part])
    nothing = out / "items" / "no-control.safetensors"
    publish_documents(nothing, [])
    n_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for part in texts for text in part)
    verify = _verify_settings(settings)
    start = find_start(verify, tokenizer.info.revision)
    first = train_settings(verify, tokenizer, tokens=settings.tokens, seed=settings.seed)
    planned: list[tuple[int, int, RunItem]] = []
    for number, arm in enumerate(arms):
        for seed in range(arm.seeds):
            item = plan_run(
                out / "runs",
                arm=arm.name,
                settings=dataclasses.replace(first, seed=first.seed + seed),
                start=start,
                **({"points": ()} if start else {}),  # a large model's evaluation is most of a run
                documents=token_path(paths[arm.name]),
                items=items_path,
                control=nothing,
                n_bytes=n_bytes,
                device=device,
            )
            planned.append((seed, number, item))
    planned.sort(key=lambda each: each[:2])  # the first seed of every arm before the second
    runs = train_runs(
        [item for _, _, item in planned], workers=workers, notify=notify, what="train"
    )
    sizes = [len(part) for part in items]
    n_seeds = max(arm.seeds for arm in arms)
    seeds = [np.full((len(arms), len(targets)), np.nan) for _ in range(n_seeds)]
    item_nats = np.full((n_seeds, len(arms), sum(sizes)), np.nan)
    for (seed, number, _), run in zip(planned, runs, strict=True):
        seeds[seed][number] = per_target(run, sizes)
        item_nats[seed, number] = run.item_nats
    return Losses(
        mean=np.nanmean(np.stack(seeds), axis=0),
        seeds=tuple(seeds),
        unigram=_unigram_losses([paths[arm.name] for arm in arms], items, tokenizer),
        ngrams=_ngram_losses([paths[arm.name] for arm in arms], targets, tokenizer),
        trained_s=sum(run.seconds for run in runs),
        item_nats=item_nats,
        item_tokens=np.array(runs[0].item_tokens, np.float64),
        sizes=tuple(sizes),
    )


def per_target(run: Run, sizes: Sequence[int]) -> Floats:
    """Return nats/token of each target from a run over the items of all, in order."""
    ends = np.cumsum(sizes)[:-1]
    nats = [part.sum() for part in np.split(np.array(run.item_nats), ends)]
    tokens = [part.sum() for part in np.split(np.array(run.item_tokens), ends)]
    return np.array(nats) / np.array(tokens)


def _verify_settings(settings: Settings) -> VerifySettings:
    """Return the settings of `verify` that train as the bench does."""
    return VerifySettings(
        size=settings.size,  # type: ignore[arg-type]
        block_tokens=BLOCK_TOKENS,
        batch_tokens=settings.batch_tokens,
        learning_rate=settings.learning_rate,
        model=settings.model,
        lora=settings.lora,
    )


def _unigram_losses(
    paths: Sequence[Path], items: Sequence[Sequence[npt.NDArray[np.int32]]], tokenizer: Probe
) -> Floats:
    vocab = tokenizer.info.vocab
    targets = [count_unigrams(part, vocab) for part in items]
    rows = []
    for path in paths:
        counts = count_unigrams(read_documents(token_path(path)), vocab)
        total = int(counts.sum())
        rows.append([lexical_cross_entropy(t, counts / total, tokens=total) for t in targets])
    return np.array(rows)


def _ngram_losses(
    paths: Sequence[Path], targets: Sequence[Target], tokenizer: Probe
) -> dict[str, Floats]:
    """Return cross-entropies of items that `verify` may see: of the pairs, what it forecasts by."""
    chosen = [draw_items(target.select, READ_ITEMS, seed=0) for target in targets]
    items = [encode_texts(tokenizer, part) for part in chosen]
    vocab = tokenizer.info.vocab
    found: dict[str, list[list[float]]] = {name: [] for name in NGRAMS}
    for path in paths:
        documents = read_documents(token_path(path))
        for name, strength in NGRAMS.items():
            found[name].append(
                [
                    pair_cross_entropy(part, documents, vocab=vocab, strength=strength)
                    for part in items
                ]
            )
    return {name: np.array(rows) for name, rows in found.items()}
