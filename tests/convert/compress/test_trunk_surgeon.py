"""Narrower blocks of a MobileNetV2 trunk."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.compress.fuse import copy_weights
from edgemask_convert.compress.prune import PruneError, expansion_costs, measure_channels, narrow
from edgemask_convert.compress.trunk_surgeon import (
    choose_channels,
    measure_trunk,
    plan_trunk,
    refit_trunk,
    trunk_blocks,
)
from edgemask_convert.config import from_dict

from ..conftest import TINY, changed

SIZE = (64, 64)


def images() -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.uniform(-1, 1, (1, *SIZE, 3)).astype(np.float32) for _ in range(4)]


def widths(model: Any) -> list[int]:
    return [model.first_stage.get_layer(f"block_{i}_project").kernel.shape[2] for i in range(1, 14)]


def pruned(wide: Any, expansions: list[int], refit: bool = True) -> Any:
    target = build_model(from_dict(changed(TINY, backbone__expansions=expansions)).model)
    moments = measure_trunk(wide, images())
    chosen = choose_channels(wide, target, moments)
    narrow(wide, target, measure_channels(wide, images()), chosen)
    if refit:
        refit_trunk(wide, target, moments, chosen)
    return target


def test_twins_can_go_without_a_loss(tiny_model: Any) -> None:
    """Half of block 4's channels are copies of the other half: the projection makes up for them."""
    wide = build_model(tiny_model.config)
    copy_weights(tiny_model, wide)
    half = widths(wide)[3] // 2
    for name, axis in (("expand", -1), ("depthwise", 2)):
        layer = wide.first_stage.get_layer(f"block_4_{name}")
        kernel, bias = np.asarray(layer.kernel).copy(), np.asarray(layer.bias).copy()
        first = np.take(kernel, range(half), axis)
        layer.kernel.assign(np.concatenate([first, first], axis))
        layer.bias.assign(np.concatenate([bias[:half], bias[:half]]))
    expansions = widths(wide)
    expansions[3] = half
    wanted = np.asarray(wide.first_stage(images()[0])["p3"])
    errors = {
        refit: np.abs(
            np.asarray(pruned(wide, expansions, refit).first_stage(images()[0])["p3"]) - wanted
        ).max()
        for refit in (True, False)
    }
    assert errors[True] < 0.01
    assert errors[True] < 0.1 * errors[False]


def test_plan_keeps_the_budget(tiny_model: Any) -> None:
    config = copy.deepcopy(tiny_model.config)
    costs = expansion_costs(config, *SIZE)
    everything = sum(costs[f"block_{i}"] * n for i, n in enumerate(widths(tiny_model), 1))
    moments = measure_trunk(tiny_model, images())
    kept = plan_trunk(tiny_model, moments, config, SIZE, 0.7 * everything)
    spent = sum(costs[f"block_{i}"] * n for i, n in enumerate(kept, 1))
    assert 0.6 * everything < spent <= 0.7 * everything
    assert all(a <= b for a, b in zip(kept, widths(tiny_model), strict=True))


def test_fused_blocks_are_left_alone() -> None:
    config = from_dict(changed(TINY, backbone__fused=[8, 8, 8])).model
    assert trunk_blocks(config)[0] == "block_4"
    assert trunk_blocks(from_dict(TINY).model)[0] == "block_1"


def test_wider_is_refused(tiny_model: Any) -> None:
    expansions = widths(tiny_model)
    expansions[5] += 8
    with pytest.raises(PruneError, match="block_6 has"):
        pruned(tiny_model, expansions)


def test_a_plan_for_a_network_with_fused_blocks() -> None:
    """What it has got in the place of blocks 1 to 3 needs an entry that a configuration takes."""
    values = changed(TINY, backbone__fused=[8, 8, 8])
    config = from_dict(values).model
    wide = build_model(config)
    costs = expansion_costs(config, *SIZE)
    own = {i: wide.first_stage.get_layer(f"block_{i}_project").kernel.shape[2]
           for i in range(4, 14)}  # fmt: skip
    budget = sum(costs[f"block_{i}"] * n for i, n in own.items())
    kept = plan_trunk(wide, measure_trunk(wide, images()), config, SIZE, budget)
    assert kept[3:] == list(own.values())
    assert from_dict(changed(values, backbone__expansions=kept)).model.backbone.expansions == kept
