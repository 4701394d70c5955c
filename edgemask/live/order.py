"""Threads that work side by side, and what they have done in the order in which they began it."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Order"]

_LOOK_SECONDS = 0.2  # until a thread that waits sees that all was stopped


class Order:
    """Gives out numbers, and acts on what was finished in the order of the numbers.

    Parameters
    ----------
    most_ahead : int
        So much work may be finished before the first that is not; whoever is further waits.
    stopped : threading.Event
        Set: nobody waits any more, for one thread may hang and never finish.
    """

    def __init__(self, most_ahead: int, stopped: threading.Event) -> None:
        self._most_ahead = most_ahead
        self._stopped = stopped
        self._changed = threading.Condition()
        self._begun = 0
        self._next = 0
        self._finished: dict[int, Callable[[], None]] = {}

    def begin(self) -> int:
        """Return the next number, from 0; its holder must come to :meth:`finish`."""
        with self._changed:
            self._begun += 1
            return self._begun - 1

    def finish(self, number: int, act: Callable[[], None]) -> None:
        """Call `act` once that of every lower number was called: now, or by a later finisher."""
        with self._changed:
            self._finished[number] = act
            while self._next in self._finished:
                self._finished.pop(self._next)()
                self._next += 1
            self._changed.notify_all()
            while number - self._next >= self._most_ahead and not self._stopped.is_set():
                self._changed.wait(_LOOK_SECONDS)
