"""Boxes: overlap, clipping and coding, against torchvision's answers and against formulas."""

import math
from pathlib import Path

import numpy as np
import pytest

from edgemask.boxes import MAX_LOG_SCALE, area, clip, decode, encode, iou_matrix, scale
from edgemask.errors import InputError

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "kernels_golden.npz")


def random_boxes(rng, count, extent=300.0):
    low = rng.uniform(0, extent, (count, 2))
    return np.concatenate([low, low + rng.uniform(1, 200, (count, 2))], 1).astype(np.float32)


def iou_of_two(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else 0.0


def test_area():
    assert area([[1, 2, 4, 8]]).tolist() == [18.0]
    assert area(np.zeros((0, 4))).shape == (0,)
    assert area([]).dtype == np.float32


@pytest.mark.parametrize("seed", range(5))
def test_iou_matrix_equals_the_formula(seed):
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, 12), random_boxes(rng, 9)
    b[:3] = a[:3]
    got = iou_matrix(a, b)
    assert got.dtype == np.float32
    want = [[iou_of_two(p, q) for q in b.tolist()] for p in a.tolist()]
    np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_array_equal(got[[0, 1, 2], [0, 1, 2]], 1)


def test_iou_of_touching_apart_and_empty_boxes_is_zero():
    boxes = [[0, 0, 10, 10], [10, 0, 20, 10], [50, 60, 70, 90], [5, 5, 5, 5], [5, 5, 5, 5]]
    with np.errstate(all="raise"):
        got = iou_matrix(boxes, boxes)
    np.testing.assert_array_equal(got, np.diag([1, 1, 1, 0, 0]))
    assert iou_matrix([], boxes).shape == (0, 5)


def test_clip_and_scale():
    boxes = np.array([[-5, -6, 30, 40], [90, 10, 120, 20]], np.float32)
    before = boxes.copy()
    np.testing.assert_array_equal(clip(boxes, 35, 100), [[0, 0, 30, 35], [90, 10, 100, 20]])
    np.testing.assert_array_equal(scale(boxes, 2, 0.5), [[-10, -3, 60, 20], [180, 5, 240, 10]])
    np.testing.assert_array_equal(boxes, before)
    outside = clip([[200, 200, 300, 300]], 100, 100)
    assert area(outside).tolist() == [0.0]


def test_coding_equals_torchvision():
    weights = GOLDEN["box_weights"].tolist()
    encoded = encode(GOLDEN["box_boxes"], GOLDEN["box_anchors"], weights)
    np.testing.assert_allclose(encoded, GOLDEN["box_encoded"], rtol=1e-5, atol=1e-5)
    decoded = decode(GOLDEN["box_deltas"], GOLDEN["box_anchors"], weights)
    np.testing.assert_allclose(decoded, GOLDEN["box_decoded"], rtol=1e-5, atol=1e-3)
    assert encoded.dtype == decoded.dtype == np.float32


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (10, 10, 5, 5)])
def test_decode_inverts_encode(weights):
    rng = np.random.default_rng(7)
    boxes, anchors = random_boxes(rng, 50), random_boxes(rng, 50)
    kept = anchors.copy()
    back = decode(encode(boxes, anchors, weights), anchors, weights)
    np.testing.assert_allclose(back, boxes, atol=1e-3)
    np.testing.assert_array_equal(anchors, kept)


def test_decode_limits_the_growth():
    (box,) = decode([[0, 0, 100, -3]], [[0, 0, 16, 16]], (1, 1, 1, 1))
    assert box[2] - box[0] == pytest.approx(1000, rel=1e-4)
    assert box[3] - box[1] == pytest.approx(16 * math.exp(-3), rel=1e-4)
    assert math.isclose(MAX_LOG_SCALE, math.log(62.5))


@pytest.mark.parametrize("count", [1, 3])
def test_decode_leaves_the_deltas_alone(count: int) -> None:
    deltas = np.asfortranarray(np.full((count, 4), 0.5, np.float32))
    decode(deltas, [[0, 0, 16, 16]] * count, (10, 10, 5, 5))
    assert (deltas == 0.5).all()


def test_decode_is_rounded_from_double_precision() -> None:
    """The same boxes on every machine, which exp in float32 would not give."""
    grow = np.linspace(-4, 4, 1001, dtype=np.float32)
    deltas = np.zeros((1001, 4), np.float32)
    deltas[:, 2] = grow
    got = decode(deltas, [[-1, -1, 1, 1]] * 1001, (1, 1, 1, 1))
    np.testing.assert_array_equal(got[:, 2], np.exp(grow.astype(np.float64)).astype(np.float32))


def test_no_boxes():
    assert decode([], np.zeros((0, 4)), (1, 1, 1, 1)).shape == (0, 4)
    assert encode([], [], (1, 1, 1, 1)).shape == (0, 4)


def test_wrong_input():
    with pytest.raises(InputError, match=r"\(3,\).*\(N, 4\)"):
        area([1, 2, 3])
    with pytest.raises(InputError, match="one per anchor"):
        decode(np.zeros((2, 4)), np.zeros((3, 4)), (1, 1, 1, 1))
    with pytest.raises(InputError, match="one box per anchor"):
        encode(np.ones((2, 4)), np.ones((3, 4)), (1, 1, 1, 1))
    with pytest.raises(InputError, match="no width"):
        encode([[0, 0, 0, 5]], [[0, 0, 5, 5]], (1, 1, 1, 1))
    with pytest.raises(InputError, match="no width"):
        encode([[0, 0, 5, 5]], [[0, 0, 0, 5]], (1, 1, 1, 1))
    with pytest.raises(InputError, match="four positive"):
        decode(np.zeros((1, 4)), np.ones((1, 4)), (1, 1, 0, 1))
