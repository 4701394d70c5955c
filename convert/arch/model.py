"""The student: three Keras models that become the three TFLite stages."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from ..config import ModelConfig
from . import backbone as trunk
from .heads import box_head, mask_head
from .neck import fpn, rpn

RPN_LEVELS = ("3", "4", "5", "6")
RPN_STRIDES = (8, 16, 32, 64)
FEATURE_STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}


@dataclass
class MaskRCNN:
    """The three stages of one network.

    Attributes
    ----------
    first_stage : keras.Model
        ``image`` (B, H, W, 3) float32 in [-1, 1), H and W multiples of 32 →
        dict of pyramid levels ``p2``…``p5`` and RPN outputs (see :func:`neck.rpn`).
    box_head, mask_head : keras.Model
        See :mod:`.heads`.
    """

    config: ModelConfig
    first_stage: keras.Model
    box_head: keras.Model
    mask_head: keras.Model

    @property
    def stages(self) -> dict[str, keras.Model]:
        """Stage name → model, named as in the model pack."""
        return {
            "backbone": self.first_stage,
            "box_head": self.box_head,
            "mask_head": self.mask_head,
        }

    @property
    def anchor_sizes(self) -> tuple[float, ...]:
        """Anchor side per RPN level in pixels of the network input."""
        return tuple(self.config.rpn.anchor_scale * stride for stride in RPN_STRIDES)

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
    features = trunk.mobilenet_v2(image, config.backbone.alpha, config.backbone.last_block)
    pyramid = fpn(features, config.neck.channels)
    outputs = pyramid | rpn(pyramid, config.rpn.convs, len(config.rpn.anchor_ratios))
    first = keras.Model(image, outputs, name="first_stage")
    trunk.freeze(first, config.backbone.frozen_blocks)
    classes = len(config.classes)
    box, mask = config.box_head, config.mask_head
    return MaskRCNN(
        config,
        first,
        box_head(box.output_size, config.neck.channels, box.width, classes),
        mask_head(
            mask.output_size, config.neck.channels, mask.blocks, mask.kernel, mask.up_channels,
            1 if mask.class_agnostic else classes,
        ),
    )  # fmt: skip
