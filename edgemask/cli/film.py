"""Overlays as one MP4 film, for the frames of a video file."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from edgemask.errors import OutputError
from edgemask.sources.base import Pixels
from edgemask.sources.video import import_av

__all__ = ["Film"]

_TICKS = 90_000  # a second; the clock of MPEG
_USUAL_RATE = Fraction(25)
# Without looking ahead, for which x264 would keep 40 frames in memory.
_H264_OPTIONS = {"preset": "veryfast", "tune": "zerolatency"}


class Film:
    """An MP4 film that appears under its name when it is complete; a context manager.

    What has been added before an exception, Ctrl-C included, is kept as a shorter film.

    Parameters
    ----------
    path : path
    rate : Fraction, optional
        Frames per second, for those that do not have a time.
    """

    def __init__(self, path: str | os.PathLike[str], rate: Fraction | None = None) -> None:
        self.path = Path(path)
        self._beside = self.path.with_name(f".{self.path.name[:100]}.{os.getpid()}.tmp")
        self._rate = rate or _USUAL_RATE
        self._av = import_av()
        self._container: Any = None
        self._stream: Any = None
        self._size = (0, 0)
        self._last = -1

    def add(self, rgb: Pixels, time_ns: int | None) -> None:
        """Add a frame.

        Parameters
        ----------
        rgb : ndarray of uint8, shape (H, W, 3)
            All of one size. A last odd row or column is cut off, since H.264 has none.
        time_ns : int or None
            Its place in the film.

        Raises
        ------
        OutputError
            The film cannot be written.
        """
        height, width = (side - side % 2 for side in rgb.shape[:2])
        try:
            if self._container is None:
                self._open(width, height)
            frame = self._av.VideoFrame.from_ndarray(rgb[:height, :width].copy(), format="rgb24")
            ticks = self._last + 1 + int(_TICKS / self._rate)
            if time_ns is not None:
                ticks = time_ns * _TICKS // 10**9
            self._last = frame.pts = max(ticks, self._last + 1)
            frame.time_base = Fraction(1, _TICKS)
            self._container.mux(self._stream.encode(frame))
        except (self._av.error.FFmpegError, OSError) as error:
            raise self._problem(error) from error

    def _open(self, width: int, height: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(self._beside), "w", format="mp4")
        # Wheels of PyAV have x264, some distributions' packages do not.
        codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=self._rate)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        if codec == "libx264":
            self._stream.codec_context.options = _H264_OPTIONS

    def _problem(self, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or str(error)
        problem = OutputError(f"{self.path} cannot be written ({reason}): choose another folder")
        problem.errno = getattr(error, "errno", None)
        return problem

    def close(self) -> None:
        """Complete the film.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            with contextlib.closing(container):
                container.mux(self._stream.encode(None))
            os.replace(self._beside, self.path)
        except (self._av.error.FFmpegError, OSError) as error:
            raise self._problem(error) from error
        finally:
            self._beside.unlink(missing_ok=True)

    def __enter__(self) -> Film:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
