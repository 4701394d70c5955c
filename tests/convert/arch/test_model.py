from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.arch import build_model
from edgemask_convert.arch.layers import DepthToSpace2x, FlattenRoI, NearestUpsample2x
from edgemask_convert.config import ConfigError, from_dict, load_config

from ..conftest import TINY, changed

CONFIGS = Path(__file__).resolve().parents[3] / "convert" / "configs"


def test_nearest_upsample() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    expected = x.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(NearestUpsample2x()(x), expected)


def test_depth_to_space() -> None:
    x = np.arange(2 * 8, dtype=np.float32).reshape(1, 1, 2, 8)
    y = np.asarray(DepthToSpace2x()(x))
    assert y.shape == (1, 2, 4, 2)
    # of each cell's eight channels the first two are the upper left, the last two the lower right
    np.testing.assert_array_equal(y[0, :, :2].reshape(4, 2), x[0, 0, 0].reshape(4, 2))


def test_flatten_keeps_the_order() -> None:
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 5)).astype(np.float32)
    np.testing.assert_array_equal(FlattenRoI()(x), x.reshape(3, -1))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(NearestUpsample2x(), (None, None, 6, 8)), (DepthToSpace2x(), (None, 4, None, 8))],
)
def test_open_shapes(layer: keras.layers.Layer, shape: tuple[int | None, ...]) -> None:
    out = layer(keras.Input(shape[1:])).shape
    channels = 8 if isinstance(layer, NearestUpsample2x) else 2
    assert out == (None, *(n and 2 * n for n in shape[1:3]), channels)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96), (128, 64)])
def test_first_stage(tiny_model: Any, height: int, width: int) -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (1, height, width, 3)).astype(np.float32)
    out = {k: np.asarray(v) for k, v in tiny_model.first_stage(image, training=False).items()}
    for level in (2, 3, 4, 5):
        assert out[f"p{level}"].shape == (1, height >> level, width >> level, 16)
        assert out[f"p{level}"].min() >= 0
        assert out[f"p{level}"].max() <= 6
    for level in (3, 4, 5, 6):
        cells = (1, -(-height // 2**level), -(-width // 2**level))
        assert out[f"rpn_logits_{level}"].shape == (*cells, 1)
        assert out[f"rpn_deltas_{level}"].shape == (*cells, 4)
    assert len(out) == 4 + 2 * 4


def test_heads(tiny_model: Any) -> None:
    random = np.random.default_rng(0)
    box = tiny_model.box_head(random.uniform(0, 6, (3, 7, 7, 16)).astype(np.float32))
    assert box["logits"].shape == (3, 2)
    assert box["deltas"].shape == (3, 4)
    mask = tiny_model.mask_head(random.uniform(0, 6, (3, 14, 14, 16)).astype(np.float32))
    assert mask["logits"].shape == (3, 28, 28, 1)


def test_class_specific_masks_and_several_ratios() -> None:
    config = from_dict(TINY)
    config.model.mask_head.class_agnostic = False
    config.model.rpn.anchor_ratios = [0.5, 1.0, 2.0]
    model = build_model(config.model)
    assert model.mask_head.output["logits"].shape[-1] == 2
    assert model.first_stage.output["rpn_logits_3"].shape[-1] == 3
    assert model.first_stage.output["rpn_deltas_3"].shape[-1] == 12


def test_weight_names(tiny_model: Any) -> None:
    named = tiny_model.named_weights()
    count = sum(len(model.weights) for model in tiny_model.stages.values())
    assert len(named) == count  # no name twice
    assert {name.split("/")[0] for name in named} == {"backbone", "box_head", "mask_head"}
    # names that shipped checkpoints hold
    for name in (
        "backbone/Conv1/kernel",
        "backbone/block_13_project/bias",
        "backbone/fpn_lateral3_bn/gamma",
        "backbone/rpn_conv0_bn6/moving_mean",
        "backbone/rpn_logits/kernel",
        "box_head/box_fc1/kernel",
        "mask_head/mask_logits/bias",
    ):
        assert name in named
    again = build_model(tiny_model.config).named_weights()
    assert list(again) == list(named)


def test_rpn_shares_its_convolutions(tiny_model: Any) -> None:
    names = [layer.name for layer in tiny_model.first_stage.layers if layer.weights]
    assert names.count("rpn_conv0_dw") == names.count("rpn_logits") == 1
    assert [f"rpn_conv0_bn{level}" in names for level in "3456"] == [True] * 4


def test_frozen_blocks(tiny_model: Any) -> None:
    trainable = {layer.name for layer in tiny_model.first_stage.layers if layer.trainable}
    assert "block_1_project" not in trainable
    assert "block_2_project" in trainable


CONTEXT = {"channels": 8, "blocks": 1, "dense": 2}


def test_context_lets_every_cell_see_the_whole_region() -> None:
    """Without it, what lies in the last corner does not reach the first; with it, it does."""
    corner = np.zeros((1, 14, 14, 16), np.float32)
    corner[0, 13, 13] = 6
    reached = {}
    for channels in (0, 8):
        keras.utils.set_random_seed(1)
        values = changed(TINY, mask_head__context=CONTEXT | {"channels": channels})
        head = build_model(from_dict(values).model).mask_head
        answers = [np.asarray(head(x)["logits"])[0, 0, 0, 0] for x in (corner, 0 * corner)]
        reached[channels] = answers[0] != answers[1]
    assert reached == {0: False, 8: True}


@pytest.mark.parametrize("context", [{"channels": 8, "blocks": 0}, {"channels": 8, "dense": 0}])
def test_either_way_of_the_context_can_be_left_out(context: dict[str, int]) -> None:
    head = build_model(from_dict(changed(TINY, mask_head__context=context)).model).mask_head
    assert head.output["logits"].shape == (None, 28, 28, 1)


def test_context_of_an_odd_size_is_refused() -> None:
    values = changed(TINY, mask_head__context=CONTEXT, mask_head__output_size=13)
    with pytest.raises(ConfigError, match=r"mask_head\.context needs"):
        from_dict(values)


def test_keypoint_head_can_be_left_out(tiny_pose: Any) -> None:
    plain = tiny_pose.without_keypoints()
    assert list(plain.stages) == ["backbone", "box_head", "mask_head"]
    assert plain.config.keypoint_head.blocks == 0
    assert tiny_pose.config.keypoint_head.blocks > 0
    assert plain.mask_head is tiny_pose.mask_head


def multiply_accumulates(model: keras.Model, shape: tuple[int, ...]) -> int:
    """Of the convolutions and matrix products of one call."""
    graph = tf.function(model).get_concrete_function(tf.TensorSpec(shape)).graph
    total = 0
    for op in graph.get_operations():
        if op.type in ("Conv2D", "DepthwiseConv2dNative", "MatMul"):
            kernel = op.inputs[1].shape
            inside = kernel[:-2] if op.type.startswith("Depthwise") else kernel[:-1]
            total += op.outputs[0].shape.num_elements() * inside.num_elements()
    return total


@pytest.mark.parametrize(
    ("name", "keypoints", "most"),
    [("people", False, 1.0e9), ("people", True, 1.2e9), ("people-lite", False, 0.4e9)],
)
def test_shipped_networks_keep_their_budget(name: str, keypoints: bool, most: float) -> None:
    """With 50 proposals and 5 detections at 416x320."""
    model = build_model(load_config(CONFIGS / f"{name}.toml").model)
    if not keypoints:
        model = model.without_keypoints()
    channels = model.config.neck.channels
    regions = (5, 14, 14, channels)
    shapes = {
        "backbone": (1, 320, 416, 3),
        "box_head": (50, 7, 7, channels),
        "mask_head": regions,
        "keypoint_head": regions,
    }
    total = sum(multiply_accumulates(m, shapes[stage]) for stage, m in model.stages.items())
    assert 0.8 * most < total <= most
