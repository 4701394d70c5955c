"""MobileNetV2 trunk with BatchNorm folded into its convolutions.

Folding at load time makes fine-tuning on small batches stable (no running
statistics to disturb), saves a fifth of the training time and is what int8
conversion would do anyway.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from keras import layers

from .layers import ReLU6

# (expansion, channels, stride) of blocks 0..16, Sandler et al. 2018, table 2.
BLOCKS = (
    [(1, 16, 1)]
    + [(6, 24, 2), (6, 24, 1)]
    + [(6, 32, 2)] + [(6, 32, 1)] * 2
    + [(6, 64, 2)] + [(6, 64, 1)] * 3
    + [(6, 96, 1)] * 3
    + [(6, 160, 2)] + [(6, 160, 1)] * 2
    + [(6, 320, 1)]
)  # fmt: skip


def _round_channels(value: float) -> int:
    """Nearest multiple of 8, never more than 10 % below ``value`` (as MobileNet does)."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def _conv(x, filters, kernel, stride, name, relu=True):
    x = layers.Conv2D(filters, kernel, stride, padding="same", name=name)(x)
    return ReLU6(name=f"{name}_relu")(x) if relu else x


def first_kept(fused: Sequence[int]) -> int:
    """First of MobileNetV2's blocks that fused ones leave: 2 after one of them, 4 after three."""
    return {0: 0, 1: 2, 3: 4}[len(fused)]


def fused_front(image, stem: int, widths: Sequence[int], outputs: Sequence[int]) -> list:
    """Stem and fused inverted residuals: what takes the place of blocks 0..1 or 0..3.

    Early on, maps are large and channels few: there the depthwise convolutions of the expanded
    channels move far more data than they compute. A fused block (Tan & Le 2021, EfficientNetV2)
    expands with a dense 3x3 convolution instead. On large maps it is both fewer multiplications
    and faster.

    Parameters
    ----------
    image : Keras input (B, H, W, 3)
    stem : int
        Channels of the first convolution, at stride 2.
    widths : sequence of int
        Expanded channels of the fused blocks 1, 2 and 3, at strides 4, 4 and 8, or of the first
        alone; 0 leaves the second out.
    outputs : sequence of int
        Channels that they end with.

    Returns
    -------
    list of tensors
        What each of them ends with.
    """
    x = _conv(image, stem, 3, 2, "Conv1")
    ends = []
    for index, (wide, out, stride) in enumerate(zip(widths, outputs, (2, 1, 2), strict=False), 1):
        if not wide:
            ends.append(x)
            continue
        y = _conv(x, wide, 3, stride, f"fused_{index}_expand")
        y = _conv(y, out, 1, 1, f"fused_{index}_project", relu=False)
        if stride == 1:
            y = layers.Add(name=f"fused_{index}_add")([x, y])
        x = y
        ends.append(x)
    return ends


def mobilenet_v2(
    image,
    alpha: float = 1.0,
    last_block: int = 15,
    stem: int = 0,
    expansions: Sequence[int] = (),
    fused: Sequence[int] = (),
) -> dict[str, keras.KerasTensor]:
    """Apply the trunk to ``image`` (B, H, W, 3) in [-1, 1).

    Parameters
    ----------
    image : Keras input
    alpha : float
        Width multiplier.
    last_block : int
        13 to 16.
    stem : int
        Channels of the first convolution; 0 takes MobileNetV2's.
    expansions : sequence of int
        Expanded channels of blocks 1..``last_block``, as pruning chose them; empty takes
        MobileNetV2's six times the block's input.
    fused : sequence of int
        Expanded channels of three fused blocks in the place of blocks 0..3, or of one in the
        place of blocks 0 and 1, see :func:`fused_front`; empty keeps MobileNetV2's blocks.

    Returns
    -------
    dict
        Feature maps ``c2`` (stride 4), ``c3`` (8), ``c4`` (16), ``c5`` (32). c3
        and c4 are the wide expansions inside the stride-2 blocks, as in SSDLite.
    """
    stem = stem or _round_channels(32 * alpha)
    features = {}
    if fused:
        outputs = [_round_channels(base * alpha) for _, base, _ in BLOCKS[1:4]]
        ends = fused_front(image, stem, fused, outputs)
        x = ends[-1]
        if len(ends) > 1:
            features["c2"] = ends[1]
    else:
        x = _conv(image, stem, 3, 2, "Conv1")
    channels = x.shape[-1]
    for index, (expansion, base, stride) in enumerate(BLOCKS[: last_block + 1]):
        if index < first_kept(fused):
            continue
        prefix = f"block_{index}" if index else "expanded_conv"
        out = _round_channels(base * alpha)
        skip = x
        if expansion != 1:
            wide = expansions[index - 1] if expansions else channels * expansion
            x = _conv(x, wide, 1, 1, f"{prefix}_expand")
            if index == 6:
                features["c3"] = x
            if index == 13:
                features["c4"] = x
        x = layers.DepthwiseConv2D(3, stride, padding="same", name=f"{prefix}_depthwise")(x)
        x = ReLU6(name=f"{prefix}_depthwise_relu")(x)
        x = _conv(x, out, 1, 1, f"{prefix}_project", relu=False)
        if stride == 1 and channels == out:
            x = layers.Add(name=f"{prefix}_add")([skip, x])
        if index == 2:
            features["c2"] = x
        channels = out
    features["c5"] = x
    return features


def fold_batch_norm(
    kernel: np.ndarray, stats: Mapping[str, np.ndarray], depthwise: bool, epsilon: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """Fold BatchNorm into the preceding bias-free convolution.

    Parameters
    ----------
    kernel : (kh, kw, cin, cout) or, depthwise, (kh, kw, c, 1)
    stats : mapping with gamma, beta, moving_mean, moving_variance, each (cout,)

    Returns
    -------
    kernel, bias : float32 arrays of the convolution that does both at once.
    """
    factor = stats["gamma"] / np.sqrt(stats["moving_variance"] + epsilon)
    shape = (1, 1, -1, 1) if depthwise else (1, 1, 1, -1)
    folded = kernel * factor.reshape(shape)
    bias = stats["beta"] - stats["moving_mean"] * factor
    return folded.astype(np.float32), bias.astype(np.float32)


def load_initial_weights(model: keras.Model, path: str | Path) -> list[str]:
    """Copy tf.keras MobileNetV2 weights (npz, keys ``layer/weight``) into the trunk.

    Parameters
    ----------
    model : keras.Model
        Any model that contains the layers of :func:`mobilenet_v2`.
    path : path
        npz with ``Conv1/kernel``, ``bn_Conv1/gamma`` … as saved from
        ``keras.applications.MobileNetV2(include_top=False)``.

    Returns
    -------
    list of str
        Names of the layers that were filled.

    Raises
    ------
    ValueError
        If a trunk layer has no weights in the file or the shapes differ.
    """
    try:
        weights = np.load(path)
        weights.files  # noqa: B018  # an .npy has none
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or "no .npz of NumPy"
        raise ValueError(
            f"{path} cannot be read ({reason}): give an .npz with the weights of Keras' "
            "MobileNetV2; docs/own-data.md says how to write one"
        ) from error
    filled = []
    for layer in model.layers:
        if not isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            continue
        if layer.name != "Conv1" and not layer.name.startswith(("expanded_conv_", "block_")):
            continue
        norm = "bn_Conv1" if layer.name == "Conv1" else f"{layer.name}_BN"
        try:
            kernel = weights[f"{layer.name}/kernel"]
            stats = {
                k: weights[f"{norm}/{k}"]
                for k in ("gamma", "beta", "moving_mean", "moving_variance")
            }
        except KeyError as error:
            raise ValueError(f"{path} has no {error.args[0]}: not MobileNetV2 weights?") from error
        depthwise = isinstance(layer, layers.DepthwiseConv2D)
        kernel, bias = fold_batch_norm(kernel, stats, depthwise)
        if kernel.shape != tuple(layer.kernel.shape):
            raise ValueError(
                f"{path}: {layer.name} has shape {kernel.shape}, the model needs "
                f"{tuple(layer.kernel.shape)} (another alpha?)"
            )
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)
        filled.append(layer.name)
    return filled


def trunk_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Layers of ``model`` that belong to the trunk, of either kind, and have weights."""
    prefixes = ("Conv1", "expanded_conv_", "block_", "fused_")
    return [lyr for lyr in model.layers if lyr.weights and lyr.name.startswith(prefixes)]


def freeze(model: keras.Model, blocks: int) -> None:
    """Stop training the stem and blocks 0..``blocks`` (-1: train everything)."""
    if blocks < 0:
        return
    names = ["Conv1", "expanded_conv_"]
    names += [f"{kind}_{i}_" for i in range(blocks + 1) for kind in ("block", "fused")]
    for layer in trunk_layers(model):
        if layer.name.startswith(tuple(names)):
            layer.trainable = False
