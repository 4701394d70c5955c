"""Every expected value is worked out by hand in the comment beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from edgemask_convert import losses

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
