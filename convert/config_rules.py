"""Rules between values of a configuration that are valid one by one."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING

from edgemask.manifest import SAFE_NAME

if TYPE_CHECKING:
    from .config import Config, ModelConfig

KINDS = {"mobilenet_v2": {"p2", "p3", "p4", "p5"}, "maskrcnn2go": {"c4"}}  # with their features
NAME_RULE = "must be letters, digits, '.', '_' and '-', the first a letter or a digit"
STAGES = ("backbone", "box_head", "mask_head", "keypoint_head")


def first_problem(config: Config) -> str | None:
    """What would only fail deep inside the network or after hours, or None."""
    model, train = config.model, config.train
    problems = {
        "augment.crop must be a multiple of 32, at least 32": (
            config.augment.crop % 32 != 0 or config.augment.crop < 32
        ),
        "augment.copy_paste must be 0 to 1": not 0 <= config.augment.copy_paste <= 1,
        "augment.rotate must be 0 to 180 degrees": not 0 <= config.augment.rotate <= 180,
        f"model.name {NAME_RULE}": not SAFE_NAME.match(model.name),
        "model.classes must be distinct ids, at least one": (
            not model.classes or len(set(model.classes)) != len(model.classes)
        ),
        "model.backbone.last_block must be 13 to 16": not 13 <= model.backbone.last_block <= 16,
        "model.backbone.kind must be mobilenet_v2 or maskrcnn2go": (
            model.backbone.kind not in KINDS
        ),
        "model.box_head.activation must be sigmoid or softmax": (
            model.box_head.activation not in ("sigmoid", "softmax")
        ),
        "model.rpn.anchor_boxes must be lists of x0, y0, x1, y1 with x0 < x1 and y0 < y1": not all(
            len(box) == 4 and box[0] < box[2] and box[1] < box[3] for box in model.rpn.anchor_boxes
        ),
        "model.resize must be averaged or bilinear": model.resize not in ("averaged", "bilinear"),
        "model.rpn.score_threshold must be 0 to 0.99": not 0 <= model.rpn.score_threshold <= 0.99,
        "model.mask_head.soft_nms_threshold must be 0 to 1, and not between 0.99 and 1": (
            not 0 <= model.mask_head.soft_nms_threshold <= 0.99
            and model.mask_head.soft_nms_threshold != 1
        ),
        "distill.zoom must be 1, 2 or 4": config.distill.zoom not in (1, 2, 4),
        "distill.zoom is only for model.backbone.kind = 'mobilenet_v2'": (
            config.distill.zoom > 1 and model.backbone.kind != "mobilenet_v2"
        ),
        "train.batch_size must be 1 or more": train.batch_size < 1,
        "train.epochs must be above 0, at most 1000000": not 0 < train.epochs <= 1_000_000,
        "train.eval_epochs must be above 0; to measure nothing, leave out --dev": (
            not train.eval_epochs > 0
        ),
        "train.only must name some of backbone, box_head, mask_head, keypoint_head, none twice": (
            not set(train.only) <= set(STAGES) or len(set(train.only)) != len(train.only)
        ),
        "model.keypoint_head.blocks must be 0 or more": model.keypoint_head.blocks < 0,
        "train.only has keypoint_head, but model.keypoint_head.blocks is 0": (
            "keypoint_head" in train.only and not model.keypoint_head.blocks
        ),
        "model.keypoint_head.class_id must be one of model.classes": (
            bool(model.keypoint_head.blocks) and model.keypoint_head.class_id not in model.classes
        ),
        "model.keypoint_head.box_scale must be 1 to 4": (
            not 1 <= model.keypoint_head.box_scale <= 4
        ),
        "train.keypoint_sigma must be 0 to 2 cells": not 0 <= train.keypoint_sigma <= 2,
        "train.keypoint_rois must be at most train.rois_per_image": (
            bool(model.keypoint_head.blocks) and train.keypoint_rois > train.rois_per_image
        ),
        "train.mask_rois must be at most train.rois_per_image": (
            train.mask_rois > train.rois_per_image
        ),
        "train.rois_per_image must be at most train.proposals": (
            train.rois_per_image > train.proposals
        ),
        "train.positive_rois must be at most train.rois_per_image": (
            train.positive_rois > train.rois_per_image
        ),
    }
    problems["train.quantization_aware is only for model.backbone.kind = 'mobilenet_v2'"] = (
        train.quantization_aware and model.backbone.kind != "mobilenet_v2"
    )
    problems |= _network_problems(model)
    problems |= _range_problems(config)
    maps = KINDS.get(model.backbone.kind, set())
    heads = STAGES[1:3] if model.backbone.kind == "maskrcnn2go" else STAGES[1:]
    for name in heads:
        head = getattr(model, name)
        known = set(head.features) <= maps
        problems[f"model.{name}.features must be some of {', '.join(sorted(maps))}"] = (
            not head.features or not known
        )
        problems[f"model.{name}.level_thresholds must have one entry fewer than its features"] = (
            len(head.level_thresholds) != len(head.features) - 1
        )
        problems[f"model.{name}.level_thresholds must be in ascending order"] = (
            head.level_thresholds != sorted(head.level_thresholds)
        )
        problems[f"model.{name}.features must not have a name twice"] = len(
            set(head.features)
        ) != len(head.features)
    problems["model.box_head.box_weights must be four positive numbers"] = (
        len(model.box_head.box_weights) != 4 or min(model.box_head.box_weights) <= 0
    )
    return next((problem for problem, found in problems.items() if found), None)


# Lowest and highest value, both included. Those of the model lie within what a manifest may say.
_TINY, _MOST = 1e-12, math.inf
_WEIGHT = (0, 1_000_000)  # of a loss; 0 leaves it out
_RANGES = {
    "augment.min_short_side": (32, 4096),
    "augment.max_short_side": (32, 4096),
    "augment.aspect_jitter": (0, 0.9),
    "augment.flip": (0, 1),
    "augment.color": (0, 1),
    "augment.plain_resize": (0, 1),
    "train.learning_rate": (_TINY, 1),
    "train.backbone_multiplier": (0, 1000),
    "train.weight_decay": (0, 1),
    "train.warmup_steps": (0, _MOST),
    "train.clip_norm": (_TINY, _MOST),
    "train.final_lr_fraction": (0, 1),
    "train.ema_decay": (0, 1),
    "train.seed": (0, 2**32 - 1),
    "train.positive_rois": (1, _MOST),
    "train.mask_rois": (1, _MOST),
    "train.keypoint_rois": (1, _MOST),
    "train.weight_rpn_class": _WEIGHT,
    "train.weight_rpn_box": _WEIGHT,
    "train.weight_class": _WEIGHT,
    "train.weight_box": _WEIGHT,
    "train.weight_mask": _WEIGHT,
    "train.weight_keypoint": _WEIGHT,
    "train.workers": (1, 256),
    "train.eval_images": (1, _MOST),
    "train.save_minutes": (0, _MOST),
    "distill.weight_feature": _WEIGHT,
    "distill.weight_rpn": _WEIGHT,
    "distill.weight_class": _WEIGHT,
    "distill.weight_box": _WEIGHT,
    "distill.weight_mask": _WEIGHT,
    "distill.weight_hint": _WEIGHT,
    "distill.hint_closeups": (0, _MOST),
    "model.short_side": (32, 4096),
    "model.max_aspect": (1, 100),
    "model.backbone.alpha": (_TINY, 4),
    "model.neck.channels": (1, 4096),
    "model.rpn.nms_threshold": (0, 1),
    "model.rpn.pre_nms": (1, 100_000),
    "model.rpn.post_nms": (1, 10_000),
    "model.box_head.nms_threshold": (0, 1),
    "model.box_head.sampling_ratio": (1, 8),
    "model.mask_head.sampling_ratio": (1, 8),
    "model.mask_head.threshold": (0.01, 0.99),
    "model.keypoint_head.sampling_ratio": (1, 8),
}


def _range_problems(config: Config) -> dict[str, bool]:
    """Rules on single numbers."""
    problems = {}
    for key, (low, high) in _RANGES.items():
        value = operator.attrgetter(key)(config)
        bounds = f"{low} to {high}" if high < _MOST else f"{low} or more"
        if low == _TINY:
            bounds = "above 0" + (f", at most {high}" if high < _MOST else "")
        problems[f"{key} must be {bounds}"] = not low <= value <= high
    problems["augment.min_short_side must be at most augment.max_short_side"] = (
        config.augment.min_short_side > config.augment.max_short_side
    )
    problems["model.classes must be ids from 0 to 2147483647"] = not all(
        0 <= n < 2**31 for n in config.model.classes
    )
    return problems


def _network_problems(model: ModelConfig) -> dict[str, bool]:
    """Rules that depend on the kind of the network."""
    parts = {
        "backbone": model.backbone.expansions,
        "rpn": model.rpn.expansions,
        "box_head": model.box_head.expansions,
        "mask_head": model.mask_head.expansions,
    }
    second = model.backbone.kind == "maskrcnn2go"
    trunk = "one of its 13 blocks" if second else "block 1..last_block"
    counts = {"backbone": (13 if second else model.backbone.last_block, trunk)}
    for name, blocks in (("rpn", 3), ("box_head", 4), ("mask_head", 4)):
        counts[name] = (blocks if second else 0, f"one of its {blocks} blocks, with maskrcnn2go")
    problems = {
        f"model.{name}.expansions must have one positive entry for each {what}": (
            len(parts[name]) not in (0, count) or min(parts[name], default=1) < 1
        )
        for name, (count, what) in counts.items()
    }
    fused = model.backbone.fused
    lowest = (1, 0, 1)
    problems[
        "model.backbone.fused must be one width, or three of which only the second may be 0"
    ] = len(fused) not in (0, 1, 3) or any(w < n for w, n in zip(fused, lowest, strict=False))
    problems["model.backbone.fused must be empty with model.backbone.kind = 'maskrcnn2go'"] = (
        second and bool(fused)
    )
    for name in ("mask_head", "keypoint_head"):
        head = getattr(model, name)
        problems[f"model.{name}.context needs 1 or more blocks in the head and an even size"] = (
            head.context.channels > 0
            and not second
            and (head.output_size % 2 != 0 or (name == "mask_head" and head.blocks < 1))
        )
    problems["model.rpn.anchor_boxes and model.backbone.kind = 'maskrcnn2go' need each other"] = (
        second != bool(model.rpn.anchor_boxes)
    )
    problems["model.keypoint_head.blocks must be 0 with model.backbone.kind = 'maskrcnn2go'"] = (
        second and model.keypoint_head.blocks > 0
    )
    return problems
