"""The caffe2 operators of mobile networks in TensorFlow, float32, layout NHWC.

Each function takes the operator's arguments and its tensors. Quantized variants compute on real
numbers; their output scales are not applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

Args = dict[str, Any]


def _same(args: Args, x):
    return x


def _padding(args: Args) -> list[list[int]]:
    pad = int(args.get("pad", 0))
    return [[0, 0], [pad, pad], [pad, pad], [0, 0]]


def _conv(args: Args, x, kernel: np.ndarray, bias: np.ndarray):
    stride, group = int(args.get("stride", 1)), int(args.get("group", 1))
    strides = [1, stride, stride, 1]
    if group == 1:
        y = tf.nn.conv2d(x, kernel.transpose(1, 2, 3, 0), strides, _padding(args))
    elif kernel.shape[3] == 1 and kernel.shape[0] == group:
        # One filter per channel: (C, kh, kw, 1) → (kh, kw, C, 1).
        y = tf.nn.depthwise_conv2d(x, kernel.transpose(1, 2, 0, 3), strides, _padding(args))
    else:
        raise ValueError(f"a convolution in {group} groups with kernel {kernel.shape}")
    return y + bias


def _conv_relu(args: Args, x, kernel: np.ndarray, bias: np.ndarray):
    return tf.nn.relu(_conv(args, x, kernel, bias))


def _conv_transpose(args: Args, x, kernel: np.ndarray, bias: np.ndarray):
    """Kernel (in, kh, kw, out); the padding must make the output exactly stride times larger."""
    stride, size = int(args.get("stride", 1)), kernel.shape[1]
    if size - stride != 2 * int(args.get("pad", 0)):
        raise ValueError(f"a transposed convolution with kernel {size}, stride {stride} and {args}")
    n, h, w = tf.unstack(tf.shape(x)[:3])
    shape = tf.stack([n, h * stride, w * stride, kernel.shape[3]])
    return tf.nn.conv2d_transpose(x, kernel.transpose(1, 2, 3, 0), shape, stride, "SAME") + bias


def _fully_connected(args: Args, x, weights: np.ndarray, bias: np.ndarray):
    return tf.reshape(x, (-1, weights.shape[1])) @ weights.T + bias


def _average_pool(args: Args, x):
    stride = int(args.get("stride", 1))
    return tf.nn.avg_pool2d(x, int(args["kernel"]), stride, "VALID")


OPERATORS: dict[str, Callable[..., Any]] = {
    "NCHW2NHWC": _same,
    "NHWC2NCHW": _same,
    "Int8Quantize": _same,
    "Int8Dequantize": _same,
    "Int8Conv": _conv,
    "Int8ConvRelu": _conv_relu,
    "Int8ConvTranspose": _conv_transpose,
    "Int8FC": _fully_connected,
    "Int8AveragePool": _average_pool,
    "Int8Sum": lambda args, a, b: a + b,
    "Int8Relu": lambda args, x: tf.nn.relu(x),
    "Int8Softmax": lambda args, x: tf.nn.softmax(x),
    "Sigmoid": lambda args, x: tf.sigmoid(x),
    "Relu": lambda args, x: tf.nn.relu(x),
}
"""By caffe2 type. Each value: (arguments, tensors in the operator's order) → tensor."""
