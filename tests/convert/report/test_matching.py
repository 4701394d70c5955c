from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edgemask_convert.report.matching import match
from edgemask_convert.report.statistics import precision_at_recall

from edgemask.evaluate import evaluate

from .conftest import predictions, result


def damaged(truth: dict[str, Any]) -> dict[str, Any]:
    """The truth with all that COCO and this project allow: crowds, open masks, partial labels."""
    for n, entry in enumerate(truth["annotations"]):
        if n % 7 == 0:
            entry["iscrowd"] = 1
        elif n % 5 == 0:
            entry["segmentation"] = []
    for n, info in enumerate(truth["images"]):
        if n % 4 == 0:
            info["labeled_cats"] = [1]
        if n % 5 == 0:
            info["exhaustive"] = 0
    return truth


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_curves_have_the_ap_of_pycocotools(truth: dict[str, Any], kind: str, seed: int) -> None:
    found = predictions(truth, seed)
    for data in (truth, damaged(truth)):
        matches = match(found, data, [1, 2], kind)
        expected = evaluate(found, data, [kind])[kind]
        for threshold, name in ((0.5, "AP50"), (0.75, "AP75")):
            mean = precision_at_recall(matches, threshold).mean()
            assert mean == pytest.approx(expected[name], abs=1e-9)
            assert 0.02 < mean < 0.98


def test_one_class_only(truth: dict[str, Any]) -> None:
    found = predictions(truth)
    matches = match(found, truth, [2])
    assert set(matches.category) == set(matches.truth_category) == {2}
    expected = evaluate(found, truth, ["segm"], [2])["segm"]["AP50"]
    assert precision_at_recall(matches, 0.5).mean() == pytest.approx(expected)


def square(x: int, side: int = 10) -> np.ndarray:
    mask = np.zeros((20, 60), bool)
    mask[5 : 5 + side, x : x + side] = True
    return mask


def scene(*objects: dict[str, Any]) -> dict[str, Any]:
    """One image of 60x20 with objects; boxes and masks agree."""
    listed = [
        {"id": n, "area": 100, "iscrowd": 0, **{k: v for k, v in o.items() if k != "score"}}
        for n, o in enumerate(objects)
    ]
    images = [{"id": 1, "height": 20, "width": 60, "file_name": "a.png"}]
    return {"images": images, "annotations": listed, "categories": [{"id": 1}, {"id": 2}]}


def test_by_hand() -> None:
    """Two detections want the first object, the better one gets it; one lies on the second."""
    data = scene(result(1, 1, square(0), 1), result(1, 1, square(30), 1))
    found = [
        result(1, 1, square(2), 0.6),  # IoU 80 / 120
        result(1, 1, square(1), 0.9),  # IoU 90 / 110
        result(1, 2, square(30), 0.8),  # in the right place, of the other class
    ]
    matches = match(found, data, [1, 2])
    assert matches.score.tolist() == [0.9, 0.8, 0.6]
    assert matches.found[matches.level(0.5)].tolist() == [0, -1, -1]
    assert matches.found[matches.level(0.75)].tolist() == [0, -1, -1]
    np.testing.assert_allclose(matches.own_iou, [9 / 11, 0, 2 / 3])
    np.testing.assert_allclose(matches.other_iou, [0, 1, 0])
    np.testing.assert_allclose(matches.overlap[0], [9 / 11, 0, 0])
    assert not matches.ignored.any()


def test_crowds_and_partial_labels_are_ignored() -> None:
    crowd = {**result(1, 1, square(0), 1), "iscrowd": 1}
    found = [result(1, 1, square(1), 0.9), result(1, 1, square(40), 0.8)]
    data = scene(crowd)
    matches = match(found, data, [1, 2])
    assert matches.ignored[0].tolist() == [True, False]
    assert not matches.countable.any()
    data["images"][0]["exhaustive"] = 0
    assert match(found, data, [1, 2]).ignored.all()
    data["images"][0]["labeled_cats"] = [2]
    assert not len(match(found, data, [1, 2]).score)


def test_nothing_found_and_nothing_there() -> None:
    matches = match([], scene(), [1, 2])
    assert matches.images == [1]
    assert matches.found.shape == (2, 0)
    assert np.isnan(precision_at_recall(matches, 0.5)).all()


def test_a_crowd_of_another_class_is_no_object() -> None:
    crowd = {**result(1, 2, square(0), 1), "iscrowd": 1}
    matches = match([result(1, 1, square(0), 0.9)], scene(crowd), [1, 2])
    assert matches.other_iou.tolist() == [0]


def test_a_hundred_of_each_class() -> None:
    found = [result(1, c, square(0), 1 - n / 200) for c, count in ((1, 101), (2, 60))
             for n in range(count)]  # fmt: skip
    matches = match(found, scene(), [1, 2])
    assert np.bincount(matches.category).tolist() == [0, 100, 60]
    assert matches.score[matches.category == 1].min() == pytest.approx(1 - 99 / 200)
