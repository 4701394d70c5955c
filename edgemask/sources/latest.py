"""Handing the newest frame from one thread to another."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

__all__ = ["LatestSlot"]

T = TypeVar("T")


class LatestSlot(Generic[T]):
    """Room for one value: a writer that never waits, and readers that get the newest.

    A queue between a camera and a slower network would only grow old. Here a value that nobody took
    in time is replaced and counted.

    Attributes
    ----------
    dropped : int
        Values that were replaced before anybody took them.

    Examples
    --------
    >>> slot = LatestSlot()
    >>> slot.put("first"), slot.put("second")
    (None, None)
    >>> slot.get(timeout=0), slot.dropped
    ('second', 1)
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._value: T | None = None
        self._full = False
        self._closed = False
        self.dropped = 0

    @property
    def closed(self) -> bool:
        """Whether no further value can come, and none is left."""
        with self._changed:
            return self._closed and not self._full

    def put(self, value: T) -> None:
        """Offer a value in place of the one before; after :meth:`close` it is thrown away."""
        with self._changed:
            if self._closed:
                return
            self.dropped += self._full
            self._value, self._full = value, True
            self._changed.notify()

    def get(self, timeout: float | None = None) -> T | None:
        """Take the newest value, waiting for one if there is none.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None waits for ever.

        Returns
        -------
        T or None
            None when the time is over, or when the slot is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._full or self._closed, timeout)
            value, self._value, self._full = self._value, None, False
            return value

    def close(self) -> None:
        """Wake every reader; a value that is still there can be taken. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
