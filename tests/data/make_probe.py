"""Make the small flatbuffers that edgemask and its tests carry. Needs TensorFlow.

    python tests/data/make_probe.py

writes ``edgemask/assets/probe.tflite`` (an int8 1x1 convolution that returns its input: the
runtime builds an interpreter on it to find out whether it works at all) and, next to this script,
``backbone.tflite`` (image of any size -> p2, logits), ``head.tflite`` (any number of RoIs ->
logits), ``outside.tflite`` (an operator that XNNPACK leaves alone) and ``unknown_op.tflite`` (an
operator that no runtime knows).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).resolve().parent
ASSETS = HERE.parents[1] / "edgemask" / "assets"
CHANNELS = 4


def convert(
    function: Callable[..., object], low: float, high: float, shape: tuple[int, ...], path: Path
) -> None:
    """Quantize a traced function to int8, calibrated on a uniform range, and save it."""

    def samples() -> Iterator[list[np.ndarray]]:
        random = np.random.default_rng(7)
        for _ in range(4):
            sample = random.uniform(low, high, shape).astype(np.float32)
            sample.flat[:2] = low, high  # the range is exact, so scales are the same everywhere
            yield [sample]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())
    print(f"{path}: {path.stat().st_size} bytes")


def kernel(seed: int, *shape: int) -> tf.Tensor:
    """Return seeded convolution weights, (kernel height, kernel width, inputs, outputs)."""
    return tf.constant(np.random.default_rng(seed).normal(0, 0.3, shape), tf.float32)


IDENTITY = tf.constant(np.eye(CHANNELS)[None, None], tf.float32)
STEM, PREDICTOR, HEAD = kernel(0, 3, 3, 3, 8), kernel(1, 3, 3, 8, 4), kernel(2, 1, 1, 8, 4)


@tf.function(input_signature=[tf.TensorSpec((1, 2, 2, CHANNELS), tf.float32, name="x")])
def probe(x: tf.Tensor) -> tf.Tensor:
    """Return x."""
    return tf.nn.conv2d(x, IDENTITY, 1, "SAME")


@tf.function(input_signature=[tf.TensorSpec((1, None, None, 3), tf.float32, name="image")])
def backbone(image: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return a stride-2 feature map and logits of it."""
    features = tf.nn.relu6(tf.nn.conv2d(image, STEM, 2, "SAME"))
    return {"logits": tf.nn.conv2d(features, PREDICTOR, 1, "SAME"), "p2": features}


@tf.function(input_signature=[tf.TensorSpec((None, 7, 7, 8), tf.float32, name="rois")])
def head(rois: tf.Tensor) -> tf.Tensor:
    """Return logits of each RoI."""
    return tf.nn.conv2d(rois, HEAD, 1, "SAME")


@tf.function(input_signature=[tf.TensorSpec((None, 7, 7, 8), tf.float32, name="rois")])
def outside(rois: tf.Tensor) -> tf.Tensor:
    """Return logits of each RoI and put an average pooling, which stays outside, before them."""
    return tf.nn.conv2d(tf.nn.avg_pool2d(rois, 2, 1, "SAME"), HEAD, 1, "SAME")


@tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, name="x")])
def unknown(x: tf.Tensor) -> tf.Tensor:
    """Return something that TFLite has no operator for."""
    return tf.raw_ops.Betainc(a=x, b=x, x=x)


def main() -> None:
    """Write all of them."""
    ASSETS.mkdir(parents=True, exist_ok=True)
    convert(probe, -1.0, 127 / 128, (1, 2, 2, CHANNELS), ASSETS / "probe.tflite")
    convert(backbone, -1.0, 127 / 128, (1, 32, 32, 3), HERE / "backbone.tflite")
    convert(head, 0.0, 6.0, (2, 7, 7, 8), HERE / "head.tflite")
    convert(outside, 0.0, 6.0, (2, 7, 7, 8), HERE / "outside.tflite")
    converter = tf.lite.TFLiteConverter.from_concrete_functions([unknown.get_concrete_function()])
    converter.allow_custom_ops = True
    (HERE / "unknown_op.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main()
