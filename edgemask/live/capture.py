"""The thread that reads a source and brings it back when it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgemask.errors import (
    CameraBusy,
    CameraMissing,
    InputError,
    SourceError,
    SourceTimeout,
)
from edgemask.live.mailbox import Mailbox
from edgemask.live.reopen import BACKOFF, Backoff, ended

if TYPE_CHECKING:
    from edgemask.sources import Frame, Source

__all__ = ["Arrival", "Capture", "Demand", "opener_of", "shown_name"]

_MOST_UNREAD = 100  # in a row: then it is not a bad file in a folder, but the source
_MOST_LEAD = 0.25  # seconds
_MOST_AGE = 10.0  # seconds

_STATES: tuple[tuple[type[Exception], str], ...] = (
    (CameraBusy, "busy"),
    (CameraMissing, "missing"),
    (SourceTimeout, "timeout"),
    (Exception, "failed"),
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame and when it came, in seconds of :func:`time.monotonic`.

    A board without a battery clock jumps by years when the network gives it the time, so latency
    is not measured with `wall_ns`.
    """

    frame: Frame
    at: float


class Demand:
    """When the next frame of a live source is wanted.

    Decoding every frame of a camera wastes the CPU that the network needs, decoding one ahead
    gives old frames, and decoding when asked makes the network wait. So the inference thread says
    when it expects to ask, and the frame is fetched just before that.
    """

    def __init__(self) -> None:
        self._at = 0.0
        self._changed = threading.Condition()

    def expect(self, at: float) -> None:
        """A frame will be wanted at this time, in seconds of :func:`time.monotonic`."""
        with self._changed:
            self._at = at
            self._changed.notify_all()

    def wait(self, lead: float, stopped: threading.Event) -> None:
        """Return `lead` seconds before a frame is wanted, or soon after `stopped` is set."""
        with self._changed:
            while not stopped.is_set():
                left = self._at - lead - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(min(left, 0.5))


@dataclass(slots=True)
class _Status:
    """Written by the capture thread, read by everybody: single assignments, no lock needed."""

    name: str = ""
    live: bool | None = None
    counted: bool = False
    state: str = "starting"
    error: str = ""
    failures: int = 0
    retry_at: float | None = None
    gaps: int = 0
    unopened: int = 0
    unread: int = 0


class Capture:
    """Reads frames into a mailbox in a thread of its own.

    A live source replaces the frame that waits, any other waits until it was taken. A source that
    cannot be opened, or a live one that fails, is tried again after `backoff[0]` seconds, twice
    as long each time, and `backoff[1]` at most; the first frame resets that. A file that cannot be
    read is counted and left out.

    Parameters
    ----------
    opener : callable
        Returns a new Source.
    frames : Mailbox of Arrival
        Closed by :meth:`stop`, and when a source that is not live ends.
    demand : Demand
        When live frames are wanted.
    name : str
        What to call the source until it is open.
    read_timeout : float
        Seconds without a frame after which a live source has failed.
    backoff : (float, float)
        Seconds.
    """

    def __init__(
        self,
        opener: Callable[[], Source],
        frames: Mailbox[Arrival],
        demand: Demand,
        *,
        name: str = "",
        read_timeout: float = 5.0,
        backoff: tuple[float, float] = BACKOFF,
    ) -> None:
        self._opener = opener
        self._frames = frames
        self._demand = demand
        self._read_timeout = read_timeout
        self._backoff = Backoff(*backoff)
        self._status = _Status(name)
        self._source: Source | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgemask-capture", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Stop reading; return whether the thread ended within `timeout` seconds."""
        self._stopped.set()
        self._frames.close()
        source = self._source
        if source is not None:
            # Closing wakes a read that waits. A driver that hangs must not take the caller along.
            threading.Thread(target=source.close, name="edgemask-close", daemon=True).start()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def unopened(self) -> int:
        """How often the source could not be opened."""
        return self._status.unopened

    @property
    def unread(self) -> int:
        """Files that could not be read."""
        return self._status.unread

    @property
    def gaps(self) -> int:
        """Frames that the source itself left out."""
        return self._status.gaps

    def status(self) -> dict[str, Any]:
        """Return ``name``, ``live``, ``state``, ``error``, ``failures`` and ``retry_in_s``.

        ``state`` is starting, running, busy, missing, timeout, failed, ended or stopped.
        """
        now = self._status
        at = now.retry_at
        return {
            "name": now.name or None,
            "live": now.live,
            "state": now.state,
            "error": now.error or None,
            "failures": now.failures,
            "retry_in_s": None if at is None else round(max(0.0, at - time.monotonic()), 1),
        }

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                status, received = self._status, 0
                error: Exception
                try:
                    for arrival in self._arrivals():
                        received += 1
                        if not self._frames.put(arrival, wait=not status.live):
                            return
                    if status.counted or not status.live:
                        status.state = "ended"
                        return
                    error = ended(status.name)
                except Exception as failure:
                    error = failure
                if self._stopped.is_set():
                    return
                status.state = next(name for kind, name in _STATES if isinstance(error, kind))
                status.error = str(error) or type(error).__name__
                status.failures += 1
                pause = self._backoff.after(error, received > 0)
                if pause is None:
                    return
                status.retry_at = time.monotonic() + pause
                self._stopped.wait(pause)
                status.retry_at = None
        finally:
            if self._stopped.is_set():
                self._status.state = "stopped"
            self._frames.close()

    def _arrivals(self) -> Iterator[Arrival]:
        """Open the source and yield what it gives until it ends or fails."""
        status = self._status
        try:
            source = self._opener()
        except Exception:
            status.unopened += 1
            raise
        self._source = source
        try:
            status.name, status.live = source.name, source.live
            # Never by `finite`: a service asks a camera that sends single pictures again.
            status.counted = source.length is not None
            last, lead, errors = -1, 0.0, 0
            while not self._stopped.is_set():
                if source.live:
                    self._demand.wait(lead, self._stopped)
                began = time.monotonic()
                try:
                    frame = source.read(self._read_timeout)
                except SourceError as error:
                    errors += 1
                    if source.live or errors > _MOST_UNREAD:
                        raise
                    status.unread += 1
                    status.error = str(error)
                    continue
                if frame is None:
                    return
                now = time.monotonic()
                lead = min(0.8 * lead + 0.2 * 1.5 * (now - began), _MOST_LEAD)
                # The age is taken here and at once, so that a step of the clock cannot spoil it.
                age = min(max((time.time_ns() - frame.wall_ns) * 1e-9, 0.0), _MOST_AGE)
                status.gaps += max(0, frame.index - last - 1)
                last, errors = frame.index, 0
                if status.state != "running":
                    status.state, status.error = "running", ""
                yield Arrival(frame, now - age)
        finally:
            self._source = None
            source.close()


def opener_of(source: str | Callable[[], Source]) -> Callable[[], Source]:
    """Return a function that opens a source's URI, or the function that was given."""
    if not isinstance(source, str):
        return source
    if not source:
        raise InputError("the source is empty: give a camera, a file or a URL, such as camera:0")

    def open_it() -> Source:
        from edgemask.sources import open_source

        return open_source(source)

    return open_it


def shown_name(source: str | Callable[[], Source]) -> str:
    """Return what to call a source that is not open yet: without any password."""
    if not isinstance(source, str):
        return ""
    from edgemask.sources.uri import redact

    return redact(source)
