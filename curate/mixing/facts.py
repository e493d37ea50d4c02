"""What is known of the documents of a shard, in the order in which a mix draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.corpus.prints import Prints
from curate.mixing.decontaminate import Leak
from curate.records import Shard
from curate.store.fingerprint import digest_bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the documents of one shard, in the order of the draw: arrays (n,)."""

    number: npt.NDArray[np.int64]  # of the document in its shard
    file: npt.NDArray[np.int32]  # of the shard's ranges
    record: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    value: npt.NDArray[np.uint64]
    signature: npt.NDArray[np.uint16]  # (n, BINS)
    shingles: npt.NDArray[np.int64]
    leaks: dict[int, Leak]  # place in these arrays → leak
    prints: Prints  # of all documents of the shard, by number

    def id_of(self, place: int) -> str:
        """Return the id of a document by its place in the draw."""
        return str(self.prints.ids[int(self.number[place])].as_py())

    def home_of(self, place: int, shard: Shard) -> tuple[str, int]:
        """Return the digest of the input file that a document comes from, and its record there."""
        number = int(self.number[place])
        home = self.prints.homes[number].as_py()
        if home is None:
            return shard.ranges[int(self.file[place])].file_digest, int(self.record[place])
        return home, int(self.prints.home_records[number].as_py())


def draw_order(shard: Shard, *, seed: int) -> npt.NDArray[np.int64]:
    """Return the documents of a shard in the order in which a mix takes them."""
    number = int(digest_bytes(shard.digest.encode())[:16], 16)
    return np.random.default_rng([seed, number]).permutation(shard.n_documents)


def facts_of(
    prints: Prints,
    order: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.integer],
    leaks: Mapping[int, Leak],
) -> Facts:
    """Return what is known of the documents `order` (numbers in the shard), in that order.

    Args:
        prints: of all documents of the shard.
        order: (n,) of the draw.
        tokens: of all documents of the shard.
        leaks: number of a document in the shard → leak.
    """
    place_of = dict(zip(order.tolist(), range(len(order)), strict=True)) if leaks else {}
    return Facts(
        number=order,
        file=prints.file[order],
        record=prints.record[order],
        tokens=tokens.astype(np.int64)[order],
        value=prints.value[order],
        signature=prints.signature[order],
        shingles=prints.shingles[order],
        leaks={place_of[n]: leak for n, leak in sorted(leaks.items()) if n in place_of},
        prints=prints,
    )
