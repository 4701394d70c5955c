from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.export.flatbuffer import count_macs, stage_spec
from synthetic import DATA


def convert(function: Callable, shape: tuple[int | None, ...], name: str = "rois") -> bytes:
    """Return the float32 TFLite file of a function of one tensor, with its signature."""
    module = tf.Module()
    module.serve = tf.function(
        function, input_signature=[tf.TensorSpec(shape, tf.float32, name=name)]
    )
    traced = module.serve.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], module)
    content: bytes = converter.convert()
    return content


def kernel(*shape: int) -> np.ndarray:
    """Return random weights."""
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


def test_macs_of_one_convolution() -> None:
    weights = kernel(3, 3, 2, 8)
    content = convert(lambda x: tf.nn.conv2d(x, weights, 2, "SAME"), (1, None, None, 2))
    # 6x10 outputs of 8 channels, each a sum over 3x3x2 products
    assert count_macs(content, (1, 12, 20, 2)) == 6 * 10 * 8 * 3 * 3 * 2
    assert count_macs(content, (1, 24, 20, 2)) == 12 * 10 * 8 * 3 * 3 * 2


def test_macs_of_a_depthwise_convolution() -> None:
    weights = kernel(5, 5, 6, 1)
    content = convert(
        lambda x: tf.nn.depthwise_conv2d(x, weights, (1, 1, 1, 1), "SAME"), (1, None, None, 6)
    )
    assert count_macs(content, (1, 7, 9, 6)) == 7 * 9 * 6 * 5 * 5


def test_macs_of_a_dense_layer() -> None:
    weights = kernel(12, 5)
    content = convert(lambda x: tf.reshape(x, (-1, 12)) @ weights, (None, 2, 6))
    assert count_macs(content, (3, 2, 6)) == 3 * 12 * 5


def test_macs_add_up_and_other_operators_are_free() -> None:
    first, second = kernel(1, 1, 4, 4), kernel(1, 1, 4, 3)

    def network(x: tf.Tensor) -> tf.Tensor:
        y = tf.nn.relu6(tf.nn.conv2d(x, first, 1, "SAME")) + x
        return tf.nn.conv2d(tf.nn.max_pool2d(y, 2, 2, "SAME"), second, 1, "SAME")

    assert count_macs(convert(network, (1, None, None, 4)), (1, 8, 8, 4)) == 64 * 16 + 16 * 12


def test_stage_spec() -> None:
    content = convert(
        lambda x: {"logits": x[:, 0], "deltas": tf.reshape(x, (-1, 12)) @ kernel(12, 4)},
        (None, 2, 6),
    )
    spec = stage_spec("box_head", content)
    assert spec["file"] == "box_head.tflite"
    assert spec["sha256"] == hashlib.sha256(content).hexdigest()
    assert spec["bytes"] == len(content)
    assert spec["inputs"]["rois"] | {"tensor": ""} == {
        "tensor": "", "shape": [None, 2, 6], "dtype": "float32", "scale": None, "zero_point": 0,
    }  # fmt: skip
    shapes = {name: entry["shape"] for name, entry in spec["outputs"].items()}
    assert shapes == {"logits": [None, 6], "deltas": [None, 4]}


def test_file_without_a_signature() -> None:
    with pytest.raises(ValueError, match="stage box_head has 0 signatures, not 1"):
        stage_spec("box_head", (DATA / "head.tflite").read_bytes())
