"""Keypoints of annotation files: order by name, pixel centres, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.config import ConfigError, from_dict
from edgemask_convert.data.dataset import DatasetError
from edgemask_convert.data.keypoints import check_keypoints, keypoint_order, read_keypoints

from edgemask.keypoints import NAMES

from ..conftest import TINY, TINY_POSE, Coco


def test_order_of_a_category() -> None:
    assert keypoint_order({"id": 1, "name": "person"}) == list(range(17))
    assert keypoint_order({"keypoints": list(NAMES)}) == list(range(17))
    assert keypoint_order({"keypoints": ["left_wrist", "tail", "nose"]}) == [9, -1, 0]


def test_pixels_have_their_centre_at_a_half() -> None:
    values = [10, 20, 2, 7, 8, 1, 0, 0, 0] + [0] * 42
    found = read_keypoints({"keypoints": values}, list(range(17)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:3], [[10.5, 20.5, 2], [7.5, 8.5, 1], [0, 0, 0]])
    assert (found[3:] == 0).all()


def test_keypoints_go_where_their_names_say() -> None:
    found = read_keypoints({"keypoints": [1, 2, 2, 3, 4, 2, 5, 6, 1]}, [9, -1, 0])
    np.testing.assert_array_equal(found[[9, 0]], [[1.5, 2.5, 2], [5.5, 6.5, 1]])
    assert np.count_nonzero(found[:, 2]) == 2


def test_none() -> None:
    assert (read_keypoints({}, list(range(17))) == 0).all()
    assert (read_keypoints({"keypoints": []}, list(range(17))) == 0).all()


@pytest.mark.parametrize("values", [[1, 2, 2], [None] * 51, "abc", [float("nan")] * 51])
def test_bad_values_are_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="51 finite numbers"):
        read_keypoints({"keypoints": values}, list(range(17)))


def with_keypoints(coco: Coco) -> Coco:
    """One disc with keypoints, one without, one triangle with."""
    coco.image(1)
    coco.add(1, [2, 2, 20, 20], keypoints=[4, 5, 2, *[0] * 48], num_keypoints=1)
    coco.add(1, [10, 2, 20, 20])
    coco.add(1, [20, 2, 10, 20], category_id=2, keypoints=[6, 7, 2, *[0] * 48])
    return coco


def test_records(coco: Coco) -> None:
    (record,) = with_keypoints(coco).load().records()
    assert record.keypoints.shape == (3, 17, 3)
    assert record.keypoints.dtype == np.float32
    np.testing.assert_array_equal(record.keypoints[:, 0], [[4.5, 5.5, 2], [0, 0, 0], [6.5, 7.5, 2]])
    (discs,) = coco.load([1]).records()
    assert discs.keypoints.shape == (2, 17, 3)


def test_a_broken_annotation_is_named(coco: Coco) -> None:
    coco.image(1)
    number = coco.add(1, [2, 2, 20, 20], keypoints=[1, 2])
    with pytest.raises(DatasetError, match=f"annotation {number} of image 1: its keypoints"):
        coco.load().records()


def test_a_head_without_anything_to_learn_is_refused(coco: Coco) -> None:
    records = with_keypoints(coco).load().records()
    pose, plain = from_dict(TINY_POSE).model, from_dict(TINY).model
    check_keypoints(records, pose, Path("a.json"))
    for record in records:
        record.keypoints[record.labels == 0] = 0  # the triangle's do not help the disc
    check_keypoints(records, plain, Path("a.json"))
    with pytest.raises(ConfigError, match=r"no object of class 1 in a\.json has a labelled"):
        check_keypoints(records, pose, Path("a.json"))


def test_each_category_has_its_own_order(coco: Coco) -> None:
    for category, names in zip(
        coco.data["categories"], (["left_wrist", "nose"], ["nose", "left_eye"]), strict=True
    ):
        category["keypoints"] = names
    coco.image(1)
    coco.add(1, [2, 2, 20, 20], keypoints=[4, 5, 2, 6, 7, 2])
    coco.add(1, [10, 2, 20, 20], category_id=2, keypoints=[14, 15, 2, 16, 17, 2])
    (record,) = coco.load().records()
    assert np.flatnonzero(record.keypoints[0, :, 2]).tolist() == [0, 9]
    assert np.flatnonzero(record.keypoints[1, :, 2]).tolist() == [0, 1]
    np.testing.assert_array_equal(record.keypoints[1, 0], [14.5, 15.5, 2])


def test_the_class_of_a_head_need_not_be_the_first(coco: Coco) -> None:
    values = copy.deepcopy(TINY_POSE)
    values["model"]["classes"] = [2, 1]
    records = with_keypoints(coco).load([2, 1]).records()
    for record in records:
        record.keypoints[record.labels == 0] = 0  # the triangle's
    check_keypoints(records, from_dict(values).model, Path("a.json"))
