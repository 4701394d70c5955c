from __future__ import annotations

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
    assert tuple(manifest["rpn"]["anchor_sizes"]) == tiny_model.anchor_sizes
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
