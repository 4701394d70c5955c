"""The TensorFlow versions against the NumPy ones that run on the device."""

from __future__ import annotations

import numpy as np
import pytest
from edgemask_convert.training import boxes_tf

from edgemask import boxes


def random_boxes(count: int, seed: int = 0, size: float = 200) -> np.ndarray:
    """Return boxes with sides of 2 pixels or more."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, size, (count, 2))
    return np.concatenate([corner, corner + random.uniform(2, size, (count, 2))], 1).astype("f4")


def test_area() -> None:
    given = random_boxes(50)
    np.testing.assert_allclose(boxes_tf.area(given), boxes.area(given), rtol=1e-6)
    assert boxes_tf.area(np.array([[5, 5, 3, 9]], np.float32)).numpy() == 0


def test_pairwise_iou() -> None:
    first, second = random_boxes(30), random_boxes(20, seed=1)
    expected = boxes.iou_matrix(first, second)
    np.testing.assert_allclose(boxes_tf.pairwise_iou(first, second), expected, atol=1e-6)
    batched = boxes_tf.pairwise_iou(np.stack([first, first]), np.stack([second, second]))
    np.testing.assert_allclose(batched, [expected, expected], atol=1e-6)
    aligned = boxes_tf.iou(first[:20], second)
    np.testing.assert_allclose(aligned, np.diag(expected[:20]), atol=1e-6)


def test_pairwise_ioa() -> None:
    a = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    b = np.array([[5, 0, 100, 100], [0, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(boxes_tf.pairwise_ioa(a, b), [[0.5, 0], [1, 0]])


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (10, 10, 5, 5)])
def test_decode(weights: tuple[float, ...]) -> None:
    anchors = random_boxes(100)
    deltas = np.random.default_rng(1).normal(0, 3, (100, 4)).astype(np.float32)
    deltas[:4, 2:] = 100  # limited, not infinite
    expected = boxes.decode(deltas, anchors, weights)
    found = boxes_tf.decode(deltas, anchors, list(weights)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-3)
    assert boxes_tf.MAX_LOG_SCALE == boxes.MAX_LOG_SCALE


def test_decode_inverts_encode() -> None:
    anchors, targets = random_boxes(50), random_boxes(50, seed=1)
    weights = [10.0, 10.0, 5.0, 5.0]
    deltas = boxes.encode(targets, anchors, weights)
    np.testing.assert_allclose(boxes_tf.decode(deltas, anchors, weights), targets, atol=1e-3)


def test_clip() -> None:
    given = random_boxes(50, size=300) - 100
    np.testing.assert_array_equal(boxes_tf.clip(given, 90, 160), boxes.clip(given, 90, 160))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0, 0, 10, 10), 1.0),
        ((0, 0, 10, 20), 0.5),  # the hull is the larger box: no penalty
        ((10, 10, 20, 20), -0.5),  # no overlap; half of the 20x20 hull is empty
        ((30, 0, 40, 10), -0.5),  # 40x10 hull, two of its four parts empty
        ((5, 5, 15, 15), 25 / 175 - 50 / 225),
        ((4, 4, 4, 4), 0.0),  # an empty box inside
    ],
)
def test_giou(other: tuple[float, ...], expected: float) -> None:
    a, b = np.array([[0, 0, 10, 10]], np.float32), np.array([other], np.float32)
    assert boxes_tf.giou(a, b).numpy()[0] == pytest.approx(expected, abs=1e-6)
    assert boxes_tf.giou(b, a).numpy()[0] == pytest.approx(expected, abs=1e-6)
