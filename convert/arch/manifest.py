"""The part of ``model.json`` that follows from the model's configuration."""

from __future__ import annotations

from typing import Any

from edgemask.keypoints import NAMES, SKELETON

from ..config import BoxHeadConfig, KeypointHeadConfig, MaskHeadConfig, ModelConfig
from .layout import layout


def build_manifest(config: ModelConfig, classes: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that :class:`edgemask.pipeline.Pipeline` reads, without stages and metrics.

    Parameters
    ----------
    config : ModelConfig
    classes : list of ``{"id": int, "name": str}`` in the order of the network's columns
    """
    box, mask, rpn = config.box_head, config.mask_head, config.rpn
    maps = layout(config)
    anchors: dict[str, Any] = {"anchor_boxes": [list(map(float, b)) for b in rpn.anchor_boxes]}
    if not rpn.anchor_boxes:
        anchors = {
            "anchor_sizes": [rpn.anchor_scale * stride for stride in maps.rpn_strides],
            "anchor_ratios": list(rpn.anchor_ratios),
        }
    manifest: dict[str, Any] = {
        "schema": 1,
        "name": config.name,
        "input": {
            "layout": "NHWC", "color": "RGB", "mean": 128.0, "std": 128.0,
            "short_side": config.short_side, "max_aspect": config.max_aspect,
            "stride": maps.input_stride,
        },
        "classes": classes,
        "rpn": {
            "levels": list(maps.rpn_levels),
            "strides": list(maps.rpn_strides),
            **anchors,
            "box_weights": [1.0, 1.0, 1.0, 1.0],
            "pre_nms": rpn.pre_nms, "post_nms": rpn.post_nms, "nms_threshold": rpn.nms_threshold,
        },
        "roi": {
            "features": list(maps.features),
            "strides": list(maps.features.values()),
            "box": _pooler(box),
            "mask": _pooler(mask),
        },
        "detections": {
            "box_weights": list(box.box_weights), "nms_threshold": box.nms_threshold,
        },
        "mask": {
            "size": maps.mask_scale * mask.output_size, "class_agnostic": mask.class_agnostic,
            "threshold": mask.threshold, "rescore": True,
        },
    }  # fmt: skip
    if config.resize != "averaged":
        manifest["input"]["resize"] = config.resize
    if rpn.score_threshold:
        manifest["rpn"]["score_threshold"] = rpn.score_threshold
    if mask.soft_nms_threshold < 1:
        manifest["mask"]["soft_nms_threshold"] = mask.soft_nms_threshold
    if box.activation != "sigmoid":
        manifest["detections"]["activation"] = box.activation
    if not box.class_agnostic:
        manifest["detections"]["class_agnostic"] = False
    points = config.keypoint_head
    if points.blocks:
        manifest["roi"]["keypoint"] = _pooler(points)
        manifest["keypoint"] = {
            "class_id": points.class_id,
            "size": 2 * points.output_size,
            "box_scale": points.box_scale,
            "names": list(NAMES),
            "skeleton": [list(pair) for pair in SKELETON],
        }
    return manifest


def _pooler(head: BoxHeadConfig | MaskHeadConfig | KeypointHeadConfig) -> dict[str, Any]:
    """How RoIAlign reads the pyramid for one head."""
    return {
        "output_size": head.output_size, "sampling_ratio": head.sampling_ratio,
        "features": list(head.features), "level_thresholds": list(head.level_thresholds),
    }  # fmt: skip
