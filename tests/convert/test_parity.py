"""The shipped network three times over: Keras, float32 TFLite, int8 TFLite, on one photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.arch.keras_stages import float_pipeline
from edgemask_convert.checkpoint import load_model
from edgemask_convert.export.flatbuffer import stage_spec
from edgemask_convert.export.quantize import convert_stage

import edgemask
from edgemask.boxes import iou_matrix
from edgemask.images import load_image
from edgemask.instances import Instances
from edgemask.modelpack import load_pack
from edgemask.pipeline import Pipeline
from edgemask.runtime import Stage

CHECKPOINT = Path(__file__).resolve().parents[2] / "models" / "people.npz"
PHOTOGRAPH = Path(edgemask.__file__).parent / "assets" / "astronaut.jpg"

pytestmark = pytest.mark.skipif(
    not CHECKPOINT.exists(), reason=f"the float checkpoint {CHECKPOINT.name} is not in models/"
)


@pytest.fixture(scope="module")
def network() -> Any:
    """The shipped float network and its classes."""
    model, header = load_model(CHECKPOINT)
    return model, header["classes"]


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """The bundled photograph."""
    return load_image(PHOTOGRAPH)


@pytest.fixture(scope="module")
def exact(network: Any, photograph: np.ndarray) -> Instances:
    """What the Keras network finds."""
    found: Instances = float_pipeline(*network)(photograph, 0.05, 20)
    assert len(found) >= 1
    assert found.scores[0] > 0.5
    return found


def mask_iou(first: Instances, second: Instances) -> np.ndarray:
    """IoU of the masks of each pair with the same index."""
    a, b = first.masks.to_dense(), second.masks.to_dense()
    return np.asarray((a & b).sum(axis=(1, 2)) / np.maximum((a | b).sum(axis=(1, 2)), 1))


def test_float32_stages_equal_keras(network: Any, exact: Instances, photograph: np.ndarray) -> None:
    """The same instances in the same order: conversion changes nothing but rounding."""
    model, classes = network
    stages = {}
    for name in model.stages:
        content = convert_stage(model, name, [], precision="float32")
        stages[name] = Stage(content, stage_spec(name, content))
    found = Pipeline(float_pipeline(model, classes).manifest, stages)(photograph, 0.05, 20)
    assert len(found) == len(exact)
    np.testing.assert_allclose(found.boxes, exact.boxes, atol=0.05)  # pixels
    np.testing.assert_allclose(found.scores, exact.scores, atol=1e-3)
    np.testing.assert_array_equal(found.class_ids, exact.class_ids)
    assert mask_iou(found, exact).min() > 0.995


def test_int8_pack_agrees_with_keras(exact: Instances, photograph: np.ndarray) -> None:
    """Every sure detection of either is found by the other, with nearly the same mask."""
    pack = load_pack("people")
    stages = {name: Stage(data, pack.stage_spec(name)) for name, data in pack.stages.items()}
    quick = Pipeline(pack.manifest, stages)(photograph, 0.05, 20)
    for ours, theirs in ((quick, exact), (exact, quick)):
        sure = ours[ours.scores >= 0.5]
        assert len(sure) >= 1
        overlap = iou_matrix(sure.boxes, theirs.boxes)
        partner = theirs[overlap.argmax(axis=1)]
        assert overlap.max(axis=1).min() > 0.92
        assert np.abs(sure.scores - partner.scores).max() < 0.05
        assert mask_iou(sure, partner).min() > 0.94
