"""Keypoints in the pipeline, on stages that are made up."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from made_up_stages import (
    IMAGE,
    MANIFEST,
    NEVER,
    NEVER_RUN,
    SURE,
    Fake,
    backbone,
    box_head,
    mask_head,
    pipeline,
)
from synthetic import keypoint_section

from edgemask.pipeline import Pipeline


def keypoint_head(*peaks: tuple[int, int]) -> Fake:
    """Put all 17 keypoints of each detection into one cell (row, column)."""
    values = np.zeros((len(peaks), 28, 28, 17), np.float32)
    for n, (row, column) in enumerate(peaks):
        values[n, row, column] = 40
    return Fake({"logits": values})


def posed(first: Fake, second: Fake, third: Fake, fourth: Fake, **keypoint: Any) -> Pipeline:
    """Put four stages together; persons have keypoints."""
    manifest = copy.deepcopy(MANIFEST)
    manifest["roi"]["keypoint"] = copy.deepcopy(manifest["roi"]["mask"])
    manifest["keypoint"] = keypoint_section() | keypoint
    stages = {"backbone": first, "box_head": second, "mask_head": third, "keypoint_head": fourth}
    return Pipeline(manifest, stages)


def test_keypoints_lie_in_their_boxes_in_image_pixels() -> None:
    third, fourth = mask_head(SURE), keypoint_head((7, 21))
    run = posed(backbone([(1, 2, 3)]), box_head((SURE, NEVER)), third, fourth)
    found = run(IMAGE)
    # the box is 48 16 112 80: 64 pixels for 28 cells
    assert found.keypoints is not None
    expected = [48 + 64 * 21.5 / 28, 16 + 64 * 7.5 / 28, 1]
    np.testing.assert_allclose(found.keypoints, np.tile(expected, (1, 17, 1)), atol=1e-3)
    assert fourth.inputs[0] is not third.inputs[0]
    np.testing.assert_array_equal(fourth.inputs[0], third.inputs[0])  # pooled once
    assert "keypoint_roi_align" not in run.timings
    assert {"keypoint_head", "keypoints"} <= set(run.timings)


def test_keypoints_follow_their_instance_when_masks_change_the_order() -> None:
    first = backbone([(0, 0, 5), (0, 3, 4), (3, 5, 3)])
    second = box_head((2.0, NEVER), (1.5, NEVER), (1.2, NEVER))
    third = mask_head(0.8, 0.1, 4.0)
    fourth = keypoint_head((0, 0), (27, 27))
    found = posed(first, second, third, fourth)(IMAGE)
    assert len(found) == 2
    # the second of the three is below the threshold; the third is the best after rescoring
    np.testing.assert_array_equal(fourth.inputs[0], third.inputs[0][[2, 0]])
    cell = (found.boxes[:, 2:] - found.boxes[:, :2]) / 28
    assert found.keypoints is not None
    np.testing.assert_allclose(
        found.keypoints[:, 0, :2],
        [found.boxes[0, :2] + cell[0] / 2, found.boxes[1, 2:] - cell[1] / 2],
        atol=1e-3,
    )


def test_keypoints_follow_their_instance_when_overlap_changes_the_order() -> None:
    first = backbone([(1, 1, 3.0), (1, 2, 2.0), (1, 4, 1.0)])
    second = box_head((2.0, NEVER), (1.5, NEVER), (1.2, NEVER))
    third, fourth = mask_head(SURE, SURE, SURE), keypoint_head((0, 0), (13, 13), (27, 27))
    run = posed(first, second, third, fourth)
    run.manifest["mask"] |= {"rescore": False, "soft_nms_threshold": 0.2}  # type: ignore[index]
    found = run(IMAGE, score_threshold=0.2)
    np.testing.assert_allclose(found.boxes[:, 0], [16, 112, 48], atol=1e-3)
    # the second of the three shares a third of its pixels with the first and is the last now
    np.testing.assert_array_equal(fourth.inputs[0], third.inputs[0][[0, 2, 1]])
    assert found.keypoints is not None
    middle = (found.keypoints[:, 0, 0] - found.boxes[:, 0]) / 64
    np.testing.assert_allclose(middle, [0.5 / 28, 13.5 / 28, 27.5 / 28], atol=1e-3)


def test_other_classes_have_no_keypoints() -> None:
    stages = backbone([(0, 0, 5), (0, 3, 4)]), box_head((NEVER, SURE), (SURE, NEVER))
    fourth = keypoint_head((3, 3))
    found = posed(*stages, mask_head(SURE, SURE), fourth)(IMAGE)
    assert len(fourth.inputs[0]) == 1
    assert found.keypoints is not None
    by_class = dict(zip(found.class_names, found.keypoints, strict=True))
    assert (by_class["dog"] == 0).all()
    assert (by_class["person"][:, 2] > 0.9).all()


def test_the_pack_says_which_class_has_keypoints() -> None:
    stages = backbone([(0, 0, 5), (0, 3, 4)]), box_head((NEVER, SURE), (SURE, NEVER))
    fourth = keypoint_head((3, 3))
    found = posed(*stages, mask_head(SURE, SURE), fourth, class_id=18)(IMAGE)
    assert found.keypoints is not None
    by_class = dict(zip(found.class_names, found.keypoints, strict=True))
    assert (by_class["person"] == 0).all()
    assert (by_class["dog"][:, 2] > 0.9).all()


def test_the_step_of_int8_heatmaps_counts() -> None:
    """Of two peaks, 16 steps apart, a small step leaves doubt and a large one none."""
    logits = np.full((1, 28, 28, 17), -128, np.int8)
    logits[0, 4, 4], logits[0, 24, 24] = 100, 84
    scores = []
    for step in (0.01, 1.0):
        fourth = Fake({"logits": logits}, {"logits": (step, 0)})
        run = posed(backbone([(1, 2, 3)]), box_head((SURE, NEVER)), mask_head(SURE), fourth)
        found = run(IMAGE)
        assert found.keypoints is not None
        scores.append(float(found.keypoints[0, 0, 2]))
    assert scores[0] < 0.6
    assert scores[1] > 0.99


@pytest.mark.parametrize("logits", [[], [(NEVER, SURE)]])
def test_without_persons_the_keypoint_head_does_not_run(logits: list[tuple[float, float]]) -> None:
    first = backbone([(1, 2, 3)] if logits else [])
    found = posed(first, box_head(*logits), mask_head(SURE), NEVER_RUN)(IMAGE)
    assert found.keypoints is not None
    assert found.keypoints.shape == (len(logits), 17, 3)


def test_no_detection_above_the_threshold() -> None:
    stages = backbone([(1, 2, 3)]), box_head((SURE, NEVER)), mask_head(-3.0), NEVER_RUN
    found = posed(*stages)(IMAGE)
    assert found.keypoints is not None
    assert found.keypoints.shape == (0, 17, 3)


def test_a_pack_without_keypoints_gives_none() -> None:
    stages = backbone([(1, 2, 3)]), box_head((SURE, NEVER)), mask_head(SURE)
    assert pipeline(*stages)(IMAGE).keypoints is None
    assert pipeline(backbone([]), NEVER_RUN, NEVER_RUN)(IMAGE).keypoints is None


def test_enlarged_boxes_for_keypoints() -> None:
    """The region is larger than the box, is pooled anew, and ends at the image's border."""
    third, fourth = mask_head(SURE), keypoint_head((13, 13))
    run = posed(backbone([(1, 2, 3)]), box_head((SURE, NEVER)), third, fourth, box_scale=1.5)
    found = run(IMAGE)
    np.testing.assert_allclose(found.boxes, [[48, 16, 112, 80]], atol=1e-3)
    # 24 8 56 40 in the network's input becomes 16 0 64 48; in the image 32 0 128 96
    assert found.keypoints is not None
    np.testing.assert_allclose(
        found.keypoints[0, 0, :2], [32 + 96 * 13.5 / 28, 96 * 13.5 / 28], atol=1e-3
    )
    assert not np.array_equal(fourth.inputs[0], third.inputs[0])
    assert "keypoint_roi_align" in run.timings


def test_enlarged_boxes_end_at_the_far_border() -> None:
    stages = backbone([(3, 5, 3)]), box_head((SURE, NEVER)), mask_head(SURE)
    fourth = keypoint_head((27, 27))
    run = posed(*stages, fourth, box_scale=1.5)
    found = run(IMAGE)
    # the anchor 72 40 104 72 is clipped to 72 40 96 64, enlarged to 66 34 102 70 and clipped again
    assert found.keypoints is not None
    expected = [132 + 60 * 27.5 / 28, 68 + 60 * 27.5 / 28]
    np.testing.assert_allclose(found.keypoints[0, 0, :2], expected, atol=1e-3)
    region = np.array([[66, 34, 96, 64]], np.float32)
    pooled = run.pool(stages[0].outputs, region, "keypoint")
    np.testing.assert_array_equal(fourth.inputs[0], pooled)


@pytest.mark.parametrize("change", ["code", "size"])
def test_a_keypoint_head_that_reads_otherwise_gets_its_own_regions(change: str) -> None:
    fourth = keypoint_head((13, 13))
    run = posed(backbone([(1, 2, 3)]), box_head((SURE, NEVER)), mask_head(SURE), fourth)
    if change == "code":
        fourth.params["rois"] = (6 / 255, -128)
    else:
        run.manifest["roi"]["keypoint"]["output_size"] = 14
    run(IMAGE)
    given = fourth.inputs[0]
    assert given.dtype == (np.int8 if change == "code" else np.float32)
    assert given.shape == ((1, 7, 7, 8) if change == "code" else (1, 14, 14, 8))
