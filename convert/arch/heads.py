"""Second-stage heads on RoIAlign features: box head, mask head and keypoint head."""

from __future__ import annotations

import keras
from keras import layers

from ..config import ContextConfig, ModelConfig
from .layers import (
    DepthToSpace2x,
    FlattenRoI,
    ReLU6,
    UnflattenRoI,
    batch_norm,
    conv_bn,
    dense,
    separable_bn,
)


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


def _context(x, config: ContextConfig, name: str):
    """Add what the region looks like as a whole to features (N, S, S, C), S even.

    Two ways at half the resolution: dense 3x3 convolutions that see all of the region (as the
    bottom of a U-Net, Ronneberger et al. 2015), and a fully connected layer, which knows where in
    the region a cell lies (Liu et al. 2018, PANet).
    """
    size, width = x.shape[1] // 2, config.channels
    y = layers.Conv2D(width, 3, 2, padding="same", use_bias=False, name=f"{name}_down")(x)
    y = ReLU6(name=f"{name}_down_relu")(batch_norm(f"{name}_down_bn")(y))
    for index in range(config.blocks):
        z = conv_bn(y, width, 3, f"{name}_block{index}")
        y = layers.Add(name=f"{name}_block{index}_add")([y, z])
    if config.dense:
        z = conv_bn(y, config.dense, 1, f"{name}_squeeze")
        z = FlattenRoI(name=f"{name}_flatten")(z)
        z = dense(size * size * config.dense, f"{name}_fc", relu=True)(z)
        z = UnflattenRoI(size, name=f"{name}_unflatten")(z)
        z = conv_bn(z, width, 1, f"{name}_expand", relu=False)
        y = layers.Add(name=f"{name}_fc_add")([y, z])
    y = DepthToSpace2x(name=f"{name}_depth_to_space")(conv_bn(y, 2 * width, 1, f"{name}_up"))
    y = conv_bn(y, x.shape[-1], 1, f"{name}_merge", relu=False)
    return layers.Add(name=f"{name}_add")([x, y])


def _body(x, blocks: int, kernel: int, context: ContextConfig, name: str):
    """Residual separable blocks with large depthwise kernels, and the context before the last.

    A 5x5 depthwise sees twice as far as a 3x3 for 4 % more MACs.
    """
    for index in range(blocks):
        if context.channels and index == blocks - 1:
            x = _context(x, context, f"{name}_context")
        y = separable_bn(x, x.shape[-1], kernel, f"{name}_block{index}")
        x = layers.Add(name=f"{name}_block{index}_add")([x, y])
    return x


def mask_head(
    size: int,
    channels: int,
    blocks: int,
    kernel: int,
    up_channels: int,
    outputs: int,
    context: ContextConfig,
) -> keras.Model:
    """RoI features (N, size, size, channels) → mask logits (N, 2·size, 2·size, outputs)."""
    rois = keras.Input((size, size, channels), name="rois")
    x = _body(rois, blocks, kernel, context, "mask")
    x = layers.Conv2D(4 * up_channels, 1, name="mask_up")(x)
    x = DepthToSpace2x(name="mask_depth_to_space")(ReLU6(name="mask_up_relu")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="mask_refine_dw")(x)
    x = layers.Conv2D(up_channels // 2, 1, name="mask_refine_pw")(x)
    x = ReLU6(name="mask_refine_relu")(x)
    logits = layers.Conv2D(
        outputs, 1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name="mask_logits",
    )(x)  # fmt: skip
    return keras.Model(rois, {"logits": logits}, name="mask_head")


def keypoint_head(
    size: int,
    channels: int,
    width: int,
    blocks: int,
    kernel: int,
    up_channels: int,
    keypoints: int,
    context: ContextConfig,
) -> keras.Model:
    """RoI features (N, size, size, channels) → heatmap logits (N, 2·size, 2·size, keypoints).

    The mask head's blocks, wider: which joint it is needs the whole body in view. The softmax over
    the cells of a heatmap belongs to the loss and to the decoding, not to the graph.
    """
    rois = keras.Input((size, size, channels), name="rois")
    x = conv_bn(rois, width, 1, "keypoint_stem")
    x = _body(x, blocks, kernel, context, "keypoint")
    x = layers.Conv2D(4 * up_channels, 1, name="keypoint_up")(x)
    x = ReLU6(name="keypoint_up_relu")(x)
    x = DepthToSpace2x(name="keypoint_depth_to_space")(x)
    x = separable_bn(x, up_channels, 3, "keypoint_refine")
    logits = layers.Conv2D(
        keypoints, 1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name="keypoint_logits",
    )(x)  # fmt: skip
    return keras.Model(rois, {"logits": logits}, name="keypoint_head")
