from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgemask.anchors import pyramid_anchors
from edgemask.postprocess import detections, mask_probabilities, proposals, rescore

HEIGHT, WIDTH = 32, 64
RPN: dict[str, Any] = {
    "levels": ["3", "4"],
    "strides": [8, 16],
    "anchor_sizes": [16.0, 32.0],
    "anchor_ratios": [1.0, 4.0],
    "box_weights": [1.0, 1.0, 1.0, 1.0],
    "pre_nms": 10,
    "post_nms": 5,
    "nms_threshold": 0.7,
}
SHAPES = [(4, 8), (2, 4)]
ANCHORS = pyramid_anchors(SHAPES, RPN["strides"], RPN["anchor_sizes"], RPN["anchor_ratios"])


def plain(name: str) -> tuple[float, int]:
    """Quantization of float tensors."""
    return 1.0, 0


def rpn_outputs(dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Return outputs that propose nothing in particular."""
    outputs = {}
    for level, (rows, columns) in zip("34", SHAPES, strict=True):
        outputs[f"rpn_logits_{level}"] = np.full((1, rows, columns, 2), -100, dtype)
        outputs[f"rpn_deltas_{level}"] = np.zeros((1, rows, columns, 8), dtype)
    return outputs


def clipped(box: Any) -> np.ndarray:
    """Return a box within the input."""
    return np.clip(box, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])


@pytest.mark.parametrize(
    ("level", "row", "column", "ratio", "anchor"),
    [
        ("3", 0, 0, 0, [-4, -4, 12, 12]),
        ("3", 2, 5, 0, [36, 12, 52, 28]),
        ("3", 2, 5, 1, [40, 4, 48, 36]),  # ratio 4: half as wide, twice as high
        ("4", 0, 3, 0, [40, -8, 72, 24]),
        ("4", 1, 2, 1, [32, -8, 48, 56]),
    ],
)
def test_order_of_cells(level: str, row: int, column: int, ratio: int, anchor: list[int]) -> None:
    """The best logit's box is the anchor of its level, row, column and ratio."""
    outputs = rpn_outputs()
    outputs[f"rpn_logits_{level}"][0, row, column, ratio] = 5
    found = proposals(outputs, plain, RPN, HEIGHT, WIDTH)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], clipped(anchor), atol=1e-4)


def test_deltas_of_the_same_anchor() -> None:
    """dx dy dw dh of ratio 1 are channels 4 ... 7."""
    outputs = rpn_outputs()
    outputs["rpn_logits_3"][0, 2, 5, 1] = 5
    outputs["rpn_deltas_3"][0, 2, 5] = [9, 9, 9, 9, 0.5, -0.25, np.log(2), 0]
    found = proposals(outputs, plain, RPN, HEIGHT, WIDTH)
    # the anchor 40 4 48 36: 4 to the right, 8 up, twice as wide
    np.testing.assert_allclose(found[0], clipped([40, -4, 56, 28]), atol=1e-4)


def test_quantized_levels_compare_by_their_real_value() -> None:
    params = {
        "rpn_logits_3": (0.1, 0),
        "rpn_logits_4": (0.5, 20),
        "rpn_deltas_3": (0.25, -10),
        "rpn_deltas_4": (0.125, 4),
    }
    outputs = rpn_outputs(np.int8)
    outputs["rpn_deltas_3"][:] = -10
    outputs["rpn_deltas_4"][:] = 4
    outputs["rpn_logits_3"][0, 2, 5, 0] = 90  # 9.0
    outputs["rpn_logits_4"][0, 0, 3, 0] = 40  # 10.0
    outputs["rpn_deltas_4"][0, 0, 3, 0] = -4  # dx = -1: a whole width to the left
    outputs["rpn_deltas_3"][0, 2, 5, 1] = -6  # dy = 1
    found = proposals(outputs, params.__getitem__, RPN, HEIGHT, WIDTH)
    np.testing.assert_allclose(found[0], clipped([8, -8, 40, 24]), atol=1e-4)
    np.testing.assert_allclose(found[1], clipped([36, 28, 52, 44]), atol=1e-4)


def test_best_first_without_overlap() -> None:
    outputs = rpn_outputs()
    logits = outputs["rpn_logits_3"]
    logits[0, 1, 1, 0], logits[0, 1, 6, 0], logits[0, 3, 3, 0] = 1, 3, 2
    # shifted onto the best one: suppressed
    logits[0, 1, 5, 0] = 2.5
    outputs["rpn_deltas_3"][0, 1, 5, 0] = 0.5
    found = proposals(outputs, plain, RPN | {"post_nms": 3}, HEIGHT, WIDTH)
    expected = [[44, 4, 60, 20], [20, 20, 36, 32], [4, 4, 20, 20]]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_limits() -> None:
    random = np.random.default_rng(0)
    outputs = {
        name: random.normal(0, 1, value.shape).astype(np.float32)
        for name, value in rpn_outputs().items()
    }
    for name in outputs:
        outputs[name] *= 0.05 if "deltas" in name else 1
    assert len(proposals(outputs, plain, RPN, HEIGHT, WIDTH)) == 5
    assert len(proposals(outputs, plain, RPN | {"post_nms": 2}, HEIGHT, WIDTH)) == 2
    assert len(proposals(outputs, plain, RPN | {"pre_nms": 1}, HEIGHT, WIDTH)) == 1
    everything = RPN | {"pre_nms": 999, "post_nms": 999, "nms_threshold": 1.0}
    assert len(proposals(outputs, plain, everything, HEIGHT, WIDTH)) == len(ANCHORS)


@pytest.mark.parametrize(
    ("threshold", "count"),
    [(0.0, 5), (0.3, 3), (0.5, 3), (0.51, 2), (0.73, 2), (0.74, 1), (0.9, 0)],
)
def test_regions_below_the_score_threshold_are_left_out(threshold: float, count: int) -> None:
    outputs = rpn_outputs()
    logits = outputs["rpn_logits_3"]
    logits[0, 1, 1, 0], logits[0, 1, 6, 0], logits[0, 3, 3, 0] = 0, 2, 1  # 0.5, 0.88, 0.731
    found = proposals(outputs, plain, RPN | {"score_threshold": threshold}, HEIGHT, WIDTH)
    assert found.shape == (count, 4)
    everything = proposals(outputs, plain, RPN, HEIGHT, WIDTH)
    np.testing.assert_array_equal(found, everything[:count])


def test_no_proposals() -> None:
    """Boxes of less than a pixel are no proposals."""
    outputs = rpn_outputs()
    for level in "34":
        outputs[f"rpn_deltas_{level}"][..., 2::4] = -50
    found = proposals(outputs, plain, RPN, HEIGHT, WIDTH)
    assert found.shape == (0, 4)
    assert found.dtype == np.float32


# detections

SETTINGS = {"box_weights": [10.0, 10.0, 5.0, 5.0], "nms_threshold": 0.5}
ROIS = np.array([[0, 0, 20, 20], [30, 0, 50, 20], [31, 0, 51, 20]], np.float32)


def logit(p: float) -> float:
    """Return the inverse of the sigmoid."""
    return float(np.log(p / (1 - p)))


def detect(
    scores: list[list[float]],
    deltas: Any = None,
    threshold: float = 0.5,
    most: int = 9,
    rois: np.ndarray = ROIS,
) -> Any:
    """Run `detections` on float scores."""
    logits = np.array([[logit(p) for p in row] for row in scores], np.float32)
    logits = logits.reshape(len(rois), -1)
    steps = np.zeros((len(rois), 4), np.float32) if deltas is None else np.array(deltas, "f4")
    return detections(logits, steps, plain, rois, SETTINGS, HEIGHT, WIDTH, threshold, most)


def test_detections() -> None:
    found = detect([[0.6], [0.9], [0.8]])
    # the third overlaps the second with IoU 19/21
    np.testing.assert_array_equal(found.boxes, ROIS[[1, 0]])
    np.testing.assert_allclose(found.scores, [0.9, 0.6], atol=1e-6)
    np.testing.assert_array_equal(found.classes, [0, 0])


def test_classes_do_not_compete() -> None:
    found = detect([[0.6, 0.7], [0.9, 0.1], [0.1, 0.8]])
    np.testing.assert_array_equal(found.boxes, ROIS[[1, 2, 0, 0]])
    np.testing.assert_array_equal(found.classes, [0, 1, 1, 0])
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7, 0.6], atol=1e-6)


def test_score_threshold() -> None:
    assert len(detect([[0.6], [0.9], [0.1]], threshold=0.7).scores) == 1
    assert len(detect([[0.6], [0.9], [0.1]], threshold=0).scores) == 2
    nothing = detect([[0.6], [0.9], [0.1]], threshold=0.95)
    assert nothing.boxes.shape == (0, 4)
    assert nothing.scores.shape == nothing.classes.shape == (0,)


def test_max_detections_keeps_the_best() -> None:
    found = detect([[0.6, 0.7], [0.9, 0.1], [0.1, 0.8]], most=2)
    np.testing.assert_allclose(found.scores, [0.9, 0.8], atol=1e-6)


def test_boxes_are_refined_and_clipped() -> None:
    # 5 is half a width to the right (weight 10); 5·log 2 doubles the height (weight 5)
    deltas = [[5, 0, 0, 0], [0, 0, 0, 5 * np.log(2)], [100, 0, 0, 0]]
    found = detect([[0.9], [0.8], [0.7]], deltas)
    expected = [[10, 0, 30, 20], [30, 0, 50, 30], [WIDTH, 0, WIDTH, 20]]
    np.testing.assert_allclose(found.boxes, expected, atol=1e-4)


def test_quantized_detections() -> None:
    params = {"logits": (0.1, -20), "deltas": (0.5, 3)}
    logits = np.array([[0], [-70], [-128]], np.int8)  # 2.0, -5.0, -10.8
    deltas = np.array([[13, 3, 3, 3]] * 3, np.int8)  # dx 5: half a width
    found = detections(logits, deltas, params.__getitem__, ROIS, SETTINGS, HEIGHT, WIDTH, 0.5, 9)
    np.testing.assert_allclose(found.boxes, [[10, 0, 30, 20]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [1 / (1 + np.exp(-2))], atol=1e-6)


def test_softmax_has_the_background_first() -> None:
    settings = SETTINGS | {"activation": "softmax"}
    shares = np.array([[0.1, 0.6, 0.3], [0.9, 0.05, 0.05], [0.2, 0.1, 0.7]], np.float32)
    logits = np.log(shares) + np.array([[3], [-100], [1000]], np.float32)  # any offset
    found = detections(
        logits, np.zeros((3, 4), np.float32), plain, ROIS, settings, HEIGHT, WIDTH, 0.5, 9
    )
    np.testing.assert_array_equal(found.boxes, ROIS[[2, 0]])
    np.testing.assert_array_equal(found.classes, [1, 0])
    np.testing.assert_allclose(found.scores, [0.7, 0.6], atol=1e-4)


def test_quantized_softmax() -> None:
    params = {"logits": (0.1, 10), "deltas": (0.5, 3)}
    logits = np.array([[10, 30]], np.int8)  # 0 and 2
    deltas = np.full((1, 4), 3, np.int8)
    settings = SETTINGS | {"activation": "softmax"}
    found = detections(
        logits, deltas, params.__getitem__, ROIS[:1], settings, HEIGHT, WIDTH, 0.5, 9
    )
    np.testing.assert_allclose(found.scores, [1 / (1 + np.exp(-2))], atol=1e-6)


def test_each_class_has_its_own_box() -> None:
    settings = SETTINGS | {"class_agnostic": False}
    logits = np.full((3, 2), -9, np.float32)
    logits[0] = 1, 2
    deltas = np.zeros((3, 8), np.float32)
    deltas[0, 4] = 5  # class 1: half a width to the right
    found = detections(logits, deltas, plain, ROIS, settings, HEIGHT, WIDTH, 0.5, 9)
    np.testing.assert_array_equal(found.classes, [1, 0])
    shift = (ROIS[0, 2] - ROIS[0, 0]) / 2
    np.testing.assert_allclose(found.boxes, ROIS[[0, 0]] + [[shift, 0, shift, 0], [0] * 4])


# masks


def test_mask_probabilities_of_one_channel() -> None:
    raw = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16, 1)
    found = mask_probabilities(raw, lambda name: (0.1, 5), np.zeros(1, np.int64), True)
    expected = 1 / (1 + np.exp(-0.1 * (raw[..., 0].astype(np.float64) - 5)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    real = (raw.astype(np.float32) - 5) * np.float32(0.1)
    np.testing.assert_allclose(
        mask_probabilities(real, plain, np.zeros(1, np.int64), True), found, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
def test_class_specific_masks(dtype: Any) -> None:
    raw = np.zeros((3, 2, 2, 4), dtype)
    for n in range(3):
        for k in range(4):
            raw[n, :, :, k] = 10 * n + k - 12
    classes = np.array([3, 0, 2])
    params = (0.5, 0) if dtype == np.int8 else (1.0, 0)
    found = mask_probabilities(raw, lambda name: params, classes, False)
    own = np.array([3 - 12, 10 - 12, 22 - 12]) * params[0]
    np.testing.assert_allclose(found[:, 0, 0], 1 / (1 + np.exp(-own)), atol=1e-6)
    assert found.shape == (3, 2, 2)


def test_rescore() -> None:
    probabilities = np.array(
        [
            [[0.9, 0.7], [0.4, 0.1]],  # two cells inside, mean .8
            [[0.5, 0.5], [0.5, 0.5]],  # the threshold itself is inside
            [[0.4, 0.3], [0.2, 0.1]],  # an empty mask
        ],
        np.float32,
    )
    found = rescore(np.array([0.5, 1, 0.9], np.float32), probabilities, 0.5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [0.4, 0.5, 0], atol=1e-6)
    lower = rescore(np.array([1, 1, 1], np.float32), probabilities, 0.35)
    np.testing.assert_allclose(lower, [2 / 3, 0.5, 0.4], atol=1e-6)


def test_rescore_of_nothing() -> None:
    empty = np.zeros(0, np.float32)
    assert rescore(empty, np.zeros((0, 28, 28), np.float32), 0.5).shape == (0,)
