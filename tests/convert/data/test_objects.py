"""Which objects of a file are learnt, and where."""

from __future__ import annotations

import numpy as np
import pytest
from edgemask_convert.data.dataset import DatasetError, check_objects

from ..conftest import Coco


def test_images_without_objects_are_welcome(coco: Coco) -> None:
    coco.image(1)
    coco.image(2)
    coco.add(2, [5, 5, 10, 10])
    records = coco.load().records()
    check_objects(records, {1: "disc"}, coco.path)
    with pytest.raises(DatasetError, match="has no object of the classes that are trained"):
        check_objects(records[:1], {1: "disc"}, coco.path)


def test_a_mask_divides_what_is_left_of_its_box(coco: Coco) -> None:
    """Of this box the left half lies outside; of the rest the mask fills the left half."""
    coco.image(1)
    coco.add(1, [-10, 0, 20, 10], [[0, 0, 5, 0, 5, 10, 0, 10]])
    (record,) = coco.load().records()
    assert (record.bitmaps[0, :, :32] == 255).all()
    assert (record.bitmaps[0, :, 33:] == 0).all()


def test_crowds_end_where_the_image_does(coco: Coco) -> None:
    coco.image(1)
    coco.add(1, [30, 20, 50, 50], iscrowd=1)
    (record,) = coco.load().records()
    np.testing.assert_array_equal(record.ignore, [[30, 20, 40, 30]])


def test_labelled_categories_are_numbers(coco: Coco) -> None:
    coco.image(1, labeled_cats=[1, "2"])
    with pytest.raises(DatasetError, match=r"images\[0\] has labeled_cats '2', not an integer"):
        coco.load()
