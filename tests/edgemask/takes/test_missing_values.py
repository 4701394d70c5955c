"""Takes of other programs, in which numbers are missing, in the formats of others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from synthetic import make_instances

from edgemask.takes.coco import write_coco
from edgemask.takes.openpose import write_openpose
from edgemask.takes.reader import Record


def doubtful() -> Record:
    """A frame with somebody half of whose numbers are missing, and somebody without a box."""
    mask = np.zeros((1, 40, 60), bool)
    mask[0, 5:25, 11:21] = True
    (item,) = make_instances(mask, [0.9]).to_dict()["instances"]
    points = [[10.5, 5.5, 0.5], [None, 5.5, 0.9], *[[1.0, 1.0, 0.0]] * 15]
    item |= {"keypoints": points, "track_id": None}
    return Record(5, None, 0, "cam-000005", (40, 60), [item, item | {"box": [None, 1, 2, 3]}])


def test_coco(tmp_path: Path) -> None:
    write_coco(lambda: [doubtful()], tmp_path / "out.json")
    (entry,) = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert entry["keypoints"][:9] == [10, 5, 2, 0, 0, 0, 0, 0, 0]
    assert entry["num_keypoints"] == 1


def test_openpose(tmp_path: Path) -> None:
    assert write_openpose([doubtful()], tmp_path, "pose") == 1
    data = json.loads((tmp_path / "pose_000005.json").read_text())
    first = data["people"][0]
    assert first["person_id"] == [-1]
    assert first["pose_keypoints_2d"][:9] == [10, 5, 0.5, 0, 0, 0, 0, 0, 0]
