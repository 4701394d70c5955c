"""The part of ``model.json`` that follows from the model's configuration."""

from __future__ import annotations

from typing import Any

from .arch.model import FEATURE_STRIDES, RPN_LEVELS, RPN_STRIDES
from .config import ModelConfig


def build_manifest(config: ModelConfig, classes: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that :class:`edgemask.pipeline.Pipeline` reads, without stages and metrics.

    Parameters
    ----------
    config : ModelConfig
    classes : list of ``{"id": int, "name": str}`` in the order of the network's columns
    """
    box, mask, rpn = config.box_head, config.mask_head, config.rpn
    return {
        "schema": 1,
        "name": config.name,
        "input": {
            "layout": "NHWC", "color": "RGB", "mean": 128.0, "std": 128.0,
            "short_side": config.short_side, "max_aspect": config.max_aspect, "stride": 32,
        },
        "classes": classes,
        "rpn": {
            "levels": list(RPN_LEVELS),
            "strides": list(RPN_STRIDES),
            "anchor_sizes": [rpn.anchor_scale * stride for stride in RPN_STRIDES],
            "anchor_ratios": list(rpn.anchor_ratios),
            "box_weights": [1.0, 1.0, 1.0, 1.0],
            "pre_nms": rpn.pre_nms, "post_nms": rpn.post_nms, "nms_threshold": rpn.nms_threshold,
        },
        "roi": {
            "features": list(FEATURE_STRIDES),
            "strides": list(FEATURE_STRIDES.values()),
            "box": {
                "output_size": box.output_size, "sampling_ratio": box.sampling_ratio,
                "features": list(box.features), "level_thresholds": list(box.level_thresholds),
            },
            "mask": {
                "output_size": mask.output_size, "sampling_ratio": mask.sampling_ratio,
                "features": list(mask.features), "level_thresholds": list(mask.level_thresholds),
            },
        },
        "detections": {
            "box_weights": list(box.box_weights), "nms_threshold": box.nms_threshold,
        },
        "mask": {
            "size": 2 * mask.output_size, "class_agnostic": mask.class_agnostic,
            "threshold": mask.threshold, "rescore": True,
        },
    }  # fmt: skip
