"""The student: a Keras model for each TFLite stage."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import keras

from edgemask.keypoints import NAMES

from ..config import ModelConfig
from . import backbone as trunk
from . import maskrcnn2go
from .heads import box_head, box_outputs, keypoint_head, mask_head
from .layout import FEATURE_STRIDES, RPN_LEVELS, RPN_STRIDES, Layout, anchors_per_cell, layout
from .neck import fpn, rpn

__all__ = ["FEATURE_STRIDES", "RPN_LEVELS", "RPN_STRIDES", "MaskRCNN", "build_model"]


@dataclass
class MaskRCNN:
    """The stages of one network.

    Attributes
    ----------
    first_stage : keras.Model
        ``image`` (B, H, W, 3) float32 in [-1, 1) → dict of feature maps and RPN outputs
        (see :func:`neck.rpn`); their names are in :attr:`layout`.
    box_head, mask_head : keras.Model
        See :mod:`.heads`.
    keypoint_head : keras.Model or None
        None where ``config.keypoint_head.blocks`` is 0.
    """

    config: ModelConfig
    first_stage: keras.Model
    box_head: keras.Model
    mask_head: keras.Model
    keypoint_head: keras.Model | None = None

    @property
    def stages(self) -> dict[str, keras.Model]:
        """Stage name → model, named as in the model pack."""
        stages = {
            "backbone": self.first_stage,
            "box_head": self.box_head,
            "mask_head": self.mask_head,
        }
        return stages | ({"keypoint_head": self.keypoint_head} if self.keypoint_head else {})

    @property
    def layout(self) -> Layout:
        """Names and strides of the maps between the stages."""
        return layout(self.config)

    def without_keypoints(self) -> MaskRCNN:
        """The same network, weights shared, without its keypoint head."""
        config = copy.deepcopy(self.config)
        config.keypoint_head.blocks = 0
        return dataclasses.replace(self, config=config, keypoint_head=None)

    def named_weights(self) -> dict[str, keras.Variable]:
        """All weights, keyed ``stage/layer/weight``; the key is stable across runs."""
        named = {}
        for stage, model in self.stages.items():
            for layer in model.layers:
                for weight in layer.weights:
                    named[f"{stage}/{layer.name}/{weight.name}"] = weight
        return named


def build_model(config: ModelConfig) -> MaskRCNN:
    """Build the untrained network that ``config`` describes."""
    image = keras.Input((None, None, 3), name="image")
    if config.backbone.kind == "maskrcnn2go":
        return _build_maskrcnn2go(config, image)
    trunk_shape = config.backbone
    features = trunk.mobilenet_v2(
        image, trunk_shape.alpha, trunk_shape.last_block, trunk_shape.stem, trunk_shape.expansions,
        trunk_shape.fused,
    )  # fmt: skip
    pyramid = fpn(features, config.neck.channels)
    outputs = pyramid | rpn(pyramid, config.rpn.convs, anchors_per_cell(config))
    first = keras.Model(image, outputs, name="first_stage")
    trunk.freeze(first, config.backbone.frozen_blocks)
    classes = len(config.classes)
    box, mask, points = config.box_head, config.mask_head, config.keypoint_head
    return MaskRCNN(
        config,
        first,
        box_head(box.output_size, config.neck.channels, box.width, *box_outputs(config)),
        mask_head(
            mask.output_size, config.neck.channels, mask.blocks, mask.kernel, mask.up_channels,
            1 if mask.class_agnostic else classes, mask.context,
        ),
        keypoint_head(
            points.output_size, config.neck.channels, points.width, points.blocks, points.kernel,
            points.up_channels, len(NAMES), points.context,
        )
        if points.blocks
        else None,
    )  # fmt: skip


def _build_maskrcnn2go(config: ModelConfig, image) -> MaskRCNN:
    box, mask = config.box_head, config.mask_head
    outputs = maskrcnn2go.first_stage(
        image, config.backbone.expansions, config.rpn.expansions, anchors_per_cell(config)
    )
    first = keras.Model(image, outputs, name="first_stage")
    trunk.freeze(first, config.backbone.frozen_blocks)
    masks = 1 if mask.class_agnostic else len(config.classes)
    return MaskRCNN(
        config,
        first,
        maskrcnn2go.box_head(box.output_size, box.expansions, *box_outputs(config)),
        maskrcnn2go.mask_head(mask.output_size, mask.expansions, masks),
    )
