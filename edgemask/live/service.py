"""What a program that runs until it is told to stop has in common with every other."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgemask.errors import SourceError

if TYPE_CHECKING:
    from edgemask.live.engine import Engine
    from edgemask.live.notify import Notifier

__all__ = ["longest_pause", "stop_signals", "supervise"]

_STATUS_SECONDS = 10.0
_LONGEST_PAUSE = 30.0
# What may be plugged in or switched on later. A file that is not there is a mistake instead.
_PATIENT = ("camera:", "v4l2:", "/dev/", "rtsp:", "rtsps:", "http:", "https:")


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Return an event that SIGTERM and SIGINT set, instead of ending the program half-way."""
    stopped = threading.Event()
    # A handler runs in the middle of whatever the main thread does. Where that is waiting for the
    # event, and holds its lock for a moment, set() would wait for ever; this put() never does.
    wishes: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def follow() -> None:
        if wishes.get():
            stopped.set()

    follower = threading.Thread(target=follow, name="edgemask-signals", daemon=True)
    follower.start()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda *_: wishes.put(True))
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        wishes.put(False)
        follower.join()


def longest_pause(watchdog_seconds: float | None) -> float:
    """Return the longest pause in seconds between two attempts to open a source.

    A failed attempt feeds the watchdog, so it must come well before the watchdog bites.
    """
    if watchdog_seconds is None:
        return _LONGEST_PAUSE
    return max(0.5, min(_LONGEST_PAUSE, watchdog_seconds / 3))


def supervise(
    engine: Engine,
    uri: str,
    notifier: Notifier,
    stopped: threading.Event,
    report: Callable[[str], None],
    poll: float = 0.5,
) -> None:
    """Feed the watchdog and report trouble with source and model until `stopped` is set.

    The watchdog is fed when :attr:`Engine.progress` has grown, for three frames' time of a pace
    that was asked for, and after a file has come to its end, when there is nothing left that could
    hang.

    Parameters
    ----------
    engine : Engine
        Started.
    uri : str
        Its source.
    notifier : Notifier
    stopped : threading.Event
    report : callable
        Gets one line when the source's trouble changes, or a model was not taken.
    poll : float
        Seconds between two looks.

    Raises
    ------
    SourceError
        The source cannot be opened, and waiting will not help.
    """
    progress, said, refused, due = -1, "", "", 0.0
    while not stopped.wait(poll):
        status = engine.status()
        source = status["source"]
        finished = source["state"] == "ended"
        resting = engine.processing(within=0)  # at a pace slower than the watchdog's
        if engine.progress != progress or finished or resting:
            progress = engine.progress
            notifier.alive()
        # A file that cannot be read is an error too, but others follow it: only `failures` count.
        broken = source["state"] != "running" and not finished and source["failures"] > 0
        broken = (source["error"] or "") if broken else ""
        given_up = engine.wait(0) and not finished
        if given_up or (broken and not status["frames"] and not uri.lower().startswith(_PATIENT)):
            raise SourceError(broken or "the engine has stopped: see what was reported before")
        if broken and broken != said:
            report(f"{broken} (trying again)")
        said = broken
        wrong = (status["model"] or {}).get("error") or ""
        if wrong and wrong != refused:
            report(wrong)
        refused = wrong
        if time.monotonic() >= due:
            due = time.monotonic() + _STATUS_SECONDS
            notifier.status(_line(status))


def _line(status: dict[str, Any]) -> str:
    source, celsius = status["source"], status["temperature_c"]
    if source["state"] != "running":
        return f"{source['state']}: {source['error'] or 'no frames'}"
    heat = "" if celsius is None else f", {celsius:.0f} °C"
    slowed = f", slowed down: {status['governor']['reason']}" if status["governor"]["level"] else ""
    return f"{status['fps']:.1f} fps, {status['instances'] or 0} instances{heat}{slowed}"
