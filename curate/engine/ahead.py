"""What will be needed next is made in a thread while the last is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")

_END = object()


def ahead(items: Iterable[T], *, most: int) -> Generator[T, None, None]:
    """Yield the items in order while a thread makes the next ones, and one more, in advance.

    An error of the items is raised here, in its turn. When this iterator is closed, the thread
    stops after the item that it is making. It pays where making an item leaves the interpreter
    to others, as unpacking and reading do.

    Args:
        items: a generator, used by no one else; made one by one, in the thread.
        most: >= 0, items that wait at a time while another is made.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
    try:
        waiting = deque(pool.submit(next, source, _END) for _ in range(most + 1))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, source, _END))
            yield cast(T, item)
    finally:
        pool.shutdown(cancel_futures=True)
