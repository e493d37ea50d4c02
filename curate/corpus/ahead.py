"""The next items of an iterator are made in a thread while this one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")

DEPTH = 2
"""Items that wait, at most."""

_END = object()


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Give what `items` gives, in its order, and raise what it raises in its place.

    It pays where making an item leaves the interpreter to others, as unpacking does.

    Args:
        items: used by no one else; by the time that the caller stops, up to `DEPTH` items more
            than were given have been taken of it.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as pool:
        waiting: deque[Future[object]] = deque()
        while True:
            while len(waiting) < DEPTH:
                waiting.append(pool.submit(next, items, _END))
            item = waiting.popleft().result()
            if item is _END:
                return
            yield cast(T, item)
