"""Handing items from one thread to another with a bound.

A full box either makes the writer wait (files: every frame counts) or forgets its oldest item
(cameras and subscribers: only the newest matters). Order is kept in both.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A bounded, closable queue between threads.

    Parameters
    ----------
    maxsize : int
        Items that may wait, 1 or more.
    on_drop : callable, optional
        Gets each item that is forgotten; must not use the box.

    Attributes
    ----------
    dropped : int
        Items forgotten so far.
    """

    def __init__(
        self, maxsize: int = 1, on_drop: Callable[[T], object] = lambda item: None
    ) -> None:
        self.dropped = 0
        self._on_drop = on_drop
        self._maxsize = max(1, maxsize)
        self._items: deque[T] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T, *, wait: bool = False) -> bool:
        """Add an item, in a full box after waiting for room or in place of the oldest.

        Returns
        -------
        bool
            Whether it was taken; a closed box takes nothing.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or len(self._items) < self._maxsize)
            if self._closed:
                return False
            if len(self._items) == self._maxsize:
                self._on_drop(self._items.popleft())
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, timeout: float | None = None) -> T | None:
        """Return the oldest item; None after `timeout` seconds, or once the box is finished."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._items), timeout)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Take no more items; what waits can still be read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def finished(self) -> bool:
        """Whether the box is closed and empty."""
        with self._changed:
            return self._closed and not self._items

    def __iter__(self) -> Iterator[T]:
        """Yield items until the box is finished."""
        while (item := self.get()) is not None:
            yield item
