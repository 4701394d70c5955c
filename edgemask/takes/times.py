"""The times of a film's frames, which a film itself keeps to a fraction of a millisecond only."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgemask.errors import InputError
from edgemask.outputs import output_error

if TYPE_CHECKING:
    from edgemask.sources.base import Frame

__all__ = ["COLUMNS", "CUT_OFF_NS", "TimesWriter", "timed", "times_path"]

COLUMNS = ("index", "sensor_ns", "wall_ns")
CUT_OFF_NS = 5_000_000_000
"""Frames of so many nanoseconds may be missing after a power cut; see :mod:`.durable`."""


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
        try:
            self._stream.close()
        except OSError as error:  # of what could not be written before
            raise output_error(self.path, error) from error


def timed(frames: Iterable[Frame], path: Path) -> Iterator[Frame]:
    """Yield the frames of a film with the index and times that its recording had.

    Parameters
    ----------
    frames : iterable of Frame
    path : Path
        Of the CSV file. It may list more frames than there are: the last of a film that was cut
        off are lost. If it is the file that was cut off, the film's last frames are left out, with
        a warning.

    Raises
    ------
    InputError
        A row is damaged, or frames of more than `CUT_OFF_NS` are missing: it belongs to another
        film.
    """
    rows, listed, last = _rows(path), 0, -1
    left_out: list[int] = []
    for frame in frames:
        row = next(rows, None)
        if row is not None:
            known = _with(frame, row, path)
            if known.index <= last:  # a take of it could not be read
                raise InputError(
                    f"{path} lists the frame {known.index} after {last}: move it away to ignore it"
                )
            yield known
            listed, last = listed + 1, known.index
            continue
        left_out.append(frame.sensor_ns or 0)
        if not listed or left_out[-1] - left_out[0] > CUT_OFF_NS:
            raise InputError(
                f"{path} lists fewer frames than the film has: it belongs to another film; move it "
                "away to ignore it"
            )
    if left_out:
        warnings.warn(
            f"{path} ends before the film, as after a power cut: the last {len(left_out)} frames "
            "are left out; move it away to ignore it",
            stacklevel=2,
        )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with open(path, encoding="ascii", newline="") as stream:
            yield from csv.DictReader(_whole(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}): move it away to ignore it") from error


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines before one that a power cut has left without its end, or as zeros."""
    for line in lines:
        if "\0" in line or not line.endswith("\n"):
            return
        yield line


def _with(frame: Frame, row: dict[str, str], path: Path) -> Frame:
    try:
        index, wall_ns = int(row["index"]), int(row["wall_ns"])
        # Without a clock of the camera, the film's own times are all there is.
        sensor_ns = int(row["sensor_ns"]) if row["sensor_ns"] else frame.sensor_ns
        if not (0 <= index < 2**63 > wall_ns >= 0 and abs(sensor_ns or 0) < 2**63):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path} lacks {', '.join(COLUMNS)} of frame {frame.index}: move it away to ignore it"
        ) from None
    stem = frame.name.removesuffix(f"-{frame.index:06d}")
    return replace(
        frame, index=index, sensor_ns=sensor_ns, wall_ns=wall_ns, name=f"{stem}-{index:06d}"
    )
