"""Recall and false positives of decontamination, with leaks planted in real text.

Items of named targets are put in the middle of documents of a corpus, whole or changed; then all
is looked through. The documents with nothing planted tell the false positives: what is found in
them is printed, as it may also be a true leak.

Run: python benchmarks/leaks.py --data FOLDER --json   (FOLDER as of CURATE_DATA_DIR)
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from curate.corpus.containers import read_lines
from curate.corpus.prints import word_codes
from curate.corpus.targets import load_target
from curate.corpus.words import number_words
from curate.mixing.decontaminate import find_leaks
from curate.mixing.items import Items, index_target
from curate.mixing.paraphrase import Embed, compare, find_places
from curate.ranking.encoder import encode, load_encoder
from curate.settings import TargetSettings

HOSTS = ("fiction_gutenberg", "wikipedia", "pubmed_abstracts", "patents", "shakespeare")
COSINES = (0.6, 0.7, 0.8, 0.9)
TARGETS = ("proofnet", "minif2f", "gsm8k")


def verbatim(text: str, rng: random.Random) -> str:
    """Return the item."""
    return text


def edited(text: str, rng: random.Random) -> str:
    """Return the item with one word changed, added or left out."""
    words = text.split(" ")
    place = rng.randrange(len(words))
    edit = rng.randrange(3)
    words[place : place + (edit != 1)] = [] if edit == 2 and len(words) > 1 else ["zebra"]
    return " ".join(words)


def renumbered(text: str, rng: random.Random) -> str:
    """Return the item with other numbers and other names: the problem is the same, no line is."""
    text = re.sub(r"\d+", lambda _: str(rng.randrange(2, 99)), text)
    return re.sub(r"(?<=[a-z,] )[A-Z][a-z]+", "Quentin", text)


def thinned(text: str, rng: random.Random) -> str:
    """Return the item with every eighth word left out: no run of 13 words is left."""
    words = text.split()
    start = rng.randrange(8)
    return " ".join(word for place, word in enumerate(words) if place % 8 != start)


PAIRS = """
show=prove prove=demonstrate let=suppose suppose=assume assume=let every=each all=every any=each
some=certain exists=is there=one that=which if=whenever then=it compute=find find=determine
many=large much=lot how=what number=amount total=sum sum=total left=remaining each=every
contains=has has=possesses set=collection sequence=series function=map map=function non=not
positive=greater larger=greater less=smaller than=than buys=purchases sells=trades makes=produces
gives=hands gets=receives day=weekday days=weekdays week=fortnight money=cash cost=price
costs=sells equals=is equal=same divides=is divisible=multiple integer=whole integers=wholes
real=actual continuous=unbroken unique=single such=with satisfying=with denote=write where=with
"""
SYNONYMS = dict(pair.split("=") for pair in PAIRS.split())


def reworded(text: str, rng: random.Random) -> str:
    """Return the item with other words for common ones, its clauses in another order."""
    clauses = re.split(r"(?<=[.,;?])\s+", text)
    rng.shuffle(clauses)
    words = " ".join(clauses).split()
    said = [SYNONYMS.get(word.lower(), word) for word in words]
    small = {"the", "a", "an", "of", "is", "are"}
    return " ".join(word for word in said if word.lower() not in small or rng.random() < 0.5)


CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "verbatim": verbatim, "one word edited": edited, "numbers and names changed": renumbered,
    "every eighth word left out": thinned, "clauses and words exchanged": reworded,
}  # fmt: skip


def documents(folder: Path, name: str) -> Iterator[str]:
    """Yield pieces of at most 20,000 characters of a corpus."""
    for line in read_lines(folder / "corpora" / f"{name}.jsonl.zst", "zstd"):
        if isinstance(line, bytes):
            text = json.loads(line)["text"]
            yield from (text[start : start + 20_000] for start in range(0, len(text), 20_000))


def paraphrases(texts: list[str], items: Items, embed: Embed) -> list[float]:
    """Return for each text the highest cosine of a place in it with an item, 0 for no place."""
    words = number_words(texts)
    places = find_places(word_codes(words.values), words.bounds, items)
    begin = [int(words.bounds[place.text]) for place in places]
    snippets = [
        " ".join(words.spelled(start + place.first, start + place.last))
        for start, place in zip(begin, places, strict=True)
    ]
    wanted = [" ".join(items.spelled[place.item]) for place in places]
    best = [0.0] * len(texts)
    for place, cosine in zip(places, compare(snippets, wanted, embed=embed), strict=True):
        best[place.text] = max(best[place.text], float(cosine))
    return best


def measure_meaning(
    folder: Path, encoder: str, *, targets: Sequence[str], items: int, documents_each: int
) -> dict[str, object]:
    """Return what the semantic stage adds: recall and false alarms by the cosine asked for."""
    embed = partial(encode, load_encoder(encoder))
    names = (*HOSTS, "math_latex")
    hosts = {name: list(islice(documents(folder, name), documents_each)) for name in names}
    recall: dict[str, object] = {}
    alarms: dict[str, object] = {}
    for name in targets:
        target = load_target(TargetSettings(name=name, data_dir=str(folder)))
        index = index_target(target)
        rng = random.Random(0)
        planted = [*target.select, *target.eval][:items]
        for change in ("numbers and names changed", "every eighth word left out",
                       "clauses and words exchanged"):  # fmt: skip
            texts = []
            for number, item in enumerate(planted):
                around = hosts[HOSTS[number % len(HOSTS)]][number % documents_each]
                told = CHANGES[change](item, rng)
                texts.append(f"{around[:2000]}\n{told}\n{around[2000:4000]}")
            said = [leak is not None for leak in find_leaks(texts, index)]
            near = paraphrases(texts, index, embed)
            recall[f"{name}: {change}"] = {"words": round(sum(said) / len(said), 3)} | {
                f"or cosine {least}": round(
                    sum(a or b >= least for a, b in zip(said, near, strict=True)) / len(said), 3
                )
                for least in COSINES
            }
        for host, texts in hosts.items():
            said = [leak is not None for leak in find_leaks(texts, index)]
            found = zip(said, paraphrases(texts, index, embed), strict=True)
            near = [0.0 if by_words else cosine for by_words, cosine in found]
            alarms[f"{name}: {host}"] = {"documents": len(texts), "words": sum(said)} | {
                f"cosine {least}": sum(value >= least for value in near) for least in COSINES
            }
    return {"encoder": Path(encoder).name, "recall": recall, "alarms": alarms}


def measure(folder: Path) -> dict[str, object]:
    """Return recall by target and change, and documents with a false alarm by corpus."""
    recall: dict[str, dict[str, float]] = {}
    alarms: dict[str, dict[str, int]] = {}
    words: dict[str, list[str]] = {}
    hosts = {name: list(islice(documents(folder, name), 400)) for name in HOSTS}
    for name in TARGETS:
        target = load_target(TargetSettings(name=name, data_dir=str(folder)))
        items = index_target(target)
        rng = random.Random(0)
        planted = [*target.select, *target.eval][:1000]
        recall[name] = {"items": len(planted)}
        for change, function in CHANGES.items():
            texts = []
            for number, item in enumerate(planted):
                host = hosts[HOSTS[number % len(HOSTS)]]
                around = host[number % len(host)]
                texts.append(f"{around[:2000]}\n{function(item, rng)}\n{around[2000:4000]}")
            found = find_leaks(texts, items)
            recall[name][change] = round(sum(map(bool, found)) / len(found), 4)
        for host_name, texts in hosts.items():
            found = find_leaks(texts, items)
            alarms.setdefault(name, {})[host_name] = sum(map(bool, found))
            words.setdefault(name, []).extend(leak.words[:100] for leak in found if leak)
    return {
        "recall": recall,
        "alarms": alarms,
        "documents": {name: len(texts) for name, texts in hosts.items()},
        "alarm_words": words,
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default="", help="measure the semantic stage with this model")
    parser.add_argument("--targets", nargs="+", default=TARGETS, help="with --encoder")
    parser.add_argument("--items", type=int, default=100, help="of each target, with --encoder")
    parser.add_argument("--documents", type=int, default=100, help="of each corpus, with --encoder")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    arguments = parser.parse_args()
    if arguments.encoder:
        found = measure_meaning(
            arguments.data, arguments.encoder, targets=arguments.targets, items=arguments.items,
            documents_each=arguments.documents,
        )  # fmt: skip
    else:
        found = measure(arguments.data)
    print(json.dumps(found) if arguments.json else json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
