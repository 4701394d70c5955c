"""Keypoints: COCO's order, mirror images, and reading peaks off heatmaps of known shape."""

from __future__ import annotations

import numpy as np
import pytest

from edgemask.keypoints import (
    NAMES,
    SIGMAS,
    SKELETON,
    decode_heatmaps,
    enlarge,
    mirrored,
    sigmas_of,
)
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


def decode(maps: np.ndarray, scale: float = 1.0, boxes: np.ndarray = BOX, **options) -> np.ndarray:
    """Decode with the tolerance of a wrist for all keypoints."""
    return decode_heatmaps(maps, scale, boxes, **{"sigmas": [0.062] * maps.shape[3], **options})


def expected_similarity(
    maps: np.ndarray, point: np.ndarray, box: np.ndarray, sigma: float
) -> float:
    """OKS of a point, averaged over where the softmax says the keypoint is. In plain Python."""
    total = similarity = 0.0
    area = 0.5 * (box[2] - box[0]) * (box[3] - box[1])
    size = len(maps)
    for row in range(size):
        for column in range(size):
            x = box[0] + (column + 0.5) / size * (box[2] - box[0])
            y = box[1] + (row + 0.5) / size * (box[3] - box[1])
            share = np.exp(maps[row, column])
            squares = (x - point[0]) ** 2 + (y - point[1]) ** 2
            total += share
            similarity += share * np.exp(-squares / (2 * area * (2 * sigma) ** 2))
    return similarity / total


@pytest.mark.parametrize(("u", "v"), [(14.5, 14.5), (13.2, 7.9), (14.0, 20.0), (6.37, 21.61)])
@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
def test_peak_of_a_gaussian_is_exact(u: float, v: float, sigma: float) -> None:
    found = decode(gaussian(u, v, sigma=sigma))
    assert found.shape == (1, 1, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0, :2], [10 + 2 * u, 20 + 4 * v], atol=0.02)


@pytest.mark.parametrize("sigma", [0.062, 0.087, 0.107])
def test_no_place_promises_a_better_similarity(sigma: float) -> None:
    random = np.random.default_rng(3)
    maps = np.maximum(gaussian(8.2, 11.0, 14), gaussian(4.0, 5.0, 14) - 0.3)
    maps = maps + random.normal(0, 0.3, maps.shape).astype(np.float32)
    found = decode_heatmaps(maps, 1.0, BOX, [sigma])[0, 0]
    plain = maps[0, :, :, 0]
    best = expected_similarity(plain, found[:2], BOX[0], sigma)
    # The score is that of the middle of the best cell.
    assert best * 0.9 < found[2] <= best + 1e-3
    grid = [(x, y) for x in np.arange(10, 66, 2) for y in np.arange(20, 132, 4)]
    rest = [expected_similarity(plain, np.array(point), BOX[0], sigma) for point in grid]
    assert best > max(rest) - 0.01


def test_between_two_near_peaks_rather_than_on_one_of_them() -> None:
    both = np.maximum(gaussian(12.5, 14.5, sigma=0.5), gaussian(16.5, 14.5, sigma=0.5))
    hip = decode_heatmaps(both, 1.0, BOX, [0.107])[0, 0]
    eye = decode_heatmaps(both, 1.0, BOX, [0.025])[0, 0]
    np.testing.assert_allclose(hip[:2], [10 + 2 * 14.5, 20 + 4 * 14.5], atol=0.01)
    assert min(abs(eye[0] - 35), abs(eye[0] - 43)) < 0.5
    assert hip[2] > 0.75
    assert eye[2] < 0.55


def test_tolerance_is_the_same_in_pixels_along_both_axes() -> None:
    """In a box four times as high as wide a cell is four times as high, so doubt between cells
    beside each other costs less than between cells above each other."""
    box = np.array([[0, 0, 28, 112]], np.float32)
    found = {}
    for axis, pair in (("x", [(14, 12), (14, 14)]), ("y", [(12, 14), (14, 14)])):
        logits = np.full((1, 28, 28, 17), -100, np.float32)
        for row, column in pair:
            logits[0, row, column] = 0
        found[axis] = decode_heatmaps(logits, 1.0, box)[0, NAMES.index("left_hip"), 2]
    assert found["x"] > found["y"] + 0.05


def test_score_is_the_expected_similarity() -> None:
    single = np.full((1, 28, 28, 1), -50, np.float32)
    single[0, 3, 4] = 50
    np.testing.assert_allclose(decode(single)[0, 0], [19, 34, 1], atol=1e-5)
    two = single.copy()
    two[0, 25, 20] = 50
    assert decode(two)[0, 0, 2] == pytest.approx(0.5, abs=1e-3)
    two[0, 25, 20] = 50 - np.log(3)
    np.testing.assert_allclose(decode(two)[0, 0], [19, 34, 0.75], atol=1e-3)


def test_flat_map_is_no_keypoint() -> None:
    found = decode(np.zeros((1, 28, 28, 1), np.float32))[0, 0]
    assert found[2] < 0.1
    assert (np.abs(found[:2] - [38, 76]) < [20, 40]).all()  # away from the border


def test_tolerances_are_those_of_pycocotools() -> None:
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    np.testing.assert_allclose(SIGMAS, cocoeval.Params("keypoints").kpt_oks_sigmas)
    assert sigmas_of(["left_wrist", "tail"]) == (0.062, 0.06)
    assert sigmas_of(NAMES) == SIGMAS


@pytest.mark.parametrize("cell", [(0, 0), (27, 27), (0, 13), (27, 5)])
def test_peak_on_the_border(cell: tuple[int, int]) -> None:
    """No neighbour on one side: the cell's centre along that axis, the parabola along the other."""
    row, column = cell
    found = decode_heatmaps(gaussian(column + 0.5, row + 0.5, sigma=0.3), 1.0, BOX, [1e-3])[0, 0]
    np.testing.assert_allclose(found[:2], [11 + 2 * column, 22 + 4 * row], atol=1e-3)
    assert 0 < found[2] <= 1


def test_large_logits_of_a_float_network() -> None:
    logits = np.zeros((1, 28, 28, 17), np.float32)
    logits[0, 7, 9] = 200
    (found,) = decode_heatmaps(logits, 1.0, np.array([[0, 0, 28, 28]], np.float32))
    np.testing.assert_allclose(found, [[9.5, 7.5, 1]] * 17, atol=1e-3)


def test_int8_equals_float_on_the_same_values() -> None:
    """Bytes that wrap around and a table give what floating point gives."""
    random = np.random.default_rng(0)
    raw = random.integers(-128, 128, (3, 14, 14, 17)).astype(np.int8)
    scale = 0.07
    boxes = random.uniform(0, 50, (3, 4)).astype(np.float32)
    boxes[:, 2:] += 60
    real = (raw.astype(np.float32) + 31) * np.float32(scale)
    np.testing.assert_allclose(
        decode_heatmaps(raw, scale, boxes), decode_heatmaps(real, 1.0, boxes), rtol=1e-4
    )


def test_int8_keeps_fractions_of_a_cell() -> None:
    scale = 0.1  # a range of 25 logits
    for u, v in [(14.3, 9.8), (6.01, 21.45)]:
        raw = quantize(np.maximum(gaussian(u, v), -25), scale, 127)
        found = decode(raw, scale)[0, 0]
        np.testing.assert_allclose((found[:2] - [10, 20]) / [2, 4], [u, v], atol=0.06)


def test_each_heatmap_lies_in_its_own_box() -> None:
    maps = np.concatenate([gaussian(4.5, 6.5, 14), gaussian(9.5, 2.5, 14)], axis=3)
    maps = np.concatenate([maps, maps[..., ::-1]])
    boxes = np.array([[0, 0, 14, 14], [100, 50, 128, 92]], np.float32)
    found = decode(maps, 1.0, boxes)
    np.testing.assert_allclose(found[0, :, :2], [[4.5, 6.5], [9.5, 2.5]], atol=0.01)
    np.testing.assert_allclose(found[1, :, :2], [[119, 57.5], [109, 69.5]], atol=0.02)


@pytest.mark.parametrize("box", [[5, 7, 5, 90], [5, 7, 60, 7], [5, 7, 5, 7]])
def test_box_without_extent(box: list[int]) -> None:
    found = decode(gaussian(14.5, 9.5), boxes=np.array([box], np.float32))[0, 0]
    assert np.isfinite(found).all()
    assert box[0] <= found[0] <= box[2]
    assert box[1] <= found[1] <= box[3]
    assert 0 <= found[2] <= 1


def test_enlarge() -> None:
    boxes = np.array([[10, 20, 30, 60], [0, 0, 10, 10]], np.float32)
    assert enlarge(boxes, 1.0, 100, 100) is boxes
    expected = [[5, 10, 35, 70], [0, 0, 12.5, 12.5]]
    np.testing.assert_allclose(enlarge(boxes, 1.5, 100, 100), expected)
    np.testing.assert_allclose(enlarge(boxes[:1], 1.5, 65, 32), [[5, 10, 32, 65]])
