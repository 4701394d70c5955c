"""The network without a pyramid: what its cells look at, what it costs, and its configuration."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.arch.layout import layout, network_anchors
from edgemask_convert.arch.macs import channel_costs, network_macs, part_blocks
from edgemask_convert.arch.manifest import build_manifest
from edgemask_convert.config import ConfigError, from_dict

from edgemask.anchors import anchors_of

from ..conftest import CLASSES, TINY_2GO, changed


def config(**changes: Any) -> Any:
    return from_dict(changed(TINY_2GO, **changes)).model


def test_outputs(tiny_2go: Any) -> None:
    found = tiny_2go.first_stage(np.zeros((1, 64, 96, 3), np.float32))
    shapes = {name: tuple(value.shape[1:]) for name, value in found.items()}
    assert shapes == {"c4": (4, 6, 128), "rpn_logits_4": (4, 6, 3), "rpn_deltas_4": (4, 6, 12)}
    rois = np.zeros((5, 6, 6, 128), np.float32)
    box = tiny_2go.box_head(rois)
    assert box["logits"].shape == (5, 3)  # the background is one
    assert box["deltas"].shape == (5, 8)
    assert tiny_2go.mask_head(rois)["logits"].shape == (5, 24, 24, 2)


def test_a_cell_looks_at_the_middle_of_its_pixels() -> None:
    """All depthwise kernels pass on what is in their middle: a pixel reaches one cell."""
    model = build_model(config())
    for layer in model.first_stage.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D) or layer.name == "Conv1":
            kernel = np.zeros(layer.kernel.shape, np.float32)
            kernel[1, 1] = 1
            layer.kernel.assign(kernel)
        elif isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(np.ones(layer.kernel.shape, np.float32))
    features = keras.Model(model.first_stage.input, model.first_stage.output["c4"])
    for row, column in [(2, 3), (0, 0), (3, 5)]:
        image = np.zeros((1, 64, 96, 3), np.float32)
        image[0, 16 * row + 7, 16 * column + 7] = 1
        seen = np.argwhere(np.asarray(features(image))[0, :, :, 0] > 0)
        assert seen.tolist() == [[row, column]]


def test_anchors_are_those_of_the_pack() -> None:
    model = config()
    manifest = build_manifest(model, CLASSES)
    assert "anchor_sizes" not in manifest["rpn"]
    expected = network_anchors(model, [(4, 6)])
    np.testing.assert_array_equal(anchors_of(manifest["rpn"], [(4, 6)]), expected)
    assert len(expected) == 4 * 6 * 3


def test_manifest() -> None:
    manifest = build_manifest(config(), CLASSES)
    assert manifest["input"]["stride"] == 16
    assert manifest["mask"]["size"] == 24
    assert manifest["detections"]["activation"] == "softmax"
    assert manifest["detections"]["class_agnostic"] is False


def kernels(model: keras.Model) -> list[tuple[str, int]]:
    """Name and multiply-accumulates of each layer of a model with static shapes."""
    found = []
    for layer in model.layers:
        if layer.weights:
            cells = int(np.prod(layer.output.shape[1:-1]))
            found.append((layer.name, cells * int(np.prod(layer.weights[0].shape))))
    return found


def test_costs_are_those_of_the_layers(tiny_2go: Any) -> None:
    macs = network_macs(tiny_2go.config, 64, 96)
    for part in ("box_head", "mask_head"):
        assert macs[part] == sum(n for _, n in kernels(tiny_2go.stages[part]))
    first = keras.models.clone_model(
        tiny_2go.first_stage, input_tensors=keras.Input((64, 96, 3), name="image")
    )
    rpn = sum(n for name, n in kernels(first) if name.startswith("rpn"))
    assert macs["rpn"] == rpn
    assert macs["trunk"] == sum(n for _, n in kernels(first)) - rpn


def test_unpruned_network() -> None:
    """Facebook's numbers for 320 x 432: 1034, 335; 10.5 a box; the mask head without upsampling."""
    wide = config(backbone__expansions=[], rpn__expansions=[], box_head__expansions=[],
                  mask_head__expansions=[], rpn__anchor_boxes=[[-8, -8, 8, 8]] * 15,
                  classes=list(range(80)))  # fmt: skip
    macs = network_macs(wide, 320, 432)
    assert [round(macs[part] / 1e6) for part in ("trunk", "rpn", "mask_head")] == [1034, 335, 35]
    assert macs["box_head"] == pytest.approx(10.5e6, rel=0.01)


def test_cost_of_a_channel() -> None:
    before, after = config(), config(mask_head__expansions=[24, 16, 16, 16])
    more = network_macs(after, 64, 96)["mask_head"] - network_macs(before, 64, 96)["mask_head"]
    assert more == 8 * channel_costs(before, 64, 96)["mask_head"]["mask_block_0"]
    assert [blocks[0] for blocks in part_blocks(after)["mask_head"][1]] == [24, 16, 16, 16]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"backbone__kind": "resnet"}, "backbone.kind"),
        ({"backbone__expansions": [16] * 12}, "13 blocks"),
        ({"rpn__expansions": [16]}, "rpn.expansions"),
        ({"rpn__anchor_boxes": []}, "anchor_boxes"),
        ({"rpn__anchor_boxes": [[1.0, 2.0, 3.0]]}, "x0 < x1"),
        ({"rpn__anchor_boxes": [[1.0, "a", 3.0, 4.0]]}, "float"),
        ({"rpn__anchor_boxes": [1.0]}, "list"),
        ({"box_head__features": ["p3"]}, "some of c4"),
        ({"box_head__activation": "relu"}, "activation"),
        ({"keypoint_head": {"blocks": 2}}, "keypoint_head.blocks"),
    ],
)
def test_configurations_that_cannot_be(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        config(**changes)


def test_expansions_of_heads_need_the_kind() -> None:
    with pytest.raises(ConfigError, match=r"box_head\.expansions"):
        from_dict({"model": {"box_head": {"expansions": [16, 16, 16, 16]}}})


def test_layout_of_a_pyramid(tiny_config: Any) -> None:
    maps = layout(tiny_config.model)
    assert list(maps.features) == ["p2", "p3", "p4", "p5"]
    assert (maps.channels, maps.input_stride, maps.clamped) == (16, 32, True)
