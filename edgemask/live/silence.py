"""Noticing that no results come any more, whatever the pace they came at."""

from __future__ import annotations

__all__ = ["Silence"]


class Silence:
    """Tells once when nothing has been heard for much longer than it usually takes.

    Parameters
    ----------
    patience : float
        Seconds, to which three of the last interval are added.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._last: float | None = None
        self._interval = 0.0
        self._told = False

    def heard(self, now: float) -> None:
        """Take the time of a result, in seconds of a clock that never goes back."""
        # What passed while the source was away says nothing about its pace.
        if self._last is not None and not self._told:
            self._interval = now - self._last
        self._last, self._told = now, False

    def begins(self, now: float) -> bool:
        """Return whether it is silent, the first time that it is; never before a result."""
        if self._last is None or self._told:
            return False
        self._told = now - self._last > self._patience + 3 * self._interval
        return self._told
