"""MaskRCNN2Go's weights for the network of :mod:`..arch.maskrcnn2go`.

The files ``model.pb`` and ``model_init.pb`` are those that :mod:`.maskrcnn2go` reads. What
differs between Detectron's conventions and this project's goes into the weights and anchors:

- The input is BGR from 0 to 255 there, RGB as (x - 128) / 128 here: folded into the first kernel.
- Cell i looks at pixel 16 i there, at 16 i + 7 here (see :mod:`..arch.maskrcnn2go`); RoIAlign
  shifts by half a cell here and not there. Both together cancel but for a pixel. Anchors move
  along.
- The background's masks and deltas are never read: dropped. Its logit is the softmax's first.
- The last transposed convolution only interpolates: a kernel of 81 x 81 channels with zeros in all
  places but the diagonal, 15 MMAC a region. A resize does that.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from ..arch import MaskRCNN, build_model
from ..config import BackboneConfig, BoxHeadConfig, Config, MaskHeadConfig, ModelConfig, RPNConfig
from .caffe2 import Caffe2Error, Net, load_net
from .coco import COCO_CATEGORIES

TRUNK = ["xif0_0", *(f"xif{s}_{i}" for s, n in ((1, 2), (2, 3), (3, 7)) for i in range(n))]
BLOCKS = {f"block_{i}": name for i, name in enumerate(TRUNK)}
BLOCKS |= {f"rpn_block_{i}": f"[rpn]xif3_{4 + i}" for i in range(3)}
BLOCKS |= {f"box_block_{i}": f"_[bbox]_xif4_{i}" for i in range(4)}
BLOCKS |= {f"mask_block_{i}": f"_[mask]_xif4_{i}" for i in range(4)}
OTHERS = {
    "Conv1": ("conv0_conv", "conv0_bn"),
    "rpn_logits": ("rpn_cls_logits", "rpn_cls_logits"),
    "rpn_deltas": ("rpn_bbox_pred", "rpn_bbox_pred"),
    "box_last": ("_[bbox]_xif4_3_bn_1x1_conv", "_[bbox]_xif4_3_bn_1x1_bn"),
    "box_logits": ("cls_score", "cls_score"),
    "box_deltas": ("bbox_pred", "bbox_pred"),
    "mask_up": ("conv5_mask", "conv5_mask"),
    "mask_logits": ("mask_fcn_logits", "mask_fcn_logits"),
}
"""Layer to the caffe2 names of its kernel and of its bias."""
BILINEAR = np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25])


def import_maskrcnn2go(folder: str | Path) -> MaskRCNN:
    """Read ``model.pb`` and ``model_init.pb`` of a folder as a network.

    Raises
    ------
    Caffe2Error
        A file is missing or damaged, or holds another network.
    """
    net = load_net(Path(folder) / "model.pb", Path(folder) / "model_init.pb")
    missing = sorted({"anchor", "mask_fcn_logits_up_w_int8"} - set(net.weights))
    if missing:
        raise Caffe2Error(f"{folder} has no tensor {missing[0]}: not the network MaskRCNN2Go")
    model = build_model(unpruned_config(net.weights["anchor"]).model)
    _check_interpolation(net)
    for stage in model.stages.values():
        for layer in stage.layers:
            if layer.weights:
                _fill(layer, net, folder)
    return model


def unpruned_config(anchors: NDArray[np.float32]) -> Config:
    """The configuration of the network as Facebook trained it.

    Parameters
    ----------
    anchors : (A, 4)
        As the caffe2 file has them: corner pixels, both included, from the pixel that the first
        cell looks at.
    """
    moved = np.array([-1, -1, 0, 0])  # pixel 7 is not the middle, 8; and half-open: 1 more
    boxes = anchors.astype(np.float64) + moved
    head = {"features": ["c4"], "level_thresholds": [], "output_size": 6}
    return Config(
        ModelConfig(
            name="coco80",
            classes=list(COCO_CATEGORIES),
            backbone=BackboneConfig(kind="maskrcnn2go"),
            rpn=RPNConfig(anchor_boxes=boxes.round(3).tolist(), pre_nms=1000, post_nms=50),
            box_head=BoxHeadConfig(activation="softmax", class_agnostic=False, **head),
            mask_head=MaskHeadConfig(class_agnostic=False, **head),
        )
    )


def _check_interpolation(net: Net) -> None:
    """Raise unless the last transposed convolution is bilinear, as the graph here assumes."""
    kernel = net.weights["mask_fcn_logits_up_w_int8"]
    wanted = np.zeros_like(kernel)
    index = np.arange(len(kernel))
    if kernel.shape[1:3] == (4, 4):
        wanted[index, :, :, index] = BILINEAR
    if np.abs(kernel - wanted).max() > 0.01:
        raise Caffe2Error("mask_fcn_logits_up is not a bilinear interpolation: another network")


def _fill(layer: keras.layers.Layer, net: Net, folder: str | Path) -> None:
    try:
        tensors = [net.weights[name] for name in _names(layer.name, net)]
    except KeyError as error:
        raise Caffe2Error(
            f"{folder} has no tensor {error.args[0]}: not the network MaskRCNN2Go"
        ) from error
    for weight, value in zip(layer.weights, _converted(layer.name, *tensors), strict=True):
        if value.shape != tuple(weight.shape):
            raise Caffe2Error(
                f"{folder}: {layer.name} has shape {value.shape} instead of "
                f"{tuple(weight.shape)}: not the network MaskRCNN2Go"
            )
        weight.assign(value)


def _names(layer: str, net: Net) -> list[str]:
    """caffe2's names of a layer's kernel and, but for depthwise convolutions, bias."""
    prefix, _, part = layer.rpartition("_")
    if layer in OTHERS:
        kernel, bias = OTHERS[layer]
    elif part == "depthwise":
        return [f"{BLOCKS[prefix]}_dw_conv_w_int8"]
    elif part == "expand":
        kernel, bias = f"{BLOCKS[prefix]}_pw_conv", f"{BLOCKS[prefix]}_pw_bn"
    else:
        start = f"{BLOCKS[prefix]}_pwl"  # so called where a sum follows
        if f"{start}_conv_w_int8" not in net.weights:
            start = BLOCKS[prefix]
        kernel, bias = f"{start}_conv", f"{start}_bn"
    return [f"{kernel}_w_int8", f"{bias}_b_int8"]


def _converted(layer: str, kernel: NDArray, bias: NDArray | None = None) -> tuple[NDArray, ...]:
    """Keras' layout of (out, kh, kw, in) or (out, in), without the background's columns."""
    if bias is None:
        return (kernel.transpose(1, 2, 0, 3),)
    if layer == "mask_up":  # (in, 2, 2, out): a pointwise convolution for depth-to-space
        return kernel.reshape(1, 1, len(kernel), -1), np.tile(bias, 4)
    if layer == "box_deltas":
        kernel, bias = kernel[4:], bias[4:]
    if layer == "mask_logits":
        kernel, bias = kernel[1:], bias[1:]
    kernel = np.moveaxis(kernel, 0, -1)
    if layer == "Conv1":  # BGR x → RGB 128 u + 128
        kernel = kernel[:, :, ::-1] * 128
        bias = bias + kernel.sum((0, 1, 2))
    return kernel, bias
