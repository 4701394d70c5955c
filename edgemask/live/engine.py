"""The engine: a source and a segmenter, overlapping in threads, for any number of subscribers.

One thread reads and decodes, one reads the board's temperature now and then, and one for each
segmenter runs the network (the runtime lets go of Python's lock while it computes). Those take
frames in turn and finish them in the same order. Everything between the threads is bounded, so
neither a slow subscriber nor a fast camera makes anything grow.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgemask.errors import InputError
from edgemask.live import tuning
from edgemask.live.board import Board, read_board
from edgemask.live.capture import Arrival, Capture, Demand, opener_of, shown_name
from edgemask.live.governor import LADDER, GovernorState, advance
from edgemask.live.mailbox import Mailbox
from edgemask.live.models import Models, several
from edgemask.live.order import Order
from edgemask.live.reopen import BACKOFF
from edgemask.live.result import Subscription
from edgemask.live.tally import Tally
from edgemask.live.tuning import Tuning

if TYPE_CHECKING:
    from edgemask.instances import Instances
    from edgemask.sources import Frame, Source

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
    segmenter : callable, or sequence of them
        A Segmenter, or anything that turns an image into Instances. Each is called by one thread of
        the engine. Of the attributes `score_threshold`, `max_detections`, `max_proposals` and
        `short_side`, those it has can be changed by :meth:`configure`. Several, which must be
        alike, work on as many frames side by side.
    models : mapping of str to callable, optional
        The models that :meth:`configure` may be told to change to: name → function that returns new
        segmenters, as many as there are. None: there is no choice.
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
        segmenters = several(segmenter)
        self._models = Models(segmenters, models, model)
        self._max_temp = max_temp
        self._read_board, self._board_seconds = board, board_seconds
        self._tuning = Tuning.of(segmenters[0], max_fps, self._models.choices, model)
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
        self._turn = threading.Lock()  # of the thread that takes the next frame
        self._order = Order(len(segmenters), self._stopped)
        self._began = 0.0  # when the last frame was taken
        self._took = 0.0  # seconds that a frame takes
        self._last: Arrival | None = None
        self._working = len(segmenters)
        self._threads = [
            threading.Thread(target=self._watch_board, name="edgemask-board", daemon=True),
            *(
                threading.Thread(target=self._infer, args=(n,), name="edgemask-infer", daemon=True)
                for n in range(len(segmenters))
            ),
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

    def subscribe(
        self,
        maxsize: int = 1,
        prepare: Callable[[Frame, Instances], Any] = lambda frame, instances: None,
    ) -> Subscription:
        """Return the results from now on; at most `maxsize` of them wait to be read.

        Parameters
        ----------
        maxsize : int
        prepare : callable, optional
            Makes ``result.prepared`` of a frame and its instances, in the thread that segmented it.
            Where several do (:attr:`parallel`), heavy work is done sooner there than by the reader,
            whose thread competes with them. An exception counts as one of the segmenter.
        """
        subscription = Subscription(maxsize, prepare, self._unsubscribe)
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
    def parallel(self) -> int:
        """Frames that are worked on at the same time, at most."""
        return len(self._models.segmenters)

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
            board: Board | None = None
            # Whatever goes wrong, such as too many open files: nothing is known then.
            with contextlib.suppress(Exception):
                board = self._read_board()
            self._board = board
            if board is not None and self._max_temp is not None:
                hot = board.throttled is not None and board.throttled.hot
                self._governor = advance(
                    self._governor, time.monotonic(), board.temperature_c, self._max_temp, hot
                )
            if self._stopped.wait(self._board_seconds):
                return

    def _infer(self, place: int) -> None:
        """Work with one of the segmenters, until there are no more frames."""
        try:
            while not self._stopped.is_set():
                with self._turn:
                    self._rest()
                    if self._stopped.is_set():
                        return
                    taken = self._take(place)
                if taken is not None:
                    self._process(*taken)
                elif self._frames.finished:  # the source has ended, or stop() closed it
                    return
        finally:
            with self._lock:
                self._working -= 1
                last = self._working == 0
            if last:
                self._end()

    def _rest(self) -> None:
        """Wait until the next frame is due, which a change of the settings can bring forward."""
        while not self._stopped.is_set():
            self._follow_model()
            limited = self._tuning.settings["max_fps"] is not None or self._governor.share.rate < 1
            left = self._expect() - time.monotonic()
            if left <= 0 or not limited:
                return
            self._woken.wait(left)
            self._woken.clear()

    def _expect(self) -> float:
        """Say and return when the frame after the last one is due.

        What the last frame took is the best guess of what one takes; of several, each may work
        for as many times as long.
        """
        allowed, rate = self._tuning.settings["max_fps"], self._governor.share.rate
        busy = self._took / self.parallel
        due = self._began + tuning.period(busy, allowed, rate)
        self._demand.expect(due)
        return due

    def _take(self, place: int) -> tuple[int, Arrival, GovernorState, Tuning, Any] | None:
        """Take the next frame, and with it what it is to be worked on with."""
        arrival = self._frames.get(_LOOK_SECONDS)
        self._last = arrival or self._last
        self._follow_model()
        if arrival is None:
            return None
        self._began = time.monotonic()
        self._expect()
        segmenter = self._models.segmenters[place]
        return self._order.begin(), arrival, self._governor, self._tuning, segmenter

    def _follow_model(self) -> None:
        """Change to the model that is asked for, if it is another one and runs on the last frame.

        Frames that were taken before are finished by the old one.
        """
        models, wanted = self._models, self._tuning.settings.get("model")
        if wanted == models.name or self._stopped.is_set():
            return
        rgb = None if self._last is None else self._last.frame.rgb
        segmenters = models.load(str(wanted), self._tuning, rgb)
        with self._lock:
            asked = self._tuning.settings["model"]
            if segmenters is None:
                if asked == wanted:  # and nobody has asked for a third one meanwhile
                    self._tuning = self._tuning.changed({"model": models.name})
                return
            # The settings may have changed while it was loaded, too.
            self._tuning = self._tuning.moved_to(segmenters[0], str(wanted)).changed(
                {"model": asked}
            )
            models.take(segmenters, str(wanted))

    def _process(
        self, number: int, arrival: Arrival, state: GovernorState, tuned: Tuning, segmenter: Any
    ) -> None:
        began = time.monotonic()
        found: Any
        timings: dict[str, float] = {}
        try:
            for name, value in tuning.effective(tuned.settings, state, tuned.limits).items():
                setattr(segmenter, name, value)
            found = segmenter(arrival.frame.rgb)
            timings = dict(getattr(segmenter, "timings", {}))
            prepared = [(s, s.prepare(arrival.frame, found)) for s in self._subscriptions]
        except Exception as error:  # one bad frame must not end a camera
            found = error
        self._took = time.monotonic() - began

        def publish() -> None:
            if isinstance(found, Exception):
                self._tally.failure(arrival, found)
                return
            result = self._tally.success(arrival, found, timings, state)
            for subscription, own in prepared:
                subscription.put(replace(result, prepared=own))

        self._order.finish(number, publish)

    def _end(self) -> None:
        self._ended.set()
        for subscription in self._subscriptions:
            subscription.close()
