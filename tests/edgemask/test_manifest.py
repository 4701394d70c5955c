"""The part of a manifest that only packs with keypoints have."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from synthetic import keypoint_section, small_manifest, stage_spec

from edgemask.errors import ModelError
from edgemask.keypoints import NAMES
from edgemask.manifest import parse_manifest


def posed() -> dict[str, Any]:
    """A valid manifest with a keypoint head."""
    manifest = small_manifest()
    manifest["keypoint"] = keypoint_section()
    manifest["roi"]["keypoint"] = copy.deepcopy(manifest["roi"]["mask"])
    manifest["stages"]["keypoint_head"] = stage_spec("outside")
    return manifest


def parsed(manifest: dict[str, Any]) -> dict[str, Any]:
    return parse_manifest(json.dumps(manifest).encode(), "p.zip")


def test_good_manifests() -> None:
    assert parsed(posed())["keypoint"]["class_id"] == 1
    assert "keypoint" not in parsed(small_manifest())


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["keypoint"], None, "keypoint is missing"),
        (["roi", "keypoint"], None, "roi.keypoint is missing"),
        (["stages", "keypoint_head"], None, "stages.keypoint_head is missing"),
        (["stages", "keypoint_head", "outputs", "logits"], None, "keypoint_head.outputs is empty"),
        (["keypoint", "names"], ["nose"], "keypoint.names must be COCO's 17"),
        (["keypoint", "names"], NAMES[::-1], "keypoint.names must be COCO's 17 in their order"),
        (["keypoint", "skeleton"], [[0, 17]], "keypoint.skeleton[0][1] must be an integer"),
        (["keypoint", "skeleton"], [[0, 1, 2]], "pairs"),
        (["keypoint", "class_id"], 18, "keypoint.class_id 18 is not one of the classes"),
        (["keypoint", "box_scale"], 0.5, "keypoint.box_scale must be a number from 1 to 4"),
        (["roi", "keypoint", "features"], ["p9"], "roi.keypoint.features has 'p9'"),
        (["roi", "keypoint", "level_thresholds"], [9], "roi.keypoint.level_thresholds"),
    ],
)
def test_inconsistent_keypoints(path: list[str], value: Any, words: str) -> None:
    manifest = posed()
    node = manifest
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    with pytest.raises(ModelError) as caught:
        parsed(manifest)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def given_anchors(boxes: Any, **changes: Any) -> dict[str, Any]:
    """A valid manifest whose anchors are given one by one."""
    manifest = small_manifest()
    rpn = {k: v for k, v in manifest["rpn"].items() if not k.startswith("anchor")}
    manifest["rpn"] = rpn | {"anchor_boxes": boxes} | changes
    return manifest


def test_anchors_one_by_one() -> None:
    boxes = [[-8, -8.5, 8, 8], [0, 0, 100, 50]]
    assert parsed(given_anchors(boxes))["rpn"]["anchor_boxes"] == boxes


@pytest.mark.parametrize(
    ("boxes", "changes", "word"),
    [
        ([], {}, "rpn.anchor_boxes"),
        ([[1, 2, 3]], {}, "x0 < x1"),
        ([[8, 0, -8, 5]], {}, "x0 < x1"),
        ([[0, 8, 5, -8]], {}, "y0 < y1"),
        ([["a", 0, 1, 1]], {}, "rpn.anchor_boxes[0][0]"),
        ([[0, 0, 1, 1]], {"levels": ["2", "3"], "strides": [2, 4]}, "exactly one level"),
        ([[0, 0, 1, 1]], {"strides": [2, 4]}, "exactly one level"),
    ],
)
def test_wrong_anchor_boxes(boxes: Any, changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ModelError) as caught:
        parsed(given_anchors(boxes, **changes))
    assert word in str(caught.value)


@pytest.mark.parametrize("value", ["nearest", None, 2])
def test_the_filter_of_the_input_is_one_of_two(value: object) -> None:
    manifest = small_manifest()
    manifest["input"]["resize"] = "bilinear"
    assert parsed(manifest)["input"]["resize"] == "bilinear"
    manifest["input"]["resize"] = value
    with pytest.raises(ModelError, match=r"input\.resize must be"):
        parsed(manifest)


@pytest.mark.parametrize("value", [-0.1, 1.0, "0.1", None])
@pytest.mark.parametrize("key", ["rpn.score_threshold", "mask.soft_nms_threshold"])
def test_thresholds_that_may_be_left_out(key: str, value: object) -> None:
    section, name = key.split(".")
    manifest = small_manifest()
    parsed(manifest)
    manifest[section][name] = 0.15
    assert parsed(manifest)[section][name] == 0.15
    manifest[section][name] = value
    with pytest.raises(ModelError, match=f"{section}.{name} must be a number from 0 to 0.99"):
        parsed(manifest)


@pytest.mark.parametrize(
    ("key", "value"), [("activation", "tanh"), ("activation", 1), ("class_agnostic", "no")]
)
def test_class_scores_in_a_way_not_known(key: str, value: Any) -> None:
    manifest = small_manifest()
    manifest["detections"] |= {"activation": "softmax", "class_agnostic": False}
    parsed(manifest)
    manifest["detections"][key] = value
    with pytest.raises(ModelError, match=f"detections.{key}"):
        parsed(manifest)
