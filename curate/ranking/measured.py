"""What a method finds about some shards, and how it reads what the index holds of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from curate.ranking.stats import Influences
from curate.records import Embedding, Index, IndexedShard, Notify
from curate.task2vec.reading import load_embedding, load_unigrams

if TYPE_CHECKING:
    from curate.records import Counts, Floats

T = TypeVar("T")

EXACT_UP_TO = 20_000  # shards; of more, the shortlist alone is aligned: a minute against two s
SHORTLIST = 1_000


@dataclass(frozen=True, slots=True)
class Measured:
    """What a method found about some shards, before they are put in order."""

    shards: tuple[IndexedShard, ...]
    values: Floats  # (K,)
    influence: Influences
    ceiling: float = 0.0
    floor: float = 0.0
    warnings: tuple[str, ...] = ()
    target: Embedding | None = None  # where the method embedded the target
    words: Floats | None = None  # (vocab,) of the target, where the method counted them
    logs: bool = False  # the values are logarithms of alignments


def shortened(there: int, kept: int, which: str) -> str:
    """Return the warning of a ranking that leaves shards out."""
    return f"of {there:,} shards the {kept:,} {which} are ranked; --exact ranks all"


def read_embeddings(
    shards: tuple[IndexedShard, ...], index: Index, notify: Notify
) -> Iterator[Embedding]:
    """Read the embeddings of some shards one by one."""
    yield from _read_each(load_embedding, shards, index, notify)


def read_unigrams(
    shards: tuple[IndexedShard, ...], index: Index, notify: Notify
) -> Iterator[Counts]:
    """Read only the token counts (vocab,) of some shards one by one."""
    yield from _read_each(load_unigrams, shards, index, notify)


def _read_each(
    load: Callable[[Path, str], T], shards: tuple[IndexedShard, ...], index: Index, notify: Notify
) -> Iterator[T]:
    for number, entry in enumerate(shards, start=1):
        yield load(Path(index.folder), entry.key)
        notify("ranking shards", number, len(shards))
