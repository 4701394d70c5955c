from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from edgemask_convert.arch.layers import ReLU6
from edgemask_convert.export.equalize import (
    MARGIN,
    MOST,
    STRENGTH,
    channel_factors,
    equalize,
    find_links,
)
from keras import layers

SAMPLE = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)


def chain(norm: bool = False, relu: Any = ReLU6) -> keras.Model:
    """Two convolutions; the channels of the first have peaks that differ a hundredfold."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, use_bias=not norm, name="first")(inputs)
    if norm:
        x = layers.BatchNormalization(name="norm")(x)
    if relu:
        x = relu(name="relu")(x)
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="second")(x))
    kernel = np.ones((1, 1, 3, 4), np.float32) * [10, 1, 0.3, 0.01]
    model.get_layer("first").kernel.assign(kernel)
    return model


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("relu", [ReLU6, layers.ReLU, None])
def test_the_network_computes_what_it_did(norm: bool, relu: Any) -> None:
    model = chain(norm, relu)
    before = model.predict(SAMPLE, verbose=0)
    inner = keras.Model(model.input, model.get_layer("second").input)
    ranges = inner.predict(SAMPLE, verbose=0).max(axis=(0, 1, 2))
    factors = equalize(model, [SAMPLE[:1], SAMPLE[1:]])
    np.testing.assert_allclose(model.predict(SAMPLE, verbose=0), before, rtol=1e-4, atol=1e-5)
    assert list(factors) == ["first"]
    assert factors["first"] == MOST
    new = inner.predict(SAMPLE, verbose=0).max(axis=(0, 1, 2))
    np.testing.assert_allclose(new[0], ranges[0], rtol=1e-5)  # the largest has no room
    np.testing.assert_allclose(new[3], MOST * ranges[3], rtol=1e-5)
    assert ranges[1] < new[1] < new[0]


def test_factors_by_hand() -> None:
    found = channel_factors(np.array([6.0, 5.9, 1.5, 0.0]), 6.0)
    np.testing.assert_allclose(found, [1, 1, (4 / MARGIN) ** STRENGTH, MOST], rtol=1e-6)
    # Without a limit the largest channel sets the range.
    found = channel_factors(np.array([2.0, 1.0]), None)
    np.testing.assert_allclose(found, [1, (2 / MARGIN) ** STRENGTH], rtol=1e-6)


def test_depthwise_layers_are_multiplied_and_divided_by_channel() -> None:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="expand")(inputs)
    x = ReLU6(name="a")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = ReLU6(name="b")(x)
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="project")(x))
    model.get_layer("expand").kernel.assign(np.ones((1, 1, 3, 4), np.float32) * [3, 0.5, 0.1, 0.02])
    model.get_layer("depthwise").bias.assign([0.1, 0.2, 0.0, 0.3])
    before = model.predict(SAMPLE, verbose=0)
    assert list(equalize(model, [SAMPLE])) == ["expand", "depthwise"]
    np.testing.assert_allclose(model.predict(SAMPLE, verbose=0), before, rtol=1e-4, atol=1e-5)


def test_what_others_read_or_the_network_gives_stays() -> None:
    inputs = keras.Input((8, 8, 3))
    shown = layers.Conv2D(4, 1, name="shown")(inputs)
    added = layers.Conv2D(4, 1, name="added")(shown)
    total = layers.Add()([shown, added])
    one = layers.Conv2D(4, 1, name="one")(total)
    other = layers.Conv2D(4, 1, name="other")(total)
    both = layers.Conv2D(2, 1, name="both")
    model = keras.Model(inputs, {"shown": shown, "x": both(one), "y": both(other)})
    assert find_links(model) == []
    assert equalize(model, []) == {}


def test_a_part_that_became_a_model_of_its_own_changes_nothing() -> None:
    """Keras then applies the same layers once more, beside the network."""
    model = chain(norm=True)
    before = [(link.layer.name, link.limit) for link in find_links(model)]
    keras.Model(model.layers[1].output, model.output)
    assert any(len(layer._inbound_nodes) > 1 for layer in model.layers)
    assert [(link.layer.name, link.limit) for link in find_links(model)] == before
    assert before
    assert equalize(model, [np.ones((1, 8, 8, 3), np.float32)])


def test_without_samples() -> None:
    with pytest.raises(ValueError, match="no samples to equalize with"):
        equalize(chain(), [])


def test_the_whole_network_computes_what_it_did(tiny_model: Any) -> None:
    model = keras.models.clone_model(tiny_model.first_stage)
    model.set_weights(tiny_model.first_stage.get_weights())
    image = np.random.default_rng(1).uniform(-1, 1, (1, 64, 96, 3)).astype(np.float32)
    before = model(image, training=False)
    factors = equalize(model, [image])
    assert {"block_5_depthwise", "block_4_expand", "fpn_smooth3_dw", "rpn_conv0_dw"} <= set(factors)
    assert "block_4_project" not in factors  # is added
    after = model(image, training=False)
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
