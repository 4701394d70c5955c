"""Recording a camera: a film, and the times of its frames beside it."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from edgemask.errors import OutputError
from edgemask.mp4 import Mp4
from edgemask.outputs import output_error
from edgemask.sources.video import import_av
from edgemask.takes.durable import Durable
from edgemask.takes.times import TimesWriter, times_path

if TYPE_CHECKING:
    from edgemask.sources.base import Frame

__all__ = ["Recording"]


class Recording:
    """A film of which all but the last dozen frames can be played however it ended.

    A power cut costs two seconds more. A context manager.

    Parameters
    ----------
    path : path
        Of the film, .mp4. Neither it nor the file of its times may exist.
    rate : Fraction, optional
        Frames per second, for how the film describes itself; every frame has a time of its own.

    Raises
    ------
    OutputError
        A file exists, or cannot be written.
    RuntimeUnavailable
        PyAV is missing.
    """

    def __init__(self, path: str | os.PathLike[str], rate: Fraction | None = None) -> None:
        self.path = Path(path)
        self._av, self._rate = import_av(), rate
        self._film: Mp4 | None = None
        for taken in (self.path, times_path(self.path)):
            if taken.exists():
                raise OutputError(f"{taken} exists already: choose another name")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(self.path, error) from error
        self._times = TimesWriter(times_path(self.path))
        self._durable = Durable()

    def add(self, frame: Frame, time_ns: int) -> None:
        """Add a frame.

        Parameters
        ----------
        frame : Frame
            All of one size.
        time_ns : int
            Its place in the film.

        Raises
        ------
        OutputError
            The disk is full, for instance. What was written before stays.
        """
        height, width = frame.rgb.shape[:2]
        self._durable.check()
        try:
            if self._film is None:
                self.path.touch()
                for path in (self.path, times_path(self.path)):
                    self._durable.add(path)
                self._film = Mp4(str(self.path), height, width, self._rate, fragmented=True)
            self._film.add(frame.rgb, time_ns)
        except (self._av.error.FFmpegError, OSError) as error:
            raise self._problem(error) from error
        self._times.add(frame)

    def _problem(self, error: Exception) -> OutputError:
        number = getattr(error, "errno", None)
        return output_error(self.path, OSError(number, getattr(error, "strerror", str(error))))

    def close(self) -> None:
        """Complete both files, and wait until the disk has them."""
        with contextlib.closing(self._durable), contextlib.closing(self._times):
            film, self._film = self._film, None
            try:
                if film is not None:
                    film.close()
            except (self._av.error.FFmpegError, OSError) as error:
                raise self._problem(error) from error

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
