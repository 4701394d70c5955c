"""The engine: a source and a segmenter, overlapping in threads, for any number of subscribers.

Three threads: one reads and decodes, one runs the network (the runtime lets go of Python's lock
while it computes), one reads the board's temperature now and then. Everything between them is
bounded, so neither a slow subscriber nor a fast camera makes anything grow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgemask.errors import InputError
from edgemask.live import tuning
from edgemask.live.board import Board, read_board
from edgemask.live.capture import Arrival, Capture, Demand, opener_of, shown_name
from edgemask.live.governor import LADDER, GovernorState, advance
from edgemask.live.mailbox import Mailbox
from edgemask.live.models import Models
from edgemask.live.reopen import BACKOFF
from edgemask.live.result import Subscription
from edgemask.live.tally import Tally
from edgemask.live.tuning import Tuning

if TYPE_CHECKING:
    from edgemask.sources import Source

__all__ = ["Engine"]

_STOP_SECONDS = 1.8
_LOOK_SECONDS = 0.5  # without a frame, until the settings are looked at


class Engine:
    """Segments a source until it ends or :meth:`stop` is called. A context manager.

    Parameters
    ----------
    source : str or callable
        A source's URI, or a function that opens and returns a Source; it is called again whenever
        the source has failed.
    segmenter : callable
        A Segmenter, or anything that turns an image into Instances. Only the engine's thread calls
        it. Of the attributes `score_threshold`, `max_detections`, `max_proposals` and
        `short_side`, those it has can be changed by :meth:`configure`.
    models : mapping of str to callable, optional
        The models that :meth:`configure` may be told to change to: name → function that returns a
        new segmenter. None: there is no choice.
    model : str, optional
        Name of `segmenter` among them.
    max_fps : float, optional
        Frames per second at most.
    max_temp : float, optional
        °C from which on work is taken away (see :mod:`edgemask.live.governor`); None never does.
    board : callable, optional
        Reads the board.
    board_seconds : float
        How often.
    read_timeout : float
        Seconds without a frame after which a live source counts as failed.
    backoff : (float, float)
        Seconds before the first and the longest pause between two attempts to open a source.

    Examples
    --------
    >>> from edgemask import Segmenter
    >>> with Engine("camera:0", Segmenter()) as engine:  # doctest: +SKIP
    ...     for result in engine.subscribe():
    ...         print(len(result.instances), result.fps)
    """

    def __init__(
        self,
        source: str | Callable[[], Source],
        segmenter: Any,
        *,
        models: Mapping[str, Callable[[], Any]] | None = None,
        model: str | None = None,
        max_fps: float | None = None,
        max_temp: float | None = None,
        board: Callable[[], Board] = read_board,
        board_seconds: float = 2.0,
        read_timeout: float = 5.0,
        backoff: tuple[float, float] = BACKOFF,
    ) -> None:
        self._models = Models(segmenter, models, model)
        self._max_temp = max_temp
        self._read_board, self._board_seconds = board, board_seconds
        self._tuning = Tuning.of(segmenter, max_fps, self._models.choices, model)
        self._governor = GovernorState()
        self._board: Board | None = None
        self._frames: Mailbox[Arrival] = Mailbox()
        self._demand = Demand()
        self._capture = Capture(
            opener_of(source),
            self._frames,
            self._demand,
            name=shown_name(source),
            read_timeout=read_timeout,
            backoff=backoff,
        )
        self._subscriptions: tuple[Subscription, ...] = ()
        self._lock = threading.Lock()  # of the subscriptions and the settings
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._woken = threading.Event()  # set by stop() and configure()
        self._tally = Tally()
        self._threads = [
            threading.Thread(target=self._infer, name="edgemask-infer", daemon=True),
            threading.Thread(target=self._watch_board, name="edgemask-board", daemon=True),
        ]

    def start(self) -> None:
        """Start the threads; the first attempt to open the source is made by one of them."""
        self._capture.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> bool:
        """Stop, close the source and end all subscriptions; return whether all threads ended.

        Takes less than two seconds. A thread that hangs in a driver is left behind.
        """
        deadline = time.monotonic() + _STOP_SECONDS
        self._stopped.set()
        self._woken.set()
        stopped = self._capture.stop(_STOP_SECONDS)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
            stopped = stopped and not thread.is_alive()
        self._end()
        return stopped

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the source has ended or the engine was stopped; return whether it has."""
        return self._ended.wait(timeout)

    def subscribe(self, maxsize: int = 1) -> Subscription:
        """Return the results from now on; at most `maxsize` of them wait to be read."""
        subscription = Subscription(maxsize, self._unsubscribe)
        with self._lock:
            self._subscriptions += (subscription,)
        if self._ended.is_set():
            subscription.close()
        return subscription

    def _unsubscribe(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)

    def configure(self, /, **values: Any) -> dict[str, Any]:
        """Change settings from the next frame on.

        Parameters
        ----------
        **values
            ``score_threshold``, ``max_detections``, ``max_proposals``, ``short_side`` and
            ``max_fps`` (None for no limit), within the bounds in :meth:`status`; and ``model``, one
            of the names there. A model is loaded by the thread that segments. One that cannot be
            is not taken: the old one goes on, and the status says why.

        Returns
        -------
        dict
            All settings.

        Raises
        ------
        InputError
            One of them is unknown or out of bounds; then none is changed.
        """
        with self._lock:
            tuned = self._tuning.changed(values)
            if self._ended.is_set() and tuned.settings.get("model") != self._models.name:
                raise InputError("the source has ended, so no other model will run: start again")
            self._tuning = tuned
        self._woken.set()
        return dict(tuned.settings)

    @property
    def progress(self) -> int:
        """A number that grows while a restart would not help: what feeds a watchdog.

        It counts processed frames, and failed attempts to open the source: a camera that is not
        plugged in is not mended by a restart. A camera that was opened and then falls silent may
        be, and so may a network that hangs; neither makes it grow.
        """
        return self._tally.frames + self._capture.unopened

    def processing(self, within: float = 10.0) -> bool:
        """Return whether a frame was processed in the last seconds, or as often as allowed."""
        allowed = self._tuning.settings["max_fps"]
        slowest = 0.0 if allowed is None else 3 / (allowed * self._governor.share.rate)
        age = self._tally.age()
        return age is not None and age < max(within, slowest) and not self._ended.is_set()

    def status(self) -> dict[str, Any]:
        """Return what is going on, ready for :func:`json.dumps`; what is not known is None."""
        board, state, tally = self._board, self._governor, self._tally.to_dict()
        tuned = self._tuning
        throttled = None if board is None else board.throttled
        return {
            "source": self._capture.status(),
            "model": self._models.status(),
            **tally,
            "errors": tally["errors"] + self._capture.unread,
            "dropped": self._frames.dropped + self._capture.gaps,
            "temperature_c": None if board is None else board.temperature_c,
            "throttled": throttled
            and {"now": list(throttled.now), "since_boot": list(throttled.since_boot)},
            "board": None if board is None else board.model,
            "memory_available": None if board is None else board.memory_available,
            "memory_total": None if board is None else board.memory_total,
            "governor": {
                "level": state.level,
                "levels": len(LADDER),
                "max_temp": self._max_temp,
                "reason": state.reason or None,
                **asdict(state.share),
            },
            "settings": dict(tuned.settings),
            "effective": tuning.effective(tuned.settings, state, tuned.limits),
            "limits": {name: limit.to_dict() for name, limit in sorted(tuned.limits.items())},
        }

    def _watch_board(self) -> None:
        while True:
            board = self._read_board()
            self._board = board
            if self._max_temp is not None:
                hot = board.throttled is not None and board.throttled.hot
                self._governor = advance(
                    self._governor, time.monotonic(), board.temperature_c, self._max_temp, hot
                )
            if self._stopped.wait(self._board_seconds):
                return

    def _infer(self) -> None:
        took, last = 0.0, None
        try:
            while not self._stopped.is_set():
                arrival = self._frames.get(_LOOK_SECONDS)
                last = arrival or last
                self._follow_model(last)
                if arrival is None:
                    if self._frames.finished:  # the source has ended, or stop() closed it
                        return
                    continue
                began = time.monotonic()
                state, tuned = self._governor, self._tuning
                # What the last frame took is the best guess of when the next one is wanted.
                pause = tuning.period(took, tuned.settings["max_fps"], state.share.rate)
                self._demand.expect(began + pause)
                self._process(arrival, state, tuned)
                took = time.monotonic() - began
                self._rest(began, took, arrival)
        finally:
            self._end()

    def _rest(self, began: float, took: float, arrival: Arrival) -> None:
        """Wait until the next frame is due, which a change of the settings can bring forward."""
        while not self._stopped.is_set():
            self._follow_model(arrival)
            allowed, rate = self._tuning.settings["max_fps"], self._governor.share.rate
            due = began + tuning.period(took, allowed, rate)
            self._demand.expect(due)
            left = due - time.monotonic()
            if left <= 0:
                return
            self._woken.wait(left)
            self._woken.clear()

    def _follow_model(self, arrival: Arrival | None) -> None:
        """Change to the model that is asked for, if it is another one and runs on this frame."""
        models, wanted = self._models, self._tuning.settings.get("model")
        if wanted == models.name or self._stopped.is_set():
            return
        rgb = None if arrival is None else arrival.frame.rgb
        segmenter = models.load(str(wanted), self._tuning, rgb)
        with self._lock:
            asked = self._tuning.settings["model"]
            if segmenter is None:
                if asked == wanted:  # and nobody has asked for a third one meanwhile
                    self._tuning = self._tuning.changed({"model": models.name})
                return
            # The settings may have changed while it was loaded, too.
            self._tuning = self._tuning.moved_to(segmenter, str(wanted)).changed({"model": asked})
            models.take(segmenter, str(wanted))

    def _process(self, arrival: Arrival, state: GovernorState, tuned: Tuning) -> None:
        segmenter = self._models.segmenter
        try:
            for name, value in tuning.effective(tuned.settings, state, tuned.limits).items():
                setattr(segmenter, name, value)
            instances = segmenter(arrival.frame.rgb)
            timings = dict(getattr(segmenter, "timings", {}))
        except Exception as error:  # one bad frame must not end a camera
            self._tally.failure(arrival, error)
            return
        result = self._tally.success(arrival, instances, timings, state)
        for subscription in self._subscriptions:
            subscription.put(result)

    def _end(self) -> None:
        self._ended.set()
        for subscription in self._subscriptions:
            subscription.close()
