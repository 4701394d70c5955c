"""The threads behind ``watch``: one decides, one delivers, and neither slows the engine."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edgemask.errors import InputError
from edgemask.instances import Instances
from edgemask.live.mailbox import Mailbox
from edgemask.live.result import Result
from edgemask.live.silence import Silence
from edgemask.overlay import PALETTE, draw
from edgemask.settings import Settings, ZoneSettings, size_in_bytes
from edgemask.tracking import FrameClock, Tracker
from edgemask.watch.clips import ClipMaker
from edgemask.watch.event import Event
from edgemask.watch.hook import Hook
from edgemask.watch.rules import Sighting, ZoneRule
from edgemask.watch.store import EventStore
from edgemask.watch.zones import Zone

__all__ = ["Listener", "Scene", "Watcher", "snapshot"]

_SECOND = 1_000_000_000
_WAITING = 256  # frames with events that wait to be delivered
_PICTURED = 4  # of them, those whose pixels are kept for a picture
_SILENCE = 5.0  # seconds without a result, after which clips are completed with what there is, and
# leave_seconds later nobody is in a zone any more
_QUALITY = 85


class Listener(Protocol):
    """Somebody who wants to know. Neither method may wait or raise."""

    def event(self, record: dict[str, Any]) -> None:
        """Take an event, as :meth:`~edgemask.watch.event.Event.to_dict` has it."""

    def occupancy(self, slug: str, count: int) -> None:
        """Take how many are in a zone, whenever that changes."""


class Scene:
    """Turns instances into events. Pure: the same results give the same events.

    Parameters
    ----------
    zones : sequence of ZoneSettings
    leaving : bool
        Whether leaving a zone is an event.
    """

    def __init__(self, zones: Sequence[ZoneSettings], *, leaving: bool = True) -> None:
        self._settings = list(zones)
        self._leaving = leaving
        self._rules = [ZoneRule(zone) for zone in zones]
        lost = max((zone.leave_seconds for zone in zones), default=0)
        self._tracker = Tracker(round(lost * _SECOND))
        self._zones: list[Zone] = []
        self._size: tuple[int, int] | None = None
        self._events = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many are in each zone, by the zone's name in topics."""
        return {z.slug: rule.count for z, rule in zip(self._settings, self._rules, strict=True)}

    @property
    def polygons(self) -> list[NDArray[np.float32]]:
        """Corners x, y of each zone in pixels; empty before the first frame."""
        return [zone.polygon for zone in self._zones]

    def update(self, now_ns: int, result: Result) -> list[Event]:
        """Take one result.

        Parameters
        ----------
        now_ns : int
            Time of the frame on a clock that never goes back.
        result : Result

        Raises
        ------
        InputError
            A zone lies outside of the image.
        """
        instances = result.instances
        if instances.size != self._size:
            self._zones = [Zone(settings, *instances.size) for settings in self._settings]
            self._size = instances.size
        tracks = self._tracker.match(now_ns, instances.boxes, instances.class_ids)
        events = []
        for zone, rule in zip(self._zones, self._rules, strict=True):
            is_in = zone.inside(instances).tolist()
            inside = {
                track: _sighting(instances, n)
                for n, (track, there) in enumerate(zip(tracks, is_in, strict=True))
                if there
            }
            for change in rule.update(now_ns, inside, set(tracks) - set(inside)):
                if change.kind == "leave" and not self._leaving:
                    continue
                self._events += 1
                frame = result.frame
                events.append(
                    Event(
                        number=self._events,
                        kind=change.kind,
                        zone=zone.settings.name,
                        slug=zone.settings.slug,
                        sighting=change.sighting,
                        track=change.track,
                        seconds=change.seconds,
                        count=rule.count,
                        wall_ns=frame.wall_ns,
                        sensor_ns=frame.sensor_ns,
                        frame=frame.name,
                        size=instances.size,
                    )
                )
        return events


class Watcher:
    """Follows an engine's results, and does what the configuration says about events.

    Parameters
    ----------
    results : subscription of an engine
        Closed by :meth:`stop`.
    settings : Settings
    listeners : iterable of Listener
    report : callable, optional
        Gets one line when the state of the disk or of the hook changes, about a zone that lies
        outside of the image, and about anything else that goes wrong.

    Attributes
    ----------
    events : int
        Events so far.
    failed : int
        Of them, those that could not be delivered.
    errors : int
        Frames on which something unexpected went wrong; the next ones are watched all the same.
    last_error : str or None
        What that was.
    error : InputError or None
        Why nothing is watched any more: a zone lies outside of the image.
    """

    name = "watch"

    def __init__(
        self,
        results: Mailbox[Result],
        settings: Settings,
        listeners: Iterable[Listener] = (),
        *,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        wanted = settings.events
        self.events = self.failed = self.errors = 0
        self.last_error: str | None = None
        self.error: InputError | None = None
        self._results = results
        self._listeners = list(listeners)
        self._report = report
        self._scene = Scene(settings.zone, leaving=wanted.leaving)
        self._snapshot = wanted.snapshot
        self._store: EventStore | None = None
        if wanted.folder is not None:
            budget, keep_free = size_in_bytes(wanted.disk_budget), size_in_bytes(wanted.keep_free)
            self._store = EventStore(wanted.folder, budget, keep_free)
        self._hook = Hook(wanted.hook, wanted.hook_timeout) if wanted.hook else None
        self._clips: ClipMaker | None = None
        if wanted.clip and self._store is not None:
            self._clips = ClipMaker(wanted, self._deliver_clip)
        self._counts = dict.fromkeys(self._scene.counts, 0)
        self._reported: dict[str, str] = {}
        self._silence = Silence(_SILENCE + max((z.leave_seconds for z in settings.zone), default=0))
        # The events of a frame, and the frame itself if there is to be a picture.
        self._pictures = pictures = threading.Semaphore(_PICTURED)
        # Not through self: the cycle would keep the sinks' descriptors open until it is collected.
        self._deliveries: Mailbox[tuple[list[Event], Result | None]] = Mailbox(
            _WAITING, on_drop=lambda item: pictures.release() if item[1] else None
        )
        self._telling = threading.Lock()
        self._threads = [
            threading.Thread(target=self._decide, name="edgemask-watch", daemon=True),
            threading.Thread(target=self._deliver, name="edgemask-events", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the results have ended and every event is delivered; return whether so."""
        deadline = None if timeout is None else time.monotonic() + timeout
        threads = [*self._threads, *([self._clips.thread] if self._clips else [])]
        for thread in threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def stop(self, timeout: float = 2.0) -> None:
        """Stop watching, deliver what waits within `timeout` seconds, the hook within two more.

        A thread that hangs in a disk is left behind.
        """
        self._results.close()
        self.wait(timeout)
        if self._hook is not None:
            self._hook.stop()

    def status(self) -> dict[str, Any]:
        """Return counters and states, JSON-ready."""
        return {
            "zones": self._counts,
            "events": self.events,
            "dropped": self._deliveries.dropped,
            "failed": self.failed,
            "errors": self.errors,
            "last_error": self.last_error,
            "error": None if self.error is None else str(self.error),
            "clips": None if self._clips is None else self._clips.status(),
            "disk": None if self._store is None else self._store.status(),
            "hook": None if self._hook is None else self._hook.status(),
        }

    def _decide(self) -> None:
        clock, pause = FrameClock(), Silence(_SILENCE)
        last: Result | None = None
        for slug in self._counts:
            self._tell(slug, 0)
        try:
            while not self._results.finished:
                result = self._results.get(1.0)
                heard = time.monotonic()
                with self._passing_over():
                    if result is not None:
                        pause.heard(heard)
                        last = self._follow(clock, result, last)
                        self._silence.heard(heard)
                    elif pause.begins(heard) and self._clips is not None:
                        self._clips.flush()
                with self._passing_over():
                    if last is not None and self._silence.begins(heard):
                        self._take(clock(None, time.monotonic_ns()), _without_anybody(last))
        except InputError as error:  # in a thread, nobody else would hear of it
            self.error = error
            self._report(str(error))
        finally:
            for slug, count in self._counts.items():
                if count:  # whoever is still there, nobody watches them any more
                    self._tell(slug, 0)
            self._counts = dict.fromkeys(self._counts, 0)
            self._deliveries.close()

    def _follow(self, clock: FrameClock, result: Result, last: Result | None) -> Result:
        """Watch one result; return the last one that fits the zones."""
        now_ns = clock(result.frame.sensor_ns, time.monotonic_ns())
        if self._clips is not None:
            with self._passing_over():
                self._clips.add(now_ns, result.frame.rgb)
        try:
            self._take(now_ns, result)
        except InputError as error:
            if last is None:
                raise
            # The camera came back with another resolution, and may yet do so with the old.
            self._note("zones", str(error))
            self._take(now_ns, _without_anybody(last))
            return last
        self._note("zones", "ok")
        return result

    @contextlib.contextmanager
    def _passing_over(self) -> Iterator[None]:
        """Whatever goes wrong with one frame must not end the watching of a day.

        If it goes wrong with all of them, nobody is seen any more, and what follows is what follows
        a camera that falls silent.
        """
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            self.errors += 1
            found = f"{type(error).__name__}: {error}"
            if found != self.last_error:
                self.last_error = found
                self._report(f"watching went wrong on a frame ({found}), and goes on with the next")

    def _take(self, now_ns: int, result: Result) -> None:
        """Decide what a result means, and hand it over for delivery."""
        events = self._scene.update(now_ns, result)
        self.events += len(events)
        entered = [event for event in events if event.kind == "enter"]
        for event in entered:
            if self._clips is not None:
                self._clips.want(now_ns, event)
        if events:
            # The frame is kept only where there will be a picture of it, and only a few.
            pictured = bool(entered) and self._snapshot and self._store is not None
            pictured = pictured and self._pictures.acquire(blocking=False)
            self._deliveries.put((events, result if pictured else None))
        before, self._counts = self._counts, self._scene.counts
        for slug, count in self._counts.items():
            if count != before[slug]:
                self._tell(slug, count)

    def _tell(self, slug: str, count: int) -> None:
        for listener in self._listeners:
            with self._guarding(f"occupancy of {slug}"):
                listener.occupancy(slug, count)

    def _deliver(self) -> None:
        for events, result in self._deliveries:
            picture = None
            if result is not None:
                with self._guarding("snapshot"):
                    picture = snapshot(result, self._scene.polygons)
                self._pictures.release()
            for event in events:
                path = None
                with self._guarding(event.id):
                    if self._store is not None and picture and event.kind == "enter":
                        path = self._store.save(event.id, picture)
                        self._note("snapshots", self._store.state)
                    self._announce(event.to_dict(str(path) if path else None))
        if self._clips is not None:
            self._clips.close()  # not before, or a clip would be told ahead of its event

    @contextlib.contextmanager
    def _guarding(self, what: str) -> Iterator[None]:
        """What goes wrong with one event must not keep the next from being told."""
        try:
            yield
        except Exception as error:
            self.failed += 1
            self._report(f"{what} could not be delivered ({type(error).__name__}: {error})")

    def _deliver_clip(self, event: Event, film: bytes) -> None:
        """Keep a clip, and tell that it is there; called by the thread that makes them."""
        assert self._store is not None
        with self._guarding(event.id):
            path = self._store.save(event.id, film, ".mp4")
            self._note("clips", self._store.state)
            if path is not None:
                self._announce(event.to_dict(clip=str(path)))

    def _announce(self, record: dict[str, Any]) -> None:
        with self._telling:  # clips come from a thread of their own
            if self._store is not None:
                self._store.log(record)
                self._note("events.jsonl", self._store.state)
            for listener in self._listeners:
                with self._guarding(str(record["id"])):
                    listener.event(record)
            if self._hook is not None:
                self._note("hook", self._hook.state)
                self._hook.submit(record)

    def _note(self, part: str, state: str) -> None:
        """Report a state once, when it changes."""
        if state != self._reported.get(part, "ok"):
            self._report(f"{part}: {state}")
        self._reported[part] = state


def _without_anybody(result: Result) -> Result:
    return replace(result, instances=result.instances[:0])


def snapshot(result: Result, polygons: Iterable[NDArray[np.float32]] = ()) -> bytes:
    """Return a frame with its instances and zones drawn over it, as JPEG.

    Parameters
    ----------
    result : Result
        Its frame is left as it is: others look at it too.
    polygons : iterable of ndarray of float32, shape (V, 2)
    """
    image = Image.fromarray(draw(result.frame.rgb, result.instances))
    pen = ImageDraw.Draw(image)
    width = max(2, round(min(image.size) / 240))
    for polygon in polygons:
        corners = [(float(x), float(y)) for x, y in polygon.tolist()]
        pen.line([*corners, corners[0]], fill=PALETTE[4], width=width)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _sighting(instances: Instances, n: int) -> Sighting:
    x0, y0, x1, y1 = instances.boxes[n].tolist()
    return Sighting(instances.class_names[n], float(instances.scores[n]), (x0, y0, x1, y1))
