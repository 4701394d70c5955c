"""Masks: pasting, and everything that is measured or converted."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from edgemask.errors import InputError
from edgemask.masks import CropMasks, paste
from edgemask.rle import decode

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "kernels_golden.npz")


def some_masks(seed=0, count=6, height=50, width=70):
    """CropMasks and the dense masks that they stand for."""
    rng = np.random.default_rng(seed)
    crops, origins, dense = [], [], np.zeros((count, height, width), bool)
    for n in range(count):
        h, w = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        x0, y0 = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        crop = rng.random((h, w)) < rng.choice([0.1, 0.5, 0.9])
        crop[h // 2, w // 3] = True
        crops.append(crop)
        origins.append((x0, y0))
        dense[n, y0 : y0 + h, x0 : x0 + w] = crop
    return CropMasks(crops, origins, height, width, [1, 2] * (count // 2)), dense


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.7])
def test_paste_equals_detectron2_on_every_pixel(threshold):
    height, width = GOLDEN["paste_size"].tolist()
    boxes = GOLDEN["paste_boxes"]
    bits = np.unpackbits(GOLDEN[f"paste_out_{threshold}"])
    want = bits.reshape(len(boxes), height, width).astype(bool)
    got = paste(GOLDEN["paste_masks"], boxes, height, width, threshold)
    assert got.size == (height, width)
    np.testing.assert_array_equal(got.to_dense(), want)
    for crop, box in zip(got.crops, boxes, strict=True):
        if threshold >= 0.5 and crop.size:
            assert crop.shape[0] <= np.ceil(box[3]) - np.floor(box[1])
            assert crop.shape[1] <= np.ceil(box[2]) - np.floor(box[0])


def paste_in_loops(cells, box, height, width, threshold):
    """The definition: bilinear values at the pixel centres, 0 outside of the cells."""
    size = len(cells)
    padded = np.pad(cells.astype(np.float64), 1)
    values = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            y = (row + 0.5 - box[1]) / (box[3] - box[1]) * size - 0.5
            x = (column + 0.5 - box[0]) / (box[2] - box[0]) * size - 0.5
            if -1 < y < size and -1 < x < size:
                i, j = int(np.floor(y)), int(np.floor(x))
                v, u = y - i, x - j
                corners = padded[i + 1 : i + 3, j + 1 : j + 3]
                values[row, column] = np.array([1 - v, v]) @ corners @ np.array([1 - u, u])
    return values >= threshold, np.abs(values - threshold) > 1e-5


@pytest.mark.parametrize("seed", range(10))
def test_paste_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.choice([7, 14, 28]))
    cells = rng.random((1, size, size)).astype(np.float32)
    if seed % 2:
        cells = np.round(cells)
    low = rng.uniform(-20, 40, 2)
    box = np.concatenate([low, low + rng.uniform(0.5, 60, 2)]).astype(np.float32)
    if seed % 3 == 0:
        box = np.round(box) + np.float32([0, 0, 1, 1])
    threshold = float(rng.choice([0.2, 0.5, 0.9]))
    want, decided = paste_in_loops(cells[0], box.tolist(), 40, 50, threshold)
    got = paste(cells, [box], 40, 50, threshold).to_dense()[0]
    np.testing.assert_array_equal(got[decided], want[decided])


def random_shape(rng, height, width):
    """An ellipse, a star-shaped polygon or a blob, as a dense mask."""
    y, x = np.mgrid[:height, :width] + 0.5
    cy, cx = rng.uniform(0.35, 0.65, 2) * (height, width)
    radius = rng.uniform(0.1, 0.33) * min(height, width)
    angle = np.arctan2(y - cy, x - cx)
    distance = np.hypot(y - cy, x - cx)
    kind = rng.integers(3)
    if kind == 0:
        turn, ratio = rng.uniform(0, np.pi), rng.uniform(0.5, 1)
        return (
            np.hypot(distance * np.cos(angle - turn), distance * np.sin(angle - turn) / ratio)
            < radius
        )
    if kind == 1:
        corners = int(rng.integers(3, 9))
        limit = radius * np.cos(np.pi / corners)
        sector = 2 * np.pi / corners
        within = np.mod(angle - rng.uniform(0, 6), sector) - sector / 2
        return distance * np.cos(within) < limit
    waves = sum(
        rng.uniform(0, 0.3 / k) * np.sin(k * angle + rng.uniform(0, 6)) for k in range(2, 6)
    )
    return distance < radius * (1 + waves)


def cropped_to_cells(dense, box, size):
    """What a perfect mask head would say: the covered share of each cell of the box."""

    def shares(low, high, length):
        borders = low + (high - low) * np.arange(size + 1) / size
        pixels = np.arange(length)
        covered = np.minimum(borders[1:, None], pixels + 1) - np.maximum(borders[:-1, None], pixels)
        return np.maximum(covered, 0) / ((high - low) / size)

    x0, y0, x1, y1 = box
    return shares(y0, y1, dense.shape[0]) @ dense @ shares(x0, x1, dense.shape[1]).T


def test_a_shape_survives_cropping_and_pasting():
    rng = np.random.default_rng(3)
    overlaps = []
    for _ in range(60):
        height, width = (int(n) for n in rng.integers(100, 400, 2))
        dense = random_shape(rng, height, width)
        box = CropMasks([dense], [[0, 0]], height, width).boxes[0]
        cells = cropped_to_cells(dense, box.tolist(), 28)
        again = paste(cells[None], [box], height, width).to_dense()[0]
        overlaps.append((again & dense).sum() / (again | dense).sum())
    assert np.mean(overlaps) > 0.95
    assert min(overlaps) > 0.9


def test_paste_of_boxes_without_pixels():
    ones = np.ones((6, 28, 28))
    boxes = [
        [5, 5, 5, 20],
        [20, 5, 10, 20],
        [-30, 5, -1, 20],
        [5, 80, 9, 90],
        [5, 5, np.nan, 9],
        [0, 0, np.inf, 9],
    ]
    with np.errstate(all="raise"):
        got = paste(ones, boxes, 60, 80)
    assert [crop.size for crop in got.crops] == [0] * 6
    assert got.areas.tolist() == [0] * 6
    assert not got.to_dense().any()


def test_boxes_that_are_none_warn_of_nothing() -> None:
    boxes = [[np.nan] * 4, [0, 0, np.inf, np.inf], [-3e38, -3e38, 3e38, 3e38], [5, 5, 5, 5]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert paste(np.ones((4, 7, 7)), boxes, 40, 50).areas.tolist() == [0] * 4


def test_a_value_at_the_threshold_belongs() -> None:
    """An int8 logit of 0 is a probability of 0.5 exactly."""
    box = [[16, 8, 32, 24]]  # a pixel per cell, in powers of two: no rounding
    assert paste(np.full((1, 16, 16), 0.5), box, 40, 50, 0.5).areas.tolist() == [256]
    assert paste(np.ones((1, 16, 16)), box, 40, 50, 1.0).areas.tolist() == [256]


def test_below_one_half_a_mask_reaches_beyond_its_box() -> None:
    """Cells of 20 pixels: outwards the value falls from 1/2 at the border by 1/20 a pixel."""
    got = paste(np.ones((1, 7, 7)), [[50, 60, 190, 200]], 260, 240, 0.3)
    assert got.boxes.tolist() == [[46, 56, 194, 204]]


def test_paste_of_a_full_mask_covers_the_pixels_whose_centre_is_in_the_box():
    got = paste(np.ones((1, 28, 28)), [[10.4, 20.6, 30.6, 40.4]], 60, 80)
    np.testing.assert_array_equal(got.boxes, [[10, 21, 31, 40]])
    assert got.areas.tolist() == [21 * 19]


def test_paste_of_nothing():
    got = paste(np.zeros((0, 28, 28)), np.zeros((0, 4)), 60, 80)
    assert len(got) == 0
    assert got.to_dense().shape == (0, 60, 80)
    assert got.areas.shape == (0,)
    assert got.centroids.shape == (0, 2)
    assert got.boxes.shape == (0, 4)
    assert got.contours() == got.to_coco_rle() == []


def test_wrong_input_to_paste():
    with pytest.raises(InputError, match=r"\(N, S, S\)"):
        paste(np.zeros((2, 28, 28)), np.zeros((3, 4)), 9, 9)
    with pytest.raises(InputError, match=r"\(N, S, S\)"):
        paste(np.zeros((2, 28, 27)), np.zeros((2, 4)), 9, 9)
    for threshold in (0, 1.1, np.nan):
        with pytest.raises(InputError, match="threshold"):
            paste(np.zeros((1, 28, 28)), [[0, 0, 5, 5]], 9, 9, threshold)


@pytest.mark.parametrize("seed", range(5))
def test_measures_equal_those_of_the_dense_masks(seed):
    masks, dense = some_masks(seed)
    assert masks.areas.dtype == np.int64
    assert masks.centroids.dtype == masks.boxes.dtype == np.float32
    np.testing.assert_array_equal(masks.to_dense(), dense)
    np.testing.assert_array_equal(masks.areas, dense.sum(axis=(1, 2)))
    for n, mask in enumerate(dense):
        rows, columns = np.nonzero(mask)
        np.testing.assert_allclose(
            masks.centroids[n], [columns.mean() + 0.5, rows.mean() + 0.5], rtol=1e-6
        )
        np.testing.assert_array_equal(
            masks.boxes[n], [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        )


def test_empty_masks_have_finite_measures():
    masks = CropMasks([np.zeros((4, 6), bool), np.zeros((0, 0), bool)], [[10, 20], [0, 0]], 50, 60)
    np.testing.assert_array_equal(masks.centroids, [[13, 22], [0, 0]])
    np.testing.assert_array_equal(masks.boxes, [[13, 22, 13, 22], [0, 0, 0, 0]])
    assert masks.areas.tolist() == [0, 0]


def test_rle_and_contours():
    masks, dense = some_masks()
    for item, mask in zip(masks.to_coco_rle(), dense, strict=True):
        assert item["size"] == [50, 70]
        assert isinstance(item["counts"], bytes)
        np.testing.assert_array_equal(decode(item["counts"], 50, 70), mask)
    for polygons, box in zip(masks.contours(), masks.boxes, strict=True):
        points = np.concatenate(polygons)
        np.testing.assert_array_equal(points.min(axis=0), box[:2])
        np.testing.assert_array_equal(points.max(axis=0), box[2:])


def test_semantic_is_the_union_of_a_class():
    masks, dense = some_masks()
    np.testing.assert_array_equal(masks.semantic(1), dense[0::2].any(axis=0))
    np.testing.assert_array_equal(masks.semantic(2), dense[1::2].any(axis=0))
    assert not masks.semantic(3).any()
    plain = CropMasks(masks.crops, masks.origins, 50, 70)
    with pytest.raises(InputError, match="with_class_ids"):
        plain.semantic(1)
    np.testing.assert_array_equal(plain.with_class_ids([7] * 6).semantic(7), dense.any(axis=0))


@pytest.mark.parametrize(
    "index",
    [
        3,
        -1,
        slice(1, 5, 2),
        np.array([True, False, True, True, False, False]),
        [5, 0, 0],
        np.zeros(0, int),
        np.int64(2),
    ],
    ids=str,
)
def test_indexing(index):
    masks, dense = some_masks()
    part = masks[index]
    want = dense[np.atleast_1d(np.arange(6)[index])]
    assert isinstance(part, CropMasks)
    assert len(part) == len(want)
    np.testing.assert_array_equal(part.to_dense(), want)
    ones = np.atleast_1d(np.arange(6)[index]) % 2 == 0
    np.testing.assert_array_equal(part.semantic(1), want[ones].any(axis=0))
    assert part.size == masks.size


def test_index_errors():
    masks, _ = some_masks()
    with pytest.raises(IndexError):
        masks[6]
    with pytest.raises(IndexError):
        masks[np.ones(5, bool)]


def test_empty():
    masks = CropMasks.empty(40, 30)
    assert len(masks) == 0
    assert masks.size == (40, 30)
    assert masks.origins.shape == (0, 2)
    assert not masks.semantic(1).any()
    assert masks.semantic(1).shape == (40, 30)
    assert repr(masks) == "CropMasks(0 masks in 40x30)"


def test_wrong_input():
    crop = np.ones((5, 5), bool)
    with pytest.raises(InputError, match="one per crop"):
        CropMasks([crop], [[0, 0], [1, 1]], 9, 9)
    with pytest.raises(InputError, match="leaves the 9x9"):
        CropMasks([crop], [[5, 0]], 9, 9)
    with pytest.raises(InputError, match="bool"):
        CropMasks([crop.astype(np.uint8)], [[0, 0]], 9, 9)
    with pytest.raises(InputError, match="class_ids"):
        CropMasks([crop], [[0, 0]], 9, 9, [1, 2])
