"""Which documents of which shards: seeded, clean, and exactly so many tokens."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from curate.corpus.shards import read_ranges
from curate.errors import UNREACHABLE, CurateError
from curate.mixing.decontaminate import Items, Leak, find_leaks
from curate.mixing.dedup import Seen, find_duplicate
from curate.mixing.weights import fill_by_share
from curate.records import Document, Index, Notify, Shard, silent
from curate.store.fingerprint import digest_bytes

Encode = Callable[[list[str]], list[npt.NDArray[np.int32]]]
Refill = Literal["order", "share"]

BATCH_DOCUMENTS = 128
BATCH_CHARS = 1_000_000
"""So many documents or characters, whichever is first, are filtered and counted together."""

CUT_TRIES = 64
"""Ends tried around one whose tokens are not as many as wanted."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One row of a mix."""

    document: Document
    shard: str
    text: str  # the document's, or its beginning where it is cut
    n_tokens: int  # of `text`
    cut: bool
    epoch: int  # from 0


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document that a filter took out, and why."""

    shard: str
    source: str
    id: str
    file_digest: str
    record: int
    reason: str  # leak, exact, near
    of: str  # the item of the target, or the document that stays
    words: str = ""  # that document and item share
    n_words: int = 0
    overlap: float = 0.0  # of shingles, for duplicates


@dataclass(slots=True)
class Filters:
    """What documents must pass, and the record of those that did not."""

    items: Items | None = None  # None: no decontamination
    seen: Seen | None = None  # None: duplicates stay
    dropped: list[Dropped] = field(default_factory=list)


@dataclass(slots=True)
class _Open:
    """How far a shard has been read; only numbers are kept between its visits."""

    shard: Shard
    order: npt.NDArray[np.int64]  # its documents in the order of the draw
    drawn: int = 0  # of `order`, so far
    kept: list[tuple[int, int]] = field(default_factory=list)  # (document, tokens), accepted
    repeated: int = 0  # of `kept`, so far, over all later epochs
    rest: tuple[int, int, int] | None = None  # (document, character, epoch): cut there
    given: int = 0  # tokens, over all epochs
    exhausted: bool = False


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
    notify: Notify = silent,
) -> Iterator[Chosen]:
    """Give documents of `budget` tokens in all, each shard its part, drawn at random.

    A shard's documents are drawn in an order that the seed and the shard's digest decide;
    the last one is cut where the shard's part ends, at the longest beginning whose tokens
    are exactly as many as wanted. What a shard lacks (filters took documents out) the
    others give, beginning with the rest of a document that was cut (a row of its own). One
    shard's text is in memory at a time.

    Args:
        index: where the shards are.
        shard_tokens: shard → its part in tokens (or any share of the budget), >= 0; the
            order of the names is the order in which the shards are read.
        budget: tokens in all.
        encode: texts → token ids, without special tokens.
        filters: decontamination and duplicates; what they take out is added to
            `filters.dropped`. None lets all through.
        max_epochs: times that a shard's accepted documents may be given.
        refill: `order`: the shards in the order of their names, each to its end, whatever
            their parts; `share`: each its part, and what one lacks comes from all shards of
            a part above zero in proportion, then from the rest.
        seed: of the draw.
        notify: progress in tokens.

    Yields:
        Documents shard by shard; a shortfall is made up at the end.

    Raises:
        CurateError: an unknown shard, an input that changed since the index, or too few
            tokens (exit code 6).
    """
    filters = filters or Filters()
    opened = _open_shards(index, shard_tokens, seed=seed)
    shares = np.array([float(shard_tokens[each.shard.name]) for each in opened])
    if budget <= 0 or max_epochs < 1 or not (shares >= 0).all() or shares.sum() <= 0:
        raise ValueError("budget > 0, max_epochs >= 1, parts >= 0 and not all 0 are needed")
    given, told = 0, 0
    while given < budget:
        if all(each.exhausted for each in opened):
            raise _too_few(given, budget, filters, max_epochs)
        parts = _split(opened, shares, max_epochs, budget=budget - given)
        for each, part in zip(opened, parts.tolist(), strict=True):
            wanted = budget - given if refill == "order" and not each.exhausted else part
            if wanted <= 0:
                continue
            for chosen in _give(each, wanted, index.corpus.text, encode, filters, max_epochs):
                given += chosen.n_tokens
                if given - told >= budget / 500 or given == budget:
                    notify("write the mix", float(given), float(budget))
                    told = given
                yield chosen


def cut_text(text: str, n_tokens: int, *, encode: Encode) -> tuple[str, int]:
    """Return the longest beginning of `text` found that encodes to exactly `n_tokens`.

    Tokens of a beginning mostly grow with its length, but merges make steps: where no end
    gives the number, the longest beginning with fewer tokens is returned.

    Args:
        text: encodes to more than `n_tokens`.
        n_tokens: wanted, > 0.
        encode: texts → token ids.

    Returns:
        The beginning and the number of its tokens.
    """

    def count(end: int) -> int:
        return len(encode([text[:end]])[0])

    high = min(len(text), max(64, 16 * n_tokens))
    while high < len(text) and count(high) <= n_tokens:
        high = min(len(text), 2 * high)
    last = bisect_right(range(high + 1), n_tokens, key=count) - 1
    if count(last) == n_tokens:
        return text[:last], n_tokens
    ends = [e for e in range(last + CUT_TRIES // 2, last - CUT_TRIES // 2, -1) if 0 < e <= high]
    sizes = [len(ids) for ids in encode([text[:end] for end in ends])]
    fitting = [(size, end) for end, size in zip(ends, sizes, strict=True) if size <= n_tokens]
    size, end = max(fitting, default=(0, 0))
    return text[:end], size


def _open_shards(index: Index, names: Iterable[str], *, seed: int) -> list[_Open]:
    known = {each.shard.name: each.shard for each in index.shards}
    opened = []
    for name in names:
        if name not in known:
            raise CurateError(f"shard {name}: not in the index; run curate rank again")
        shard = known[name]
        number = int(digest_bytes(shard.digest.encode())[:16], 16)
        order = np.random.default_rng([seed, number]).permutation(shard.n_documents)
        opened.append(_Open(shard=shard, order=order))
    return opened


def _split(
    opened: Sequence[_Open], shares: npt.NDArray[np.float64], epochs: float, *, budget: int
) -> npt.NDArray[np.int64]:
    """Split what is still wanted by shares among the shards that may have more."""
    spent = np.array([each.exhausted for each in opened])
    left = [int(each.shard.n_tokens * epochs) - each.given for each in opened]
    room = np.where(spent, 0, np.maximum(left, 0))
    if room.sum() < budget:  # counted by another tokenizer, a shard may have more than indexed
        room = np.where(spent, 0, budget)
    return fill_by_share(room, shares, budget=budget)


def _give(
    each: _Open, tokens: int, text: str, encode: Encode, filters: Filters, epochs: float
) -> Iterator[Chosen]:
    """Give up to `tokens` tokens of one shard: documents not drawn yet, then repetitions."""
    documents = list(read_ranges(each.shard, text=text))
    if len(documents) != each.shard.n_documents:
        raise CurateError(
            f"shard {each.shard.name}: {len(documents)} documents, {each.shard.n_documents} when "
            "it was indexed; run curate index again"
        )
    goal = each.given + tokens
    for number, start, n_tokens, epoch in _draw(each, documents, goal, encode, filters, epochs):
        document, wanted = documents[number], goal - each.given
        body, size = document.text[start:], n_tokens
        if n_tokens > wanted:
            body, size = cut_text(body, wanted, encode=encode)
            each.rest = (number, start + len(body), epoch)
        if size:
            each.given += size
            cut = start > 0 or size < n_tokens
            yield Chosen(document, each.shard.name, body, size, cut, epoch)
        if each.given >= goal:
            return
    each.exhausted = True


def _draw(
    each: _Open,
    documents: Sequence[Document],
    goal: int,
    encode: Encode,
    filters: Filters,
    epochs: float,
) -> Iterator[tuple[int, int, int, int]]:
    """Give (document, first character, tokens, epoch) from where the last visit ended."""
    if each.rest is not None:
        (number, start, epoch), each.rest = each.rest, None
        if size := len(encode([documents[number].text[start:]])[0]):
            yield number, start, size, epoch
    while each.drawn < len(each.order):
        batch = _batch(each, documents, goal - each.given)
        texts = [documents[number].text for number in batch]
        leaks = find_leaks(texts, filters.items) if filters.items else [None] * len(texts)
        sizes = [len(ids) for ids in encode(texts)]
        for number, leak, size in zip(batch, leaks, sizes, strict=True):
            each.drawn += 1
            if size and not _drops(documents[number], each.shard.name, leak, filters):
                each.kept.append((number, size))
                yield number, 0, size, 0
    most = int(epochs * sum(size for _, size in each.kept))
    while each.kept and each.given < most:
        number, size = each.kept[each.repeated % len(each.kept)]
        epoch = 1 + each.repeated // len(each.kept)
        if each.given + size > most and goal > most:
            return  # the cap ends inside this document: it is left out, not cut for the cap
        each.repeated += 1
        yield number, 0, size, epoch


def _batch(each: _Open, documents: Sequence[Document], wanted: int) -> list[int]:
    """Return the next documents of the draw: about as many as `wanted` tokens need."""
    chars, most = 0, min(BATCH_CHARS, 6 * wanted + 4096)
    batch: list[int] = []
    for number in each.order[each.drawn : each.drawn + BATCH_DOCUMENTS].tolist():
        batch.append(number)
        chars += len(documents[number].text)
        if chars >= most:
            break
    return batch


def _drops(document: Document, shard: str, leak: Leak | None, filters: Filters) -> bool:
    """Say whether a filter takes the document out, and write down which and why."""
    what = (shard, document.source, document.id, document.file_digest, document.record)
    if leak is not None:
        filters.dropped.append(Dropped(*what, "leak", leak.item, leak.words, leak.n_words))
        return True
    if filters.seen is None:
        return False
    name = f"{document.source}:{document.file_digest[:8]}:{document.record}"
    twin = find_duplicate(document.text, name, filters.seen)
    if twin is not None:
        filters.dropped.append(Dropped(*what, twin.kind, twin.kept, overlap=twin.overlap))
    return twin is not None


def _too_few(given: int, budget: int, filters: Filters, epochs: float) -> CurateError:
    leaks = sum(each.reason == "leak" for each in filters.dropped)
    out = f"{leaks} documents hold items of the target, {len(filters.dropped) - leaks} are copies"
    need = math.ceil(10 * epochs * budget / max(given, 1)) / 10
    return CurateError(
        f"budget {budget:,}: the corpus gives {given:,} tokens at {epochs:g} epochs ({out}); "
        f"allow --max-epochs {need:g}, index more data, or ask for at most {given:,}",
        exit_code=UNREACHABLE,
    )
