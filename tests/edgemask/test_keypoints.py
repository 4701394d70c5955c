"""Keypoints: COCO's order, mirror images, and reading peaks off heatmaps of known shape."""

from __future__ import annotations

import numpy as np
import pytest

from edgemask.keypoints import NAMES, SKELETON, decode_heatmaps, enlarge, mirrored
from edgemask.quant import quantize

BOX = np.array([[10, 20, 66, 132]], np.float32)  # 56 wide, 112 high: cells of 2 x 4 pixels


def gaussian(u: float, v: float, size: int = 28, sigma: float = 1.0) -> np.ndarray:
    """Logits (1, S, S, 1) whose softmax is a Gaussian around u, v in cells."""
    centres = np.arange(size) + 0.5
    squares = (centres - u) ** 2 + (centres[:, None] - v) ** 2
    return (-squares / (2 * sigma**2)).astype(np.float32)[None, :, :, None]


def test_names_and_skeleton_are_those_of_coco() -> None:
    assert len(NAMES) == 17
    assert (NAMES[0], NAMES[9], NAMES[16]) == ("nose", "left_wrist", "right_ankle")
    assert len(set(SKELETON)) == 19
    assert {n for pair in SKELETON for n in pair} == set(range(17))
    bones = {frozenset((NAMES[a], NAMES[b])) for a, b in SKELETON}
    assert {"left_elbow", "left_wrist"} in bones
    assert {"left_hip", "right_hip"} in bones


def test_mirror_images_swap_left_and_right() -> None:
    order = mirrored(NAMES)
    assert order[:5] == [0, 2, 1, 4, 3]
    assert [order[n] for n in order] == list(range(17))
    assert mirrored(["tail", "right_wing", "left_wing", "left_out"]) == [0, 2, 1, 3]


@pytest.mark.parametrize(("u", "v"), [(14.5, 14.5), (13.2, 7.9), (14.0, 20.0), (3.37, 24.61)])
@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
def test_peak_of_a_gaussian_is_exact(u: float, v: float, sigma: float) -> None:
    found = decode_heatmaps(gaussian(u, v, sigma=sigma), 1.0, BOX)
    assert found.shape == (1, 1, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0, :2], [10 + 2 * u, 20 + 4 * v], atol=1e-3)


def test_score_is_the_share_around_the_peak() -> None:
    one = decode_heatmaps(gaussian(14.5, 14.5), 1.0, BOX)[0, 0, 2]
    line = np.exp(-0.5 * np.arange(-13, 14) ** 2)
    assert one == pytest.approx((line[11:16].sum() / line.sum()) ** 2, abs=1e-4)
    both = np.maximum(gaussian(5.5, 5.5), gaussian(20.5, 20.5))
    assert decode_heatmaps(both, 1.0, BOX)[0, 0, 2] == pytest.approx(one / 2, abs=1e-3)
    single = np.full((1, 28, 28, 1), -50, np.float32)
    single[0, 3, 4] = 50
    np.testing.assert_allclose(decode_heatmaps(single, 1.0, BOX)[0, 0], [19, 34, 1], atol=1e-5)


def test_flat_map_is_no_keypoint() -> None:
    found = decode_heatmaps(np.zeros((1, 28, 28, 1), np.float32), 1.0, BOX)[0, 0]
    assert found[2] == pytest.approx(9 / 784)  # the first cell, with 3x3 neighbours inside
    np.testing.assert_allclose(found[:2], [11, 22])


@pytest.mark.parametrize("cell", [(0, 0), (27, 27), (0, 13), (27, 5)])
def test_peak_on_the_border(cell: tuple[int, int]) -> None:
    """No neighbour on one side: the cell's centre along that axis, the parabola along the other."""
    row, column = cell
    found = decode_heatmaps(gaussian(column + 0.5, row + 0.5), 1.0, BOX)[0, 0]
    np.testing.assert_allclose(found[:2], [11 + 2 * column, 22 + 4 * row], atol=1e-3)
    assert 0 < found[2] <= 1


def test_int8_equals_float_on_the_same_values() -> None:
    """Bytes that wrap around and a table give what floating point gives."""
    random = np.random.default_rng(0)
    raw = random.integers(-128, 128, (3, 14, 14, 17)).astype(np.int8)
    scale = 0.07
    boxes = random.uniform(0, 50, (3, 4)).astype(np.float32)
    boxes[:, 2:] += 60
    real = (raw.astype(np.float32) + 31) * np.float32(scale)
    np.testing.assert_allclose(
        decode_heatmaps(raw, scale, boxes), decode_heatmaps(real, 1.0, boxes), atol=2e-3
    )


def test_int8_keeps_fractions_of_a_cell() -> None:
    scale = 0.1  # a range of 25 logits
    for u, v in [(14.3, 9.8), (6.01, 21.45)]:
        raw = quantize(np.maximum(gaussian(u, v), -25), scale, 127)
        found = decode_heatmaps(raw, scale, BOX)[0, 0]
        np.testing.assert_allclose((found[:2] - [10, 20]) / [2, 4], [u, v], atol=0.06)


def test_each_heatmap_lies_in_its_own_box() -> None:
    maps = np.concatenate([gaussian(4.5, 6.5, 14), gaussian(9.5, 2.5, 14)], axis=3)
    maps = np.concatenate([maps, maps[..., ::-1]])
    boxes = np.array([[0, 0, 14, 14], [100, 50, 128, 92]], np.float32)
    found = decode_heatmaps(maps, 1.0, boxes)
    np.testing.assert_allclose(found[0, :, :2], [[4.5, 6.5], [9.5, 2.5]], atol=1e-3)
    np.testing.assert_allclose(found[1, :, :2], [[119, 57.5], [109, 69.5]], atol=1e-3)


def test_enlarge() -> None:
    boxes = np.array([[10, 20, 30, 60], [0, 0, 10, 10]], np.float32)
    assert enlarge(boxes, 1.0, 100, 100) is boxes
    expected = [[5, 10, 35, 70], [0, 0, 12.5, 12.5]]
    np.testing.assert_allclose(enlarge(boxes, 1.5, 100, 100), expected)
    np.testing.assert_allclose(enlarge(boxes[:1], 1.5, 65, 32), [[5, 10, 32, 65]])
