"""Fusion of boxes and masks, against cases worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edgemask_convert.teach.views import (
    Found,
    ViewTeacher,
    fuse_boxes,
    mirror_boxes,
    size_weights,
)


def found(*rows: tuple[list[float], float, int]) -> Found:
    return Found(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.float32),
        np.array([r[2] for r in rows], np.int32),
    )


def test_two_views_of_one_box() -> None:
    fused = fuse_boxes([found(([0, 0, 10, 10], 0.8, 1)), found(([0, 0, 10, 14], 0.4, 1))])
    # 10 * 2/3 + 14 * 1/3; (0.8 + 0.4) / 2
    np.testing.assert_allclose(fused.boxes, [[0, 0, 10, 34 / 3]], rtol=1e-6)
    np.testing.assert_allclose(fused.scores, [0.6], rtol=1e-6)
    assert fused.class_ids.tolist() == [1]


def test_what_one_of_two_views_saw_counts_half() -> None:
    fused = fuse_boxes([found(([0, 0, 10, 10], 0.8, 1)), found(([50, 0, 60, 10], 0.6, 1))])
    np.testing.assert_allclose(fused.scores, [0.4, 0.3], rtol=1e-6)
    assert fused.boxes[:, 0].tolist() == [0, 50]


def test_classes_stay_apart_and_order_is_by_fused_score() -> None:
    a = found(([0, 0, 10, 10], 0.9, 1), ([0, 0, 10, 10], 0.5, 2))
    b = found(([0, 0, 10, 10], 0.7, 2), ([0, 0, 10, 10], 0.1, 1))
    fused = fuse_boxes([a, b])
    assert fused.class_ids.tolist() == [2, 1]
    np.testing.assert_allclose(fused.scores, [0.6, 0.5], rtol=1e-6)


def test_more_members_than_views_do_not_raise_the_score() -> None:
    a = found(([0, 0, 10, 10], 0.8, 1), ([0, 0, 10, 9], 0.6, 1))
    b = found(([0, 0, 10, 10], 0.4, 1))
    np.testing.assert_allclose(fuse_boxes([a, b]).scores, [0.6], rtol=1e-6)


def test_the_threshold_is_exclusive() -> None:
    a, b = found(([0, 0, 10, 10], 0.8, 1)), found(([0, 0, 10, 5], 0.4, 1))  # IoU 0.5
    assert len(fuse_boxes([a, b], 0.5).boxes) == 2
    assert len(fuse_boxes([a, b], 0.49).boxes) == 1


def test_weights_of_views() -> None:
    a, b = found(([0, 0, 10, 10], 0.8, 1)), found(([0, 0, 10, 14], 0.4, 1))

    def weigh(boxes: Any) -> Any:
        return np.repeat(np.array([[1.0], [0.5]], np.float32), len(boxes), axis=1)

    fused = fuse_boxes([a, b], weigh=weigh)
    # shares 0.8 and 0.2; (0.8 + 0.2) / 1.5
    np.testing.assert_allclose(fused.boxes, [[0, 0, 10, 10.8]], rtol=1e-6)
    np.testing.assert_allclose(fused.scores, [1 / 1.5], rtol=1e-6)


def test_nothing_found_and_a_single_view() -> None:
    assert len(fuse_boxes([found(), found()]).boxes) == 0
    one = found(([0, 0, 10, 10], 0.8, 1))
    assert fuse_boxes([one]) is one


def test_size_weights() -> None:
    boxes = np.array([[0, 0, 50, 50], [0, 0, 100, 100], [0, 0, 400, 400]], np.float32)
    weights = size_weights(boxes, [1.0, 2.0], best=100, spread=0.5)
    # The other view is off by ln 2: exp(-(ln 2 / 0.5)² / 2) = 0.3825; at 400 pixels both are
    # too large, by ln 4 and ln 8: exp((ln² 4 - ln² 8) / 0.5) = 0.0082, which is not worth it.
    np.testing.assert_allclose(weights, [[0.3825, 1, 1], [1, 0.3825, 0]], atol=1e-4)
    assert size_weights(boxes[:0], [1.0, 2.0], 100, 0.5).shape == (2, 0)


def test_mirroring_twice_is_nothing() -> None:
    boxes = np.array([[1, 2, 11, 7]], np.float32)
    assert mirror_boxes(boxes, 40).tolist() == [[29, 2, 39, 7]]
    assert mirror_boxes(mirror_boxes(boxes, 40), 40).tolist() == boxes.tolist()


class Bright:
    """Sees where the image is bright: boxes to the pixel, masks by nearest sampling."""

    opened = 0

    def __init__(self, image: Any, short_side: int) -> None:
        Bright.opened += 1
        self.image, self.side = image, short_side

    def detect(self) -> Found:
        bright = self.image[:, :, 0] > 128
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        return found((box, 0.5 if self.side == 100 else 0.9, 3))

    def masks(self, boxes: Any, class_ids: Any) -> Any:
        masks = []
        for x0, y0, x1, y1 in boxes:
            x = (x0 + (x1 - x0) * (np.arange(4) + 0.5) / 4).astype(int)
            y = (y0 + (y1 - y0) * (np.arange(4) + 0.5) / 4).astype(int)
            masks.append(self.image[np.ix_(y, x)][:, :, 0] / np.float32(255))
        return np.array(masks, np.float32)


@pytest.fixture
def corner() -> Any:
    """An image with an L of brightness in the box 4 2 20 10, which is not symmetric."""
    image = np.zeros((20, 40, 3), np.uint8)
    image[2:10, 4:8] = image[8:10, 4:20] = 255
    return image


def test_mirrored_views_agree_with_straight_ones(corner: Any) -> None:
    teacher = ViewTeacher("bright", {3: "l"}, Bright, (50, 100), flip=True)
    seen = teacher.label(corner)
    assert seen.boxes.tolist() == [[4, 2, 20, 10]]
    np.testing.assert_allclose(seen.scores, [0.7], rtol=1e-6)
    assert seen.class_ids.tolist() == [3]
    expected = np.zeros((4, 4))
    expected[:, 0] = expected[3] = 1
    np.testing.assert_allclose(seen.masks[0], expected, atol=1e-6)


def test_features_of_an_image_are_computed_once_and_only_where_needed(corner: Any) -> None:
    Bright.opened = 0
    teacher = ViewTeacher("bright", {3: "l"}, Bright, (20, 400), flip=True, best_size=11)
    boxes, ids = np.array([[4, 2, 20, 10]], np.float32), np.array([3], np.int32)
    teacher.segment(corner, boxes, ids)
    assert Bright.opened == 2  # at short side 400 the box is 20 times too large
    teacher.label(corner)
    assert Bright.opened == 4
    teacher.segment(corner.copy(), boxes, ids)
    assert Bright.opened == 6


def test_boxes_are_clipped_to_the_image(corner: Any) -> None:
    """A mask is relative to its box: it has to be asked for in the box that is given."""
    asked = []

    class Beyond(Bright):
        def detect(self) -> Found:
            return found(([-2, -1, 50, 30], 0.9, 3))

        def masks(self, boxes: Any, class_ids: Any) -> Any:
            asked.append(boxes.tolist())
            return np.ones((len(boxes), 4, 4), np.float32)

    seen = ViewTeacher("beyond", {3: "l"}, Beyond, (50,)).label(corner)
    assert seen.boxes.tolist() == [[0, 0, 40, 20]]
    assert asked == [[[0, 0, 40, 20]]]
