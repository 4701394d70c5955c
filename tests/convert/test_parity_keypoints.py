"""Keypoints three times over: Keras, float32 TFLite, int8 TFLite, on the bundled photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.arch.keras_stages import float_pipeline
from edgemask_convert.checkpoint import assign_weights, load_model
from edgemask_convert.config import KeypointHeadConfig
from edgemask_convert.export.flatbuffer import stage_spec
from edgemask_convert.export.quantize import convert_stage, quantize_model
from edgemask_convert.export.verify import MAX_KEYPOINT_SHIFT, keypoint_shifts

import edgemask
from edgemask.images import load_image
from edgemask.instances import Instances
from edgemask.pipeline import Pipeline
from edgemask.runtime import Stage

CHECKPOINT = Path(__file__).resolve().parents[2] / "models" / "people.npz"
PHOTOGRAPH = Path(edgemask.__file__).parent / "assets" / "astronaut.jpg"

pytestmark = pytest.mark.skipif(
    not CHECKPOINT.exists(), reason=f"the float checkpoint {CHECKPOINT.name} is not in models/"
)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """The bundled photograph."""
    return load_image(PHOTOGRAPH)


@pytest.fixture(scope="module")
def network() -> Any:
    """The shipped network under a random keypoint head whose heatmaps have distinct peaks."""
    finished, header = load_model(CHECKPOINT)
    finished.config.keypoint_head = KeypointHeadConfig(blocks=1, width=32, up_channels=16)
    keras.utils.set_random_seed(0)
    model = build_model(finished.config)
    weights = finished.without_keypoints().named_weights()
    arrays = {name: np.asarray(weight) for name, weight in weights.items()}
    assign_weights(model, arrays, CHECKPOINT, ("keypoint_head",))
    random = np.random.default_rng(0)
    for weight in model.keypoint_head.get_layer("keypoint_logits").weights:
        weight.assign(random.normal(0, 30, weight.shape))
    return model, header["classes"]


@pytest.fixture(scope="module")
def exact(network: Any, photograph: np.ndarray) -> Instances:
    """What the Keras network finds."""
    found: Instances = float_pipeline(*network)(photograph, 0.5, 20)
    assert len(found) >= 1
    assert found.keypoints is not None
    assert np.ptp(found.keypoints[0, :, 1]) > 50  # they are not all in one place
    return found


def test_float32_stages_equal_keras(network: Any, exact: Instances, photograph: np.ndarray) -> None:
    model, classes = network
    stages = {}
    for name in model.stages:
        content = convert_stage(model, name, [], precision="float32")
        stages[name] = Stage(content, stage_spec(name, content))
    found = Pipeline(float_pipeline(model, classes).manifest, stages)(photograph, 0.5, 20)
    assert found.keypoints is not None
    assert np.median(np.abs(found.keypoints[..., 2] - exact.keypoints[..., 2])) < 0.01
    apart = np.linalg.norm(found.keypoints[..., :2] - exact.keypoints[..., :2], axis=2)
    assert np.median(apart) < 0.05  # pixels
    assert (apart < 0.5).mean() > 0.9  # a random head may have two peaks of one height


def test_int8_stages_agree_with_keras(
    network: Any, exact: Instances, photograph: np.ndarray
) -> None:
    model, classes = network
    manifest, contents = quantize_model(model, classes, [photograph, photograph[:, ::-1].copy()])
    stages = {name: Stage(data, manifest["stages"][name]) for name, data in contents.items()}
    found = Pipeline(manifest, stages)(photograph, 0.5, 20)
    assert len(found) == len(exact)
    shifts = keypoint_shifts(exact, found)
    assert len(shifts) >= 3  # peaks this high are sure ones
    assert np.median(shifts) < MAX_KEYPOINT_SHIFT
