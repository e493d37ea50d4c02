"""What does a mixture that is not drawn yet know? What `build-mix` expects, against what is drawn.

    python benchmarks/parts.py --data DATA --out OUT --json

Mixtures of the corpora are drawn document by document, of several sizes; what the targets cost
under the token pairs of what was drawn is the truth. Against it: what counts in proportion would
give (each corpus's counts times its share), and what `curate.mixing.expected` gives, both from the
counts of whole corpora alone. Error and its spread, nats/token, over mixtures and targets.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from evidence import data
from evidence.plan import Settings

from curate.corpus.pairs import count_pairs
from curate.corpus.tokens import count_unigrams
from curate.mixing.expected import ExpectedSeen
from curate.ranking.lexical import shares_of
from curate.ranking.ngram_lm import ItemPairs, Seen, count_item_pairs, look_up, ngram_lm
from curate.ranking.samples import draw_items
from curate.task2vec.probe import Probe, encode_texts, load_probe

MIXTURES = 8  # of each size: all in equal parts, then random ones of two to six corpora
ITEMS = 128  # of each target
MOST = 0.95  # of a corpus that a mixture takes
FORMS = ("in proportion", "expected")

Documents = Sequence[Any]  # token ids of each


@dataclass(frozen=True, slots=True)
class Corpus:
    """All of a corpus, and what it says about each target's pairs."""

    documents: Documents
    unigrams: Any  # (vocab,)
    repeats: float
    seen: list[Seen]

    @property
    def tokens(self) -> int:
        """Of all documents."""
        return int(self.unigrams.sum())


def read_corpora(
    folder: Path, out: Path, settings: Settings, tokenizer: Probe
) -> tuple[dict[str, Corpus], list[ItemPairs]]:
    """Return the corpora by name, and the pairs of the targets."""
    found = data.find_corpora(folder, out)
    pools = [data.make_pool(each, out, settings) for each in found]
    targets = data.load_targets(pools, folder, settings)
    vocab = tokenizer.info.vocab
    items = [
        count_item_pairs(
            encode_texts(tokenizer, draw_items(each.select, ITEMS, seed=settings.seed)),
            vocab=vocab,
        )
        for each in targets
    ]
    corpora = {}
    for pool in pools:
        texts = [msgspec.json.decode(line)["text"] for line in pool.read_bytes().splitlines()]
        documents = [ids for ids in encode_texts(tokenizer, texts) if len(ids)]
        pairs, unigrams = count_pairs(documents, vocab), count_unigrams(documents, vocab)
        seen = [look_up(each, pairs, unigrams) for each in items]
        corpora[pool.stem] = Corpus(documents, unigrams, pairs.repeats, seen)
    return corpora, items


def draw(corpus: Corpus, tokens: int, rng: Any) -> list[Any]:
    """Return documents of a corpus in random order, the last one cut."""
    found = []
    for number in rng.permutation(len(corpus.documents)):
        if tokens <= 0:
            break
        found.append(corpus.documents[number][:tokens])
        tokens -= len(found[-1])
    return found


def draw_shares(corpora: Mapping[str, Corpus], tokens: int, number: int, rng: Any) -> Any:
    """Return corpus → tokens of the mixture of a number."""
    some = int(rng.integers(2, 7)) if number else len(corpora)
    names = rng.choice(list(corpora), some, replace=False)
    shares = rng.dirichlet(np.ones(some)) if number else np.full(some, 1 / some)
    return {
        name: int(min(share * tokens, MOST * corpora[name].tokens))
        for name, share in zip(names.tolist(), shares, strict=True)
    }


def errors(
    corpora: Mapping[str, Corpus], items: Sequence[ItemPairs], tokens: int, *, vocab: int, seed: int
) -> tuple[dict[str, Any], list[int]]:
    """Return, by form, how far each mixture's cost of each target is from the truth, and its size.

    A corpus gives `MOST` of itself at most, so that a mixture may be smaller than was asked for.
    """
    rng = np.random.default_rng(seed)
    background = np.sum([each.unigrams for each in corpora.values()], axis=0)
    rows: dict[str, list[float]] = {form: [] for form in FORMS}
    sizes = []
    for number in range(MIXTURES):
        parts = draw_shares(corpora, tokens, number, rng)
        drawn = [ids for name, part in parts.items() for ids in draw(corpora[name], part, rng)]
        sizes.append(sum(map(len, drawn)))
        pairs, unigrams = count_pairs(drawn, vocab), count_unigrams(drawn, vocab)
        for place, target in enumerate(items):
            nothing = np.zeros(len(target.after))
            mean, expected = Seen(nothing, nothing, nothing, 0.0), ExpectedSeen(len(nothing))
            for name, part in parts.items():
                corpus, share = corpora[name], part / corpora[name].tokens
                mean = mean.plus(corpus.seen[place], weight=share)
                expected.add(corpus.seen[place], share=share, repeats=corpus.repeats)
            said = expected.seen(shares_of(background)[target.after])
            truth = look_up(target, pairs, unigrams)
            costs, _ = ngram_lm(target, [truth, mean, said], background=background)
            for form, cost in zip(FORMS, costs[1:], strict=True):
                rows[form].append(float(costs[0] - cost))
    return {name: np.array(row) for name, row in rows.items()}, sizes


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="as of alignment_vs_loss.py")
    sizes = [20_000, 50_000, 150_000, 500_000, 2_000_000]
    parser.add_argument("--tokens", type=int, nargs="+", default=sizes, help="of a mixture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args()
    settings = replace(Settings(), seed=given.seed)
    tokenizer = load_probe("builtin", device="cpu")
    corpora, items = read_corpora(given.data, given.out, settings, tokenizer)
    found: dict[int, dict[str, Any]] = {}
    for tokens in given.tokens:
        rows, sizes = errors(corpora, items, tokens, vocab=tokenizer.info.vocab, seed=given.seed)
        found[tokens] = {
            form: {"error": float(row.mean()), "sd": float(row.std())} for form, row in rows.items()
        }
        if not given.json:
            parts = (
                f"{form} {row['error']:+.3f} ± {row['sd']:.3f}"
                for form, row in found[tokens].items()
            )
            size = f"{min(sizes):,} to {max(sizes):,} tokens of {tokens:,}"
            print(f"{size}: {', '.join(parts)}", flush=True)
        found[tokens]["sizes"] = sizes
    if given.json:
        repeats = {name: each.repeats for name, each in corpora.items()}
        print(json.dumps({"parts": found, "repeats": repeats}))


if __name__ == "__main__":
    main()
