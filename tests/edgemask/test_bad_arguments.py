"""What is no model, no number of threads, or no image size is named, and not a failure of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgemask import InputError, ModelError, Segmenter
from edgemask.coco_types import check_images, check_rle
from edgemask.errors import SourceError
from edgemask.evaluate import load_annotations
from edgemask.images import as_rgb


@pytest.mark.parametrize("model", [None, 3, b"people", "x" * 300])
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises(ModelError, match="people-lite"):
        Segmenter(model)


def test_numbers_of_numpy_are_numbers() -> None:
    assert Segmenter("people-lite", threads=np.int64(1), max_detections=np.int32(3)).threads == 1


@pytest.mark.parametrize("name", ["threads", "score_threshold", "max_detections", "max_proposals"])
def test_true_is_no_number(name: str) -> None:
    options: dict[str, Any] = {name: True}
    with pytest.raises(InputError, match=f"{name} is True"):
        Segmenter("people-lite", **options)


def test_grey_multiplied_by_its_alpha() -> None:
    image = Image.new("LA", (4, 4), (100, 128)).convert("La")
    assert abs(int(as_rgb(image)[0, 0, 0]) - 177) <= 2  # 100 half over white


@pytest.mark.parametrize("value", ["341", None, -1, 0, True, 1.5])
def test_a_height_that_is_none(value: Any) -> None:
    with pytest.raises(SourceError, match="image 7 of the annotations has height"):
        check_images([{"id": 7, "height": value}], ("height",))


@pytest.mark.parametrize("value", [3, None, ""])
def test_a_file_name_that_is_none(value: Any) -> None:
    with pytest.raises(SourceError, match="image 7 of the annotations has file_name"):
        check_images([{"id": 7, "file_name": value}], ("file_name",))


def test_counts_that_are_none() -> None:
    with pytest.raises(SourceError, match="annotation 5: its RLE has counts None"):
        check_rle({"id": 5, "segmentation": {"size": [2, 3], "counts": None}}, (2, 3))


def test_labelled_categories_that_are_none() -> None:
    data = {"images": [{"id": 1, "labeled_cats": [[1]]}], "annotations": [], "categories": []}
    with pytest.raises(SourceError, match=r"image 1 has labeled_cats \[\[1\]\]"):
        load_annotations(data)
