from __future__ import annotations

import numpy as np
import pytest

from edgemask.mask_nms import mask_soft_nms
from edgemask.masks import CropMasks


def squares(*places: tuple[int, int, int, int]) -> tuple[CropMasks, np.ndarray]:
    """Full masks at x0, y0, x1, y1, and their boxes."""
    crops = [np.ones((y1 - y0, x1 - x0), bool) for x0, y0, x1, y1 in places]
    masks = CropMasks(crops, [place[:2] for place in places], 50, 60)
    return masks, np.array(places, np.float32)


def lowered(masks: CropMasks, boxes: np.ndarray, threshold: float = 0.5, classes=None) -> list:
    count = len(masks)
    scores = np.linspace(0.9, 0.6, count).astype(np.float32)
    own = np.zeros(count, np.int64) if classes is None else np.array(classes)
    found = mask_soft_nms(masks, boxes, scores, own, threshold)
    assert found.dtype == np.float32
    return (found / scores).tolist()


@pytest.mark.parametrize(
    ("shift", "factor"),
    [
        (0, 0.0),  # the same
        (2, (1 - 8 / 12) / 0.5),  # IoU 8/12
        (4, 1.0),  # 6/14, below the threshold
        (30, 1.0),  # apart
    ],
)
def test_factor_falls_from_the_threshold_to_0(shift: int, factor: float) -> None:
    masks, boxes = squares((5, 5, 15, 15), (5 + shift, 5, 15 + shift, 15))
    assert lowered(masks, boxes) == pytest.approx([1.0, factor], abs=1e-6)


def test_the_worst_overlap_counts() -> None:
    masks, boxes = squares((0, 0, 10, 10), (4, 0, 14, 10), (1, 0, 11, 10))
    assert lowered(masks, boxes) == pytest.approx([1, 1, (1 - 9 / 11) / 0.5], abs=1e-6)


def test_one_box_but_other_pixels() -> None:
    """Who stands behind somebody keeps the score."""
    left = np.zeros((10, 10), bool)
    left[:, :5] = True
    masks = CropMasks([left, ~left], [(3, 3), (3, 3)], 50, 60)
    boxes = np.array([[3, 3, 13, 13]] * 2, np.float32)
    assert lowered(masks, boxes) == [1, 1]


def test_classes_do_not_compete() -> None:
    masks, boxes = squares((5, 5, 15, 15), (5, 5, 15, 15))
    assert lowered(masks, boxes, classes=[0, 1]) == [1, 1]


def test_empty_masks_and_none() -> None:
    crops = [np.zeros((10, 10), bool)] * 2
    boxes = np.array([[3, 3, 13, 13]] * 2, np.float32)
    assert lowered(CropMasks(crops, [(3, 3)] * 2, 50, 60), boxes) == [1, 1]
    assert lowered(CropMasks.empty(50, 60), boxes[:0]) == []


def test_equals_dense_masks() -> None:
    random = np.random.default_rng(0)
    corners = random.integers(0, 40, (12, 2))
    sides = random.integers(1, 30, (12, 2))
    ends = np.minimum(corners + sides, [60, 50])
    crops = [random.random((y1 - y0, x1 - x0)) < 0.8 for (x0, y0), (x1, y1)
             in zip(corners, ends, strict=True)]  # fmt: skip
    masks = CropMasks(crops, corners, 50, 60)
    boxes = np.concatenate([corners, ends], 1).astype(np.float32)
    flat = masks.to_dense().reshape(12, -1).astype(np.float64)
    shared = flat @ flat.T
    sizes = flat.sum(1)
    iou = shared / (sizes[:, None] + sizes - shared)
    worst = np.triu(iou, 1).max(0)
    expected = np.minimum((1 - worst) / (1 - 0.1), 1)
    assert (expected < 1).sum() >= 3
    np.testing.assert_allclose(lowered(masks, boxes, 0.1), expected, atol=1e-6)
