"""What every source of frames has in common."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgemask.errors import SourceError, SourceTimeout
from edgemask.sources.latest import LatestSlot

__all__ = ["Frame", "LiveSource", "Pixels", "Source"]

Pixels = NDArray[np.uint8]
Raw = TypeVar("Raw")

_THREAD_PATIENCE = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image and where it comes from.

    Attributes
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
        The receiver's own: it may be drawn on.
    index : int
        0, 1, 2, … in the order of the source. A gap stands for frames that nobody took in time.
    sensor_ns : int or None
        The source's own clock in nanoseconds: of a Pi camera when the exposure of the first row
        began (CLOCK_BOOTTIME), of a USB camera the driver's (CLOCK_MONOTONIC), of a video its
        position in the film. None if there is none.
    wall_ns : int
        :func:`time.time_ns` at arrival.
    name : str
        The name of a file, or ``camera-000012``.
    path : Path or None
        The file, if the image is one of its own.
    """

    rgb: Pixels
    index: int
    sensor_ns: int | None
    wall_ns: int
    name: str
    path: Path | None = None


class Source(ABC):
    """Frames, one after the other; a context manager and an iterator.

    Parameters
    ----------
    name : str
        For messages; without any password.

    Attributes
    ----------
    live : bool
        True of cameras and streams: the newest frame is given and older ones are dropped. False of
        files: every frame is given.
    length : int or None
        How many frames there will be, if that is known.
    finite : bool
        Whether the end of a live source is one, and not a connection that was lost: a file that a
        web server sends.
    dropped : int
        Frames that nobody took in time, or that arrived damaged.
    """

    live = False
    length: int | None = None
    finite = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._closing = threading.Lock()
        self._closed = False

    @property
    def dropped(self) -> int:
        """Frames that nobody took in time, or that arrived damaged; 0 unless the source is live."""
        return 0

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has been called."""
        return self._closed

    @abstractmethod
    def read(self, timeout: float = 5.0) -> Frame | None:
        """Return the next frame.

        Parameters
        ----------
        timeout : float
            Seconds to wait for a live source; files are simply read.

        Returns
        -------
        Frame or None
            None at the end, and after :meth:`close`.

        Raises
        ------
        SourceTimeout
            A live source gave no frame in time. It may be asked again.
        CameraMissing
            The camera has been unplugged.
        SourceError
            The frame cannot be read. If the source is a list of files, the next call reads the
            next one.
        """

    def close(self) -> None:
        """Let go of the camera or file; from any thread, and as often as you like."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._release()

    @abstractmethod
    def _release(self) -> None:
        """Give back what is held. Called once."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame


class LiveSource(Source, Generic[Raw]):
    """A source whose frames a thread of its own takes from the device.

    The thread only fetches; turning a frame into RGB is left to the reader, so frames that are
    dropped cost next to nothing.
    """

    live = True

    def __init__(self, name: str, prefix: str) -> None:
        super().__init__(name)
        self._prefix = prefix
        self._slot: LatestSlot[tuple[int, int, int | None, Raw]] = LatestSlot()
        self._stop = threading.Event()
        self._error: SourceError | None = None
        self._damaged = 0
        self._thread = threading.Thread(target=self._capture, name=f"capture {name}", daemon=True)

    @abstractmethod
    def _fetch(self) -> tuple[Raw, int | None] | None:
        """Wait for the next frame and return it with its sensor time; None at the end.

        Called by the capture thread. It must come back in bounded time, with a SourceError if
        there is no frame.
        """

    @abstractmethod
    def _convert(self, raw: Raw) -> Pixels:
        """Return a frame as RGB."""

    @abstractmethod
    def _shut_down(self) -> None:
        """Close the device. Called once, and by the capture thread if that has been started."""

    def _interrupt(self) -> None:
        """Make a :meth:`_fetch` that is under way return soon."""

    @property
    def dropped(self) -> int:
        return self._slot.dropped + self._damaged

    def start(self) -> None:
        """Begin to take frames; called once, when the device is open."""
        self._thread.start()

    def read(self, timeout: float = 5.0) -> Frame | None:
        until = time.monotonic() + timeout
        while (taken := self._slot.get(max(0.0, until - time.monotonic()))) is not None:
            if self.closed:  # what still waits may lie in memory of the device
                return None
            index, wall_ns, sensor_ns, raw = taken
            try:
                rgb = self._convert(raw)
            except SourceError:
                # Damaged on its way; a camera sends another.
                self._damaged += 1
                if time.monotonic() >= until:
                    raise
                continue
            return Frame(rgb, index, sensor_ns, wall_ns, f"{self._prefix}-{index:06d}")
        if not self._slot.closed:
            raise SourceTimeout(
                f"{self.name} gave no frame for {timeout:g} s: check its cable or connection"
            )
        if self._error is not None and not self.closed:
            raise self._error
        return None

    def _capture(self) -> None:
        index = 0
        try:
            while not self._stop.is_set():
                fetched = self._fetch()
                if fetched is None:
                    break
                raw, sensor_ns = fetched
                self._slot.put((index, time.time_ns(), sensor_ns, raw))
                index += 1
        except SourceError as error:
            # What the frames hold, buffers for example, must not live longer than the device.
            traceback.clear_frames(error.__traceback__)
            self._error = error
        except Exception as error:
            traceback.clear_frames(error.__traceback__)
            # Whatever a driver's library raises must reach the reader, not die with the thread.
            self._error = SourceError(
                f"{self.name} failed ({type(error).__name__}: {error}): open it again"
            )
            self._error.__cause__ = error
        finally:
            # Nobody else may close the device: this thread could be in the middle of a read, which
            # some drivers do not survive. After an error it is free for the next attempt at once.
            with contextlib.suppress(Exception):
                self._shut_down()
            self._slot.close()

    def _release(self) -> None:
        self._stop.set()
        self._slot.close()
        if self._thread.ident is None:
            self._shut_down()
            return
        with contextlib.suppress(Exception):  # the thread may have closed the device meanwhile
            self._interrupt()
        # A driver that hangs must not hang the program too; the thread is a daemon.
        self._thread.join(_THREAD_PATIENCE)
