"""What an event is, and how it is written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from edgemask.watch.rules import Sighting

__all__ = ["SCHEMA", "Event"]

SCHEMA = "edgemask.event/1"


@dataclass(frozen=True, slots=True)
class Event:
    """Somebody entered or left a zone.

    Attributes
    ----------
    number : int
        1, 2, 3… since the start.
    kind : str
        ``enter`` or ``leave``.
    zone, slug : str
        The zone's name, and the name as it appears in topics and file names.
    sighting : Sighting
        The last one in the zone.
    track : int
        The same for the entering and the leaving of one visit.
    seconds : float
        In the zone so far.
    count : int
        How many are in the zone now.
    wall_ns : int
        Time of the frame, nanoseconds since 1970.
    sensor_ns : int or None
    frame : str
        The frame's name.
    size : (int, int)
        Height and width of the image.
    """

    number: int
    kind: str
    zone: str
    slug: str
    sighting: Sighting
    track: int
    seconds: float
    count: int
    wall_ns: int
    sensor_ns: int | None
    frame: str
    size: tuple[int, int]

    @property
    def id(self) -> str:
        """Time, zone and kind, fit for a file name; two events never share it."""
        seconds, rest = divmod(self.wall_ns, 1_000_000_000)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
        return f"{stamp}{rest // 1_000_000:03d}Z-{self.slug[:40]}-{self.kind}-{self.number}"

    def to_dict(self, snapshot: str | None = None, clip: str | None = None) -> dict[str, Any]:
        """Return the event as plain Python objects, ready for :func:`json.dumps`.

        Parameters
        ----------
        snapshot : str, optional
            Path of the picture, if there is one.
        clip : str, optional
            Path of the film. With one, this is what is told when the film is there: an event of the
            kind ``clip``, which names the other as its ``event``.
        """
        seconds, rest = divmod(self.wall_ns, 1_000_000_000)
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        return {
            "schema": SCHEMA,
            "id": self.id if clip is None else f"{self.id}-clip",
            "kind": self.kind if clip is None else "clip",
            "zone": self.zone,
            "class": self.sighting.class_name,
            "score": round(self.sighting.score, 4),
            "box": [round(value, 2) for value in self.sighting.box],
            "track": self.track,
            "seconds": round(self.seconds, 3),
            "count": self.count,
            "time": f"{clock}.{rest // 1_000_000:03d}Z",
            "wall_ns": self.wall_ns,
            "sensor_ns": self.sensor_ns,
            "frame": self.frame,
            "size": list(self.size),
            "snapshot": snapshot,
            **({} if clip is None else {"clip": clip, "event": self.id}),
        }
