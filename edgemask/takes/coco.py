"""A take as a COCO dataset, which annotation tools open and ``edgemask-convert train`` reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from edgemask.images import SUFFIXES
from edgemask.keypoints import NAMES, SKELETON
from edgemask.outputs import json_line, write_file
from edgemask.takes.reader import Record

__all__ = ["write_coco"]


def write_coco(read: Callable[[], Iterable[Record]], path: Path) -> None:
    """Write the dataset.

    An image has ``id`` (the frame's index plus one), ``file_name`` (the frame's name, from the
    folder on that all image files have in common, and ``.jpg`` added where it is none), ``width``,
    ``height``, ``frame_index``, ``sensor_ns``; an annotation what COCO gives it, ``score`` and
    ``track_id``. Keypoints have 2 (visible) where their score is 0.5 or more, 1 where it is less;
    as in COCO the centre of the first pixel is at 0, 0 for them.

    Parameters
    ----------
    read : callable
        Returns the records; called three times, so that none is kept.
    path : Path

    Raises
    ------
    OutputError
        See :func:`edgemask.outputs.write_file`.
    """
    names: dict[int, str] = {}
    posed: set[int] = set()
    folders: set[str] = set()
    for record in read():
        if _is_image(record):
            folders.add(os.path.dirname(record.source))
        for item in record.instances:
            names.setdefault(item["class_id"], str(item["class_name"]))
            if any(point[2] for point in item.get("keypoints", ())):
                posed.add(item["class_id"])
    categories = [
        _category(number, name, number in posed) for number, name in sorted(names.items())
    ]
    numbers = count(1)
    folder = _common(folders)

    def content() -> Iterator[bytes]:
        yield b'{"images": [\n'
        yield from _joined(_image(record, folder) for record in read())
        yield b'], "annotations": [\n'
        yield from _joined(
            _annotation(item, record, next(numbers), item["class_id"] in posed)
            for record in read()
            for item in record.instances
            if None not in item["box"]
        )
        yield b'], "categories": ' + json_line(categories).rstrip() + b"}\n"

    write_file(path, lambda stream: stream.writelines(content()))


def _joined(entries: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    for number, entry in enumerate(entries):
        yield (b"," if number else b"") + json_line(entry)


def _category(number: int, name: str, posed: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": number, "name": name}
    if posed:
        # COCO counts keypoints from 1 here.
        entry |= {"keypoints": NAMES, "skeleton": [[a + 1, b + 1] for a, b in SKELETON]}
    return entry


def _is_image(record: Record) -> bool:
    return Path(record.source).suffix.lower() in SUFFIXES


def _common(folders: set[str]) -> str:
    """The folder that all of these are in, "" if there is none: a pattern may match in several."""
    try:
        return os.path.commonpath(folders)
    except ValueError:  # absolute and relative ones, or none at all
        return ""


def _image(record: Record, folder: str) -> dict[str, Any]:
    height, width = record.size
    name = f"{record.source}.jpg"
    if _is_image(record):
        name = os.path.relpath(record.source, folder) if folder else record.source
    return {
        "id": record.index + 1, "file_name": name, "width": width, "height": height,
        "frame_index": record.index, "sensor_ns": record.sensor_ns,
    }  # fmt: skip


def _annotation(item: dict[str, Any], record: Record, number: int, posed: bool) -> dict[str, Any]:
    x0, y0, x1, y1 = item["box"]
    entry = {
        "id": number, "image_id": record.index + 1, "category_id": item["class_id"],
        "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)], "area": item["area"],
        "segmentation": {"size": list(record.size), "counts": item["segmentation"]["counts"]},
        "iscrowd": 0, "score": item["score"], "track_id": item.get("track_id"),
    }  # fmt: skip
    if posed:
        points = [_point(point) for point in item.get("keypoints", ())]
        entry["keypoints"] = [value for point in points for value in point]
        entry["num_keypoints"] = sum(point[2] > 0 for point in points)
    return entry


def _point(point: list[float | None]) -> tuple[float, float, int]:
    x, y, score = point
    if x is None or y is None or not score:
        return 0, 0, 0
    return round(x - 0.5, 2), round(y - 0.5, 2), 2 if score >= 0.5 else 1
