"""A take as OpenPose's JSON, which Pose2Sim and others triangulate."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgemask.errors import InputError
from edgemask.outputs import write_json
from edgemask.takes.reader import Record

__all__ = ["write_openpose"]

_ABSENT = ("face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d",
           "pose_keypoints_3d", "face_keypoints_3d", "hand_left_keypoints_3d",
           "hand_right_keypoints_3d")  # fmt: skip


def write_openpose(records: Iterable[Record], folder: Path, name: str) -> int:
    """Write a file for each frame: ``NAME_000000.json``, with the frame's index.

    The format is version 1.3 of OpenPose's (Cao et al.), the keypoints are COCO's 17 in COCO's
    order: Pose2Sim calls them COCO_17. As in OpenCV, whose calibrations these programs read, the
    centre of the first pixel is at 0, 0. ``person_id`` is the track.

    Returns
    -------
    int
        The number of files.

    Raises
    ------
    InputError
        The model has no keypoints.
    OutputError
        See :func:`edgemask.outputs.write_file`.
    """
    files = 0
    for record in records:
        people = []
        for item in record.instances:
            if "keypoints" not in item:
                raise InputError(
                    f"{name} has no keypoints: track with a model that finds them, --model "
                    "people-pose"
                )
            points = item["keypoints"]
            if not any(point[2] for point in points):
                continue  # not a person
            track = item.get("track_id")
            people.append(
                {
                    "person_id": [-1 if track is None else track],
                    "pose_keypoints_2d": [v for point in points for v in _point(point)],
                    **{key: [] for key in _ABSENT},
                }
            )
        write_json(folder / f"{name}_{record.index:06d}.json", {"version": 1.3, "people": people})
        files += 1
    return files


def _point(point: list[float | None]) -> tuple[float, float, float]:
    x, y, score = point
    if x is None or y is None or not score:
        return 0, 0, 0
    return round(x - 0.5, 2), round(y - 0.5, 2), score
