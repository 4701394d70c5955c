"""Masks are compared with areas that are known from geometry."""

from __future__ import annotations

import numpy as np
import pytest
from edgemask_convert.data.bitmaps import MASK_SIZE, box_bitmap
from pycocotools import mask as coco_mask

BOX = np.array([10, 20, 42, 36], np.float32)  # 32x16 pixels: a cell is 1/2 x 1/4 pixel
HEIGHT, WIDTH = 50, 60


def coverage(segmentation: object, box: np.ndarray = BOX) -> np.ndarray:
    """The bitmap as float coverage 0 ... 1."""
    bitmap = box_bitmap(segmentation, box, HEIGHT, WIDTH)
    assert bitmap is not None
    assert bitmap.shape == (MASK_SIZE, MASK_SIZE)
    assert bitmap.dtype == np.uint8
    return bitmap.astype(np.float32) / 255


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    """Return the polygon of a rectangle."""
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def test_polygon_that_fills_the_box() -> None:
    assert (coverage([rectangle(*BOX)]) == 1).all()


def test_left_half() -> None:
    half = coverage([rectangle(10, 20, 26, 36)])
    assert (half[:, :32] == 1).all()
    assert (half[:, 33:] == 0).all()


def test_inner_rectangle() -> None:
    # x 14...38 are cells 8...56, y 24...32 are cells 16...48; a border cell may be grey.
    inner = coverage([rectangle(14, 24, 38, 32)])
    assert (inner[17:47, 9:55] == 1).all()
    outside = inner.copy()
    outside[15:49, 7:57] = 0
    assert (outside == 0).all()
    assert inner.mean() == pytest.approx(0.375, abs=0.01)


def test_disc_area_and_centre() -> None:
    turns = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    disc = coverage([np.stack([26 + 16 * np.cos(turns), 28 + 8 * np.sin(turns)], 1).ravel()])
    assert disc.mean() == pytest.approx(np.pi / 4, abs=0.01)
    y, x = np.mgrid[0.5:MASK_SIZE, 0.5:MASK_SIZE]
    assert (disc * x).sum() / disc.sum() == pytest.approx(32, abs=0.05)
    assert (disc * y).sum() / disc.sum() == pytest.approx(32, abs=0.05)


def test_parts_add_up() -> None:
    both = coverage([rectangle(10, 20, 18, 36), rectangle(34, 20, 42, 36)])
    assert both.mean() == pytest.approx(0.5, abs=0.01)
    assert (both[:, 17:47] == 0).all()


def test_rle_equals_polygon() -> None:
    dense = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    dense[24:32, 14:38] = 1
    compressed = coco_mask.encode(dense)
    compressed["counts"] = compressed["counts"].decode()
    runs = np.flatnonzero(np.diff(np.concatenate([[0], dense.ravel("F"), [0]])))
    counts = np.diff(np.concatenate([[0], runs, [dense.size]])).tolist()
    plain = {"size": [HEIGHT, WIDTH], "counts": counts}
    first, second = coverage(compressed), coverage(plain)
    np.testing.assert_array_equal(first, second)
    assert (first[16:48, 8:56] == 1).all()
    assert first.mean() == pytest.approx(0.375, abs=0.005)
    np.testing.assert_allclose(first, coverage([rectangle(14, 24, 38, 32)]), atol=0.3)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        {},
        [[10, 20, 30, 30]],  # two points
        [rectangle(50, 40, 55, 45)],  # beside the box
        {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]},  # an empty RLE
    ],
)
def test_no_mask(segmentation: object) -> None:
    assert box_bitmap(segmentation, BOX, HEIGHT, WIDTH) is None


def test_no_box() -> None:
    assert box_bitmap([rectangle(*BOX)], np.array([10, 20, 10, 36]), HEIGHT, WIDTH) is None


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[10, 20, 30, 30, 20]], "not a list x0 y0 x1 y1"),
        ([10, 20, 30, 30, 20, 40], "not a list x0 y0 x1 y1"),
        ([[10, 20, float("nan"), 30, 20, 40]], "not a list x0 y0 x1 y1"),
        ({"size": [HEIGHT, WIDTH], "counts": [5]}, "does not cover the 60x50 pixels"),
        ({"size": [9, 9], "counts": "PPYo0"}, r"has size \[9, 9\], the image \[50, 60\]"),
        ({"size": [HEIGHT, WIDTH], "counts": "0~~~~0"}, "RLE counts"),
    ],
)
def test_damaged(segmentation: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        box_bitmap(segmentation, BOX, HEIGHT, WIDTH)


def test_triangle() -> None:
    """The least that a polygon can have."""
    assert coverage([[10, 20, 42, 20, 10, 36]]).mean() == pytest.approx(0.5, abs=0.01)


def test_cells_of_an_rle_are_means() -> None:
    """Every second column of the box is set: each of its cells covers two."""
    counts = [0, *[64] * 128]
    bitmap = box_bitmap({"size": [64, 128], "counts": counts}, np.array([0, 0, 128, 64]), 64, 128)
    assert bitmap is not None
    assert np.abs(bitmap.astype(int) - 128).max() <= 1
