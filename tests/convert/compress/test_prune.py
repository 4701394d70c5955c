"""Narrow networks out of wide ones."""

from __future__ import annotations

import copy
from typing import Any

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
