"""The control set: held-out documents of the natural mix, on which the price of a mix shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from curate.corpus.tokens import Encode
from curate.mixing.dedup import Seen, normalise
from curate.mixing.documents import Filters, select_documents
from curate.mixing.items import Items
from curate.records import Index
from curate.store.fingerprint import digest_bytes

HEAD = 200
"""Characters by which a document of the mix is known, also where the mix holds a part of it."""

DRAWN = 3
"""Documents drawn per document wanted: some are in the mix."""

OTHER_ORDER = 7_919
"""Added to the seed: mix and arms take the first documents of the seed's own order."""


def draw_control_set(
    index: Index,
    mix_texts: Iterable[str],
    *,
    encode: Encode,
    items: Items | None,
    count: int,
    seed: int,
) -> list[str]:
    """Return documents of the corpus in natural proportions that are not in the mix.

    Fewer than asked for where copies and leaks leave fewer, none where they leave none.

    A shard that the mix holds whole has none left: the set leans to what the mix left out, so
    that the price it shows is an upper one.

    Args:
        index: of the corpus.
        mix_texts: of every row of the mix.
        encode: texts → token ids.
        items: of the target: what holds one is left out; None lets all through.
        count: documents, at most.
        seed: of the draw.

    Returns:
        Distinct texts that share neither their beginning nor, after NFKC and lower case, the
        whole with a document of the mix.
    """
    tokens = sum(each.shard.n_tokens for each in index.shards)
    documents = sum(each.shard.n_documents for each in index.shards)
    if count <= 0 or not documents:
        return []
    budget = max(1, min(tokens // 4, DRAWN * count * tokens // documents))
    natural = {each.shard.name: float(each.shard.n_tokens) for each in index.shards}
    heads = {_head(text) for text in mix_texts}
    drawn = select_documents(
        index,
        natural,
        budget=budget,
        encode=encode,
        filters=Filters(items=items, seen=Seen(near=False)),
        seed=seed + OTHER_ORDER,
        at_most=True,
    )
    texts = [each.text for each in drawn if not each.cut and _head(each.text) not in heads]
    kept = np.random.default_rng(seed).permutation(len(texts))[:count]
    return [texts[number] for number in sorted(kept.tolist())]


def held_out(control: Iterable[str]) -> Callable[[str], bool]:
    """Return the function that tells a document of the control set, or a copy word for word."""
    digests = {_digest(text) for text in control}
    return lambda text: _digest(text) in digests


def _digest(text: str) -> str:
    return digest_bytes(normalise(text).encode("utf-8", "surrogatepass"))


def _head(text: str) -> str:
    return digest_bytes(normalise(text[: 4 * HEAD])[:HEAD].encode("utf-8", "surrogatepass"))
