"""What is said of annotations and results before pycocotools would trip over them."""

from __future__ import annotations

import builtins
import copy
from typing import Any

import numpy as np
import pytest
from synthetic import make_instances

from edgemask.errors import InputError, RuntimeUnavailable, SourceError
from edgemask.evaluate import check_annotations, evaluate, load_annotations, require_pycocotools
from edgemask.outputs import coco_results

pytest.importorskip("pycocotools")


def annotated(**fields: Any) -> dict[str, Any]:
    """One person in one image of 100x100 pixels."""
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 60]} | fields
    image = {"id": 1, "file_name": "1.png", "width": 100, "height": 100}
    categories = [{"id": 1, "name": "person"}]
    return {"images": [image], "annotations": [entry], "categories": categories}


def test_what_is_missing_is_filled_into_a_copy() -> None:
    data = annotated()
    before = copy.deepcopy(data)
    (entry,) = load_annotations(data)["annotations"]
    assert (entry["iscrowd"], entry["area"]) == (0, 1200)
    assert data == before


def test_labelled_categories_are_a_list() -> None:
    data = annotated()
    data["images"][0]["labeled_cats"] = 1
    with pytest.raises(SourceError, match="image 1 has labeled_cats 1: give a list"):
        load_annotations(data)


def test_no_category_to_average_over() -> None:
    with pytest.raises(InputError, match="choose among those"):
        evaluate([], annotated(segmentation=[]), category_ids=[])


@pytest.mark.parametrize("score", ["high", None, [1]])
def test_a_score_is_a_number(score: object) -> None:
    entry = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": score}
    with pytest.raises(SourceError, match="entry 0 is not a COCO result"):
        evaluate([entry], annotated(), ["bbox"])


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ({"size": [50, 50], "counts": "x"}, r"annotation 1: its RLE has size \[50, 50\]"),
        ({"size": [100, 100], "counts": [-5, 10005]}, "not the image's 10000 pixels"),
        ({"size": [100, 100], "counts": [10, 20]}, "not the image's 10000 pixels"),
        ({"size": [100, 100], "counts": "~~~~~~"}, "not the image's 10000 pixels"),
        ({"size": [100, 100], "counts": "1"}, "not the image's 10000 pixels"),
        ({"size": [100, 100], "counts": "\ud800"}, "not the image's 10000 pixels"),
        ({"size": 5, "counts": "x"}, "annotation 1: its RLE has size 5"),
        ({"size": None, "counts": [10000]}, "annotation 1: its RLE has size None"),
        ({"counts": "x"}, "it needs size and counts"),
        ([[1e12, 1, -1e12, 1, 50, 1e12]], "give polygons as flat lists of x and y in pixels"),
        ([[10**400, 1, 1, 1, 50, 1]], "give polygons as flat lists of x and y in pixels"),
    ],
)
def test_rle_that_would_make_pycocotools_read_on(segmentation: object, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        check_annotations(load_annotations(annotated(segmentation=segmentation)), ["segm"])


@pytest.mark.parametrize(
    "fields",
    [
        {"bbox": [0, 0, float("nan"), 5]},
        {"bbox": [0, 0, 10**400, 5], "area": 1},
        {"iscrowd": "no"},
        {"iscrowd": -1.5},
        {"area": float("inf")},
        {"area": 10**400},
    ],
)
def test_numbers_that_are_none(fields: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="annotation 1 has"):
        check_annotations(load_annotations(annotated(**fields)), ["bbox"])


def test_a_category_is_a_number() -> None:
    data = annotated()
    data["categories"].append({"id": "1"})
    with pytest.raises(SourceError, match=r"categories\[1\] has id '1': give a whole number"):
        load_annotations(data)


def test_images_have_ids_of_one_kind() -> None:
    data = annotated()
    data["images"].append({"id": "2"})
    with pytest.raises(SourceError, match="the ids of images are int and str: use one kind"):
        load_annotations(data)


def test_a_box_stands_for_a_mask_that_is_missing() -> None:
    """All of it is ignored, and nothing else."""
    data = annotated(segmentation=[])
    other = {"id": 2, "image_id": 1, "category_id": 1, "bbox": [60, 0, 20, 20],
             "segmentation": [[60, 0, 80, 0, 80, 20, 60, 20]]}  # fmt: skip
    data["annotations"].append(other)
    masks = np.zeros((2, 100, 100), bool)
    masks[0, 40:70, 10:30] = masks[1, 0:20, 60:80] = True
    found = coco_results(make_instances(masks, [0.9, 0.8]), 1)
    assert evaluate(found, data, ["segm"])["segm"]["AP"] == pytest.approx(1)


def test_pycocotools_for_another_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def broken(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pycocotools"):
            raise ValueError("numpy.dtype size changed")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(RuntimeUnavailable, match="size changed"):
        require_pycocotools()
