"""Building blocks that stay inside one XNNPACK partition after int8 conversion.

Rules behind them: ReLU6 only where it fuses into a convolution, no nearest
resize, no standalone activation, raw logits out.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf
from keras import layers


class ReLU6(layers.ReLU):
    """ReLU6, which in training can round to the 256 levels that int8 has between 0 and 6.

    Attributes
    ----------
    rounds : bool
        Whether it rounds while training; gradients pass as if it did not (Jacob et al. 2018).
        Nothing of it is in the graph that is converted.
    """

    def __init__(self, **keywords):
        super().__init__(**({"max_value": 6.0} | keywords))
        self.rounds = False

    def call(self, inputs, training=False):
        if self.rounds and training:  # clamps to the same limits, and passes gradients inside
            return tf.quantization.fake_quant_with_min_max_args(inputs, 0.0, 6.0)
        return super().call(inputs)


class NearestUpsample2x(layers.Layer):
    """(B, H, W, C) → (B, 2H, 2W, C), each cell copied to a 2x2 block.

    Four copies side by side and a depth-to-space give nearest-neighbour
    upsampling without the RESIZE_NEAREST op, which the XNNPACK delegate does not
    take, and with height and width left open.
    """

    def call(self, inputs):
        return tf.nn.depth_to_space(tf.concat([inputs] * 4, axis=-1), 2)

    def compute_output_shape(self, input_shape):
        b, h, w, c = input_shape
        return (b, h and 2 * h, w and 2 * w, c)


class DepthToSpace2x(layers.Layer):
    """(B, H, W, 4C) → (B, 2H, 2W, C)."""

    def call(self, inputs):
        return tf.nn.depth_to_space(inputs, 2)

    def compute_output_shape(self, input_shape):
        b, h, w, c = input_shape
        return (b, h and 2 * h, w and 2 * w, c // 4)


class UpsampleLogits2x(layers.Layer):
    """(N, S, S, C) → (N, 2S, 2S, C), bilinear between cell centres, S fixed."""

    def call(self, inputs):
        return tf.image.resize(inputs, [2 * side for side in inputs.shape[1:3]])

    def compute_output_shape(self, input_shape):
        n, h, w, c = input_shape
        return (n, 2 * h, 2 * w, c)


class FlattenRoI(layers.Layer):
    """(N, S, S, C) → (N, S·S·C) with a constant shape operand.

    Keras' Flatten computes the shape at run time, and those ops stay outside
    the delegate.
    """

    def call(self, inputs):
        return tf.reshape(inputs, (-1, math.prod(inputs.shape[1:])))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], math.prod(input_shape[1:]))


class UnflattenRoI(layers.Layer):
    """(N, S·S·C) → (N, S, S, C), with a constant shape operand as in :class:`FlattenRoI`."""

    def __init__(self, size: int, **keywords):
        super().__init__(**keywords)
        self.size = size

    def call(self, inputs):
        return tf.reshape(inputs, (-1, *self.compute_output_shape(inputs.shape)[1:]))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.size, self.size, input_shape[1] // self.size**2)


def batch_norm(name: str) -> layers.BatchNormalization:
    """BatchNorm with the momentum that suits a few thousand steps."""
    return layers.BatchNormalization(momentum=0.98, epsilon=1e-3, name=name)


def conv_bn(x, filters: int, kernel: int, name: str, relu: bool = True):
    """Convolution → BatchNorm → optional ReLU6 (all fold into one TFLite op)."""
    x = layers.Conv2D(filters, kernel, padding="same", use_bias=False, name=name)(x)
    x = batch_norm(f"{name}_bn")(x)
    return ReLU6(name=f"{name}_relu")(x) if relu else x


def separable_bn(x, filters: int, kernel: int, name: str, relu: bool = True):
    """Depthwise → pointwise → BatchNorm → optional ReLU6.

    One BatchNorm a pair: a second one after the depthwise doubles the training
    time of these memory-bound layers on a CPU and changes nothing in the result.
    """
    x = layers.DepthwiseConv2D(kernel, padding="same", use_bias=False, name=f"{name}_dw")(x)
    return conv_bn(x, filters, 1, f"{name}_pw", relu)


def dense(units: int, name: str, relu: bool = False) -> layers.Layer:
    """Fully connected layer; ReLU6 keeps the int8 range bounded."""
    return layers.Dense(units, activation=keras.ops.relu6 if relu else None, name=name)
