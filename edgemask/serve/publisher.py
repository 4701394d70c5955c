"""Turning results into what browsers read, once per frame whatever the number of readers."""

from __future__ import annotations

import io
import json
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from PIL import Image

from edgemask.live.result import Result, summary
from edgemask.overlay import PALETTE, draw
from edgemask.serve.broadcast import Broadcast

if TYPE_CHECKING:
    from edgemask.instances import Instances
    from edgemask.live.engine import Engine
    from edgemask.sources import Frame

__all__ = ["MAX_SIDE", "Publisher", "event", "jpeg"]

MAX_SIDE = 1280
"""Longer side of the pictures that are sent, in pixels: more than a phone shows."""

_QUALITY = 80
_PATIENCE = 0.25
_STATUS_SECONDS = 0.5


def jpeg(frame: Frame, instances: Instances) -> bytes:
    """Draw instances over their frame and encode it, MAX_SIDE at most on its longer side."""
    picture = Image.fromarray(draw(frame.rgb, instances))
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def event(result: Result) -> bytes:
    """Return :func:`edgemask.live.result.summary` as JSON, each instance with its ``color``.

    The colour, ``#rrggbb``, is the one of the overlay; None where the overlay chooses by place.
    """
    record = summary(result)
    for n, instance in enumerate(record["instances"]):
        index = n if instance["track_id"] is None else instance["track_id"]
        known = instance["track_id"] is not None or n < len(PALETTE)
        colour = PALETTE[index % len(PALETTE)]
        instance["color"] = "#{:02x}{:02x}{:02x}".format(*colour) if known else None
    return json.dumps(record, allow_nan=False, separators=(",", ":")).encode()


class Publisher:
    """A thread that draws and encodes what is read at the moment, and nothing else.

    Attributes
    ----------
    pictures : Broadcast
        JPEG files with the instances drawn.
    events : Broadcast
        :func:`event` of each frame.
    """

    def __init__(self, engine: Engine) -> None:
        self.pictures = Broadcast()
        self.events = Broadcast()
        self._engine = engine
        # Drawing takes half as long as a frame. Where one thread segments, this one can do it
        # meanwhile; where several do, there is no core left for it, and they are sooner.
        self._results = (
            engine.subscribe(engine.parallel, self._prepare)
            if engine.parallel > 1
            else engine.subscribe()
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgemask-publish", daemon=True)
        self._status: tuple[float, dict[str, Any]] = (float("-inf"), {})
        self._lock = threading.Lock()
        self._drawn = self._described = -1  # the frames that were published last

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> bool:
        """End the broadcasts and the thread; return whether it ended in time."""
        self._stopped.set()
        self._results.close()
        self.pictures.close()
        self.events.close()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def status(self) -> dict[str, Any]:
        """Return the engine's status, made anew every half second at most."""
        with self._lock:
            at, status = self._status
            if time.monotonic() - at > _STATUS_SECONDS:
                status = self._engine.status()
                self._status = time.monotonic(), status
            return status

    def picture(self, timeout: float) -> bytes | None:
        """Return a picture of the next frame, or the last one of a source that has stopped."""
        with self.pictures.reading():
            found = self.pictures.wait(self.pictures.number, timeout)
            found = found or self.pictures.wait(0, 0)
        return None if found is None else found[1]

    def _prepare(self, frame: Frame, instances: Instances) -> bytes | None:
        return jpeg(frame, instances) if self.pictures.readers else None

    def _run(self) -> None:
        last: Result | None = None
        while not self._stopped.is_set():
            last = self._results.get(_PATIENCE) or last
            if self._results.finished:  # then get() does not wait
                self._stopped.wait(_PATIENCE)
            if last is None:
                continue
            try:
                self._publish(last)
            except Exception as error:  # one bad frame must not end the page
                warnings.warn(
                    f"a frame was not shown ({type(error).__name__}: {error})", stacklevel=1
                )

    def _publish(self, last: Result) -> None:
        # Without readers nothing is made; a reader who comes late still gets the last frame.
        if self.events.readers and self._described != last.sequence:
            self._described = last.sequence
            self.events.publish(event(last))
        if self.pictures.readers and self._drawn != last.sequence:
            self._drawn = last.sequence
            picture = last.prepared or jpeg(last.frame, last.instances)
            self.pictures.publish(picture)
