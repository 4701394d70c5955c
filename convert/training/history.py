"""What a training run says of itself: ``log.jsonl``, TensorBoard, a picture of the curves."""

from __future__ import annotations

import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import tensorflow as tf

Row = dict[str, Any]


def read_log(path: str | Path) -> list[Row]:
    """Read a ``log.jsonl``; a last line that a kill cut off is left out."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class History:
    """Rows of figures by step.

    ``log.jsonl`` is the record. The folder ``tensorboard`` is written from it anew at each start,
    so that both have every step once, however often a run was killed.

    Parameters
    ----------
    folder : path
        The run's.
    step : int
        Where the run starts or goes on; rows of later steps, which were computed after the last
        checkpoint and will be computed again, are dropped.
    """

    def __init__(self, folder: str | Path, step: int):
        self.folder = Path(folder)
        self.path = self.folder / "log.jsonl"
        self.rows = [row for row in read_log(self.path) if row["step"] <= step]
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / ".log.jsonl.partial"
        aside.write_text("".join(f"{json.dumps(row)}\n" for row in self.rows), encoding="utf-8")
        os.replace(aside, self.path)
        self._events = _fresh_events(self.folder / "tensorboard")
        for row in self.rows:
            self._event(row)
        self._events.flush()

    def append(self, step: int, **values: float) -> None:
        """Add a row with a wall-clock time stamp."""
        row = {"time": round(time.time(), 1), "step": step, **values}
        self.rows.append(row)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._event(row)
        self._events.flush()

    def _event(self, row: Row) -> None:
        """Append one row in TensorBoard's format, which needs no TensorBoard to be written."""
        value = tf.compat.v1.Summary.Value
        figures = [
            value(tag=_tag(name), simple_value=figure)
            for name, figure in row.items()
            if name not in ("time", "step")
        ]
        summary = tf.compat.v1.Summary(value=figures)
        event = tf.compat.v1.Event(wall_time=row["time"], step=row["step"], summary=summary)
        self._events.write(event.SerializeToString())

    def draw(self) -> None:
        """Write ``curves.png``; a missing matplotlib is a warning, training is worth more."""
        try:
            from .curves import draw_curves
        except ModuleNotFoundError as error:
            warnings.warn(f"no curves.png: {error}; pip install matplotlib", stacklevel=2)
            return
        draw_curves(self.rows, self.folder / "curves.png")

    def close(self) -> None:
        """Close TensorBoard's file and draw the curves a last time."""
        self._events.close()
        self.draw()


def _fresh_events(folder: Path) -> tf.io.TFRecordWriter:
    folder.mkdir(exist_ok=True)
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    now = time.time()
    writer = tf.io.TFRecordWriter(str(folder / f"events.out.tfevents.{int(now)}.edgemask"))
    first = tf.compat.v1.Event(wall_time=now, file_version="brain.Event:2")
    writer.write(first.SerializeToString())
    return writer


def _tag(name: str) -> str:
    """TensorBoard groups figures by what stands before the slash."""
    if name.startswith("dev_"):
        return f"dev/{name.removeprefix('dev_')}"
    return f"train/{name}"
