"""The newest of something, for any number of readers who each take their own time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Broadcast"]


class Broadcast:
    """One payload at a time, shared and never copied. A slow reader misses what came meanwhile."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._payload = b""
        self._closed = False
        self._readers = 0

    def publish(self, payload: bytes) -> None:
        """Replace the payload and wake whoever waits."""
        with self._changed:
            self._number += 1
            self._payload = payload
            self._changed.notify_all()

    def wait(self, after: int, timeout: float) -> tuple[int, bytes] | None:
        """Return a payload newer than number `after` (0: any), with its number.

        None if there was none within `timeout` seconds, or if the broadcast is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number > after, timeout)
            if self._closed or self._number <= after:
                return None
            return self._number, self._payload

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count as a reader; without any, nobody needs to make payloads."""
        with self._changed:
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1

    @property
    def readers(self) -> int:
        """How many read now."""
        return self._readers

    @property
    def number(self) -> int:
        """The number of the newest payload; 0 before the first."""
        return self._number

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed

    def close(self) -> None:
        """End it for all readers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
