"""What a narrowed network is fitted with: drawn rows, losses worked out by hand, and an average."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.compress.imitate import (
    _box_head,
    _fit,
    _huber,
    _mask_head,
    _material,
    _mean,
    _photographs,
    _rpn,
)


def lesson(number: int, side: int = 4, regions: int = 0) -> Any:
    """A photograph with regions of which the first is background."""
    probabilities = np.zeros((regions, 3), np.float16)
    probabilities[:1, 0] = probabilities[1:, 2] = 1
    return SimpleNamespace(
        features=np.full((1, side, side, 2), number, np.float16),
        objectness=np.full((side, side, 1), number, np.float16),
        rpn_deltas=np.full((side, side, 1, 4), number, np.float16),
        regions=np.arange(regions) + 10 * number,
        probabilities=probabilities,
        columns=np.arange(regions) + 10 * number,
        deltas=np.arange(regions) + 10 * number,
    )


def test_objects_are_drawn_more_often_than_background() -> None:
    """Five times: of 96 regions that is 16 of background, where each is one of two."""
    given = [lesson(0, regions=2), lesson(1, regions=2)]
    batches, count = _material("box_head", given, np.random.default_rng(0))
    assert count == 4
    drawn = np.zeros(12)
    for regions, probabilities, columns, deltas in itertools.islice(batches, 50):
        assert len(regions) == 96
        np.testing.assert_array_equal(regions, columns)
        np.testing.assert_array_equal(regions, deltas)
        np.testing.assert_array_equal(probabilities[:, 0] == 1, regions % 10 == 0)
        drawn += np.bincount(regions, minlength=12)
    expected = np.zeros(12)
    expected[[0, 10]], expected[[1, 11]] = 1 / 12, 5 / 12
    np.testing.assert_allclose(drawn / drawn.sum(), expected, atol=0.02)


def test_photographs_of_one_size_are_drawn_together() -> None:
    """As often as there are; none twice in a batch."""
    given = [lesson(n, side=4 if n < 9 else 6) for n in range(12)]
    sides = []
    for features, objectness, deltas in itertools.islice(
        _photographs(given, np.random.default_rng(0)), 200
    ):
        numbers = features[:, 0, 0, 0]
        assert len(set(numbers)) == len(numbers) == (8 if numbers.max() < 9 else 3)
        np.testing.assert_array_equal(objectness[:, 0, 0, 0], numbers)
        np.testing.assert_array_equal(deltas[:, 0, 0, 0, 3], numbers)
        sides.append(features.shape[1])
    assert 0.65 < np.mean(np.array(sides) == 4) < 0.85


def test_small_gaps_are_squared() -> None:
    found = _huber(tf.constant([0.05, -0.05, 0.1, -0.3]), 0.1)
    np.testing.assert_allclose(found, [0.00125, 0.00125, 0.005, 0.025], rtol=1e-5)


def test_weighted_mean() -> None:
    found = _mean(tf.constant([2.0, 5.0, 9.0]), tf.constant([3.0, 1.0, 0.0]))
    assert float(found) == pytest.approx(11 / 4, rel=1e-3)
    assert float(_mean(tf.constant([2.0]), tf.constant([0.0]))) == 0


def test_loss_of_the_rpn(tiny_2go: Any) -> None:
    """Two anchors: the teacher half believes in the first, and not at all in the second."""
    _, loss = _rpn(tiny_2go)
    objectness = np.array([0.5, 0.0], np.float16).reshape(1, 1, 1, 2)
    deltas = np.zeros((1, 1, 1, 2, 4), np.float16)

    def value(logits: list[float], own: list[float]) -> float:
        shaped = [tf.reshape(tf.constant(x), (1, 1, 1, -1)) for x in (logits, own)]
        return float(loss(shaped, objectness, deltas))

    none = [0.0] * 8
    # weights .05 + .5 for the first, .05 for the second
    assert value([0.0, -30.0], none) == pytest.approx(0.55 * math.log(2) / 0.601, rel=1e-3)
    # the student believes in the second
    assert value([0.0, 0.0], none) == pytest.approx(math.log(2), rel=2e-3)
    # all four deltas .3 off: .025 times 20, where there is something
    moved = value([0.0, -30.0], [0.3] * 4 + [0.0] * 4) - value([0.0, -30.0], none)
    assert moved == pytest.approx(0.5, rel=5e-3)
    elsewhere = value([0.0, -30.0], [0.0] * 4 + [0.3] * 4) - value([0.0, -30.0], none)
    assert elsewhere == pytest.approx(0, abs=1e-6)


def test_loss_of_the_box_head() -> None:
    """The likeliest class is the second; its box counts by .5, that of the first by .3."""
    _, loss = _box_head(SimpleNamespace(box_head=None))  # type: ignore[arg-type]
    probabilities = np.array([[0.2, 0.3, 0.5]], np.float32)
    columns = np.array([[1, 0]], np.int32)
    deltas = np.array([[[1, 0, 0, 0], [0, 0, 0, 0]]], np.float32)

    def value(own: list[float], logits: list[float]) -> float:
        found = {"logits": tf.constant([logits]), "deltas": tf.constant([own])}
        return float(loss(found, probabilities, columns, deltas))

    right = [0.0] * 4 + [1.0, 0.0, 0.0, 0.0]
    assert value(right, [0.0, 0.0, 0.0]) == pytest.approx(math.log(3), rel=1e-4)
    entropy = 0.2 * math.log(4) + 0.3 * math.log(4) + 0.5 * math.log(2)
    assert value(right, [0.0, 0.0, math.log(2)]) == pytest.approx(entropy, rel=1e-4)
    # 1 off in one of four: .5 (1 - .25) / 4, twice
    wrong = value([0.0] * 4 + [2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    assert wrong - math.log(3) == pytest.approx(0.1875 * 0.5 / 0.801, rel=1e-3)


def test_loss_of_the_mask_head() -> None:
    """Of the region's own class, every cell in its place."""
    _, loss = _mask_head(SimpleNamespace(mask_head=None))  # type: ignore[arg-type]
    masks = np.array([[[1, 1], [0, 0]]], np.float16)
    logits = np.full((1, 2, 2, 3), 30, np.float32)
    logits[0, :, :, 1] = [[30, 30], [-30, 0]]
    found = loss({"logits": tf.constant(logits)}, np.array([1], np.int32), masks)
    assert float(found) == pytest.approx(math.log(2) / 4, rel=1e-4)


def slope() -> tuple[keras.Model, Any]:
    """A model of one weight whose loss falls with it."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    return model, itertools.repeat((np.ones((1, 1), np.float32),))


def test_the_result_is_an_average() -> None:
    """The first step stays, the second moves by the rate; 2 of 11 parts are those of before."""
    model, batches = slope()
    before = float(np.asarray(model.weights[0])[0, 0])
    history = _fit(model, lambda out: -tf.reduce_sum(out), batches, 2, 0.1, lambda *_: None)
    assert history == pytest.approx([-before, -before])
    moved = float(np.asarray(model.weights[0])[0, 0]) - before
    assert moved == pytest.approx(0.1 * 9 / 11, rel=1e-3)


def test_losses_are_told_every_hundred_steps() -> None:
    model, batches = slope()
    told: list[tuple[int, float]] = []
    history = _fit(
        model, lambda out: -tf.reduce_sum(out), batches, 201, 0.01, lambda *now: told.append(now)
    )
    assert [step for step, _ in told] == [100, 200, 201]
    assert told[1][1] == pytest.approx(np.mean(history[100:200]))
