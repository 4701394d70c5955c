"""The result object: consistent, indexable, ready for JSON."""

import json
import sys
import types

import numpy as np
import pytest

from edgemask.errors import InputError, RuntimeUnavailable
from edgemask.instances import Instances
from edgemask.masks import CropMasks
from edgemask.rle import decode


def crops():
    return CropMasks(
        [np.ones((4, 5), bool), np.zeros((2, 2), bool), np.eye(3, dtype=bool)],
        [[1, 2], [0, 0], [10, 7]],
        20,
        30,
    )


def three(**changes):
    parts = {
        "boxes": [[1.234, 2, 6, 6.5], [0, 0, 2, 2], [10, 7, 13, 10]],
        "scores": [0.912345, 0.8, 0.25],
        "class_ids": [1, 18, 1],
        "masks": crops(),
        "class_names": ["person", "dog", "person"],
        "track_ids": [4, -1, 0],
        "keypoints": np.arange(3 * 17 * 3).reshape(3, 17, 3) / 7,
    }
    return Instances(**(parts | changes))


def test_types_and_shapes():
    found = three()
    assert len(found) == 3
    assert found.boxes.dtype == found.scores.dtype == found.keypoints.dtype == np.float32
    assert found.class_ids.dtype == found.track_ids.dtype == np.int32
    assert found.boxes.shape == (3, 4)
    assert found.size == (20, 30)
    assert found.masks.semantic(1).sum() == 20 + 3
    assert repr(found) == "Instances(3 in 20x30: person 0.91, dog 0.80, person 0.25)"


def test_defaults():
    found = three(track_ids=None, keypoints=None)
    assert found.track_ids.tolist() == [-1, -1, -1]
    assert found.keypoints is None


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (-1, [2]),
        (slice(1, None), [1, 2]),
        ([2, 0], [2, 0]),
        ([], []),
        (np.array([False, True, True]), [1, 2]),
    ],
    ids=str,
)
def test_indexing(index, rows):
    found = three()
    part = found[index if len(np.shape(index)) == 0 or len(index) else np.zeros(0, int)]
    assert len(part) == len(rows)
    np.testing.assert_array_equal(part.boxes, found.boxes[rows])
    np.testing.assert_array_equal(part.scores, found.scores[rows])
    np.testing.assert_array_equal(part.class_ids, found.class_ids[rows])
    np.testing.assert_array_equal(part.track_ids, found.track_ids[rows])
    np.testing.assert_array_equal(part.keypoints, found.keypoints[rows])
    np.testing.assert_array_equal(part.masks.to_dense(), found.masks.to_dense()[rows])
    assert part.class_names == [found.class_names[row] for row in rows]
    assert part.size == (20, 30)


def test_filter_by_score():
    found = three()
    assert found[found.scores > 0.7].class_names == ["person", "dog"]
    assert len(found[found.scores > 2]) == 0


def test_to_dict():
    data = json.loads(json.dumps(three().to_dict(), allow_nan=False))
    assert data["size"] == [20, 30]
    first, second, third = data["instances"]
    assert first["box"] == [1.23, 2.0, 6.0, 6.5]
    assert first["score"] == 0.9123
    assert (first["class_id"], first["class_name"], first["track_id"]) == (1, "person", 4)
    assert (first["area"], first["centroid"]) == (20, [3.5, 4.0])
    assert second["track_id"] is None
    assert (second["area"], second["centroid"]) == (0, [1.0, 1.0])
    assert len(first["keypoints"]) == 17
    assert third["track_id"] == 0
    segmentation = third["segmentation"]
    np.testing.assert_array_equal(
        decode(segmentation["counts"], *segmentation["size"]), three().masks.to_dense()[2]
    )


def test_to_dict_has_no_nan():
    keypoints = np.full((3, 17, 3), np.nan)
    data = three(keypoints=keypoints, scores=[np.nan, 0.5, np.inf]).to_dict()
    json.dumps(data, allow_nan=False)
    assert data["instances"][0]["keypoints"][0] == [None, None, None]
    assert [item["score"] for item in data["instances"]] == [None, 0.5, None]
    assert "keypoints" not in three(keypoints=None).to_dict()["instances"][0]


def test_empty():
    nothing = Instances.empty(12, 34)
    assert len(nothing) == 0
    assert nothing.size == (12, 34)
    assert nothing.boxes.shape == (0, 4)
    assert nothing.to_dict() == {"size": [12, 34], "instances": []}
    assert not nothing.masks.semantic(1).any()
    assert len(nothing[nothing.scores > 0.5]) == 0
    assert repr(nothing) == "Instances(0 in 12x34: nothing)"


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("boxes", np.zeros((2, 4))),
        ("boxes", np.zeros((3, 5))),
        ("scores", [0.5]),
        ("class_ids", [1, 2]),
        ("track_ids", [1, 2]),
        ("class_names", ["person"]),
        ("masks", CropMasks.empty(20, 30)),
        ("keypoints", np.zeros((3, 16, 3))),
    ],
)
def test_parts_that_do_not_fit(part, value):
    with pytest.raises(InputError):
        three(**{part: value})


def test_to_supervision(monkeypatch):
    fake = types.ModuleType("supervision")
    fake.Detections = types.SimpleNamespace
    monkeypatch.setitem(sys.modules, "supervision", fake)
    found = three()
    detections = found.to_supervision()
    np.testing.assert_array_equal(detections.xyxy, found.boxes)
    np.testing.assert_array_equal(detections.mask, found.masks.to_dense())
    np.testing.assert_array_equal(detections.confidence, found.scores)
    assert detections.class_id.tolist() == [1, 18, 1]
    assert detections.tracker_id is None  # one of them has no track
    assert detections.data["class_name"].tolist() == ["person", "dog", "person"]
    assert found[[0, 2]].to_supervision().tracker_id.tolist() == [4, 0]


def test_to_supervision_of_nothing(monkeypatch):
    fake = types.ModuleType("supervision")
    fake.Detections = types.SimpleNamespace
    monkeypatch.setitem(sys.modules, "supervision", fake)
    detections = Instances.empty(12, 34).to_supervision()
    assert detections.xyxy.shape == (0, 4)
    assert detections.mask.shape == (0, 12, 34)


def test_without_supervision(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(RuntimeUnavailable, match="pip install supervision") as caught:
        three().to_supervision()
    assert isinstance(caught.value, ImportError)


def test_empty_of_a_pack_with_keypoints():
    assert Instances.empty(20, 30).keypoints is None
    posed = Instances.empty(20, 30, keypoints=True)
    assert posed.keypoints.shape == (0, 17, 3)
    assert posed.to_dict()["instances"] == []
