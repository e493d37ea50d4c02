"""The documents of a mix or of a control, one after the other, in memory or on their way there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from curate.corpus.tokens import Encode
from curate.engine.run import working_here
from curate.mixing.dedup import Seen
from curate.mixing.draw import draw_rows
from curate.mixing.drawn import Drawn, Dropped
from curate.mixing.filters import Wish
from curate.mixing.items import Items
from curate.mixing.look import Look, Meaning
from curate.mixing.reading import divide, read_blocks_of, read_some
from curate.mixing.weights import Spread
from curate.records import Document, Index
from curate.store.fingerprint import digest_bytes

Refill = Literal["order", "share"]

CUT_TRIES = 64
"""Ends tried around one whose tokens are not as many as wanted."""

LONG = 1 << 20
"""Characters of a text that is not encoded whole to cut it, and of ends that are tried at once."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One row of a mix."""

    document: Document
    shard: str
    text: str  # the document's, or its beginning where it is cut
    n_tokens: int  # of `text`
    cut: bool
    epoch: int  # from 0


@dataclass(slots=True)
class Filters:
    """What documents must pass, and the record of those that did not."""

    items: Items | None = None  # None: no decontamination
    seen: Seen | None = None  # None: duplicates stay
    meaning: Meaning | None = None  # None: paraphrases stay
    dropped: list[Dropped] = field(default_factory=list)


def select_documents(
    index: Index,
    shard_tokens: Mapping[str, float],
    *,
    budget: int,
    encode: Encode,
    filters: Filters | None = None,
    max_epochs: float = 1.0,
    refill: Refill = "share",
    seed: int = 0,
    at_most: bool = False,
) -> Iterator[Chosen]:
    """Give documents of `budget` tokens in all, each shard its part, drawn at random.

    A shard's documents are drawn in an order that the seed and the shard's digest decide.
    What a shard lacks (filters took documents out) the others give. One group of shards is
    read at a time, and no text is kept.

    Args:
        index: where the shards are.
        shard_tokens: shard → its part in tokens (or any share of the budget), >= 0; the
            order of the names decides who gives what is missing.
        budget: tokens in all.
        encode: texts → token ids, without special tokens.
        filters: decontamination and duplicates; what they take out is added to
            `filters.dropped`. None lets all through.
        max_epochs: times that a shard's accepted documents may be given.
        refill: `order`: the shards in the order of their names, each to its end, whatever
            their parts; `share`: each its part, and what one lacks comes from all shards of
            a part above zero in proportion, then from the rest.
        seed: of the draw.
        at_most: give all there is where that is less than the budget.

    Yields:
        Documents in the order of the files.

    Raises:
        CurateError: an unknown shard, an input that changed since the index, or too few
            tokens (exit code 6).
    """
    filters = filters or Filters()
    parts = list(shard_tokens.values())
    if budget <= 0 or max_epochs < 1 or min(parts, default=-1.0) < 0 or not sum(parts) > 0:
        raise ValueError("budget > 0, max_epochs >= 1, parts >= 0 and not all 0 are needed")
    look = Look(
        text=index.corpus.text,
        seed=seed,
        count=lambda texts: [len(ids) for ids in encode(texts)],
        counted_by="here",
        items=filters.items,
        kept=str(Path(index.folder) / "prints"),
        meaning=filters.meaning,
    )
    spread = (
        Spread(order=np.arange(len(parts)))
        if refill == "order"
        else Spread(shares=np.array(parts, np.float64))
    )
    wish = Wish(
        budget=budget,
        names=tuple(shard_tokens),
        spread=spread,
        max_epochs=max_epochs,
        seen=filters.seen,
        seed=seed,
        at_most=at_most,
    )
    with tempfile.TemporaryDirectory() as folder:
        with working_here():  # what is found lies in a folder of this machine alone
            drawn = draw_rows(
                {each.shard.name: each.shard for each in index.shards},
                wish,
                look,
                embedding=lambda shard: None,
                read=partial(read_some, text=index.corpus.text),
                cut=cutter(encode),
                folder=Path(folder),
            )
        filters.dropped += drawn.dropped
        yield from _read(drawn, index.corpus.text)


def cutter(encode: Encode) -> Callable[[str, int], tuple[int, int]]:
    """Return the function that cuts a text (see `draw_rows`); a draw asks the same again."""
    known: dict[tuple[str, int], tuple[int, int]] = {}

    def cut(whole: str, wanted: int) -> tuple[int, int]:
        key = (digest_bytes(whole.encode("utf-8", "surrogatepass")), wanted)
        if key not in known:
            begun, tokens = cut_text(whole, wanted, encode=encode)
            known[key] = len(begun), tokens
        return known[key]

    return cut


def cut_text(text: str, n_tokens: int, *, encode: Encode) -> tuple[str, int]:
    """Return a beginning of `text` that encodes to exactly `n_tokens`.

    Tokens of a beginning mostly grow with its length, but merges make steps: where no end
    gives the number, the longest beginning found with fewer tokens is returned.

    Args:
        text: encodes to more than `n_tokens`.
        n_tokens: wanted, > 0.
        encode: texts → token ids.

    Returns:
        The beginning and the number of its tokens.
    """

    def count(end: int) -> int:
        return len(encode([text[:end]])[0])

    high, above = len(text), 0
    if high > 64 * n_tokens:  # a small part of a long document
        high = max(64, 16 * n_tokens)
    elif high > LONG:  # as many characters a token as its beginning has, and a quarter more
        high = min(high, n_tokens * (LONG // 16) * 5 // max(4 * count(LONG // 16), 1) + 64)
    while (above := count(high)) <= n_tokens and high < len(text):
        high = min(len(text), 2 * high)
    last = below = turn = 0
    while high - last > 1 and below < n_tokens:
        # Where the end lies if tokens are of one length; at every third turn the middle.
        share = (n_tokens - below + 0.5) / max(above - below, 1) if turn % 3 < 2 else 0.5
        end = min(max(last + round((high - last) * share), last + 1), high - 1)
        turn += 1
        found = count(end)
        last, below, high, above = (
            (end, found, high, above) if found <= n_tokens else (last, below, end, found)
        )
    if below == n_tokens:
        return text[:last], n_tokens
    near = CUT_TRIES // 2 if last * CUT_TRIES <= 4 * LONG else 4  # each is encoded from the start
    ends = [e for e in range(last + near, last - near, -1) if 0 < e <= high]
    at_once = max(1, LONG // max(last, 1))  # their tokens are all held
    parts = [ends[first : first + at_once] for first in range(0, len(ends), at_once)]
    sizes = [len(ids) for part in parts for ids in encode([text[:end] for end in part])]
    fitting = [(size, end) for end, size in zip(ends, sizes, strict=True) if size <= n_tokens]
    size, end = max(fitting, default=(0, 0))
    return text[:end], size


def _read(drawn: Drawn, text: str) -> Iterator[Chosen]:
    rows = drawn.rows
    for places in divide(list(drawn.shards)):
        wanted: dict[tuple[int, int], list[int]] = {}
        mine = [drawn.shards[place] for place in places]
        for number, place in enumerate(places):
            for row in range(*np.searchsorted(rows.shard, [place, place + 1]).tolist()):
                document = int(drawn.facts[place].number[rows.place[row]])
                wanted.setdefault((number, document), []).append(row)
        for found in read_blocks_of(mine, text=text) if wanted else ():
            shard, block = mine[found.shard], found.block
            digest = shard.ranges[found.file].file_digest
            for place, whole in enumerate(block.texts):
                for row in wanted.get((found.shard, found.number + place), ()):
                    end, record = int(rows.end[row]), int(block.records[place])
                    home = block.homes[place] if block.homes else (digest, record)
                    about = block.about[place] if block.about else ("", "")
                    yield Chosen(
                        document=Document(whole, block.ids[place], shard.source, *home, *about),
                        shard=shard.name,
                        text=whole if end < 0 else whole[:end],
                        n_tokens=int(rows.tokens[row]),
                        cut=end >= 0,
                        epoch=int(rows.epoch[row]),
                    )
