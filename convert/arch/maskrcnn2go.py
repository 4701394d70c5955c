"""The network of MaskRCNN2Go: inverted residuals everywhere, one feature map of stride 16.

Trunk, RPN, box head and mask head are chains of inverted residuals (Sandler et al. 2018) whose
depthwise convolution has no ReLU; there is no pyramid (a "C4" network, He et al. 2017). BatchNorm
is folded. All expansions can be narrowed one by one.

Where a cell looks: three stride-2 convolutions padded at the right and bottom and a fourth padded
on both sides put the centre of cell i on pixel 16 i + 7, in the middle of its 16 pixels. So boxes
and RoIAlign follow the same convention as with a pyramid. Padding both sides in the fourth costs a
PAD operator; it is the one on the smallest map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
from keras import layers

from .layers import DepthToSpace2x, UpsampleLogits2x

CHANNELS = 128  # of the feature map
WIDTH = 160  # of the last layers of both heads
UP_CHANNELS = 128  # after the transposed convolution of the mask head

# (expanded channels, channels, stride) of the unpruned network.
TRUNK = (
    [(32, 16, 1)]
    + [(96, 32, 2), (192, 32, 1)]
    + [(192, 48, 2)] + [(288, 48, 1)] * 2
    + [(288, 96, 2)] + [(576, 96, 1)] * 3
    + [(576, 128, 1)] + [(768, 128, 1)] * 2
)  # fmt: skip
STEM = 32
RPN = [(768, 128, 1)] * 3
BOX = [(768, 128, 2)] + [(768, 128, 1)] * 2 + [(768, WIDTH, 1)]
MASK = [(768, 128, 1)] * 3 + [(768, WIDTH, 1)]
CENTRED = ("block_6", "box_block_0")  # strides that pad on both sides

Blocks = Sequence[tuple[int, int, int]]


def _chain(x, blocks: Blocks, expansions: Sequence[int], prefix: str):
    """Inverted residuals ``prefix_0``, ``prefix_1`` …; `expansions` replace the blocks' own."""
    for index, (expanded, out, stride) in enumerate(blocks):
        name = f"{prefix}_{index}"
        width = expansions[index] if expansions else expanded
        y = layers.Conv2D(width, 1, name=f"{name}_expand")(x)
        y = layers.ReLU(name=f"{name}_expand_relu")(y)
        padding = "same"
        if name in CENTRED:
            y, padding = layers.ZeroPadding2D(1, name=f"{name}_pad")(y), "valid"
        y = layers.DepthwiseConv2D(
            3, stride, padding=padding, use_bias=False, name=f"{name}_depthwise"
        )(y)
        y = layers.Conv2D(out, 1, name=f"{name}_project")(y)
        if stride == 1 and x.shape[-1] == out:
            y = layers.Add(name=f"{name}_add")([x, y])
        x = y
    return x


def _small(bias: float = 0.0) -> dict[str, keras.initializers.Initializer]:
    """Initial weights of an output layer."""
    return {
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.01),
        "bias_initializer": keras.initializers.Constant(bias),
    }


def first_stage(
    image, trunk: Sequence[int], rpn: Sequence[int], anchors: int
) -> dict[str, keras.KerasTensor]:
    """Trunk and RPN on ``image`` (B, H, W, 3) in [-1, 1), H and W multiples of 16.

    Parameters
    ----------
    image : Keras input
    trunk, rpn : sequence of int
        Expanded channels of the 13 blocks of the trunk and the 3 of the RPN; empty takes the
        unpruned network's.
    anchors : int
        Per cell.

    Returns
    -------
    dict
        ``c4`` (B, H/16, W/16, 128), ``rpn_logits_4`` (…, A), ``rpn_deltas_4`` (…, 4A).
    """
    x = layers.Conv2D(STEM, 3, 2, padding="same", name="Conv1")(image)
    x = layers.ReLU(name="Conv1_relu")(x)
    features = _chain(x, TRUNK, trunk, "block")
    x = _chain(features, RPN, rpn, "rpn_block")
    prior = -math.log((1 - 0.01) / 0.01)  # start at 1 % objectness (Lin et al. 2017, focal loss)
    return {
        "c4": features,
        "rpn_logits_4": layers.Conv2D(anchors, 1, name="rpn_logits", **_small(prior))(x),
        "rpn_deltas_4": layers.Conv2D(4 * anchors, 1, name="rpn_deltas", **_small())(x),
    }


def box_head(size: int, expansions: Sequence[int], logits: int, deltas: int) -> keras.Model:
    """RoI features (N, size, size, 128) → ``logits`` (N, logits), ``deltas`` (N, deltas)."""
    rois = keras.Input((size, size, CHANNELS), name="rois")
    x = _chain(rois, BOX, expansions, "box_block")
    x = layers.Conv2D(WIDTH, 1, name="box_last")(x)
    x = layers.ReLU(name="box_last_relu")(x)
    x = layers.GlobalAveragePooling2D(name="box_pool")(x)  # XNNPACK takes no int8 average pool
    outputs = {
        "logits": layers.Dense(logits, name="box_logits", **_small())(x),
        "deltas": layers.Dense(deltas, name="box_deltas", **_small())(x),
    }
    return keras.Model(rois, outputs, name="box_head")


def mask_head(size: int, expansions: Sequence[int], outputs: int) -> keras.Model:
    """RoI features (N, size, size, 128) → mask logits (N, 4·size, 4·size, outputs).

    A pointwise convolution and depth-to-space are the transposed convolution of stride 2; the
    last factor of two is interpolated.
    """
    rois = keras.Input((size, size, CHANNELS), name="rois")
    x = _chain(rois, MASK, expansions, "mask_block")
    x = layers.Conv2D(4 * UP_CHANNELS, 1, name="mask_up")(x)
    x = DepthToSpace2x(name="mask_depth_to_space")(layers.ReLU(name="mask_up_relu")(x))
    x = layers.Conv2D(outputs, 1, name="mask_logits", **_small())(x)
    logits = UpsampleLogits2x(name="mask_interpolate")(x)
    return keras.Model(rois, {"logits": logits}, name="mask_head")
