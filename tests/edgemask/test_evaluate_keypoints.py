"""Keypoint AP on hand-made persons whose object keypoint similarity (OKS) is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from synthetic import make_instances

from edgemask.coco_types import KEYPOINT_METRICS, METRICS, results_for, truth_for
from edgemask.errors import InputError, SourceError
from edgemask.evaluate import evaluate
from edgemask.keypoints import NAMES
from edgemask.outputs import coco_results

pytest.importorskip("pycocotools")

# Large persons, 100 x 100 pixels, with their keypoints on a diagonal.
# COCO ignores what is found within twice the box of a person without keypoints: the third is far.
PLACES = {1: (10, 10), 2: (120, 10), 3: (430, 10)}
NOSE_SIGMA = 0.026  # COCO's, of which OKS takes the double


def points(person: int) -> np.ndarray:
    """Keypoints (17, 2) of a person, as indices of pixels."""
    return np.array(PLACES[person]) + np.linspace(5, 95, 17)[:, None]


def annotation(person: int, **fields: Any) -> dict[str, Any]:
    flat = np.column_stack([points(person), np.full(17, 2)]).reshape(-1).tolist()
    entry = {
        "id": person, "image_id": 1, "category_id": 1, "bbox": [*PLACES[person], 100, 100],
        "area": 10000, "iscrowd": 0, "segmentation": [], "keypoints": flat, "num_keypoints": 17,
    }  # fmt: skip
    return {key: value for key, value in (entry | fields).items() if value is not None}


def dataset(*annotations: dict[str, Any], **image: Any) -> dict[str, Any]:
    picture = {"id": 1, "file_name": "1.png", "width": 600, "height": 200} | image
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    return {"images": [picture], "annotations": list(annotations), "categories": categories}


def detection(person: int, score: float = 0.9, shift: float = 0.0) -> dict[str, Any]:
    """The result of an instance whose keypoints lie `shift` pixels to the right of the truth."""
    mask = np.zeros((1, 200, 600), bool)
    x, y = PLACES[person]
    mask[0, y : y + 100, x : x + 100] = True
    instances = make_instances(mask, [score])
    found = np.full((1, 17, 3), 0.8, np.float32)
    found[0, :, :2] = points(person) + 0.5 + [shift, 0]
    instances.keypoints = found
    return coco_results(instances, 1)[0]


def keypoint_ap(predictions: list[dict[str, Any]], data: dict[str, Any], name: str = "AP") -> Any:
    return evaluate(predictions, data, ["keypoints"])["keypoints"][name]


def test_perfect() -> None:
    data = dataset(annotation(1), annotation(2))
    report = evaluate([detection(1), detection(2)], data, ["bbox", "keypoints"])
    assert list(report["bbox"]) == METRICS
    assert list(report["keypoints"]) == KEYPOINT_METRICS
    assert report["keypoints"]["AP"] == report["keypoints"]["AR"] == pytest.approx(1)
    assert report["keypoints"]["APl"] == pytest.approx(1)
    assert report["keypoints"]["APm"] is None


def test_half_a_pixel_is_taken_back() -> None:
    """COCO's keypoints are indices of pixels: 0.5 less than in Instances."""
    assert detection(1)["keypoints"][:2] == [15.0, 15.0]


def test_shifted_keypoints() -> None:
    """Only the nose is labelled, so OKS is a Gaussian of its distance."""
    nose = np.zeros((17, 3))
    nose[0] = [*points(1)[0], 2]
    data = dataset(annotation(1, keypoints=nose.reshape(-1).tolist(), num_keypoints=1))
    for wanted, thresholds in ((0.97, 10), (0.72, 5), (0.48, 0)):
        shift = math.sqrt(-2 * math.log(wanted) * 10000 * (2 * NOSE_SIGMA) ** 2)
        # thresholds are 0.50, 0.55, … 0.95
        found = keypoint_ap([detection(1, shift=shift)], data)
        assert found == pytest.approx(thresholds / 10), wanted


def test_poses_are_ranked_by_their_own_score() -> None:
    """A wrong pose of a person that is surely there comes after a right one, if it is doubtful."""
    data = dataset(annotation(1), annotation(2))
    right, wrong = detection(1, 0.6), detection(2, 0.9, shift=80)
    doubtful = {**wrong, "keypoint_score": 0.2}
    assert keypoint_ap([right, doubtful], data, "AP50") == pytest.approx(51 / 101)
    sure = {**wrong, "keypoint_score": 0.8}
    assert keypoint_ap([right, sure], data, "AP50") == pytest.approx(51 / 101 / 2)
    for result in (right, wrong):  # results of other programs have no such field
        del result["keypoint_score"]
    assert keypoint_ap([right, wrong], data, "AP50") == pytest.approx(51 / 101 / 2)
    boxes = evaluate([detection(1, 0.6), doubtful], data, ["bbox"])["bbox"]
    assert boxes["AP"] == pytest.approx(1)


def test_persons_without_keypoints_are_ignored() -> None:
    """They are neither missed nor is finding them a mistake; a detection elsewhere is one."""
    for bare in (
        annotation(2, keypoints=None, num_keypoints=None),
        annotation(2, keypoints=[0] * 51, num_keypoints=0),
        annotation(2, iscrowd=1, keypoints=None),
    ):
        data = dataset(annotation(1), bare)
        assert keypoint_ap([detection(1)], data) == pytest.approx(1)
        assert keypoint_ap([detection(2, 0.95), detection(1)], data) == pytest.approx(1)
        elsewhere = keypoint_ap([detection(3, 0.95), detection(1)], data)
        assert elsewhere == pytest.approx(0.5)


def test_number_of_keypoints_is_counted() -> None:
    data = dataset(annotation(1, num_keypoints=None))
    assert keypoint_ap([detection(1)], data) == pytest.approx(1)


def test_hidden_keypoints_count_as_labelled() -> None:
    flat = [10, 10, 1, 20, 10, 2] + [0] * 45
    (entry,) = truth_for([annotation(1, keypoints=flat, num_keypoints=None)], "keypoints")
    assert entry["num_keypoints"] == 2


def test_partly_labelled_images() -> None:
    """The rules for boxes and masks hold: unlabelled classes and unmatched detections."""
    found = [detection(3, 0.95), detection(1)]
    assert keypoint_ap(found, dataset(annotation(1), exhaustive=0)) == pytest.approx(1)
    assert keypoint_ap(found, dataset(annotation(1), labeled_cats=[18])) is None


def test_nothing_found_and_nothing_labelled() -> None:
    assert keypoint_ap([], dataset(annotation(1))) == 0
    assert keypoint_ap([detection(1)], dataset(annotation(1, keypoints=None))) is None


def test_other_classes_have_none() -> None:
    dog = {k: v for k, v in detection(2).items() if k != "keypoints"} | {"category_id": 18}
    data = dataset(annotation(1), annotation(2, category_id=18, keypoints=None))
    assert keypoint_ap([dog, detection(1)], data) == pytest.approx(1)
    with pytest.raises(InputError, match="prediction 0 has no keypoints"):
        evaluate([dog], data, ["keypoints"])


def test_wrong_number_of_values() -> None:
    with pytest.raises(SourceError, match="annotation 1 has keypoints"):
        keypoint_ap([detection(1)], dataset(annotation(1, keypoints=[1, 2, 3])))


def test_one_field_per_type() -> None:
    found = [detection(1)]
    for kind, field in (("bbox", "bbox"), ("segm", "segmentation"), ("keypoints", "keypoints")):
        (entry,) = results_for(found, kind)
        assert {"bbox", "segmentation", "keypoints"} & entry.keys() == {field}
    (region,) = truth_for([annotation(1)], "segm")
    assert region["iscrowd"] == 1
    assert region["segmentation"][0][:4] == [10, 10, 110, 10]
    (bare,) = truth_for([annotation(1, keypoints=None)], "keypoints")
    assert (bare["num_keypoints"], len(bare["keypoints"])) == (0, 3 * len(NAMES))
