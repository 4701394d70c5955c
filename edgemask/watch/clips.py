"""Short films of events, from a few seconds before to a few seconds after.

What comes before an event must have been kept, and a second of a camera is dozens of megabytes. So
frames are made small, few a second, and kept as JPEG, in a ring that is bounded by time and bytes.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.errors import RuntimeUnavailable
from edgemask.live.mailbox import Mailbox
from edgemask.settings import EventSettings
from edgemask.watch.event import Event

__all__ = ["Clip", "ClipMaker", "Ring", "encode", "require"]

MAX_SIDE = 640
"""Longer side of a clip in pixels."""

_SECOND = 1_000_000_000
_QUALITY = 80
_MOST_BYTES = 16_000_000
_MOST_WANTED = 8  # events whose clips are not complete
_WAITING = _MOST_WANTED  # complete clips that are not encoded; they share their pictures


def require() -> None:
    """See to it that clips can be made.

    Raises
    ------
    RuntimeUnavailable
        PyAV is not installed.
    """
    from edgemask.sources.video import import_av

    try:
        import_av()
    except RuntimeUnavailable as error:
        raise RuntimeUnavailable(
            "events.clip needs PyAV, which does not import; install it (pip install "
            "'edgemask[video]', or apt install python3-av), or set clip = false"
        ) from error


@dataclass(frozen=True, slots=True)
class Clip:
    """What was seen about an event.

    Attributes
    ----------
    event : Event
    shots : tuple of (int, bytes)
        Time in nanoseconds, in ascending order, and JPEG. One at least.
    """

    event: Event
    shots: tuple[tuple[int, bytes], ...]


@dataclass
class Ring:
    """The last seconds of a camera, and the clips that are cut out of them. Knows no clock.

    Parameters
    ----------
    before_ns, after_ns : int
        How much of the time about an event belongs to its clip.
    period_ns : int
        Least time between two frames that are kept.
    most_bytes : int
        Of all frames that are kept; the oldest give way.
    """

    before_ns: int
    after_ns: int
    period_ns: int
    most_bytes: int = _MOST_BYTES
    kept_bytes: int = field(default=0, init=False)
    _shots: deque[tuple[int, bytes]] = field(default_factory=deque, init=False)
    _wanted: deque[tuple[int, Event]] = field(default_factory=deque, init=False)

    def add(self, now_ns: int, rgb: NDArray[np.uint8]) -> list[Clip]:
        """Take a frame, uint8 RGB (H, W, 3), and return the clips that are complete without it."""
        ready = []
        while self._wanted and now_ns > self._wanted[0][0] + self.after_ns:
            ready += self._cut()
        # A little early is in time, or a camera of 10 frames a second would give 3 in place of 5.
        if not self._shots or now_ns - self._shots[-1][0] >= self.period_ns * 0.9:
            picture = _jpeg(rgb)
            self._shots.append((now_ns, picture))
            self.kept_bytes += len(picture)
        needed = (self._wanted[0][0] if self._wanted else now_ns) - self.before_ns
        while self._shots and (
            self._shots[0][0] < needed
            or (self.kept_bytes > self.most_bytes and len(self._shots) > 1)
        ):
            self.kept_bytes -= len(self._shots.popleft()[1])
        return ready

    def want(self, now_ns: int, event: Event) -> bool:
        """Make a clip of an event when its time has come; return whether that was promised."""
        if len(self._wanted) >= _MOST_WANTED:
            return False
        self._wanted.append((now_ns, event))
        return True

    def flush(self) -> list[Clip]:
        """Return the clips that were promised as far as there are frames: no more will come."""
        ready = []
        while self._wanted:
            ready += self._cut()
        return ready

    def _cut(self) -> list[Clip]:
        at, event = self._wanted.popleft()
        first, last = at - self.before_ns, at + self.after_ns
        shots = tuple(shot for shot in self._shots if first <= shot[0] <= last)
        return [Clip(event, shots)] if shots else []


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(rgb)
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def encode(clip: Clip) -> bytes:
    """Return a clip as MP4, at the pace at which it was seen; one picture is unpacked at a time."""
    from edgemask.mp4 import Mp4

    film, size, buffer = None, (0, 0), io.BytesIO()
    for time_ns, picture in clip.shots:
        with Image.open(io.BytesIO(picture)) as image:
            rgb = np.asarray(image.convert("RGB"))
        if film is None:
            size = rgb.shape[:2]
            film = Mp4(buffer, *size)
        if rgb.shape[:2] == size:  # a camera may come back with another
            film.add(rgb, time_ns - clip.shots[0][0])
    if film is not None:
        film.close()
    return buffer.getvalue()


class ClipMaker:
    """Cuts and encodes clips, the latter in a thread of its own.

    Only one thread may call :meth:`add`, :meth:`want` and :meth:`flush`.

    Parameters
    ----------
    settings : EventSettings
    deliver : callable
        Gets an event and its MP4, in the thread.

    Attributes
    ----------
    failed : int
        Clips that could not be encoded.
    """

    def __init__(self, settings: EventSettings, deliver: Callable[[Event, bytes], None]) -> None:
        self.failed = 0
        self._refused = 0
        self._deliver = deliver
        self._ring = Ring(
            round(settings.clip_before * _SECOND),
            round(settings.clip_after * _SECOND),
            round(_SECOND / settings.clip_fps),
        )
        self._clips: Mailbox[Clip] = Mailbox(_WAITING)
        self.thread = threading.Thread(target=self._run, name="edgemask-clips", daemon=True)
        self.thread.start()

    def add(self, now_ns: int, rgb: NDArray[np.uint8]) -> None:
        """Take a frame, uint8 RGB (H, W, 3), at a time on a clock that never goes back."""
        self._put(self._ring.add(now_ns, rgb))

    def want(self, now_ns: int, event: Event) -> None:
        """Make a clip of an event."""
        self._refused += not self._ring.want(now_ns, event)

    def flush(self) -> None:
        """Complete what was begun: for a while there will be no frames."""
        self._put(self._ring.flush())

    def close(self) -> None:
        """Complete what was begun and let the thread end."""
        self.flush()
        self._clips.close()

    def status(self) -> dict[str, Any]:
        """Return counters, JSON-ready."""
        dropped = self._clips.dropped + self._refused
        return {"failed": self.failed, "dropped": dropped, "kept_bytes": self._ring.kept_bytes}

    def _put(self, clips: list[Clip]) -> None:
        for clip in clips:
            self._clips.put(clip)

    def _run(self) -> None:
        for clip in self._clips:
            try:
                film = encode(clip)
            except Exception:  # whatever a codec raises: the event itself has long been told
                self.failed += 1
                continue
            self._deliver(clip.event, film)
