"""Weights of a network with other classes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.checkpoint import CheckpointError, export_model
from edgemask_convert.config import from_dict
from edgemask_convert.training.trainer import Trainer

from ..conftest import TINY


def make(seed: int, **model: Any) -> Trainer:
    values = copy.deepcopy(TINY)
    for section, changes in model.items():
        if isinstance(changes, dict):
            values["model"][section] = values["model"].get(section, {}) | changes
        else:
            values["model"][section] = changes
    config = from_dict(values)
    keras.utils.set_random_seed(seed)
    return Trainer(build_model(config.model), config, total_steps=4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, np.ndarray], Path]:
    """The weights of a network for two classes, and its file."""
    trainer = make(1)
    path = tmp_path_factory.mktemp("weights") / "model.npz"
    export_model(path, trainer.model, {"config": trainer.config.to_dict()})
    return {name: np.asarray(v) for name, v in trainer.named.items()}, path


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"classes": [7, 8]}, []),
        ({"classes": [7, 8, 9]}, ["box_logits"]),
        ({"classes": [7, 8, 9], "mask_head": {"class_agnostic": False}},
         ["box_logits", "mask_logits"]),
        ({"rpn": {"anchor_ratios": [0.5, 1.0, 2.0]}}, ["rpn_deltas", "rpn_logits"]),
    ],
)  # fmt: skip
def test_layers_that_depend_on_classes_or_anchors_start_fresh(
    weights: tuple[dict[str, np.ndarray], Path], changes: dict[str, Any], expected: list[str]
) -> None:
    given, path = weights
    trainer = make(2, **changes)
    before = {name: np.asarray(v) for name, v in trainer.named.items()}
    assert sorted(trainer.start_from(path)) == expected
    for name, value in trainer.named.items():
        fresh = name.split("/")[1] in expected
        wanted = before[name] if fresh else given[name]
        np.testing.assert_allclose(value, wanted, rtol=1e-3, atol=1e-3)  # the file is float16
        np.testing.assert_array_equal(trainer.ema[name], value)


def test_other_layers_must_fit(weights: tuple[dict[str, np.ndarray], Path]) -> None:
    with pytest.raises(CheckpointError, match=r"box_fc1/kernel has shape .*settings of \[model\]"):
        make(2, classes=[7, 8, 9], box_head={"width": 24}).start_from(weights[1])
