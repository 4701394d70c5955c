"""Inverted residuals with fewer channels that compute nearly the same."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.arch.macs import network_macs
from edgemask_convert.compress import surgeon
from edgemask_convert.compress.prune import PruneError
from edgemask_convert.compress.surgeon import (
    Moments,
    Removal,
    block_moments,
    kept_channels,
    measure_network,
    narrow_blocks,
    network_moments,
    plan,
    plan_network,
    removal,
    set_expansions,
)
from edgemask_convert.config import from_dict

from ..conftest import CLASSES, TINY_2GO, changed, make_2go


def inputs() -> tuple[list[np.ndarray], dict[str, list[np.ndarray]]]:
    random = np.random.default_rng(5)
    images = [random.uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32) for _ in range(3)]
    rois = random.normal(0, 1, (40, 6, 6, 128)).astype(np.float32)
    return images, {"box_head": [rois], "mask_head": [rois]}


def outputs(model: Any) -> dict[str, np.ndarray]:
    images, regions = inputs()
    found = {k: np.asarray(v) for k, v in model.first_stage(images[0]).items()}
    for stage, (rois,) in regions.items():
        found |= {f"{stage}/{k}": np.asarray(v) for k, v in model.stages[stage](rois).items()}
    return found


def narrower(**changes: Any) -> Any:
    return build_model(from_dict(changed(TINY_2GO, **changes)).model)


def test_as_wide_as_before_is_a_copy(tiny_2go: Any) -> None:
    target = narrower()
    narrow_blocks(tiny_2go, target, network_moments(tiny_2go, *inputs()))
    for name, value in outputs(tiny_2go).items():
        np.testing.assert_array_equal(outputs(target)[name], value, err_msg=name)


def test_channels_that_others_can_replace_go(tiny_2go: Any) -> None:
    """In each part one block has eight channels twice, and a constant: nothing is lost."""
    wide = make_2go(mask_head__expansions=[32, 16, 16, 16], rpn__expansions=[16, 32, 16])
    for stage, block in ((wide.mask_head, "mask_block_0"), (wide.first_stage, "rpn_block_1")):
        expand, depthwise = (stage.get_layer(f"{block}_{p}") for p in ("expand", "depthwise"))
        kernel, bias = np.asarray(expand.kernel).copy(), np.asarray(expand.bias).copy()
        filters = np.asarray(depthwise.kernel).copy()
        kernel[..., 16:24], bias[16:24] = kernel[..., :8], bias[:8]
        filters[:, :, 16:24] = filters[:, :, :8] * 3
        kernel[..., 24:], bias[24:] = 0, 0.7
        filters[:, :, 24:] = 0
        filters[1, 1, 24:] = 0.5
        expand.kernel.assign(kernel)
        expand.bias.assign(bias)
        depthwise.kernel.assign(filters)
    target = narrower()
    narrow_blocks(wide, target, network_moments(wide, *inputs()))
    for name, value in outputs(wide).items():
        gap = np.abs(outputs(target)[name] - value).max()
        assert gap < 0.02 * np.abs(value).max(), name


def test_error_of_a_removal_is_the_error_that_is_made() -> None:
    """What `removal` promises is what a fit to the remaining channels gives."""
    random = np.random.default_rng(1)
    data = random.normal(0, 1, (5000, 24)) @ random.normal(0, 1, (24, 24)) + 3
    kernel = random.normal(0, 1, (24, 5))
    output = data @ kernel
    moments = Moments(data.mean(0), np.cov(data.T, bias=True), float(output.var(0).sum()))
    found = removal(moments, kernel)
    assert sorted(found.order) == list(range(24))
    kept = found.order[16:]
    design = np.column_stack([data[:, kept], np.ones(len(data))])
    _, residual, *_ = np.linalg.lstsq(design, output, rcond=None)
    expected = residual.sum() / len(data) / moments.power
    assert found.errors[2] == pytest.approx(expected, rel=0.05)
    assert 0 == found.errors[0] < found.errors[1] < found.errors[2]


def test_better_than_the_weakest_first() -> None:
    """Two channels with the same content: weak ones apart, but one of them is enough."""
    random = np.random.default_rng(2)
    data = random.normal(0, 1, (4000, 16))
    data[:, 8:] = data[:, :8] * 0.9 + random.normal(0, 0.01, (4000, 8))
    kernel = np.ones((16, 1))
    moments = Moments(data.mean(0), np.cov(data.T, bias=True), 1.0)
    first = removal(moments, kernel).order[:8]
    assert {int(n) % 8 for n in first} == set(range(8))


def test_plan_takes_the_cheapest_errors() -> None:
    order = np.arange(32)
    removals = {
        "a": Removal(order, np.array([0, 0.1, 0.2, 0.9, 1.0])),
        "b": Removal(order, np.array([0, 0.15, 0.9, 1.0, 1.1])),
    }
    costs = {"a": 10.0, "b": 10.0}
    assert plan(removals, costs, 640) == {"a": 32, "b": 32}
    assert plan(removals, costs, 560) == {"a": 24, "b": 32}
    assert plan(removals, costs, 400) == {"a": 16, "b": 24}
    dear = {"a": 10.0, "b": 30.0}  # the same error for three times as much
    assert plan(removals, dear, 1200)["b"] == 24
    with pytest.raises(PruneError, match="cannot be met"):
        plan(removals, costs, 300)


def test_budgets() -> None:
    wide = make_2go(mask_head__expansions=[48] * 4, box_head__expansions=[48] * 4)
    moments = network_moments(wide, *inputs())
    before = network_macs(wide.config, 64, 96)
    budgets = {part: 0.8 * before[part] for part in ("mask_head", "box_head")}
    expansions = plan_network(wide, moments, budgets, 64, 96)
    config = from_dict(TINY_2GO).model
    set_expansions(config, expansions)
    after = network_macs(config, 64, 96)
    for part, budget in budgets.items():
        assert 0.8 * budget < after[part] <= budget
    assert (after["trunk"], after["rpn"]) == (before["trunk"], before["rpn"])


def test_wider_is_refused(tiny_2go: Any) -> None:
    target = narrower(rpn__expansions=[24, 16, 16])
    with pytest.raises(PruneError, match="rpn_block_0 has 24 channels"):
        narrow_blocks(tiny_2go, target, network_moments(tiny_2go, *inputs()))


def test_nothing_to_measure_on(tiny_2go: Any) -> None:
    with pytest.raises(PruneError, match="nothing to measure"):
        block_moments(tiny_2go.mask_head, ["mask_block_0"], [])


def test_measured_on_photographs(tiny_2go: Any, drawn_images: list[np.ndarray]) -> None:
    moments = measure_network(tiny_2go, CLASSES, drawn_images[:2])
    assert len(moments) == 13 + 3 + 4 + 4
    assert all(m.power > 0 for m in moments.values())


def test_channels_that_are_read_weakly_go_first() -> None:
    """All have the same variance and nothing in common; the later ones are read less."""
    moments = Moments(np.zeros(24), np.eye(24), 1.0)
    kernel = np.linspace(3, 1, 24)[:, None]
    found = removal(moments, kernel)
    assert set(found.order[:8]) == set(range(16, 24))
    assert len(found.errors) == 4
    gone = np.square(kernel[:, 0]).reshape(3, 8).sum(1)[::-1]
    np.testing.assert_allclose(found.errors, [0, *gone.cumsum()], rtol=1e-2)
    assert kept_channels(moments, kernel, 16).tolist() == list(range(16))


def test_plan_looks_at_the_next_eight_channels() -> None:
    """The first eight of a are the cheapest, the next eight are the dearest."""
    order = np.arange(32)
    removals = {
        "a": Removal(order, np.array([0, 0.1, 0.5, 0.9, 1.0])),
        "b": Removal(order, np.array([0, 0.2, 0.3, 0.9, 1.0])),
    }
    costs = {"a": 10.0, "b": 10.0}
    assert plan(removals, costs, 480) == {"a": 24, "b": 24}
    assert plan(removals, costs, 400) == {"a": 24, "b": 16}


def test_parts_without_a_budget_keep_their_channels() -> None:
    wide = make_2go(rpn__expansions=[24, 32, 40])
    kept = plan_network(wide, {}, {}, 64, 96)
    assert kept["rpn"] == [24, 32, 40]
    assert kept["trunk"] == [16] * 13


@pytest.mark.parametrize(("block", "end"), [("mask_block_1", "add"), ("mask_block_3", "project")])
def test_moments_of_a_block(tiny_2go: Any, block: str, end: str) -> None:
    """The power is that of what the block gives, the input that it skips with it."""
    rois = inputs()[1]["mask_head"]
    found = block_moments(tiny_2go.mask_head, [block], rois)[block]
    layers = [tiny_2go.mask_head.get_layer(f"{block}_{n}").output for n in ("depthwise", end)]
    read, given = (
        np.asarray(value).reshape(-1, value.shape[-1])
        for value in keras.Model(tiny_2go.mask_head.input, layers)(rois[0])
    )
    np.testing.assert_allclose(found.mean, read.mean(0), atol=1e-4)
    np.testing.assert_allclose(found.covariance, np.cov(read.T, bias=True), atol=1e-3)
    assert found.power == pytest.approx(given.var(0).sum(), rel=1e-3)


def test_cells_are_drawn_from_everywhere(tiny_2go: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is something to see in the second half of the regions only."""
    monkeypatch.setattr(surgeon, "CELLS", 360)  # a quarter of them
    rois = inputs()[1]["mask_head"][0]
    rois[:20] = 0
    found = block_moments(tiny_2go.mask_head, ["mask_block_0"], [rois])["mask_block_0"]
    monkeypatch.setattr(surgeon, "CELLS", 10_000)
    whole = block_moments(tiny_2go.mask_head, ["mask_block_0"], [rois])["mask_block_0"]
    assert found.power == pytest.approx(whole.power, rel=0.2)
