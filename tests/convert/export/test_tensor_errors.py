from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.checkpoint import assign_weights
from edgemask_convert.export.quantize import quantize_model
from edgemask_convert.export.tensor_errors import (
    TensorError,
    _layer,
    _noise,
    _power,
    as_markdown,
    pack_errors,
)

from ..conftest import CLASSES


def errors_with(tiny_model: Any, images: list[np.ndarray], kernel: str | None) -> list[TensorError]:
    """Quantize the tiny network, one channel of one kernel made 100 times larger."""
    model = build_model(tiny_model.config)
    weights = {name: np.asarray(w).copy() for name, w in tiny_model.named_weights().items()}
    if kernel:
        weights[kernel][..., 1] *= 100
    assign_weights(model, weights, "test")
    return pack_errors(model, *quantize_model(model, CLASSES, images), images)


def test_names_the_layer_with_one_bad_channel(
    tiny_model: Any, drawn_images: list[np.ndarray]
) -> None:
    bad = errors_with(tiny_model, drawn_images, "backbone/block_5_project/kernel")
    assert (bad[0].stage, bad[0].layer, bad[0].operator) == (
        "backbone", "block_5_project", "CONV_2D",
    )  # fmt: skip
    assert bad[0].added > 0.5
    assert bad[0].ruined >= bad[0].channels // 2
    assert bad[0].sqnr > 25  # the whole tensor looks well: the bad channel has all its power
    assert [e.added for e in bad] == sorted((e.added for e in bad), reverse=True)
    assert {e.stage for e in bad} == set(tiny_model.stages)
    assert {"p2", "rpn_logits_3", "logits"} <= {e.layer for e in bad}
    table = as_markdown(bad, 3).splitlines()
    assert sum(line.startswith("| backbone | block_5_project | CONV_2D |") for line in table) == 1
    assert sum(line.startswith("| ") for line in table) == 1 + 3


def test_noise_of_known_tensors() -> None:
    random = np.random.default_rng(0)
    exact = random.normal(0, 1, (50, 20, 4)).astype(np.float32)
    exact[..., 1] *= 1000  # a large channel
    exact[..., 3] = 5  # one that does not vary is neither lost nor kept
    noisy = exact + random.normal(0, 2, exact.shape).astype(np.float32)
    sqnr, lost, ruined, channels = _noise(_power(exact, noisy))
    assert sqnr == pytest.approx(10 * np.log10(1e6 / 4 / 4), abs=1.0)
    assert (ruined, channels) == (2, 3)
    assert lost == pytest.approx(2 / 3, abs=0.01)
    assert _noise(_power(exact, exact))[1:] == (0.0, 0, 3)


def test_layer_in_a_tensor_name() -> None:
    layers = {"block_5_project", "mask_block0_pw", "mask_block0_pw_bn", "mask_block0_pw_relu"}
    assert _layer("first_stage_1/block_5_project_1/convolution", layers) == "block_5_project"
    fused = "m_1/mask_block0_pw_relu_1/Relu6;m_1/mask_block0_pw_bn_1/add;m_1/mask_block0_pw_1/c"
    assert _layer(fused, layers) == "mask_block0_pw"
    assert _layer("arith.constant", layers) == "arith.constant"


def test_json_ready() -> None:
    error = TensorError("s", "l", "o", "t", 1.0, 0.5, 0.25, 1, 2)
    assert json.loads(json.dumps(vars(error)))["added"] == 0.25
