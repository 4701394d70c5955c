from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.checkpoint import assign_weights
from edgemask_convert.export.verify import (
    Verification,
    check_partitions,
    compare_end_to_end,
    compare_tensors,
    keypoint_shifts,
    verify,
)
from synthetic import make_instances, small_manifest, write_pack

from edgemask.errors import ModelError
from edgemask.modelpack import load_pack
from edgemask.pipeline import Pipeline


def test_good_pack(tiny_pack: Any, tiny_model: Any, drawn_images: list[np.ndarray]) -> None:
    result = Verification()
    stages = check_partitions(tiny_pack, result)
    assert result.failures == []
    assert set(result.partitions) == set(stages) == {"backbone", "box_head", "mask_head"}
    for sizes in result.partitions.values():
        assert set(map(str, sizes.values())) == {"(1, [])"}
    assert list(result.partitions["box_head"]) == ["1x7x7x16", "7x7x7x16", "50x7x7x16"]
    compare_tensors(tiny_pack, tiny_model, stages, drawn_images, result)
    assert result.failures == []
    assert len(result.signal) == 4 + 2 * 4 + 2 + 1
    assert min(result.signal.values()) > 12


def test_stray_operator(small_pack: Path) -> None:
    """The small pack's mask head has an operator that XNNPACK does not take."""
    result = verify(load_pack(small_pack), None, [])
    assert len(result.failures) == 3
    assert all(failure.startswith("mask_head at ") for failure in result.failures)
    _, outside = result.partitions["mask_head"]["7x7x7x8"]
    assert outside
    assert outside[0] in result.failures[0]
    assert result.partitions["backbone"]["1x64x64x3"] == (1, [])
    assert result.signal == {}


def test_wrong_scale(tmp_path: Path) -> None:
    manifest = small_manifest()
    manifest["stages"]["box_head"]["inputs"]["rois"]["scale"] = 0.5
    pack = load_pack(write_pack(tmp_path / "a.zip", manifest))
    with pytest.raises(ModelError, match=r"box_head.*scale 0\.5 .*model\.json"):
        verify(pack, None, [])


def test_names_the_guilty_tensor(
    tiny_pack: Any, tiny_model: Any, drawn_images: list[np.ndarray]
) -> None:
    """Against another float network only the tensors that differ fail."""
    other = build_model(tiny_model.config)
    weights = {name: np.asarray(weight) for name, weight in tiny_model.named_weights().items()}
    for name in ("box_head/box_logits/kernel", "backbone/rpn_deltas/kernel"):
        weights[name] = -weights[name]
    assign_weights(other, weights, "test")
    result = Verification()
    stages = check_partitions(tiny_pack, result)
    compare_tensors(tiny_pack, other, stages, drawn_images[:2], result)
    guilty = {failure.split(":")[0] for failure in result.failures}
    # levels 5 and 6, where this network is quiet, may pass
    certain = {"box_head/logits", "backbone/rpn_deltas_3", "backbone/rpn_deltas_4"}
    assert certain <= guilty <= certain | {"backbone/rpn_deltas_5", "backbone/rpn_deltas_6"}


@pytest.mark.parametrize(("class_id", "matched"), [(1, 1.0), (2, 0.0)])
def test_detections_of_another_class_do_not_agree(
    tiny_pack: Any, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, class_id: int, matched: float
) -> None:
    mask = np.zeros((1, 60, 60), bool)
    mask[0, 10:30, 10:30] = True
    answers = iter([make_instances(mask, [0.9], 1), make_instances(mask, [0.9], class_id)])
    monkeypatch.setattr(Pipeline, "__call__", lambda *_: next(answers))
    result = Verification()
    image = np.zeros((60, 60, 3), np.uint8)
    compare_end_to_end(tiny_pack, tiny_model, {}, [image], result)
    assert result.end_to_end["matched"] == matched
    assert bool(result.failures) == (matched < 1)


def test_every_loop_over_the_photographs_can_be_watched(
    tiny_pack: Any, tiny_model: Any, drawn_images: list[np.ndarray]
) -> None:
    seen = {}

    def watch(images: Any, title: str) -> Any:
        seen[title] = len(images)
        return images

    verify(tiny_pack, tiny_model, drawn_images, watch)
    assert set(seen) == {"comparing tensors", "comparing detections"}
    assert set(seen.values()) == {len(drawn_images)}


def test_nothing_to_compare(tiny_pack: Any, tiny_model: Any) -> None:
    result = verify(tiny_pack, tiny_model, [])
    assert result.failures == ["neither network finds anything in the 0 images given"]


def test_good_pack_with_keypoints(
    tiny_pose_pack: Any, tiny_pose: Any, drawn_images: list[np.ndarray]
) -> None:
    result = Verification()
    stages = check_partitions(tiny_pose_pack, result)
    assert list(result.partitions["keypoint_head"]) == ["1x14x14x16", "7x14x14x16", "50x14x14x16"]
    compare_tensors(tiny_pose_pack, tiny_pose, stages, drawn_images, result)
    assert result.failures == []
    assert result.signal["keypoint_head/logits"] > 12


def test_keypoints_that_moved() -> None:
    """Relative to the box's side, and only those that are sure."""
    masks = np.zeros((2, 60, 60), bool)
    masks[0, 10:30, 10:30] = masks[1, 10:50, 10:50] = True
    mine, theirs = make_instances(masks), make_instances(masks)
    assert keypoint_shifts(mine, theirs) == []
    points = np.zeros((2, 17, 3), np.float32)
    points[0, 0], points[1, 3] = [12, 12, 0.9], [40, 40, 0.6]
    mine.keypoints, theirs.keypoints = points, points.copy()
    theirs.keypoints[0, 0, :2] += [3, 4]
    theirs.keypoints[1, 3] = [40, 42, 0.1]
    theirs.keypoints[0, 7] = [50, 50, 0.9]  # sure in the other only
    assert keypoint_shifts(mine, theirs) == pytest.approx([5 / 20, 2 / 40])


def test_another_network_than_the_parent(small_pack: Path, tiny_model: Any) -> None:
    """Refused before the photographs: the tensors would be of other shapes, or not there."""
    with pytest.raises(ValueError, match=r"network than the pack .*: channels of its \w+ are \["):
        verify(load_pack(small_pack), tiny_model, [])
    heatmaps = {"outputs": {"logits": {"shape": [-1, 56, 56, 17]}}}
    pack: Any = SimpleNamespace(name="pose", manifest={"stages": {"keypoint_head": heatmaps}})
    with pytest.raises(ValueError, match=r"its keypoint_head are \[\], in the pack \[17\]"):
        compare_tensors(pack, tiny_model, {}, [], Verification())
