from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.arch.heads import keypoint_head
from edgemask_convert.arch.layers import DepthToSpace2x, FlattenRoI, NearestUpsample2x
from edgemask_convert.config import from_dict, load_config

from ..conftest import TINY

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


def test_anchor_sizes(tiny_model: Any) -> None:
    assert tiny_model.anchor_sizes == (40, 80, 160, 320)


def test_frozen_blocks(tiny_model: Any) -> None:
    trainable = {layer.name for layer in tiny_model.first_stage.layers if layer.trainable}
    assert "block_1_project" not in trainable
    assert "block_2_project" in trainable


def test_keypoint_head_of_the_pose_pack_is_cheap() -> None:
    """At most 40 million multiply-accumulates a person, as the people pack has no more to spare."""
    config = load_config(CONFIGS / "people-pose.toml").model
    points = config.keypoint_head
    head = keypoint_head(
        points.output_size, config.neck.channels, points.width, points.blocks, points.kernel,
        points.up_channels, 17,
    )  # fmt: skip
    assert head.output["logits"].shape == (None, 28, 28, 17)
    total = 0
    for layer in head.layers:
        if not isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            continue
        rows, columns, channels = layer.output.shape[1:]
        height, width, inputs, _ = layer.kernel.shape
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        total += rows * columns * channels * height * width * (1 if depthwise else inputs)
    assert 30e6 < total <= 40e6
