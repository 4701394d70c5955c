"""What the blocks of the pyramid and of the heads add up to, and what a fresh network believes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.config import from_dict

from ..conftest import TINY, TINY_2GO, TINY_POSE, changed

CONTEXT = {"channels": 8, "blocks": 1, "dense": 2}


def mask_head(**changes: Any) -> keras.Model:
    """A mask head whose weights are random but for its biases."""
    keras.utils.set_random_seed(2)
    return build_model(from_dict(changed(TINY, **changes)).model).mask_head


def answers(head: keras.Model) -> np.ndarray:
    rois = np.random.default_rng(3).uniform(0, 6, (2, 14, 14, 16)).astype(np.float32)
    return np.asarray(head(rois, training=False)["logits"])


def take_weights(head: keras.Model, other: keras.Model) -> None:
    """Give a head the weights of the layers that another one has too."""
    theirs = {layer.name: layer for layer in other.layers}
    for layer in head.layers:
        if layer.weights and layer.name in theirs:
            layer.set_weights(theirs[layer.name].get_weights())


def silence(head: keras.Model, norm: str) -> None:
    """Let what ends in this BatchNorm give nothing."""
    layer = head.get_layer(norm)
    layer.gamma.assign(0 * layer.gamma)
    layer.beta.assign(0 * layer.beta)


def test_a_block_adds_to_what_it_reads() -> None:
    one, two = mask_head(), mask_head(mask_head__blocks=2)
    take_weights(two, one)
    assert np.abs(answers(two) - answers(one)).max() > 1e-4
    silence(two, "mask_block1_pw_bn")
    np.testing.assert_allclose(answers(two), answers(one), atol=1e-6)
    assert one.get_layer("mask_block0_dw").kernel.shape[:2] == (5, 5)


def test_the_context_adds_to_the_features_before_the_last_block() -> None:
    plain = mask_head(mask_head__blocks=2)
    head = mask_head(mask_head__blocks=2, mask_head__context=CONTEXT)
    take_weights(head, plain)
    assert np.abs(answers(head) - answers(plain)).max() > 1e-4
    silence(head, "mask_context_merge_bn")
    np.testing.assert_allclose(answers(head), answers(plain), atol=1e-6)
    names = [layer.name for layer in head.layers]
    first, last = names.index("mask_block0_add"), names.index("mask_block1_add")
    assert first < names.index("mask_context_add") < last


def test_either_way_of_the_context_adds_to_it() -> None:
    both = mask_head(mask_head__context=CONTEXT)
    for norm, less in (
        ("mask_context_expand_bn", {"dense": 0}), ("mask_context_block0_bn", {"blocks": 0}),
    ):  # fmt: skip
        head, other = (mask_head(mask_head__context=CONTEXT | change) for change in ({}, less))
        take_weights(head, both)
        take_weights(other, both)
        assert np.abs(answers(head) - answers(other)).max() > 1e-5
        silence(head, norm)
        np.testing.assert_allclose(answers(head), answers(other), atol=1e-6)


def test_each_head_has_its_own_context() -> None:
    values = changed(TINY_POSE, keypoint_head__context=CONTEXT)
    model = build_model(from_dict(values).model)
    found = {stage: any("context" in layer.name for layer in head.layers)
             for stage, head in model.stages.items()}  # fmt: skip
    assert found == {
        "backbone": False, "box_head": False, "mask_head": False, "keypoint_head": True,
    }  # fmt: skip


def test_how_wide_the_end_of_a_mask_head_is() -> None:
    """TINY says 8 channels, of which half are left for the logits."""
    head = mask_head()
    assert head.get_layer("mask_refine_dw").kernel.shape[2] == 8
    assert head.get_layer("mask_logits").kernel.shape[2] == 4


def test_the_box_head_is_bounded() -> None:
    """Both of its layers end in a ReLU6, so that int8 knows their range."""
    head = build_model(from_dict(TINY).model).box_head
    for name in ("box_fc1", "box_fc2"):
        layer = head.get_layer(name)
        layer.kernel.assign(np.ones(layer.kernel.shape, np.float32))
        value = np.asarray(keras.Model(head.input, layer.output)(np.ones((1, 7, 7, 16))))
        np.testing.assert_array_equal(value, 6)
        value = np.asarray(keras.Model(head.input, layer.output)(-np.ones((1, 7, 7, 16))))
        np.testing.assert_array_equal(value, 0)


@pytest.mark.parametrize("values", [TINY, TINY_2GO], ids=["pyramid", "2go"])
def test_a_fresh_network_believes_in_nothing(values: dict[str, Any]) -> None:
    """One anchor in a hundred: else the first steps would only learn the background."""
    model = build_model(from_dict(values).model)
    bias = np.asarray(model.first_stage.get_layer("rpn_logits").bias)
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), 0.01, rtol=1e-5)
    scores = np.asarray(model.box_head.get_layer("box_logits").bias)
    np.testing.assert_array_equal(scores, -2 if values is TINY else 0)


def test_a_pyramid_is_a_sum_of_what_is_linear(tiny_model: Any) -> None:
    """Each level adds the one above to its lateral, and the last is pooled once more."""
    names = ("fpn_lateral4_bn", "fpn_lateral5_bn", "fpn_add4", "fpn_smooth5_pw_relu", "p6")
    first = tiny_model.first_stage
    probe = keras.Model(first.input, {n: first.get_layer(n).output for n in names})
    image = np.random.default_rng(0).uniform(-1, 1, (1, 64, 96, 3)).astype(np.float32)
    found = {name: np.asarray(value) for name, value in probe(image).items()}
    above = found["fpn_lateral5_bn"].repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(found["fpn_add4"], found["fpn_lateral4_bn"] + above, atol=1e-5)
    assert found["fpn_lateral4_bn"].min() < 0
    p5 = found["fpn_smooth5_pw_relu"]  # 2 x 3 cells
    np.testing.assert_array_equal(found["p6"][0, 0, 0], p5[0, :, :2].max((0, 1)))
    assert found["p6"].shape == (1, 1, 2, 16)
