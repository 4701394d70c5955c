from __future__ import annotations

import copy
import dataclasses
from typing import Any

from edgemask_convert.arch.manifest import build_manifest

from ..conftest import CLASSES


def test_manifest_describes_the_network(tiny_model: Any) -> None:
    manifest = build_manifest(tiny_model.config, CLASSES)
    assert manifest["schema"] == 1
    assert manifest["name"] == "tiny"
    assert manifest["classes"] == CLASSES
    assert manifest["input"]["short_side"] == 64
    assert manifest["rpn"]["anchor_sizes"] == [40, 80, 160, 320]
    assert manifest["rpn"]["strides"] == [8, 16, 32, 64]
    assert manifest["rpn"]["post_nms"] == 12
    outputs = set(tiny_model.first_stage.output)
    for level in manifest["rpn"]["levels"]:
        assert {f"rpn_logits_{level}", f"rpn_deltas_{level}"} <= outputs
    assert dict(zip(manifest["roi"]["features"], manifest["roi"]["strides"], strict=True)) == {
        "p2": 4, "p3": 8, "p4": 16, "p5": 32,
    }  # fmt: skip
    assert set(manifest["roi"]["features"]) <= outputs
    for head, model in (("box", tiny_model.box_head), ("mask", tiny_model.mask_head)):
        assert manifest["roi"][head]["output_size"] == model.inputs[0].shape[1]
    assert manifest["mask"]["size"] == tiny_model.mask_head.output["logits"].shape[1]


def test_how_the_device_resizes_proposes_and_suppresses(tiny_model: Any) -> None:
    plain = build_manifest(tiny_model.config, CLASSES)
    assert "resize" not in plain["input"]
    assert "score_threshold" not in plain["rpn"]
    assert "soft_nms_threshold" not in plain["mask"]
    rpn = dataclasses.replace(tiny_model.config.rpn, score_threshold=0.15)
    mask = dataclasses.replace(tiny_model.config.mask_head, soft_nms_threshold=0.3)
    config = dataclasses.replace(tiny_model.config, resize="bilinear", rpn=rpn, mask_head=mask)
    manifest = build_manifest(config, CLASSES)
    assert manifest["mask"] == plain["mask"] | {"soft_nms_threshold": 0.3}
    assert manifest["input"] == plain["input"] | {"resize": "bilinear"}
    assert manifest["rpn"] == plain["rpn"] | {"score_threshold": 0.15}


def test_keypoints_are_there_if_the_network_has_them(tiny_pose: Any, tiny_model: Any) -> None:
    plain = build_manifest(tiny_model.config, CLASSES)
    assert "keypoint" not in plain
    assert "keypoint" not in plain["roi"]
    manifest = build_manifest(tiny_pose.config, CLASSES)
    section = manifest["keypoint"]
    assert section["size"] == tiny_pose.keypoint_head.output["logits"].shape[1] == 28
    assert len(section["names"]) == tiny_pose.keypoint_head.output["logits"].shape[3] == 17
    assert (section["class_id"], section["box_scale"]) == (1, 1.0)
    assert [15, 13] in section["skeleton"]
    assert manifest["roi"]["keypoint"] == manifest["roi"]["mask"]  # so the device pools once


def test_every_figure_is_that_of_its_own_section(tiny_pose: Any) -> None:
    """All of them differ, so that none can be taken for another."""
    config = copy.deepcopy(tiny_pose.config)
    config.max_aspect, config.classes = 1.75, [2, 1]
    rpn, box, mask, points = config.rpn, config.box_head, config.mask_head, config.keypoint_head
    rpn.pre_nms, rpn.post_nms, rpn.nms_threshold, rpn.score_threshold = 61, 13, 0.61, 0.05
    rpn.anchor_ratios = [0.4, 1.0, 2.5]
    box.nms_threshold, box.box_weights, box.class_agnostic = 0.42, [9.0, 8.0, 7.0, 6.0], False
    mask.threshold, mask.class_agnostic, mask.soft_nms_threshold = 0.45, False, 0.9
    points.box_scale, points.class_id = 1.2, 1
    for number, head in enumerate((box, mask, points), 1):
        head.output_size, head.sampling_ratio = 6 + 2 * number, number
        head.features, head.level_thresholds = ["p2", "p3"], [float(number)]
    made = build_manifest(config, CLASSES)
    assert (made["input"]["mean"], made["input"]["std"], made["input"]["max_aspect"]) == (
        128, 128, 1.75,
    )  # fmt: skip
    proposals = ("pre_nms", "post_nms", "nms_threshold", "score_threshold", "anchor_ratios")
    assert [made["rpn"][name] for name in proposals] == [61, 13, 0.61, 0.05, [0.4, 1.0, 2.5]]
    assert made["detections"] == {
        "box_weights": [9.0, 8.0, 7.0, 6.0], "nms_threshold": 0.42, "class_agnostic": False,
    }  # fmt: skip
    assert made["mask"] == {
        "size": 20, "class_agnostic": False, "threshold": 0.45, "rescore": True,
        "soft_nms_threshold": 0.9,
    }  # fmt: skip
    assert (made["keypoint"]["box_scale"], made["keypoint"]["class_id"]) == (1.2, 1)
    for number, name in enumerate(("box", "mask", "keypoint"), 1):
        assert made["roi"][name] == {
            "output_size": 6 + 2 * number, "sampling_ratio": number, "features": ["p2", "p3"],
            "level_thresholds": [float(number)],
        }  # fmt: skip
