"""RoIAlign in training against RoIAlign on the device, and mask targets by hand."""

from __future__ import annotations

import numpy as np
import pytest
from edgemask_convert.training.roi_tf import assign_levels, crop_bitmaps, roi_align

from edgemask import roi_align as device

HEIGHT, WIDTH, CHANNELS = 96, 160, 5
STRIDES = [4, 8, 16]


def pyramid(seed: int, strides: list[int], batch: int = 2) -> list[np.ndarray]:
    """Return random levels in the range of a ReLU6."""
    random = np.random.default_rng(seed)
    return [
        random.uniform(0, 6, (batch, HEIGHT // s, WIDTH // s, CHANNELS)).astype(np.float32)
        for s in strides
    ]


def inside_boxes(seed: int, count: int, batch: int = 2) -> np.ndarray:
    """Return boxes inside the image, from 1 pixel to the whole; some touch its edges."""
    random = np.random.default_rng(seed)
    room = np.array([WIDTH - 1, HEIGHT - 1])
    low = random.uniform(0, 1, (batch, count, 2)) ** 2 * room
    high = low + 1 + random.uniform(0, 1, (batch, count, 2)) * (room - low)
    boxes = np.concatenate([low, high], -1).astype(np.float32)
    boxes[:, 0] = [0, 0, WIDTH, HEIGHT]
    boxes[:, 1] = [WIDTH - 8, HEIGHT - 8, WIDTH, HEIGHT]
    boxes[:, 2] = [0, 0, 3, 3]
    return boxes


@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize(
    ("strides", "thresholds", "size"),
    [(STRIDES, [30.0, 60.0], 7), (STRIDES, [30.0, 60.0], 14), ([8, 16, 32], [40.0, 80.0], 7),
     ([8], [], 7), ([4, 32], [50.0], 3)],
)  # fmt: skip
def test_equals_the_device(
    strides: list[int], thresholds: list[float], size: int, ratio: int
) -> None:
    levels, boxes = pyramid(size + ratio, strides), inside_boxes(ratio, 40)
    found = roi_align(levels, strides, thresholds, boxes, size, ratio).numpy()
    assert found.shape == (80, size, size, CHANNELS)
    for n in range(2):
        expected = device.roi_align(
            [level[n] for level in levels], boxes[n],
            device.assign_levels(boxes[n], thresholds), strides, size, ratio,
        )  # fmt: skip
        np.testing.assert_allclose(found[40 * n : 40 * n + 40], expected, atol=1e-4)


def test_levels_equal_the_device() -> None:
    boxes = inside_boxes(3, 200)[0]
    boxes[5] = [0, 0, 30, 30]  # exactly at a threshold
    expected = device.assign_levels(boxes, [30.0, 60.0])
    np.testing.assert_array_equal(assign_levels(boxes, [30.0, 60.0]), expected)
    assert expected[5] == 1
    assert set(expected) == {0, 1, 2}
    assert (assign_levels(boxes, []).numpy() == 0).all()


def test_padding_boxes_give_finite_features() -> None:
    levels = pyramid(0, STRIDES, batch=1)
    boxes = np.zeros((1, 3, 4), np.float32)
    assert np.isfinite(roi_align(levels, STRIDES, [30.0, 60.0], boxes, 7, 2)).all()


def crop(bitmap: np.ndarray, box: list[float], roi: list[float], size: int = 8) -> np.ndarray:
    """Crop one bitmap."""
    return np.asarray(
        crop_bitmaps(
            bitmap[None].astype(np.float32),
            np.array([box], np.float32),
            np.array([roi], np.float32),
            size,
        )
    )[0]


def test_roi_that_is_the_box() -> None:
    bitmap = np.zeros((64, 64))
    bitmap[:, :32] = 1
    target = crop(bitmap, [10, 20, 42, 36], [10, 20, 42, 36])
    np.testing.assert_allclose(target[:, :4], 1, atol=1e-6)
    np.testing.assert_allclose(target[:, 4:], 0, atol=1e-6)


def test_part_of_the_box() -> None:
    bitmap = np.zeros((64, 64))
    bitmap[:16, :32] = 1  # x 10 ... 26, y 20 ... 24
    target = crop(bitmap, [10, 20, 42, 36], [18, 22, 34, 26])
    # of the RoI's eight columns four, of its eight rows four, are inside
    np.testing.assert_allclose(target[:4, :4], 1, atol=1e-6)
    assert target.sum() == pytest.approx(16, abs=1e-3)


def test_roi_beyond_the_box_is_empty_there() -> None:
    target = crop(np.ones((64, 64)), [10, 20, 42, 36], [-22, 20, 42, 36])
    np.testing.assert_allclose(target[:, :4], 0, atol=0.05)
    np.testing.assert_allclose(target[1:7, 4:8], 1, atol=1e-6)


def test_soft_coverage() -> None:
    target = crop(np.full((64, 64), 0.3), [0, 0, 16, 16], [4, 4, 12, 12])
    np.testing.assert_allclose(target, 0.3, atol=1e-6)


def test_no_shift() -> None:
    """A mirrored mask gives the mirrored target."""
    random = np.random.default_rng(0)
    bitmap = random.uniform(0, 1, (64, 64))
    plain = crop(bitmap, [0, 0, 32, 32], [3, 5, 29, 27], 28)
    mirrored = crop(bitmap[::-1, ::-1], [0, 0, 32, 32], [3, 5, 29, 27], 28)
    np.testing.assert_allclose(plain[::-1, ::-1], mirrored, atol=1e-5)
