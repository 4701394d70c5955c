"""Anchors: their place, order and shape."""

import math

import numpy as np
import pytest

from edgemask.anchors import anchors_of, given_anchors, pyramid_anchors
from edgemask.errors import InputError


def anchors_in_loops(shapes, strides, sizes, ratios):
    boxes = []
    for (height, width), stride, size in zip(shapes, strides, sizes, strict=True):
        for i in range(height):
            for j in range(width):
                for ratio in ratios:
                    x, y = (j + 0.5) * stride, (i + 0.5) * stride
                    w, h = size / math.sqrt(ratio), size * math.sqrt(ratio)
                    boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return np.array(boxes)


@pytest.mark.parametrize("ratios", [[1.0], [0.5, 1.0, 2.0]])
def test_equal_to_loops(ratios):
    setting = [(5, 7), (3, 4), (1, 2)], [8, 16, 32], [24, 48.5, 96], ratios
    got = pyramid_anchors(*setting)
    assert got.dtype == np.float32
    assert got.shape == ((35 + 12 + 2) * len(ratios), 4)
    np.testing.assert_allclose(got, anchors_in_loops(*setting), rtol=1e-6, atol=1e-4)


def test_order_is_level_row_column_ratio():
    got = pyramid_anchors([(2, 3)], [10], [4], [1.0, 4.0])
    centres = (got[:, :2] + got[:, 2:]) / 2
    assert centres[::2].tolist() == [[5, 5], [15, 5], [25, 5], [5, 15], [15, 15], [25, 15]]
    assert got[1].tolist() == [4, 1, 6, 9]  # height four times the width, area 16


def test_computed_once_and_read_only():
    a = pyramid_anchors([(4, 4)], [8], [16], [1.0])
    b = pyramid_anchors([[4, 4]], (8,), np.array([16]), (1,))
    assert a is b
    with pytest.raises(ValueError, match="read-only"):
        a[0] = 0


def test_nothing():
    assert pyramid_anchors([], [], [], [1.0]).shape == (0, 4)
    assert pyramid_anchors([(0, 5)], [8], [16], [1.0]).shape == (0, 4)


@pytest.mark.parametrize(
    "setting",
    [
        ([(2, 2)], [8, 16], [16], [1.0]),
        ([(2, 2)], [8], [16, 32], [1.0]),
        ([(2, 2)], [8], [16], []),
        ([(2, 2)], [8], [16], [0.0]),
        ([(2, 2)], [0], [16], [1.0]),
        ([(2, 2)], [8], [-1], [1.0]),
        ([(-2, 2)], [8], [16], [1.0]),
    ],
)
def test_wrong_input(setting):
    with pytest.raises(InputError):
        pyramid_anchors(*setting)


def test_given_boxes_lie_around_the_centres() -> None:
    boxes = [[-1, -2, 3, 4], [-10, -20, 5, 5]]
    got = given_anchors((2, 3), 16, boxes)
    assert got.dtype == np.float32
    assert got.shape == (12, 4)
    # row 1, column 2: the centre is x 40, y 24
    np.testing.assert_array_equal(got[10:], [[39, 22, 43, 28], [30, 4, 45, 29]])


def test_given_anchors_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        given_anchors((2, 3), 16, [[-1, -2, 3, 4]])[0] = 0


def test_anchors_of_a_pack() -> None:
    pyramid = {"strides": [8, 16], "anchor_sizes": [16, 32], "anchor_ratios": [1.0, 2.0]}
    shapes = [(4, 6), (2, 3)]
    expected = pyramid_anchors(shapes, *pyramid.values())
    np.testing.assert_array_equal(anchors_of(pyramid, shapes), expected)
    given = {"strides": [16], "anchor_boxes": [[-8, -8, 8, 8]]}
    square = pyramid_anchors([(2, 3)], [16], [16], [1.0])
    np.testing.assert_array_equal(anchors_of(given, [(2, 3)]), square)
