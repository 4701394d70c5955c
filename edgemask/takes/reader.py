"""Reading a take, a frame at a time, in constant memory."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgemask.errors import InputError
from edgemask.takes.writer import SCHEMA

__all__ = ["Record", "read_take"]

_LONGEST_SIDE = 65_535
_MOST_PIXELS = 2**28  # in no frame that edgemask reads are more
_LARGEST = 2**63  # of what can be written everywhere
_NEEDED = ("box", "score", "class_id", "class_name", "area", "centroid", "segmentation")


@dataclass(frozen=True)
class Record:
    """What was found in one frame.

    Attributes
    ----------
    index : int
        Number of the frame, from 0; may leave out some.
    sensor_ns : int or None
        See :class:`edgemask.sources.base.Frame`.
    wall_ns : int
    source : str
    size : (int, int)
        Height and width of the frame.
    instances : list of dict
        As :meth:`edgemask.instances.Instances.to_dict` describes them.
    """

    index: int
    sensor_ns: int | None
    wall_ns: int
    source: str
    size: tuple[int, int]
    instances: list[dict[str, Any]]


def read_take(
    path: str | os.PathLike[str], progress: Callable[[int], object] = lambda done: None
) -> Iterator[Record]:
    """Yield the records of a take.

    A last line that is not complete, because the power or the disk failed, is left out
    with a warning.

    Parameters
    ----------
    path : path
    progress : callable, optional
        Gets the number of bytes that have been read.

    Raises
    ------
    InputError
        There is no such file, or a line is not a record of a frame, or not in the order of frames.
    """
    done, last = 0, -1
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                done += len(line)
                try:
                    record = _record(line)
                except _Broken as error:
                    if not line.endswith(b"\n") and number > 1:
                        warnings.warn(
                            f"{path}: the last line is not complete and is left out", stacklevel=2
                        )
                        return
                    raise InputError(
                        f"{path}, line {number} is not a record of a frame ({error}): give a file "
                        "that edgemask track has written"
                    ) from error
                if record.index <= last:
                    raise InputError(
                        f"{path}, line {number} has the index {record.index} after {last}: give "
                        "each take by itself"
                    )
                last = record.index
                yield record
                progress(done)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): check its name"
        ) from error


class _Broken(Exception):
    """What is wrong with a line."""


def _record(line: bytes) -> Record:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise _Broken("not JSON") from None
    if not isinstance(found, Mapping) or found.get("schema") != SCHEMA:
        raise _Broken(f"its schema is not {SCHEMA}")
    index: Any = found.get("index")
    wall_ns: Any = found.get("wall_ns")
    sensor_ns = found.get("sensor_ns")
    size, instances = found.get("size"), found.get("instances")
    timed = sensor_ns is None or _whole(sensor_ns, -_LARGEST)  # a film may begin before 0
    if not (_whole(index) and _whole(wall_ns) and timed):
        raise _Broken("index, sensor_ns and wall_ns are not whole numbers")
    if not isinstance(size, list) or len(size) != 2 or not all(
        _whole(side) and 0 < side <= _LONGEST_SIDE for side in size
    ):  # fmt: skip
        raise _Broken("size is not [height, width]")
    if size[0] * size[1] > _MOST_PIXELS:
        raise _Broken(f"size {size} is more than {_MOST_PIXELS >> 20} megapixels")
    if not isinstance(instances, list) or not all(map(_is_instance, instances)):
        raise _Broken("an instance lacks what it needs")
    return Record(index, sensor_ns, wall_ns, str(found.get("source")), (*size,), instances)


def _whole(value: Any, low: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < _LARGEST


def _is_instance(item: Any) -> bool:
    """Whether all keys are there; a number that is not finite was written as None."""
    return (
        isinstance(item, Mapping)
        and all(key in item for key in _NEEDED)
        and _numbers([item["score"], item["area"]], 2)
        and _numbers(item["box"], 4)
        and _numbers(item["centroid"], 2)
        and _whole(item["class_id"])
        and (item.get("track_id") is None or _whole(item["track_id"]))
        and isinstance(item["segmentation"], Mapping)
        and isinstance(item["segmentation"].get("counts"), str)
        and (
            "keypoints" not in item
            or (
                isinstance(item["keypoints"], list)
                and len(item["keypoints"]) == 17
                and all(_numbers(point, 3) for point in item["keypoints"])
            )
        )
    )


def _numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(
            v is None
            or (isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < _LARGEST)
            for v in values
        )
    )
