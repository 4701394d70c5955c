"""Features of a network of another kind as a hint."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.arch import build_model
from edgemask_convert.config import from_dict
from edgemask_convert.training.distill import DistillError
from edgemask_convert.training.hint import Hint, unexplained
from edgemask_convert.training.network_step import StepLosses, normalised

from ..conftest import TINY
from .test_network_step import losses

RANDOM = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def test_what_a_linear_map_gives_is_explained() -> None:
    x = normal(400, 6)
    y = x @ normal(6, 3) * [1, 100, 0.01] + 7  # whatever the scale of a channel, and its mean
    assert float(unexplained(x, tf.cast(y, tf.float32))) == pytest.approx(0, abs=0.01)


def test_the_share_is_that_of_least_squares() -> None:
    x, y = normal(400, 5), normal(400, 4)
    y[:, :2] += 1.5 * x[:, :2]
    mine, theirs = x - x.mean(0), (y - y.mean(0)) / y.std(0)
    rest = np.linalg.lstsq(mine, theirs, rcond=None)[1].sum()
    assert float(unexplained(x, y)) == pytest.approx(rest / np.square(theirs).sum(), abs=0.002)


def test_channels_that_say_nothing_or_the_same_do_no_harm() -> None:
    x, y = normal(50, 2), normal(50, 2)
    expected = float(unexplained(x, y))
    twice = np.concatenate([x, x, np.ones((50, 1), np.float32)], 1)
    assert float(unexplained(twice, y)) == pytest.approx(expected, abs=0.01)
    constant = np.concatenate([y, np.ones((50, 1), np.float32)], 1)
    assert float(unexplained(x, constant)) == pytest.approx(expected, abs=0.01)
    assert np.isfinite(float(unexplained(np.zeros((50, 2), np.float32), y)))


def test_its_gradient_makes_more_explained() -> None:
    x, y = tf.Variable(normal(60, 3)), tf.constant(normal(60, 3))
    before = float(unexplained(x, y))
    for _ in range(50):
        with tf.GradientTape() as tape:
            value = unexplained(x, y)
        x.assign_sub(20.0 * tape.gradient(value, x))
    assert float(unexplained(x, y)) < 0.7 * before


def test_maps_of_the_same_stride_are_compared(tiny_model: Any, tiny_2go: Any) -> None:
    """The trunk's last of stride 16 as well, and crops seen twice as large a level finer."""
    hint = Hint(tiny_2go, tiny_model, closeups=1)
    image = tf.constant(RANDOM.uniform(-1, 1, (2, 64, 64, 3)), tf.float32)
    ours = hint.first_stage(image, training=False)
    plain = tiny_model.first_stage(image, training=False)
    for name, value in plain.items():
        np.testing.assert_allclose(ours[name], value, atol=1e-5)
    trunk = tiny_model.first_stage.get_layer("block_13_expand").input
    assert ours["trunk"].shape[1:] == (4, 4, trunk.shape[-1])

    def pair(mine: Any, theirs: Any) -> float:
        rows = [np.reshape(v, (-1, v.shape[-1])) for v in (mine, theirs)]
        return float(unexplained(*map(tf.constant, rows)))

    c4 = tiny_2go.first_stage(image, training=False)["c4"]
    near = tf.image.resize(image[:1], (128, 128))
    closer = tiny_2go.first_stage(near, training=False)["c4"]
    expected = pair(ours["p4"], c4) + pair(ours["trunk"], c4) + pair(ours["p3"][:1], closer)
    assert float(hint.loss(image, ours)) == pytest.approx(expected, abs=1e-3)
    hint.closeups = 0
    expected -= pair(ours["p3"][:1], closer)
    assert float(hint.loss(image, ours)) == pytest.approx(expected, abs=1e-3)


def test_a_network_without_a_pyramid_is_compared_too(tiny_2go: Any) -> None:
    hint = Hint(tiny_2go, tiny_2go, closeups=0)
    image = tf.constant(RANDOM.uniform(-1, 1, (2, 128, 128, 3)), tf.float32)
    assert float(hint.loss(image, hint.first_stage(image))) == pytest.approx(0, abs=0.05)


def test_networks_without_a_common_stride(tiny_model: Any) -> None:
    image = keras.Input((None, None, 3))
    stage = keras.Model(image, {"c6": keras.layers.AveragePooling2D(64)(image)})
    coarse = SimpleNamespace(first_stage=stage, layout=SimpleNamespace(features={"c6": 64}))
    message = r"strides \[64\], the network's \[4, 8, 16, 32\]: none is the same"
    with pytest.raises(DistillError, match=message):
        Hint(coarse, tiny_model, closeups=1)  # type: ignore[arg-type]


def test_replicas_share_the_loss(
    tiny_model: Any, tiny_2go: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their gradients are added up."""
    hint = Hint(tiny_2go, tiny_model, closeups=0)
    image = tf.constant(RANDOM.uniform(-1, 1, (2, 64, 64, 3)), tf.float32)
    ours = hint.first_stage(image, training=False)
    alone = float(hint.loss(image, ours))
    context = SimpleNamespace(num_replicas_in_sync=4)
    monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: context)
    assert float(hint.loss(image, ours)) == pytest.approx(alone / 4, rel=1e-4)


@pytest.mark.usefixtures("eager")
def test_a_step_adds_the_loss_with_its_weight(
    tiny_model: Any, tiny_2go: Any, batch: dict[str, np.ndarray]
) -> None:
    values = copy.deepcopy(TINY) | {"distill": {"weight_hint": 3.0}}
    hint = Hint(tiny_2go, tiny_model, closeups=1)
    found = losses(StepLosses(tiny_model, from_dict(values), hint=hint), batch)
    without = losses(StepLosses(tiny_model, from_dict(values)), batch)
    image = normalised(batch["image"])
    expected = float(hint.loss(image, hint.first_stage(image, training=False)))
    assert found["distill_hint"] == pytest.approx(expected, rel=1e-3)
    added = found["total"] - without["total"]
    assert added == pytest.approx(3.0 * found["distill_hint"], rel=0.02)


@pytest.mark.usefixtures("eager")
def test_the_trunk_learns_from_it(
    tiny_model: Any, tiny_2go: Any, batch: dict[str, np.ndarray]
) -> None:
    """And nothing of the other network."""
    student = build_model(tiny_model.config)
    hint = Hint(tiny_2go, student, closeups=1)
    image = normalised(batch["image"])
    with tf.GradientTape(persistent=True) as tape:
        value = hint.loss(image, hint.first_stage(image, training=True))
    own = [w.value for w in student.first_stage.trainable_weights if "block_12_project" in w.path]
    assert own
    assert all(tf.reduce_max(tf.abs(g)) > 0 for g in tape.gradient(value, own))
    others = [w.value for w in tiny_2go.first_stage.trainable_weights]
    assert all(g is None for g in tape.gradient(value, others))
