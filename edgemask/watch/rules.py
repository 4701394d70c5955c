"""When somebody has entered a zone and when they have left it. No clock, no disk, no image."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from edgemask.settings import ZoneSettings

__all__ = ["Change", "Sighting", "ZoneRule"]

_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is known about somebody in a zone.

    Attributes
    ----------
    class_name : str
    score : float
        In [0, 1].
    box : tuple of 4 float
        x0 y0 x1 y1 in pixels.
    """

    class_name: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Change:
    """Somebody entered a zone or left it.

    Attributes
    ----------
    kind : str
        ``enter`` or ``leave``.
    track : int
    sighting : Sighting
        The last one in the zone.
    seconds : float
        From the first sighting in the zone to the last.
    """

    kind: str
    track: int
    sighting: Sighting
    seconds: float


@dataclass(slots=True)
class _Visit:
    since_ns: int
    last_ns: int
    sighting: Sighting
    entered: bool = False
    announced: bool = False


class ZoneRule:
    """Follows the visits to one zone.

    Somebody who stays ``min_seconds`` has entered. Being seen outside before that starts the count
    anew; merely not being found does not, until ``leave_seconds`` have passed. Somebody who has
    entered has left when they were not seen inside for ``leave_seconds``. After an announced
    entry, others within ``cooldown`` count but are not announced, and neither is their leaving.
    """

    def __init__(self, settings: ZoneSettings) -> None:
        self._min_ns = round(settings.min_seconds * _SECOND)
        self._leave_ns = round(settings.leave_seconds * _SECOND)
        self._cooldown_ns = round(settings.cooldown * _SECOND)
        self._quiet_until_ns: int | None = None
        self._visits: dict[int, _Visit] = {}

    @property
    def count(self) -> int:
        """How many are in the zone and have entered it."""
        return sum(visit.entered for visit in self._visits.values())

    def update(
        self, now_ns: int, inside: Mapping[int, Sighting], outside: Set[int]
    ) -> list[Change]:
        """Take one frame.

        Parameters
        ----------
        now_ns : int
            Time of the frame; not before that of the last one.
        inside : mapping of int to Sighting
            The tracks that are seen in the zone.
        outside : set of int
            The tracks that are seen elsewhere.

        Returns
        -------
        list of Change
            Leaving first.
        """
        changes = self._expired(now_ns, inside, outside)
        for track, sighting in inside.items():
            visit = self._visits.get(track)
            if visit is None:
                visit = self._visits[track] = _Visit(now_ns, now_ns, sighting)
            visit.last_ns, visit.sighting = now_ns, sighting
            if visit.entered or now_ns - visit.since_ns < self._min_ns:
                continue
            visit.entered = True
            if self._quiet_until_ns is None or now_ns >= self._quiet_until_ns:
                visit.announced = True
                self._quiet_until_ns = now_ns + self._cooldown_ns
                changes.append(_change("enter", track, visit))
        return changes

    def _expired(
        self, now_ns: int, inside: Mapping[int, Sighting], outside: Set[int]
    ) -> list[Change]:
        """End the visits that are over and return those whose beginning was announced."""
        over = []
        for track, visit in self._visits.items():
            if track in inside:
                continue
            patience_ns = self._leave_ns if visit.entered or track not in outside else 0
            if now_ns - visit.last_ns >= patience_ns:
                over.append(track)
        ended = [(track, self._visits.pop(track)) for track in over]
        return [_change("leave", track, visit) for track, visit in ended if visit.announced]


def _change(kind: str, track: int, visit: _Visit) -> Change:
    return Change(kind, track, visit.sighting, (visit.last_ns - visit.since_ns) / _SECOND)
