"""Second-stage heads on RoIAlign features: box head, mask head and keypoint head."""

from __future__ import annotations

import keras
from keras import layers

from ..config import ModelConfig
from .layers import DepthToSpace2x, FlattenRoI, conv_bn, dense, separable_bn


def box_outputs(config: ModelConfig) -> tuple[int, int]:
    """Number of logits and of deltas of a box head.

    A softmax has one more column than classes: the background, first.
    """
    box, classes = config.box_head, len(config.classes)
    logits = classes + (box.activation == "softmax")
    return logits, 4 if box.class_agnostic else 4 * classes


def box_head(size: int, channels: int, width: int, logits: int, deltas: int) -> keras.Model:
    """RoI features (N, size, size, channels) → class logits (N, logits), deltas (N, deltas)."""
    rois = keras.Input((size, size, channels), name="rois")
    x = FlattenRoI(name="box_flatten")(rois)
    x = dense(width, "box_fc1", relu=True)(x)
    x = dense(width, "box_fc2", relu=True)(x)
    small = keras.initializers.RandomNormal(stddev=0.01)
    scores = layers.Dense(
        logits, kernel_initializer=small,
        bias_initializer=keras.initializers.Constant(-2.0), name="box_logits",
    )(x)  # fmt: skip
    steps = layers.Dense(deltas, kernel_initializer=small, name="box_deltas")(x)
    return keras.Model(rois, {"logits": scores, "deltas": steps}, name="box_head")


def mask_head(
    size: int, channels: int, blocks: int, kernel: int, up_channels: int, outputs: int
) -> keras.Model:
    """RoI features (N, size, size, channels) → mask logits (N, 2·size, 2·size, outputs).

    Residual separable blocks with large depthwise kernels: a 5x5 depthwise sees
    twice as far as a 3x3 for 4 % more MACs, and a mask needs the whole object.
    """
    rois = keras.Input((size, size, channels), name="rois")
    x = rois
    for index in range(blocks):
        y = separable_bn(x, channels, kernel, f"mask_block{index}")
        x = layers.Add(name=f"mask_block{index}_add")([x, y])
    x = layers.Conv2D(4 * up_channels, 1, name="mask_up")(x)
    x = DepthToSpace2x(name="mask_depth_to_space")(layers.ReLU(6.0, name="mask_up_relu")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="mask_refine_dw")(x)
    x = layers.Conv2D(up_channels // 2, 1, name="mask_refine_pw")(x)
    x = layers.ReLU(6.0, name="mask_refine_relu")(x)
    logits = layers.Conv2D(
        outputs, 1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name="mask_logits",
    )(x)  # fmt: skip
    return keras.Model(rois, {"logits": logits}, name="mask_head")


def keypoint_head(
    size: int, channels: int, width: int, blocks: int, kernel: int, up_channels: int, keypoints: int
) -> keras.Model:
    """RoI features (N, size, size, channels) → heatmap logits (N, 2·size, 2·size, keypoints).

    The mask head's blocks, wider: which joint it is needs the whole body in view. The softmax over
    the cells of a heatmap belongs to the loss and to the decoding, not to the graph.
    """
    rois = keras.Input((size, size, channels), name="rois")
    x = conv_bn(rois, width, 1, "keypoint_stem")
    for index in range(blocks):
        y = separable_bn(x, width, kernel, f"keypoint_block{index}")
        x = layers.Add(name=f"keypoint_block{index}_add")([x, y])
    x = layers.Conv2D(4 * up_channels, 1, name="keypoint_up")(x)
    x = layers.ReLU(6.0, name="keypoint_up_relu")(x)
    x = DepthToSpace2x(name="keypoint_depth_to_space")(x)
    x = separable_bn(x, up_channels, 3, "keypoint_refine")
    logits = layers.Conv2D(
        keypoints, 1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name="keypoint_logits",
    )(x)  # fmt: skip
    return keras.Model(rois, {"logits": logits}, name="keypoint_head")
