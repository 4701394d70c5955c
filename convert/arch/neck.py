"""Light FPN (Lin et al. 2017) and the region proposal network on top of it."""

from __future__ import annotations

import math

import keras
from keras import layers

from .layers import NearestUpsample2x, ReLU6, batch_norm, conv_bn, separable_bn


def _merge(lateral, top, name):
    return layers.Add(name=name)([lateral, NearestUpsample2x(name=f"{name}_up")(top)])


def fpn(features: dict[str, keras.KerasTensor], channels: int) -> dict[str, keras.KerasTensor]:
    """Pyramid P2..P5, every level (B, H/s, W/s, channels) clamped to [0, 6].

    P2 feeds RoIAlign only, so it gets a depthwise smoothing and no pointwise:
    at stride 4 the pointwise alone would cost a tenth of the trunk. The clamp
    gives all levels one int8 scale, so RoIAlign can mix them.
    """
    m5 = conv_bn(features["c5"], channels, 1, "fpn_lateral5", relu=False)
    m4 = _merge(conv_bn(features["c4"], channels, 1, "fpn_lateral4", relu=False), m5, "fpn_add4")
    m3 = _merge(conv_bn(features["c3"], channels, 1, "fpn_lateral3", relu=False), m4, "fpn_add3")
    lateral2 = layers.Conv2D(channels, 1, name="fpn_lateral2")(features["c2"])
    m2 = _merge(lateral2, m3, "fpn_add2")
    pyramid = {
        f"p{level}": separable_bn(merged, channels, 3, f"fpn_smooth{level}")
        for level, merged in (("3", m3), ("4", m4), ("5", m5))
    }
    x = layers.DepthwiseConv2D(3, padding="same", name="fpn_smooth2")(m2)
    pyramid["p2"] = ReLU6(name="fpn_smooth2_relu")(x)
    return pyramid


def rpn(
    pyramid: dict[str, keras.KerasTensor], convs: int, anchors_per_cell: int
) -> dict[str, keras.KerasTensor]:
    """Objectness logits and box deltas on P3..P6 (P6 is a max-pool of P5).

    The convolutions are shared between levels, their BatchNorms are not:
    statistics differ by level, and after folding the difference is free.

    Returns
    -------
    dict
        ``rpn_logits_L`` (B, H, W, A) and ``rpn_deltas_L`` (B, H, W, 4A), L = 3..6.
    """
    maps = {level: pyramid[f"p{level}"] for level in ("3", "4", "5")}
    maps["6"] = layers.MaxPooling2D(2, 2, padding="same", name="p6")(pyramid["p5"])
    channels = pyramid["p3"].shape[-1]
    for index in range(convs):
        depthwise = layers.DepthwiseConv2D(
            3, padding="same", use_bias=False, name=f"rpn_conv{index}_dw"
        )
        pointwise = layers.Conv2D(channels, 1, use_bias=False, name=f"rpn_conv{index}_pw")
        for level, x in maps.items():
            x = batch_norm(f"rpn_conv{index}_bn{level}")(pointwise(depthwise(x)))
            maps[level] = ReLU6(name=f"rpn_conv{index}_relu{level}")(x)
    prior = -math.log((1 - 0.01) / 0.01)  # start at 1 % objectness (Lin et al. 2017, focal loss)
    small = keras.initializers.RandomNormal(stddev=0.01)
    logits = layers.Conv2D(
        anchors_per_cell, 1, kernel_initializer=small,
        bias_initializer=keras.initializers.Constant(prior), name="rpn_logits",
    )  # fmt: skip
    deltas = layers.Conv2D(4 * anchors_per_cell, 1, kernel_initializer=small, name="rpn_deltas")
    outputs = {}
    for level, x in maps.items():
        outputs[f"rpn_logits_{level}"] = logits(x)
        outputs[f"rpn_deltas_{level}"] = deltas(x)
    return outputs
