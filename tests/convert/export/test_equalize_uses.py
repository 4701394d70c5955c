"""Equal ranges where a layer is applied twice, is read by several, or sees several images."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from edgemask_convert.arch.layers import ReLU6
from edgemask_convert.export.equalize import channel_factors, equalize
from keras import layers

ONES = np.ones((1, 4, 4, 1), np.float32)


def conv(name: str, kernel: list[list[float]], inputs: Any) -> Any:
    """Apply a new 1x1 convolution with this kernel, (inputs, outputs)."""
    values = np.array(kernel, np.float32)[None, None]
    layer = layers.Conv2D(
        values.shape[-1],
        1,
        name=name,
        kernel_initializer=keras.initializers.Constant(values),
    )
    return layer(inputs)


def outputs(model: keras.Model, image: np.ndarray = ONES) -> list[np.ndarray]:
    found = model(image, training=False)
    return [np.asarray(value) for value in (found if isinstance(found, list) else [found])]


def kernel_of(model: keras.Model, name: str) -> np.ndarray:
    return np.asarray(model.get_layer(name).kernel)[0, 0]


def test_factors_in_numbers() -> None:
    """0.7 of the way to equal ranges, a tenth of margin, at most eightfold."""
    found = channel_factors(np.array([6.0, 5.7, 1.5, 0.5, 0.01]), 6.0)
    np.testing.assert_allclose(found, [1, 1, 2.4687, 5.3266, 8], rtol=1e-4)


def test_a_channel_that_is_only_negative_has_a_range_too() -> None:
    inputs = keras.Input((4, 4, 1))
    first = conv("first", [[2.0, -2.0, 1.0]], inputs)
    model = keras.Model(inputs, conv("second", [[1.0], [1.0], [1.0]], first))
    equalize(model, [ONES])
    level = channel_factors(np.array([2.0, 2.0, 1.0]), None)
    assert level[0] == level[1] == 1 < level[2]
    np.testing.assert_allclose(kernel_of(model, "first"), [[2, -2, level[2]]], rtol=1e-6)
    np.testing.assert_allclose(kernel_of(model, "second")[:, 0], 1 / level, rtol=1e-6)


@pytest.mark.parametrize("order", [1, -1])
def test_the_greatest_of_all_images_counts(order: int) -> None:
    """Each channel is loud in another image."""
    inputs = keras.Input((4, 4, 2))
    first = ReLU6()(conv("first", [[1.0, 0.0], [0.0, 1.0]], inputs))
    model = keras.Model(inputs, conv("second", [[1.0], [1.0]], first))
    images = [np.ones((1, 4, 4, 2), np.float32) * pair for pair in ([5.0, 0.1], [0.1, 2.0])]
    before = [outputs(model, image)[0] for image in images]
    equalize(model, images[::order])
    level = channel_factors(np.array([5.0, 2.0]), 6.0)
    assert 1 < level[0] < level[1] < 3  # the ReLU6 cuts neither off
    np.testing.assert_allclose(kernel_of(model, "first"), np.diag(level), rtol=1e-6)
    for image, value in zip(images, before, strict=True):
        np.testing.assert_allclose(outputs(model, image)[0], value, rtol=1e-5)


def test_a_relu_without_a_limit_is_levelled_to_its_largest_channel() -> None:
    inputs = keras.Input((4, 4, 1))
    first = layers.ReLU()(conv("first", [[40.0, 10.0]], inputs))
    model = keras.Model(inputs, conv("second", [[1.0], [1.0]], first))
    equalize(model, [ONES])
    wanted = 10 * channel_factors(np.array([40.0, 10.0]), None)[1]
    assert wanted > 20
    np.testing.assert_allclose(kernel_of(model, "first"), [[40, wanted]], rtol=1e-6)


@pytest.mark.parametrize("limited_first", [True, False])
def test_the_lowest_limit_of_all_uses_counts(limited_first: bool) -> None:
    inputs = keras.Input((4, 4, 2))
    shared = layers.DepthwiseConv2D(1, depthwise_initializer="ones", name="shared")
    uses = [
        ReLU6()(shared(inputs)),
        layers.ReLU()(shared(conv("gain", np.diag([1.0, 24.0]), inputs))),
    ]
    uses = uses if limited_first else uses[::-1]
    ends = [conv(f"end{n}", [[1.0], [1.0]], use) for n, use in enumerate(uses)]
    model = keras.Model(inputs, ends)
    image = np.ones((1, 4, 4, 2), np.float32) * [4.8, 1.0]
    before = outputs(model, image)
    equalize(model, [image])
    for value, old in zip(outputs(model, image), before, strict=True):
        np.testing.assert_allclose(value, old, rtol=1e-5)


def test_a_norm_is_multiplied_with_its_offset() -> None:
    """2x - 1 and 0.5x + 0.25 after the norm, for x = 1.5 and 0.5; the kernel stays."""
    inputs = keras.Input((4, 4, 2))
    first = conv("first", [[1.5, 0.0], [0.0, 0.5]], inputs)
    normed = layers.BatchNormalization(name="norm", epsilon=0)(first)
    model = keras.Model(inputs, conv("second", [[1.0], [1.0]], ReLU6()(normed)))
    model.get_layer("norm").gamma.assign([2.0, 0.5])
    model.get_layer("norm").beta.assign([-1.0, 0.25])
    image = np.ones((1, 4, 4, 2), np.float32)
    np.testing.assert_allclose(outputs(model, image)[0], 2.5, rtol=1e-6)
    equalize(model, [image])
    level = channel_factors(np.array([2.0, 0.5]), 6.0)
    assert (level > 1).all()
    gamma, beta, mean, variance = model.get_layer("norm").get_weights()
    np.testing.assert_allclose(gamma, [2, 0.5] * level, rtol=1e-5)
    np.testing.assert_allclose(beta, [-1, 0.25] * level, rtol=1e-5)
    np.testing.assert_array_equal([mean, variance], [[0, 0], [1, 1]])
    np.testing.assert_array_equal(kernel_of(model, "first"), [[1.5, 0], [0, 0.5]])
    np.testing.assert_allclose(outputs(model, image)[0], 2.5, rtol=1e-5)


def test_layers_that_are_applied_twice() -> None:
    """The louder of both uses sets the factor, and each reader is divided once."""
    inputs = keras.Input((4, 4, 1))
    names = ("first", "second", "third")
    shared = [layers.Conv2D(2, 1, name=name) for name in names]
    ends = []
    for scale in (1.0, 10.0):
        x = layers.Rescaling(scale)(inputs)
        for layer in shared[:2]:
            x = ReLU6()(layer(x))
        ends.append(shared[2](x))
    model = keras.Model(inputs, ends)
    shared[0].kernel.assign(np.array([[[[0.5, 0.2]]]]))
    shared[1].kernel.assign(np.diag([0.1, 0.6])[None, None])
    shared[2].kernel.assign(np.ones((1, 1, 2, 2)))
    before = outputs(model)
    factors = equalize(model, [ONES])
    one = channel_factors(np.array([5.0, 2.0]), 6.0)
    two = channel_factors(np.array([0.5, 1.2]), 6.0)
    assert factors == pytest.approx({"first": one.max(), "second": two.max()}, rel=1e-5)
    np.testing.assert_allclose(kernel_of(model, "first"), [[0.5, 0.2] * one], rtol=1e-5)
    np.testing.assert_allclose(kernel_of(model, "second"), np.diag([0.1, 0.6] * two / one), 1e-5)
    np.testing.assert_allclose(kernel_of(model, "third"), np.ones((2, 2)) / two[:, None], 1e-5)
    for found, wanted in zip(outputs(model), before, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


def read_by_a_relu_and_a_convolution() -> keras.Model:
    inputs = keras.Input((4, 4, 1))
    first = conv("first", [[3.0, 0.1]], inputs)
    clamped = ReLU6()(first)
    return keras.Model(inputs, [conv("a", [[1.0], [1.0]], clamped), conv("b", [[1.0]] * 2, first)])


def read_by_a_convolution_and_a_sum() -> keras.Model:
    inputs = keras.Input((4, 4, 1))
    first = conv("first", [[3.0, 0.1]], inputs)
    read = conv("a", [[1.0], [1.0]], first)
    return keras.Model(inputs, [read, layers.Add()([first, first])])


def shown_by_the_network() -> keras.Model:
    inputs = keras.Input((4, 4, 1))
    first = conv("first", [[3.0, 0.1]], inputs)
    return keras.Model(inputs, [first, conv("a", [[1.0], [1.0]], first)])


def one_relu_for_two() -> keras.Model:
    inputs = keras.Input((4, 4, 1))
    relu = ReLU6()
    ends = [
        conv(f"{name}_reader", [[1.0], [1.0]], relu(conv(name, [kernel], inputs)))
        for name, kernel in (("one", [3.0, 0.1]), ("other", [0.1, 3.0]))
    ]
    return keras.Model(inputs, ends)


def normed_in_one_use_only() -> keras.Model:
    inputs = keras.Input((4, 4, 1))
    shared = layers.Conv2D(2, 1, name="shared")
    normed = layers.BatchNormalization()(shared(inputs))
    plain = shared(layers.Rescaling(0.5)(inputs))
    model = keras.Model(
        inputs, [conv("a", [[1.0], [1.0]], normed), conv("b", [[1.0], [1.0]], plain)]
    )
    shared.kernel.assign(np.array([[[[3.0, 0.1]]]]))
    return model


@pytest.mark.parametrize(
    "build",
    [
        read_by_a_relu_and_a_convolution,
        read_by_a_convolution_and_a_sum,
        shown_by_the_network,
        one_relu_for_two,
        normed_in_one_use_only,
    ],
)
def test_a_channel_with_no_one_factor_stays(build: Any) -> None:
    model = build()
    weights = model.get_weights()
    assert equalize(model, [ONES]) == {}
    for found, wanted in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, wanted)
