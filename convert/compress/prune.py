"""Narrower networks out of trained ones: structured pruning of channels.

A channel of a MobileNetV2 expansion, of the pyramid or of a head is worth what the layers that
read it get from it: the variance of its activation times the squared weights that read it
(after Luo et al. 2017, ThiNet, and Molchanov et al. 2017, without their greedy or gradient
parts). The channels worth least per multiply-accumulate go; the mean of what goes is added to
the bias of the layer that read it. What remains is a start for training and no result: after deep
cuts it finds nothing by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from ..arch.backbone import first_kept
from ..arch.model import MaskRCNN
from ..config import ModelConfig

STEP = 8  # channels that live or die together: XNNPACK works in eights
Statistics = dict[str, tuple[np.ndarray, np.ndarray]]  # group → mean and variance per channel


class PruneError(ValueError):
    """The wanted network is not a narrower version of the given one."""


@dataclass(frozen=True)
class Axes:
    """Which group of channels a layer reads and which it writes; None is never pruned."""

    reads: str | None
    writes: str | None


def layer_axes(name: str) -> Axes | None:
    """The channel groups of a layer with weights; None for layers that this does not know.

    Groups: ``stem``, ``block_1``… (expanded channels), ``neck``, ``rpn0``…, ``box_fc1``,
    ``box_fc2``, ``mask_up``, ``mask_refine``.
    """
    name = name.removesuffix("_bn")
    fixed = {
        "Conv1": Axes(None, "stem"),
        "expanded_conv_depthwise": Axes("stem", "stem"),
        "expanded_conv_project": Axes("stem", None),
        "fpn_lateral2": Axes(None, "neck"),
        "fpn_lateral3": Axes("block_6", "neck"),
        "fpn_lateral4": Axes("block_13", "neck"),
        "fpn_lateral5": Axes(None, "neck"),
        "fpn_smooth2": Axes("neck", "neck"),
        "box_fc1": Axes("neck", "box_fc1"),
        "box_fc2": Axes("box_fc1", "box_fc2"),
        "box_logits": Axes("box_fc2", None),
        "box_deltas": Axes("box_fc2", None),
        "mask_up": Axes("neck", "mask_up"),
        "mask_refine_dw": Axes("mask_up", "mask_up"),
        "mask_refine_pw": Axes("mask_up", "mask_refine"),
        "mask_logits": Axes("mask_refine", None),
    }
    if name in fixed:
        return fixed[name]
    if found := re.fullmatch(r"(block_\d+)_(expand|depthwise|project)", name):
        group, part = found.groups()
        return Axes(None if part == "expand" else group, None if part == "project" else group)
    if re.fullmatch(r"(fpn_smooth\d|mask_block\d+)_(dw|pw)", name):
        return Axes("neck", "neck")
    if found := re.fullmatch(r"rpn_conv(\d+)_(dw|pw|bn\d)", name):
        index, part = int(found[1]), found[2]
        before = f"rpn{index - 1}" if index else "neck"
        return Axes(before, before if part == "dw" else f"rpn{index}")
    if name in ("rpn_logits", "rpn_deltas"):
        return Axes("rpn-last", None)
    return None


def _known_axes(model: MaskRCNN, layer: str) -> Axes | None:
    """As :func:`layer_axes`; None also for the stem in front of fused blocks."""
    axes = layer_axes(layer)
    if axes is None or (layer == "Conv1" and model.config.backbone.fused):
        return None
    last = f"rpn{model.config.rpn.convs - 1}" if model.config.rpn.convs else "neck"
    return Axes(last if axes.reads == "rpn-last" else axes.reads, axes.writes)


def _weighted_layers(model: MaskRCNN) -> list[keras.layers.Layer]:
    return [layer for stage in model.stages.values() for layer in stage.layers if layer.weights]


def group_sizes(model: MaskRCNN) -> dict[str, int]:
    """Number of channels of each group of a network."""
    sizes: dict[str, int] = {}
    for layer in _weighted_layers(model):
        axes = _known_axes(model, layer.name)
        writes = axes and axes.writes
        if writes is not None and not isinstance(layer, keras.layers.DepthwiseConv2D):
            channels = int(layer.weights[0].shape[-1])
            sizes[writes] = channels // 4 if layer.name == "mask_up" else channels
    return sizes


def measure_channels(model: MaskRCNN, images: Iterable[np.ndarray]) -> Statistics:
    """Mean and variance per channel of what the trunk's projections and laterals read.

    Parameters
    ----------
    model : MaskRCNN
    images : iterable of (1, H, W, 3) float32, as :func:`..export.quantize.image_samples` gives them

    Returns
    -------
    dict
        ``stem``, ``block_N`` (after the depthwise) and ``block_6/expand``, ``block_13/expand``
        (before it, where the pyramid reads) → mean (C,), variance (C,).
    """
    first = model.first_stage
    outputs, backbone = {}, model.config.backbone
    if not backbone.fused:
        outputs["stem"] = first.get_layer("expanded_conv_depthwise_relu").output
    for index in range(max(first_kept(backbone.fused), 1), backbone.last_block + 1):
        outputs[f"block_{index}"] = first.get_layer(f"block_{index}_depthwise_relu").output
    for index in (6, 13):
        outputs[f"block_{index}/expand"] = first.get_layer(f"block_{index}_expand_relu").output
    probe = keras.Model(first.input, outputs)
    sums: dict[str, np.ndarray] = {}
    count = 0
    for image in images:
        count += 1
        for name, value in probe(image, training=False).items():
            x = np.asarray(value).reshape(-1, value.shape[-1])
            moments = np.stack([x.mean(0), np.square(x).mean(0)])
            sums[name] = sums.get(name, 0) + moments
    if not count:
        raise PruneError("no image to measure the channels on")
    return {
        name: (mean / count, np.maximum(square / count - np.square(mean / count), 0))
        for name, (mean, square) in sums.items()
    }


def channel_energies(model: MaskRCNN, statistics: Statistics) -> dict[str, np.ndarray]:
    """How much of its readers' variance each channel of each group gives, (C,) summing to 1.

    Where no statistics were measured (pyramid and heads) the squared weights that read a
    channel stand for it.
    """
    energies: dict[str, np.ndarray] = {}
    for layer in _weighted_layers(model):
        axes = _known_axes(model, layer.name)
        reads = axes and axes.reads
        is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        if reads is None or is_depthwise or isinstance(layer, keras.layers.BatchNormalization):
            continue
        kernel = np.asarray(layer.kernel)
        squared = np.square(kernel.reshape(-1, kernel.shape[-1])).sum(1)
        if layer.name == "box_fc1":  # (S·S·C, units)
            squared = squared.reshape(-1, model.config.neck.channels).sum(0)
        lateral = layer.name.startswith("fpn_lateral")
        measured = statistics.get(f"{reads}/expand" if lateral else reads)
        if measured is not None:
            squared = squared * measured[1]
        share = squared / max(float(squared.sum()), 1e-12)
        # Every reader counts alike: a channel that one of them needs is needed.
        energies[reads] = energies.get(reads, 0) + share
    return {name: value / value.sum() for name, value in energies.items()}


def expansion_costs(config: ModelConfig, height: int, width: int) -> dict[str, float]:
    """Multiply-accumulates of one expanded channel of each block at an input size."""
    from ..arch.backbone import BLOCKS, _round_channels

    costs = {}
    stride, channels = 2, _round_channels(16 * config.backbone.alpha)
    for index, (_, base, step) in enumerate(BLOCKS[: config.backbone.last_block + 1]):
        out = _round_channels(base * config.backbone.alpha)
        if index:
            before = height * width / stride**2
            stride *= step
            after = height * width / stride**2
            costs[f"block_{index}"] = channels * before + (9 + out) * after
            if index in (6, 13):
                costs[f"block_{index}"] += config.neck.channels * before
        channels = out
    return costs


def narrow(
    wide: MaskRCNN,
    target: MaskRCNN,
    statistics: Statistics,
    given: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Fill ``target`` with the channels of ``wide`` that matter most.

    Parameters
    ----------
    wide, target : MaskRCNN
        ``target`` has no more channels in any group, and may have fewer mask blocks.
    statistics : dict
        From :func:`measure_channels` of ``wide``.
    given : dict, optional
        Groups whose channels are chosen already, to their positions.

    Returns
    -------
    chosen : dict of group to the positions, in the wide network, of the channels that were kept
    fresh : list of layers that stay as they were
        Those that the wide network has not got or that read what it has not got, or whose channels
        are not known and whose shape is another.

    Raises
    ------
    PruneError
        ``target`` is wider somewhere.
    """
    energies = channel_energies(wide, statistics)
    have, want = group_sizes(wide), group_sizes(target)
    chosen = dict(given or {})
    fresh = []
    for group, count in want.items():
        if group in chosen or group not in have:
            continue
        if count > have[group]:
            raise PruneError(f"{group} has {count} channels, the wide network {have[group]}")
        order = np.argsort(-energies[group], kind="stable")[:count]
        chosen[group] = np.sort(order)
    source = {layer.name: layer for layer in _weighted_layers(wide)}
    for layer in _weighted_layers(target):
        axes = _known_axes(target, layer.name)
        if layer.name not in source or (axes and axes.reads and axes.reads not in have):
            fresh.append(layer.name)
        elif axes is not None:
            _copy(source[layer.name], layer, axes, chosen, have)
        elif all(a.shape == b.shape for a, b in zip(source[layer.name].weights, layer.weights,
                                                   strict=True)):  # fmt: skip
            layer.set_weights(source[layer.name].get_weights())
        else:
            fresh.append(layer.name)
    _compensate(source, target, chosen, statistics)
    return chosen, fresh


def _indices(layer: str, group: str, reads: bool, chosen, have, length: int) -> np.ndarray:
    """Positions along a weight's axis that belong to the chosen channels of a group."""
    index = chosen[group]
    if layer == "mask_up" and not reads:  # depth-to-space: four blocks of channels
        return np.concatenate([index + part * have[group] for part in range(4)])
    if layer == "box_fc1" and reads:  # flattened RoI: the channels repeat
        cells = length // have[group]
        return (np.arange(cells)[:, None] * have[group] + index).ravel()
    return index


def _copy(source, layer, axes: Axes, chosen, have) -> None:
    for old, new in zip(source.weights, layer.weights, strict=True):
        value = np.asarray(old)
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        if value.ndim == 4 and depthwise:
            index = _indices(layer.name, axes.writes, False, chosen, have, value.shape[2])
            value = value[:, :, index]
        else:
            if value.ndim > 1 and axes.reads is not None:
                index = _indices(layer.name, axes.reads, True, chosen, have, value.shape[-2])
                value = np.take(value, index, axis=-2)
            if axes.writes is not None:
                index = _indices(layer.name, axes.writes, False, chosen, have, value.shape[-1])
                value = np.take(value, index, axis=-1)
        if value.shape != tuple(new.shape):
            raise PruneError(f"{layer.name}: {value.shape} does not fit {tuple(new.shape)}")
        new.assign(value)


def _compensate(source, target: MaskRCNN, chosen, statistics: Statistics) -> None:
    """Add the mean of what the removed channels gave to the bias of their reader."""
    layers = {layer.name: layer for layer in _weighted_layers(target)}
    for name, layer in layers.items():
        axes = _known_axes(target, name)
        if axes is None or name not in source:
            continue
        lateral = name.startswith("fpn_lateral")
        key = f"{axes.reads}/expand" if lateral else axes.reads
        pointwise = isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
        if not pointwise or isinstance(layer, keras.layers.DepthwiseConv2D):
            continue
        if key not in statistics:
            continue
        kernel = np.asarray(source[name].kernel)[0, 0]
        removed = np.setdiff1d(np.arange(len(kernel)), chosen[axes.reads])
        lost = statistics[key][0][removed] @ kernel[removed]
        if axes.writes is not None:
            lost = lost[chosen[axes.writes]]
        if lateral:  # no bias of its own: its BatchNorm subtracts a mean
            norm = layers[f"{name}_bn"]
            norm.moving_mean.assign(np.asarray(norm.moving_mean) - lost)
        else:
            layer.bias.assign(np.asarray(layer.bias) + lost)
