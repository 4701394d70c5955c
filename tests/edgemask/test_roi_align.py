"""RoIAlign: equal to torchvision, and to the definition written in loops."""

from pathlib import Path

import numpy as np
import pytest

from edgemask.errors import InputError
from edgemask.roi_align import assign_levels, roi_align

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "kernels_golden.npz")
LEVELS = [GOLDEN[f"roi_level{i}"] for i in range(3)]
BOXES, LEVEL_IDS = GOLDEN["roi_boxes"], GOLDEN["roi_level_ids"]
STRIDES = GOLDEN["roi_strides"].tolist()
ZERO_POINT = int(GOLDEN["roi_zero_point"])


def sample(level, y, x):
    """One bilinear sample at sample indices y, x (0 is the centre of cell 0)."""
    height, width = level.shape[:2]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(level.shape[2])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    i, j = int(y), int(x)
    below, right = min(i + 1, height - 1), min(j + 1, width - 1)
    v, u = y - i, x - j
    top = (1 - u) * level[i, j] + u * level[i, right]
    bottom = (1 - u) * level[below, j] + u * level[below, right]
    return (1 - v) * top + v * bottom


def roi_align_in_loops(level, box, stride, size, ratio):
    x0, y0, x1, y1 = (float(value) / stride - 0.5 for value in box)
    out = np.zeros((size, size, level.shape[2]))
    for row in range(size * ratio):
        for column in range(size * ratio):
            y = y0 + (row + 0.5) * (y1 - y0) / (size * ratio)
            x = x0 + (column + 0.5) * (x1 - x0) / (size * ratio)
            out[row // ratio, column // ratio] += sample(level, y, x) / ratio**2
    return out


@pytest.mark.parametrize(("size", "ratio"), [(7, 2), (14, 2), (7, 1), (5, 3)])
def test_equal_to_torchvision(size, ratio):
    got = roi_align(LEVELS, BOXES, LEVEL_IDS, STRIDES, size, ratio, ZERO_POINT)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, GOLDEN[f"roi_out_{size}_{ratio}"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_the_definition(seed):
    rng = np.random.default_rng(seed)
    shapes = rng.integers(1, 30, (2, 2))
    levels = [rng.normal(size=(h, w, 3)).astype(np.float32) for h, w in shapes]
    low = rng.uniform(-30, 200, (6, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 150, (6, 2))], 1).astype(np.float32)
    ids, strides = rng.integers(0, 2, 6), [4, 8]
    size, ratio = int(rng.integers(1, 9)), int(rng.integers(1, 5))
    got = roi_align(levels, boxes, ids, strides, size, ratio)
    want = [
        roi_align_in_loops(levels[k], box, strides[k], size, ratio)
        for box, k in zip(boxes, ids, strict=True)
    ]
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("chosen", [slice(0, 8), slice(8, 14)], ids=["inside", "beyond"])
def test_int8_float_and_batch_axis_are_the_same(chosen):
    arguments = BOXES[chosen], LEVEL_IDS[chosen], STRIDES, 7, 2
    want = roi_align([lv.astype(np.float32) - ZERO_POINT for lv in LEVELS], *arguments)
    got = roi_align(LEVELS, *arguments, ZERO_POINT)
    np.testing.assert_allclose(got, want, atol=2e-4)
    batch = roi_align([level[None] for level in LEVELS], *arguments, ZERO_POINT)
    np.testing.assert_array_equal(batch, got)


@pytest.mark.parametrize("size", [7, 14])
def test_exact_has_no_rounding(size):
    """Any order of the sums gives the same, so float32 equals double precision."""
    arguments = BOXES, LEVEL_IDS, STRIDES, size, 2, ZERO_POINT
    got = roi_align(LEVELS, *arguments, exact=True)
    np.testing.assert_array_equal(got * 2**16, np.rint(got * 2**16))
    flipped = [np.ascontiguousarray(level[::-1, ::-1]) for level in LEVELS]
    # The mirror image adds the same numbers in the opposite order.
    width = np.array([level.shape[1] for level in LEVELS])[LEVEL_IDS] * np.array(STRIDES)[LEVEL_IDS]
    height = (
        np.array([level.shape[0] for level in LEVELS])[LEVEL_IDS] * np.array(STRIDES)[LEVEL_IDS]
    )
    x0, y0, x1, y1 = np.rint(BOXES).T
    straight = np.stack([x0, y0, x1, y1], axis=1).astype(np.float32)
    mirrored = np.stack([width - x1, height - y1, width - x0, height - y0], 1).astype(np.float32)
    settings = LEVEL_IDS, STRIDES, 8, 2, 0  # bins of a power of two: no rounding in the positions
    a = roi_align(LEVELS, straight, *settings, exact=True)
    b = roi_align(flipped, mirrored, *settings, exact=True)
    np.testing.assert_array_equal(a, b[:, ::-1, ::-1])


def test_exact_is_close():
    arguments = BOXES, LEVEL_IDS, STRIDES, 7, 2, ZERO_POINT
    moved = roi_align(LEVELS, *arguments, exact=True) - roi_align(LEVELS, *arguments)
    span = max(int(level.max()) - int(level.min()) for level in LEVELS)
    # Positions move by 1/256 of a cell at most, along each axis.
    assert 0 < np.abs(moved).max() <= span * 2 / 256


def test_boxes_do_not_influence_each_other():
    together = roi_align(LEVELS, BOXES, LEVEL_IDS, STRIDES, 7, 2)
    for n in range(len(BOXES)):
        alone = roi_align(LEVELS, BOXES[n : n + 1], LEVEL_IDS[n : n + 1], STRIDES, 7, 2)
        np.testing.assert_allclose(alone[0], together[n], atol=1e-5)


def test_a_linear_map_is_sampled_exactly():
    # The value of a cell is the x of its centre in pixels: so is the mean over any bin.
    level = np.tile((np.arange(40, dtype=np.float32) + 0.5) * 4, (30, 1))[:, :, None]
    got = roi_align([level], [[20, 16, 76, 44]], [0], [4], 7, 2)
    np.testing.assert_allclose(got[0, 0, :, 0], 20 + 8 * (np.arange(7) + 0.5), atol=1e-4)


def test_a_flat_box_and_an_inverted_box():
    boxes = [[30, 20, 30, 20], [90, 60, 30, 20]]
    got = roi_align([LEVELS[0]], boxes, [0, 0], [8], 4, 2)
    for n, box in enumerate(boxes):
        want = roi_align_in_loops(LEVELS[0].astype(np.float64), box, 8, 4, 2)
        np.testing.assert_allclose(got[n], want, atol=1e-3)


@pytest.mark.parametrize(("low", "want"), [(-1.0, 1.0), (-1.01, 0.0), (8.0, 1.0), (8.01, 0.0)])
def test_where_the_map_ends(low: float, want: float) -> None:
    """A sample up to one cell outside counts, the border included; torchvision has it so."""
    got = roi_align([np.ones((8, 8, 1), np.float32)], [[low, 3, low + 1, 4]], [0], [1], 1, 1)
    assert got[0, 0, 0, 0] == want


def test_two_samples_of_which_one_is_outside() -> None:
    got = roi_align([np.ones((8, 8, 1), np.float32)], [[7, 2, 11, 4]], [0], [1], 2, 1)
    assert got[0, :, :, 0].tolist() == [[1, 0], [1, 0]]


def test_no_boxes():
    got = roi_align(LEVELS, np.zeros((0, 4), np.float32), [], STRIDES, 7, 2)
    assert got.shape == (0, 7, 7, 4)
    assert got.dtype == np.float32


def test_assign_levels():
    sides = [0, 10, 111.9, 112, 223, 224, 5000]
    boxes = [[5, 5, 5 + side, 5 + side] for side in sides]
    ids = assign_levels(boxes, [112, 224])
    assert ids.dtype == np.int64
    assert ids.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert assign_levels([[0, 0, 448, 112], [9, 9, 3, 20]], [112, 224]).tolist() == [2, 0]
    assert assign_levels([], [112]).tolist() == []
    assert assign_levels([[0, 0, 9, 9]], []).tolist() == [0]


def test_wrong_input():
    with pytest.raises(InputError, match="one stride per level"):
        roi_align(LEVELS, BOXES, LEVEL_IDS, [8], 7, 2)
    with pytest.raises(InputError, match="one level id per box"):
        roi_align(LEVELS, BOXES, LEVEL_IDS[:3], STRIDES, 7, 2)
    with pytest.raises(InputError, match="sampling_ratio 0"):
        roi_align(LEVELS, BOXES, LEVEL_IDS, STRIDES, 7, 0)
    with pytest.raises(InputError, match="one C"):
        roi_align([LEVELS[0], LEVELS[1][..., :2]], BOXES[:1], [0], [8, 16], 7, 2)
    with pytest.raises(InputError, match="one C"):  # no channels
        roi_align([LEVELS[0][..., 0]], BOXES[:1], [0], [8], 7, 2)
    with pytest.raises(InputError, match="NaN"):
        roi_align(LEVELS, [[0, 0, np.nan, 5]], [0], STRIDES, 7, 2)
