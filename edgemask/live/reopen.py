"""Opening a source again that has failed: when, how often, and what its frames are called then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING

from edgemask.errors import InputError, RuntimeUnavailable, SourceError

if TYPE_CHECKING:
    from edgemask.sources import Frame, Source

__all__ = ["BACKOFF", "Backoff", "ended", "reopening"]

BACKOFF = (0.5, 30.0)
"""Seconds of the first and of the longest pause between two attempts."""

_HOPELESS = (InputError, RuntimeUnavailable)  # now and for ever


def ended(name: str) -> SourceError:
    """Return the error that stands for the end of a source that should have none."""
    return SourceError(f"{name} ended: check what sends it")


class Backoff:
    """The pauses between attempts to open a source: twice as long each time, and bounded.

    Parameters
    ----------
    first, longest : float
        Seconds.
    attempts : int, optional
        How many are made in a row without a frame; None for ever.
    """

    def __init__(self, first: float, longest: float, attempts: int | None = None) -> None:
        self._first, self._longest, self._attempts = first, longest, attempts
        self._made = 0

    def after(self, error: Exception, received: bool) -> float | None:
        """Return the pause before the next attempt in seconds; None if there is to be none.

        Parameters
        ----------
        error : Exception
            Why the source has failed.
        received : bool
            Whether it had given a frame since it was opened, with which the count starts anew.
        """
        if isinstance(error, _HOPELESS):
            return None
        if received:
            self._made = 0
        if self._attempts is not None and self._made >= self._attempts:
            return None
        pause = min(self._first * 2.0 ** min(self._made, 60), self._longest)
        self._made += 1
        return pause


def reopening(
    source: Source,
    opener: Callable[[], Source],
    backoff: Backoff,
    report: Callable[[str], None],
    wait: Callable[[float], object] = time.sleep,
) -> Generator[Frame, None, None]:
    """Yield the frames of a live source, and open it again when it stops without being finite.

    A source that stops before its first frame is not: its address is probably wrong.

    Parameters
    ----------
    source : Source
        Open. All sources are closed at the end.
    opener : callable
        Returns another one.
    backoff : Backoff
    report : callable
        Gets one line when the source has stopped, whatever the number of attempts then.
    wait : callable
        Gets seconds.

    Yields
    ------
    Frame
        Numbered on through all openings, in `index` and `name`.

    Raises
    ------
    SourceError
        What happened last, when the attempts are used up.
    """
    following = 0
    current: Source | None = source
    while True:
        received, error = False, ended(source.name)
        try:
            current = current or opener()
            with contextlib.closing(current):
                start = following
                for frame in current:
                    received = True
                    index = start + frame.index
                    following = index + 1
                    stem = frame.name.removesuffix(f"-{frame.index:06d}")
                    named = stem != frame.name
                    name = f"{stem}-{index:06d}" if named else stem
                    yield replace(frame, index=index, name=name)
                if current.length is not None or current.finite:
                    return
        except (SourceError, *_HOPELESS) as failure:
            error = failure  # type: ignore[assignment]
        current = None
        pause = backoff.after(error, received) if following else None
        if pause is None:
            raise error
        if received:
            report(f"{error} (trying again)")
        wait(pause)
