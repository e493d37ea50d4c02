"""What will be needed next is made while the last is worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

_END = object()


def ahead(items: Iterable[T], *, most: int) -> Generator[T, None, None]:
    """Yield the items in order while a thread makes at most `most` of them in advance.

    An error of the items is raised here, in its turn. When this iterator is closed, the thread
    stops after the item that it is making.

    Args:
        items: made one by one, in the thread.
        most: > 0, items that wait at a time.
    """
    waiting: queue.Queue[object] = queue.Queue(maxsize=most)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, waiting, stop), daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Raised):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        with suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        thread.join()


class _Raised:
    """An error on its way from the thread."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _fill(items: Iterable[object], waiting: queue.Queue[object], stop: threading.Event) -> None:
    try:
        for item in items:
            if not _put(item, waiting, stop):
                return
    except BaseException as error:  # it is raised where the items are wanted
        _put(_Raised(error), waiting, stop)
        return
    _put(_END, waiting, stop)


def _put(item: object, waiting: queue.Queue[object], stop: threading.Event) -> bool:
    while not stop.is_set():
        with suppress(queue.Full):
            waiting.put(item, timeout=0.1)
            return True
    return False
