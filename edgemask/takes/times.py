"""The times of a film's frames, which a film itself keeps to a fraction of a millisecond only."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgemask.errors import InputError
from edgemask.outputs import output_error

if TYPE_CHECKING:
    from edgemask.sources.base import Frame

__all__ = ["COLUMNS", "TimesWriter", "timed", "times_path"]

COLUMNS = ("index", "sensor_ns", "wall_ns")


def times_path(film: str | os.PathLike[str]) -> Path:
    """Return where the times of a film are: ``take.frames.csv`` beside ``take.mp4``."""
    return Path(film).with_suffix(".frames.csv")


class TimesWriter:
    """A CSV file with a row for each frame of a film, written out at once.

    Parameters
    ----------
    path : path

    Raises
    ------
    OutputError
        It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._stream: IO[str] = open(path, "x", encoding="ascii", newline="")  # noqa: SIM115
        except OSError as error:
            raise output_error(path, error) from error
        self._table = csv.writer(self._stream)
        self._write(COLUMNS)

    def add(self, frame: Frame) -> None:
        """Write the times of the film's next frame."""
        self._write((frame.index, frame.sensor_ns, frame.wall_ns))

    def _write(self, row: Iterable[object]) -> None:
        try:
            self._table.writerow(row)
            self._stream.flush()
        except OSError as error:
            raise output_error(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def timed(frames: Iterable[Frame], path: Path) -> Iterator[Frame]:
    """Yield the frames of a film with the index and times that its recording had.

    Parameters
    ----------
    frames : iterable of Frame
    path : Path
        Of the CSV file. It may list more frames than there are: the last of a film that was cut
        off are lost.

    Raises
    ------
    InputError
        A row is damaged, or frames are missing: it belongs to another film.
    """
    rows = _rows(path)
    for frame in frames:
        yield _with(frame, next(rows, None), path)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with open(path, encoding="ascii", newline="") as stream:
            yield from csv.DictReader(stream)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): move it away to go without") from error


def _with(frame: Frame, row: dict[str, str] | None, path: Path) -> Frame:
    if row is None:
        raise InputError(
            f"{path} lists fewer frames than the film has: it belongs to another film; move it "
            "away to go without"
        )
    try:
        index, wall_ns = int(row["index"]), int(row["wall_ns"])
        # Without a clock of the camera, the film's own times are all there is.
        sensor_ns = int(row["sensor_ns"]) if row["sensor_ns"] else frame.sensor_ns
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path} lacks {', '.join(COLUMNS)} of frame {frame.index}: move it away to go without"
        ) from None
    stem = frame.name.removesuffix(f"-{frame.index:06d}")
    return replace(
        frame, index=index, sensor_ns=sensor_ns, wall_ns=wall_ns, name=f"{stem}-{index:06d}"
    )
