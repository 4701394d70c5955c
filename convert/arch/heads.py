"""Second-stage heads on RoIAlign features: box head and mask head."""

from __future__ import annotations

import keras
from keras import layers

from .layers import DepthToSpace2x, FlattenRoI, dense, separable_bn


def box_head(size: int, channels: int, width: int, classes: int) -> keras.Model:
    """RoI features (N, size, size, channels) → class logits (N, classes), deltas (N, 4).

    One sigmoid per class rather than a softmax: images where only some
    categories are labelled can then train just those columns. Boxes are
    class-agnostic.
    """
    rois = keras.Input((size, size, channels), name="rois")
    x = FlattenRoI(name="box_flatten")(rois)
    x = dense(width, "box_fc1", relu=True)(x)
    x = dense(width, "box_fc2", relu=True)(x)
    small = keras.initializers.RandomNormal(stddev=0.01)
    logits = layers.Dense(
        classes, kernel_initializer=small,
        bias_initializer=keras.initializers.Constant(-2.0), name="box_logits",
    )(x)  # fmt: skip
    deltas = layers.Dense(4, kernel_initializer=small, name="box_deltas")(x)
    return keras.Model(rois, {"logits": logits, "deltas": deltas}, name="box_head")


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
