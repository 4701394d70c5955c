"""Every expected value is worked out by hand in the comment beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from edgemask_convert.training import losses

LOG2 = math.log(2)


def array(*values: object) -> np.ndarray:
    """Return float32."""
    return np.array(values, np.float32)


def bce(logit: float, target: float) -> float:
    """Return the binary cross-entropy of one logit."""
    p = 1 / (1 + math.exp(-logit))
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def test_quality_focal() -> None:
    # logit 0 is p = .5: gaps .5, .5 and .25 squared, times cross-entropy log 2 each
    logits, quality = array(0, 0, 0), array(1, 0, 0.75)
    everything = losses.quality_focal(logits, quality, array(1, 1, 1), 2.0)
    assert float(everything) == pytest.approx(LOG2 * (0.25 + 0.25 + 0.0625) / 2)
    last = losses.quality_focal(logits, quality, array(0, 0, 1), 1.0)
    assert float(last) == pytest.approx(LOG2 * 0.0625)
    # at p = quality nothing is left to learn, although the cross-entropy is not 0
    logit = math.log(0.75 / 0.25)
    assert float(losses.quality_focal(array(logit), array(0.75), array(1), 1.0)) < 1e-12


def test_quality_focal_far_off() -> None:
    # p = 1 for background: gap 1, cross-entropy = the logit; finite however wrong
    assert float(losses.quality_focal(array(50), array(0), array(1), 1.0)) == pytest.approx(50)


def test_box_giou() -> None:
    predicted = array([0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10])
    target = array([0, 0, 10, 10], [0, 0, 10, 20], [10, 10, 20, 20])
    # 1 - GIoU: 0, .5, 1.5
    assert float(losses.box_giou(predicted, target, array(1, 1, 1), 1.0)) == pytest.approx(2.0)
    assert float(losses.box_giou(predicted, target, array(1, 1, 0), 4.0)) == pytest.approx(0.125)


def test_class_quality() -> None:
    logits, quality = array([0, 2], [-1, 0], [3, 3]), array([0.6, 0], [0, 1], [0, 0])
    weight = array([1, 0], [1, 1], [0, 0])
    # the unlabelled column of the first RoI and the padding RoI do not count; two RoIs do
    expected = (bce(0, 0.6) + bce(-1, 0) + bce(0, 1)) / 2
    assert float(losses.class_quality(logits, quality, weight)) == pytest.approx(expected)


def test_class_quality_of_nothing() -> None:
    assert float(losses.class_quality(array([5, 5]), array([0, 0]), array([0, 0]))) == 0


def test_mask_bce_dice() -> None:
    # p = .5 everywhere, target 1 in four cells: cross-entropy log 2;
    # dice 1 - (2·2 + 1) / (4·.25 + 4 + 1) = 1/6
    logits, target = np.zeros((1, 2, 2), np.float32), np.ones((1, 2, 2), np.float32)
    loss = losses.mask_bce_dice(logits, target, array(1))
    assert float(loss) == pytest.approx(LOG2 + 0.5 / 6)
    # target half on: dice 1 - (2·1 + 1) / (1 + 2 + 1) = 1/4
    target[0, 0] = 0
    loss = losses.mask_bce_dice(logits, target, array(1))
    assert float(loss) == pytest.approx(LOG2 + 0.5 / 4)


def test_mask_mean_over_those_with_a_mask() -> None:
    logits = np.zeros((3, 2, 2), np.float32)
    target = np.ones((3, 2, 2), np.float32)
    target[2] = 0.5
    one = losses.mask_bce_dice(logits, target, array(1, 0, 0))
    both = losses.mask_bce_dice(logits, target, array(1, 1, 0))
    assert float(one) == float(both) == pytest.approx(LOG2 + 0.5 / 6)
    assert float(losses.mask_bce_dice(logits, target, array(0, 0, 0))) == 0


def test_perfect_mask() -> None:
    target = np.zeros((1, 4, 4), np.float32)
    target[0, 1:3] = 1
    loss = losses.mask_bce_dice(np.where(target > 0, 30, -30).astype(np.float32), target, array(1))
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_heatmap_cross_entropy() -> None:
    # two keypoints on 2x2 cells: flat logits give log 4; logits log 3, 0, 0, 0 give the first cell
    # a share of 3/6
    logits = np.zeros((1, 2, 2, 2), np.float32)
    logits[0, 0, 0, 1] = math.log(3)
    target = np.zeros((1, 2, 2, 2), np.float32)
    target[0, 1, 0, 0] = target[0, 0, 0, 1] = 1
    flat, peaked = math.log(4), math.log(2)
    found = losses.heatmap_cross_entropy(logits, target, array([1, 1]))
    assert float(found) == pytest.approx((flat + peaked) / 2)
    # the weight says what counts, and what the mean is over
    assert float(losses.heatmap_cross_entropy(logits, target, array([0, 1]))) == pytest.approx(
        peaked
    )
    assert float(losses.heatmap_cross_entropy(logits, target, array([0, 0]))) == 0
    # a target spread over two cells
    target[0, :, :, 1] = [[0.5, 0.5], [0, 0]]
    spread = losses.heatmap_cross_entropy(logits, target, array([0, 1]))
    assert float(spread) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(6))
    # a constant added to a heatmap changes nothing, however large
    shifted = losses.heatmap_cross_entropy(logits + 1000, target, array([0, 1]))
    assert float(shifted) == pytest.approx(float(spread), rel=1e-4)


def test_class_softmax() -> None:
    # shares 1/2 for the background, 1/4 for each of two classes
    logits = array([math.log(2), 0, 0])

    def loss(label: int, positive: float, labeled: list[float]) -> float:
        found = losses.class_softmax(
            logits, np.array([label]), array(positive), array(labeled), array(1)
        )
        return float(found)

    assert loss(1, 1, [1, 1]) == pytest.approx(math.log(4))
    assert loss(0, 0, [1, 1]) == pytest.approx(LOG2)
    # the second class is not labelled here: the region may show one, 1/2 + 1/4
    assert loss(0, 0, [1, 0]) == pytest.approx(math.log(4 / 3))
    # an object with a label counts, whatever else is labelled in its image
    assert loss(1, 1, [1, 0]) == pytest.approx(math.log(4))


def test_class_softmax_is_a_mean_over_regions() -> None:
    logits = array([0, 0], [9, -9], [0, 0])
    weight = array(1, 0, 1)
    found = losses.class_softmax(
        logits, np.zeros(3, int), array(1, 1, 0), array([1], [1], [1]), weight
    )
    assert float(found) == pytest.approx(LOG2)
    nothing = losses.class_softmax(
        logits, np.zeros(3, int), array(0, 0, 0), array([1], [1], [1]), array(0, 0, 0)
    )
    assert float(nothing) == 0


def test_class_softmax_takes_the_column_of_the_class() -> None:
    """The background is the first column, so class 0 is the second."""
    logits = array([math.log(2), 0, math.log(5)])  # shares 2/8, 1/8 and 5/8
    for label, share in ((0, 1 / 8), (1, 5 / 8)):
        found = losses.class_softmax(logits, np.array([label]), array(1), array([1, 1]), array(1))
        assert float(found) == pytest.approx(-math.log(share))


def test_counts_are_those_of_all_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many regions on a second replica, this one's part of the mean is half."""
    ones, masks = np.ones((2, 2), np.float32), np.ones((2, 4, 4), np.float32)
    calls = {
        "class_quality": lambda: losses.class_quality(ones, 0 * ones, ones),
        "class_softmax": lambda: losses.class_softmax(
            np.ones((2, 3), np.float32), np.zeros(2, int), ones[0], ones, ones[0]
        ),
        "mask_bce_dice": lambda: losses.mask_bce_dice(-masks, masks, ones[0]),
        "heatmap_cross_entropy": lambda: losses.heatmap_cross_entropy(
            np.ones((2, 4, 4, 2), np.float32), np.full((2, 4, 4, 2), 1 / 16, np.float32), ones
        ),
    }
    alone = {name: float(loss()) for name, loss in calls.items()}
    monkeypatch.setattr(losses, "total", lambda value: 2 * value)
    for name, loss in calls.items():
        assert float(loss()) == pytest.approx(alone[name] / 2), name
        assert alone[name] > 0
