"""Does a very short training on a shard order training sets better than counting words?

    python benchmarks/alignment_vs_loss.py --data DATA --out OUT --json
    python benchmarks/proxy.py --data DATA --out OUT --json

Reads the training sets and measured losses of that experiment. For each form a small language
model learns from a sample of each training set for a moment; its loss on tokens of every target's
select split is the measure, alone and mixed token by token with the sample's own token pairs
(filled by all samples). Held against the losses beside the product's measures. Every training is
kept in OUT/proxy; killed, it goes on.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence import agreement
from evidence.data import read_result
from evidence.plan import Arm, is_near, is_same
from smoothing import read_texts

from curate.corpus.pairs import count_pairs, pair_keys
from curate.corpus.tokens import count_unigrams
from curate.ranking.lexical import shares_of
from curate.ranking.ngram_lm import ItemPairs, look_up, pair_probabilities
from curate.store.fingerprint import digest_texts, fingerprint
from curate.store.publish import publish_bytes
from curate.task2vec.probe import Probe, encode_texts, load_probe
from curate.verification.continued import ContinuedModel, LanguageModel
from curate.verification.evaluate import item_blocks
from curate.verification.small_model import SHAPES
from curate.verification.train import TrainSettings, train_model

BLOCK = 256
PIECE = 1_000  # characters, about a block: long ones show a mixture's sources unevenly
SAMPLE = 65_536  # tokens of a training set, at most
TARGET = 4_096  # tokens of a target
SHARED = 262_144  # labels that the common start learns from
SHAPES["micro"] = (1, 64, 1)
Pieces = list[tuple[int, Any, Any]]


@dataclass(frozen=True)
class Form:
    """One way to train for a moment."""

    start: str  # a size: from scratch; shared SIZE: from a model of all samples; probe
    labels: int  # to train on
    sample: int = SAMPLE  # tokens that are read; passed over as often as the labels take
    rate: float = 1e-2
    batch: int = 256  # tokens


FORMS = {
    "micro 32k": Form("micro", 32_768, 32_768),
    "micro 64k": Form("micro", 65_536),
    "shared micro 8k": Form("shared micro", 8_192, 8_192, rate=3e-3),
    "probe 8k": Form("probe", 8_192, 8_192, rate=1e-3),
}


def draw_sample(texts: Sequence[str], probe: Probe, tokens: int) -> list[Any]:
    """Return token ids of pieces of the documents, all as likely, of `tokens` in all."""
    pieces = [text[at : at + PIECE] for text in texts for at in range(0, max(len(text), 1), PIECE)]
    order = np.random.default_rng(0).permutation(len(pieces))
    found: list[Any] = []
    for first in range(0, len(order), 32):
        found += encode_texts(probe, [pieces[n] for n in order[first : first + 32]])
        if sum(map(len, found)) >= tokens:
            break
    return _first(found, tokens)


def draw_pieces(items: Sequence[str], probe: Probe, eos: int) -> Pieces:
    """Return blocks of items of a target, drawn by seed, of `TARGET` tokens in all."""
    order = np.random.default_rng(0).permutation(len(items))[:256]
    ids = _first(encode_texts(probe, [items[n] for n in order]), TARGET)
    return item_blocks([each for each in ids if len(each)], eos=eos, block_tokens=BLOCK)


def _first(texts: Sequence[Any], tokens: int) -> list[Any]:
    kept, left = [], tokens
    for ids in texts:
        if left > 0:
            kept.append(np.asarray(ids)[:left])
            left -= len(kept[-1])
    return kept


def token_nats(model: LanguageModel, pieces: Pieces, eos: int) -> Any:
    """Return the nats of every token of the pieces, in their order."""
    result: list[Any] = [None] * len(pieces)
    order = sorted(range(len(pieces)), key=lambda n: len(pieces[n][1]))
    for first in range(0, len(order), 8):
        some = order[first : first + 8]
        ids, labels = np.full((2, 1, len(some), len(pieces[some[-1]][1])), eos, dtype=np.int64)
        for row, number in enumerate(some):
            _, tokens, after = pieces[number]
            ids[0, row, : len(tokens)], labels[0, row, : len(tokens)] = tokens, after
        with torch.no_grad():
            given = torch.from_numpy(ids)
            nats = model.nats(model(given, torch.zeros_like(given)), torch.from_numpy(labels))
        for row, number in zip(nats.view(len(some), -1).numpy(), some, strict=True):
            result[number] = row[: len(pieces[number][1])]
    return np.concatenate(result)


def pair_nats(samples: Sequence[Sequence[Any]], pieces: Pieces, vocab: int) -> Any:
    """Return (samples, tokens) nats under each sample's token pairs, as `ngram-lm` has them.

    The page has them as they were then, by absolute discounting.
    """
    keys = np.concatenate([pair_keys(labels, vocab) for _, _, labels in pieces])
    wanted = ItemPairs(None, *np.divmod(keys, vocab + 1), vocab)
    counts = [count_unigrams(each, vocab) for each in samples]
    spread = shares_of(np.sum(counts, axis=0))[wanted.after]
    rows = []
    for sample, words in zip(samples, counts, strict=True):
        seen = look_up(wanted, count_pairs(sample, vocab), words)
        rows.append(-np.log(pair_probabilities(seen, spread)))
    return np.array(rows)


def load_start(form: Form, probe: Probe, samples: Sequence[Any], eos: int) -> LanguageModel | None:
    """Return what every shard's training goes on from; None is from scratch."""
    kind, _, size = form.start.partition(" ")
    if kind == "shared":
        every = [ids for sample in samples for ids in sample]
        settings = _settings(Form(size, SHARED, batch=1_024), probe, eos)
        return train_model(every, settings)[0]
    if kind != "probe":
        return None
    model = load_probe("builtin", device="cpu").model
    return ContinuedModel(model, lora=0, seed=0, block_tokens=BLOCK)


def _settings(form: Form, probe: Probe, eos: int) -> TrainSettings:
    return TrainSettings(
        size=form.start, vocab=probe.info.vocab, eos=eos, tokens=form.labels,
        block_tokens=BLOCK, batch_tokens=form.batch, learning_rate=form.rate, seed=0,
    )  # fmt: skip


def measure(
    form: Form, folder: Path, probe: Probe, names: Sequence[str],
    samples: Sequence[Any], targets: Sequence[Pieces], eos: int,
) -> tuple[list[Any], dict[str, float]]:  # fmt: skip
    """Train on every sample what is not kept yet; return nats of each and processor seconds."""
    every = [piece for pieces in targets for piece in pieces]
    start, rows, seconds = None, [], []
    for name, sample in zip(names, samples, strict=True):
        path = folder / f"{name}.npz"
        if not path.is_file():
            start = start or load_start(form, probe, samples, eos)
            began = time.process_time()
            own = copy.deepcopy(start)
            model, _ = train_model(
                _first(sample, form.sample), _settings(form, probe, eos), start=own
            )
            trained = time.process_time()
            nats = token_nats(model, every, eos)
            spent = [trained - began, time.process_time() - trained]
            buffer = io.BytesIO()
            np.savez(buffer, nats=nats.astype(np.float32), seconds=spent)
            publish_bytes(path, buffer.getvalue())
            print(f"{folder.name} {name} {nats.mean():.3f} {spent}", file=sys.stderr, flush=True)
        kept = np.load(path)
        rows.append(kept["nats"])
        seconds.append(kept["seconds"])
    train, ask = np.median(np.array(seconds), axis=0)
    return rows, {"train_s": float(train), "pair_s": float(ask) / len(targets)}


def _folder(out: Path, name: str, texts: str) -> Path:
    numbers = (BLOCK, PIECE, SAMPLE, TARGET, SHARED)
    key = fingerprint(form=asdict(FORMS[name]), numbers=numbers, texts=texts)
    return out / "proxy" / f"{name.replace(' ', '-')}-{key[:8]}"


REFERENCES = ("lexical", "ngram-lm", "mean of lexical and ngram-lm")


def compare(
    values: Mapping[str, Any], details: Mapping[str, Any], *, draws: int
) -> list[dict[str, Any]]:
    """Return one row a measure: how it orders, and its paired difference to the cheap ones."""
    arms = [Arm(**arm) for arm in details["arms"]]
    names, loss = details["targets"], np.array(details["loss"])
    single = np.array([bool(arm.source) for arm in arms])[:, None]
    same, near = is_same(arms, names), is_near(arms, names)
    kept = np.ones(loss.shape, dtype=bool)
    against = {
        reference: agreement.compare(values, loss, kept=kept, reference=reference, draws=draws)
        for reference in REFERENCES
    }
    others = agreement.compare(
        values, loss, kept=single & ~same, reference=REFERENCES[0], draws=draws
    )
    rows = []
    for name, table in values.items():
        whole, other = against[REFERENCES[0]][name], others[name]
        row: dict[str, Any] = {"measure": name, "spearman": _plain(whole["spearman"])}
        for reference, found in against.items():
            row[f"minus {reference}"] = _plain(found[name]["spearman_minus"])
        row |= {key: _plain(whole[key]) for key in ("concordance", "r2", "r2_centred", "top_1")}
        row["mixtures"] = agreement.within_spearman(table, np.where(single, np.nan, loss))
        row |= {f"other {key}": _plain(other[key]) for key in ("spearman", "top_1", "regret")}
        row["other minus"] = _plain(other["spearman_minus"])
        row["far"] = agreement.within_spearman(table, np.where(single & ~near, loss, np.nan))
        rows.append(row)
    return rows


def _plain(found: agreement.Interval) -> list[float]:
    return [round(each, 4) for each in (found.value, found.low, found.high)]


def show(rows: Sequence[Mapping[str, Any]], prices: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table, the best first."""
    for row in sorted(rows, key=lambda row: -row["spearman"][0]):
        minus = " ".join("{:+.3f} ({:+.3f} {:+.3f})".format(*row[f"minus {r}"]) for r in REFERENCES)
        price = prices.get(row["measure"], {})
        print(
            f"{row['measure']:42} {row['spearman'][0]:.3f} | {minus} | pairs "
            f"{row['concordance'][0]:.3f} r2 {row['r2'][0]:.2f} {row['r2_centred'][0]:.2f} mix "
            f"{row['mixtures']:.3f} | other {row['other spearman'][0]:.3f} top-1 "
            f"{row['other top_1'][0]:.2f} lost {row['other regret'][0]:.3f} far {row['far']:.3f} "
            + " ".join(f"{key} {value:.2f}" for key, value in price.items())
        )


def main() -> None:
    """Read the arguments, train, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of `targets/`")
    parser.add_argument("--out", type=Path, required=True, help="of alignment_vs_loss.py")
    parser.add_argument("--forms", nargs="*", default=list(FORMS), help=f"of {', '.join(FORMS)}")
    parser.add_argument("--draws", type=int, default=200, help="bootstrap resamples")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    given = parser.parse_args()
    torch.set_num_threads(1)
    details, files = read_result(given.out)
    target_texts, arm_texts = read_texts(given.data / "targets", given.out, details, files)
    probe = load_probe("builtin", device="cpu")
    eos = int(probe.tokenizer.eos_token_id)
    samples = [draw_sample(texts, probe, SAMPLE) for texts in arm_texts]
    targets = [draw_pieces(items, probe, eos) for items in target_texts]
    texts = fingerprint(texts=[digest_texts(each) for each in (*target_texts, *arm_texts)])
    ends = np.cumsum([sum(len(labels) for _, _, labels in pieces) for pieces in targets])[:-1]

    def of_targets(nats: Any) -> Any:
        return -np.array([[part.mean() for part in np.split(row, ends)] for row in nats])

    pairs = np.concatenate([pair_nats(samples, each, probe.info.vocab) for each in targets], axis=1)
    stored = (*REFERENCES, "task2vec scaled")
    known = details["values"]
    values = {name: np.array(known[name]) for name in stored if name in known}
    values |= {"token pairs of all text": -np.array(details["ngrams"]["token pairs"])}
    values |= {"token pairs of the sample": of_targets(pairs)}
    names, prices = [arm["name"] for arm in details["arms"]], {}
    for name in given.forms:
        nats, prices[name] = measure(
            FORMS[name], _folder(given.out, name, texts), probe, names, samples, targets, eos
        )
        values[name] = of_targets(nats)
        for share in (0.25, 0.5, 0.75):
            mixed = np.logaddexp(np.log(share) - nats, np.log(1 - share) - pairs)
            values[f"{name}, pairs {1 - share:g}"] = of_targets(-mixed)
        for other in ("lexical", "ngram-lm"):
            parts = {part: values[part] for part in (name, other)}
            values[f"mean of {name} and {other}"] = agreement.mean_of_ranks(parts)
    rows = compare(values, details, draws=given.draws)
    if given.json:
        print(json.dumps({"proxy": rows, "prices": prices}))
    else:
        show(rows, prices)


if __name__ == "__main__":
    main()
