"""Videos and RTSP streams, through PyAV (FFmpeg), and what V4L2 cameras share with them.

This module alone imports PyAV, which ``pip install 'edgemask[video]'`` brings.
"""

from __future__ import annotations

import errno
import os
import time
import warnings
from collections.abc import Iterator
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from edgemask.errors import RuntimeUnavailable, SourceError, SourceTimeout
from edgemask.sources.base import Frame, LiveSource, Pixels, Source
from edgemask.sources.uri import redact

__all__ = ["LiveReader", "NetworkStream", "Reader", "VideoFile", "import_av"]

_UNSPECIFIED_MATRIX = 2  # AVCOL_SPC_UNSPECIFIED
_HIGH_DEFINITION = 720


def import_av() -> Any:
    """Return the module av.

    Raises
    ------
    RuntimeUnavailable
        It is not installed, or cannot be imported.
    """
    try:
        return import_module("av")
    except ImportError as error:
        raise RuntimeUnavailable(
            f"videos, RTSP and USB cameras need PyAV ({error}): pip install 'edgemask[video]'"
        ) from error


class Reader:
    """The frames of one thing that FFmpeg opens.

    Parameters
    ----------
    url : str
    name : str
        For messages, without password.
    **options
        Of ``av.open``.
    """

    def __init__(self, url: str, name: str, **options: Any) -> None:
        av = import_av()
        self.name, self._av = name, av
        self._timeout = options.get("timeout")
        self._waiting = time.monotonic()
        try:
            self._container = av.open(url, **options)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            # Without its cause, which quotes the URL with the password.
            raise self.problem(error) from None
        if not self._container.streams.video:
            empty = not self._container.streams
            self._container.close()
            if empty:
                raise self.problem(av.error.InvalidDataError(0, ""))
            raise SourceError(f"{name} has no video in it: give a file or stream with pictures")
        self._stream = self._container.streams.video[0]

    @property
    def count(self) -> int | None:
        """Number of frames, if the file says so."""
        return self._stream.frames or None

    @property
    def rate(self) -> Fraction | None:
        """Frames per second, if the file says so."""
        rate: Fraction | None = self._stream.average_rate
        return rate

    @property
    def finite(self) -> bool:
        """Whether it has an end: its duration or size is known, and not as that of a playlist."""
        container = self._container
        if container.duration is not None:
            return True
        size = container.size  # None of RTSP, -1 of a stream over HTTP
        return size is not None and size > 0 and "hls" not in container.format.name

    def use_threads(self) -> None:
        """Decode several frames at once: faster, but frames come later."""
        self._stream.thread_type = "AUTO"

    def frames(self) -> Iterator[Any]:
        """Yield the decoded frames; damaged packets are left out, with a warning at the end.

        Raises
        ------
        SourceError
            The connection broke, or there was no frame at all.
        """
        good = damaged = 0
        self._waiting = time.monotonic()  # who opened it may have done other things first
        try:
            for packet in self._container.demux(self._stream):
                try:
                    decoded = packet.decode()
                except self._av.error.InvalidDataError:
                    damaged, decoded = damaged + 1, []
                good += len(decoded)
                yield from decoded
                self._waiting = time.monotonic()  # only now; the reader took its time
        except (self._av.error.FFmpegError, OSError) as error:
            raise self.problem(error) from None
        if not good:
            raise SourceError(f"{self.name} has no frame that can be decoded: record it again")
        if damaged:
            warnings.warn(f"{self.name}: {damaged} damaged packets were left out", stacklevel=2)

    def problem(self, error: Exception) -> SourceError:
        """Return the error that stands for what FFmpeg raised."""
        av, name = self._av, self.name
        code = getattr(error, "errno", None)
        waited = time.monotonic() - self._waiting
        # When time is up, FFmpeg calls what it has not got invalid data.
        late = self._timeout is not None and waited >= self._timeout
        if late or isinstance(error, av.error.ExitError | av.error.TimeoutError):
            return SourceTimeout(f"{name} sent nothing in time: check its power and network")
        if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
            return SourceError(f"{name} refuses the user name or password: check them")
        if isinstance(error, av.error.InvalidDataError):
            return SourceError(
                f"{name} is not a video that FFmpeg reads, or is damaged or incomplete: copy or "
                "record it again"
            )
        reason = getattr(error, "strerror", None) or type(error).__name__
        cure = "check the path" if code in (errno.ENOENT, errno.EACCES) else "check the address"
        problem = SourceError(f"{name} cannot be read ({reason}): {cure}")
        problem.errno = code
        return problem

    def close(self) -> None:
        """Close the file or connection."""
        self._container.close()


def _sensor_ns(frame: Any) -> int | None:
    """Return the time stamp of a frame in nanoseconds."""
    return None if frame.pts is None else int(frame.pts * frame.time_base * 10**9)


def _rgb(frame: Any) -> Pixels:
    """Return a decoded frame as RGB, the way up that its recorder wanted."""
    options: dict[str, Any] = {}
    # FFmpeg takes BT.601 where a file does not say; high definition is BT.709 by custom.
    if frame.colorspace == _UNSPECIFIED_MATRIX and frame.height >= _HIGH_DEFINITION:
        options["src_colorspace"] = "ITU709"
    rgb: Pixels = frame.to_ndarray(format="rgb24", **options)
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


class VideoFile(Source):
    """Every frame of a video.

    Parameters
    ----------
    path : str
        A file, or the URL of one.
    timeout : float
        Seconds to wait for a server.

    Attributes
    ----------
    rate : Fraction or None
        Frames per second.
    """

    def __init__(self, path: str, *, timeout: float = 5.0) -> None:
        super().__init__(redact(path) if "://" in path else path)
        options: dict[str, Any] = {"timeout": timeout} if "://" in path else {}
        # What stands before a colon would be a protocol to FFmpeg: 12:30.mp4.
        address = path if "://" in path else os.path.abspath(path)
        self._reader = Reader(address, self.name, **options)
        self._reader.use_threads()
        self._frames = self._reader.frames()
        self.length = self._reader.count
        self.rate = self._reader.rate
        self._stem = Path(urlsplit(path).path if "://" in path else path).stem
        self._index = 0

    def read(self, timeout: float = 5.0) -> Frame | None:
        with self._closing:  # nobody may close the file while FFmpeg reads it
            frame = None if self.closed else next(self._frames, None)
        if frame is None:
            return None
        index, self._index = self._index, self._index + 1
        name = f"{self._stem}-{index:06d}"
        sensor_ns = _sensor_ns(frame)
        if sensor_ns is None and self.rate:  # raw H.264
            sensor_ns = int(index / self.rate * 10**9)
        return Frame(_rgb(frame), index, sensor_ns, time.time_ns(), name)

    def _release(self) -> None:
        self._reader.close()


class LiveReader(LiveSource[Any]):
    """A source that FFmpeg reads and that does not wait for its reader."""

    def __init__(self, reader: Reader, prefix: str) -> None:
        super().__init__(reader.name, prefix)
        self._reader = reader
        self._frames = reader.frames()
        self.finite = reader.finite
        self.start()

    def _fetch(self) -> tuple[Any, int | None] | None:
        frame = next(self._frames, None)
        return None if frame is None else (frame, _sensor_ns(frame))

    def _convert(self, raw: Any) -> Pixels:
        return _rgb(raw)

    def _shut_down(self) -> None:
        self._reader.close()


class NetworkStream(LiveReader):
    """An RTSP camera, or any other stream that FFmpeg reads.

    Parameters
    ----------
    url : str
    transport : {'tcp', 'udp'}
        Of RTSP. UDP loses packets on a bad wireless network, TCP falls behind.
    timeout : float
        Seconds without data after which the stream is given up.
    """

    def __init__(self, url: str, *, transport: str = "tcp", timeout: float = 5.0) -> None:
        options = {"flags": "low_delay"}
        if url.lower().startswith("rtsp"):
            options["rtsp_transport"] = transport
        reader = Reader(url, redact(url), options=options, timeout=timeout)
        super().__init__(reader, urlsplit(url).hostname or "stream")
