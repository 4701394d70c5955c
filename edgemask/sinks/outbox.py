"""What waits to be published: of a state only the newest, of events a bounded queue."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Message", "Outbox"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message for a broker.

    Attributes
    ----------
    topic : str
    payload : bytes
    qos : int
        0 for states, which are repeated after every connection, 1 for events.
    retain : bool
        Whether the broker keeps it for those who come later.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(slots=True)
class _Slot:
    message: Message
    waiting: bool
    due: float


class Outbox:
    """Keeps memory bounded while nobody takes anything, and never loses the newest state.

    Writers never wait. A state replaces the one before it on its topic; one that equals it is
    ignored. Events queue up; the oldest gives way.

    Parameters
    ----------
    max_rate : float
        Messages per second on each state's topic.
    max_events : int
    clock : callable
        Seconds, never going back.

    Attributes
    ----------
    dropped : int
        Events that gave way.
    """

    def __init__(
        self, max_rate: float, max_events: int = 64, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.dropped = 0
        self._interval = 1 / max_rate
        self._max_events = max_events
        self._clock = clock
        self._states: dict[str, _Slot] = {}
        self._events: deque[Message] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def set_state(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """Set what holds from now on."""
        with self._changed:
            slot = self._states.get(topic)
            message = Message(topic, payload, 0, retain)
            if slot is None:
                self._states[topic] = _Slot(message, True, -math.inf)
            elif slot.message != message:
                slot.message, slot.waiting = message, True
            self._changed.notify()

    def add_event(self, topic: str, payload: bytes) -> None:
        """Add something that happened."""
        with self._changed:
            if len(self._events) == self._max_events:
                self._events.popleft()
                self.dropped += 1
            self._events.append(Message(topic, payload, 1, False))
            self._changed.notify()

    def repeat(self) -> None:
        """Send every retained state once more: a new connection may be to an empty broker."""
        with self._changed:
            for slot in self._states.values():
                if slot.message.retain:
                    slot.waiting, slot.due = True, -math.inf
            self._changed.notify()

    def take(self, timeout: float) -> Message | None:
        """Return what is to be sent next; None if there is nothing for `timeout` seconds.

        Events come first, then the state that has been due for longest.
        """
        end = self._clock() + timeout
        with self._changed:
            while True:
                now = self._clock()
                if self._events:
                    return self._events.popleft()
                waiting = [slot for slot in self._states.values() if slot.waiting]
                slot = min(waiting, key=lambda s: s.due, default=None)
                if slot is not None and (slot.due <= now or self._closed):
                    slot.waiting, slot.due = False, now + self._interval
                    return slot.message
                wake = end if slot is None else min(end, slot.due)
                if now >= end or self._closed:
                    return None
                self._changed.wait(wake - now)

    def put_back(self, message: Message) -> None:
        """Return a message that could not be sent, unless a newer state has taken its place."""
        with self._changed:
            if message.qos:
                self._events.appendleft(message)
                if len(self._events) > self._max_events:
                    self._events.popleft()
                    self.dropped += 1
                return
            slot = self._states[message.topic]
            if slot.message is message:
                slot.waiting = True

    def close(self) -> None:
        """Let :meth:`take` return at once from now on: what waits, due or not, and then None."""
        with self._changed:
            self._closed = True
            self._changed.notify()
