from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from edgemask_convert.arch.layers import ReLU6

VALUES = np.array([[-1.0, 0.0, 0.02, 2.99, 6.0, 7.0]], np.float32)


def test_relu6_does_not_round_unless_told() -> None:
    layer = ReLU6()
    for training in (False, True):
        np.testing.assert_array_equal(layer(VALUES, training=training), np.clip(VALUES, 0, 6))


def test_relu6_rounds_to_the_levels_of_int8_in_training_only() -> None:
    inputs = keras.Input((6,))
    layer = ReLU6()
    model = keras.Model(inputs, layer(inputs))
    layer.rounds = True
    np.testing.assert_array_equal(model(VALUES, training=False), np.clip(VALUES, 0, 6))
    step = 6 / 255
    expected = np.rint(np.clip(VALUES, 0, 6) / step) * step
    np.testing.assert_allclose(model(VALUES, training=True), expected, atol=1e-6)
    assert expected[0, 2] == step  # 0.02 is no level


def test_gradients_pass_the_rounding_where_relu6_passes_them() -> None:
    layer = ReLU6()
    layer.rounds = True
    x = tf.constant([-1.0, 0.02, 2.99, 7.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1, 1, 0])
