"""Noticing that no results come any more, whatever the pace they came at."""

from __future__ import annotations

from collections import deque

__all__ = ["Silence"]


class Silence:
    """Tells once when nothing has been heard for much longer than it usually takes.

    Parameters
    ----------
    patience : float
        Seconds, to which three of the usual interval are added: the shorter of the last two, so
        that one outage does not count and a new, slower pace does.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._last: float | None = None
        self._intervals: deque[float] = deque(maxlen=2)
        self._told = False

    def heard(self, now: float) -> None:
        """Take the time of a result, in seconds of a clock that never goes back."""
        if self._last is not None:
            self._intervals.append(now - self._last)
        self._last, self._told = now, False

    def begins(self, now: float) -> bool:
        """Return whether it is silent, the first time that it is; never before a result."""
        if self._last is None or self._told:
            return False
        usual = min(self._intervals, default=0.0)
        self._told = now - self._last > self._patience + 3 * usual
        return self._told
