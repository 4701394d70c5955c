"""Overlays as one MP4 film, for the frames of a video file."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from edgemask.errors import OutputError
from edgemask.mp4 import Mp4
from edgemask.outputs import beside_of
from edgemask.sources.base import Pixels
from edgemask.sources.video import import_av

__all__ = ["Film"]


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
        self._beside = beside_of(self.path)
        self._rate = rate
        self._av = import_av()
        self._film: Mp4 | None = None
        self._first_ns = 0

    def add(self, rgb: Pixels, time_ns: int | None) -> None:
        """Add a frame.

        Parameters
        ----------
        rgb : ndarray of uint8, shape (H, W, 3)
            All of one size. A last odd row or column is cut off, since H.264 has none.
        time_ns : int or None
            Its time; the first frame's is where the film begins.

        Raises
        ------
        OutputError
            The film cannot be written.
        """
        try:
            if self._film is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                height, width = rgb.shape[:2]
                self._film = Mp4(str(self._beside), height, width, self._rate)
                self._first_ns = time_ns or 0  # a camera counts from when the board was started
            self._film.add(rgb, None if time_ns is None else time_ns - self._first_ns)
        except (self._av.error.FFmpegError, OSError) as error:
            raise self._problem(error) from error

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
        if self._film is None:
            return
        film, self._film = self._film, None
        try:
            film.close()
            os.replace(self._beside, self.path)
        except (self._av.error.FFmpegError, OSError) as error:
            raise self._problem(error) from error
        finally:
            with contextlib.suppress(OSError):  # a read-only disk, of which the error above tells
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
