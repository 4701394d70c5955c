from __future__ import annotations

from typing import Any

from edgemask_convert.manifest import build_manifest

from .conftest import CLASSES


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
