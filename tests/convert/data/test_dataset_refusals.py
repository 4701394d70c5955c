"""Datasets that are refused, with the name of what is wrong in them."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from edgemask_convert.data.dataset import (
    CocoDataset,
    DatasetError,
    DatasetWarning,
)

from ..conftest import Coco


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DatasetWarning)
        yield


def test_wrong_image_size(coco: Coco) -> None:
    coco.image(1)
    coco.image(2)
    coco.data["images"][1]["width"] = 41
    dataset = coco.load()
    with pytest.raises(DatasetError, match=r"image 2: .*2\.png is 40x30, .* say 41x30"):
        dataset.records()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"bbox \[1, 2, 3\] is not four finite numbers"),
        ({"bbox": [1, 2, float("nan"), 4]}, "is not four finite numbers"),
        ({"bbox": [1, 2, 1e300, 4]}, "is not four finite numbers x y width height below 1e"),
        ({"bbox": "1 2 3 4"}, "is not four finite numbers"),
        ({"bbox": [1, 2, None, 4]}, "is not four finite numbers"),
        ({"segmentation": [[1, 2, 3]]}, "a polygon of it is not a list"),
        ({"segmentation": {"size": [9, 9], "counts": "PPYo0"}}, r"its RLE has size \[9, 9\]"),
        ({"segmentation": {"counts": "PPYo0"}}, "size"),
        ({"segmentation": {"size": [30, 40], "counts": "!!"}}, "RLE counts are not"),
    ],
)
def test_damaged_annotations_are_named(coco: Coco, change: dict[str, Any], message: str) -> None:
    coco.image(5)
    number = coco.add(5, [5, 5, 10, 10], **change)
    dataset = coco.load()
    with pytest.raises(DatasetError, match=rf"annotation {number} of image 5: .*{message}"):
        dataset.records()


def _without(section: str, key: str) -> Any:
    def change(data: dict[str, Any]) -> None:
        del data[section][0][key]

    return change


def _twice(section: str) -> Any:
    def change(data: dict[str, Any]) -> None:
        data[section].append(copy.deepcopy(data[section][0]))

    return change


def _set(section: str, key: str, value: object) -> Any:
    def change(data: dict[str, Any]) -> None:
        data[section][0][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("images"), "has no list 'images'"),
        (lambda data: data.update(annotations={}), "has no list 'annotations'"),
        (lambda data: data.pop("categories"), "has no list 'categories'"),
        (_without("images", "file_name"), r"images\[0\] has no 'file_name'"),
        (_without("images", "height"), r"images\[0\] has no 'height'"),
        (_without("annotations", "bbox"), r"annotations\[0\] has no 'bbox'"),
        (_without("annotations", "image_id"), r"annotations\[0\] has no 'image_id'"),
        (_without("categories", "name"), r"categories\[0\] has no 'name'"),
        (lambda data: data["images"].append(7), r"images\[1\] has no 'id'"),
        (_set("images", "id", "a1"), r"images\[0\] has id 'a1', not an integer"),
        (_set("categories", "keypoints", 5), r"categories\[0\] has keypoints 5, not a list"),
        (_set("categories", "keypoints", [5]), r"categories\[0\] has keypoints 5, not text"),
        (_twice("images"), "images id 1 occurs 2 times"),
        (_twice("annotations"), "annotations id 100 occurs 2 times"),
        (_twice("categories"), "categories id 1 occurs 2 times"),
        (_set("annotations", "category_id", 77), r"unknown category ids \[77\]"),
    ],
)
def test_refuses(coco: Coco, change: Any, message: str) -> None:
    coco.image(1)
    coco.add(1, [5, 5, 10, 10])
    change(coco.data)
    with pytest.raises(DatasetError, match=message):
        coco.load()


def test_refuses_unknown_class(coco: Coco) -> None:
    coco.image(1)
    with pytest.raises(DatasetError, match=r"class ids \[3\] are not in .*; it has \[1, 2\]"):
        coco.load([1, 3])


def test_refuses_files(coco: Coco, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot read .*annotations\.json: No such file"):
        CocoDataset(coco.path, coco.folder)
    coco.path.write_text("{")
    with pytest.raises(DatasetError, match="is not JSON"):
        CocoDataset(coco.path, coco.folder)
    coco.path.write_text("[]")
    with pytest.raises(DatasetError, match="is not COCO"):
        CocoDataset(coco.path, coco.folder)
    coco.image(1)
    coco.path.write_text(json.dumps(coco.data))
    with pytest.raises(DatasetError, match="is not a folder of images"):
        CocoDataset(coco.path, tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError, match="none of the 1 images"):
        CocoDataset(coco.path, empty)


def test_refuses_a_folder_of_rubbish(coco: Coco) -> None:
    coco.image(1).write_bytes(b"rubbish")
    dataset = coco.load()
    with (
        pytest.warns(DatasetWarning, match="1 files are not images"),
        pytest.raises(DatasetError, match="has no image that can be read"),
    ):
        dataset.records()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("images", "file_name", 7), r"images\[0\] has file_name 7, not text"),
        (_set("images", "height", "30"), r"images\[0\] has height '30', not a number"),
        (_set("images", "width", None), r"images\[0\] has width None, not a number"),
        (_set("images", "id", True), r"images\[0\] has id True, not an integer"),
        (_set("images", "labeled_cats", 1), r"images\[0\] has labeled_cats 1, not a list"),
        (_set("annotations", "image_id", [1]), r"annotations\[0\] has image_id \[1\], not an int"),
        (_set("annotations", "category_id", "1"), r"annotations\[0\] has category_id '1', not an"),
        (_set("categories", "name", 5), r"categories\[0\] has name 5, not text"),
        (lambda data: data["annotations"].append("x"), r"annotations\[1\] has no 'id'"),
    ],
)
def test_refuses_fields_of_another_type(coco: Coco, change: Any, message: str) -> None:
    coco.image(1)
    coco.add(1, [5, 5, 10, 10])
    change(coco.data)
    with pytest.raises(DatasetError, match=message):
        coco.load()


@pytest.mark.parametrize(
    "segmentation",
    [
        "5 5 15 5",
        7,
        [5, 5, 15, 5, 15, 15],  # one polygon that is not in a list
        [[[5, 5], [15, 5], [15, 15]]],  # pairs
        [[5, 5, "x", 5, 15, 15]],
        [[5, 5, None, 5, 15, 15]],
        {"counts": [1200], "size": 30},
        {"counts": None, "size": [30, 40]},
        {"counts": [600, 601], "size": [30, 40]},
        {"counts": [1300, -100], "size": [30, 40]},
        {"size": [30, 40]},
        {"data": "!!", "size": 28},
    ],
)
def test_segmentations_that_are_none_are_named(coco: Coco, segmentation: Any) -> None:
    coco.image(5)
    number = coco.add(5, [5, 5, 10, 10], segmentation=segmentation)
    dataset = coco.load()
    with pytest.raises(DatasetError, match=f"annotation {number} of image 5: "):
        dataset.records()
