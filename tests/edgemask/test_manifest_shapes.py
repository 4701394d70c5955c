"""Packs whose tensors contradict the rest of their manifest."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from edgemask import ModelError, Segmenter
from edgemask.manifest_shapes import shape_problem
from edgemask.modelpack import bundled_packs, load_pack


@pytest.mark.parametrize("name", bundled_packs())
def test_the_bundled_packs_agree_with_themselves(name: str) -> None:
    assert shape_problem(load_pack(name).manifest) is None


@pytest.mark.parametrize(
    ("pack", "path", "value", "words"),
    [
        ("people", ["rpn", "anchor_ratios"], [1, 2], ["rpn_logits_3", "2 anchors needs [1, *"]),
        ("coco80", ["rpn", "anchor_boxes"], [[0, 0, 9, 9]], ["rpn_logits_4", "1 anchors"]),
        (
            "people", ["classes"], [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            ["box_head.outputs.logits has shape [None, 1]", "2 classes needs [*, 2]"],
        ),
        ("people", ["detections", "activation"], "softmax", ["logits", "needs [*, 2]"]),
        ("coco80", ["detections", "class_agnostic"], True, ["deltas", "needs [*, 4]"]),
        ("people", ["mask", "size"], 14, ["mask_head.outputs.logits", "needs [*, 14, 14, 1]"]),
        ("coco80", ["mask", "class_agnostic"], True, ["mask_head", "needs [*, 24, 24, 1]"]),
        ("people", ["roi", "box", "output_size"], 14, ["box_head.inputs.rois", "[*, 14, 14, *]"]),
        ("people-pose", ["keypoint", "size"], 56, ["keypoint_head", "[*, 56, 56, 17]"]),
        ("people-pose", ["roi", "keypoint", "output_size"], 9, ["keypoint_head.inputs.rois"]),
    ],
)  # fmt: skip
def test_contradictions(pack: str, path: list[str], value: Any, words: list[str]) -> None:
    loaded = load_pack(pack)
    manifest = copy.deepcopy(dict(loaded.manifest))
    node = manifest
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(ModelError, match="rebuild the pack") as caught:
        Segmenter(dataclasses.replace(loaded, manifest=manifest))
    for word in words:
        assert word in str(caught.value)


def test_a_length_that_is_not_fixed_fits() -> None:
    manifest = copy.deepcopy(dict(load_pack("people").manifest))
    manifest["stages"]["mask_head"]["outputs"]["logits"]["shape"] = [None] * 4
    assert shape_problem(manifest) is None
    manifest["stages"]["mask_head"]["outputs"]["logits"]["shape"] = [None] * 3
    assert "needs [*, 28, 28, 1]" in str(shape_problem(manifest))
