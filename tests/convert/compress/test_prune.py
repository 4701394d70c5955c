"""Narrow networks out of wide ones."""

from __future__ import annotations

import copy
from typing import Any

import keras
import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.compress.prune import (
    PruneError,
    channel_energies,
    expansion_costs,
    group_sizes,
    measure_channels,
    narrow,
)
from edgemask_convert.config import from_dict

from ..conftest import TINY


def images(count: int = 2) -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32) for _ in range(count)]


def config(**changes: Any) -> Any:
    values = copy.deepcopy(TINY)
    for path, value in changes.items():
        node = values["model"]
        *sections, last = path.split("__")
        for section in sections:
            node = node[section]
        node[last] = value
    return from_dict(values).model


def run(model: Any) -> dict[str, np.ndarray]:
    random = np.random.default_rng(6)
    outputs = {k: np.asarray(v) for k, v in model.first_stage(images()[0]).items()}
    channels = model.config.neck.channels
    rois = random.uniform(0, 6, (3, 7, 7, 1)).astype(np.float32).repeat(channels, -1)
    outputs |= {f"box_{k}": np.asarray(v) for k, v in model.box_head(rois).items()}
    rois = random.uniform(0, 6, (3, 14, 14, 1)).astype(np.float32).repeat(channels, -1)
    outputs |= {f"mask_{k}": np.asarray(v) for k, v in model.mask_head(rois).items()}
    return outputs


def test_as_wide_as_before_is_a_copy(tiny_model: Any) -> None:
    target = build_model(config())
    kept, fresh = narrow(tiny_model, target, measure_channels(tiny_model, images()))
    assert not fresh
    for name, value in run(tiny_model).items():
        np.testing.assert_allclose(run(target)[name], value, rtol=1e-5, atol=1e-5)
    assert {g: len(k) for g, k in kept.items()} == group_sizes(tiny_model)


@pytest.mark.parametrize("dead", ["unread", "constant"])
def test_channels_without_information_can_go(tiny_model: Any, dead: str) -> None:
    """Half of block 3 gives nothing, or a constant that a bias can replace."""
    wide = build_model(config())
    narrow(tiny_model, wide, measure_channels(tiny_model, images()))
    half = group_sizes(wide)["block_3"] // 2
    gone = np.arange(half) * 2 + 1
    if dead == "unread":
        layer = wide.first_stage.get_layer("block_3_project")
        kernel = np.asarray(layer.kernel).copy()
        kernel[:, :, gone] = 0
        layer.kernel.assign(kernel)
    else:
        layer = wide.first_stage.get_layer("block_3_depthwise")
        kernel, bias = np.asarray(layer.kernel).copy(), np.asarray(layer.bias).copy()
        kernel[:, :, gone], bias[gone] = 0, 2.5
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)
    expansions = [group_sizes(wide)[f"block_{n}"] for n in range(1, 14)]
    expansions[2] = group_sizes(wide)["block_3"] - half
    target = build_model(config(backbone__expansions=expansions))
    narrow(wide, target, measure_channels(wide, images()))
    for name, value in run(wide).items():
        np.testing.assert_allclose(run(target)[name], value, rtol=1e-3, atol=1e-3, err_msg=name)


def test_unread_channels_of_the_heads_can_go(tiny_model: Any) -> None:
    wide = build_model(config())
    narrow(tiny_model, wide, measure_channels(tiny_model, images()))
    fc2 = wide.box_head.get_layer("box_fc2")
    kernel = np.asarray(fc2.kernel).copy()
    kernel[::2] = 0
    fc2.kernel.assign(kernel)
    up = wide.mask_head.get_layer("mask_refine_dw")  # reads what depth-to-space made
    kernel = np.asarray(up.kernel).copy()
    kernel[:, :, 4:] = 0
    up.kernel.assign(kernel)
    pointwise = wide.mask_head.get_layer("mask_refine_pw")
    kernel = np.asarray(pointwise.kernel).copy()
    kernel[:, :, 4:] = 0
    pointwise.kernel.assign(kernel)
    final = wide.mask_head.get_layer("mask_logits")
    kernel = np.asarray(final.kernel).copy()
    kernel[:, :, [0, 3]] = 0
    final.kernel.assign(kernel)
    target = build_model(config(box_head__width=8, mask_head__up_channels=4))
    statistics = measure_channels(wide, images())
    chosen, _ = narrow(wide, target, statistics)
    assert set(chosen["box_fc1"]) == set(range(1, 16, 2))
    logits = run(wide)["mask_logits"]
    np.testing.assert_allclose(run(target)["mask_logits"], logits, rtol=1e-4, atol=1e-4)


def test_every_group_has_an_energy_and_it_sums_to_one(tiny_model: Any) -> None:
    energies = channel_energies(tiny_model, measure_channels(tiny_model, images()))
    for group, count in group_sizes(tiny_model).items():
        assert energies[group].shape == (count,)
        assert energies[group].sum() == pytest.approx(1, abs=1e-4)


def test_costs_are_those_of_mobilenet() -> None:
    """Block 1: 16 channels in at stride 2, 24 out at stride 4; block 6 also feeds the pyramid."""
    model = from_dict({"model": {"neck": {"channels": 64}}}).model
    costs = expansion_costs(model, 320, 416)
    cells = {stride: 320 * 416 / stride**2 for stride in (2, 4, 8, 16)}
    assert costs["block_1"] == 16 * cells[2] + (9 + 24) * cells[4]
    assert costs["block_6"] == (32 + 64) * cells[8] + (9 + 64) * cells[16]
    assert len(costs) == 15


def test_a_wider_target_is_refused(tiny_model: Any) -> None:
    with pytest.raises(PruneError, match="neck has 24 channels, the wide network 16"):
        narrow(tiny_model, build_model(config(neck__channels=24)),
               measure_channels(tiny_model, images()))  # fmt: skip


def output_of(model: Any, layer: str) -> np.ndarray:
    """What a layer of the first stage gives on both images."""
    probe = keras.Model(model.first_stage.input, model.first_stage.get_layer(layer).output)
    return np.concatenate([np.asarray(probe(image)) for image in images()])


def test_what_is_measured_of_a_channel(tiny_model: Any) -> None:
    """Mean and variance over all cells of all images, where its reader reads."""
    found = measure_channels(tiny_model, images())
    layers = {
        "stem": "expanded_conv_depthwise_relu",
        "block_3": "block_3_depthwise_relu",
        "block_6": "block_6_depthwise_relu",
        "block_6/expand": "block_6_expand_relu",
        "block_13/expand": "block_13_expand_relu",
    }
    assert set(found) == {*layers, *(f"block_{n}" for n in range(1, 14))}
    for group, layer in layers.items():
        values = output_of(tiny_model, layer)
        mean, variance = found[group]
        np.testing.assert_allclose(mean, values.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(variance, values.var((0, 1, 2)), rtol=1e-4, atol=1e-5)


def test_no_image_to_measure_on(tiny_model: Any) -> None:
    with pytest.raises(PruneError, match="no image to measure the channels on"):
        measure_channels(tiny_model, [])


def read(model: Any, layer: str) -> np.ndarray:
    """Squared weights with which a pointwise layer of the first stage reads each channel."""
    return np.square(np.asarray(model.first_stage.get_layer(layer).kernel)[0, 0]).sum(1)


def test_a_channel_is_worth_the_variance_that_its_readers_get(tiny_model: Any) -> None:
    """The pyramid reads block 6 before its depthwise convolution; both readers count alike."""
    random = np.random.default_rng(1)
    sizes = group_sizes(tiny_model)
    groups = ("block_3", "block_6", "block_6/expand")
    statistics = {g: random.uniform(0, 3, (2, sizes[g.split("/")[0]])) for g in groups}
    energies = channel_energies(tiny_model, {g: (a, b) for g, (a, b) in statistics.items()})
    own = read(tiny_model, "block_3_project") * statistics["block_3"][1]
    np.testing.assert_allclose(energies["block_3"], own / own.sum(), rtol=1e-4)
    block = read(tiny_model, "block_6_project") * statistics["block_6"][1]
    pyramid = read(tiny_model, "fpn_lateral3") * statistics["block_6/expand"][1]
    both = (block / block.sum() + pyramid / pyramid.sum()) / 2
    np.testing.assert_allclose(energies["block_6"], both, rtol=1e-4)


def test_a_region_reads_a_channel_in_each_of_its_cells(tiny_model: Any) -> None:
    """The box head reads channel 5 alone, which is a seventh of what reads the pyramid."""
    wide = build_model(config())
    layer = wide.box_head.get_layer("box_fc1")
    kernel = np.zeros(layer.kernel.shape, np.float32)
    kernel[5::16] = 1
    layer.kernel.assign(kernel)
    energies = channel_energies(wide, {})["neck"]
    assert energies.argmax() == 5
    assert energies[5] > 1 / 7
    assert np.delete(energies, 5).sum() < 6 / 7


def test_a_region_of_fewer_channels_keeps_its_cells(tiny_model: Any) -> None:
    """Where the other channels are silent, the box head says what it said."""
    kept = np.arange(0, 16, 2)
    target = build_model(config(neck__channels=8))
    narrow(tiny_model, target, measure_channels(tiny_model, images()), {"neck": kept})
    rois = np.random.default_rng(6).uniform(0, 6, (3, 7, 7, 16)).astype(np.float32)
    rois[..., 1::2] = 0
    expected = tiny_model.box_head(rois)
    for name, value in target.box_head(np.ascontiguousarray(rois[..., kept])).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)


def test_the_pyramid_is_made_up_for_what_it_does_not_read_any_more(tiny_model: Any) -> None:
    """Half of block 6 is constant where the pyramid reads it, and the pyramid is narrower too."""
    wide = build_model(config())
    narrow(tiny_model, wide, measure_channels(tiny_model, images()))
    expand = wide.first_stage.get_layer("block_6_expand")
    kernel, bias = np.asarray(expand.kernel).copy(), np.asarray(expand.bias).copy()
    kernel[..., 1::2], bias[1::2] = 0, 2.5
    expand.kernel.assign(kernel)
    expand.bias.assign(bias)
    expansions = [group_sizes(wide)[f"block_{n}"] for n in range(1, 14)]
    given = {"neck": np.arange(1, 16, 2), "block_6": np.arange(0, expansions[5], 2)}
    expansions[5] //= 2
    target = build_model(config(backbone__expansions=expansions, neck__channels=8))
    narrow(wide, target, measure_channels(wide, images()), given)
    expected = output_of(wide, "fpn_lateral3_bn")[..., given["neck"]]
    np.testing.assert_allclose(output_of(target, "fpn_lateral3_bn"), expected, atol=1e-4)


@pytest.mark.parametrize("convs", [0, 2])
def test_an_rpn_of_another_depth(convs: int) -> None:
    """Logits and deltas read the last of its convolutions, or the pyramid where there is none."""
    wide, target = (build_model(config(rpn__convs=convs)) for _ in range(2))
    kept, fresh = narrow(wide, target, measure_channels(wide, images()))
    assert not fresh
    assert {g for g in kept if g.startswith("rpn")} == {f"rpn{n}" for n in range(convs)}
    np.testing.assert_allclose(run(target)["rpn_deltas_3"], run(wide)["rpn_deltas_3"], atol=1e-5)


def test_fused_blocks_are_copied() -> None:
    """They and the stem before them are narrowed by nothing; what is another layer starts fresh."""
    wide, target = (build_model(config(backbone__fused=[8, 8, 8])) for _ in range(2))
    kept, fresh = narrow(wide, target, measure_channels(wide, images()))
    assert not fresh
    assert "stem" not in kept
    for name, value in run(wide).items():
        np.testing.assert_allclose(run(target)[name], value, rtol=1e-5, atol=1e-5)
    other = build_model(config(backbone__fused=[8, 16, 8]))
    assert narrow(wide, other, measure_channels(wide, images()))[1] == [
        "fused_2_expand", "fused_2_project",
    ]  # fmt: skip


def test_layers_that_the_wide_network_has_not_got_are_named(tiny_model: Any) -> None:
    more = build_model(config(mask_head__blocks=2))
    fresh = narrow(tiny_model, more, measure_channels(tiny_model, images()))[1]
    assert fresh == ["mask_block1_dw", "mask_block1_pw", "mask_block1_pw_bn"]
    deeper = build_model(config(rpn__convs=tiny_model.config.rpn.convs + 1))
    fresh = narrow(tiny_model, deeper, measure_channels(tiny_model, images()))[1]
    assert {"rpn_logits", "rpn_deltas"} < set(fresh)
    assert all(name.startswith("rpn_") for name in fresh)
