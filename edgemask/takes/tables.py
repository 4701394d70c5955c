"""A take as a table: CSV with one row for each instance in each frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from edgemask.keypoints import NAMES
from edgemask.outputs import write_file
from edgemask.takes.reader import Record

__all__ = ["COLUMNS", "POINT_COLUMNS", "write_csv"]

COLUMNS: tuple[str, ...] = (
    "index", "sensor_ns", "wall_ns", "track_id", "class_id", "class_name", "score",
    "x0", "y0", "x1", "y1", "area", "centroid_x", "centroid_y",
)  # fmt: skip
"""Pixels of the image; the centre of its first pixel is at 0.5, 0.5."""

POINT_COLUMNS: tuple[str, ...] = tuple(
    f"{name}_{part}" for name in NAMES for part in ("x", "y", "score")
)
"""What follows where the model has keypoints."""


def write_csv(records: Iterable[Record], path: Path) -> None:
    """Write a CSV file (RFC 4180, UTF-8). What is missing is an empty cell.

    Raises
    ------
    OutputError
        See :func:`edgemask.outputs.write_file`.
    """

    def write(stream: IO[bytes]) -> None:
        text = io.TextIOWrapper(stream, "utf-8", "backslashreplace", newline="")
        table = csv.writer(text)
        header: tuple[str, ...] = ()
        for record in records:
            for item in record.instances:
                if not header:
                    header = COLUMNS + (POINT_COLUMNS if "keypoints" in item else ())
                    table.writerow(header)
                points = [value for point in item.get("keypoints", ()) for value in point]
                row = [
                    record.index, record.sensor_ns, record.wall_ns, item.get("track_id"),
                    item["class_id"], item["class_name"], item["score"],
                    *item["box"], item["area"], *item["centroid"], *points,
                ]  # fmt: skip
                table.writerow(row)
        if not header:
            table.writerow(COLUMNS)
        text.flush()
        text.detach()

    write_file(path, write)
