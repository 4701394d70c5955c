"""What follows from the kind of trunk: the names and strides of the maps that the heads read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemask.anchors import given_anchors, pyramid_anchors

from ..config import ModelConfig
from .maskrcnn2go import CHANNELS

RPN_LEVELS = ("3", "4", "5", "6")
RPN_STRIDES = (8, 16, 32, 64)
FEATURE_STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}


@dataclass(frozen=True)
class Layout:
    """Maps between the stages of a network.

    Attributes
    ----------
    features : dict of str to int
        Maps that RoIAlign may read, with their strides.
    channels : int
        Of each of those.
    rpn_levels, rpn_strides : tuple
        Suffixes of the RPN's outputs, and pixels per cell.
    input_stride : int
        Height and width of the input are multiples of it.
    mask_scale : int
        Cells of a mask per RoI cell, along each axis.
    clamped : bool
        Whether all features end in a ReLU6.
    """

    features: dict[str, int]
    channels: int
    rpn_levels: tuple[str, ...]
    rpn_strides: tuple[int, ...]
    input_stride: int
    mask_scale: int
    clamped: bool


def layout(config: ModelConfig) -> Layout:
    """The layout of the network that `config` describes."""
    if config.backbone.kind == "maskrcnn2go":
        return Layout({"c4": 16}, CHANNELS, ("4",), (16,), 16, 4, False)
    return Layout(FEATURE_STRIDES, config.neck.channels, RPN_LEVELS, RPN_STRIDES, 32, 2, True)


def anchors_per_cell(config: ModelConfig) -> int:
    """Number of anchors of each cell of each level."""
    return len(config.rpn.anchor_boxes) or len(config.rpn.anchor_ratios)


def network_anchors(config: ModelConfig, shapes: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """All anchors (A, 4) of levels of these shapes, in pixels of the network's input."""
    strides, rpn = layout(config).rpn_strides, config.rpn
    if rpn.anchor_boxes:
        return given_anchors(shapes[0], strides[0], rpn.anchor_boxes)
    sizes = [rpn.anchor_scale * stride for stride in strides]
    return pyramid_anchors(shapes, strides, sizes, rpn.anchor_ratios)
