"""Outlines: they enclose exactly the pixels of the mask."""

import numpy as np
import pytest

from edgemask.contours import contours


def signed_area(polygon):
    x, y = polygon.astype(np.float64).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def filled(polygons, height, width):
    """Even-odd fill: a pixel is inside if an odd number of vertical sides lie left of it."""
    toggles = np.zeros((height, width + 1), bool)
    for polygon in polygons:
        for (xa, ya), (xb, yb) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if xa == xb:
                toggles[int(min(ya, yb)) : int(max(ya, yb)), int(xa)] ^= True
    return np.logical_xor.accumulate(toggles, axis=1)[:, :width]


def check(crop, x0=0, y0=0):
    polygons = contours(crop, x0, y0)
    total = 0.0
    for polygon in polygons:
        assert polygon.dtype == np.float32
        assert polygon.shape[1] == 2
        steps = np.roll(polygon, -1, axis=0) - polygon
        assert ((steps != 0).sum(axis=1) == 1).all(), "sides run along the pixel edges"
        horizontal = steps[:, 0] != 0
        assert (horizontal != np.roll(horizontal, 1)).all(), "only corners are listed"
        total += signed_area(polygon)
    assert total == np.count_nonzero(crop)
    local = [polygon - np.float32([x0, y0]) for polygon in polygons]
    np.testing.assert_array_equal(filled(local, *crop.shape), crop)
    return polygons


def mask(text):
    return np.array([[character == "#" for character in row] for row in text.split()])


def test_one_pixel():
    (polygon,) = check(mask("#"), 7, 3)
    assert polygon.tolist() == [[7, 3], [8, 3], [8, 4], [7, 4]]


def test_a_rectangle_has_four_corners():
    (polygon,) = check(np.ones((5, 9), bool), 10, 20)
    assert polygon.tolist() == [[10, 20], [19, 20], [19, 25], [10, 25]]


def test_a_hole_runs_the_other_way():
    outer, hole = check(mask("##### #...# #.#.# #...# #####"))[:2]
    assert signed_area(outer) == 25
    assert signed_area(hole) == -9


def test_components():
    polygons = check(mask("##..# ##..# ..... .#..."))
    assert sorted(signed_area(polygon) for polygon in polygons) == [1, 2, 4]


@pytest.mark.parametrize("text", ["#. .#", ".# #."])
def test_diagonal_pixels_have_outlines_of_their_own(text):
    polygons = check(mask(text))
    assert [signed_area(polygon) for polygon in polygons] == [1, 1]


def test_diagonal_holes():
    check(mask("#### #.## ##.# ####"))
    check(mask("#### ##.# #.## ####"))


def test_a_checkerboard():
    crop = np.indices((6, 7)).sum(axis=0) % 2 == 0
    assert len(check(crop)) == 21


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (4, 6)])
def test_nothing(shape):
    assert contours(np.zeros(shape, bool)) == []


@pytest.mark.parametrize("seed", range(60))
def test_random_masks(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    crop = rng.random((height, width)) < rng.choice([0.03, 0.3, 0.5, 0.7, 0.97])
    check(crop, int(rng.integers(0, 500)), int(rng.integers(0, 500)))


def test_a_spiral():
    # One outline of many sides: the longest cycle to put in order.
    crop = np.zeros((41, 41), bool)
    low, high = 0, 41
    crop[low, low:high] = True
    while high - low > 4:
        crop[low:high, high - 1] = True
        crop[high - 1, low:high] = True
        crop[low + 2 : high, low] = True
        crop[low + 2, low : high - 2] = True
        low, high = low + 2, high - 2
    assert len(check(crop)) == 1


def test_strided_input():
    crop = np.zeros((12, 12), bool)
    crop[2:9:2, 3:8] = True
    check(crop[::2, ::-1])
    check(crop.T)
