"""Keras models behind the stage interface of the device.

With these the float parent runs through :class:`edgemask.pipeline.Pipeline`, so float and int8
accuracy differ by the quantization and by nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from edgemask.pipeline import Pipeline

from .manifest import build_manifest
from .model import MaskRCNN

INPUTS = {"backbone": "image", "box_head": "rois", "mask_head": "rois", "keypoint_head": "rois"}


class KerasStage:
    """One Keras model as a stage."""

    def __init__(self, model, name: str):
        self._input = INPUTS[name]
        # One trace for all sizes: image sizes and RoI counts change from call to call.
        signature = [tf.TensorSpec(model.inputs[0].shape, tf.float32)]
        self._call = tf.function(lambda x: model(x, training=False), input_signature=signature)

    def run(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Float32 inputs by name → float32 outputs by name."""
        outputs = self._call(tf.convert_to_tensor(arrays[self._input]))
        return {name: value.numpy() for name, value in outputs.items()}

    def quantization(self, name: str) -> tuple[float, int]:
        """Float tensors have none."""
        return 1.0, 0


def float_pipeline(model: MaskRCNN, classes: list[dict[str, Any]]) -> Pipeline:
    """The float network as an image → instances function."""
    stages = {name: KerasStage(stage, name) for name, stage in model.stages.items()}
    return Pipeline(build_manifest(model.config, classes), stages)
