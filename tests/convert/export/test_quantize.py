from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.arch.keras_stages import KerasStage, float_pipeline
from edgemask_convert.arch.manifest import build_manifest
from edgemask_convert.export import quantize
from edgemask_convert.export.flatbuffer import stage_spec
from edgemask_convert.export.packfile import write_pack
from edgemask_convert.export.quantize import (
    HEAD_BATCH,
    QuantizationError,
    check_zero_points,
    convert_float,
    convert_stage,
    head_samples,
    image_samples,
    load_images,
    quantize_model,
)
from PIL import Image

from edgemask.geometry import fit_input
from edgemask.modelpack import load_pack
from edgemask.runtime import Stage
from edgemask.segmenter import Segmenter
from edgemask.shrink import Shrinker

from ..conftest import CLASSES

INPUTS = {
    "backbone": ("image", (1, 64, 96, 3), -1, 127 / 128),
    "box_head": ("rois", (5, 7, 7, 16), 0, 6),
    "mask_head": ("rois", (5, 14, 14, 16), 0, 6),
    "keypoint_head": ("rois", (5, 14, 14, 16), 0, 6),
}


def make_input(stage: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Return a random input of a stage, in its range."""
    name, shape, low, high = INPUTS[stage]
    return {name: np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)}


def test_photographs_are_decoded_when_they_are_looked_at(
    drawn_images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(len(drawn_images))]
    for path, rgb in zip(paths, drawn_images, strict=True):
        Image.fromarray(rgb).save(path)
    decoded: list[Path] = []
    load = quantize.load_image
    monkeypatch.setattr(quantize, "load_image", lambda path: [decoded.append(path), load(path)][1])
    images = load_images(paths)
    assert len(images) == len(paths)
    assert len(images[1:3]) == 2
    assert decoded == []
    np.testing.assert_array_equal(images[1:3][1], drawn_images[2])
    assert decoded == paths[2:3]
    for _ in range(2):
        for found, wanted in zip(images, drawn_images, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("stage", INPUTS)
def test_float32_stage_equals_keras(tiny_pose: Any, stage: str) -> None:
    content = convert_stage(tiny_pose, stage, [], precision="float32")
    spec = stage_spec(stage, content)
    given = make_input(stage)
    found = Stage(content, spec, threads=1).run(**given)
    expected = KerasStage(tiny_pose.stages[stage], stage).run(**given)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4, rtol=1e-4, err_msg=name)


def test_float16_stage(tiny_model: Any) -> None:
    """Half the size, float inputs and outputs, and values that differ in the third digit."""
    half = convert_stage(tiny_model, "mask_head", [], precision="float16")
    given = make_input("mask_head")
    found = Stage(half, stage_spec("mask_head", half), threads=1).run(**given)["logits"]
    expected = KerasStage(tiny_model.mask_head, "mask_head").run(**given)["logits"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_float_pack_runs_on_the_device(
    tiny_model: Any, drawn_images: list[np.ndarray], tmp_path: Any, precision: str
) -> None:
    """A pack of float stages finds what the float network finds."""
    manifest, stages = convert_float(tiny_model, CLASSES, precision)
    manifest |= {"version": "0", "description": "", "license": "", "credits": []}
    write_pack(tmp_path / "f.zip", manifest | {"training": {}, "metrics": {}}, stages)
    pack = load_pack(tmp_path / "f.zip")
    for name in pack.stages:
        spec = pack.stage_spec(name)
        assert {t["dtype"] for t in [*spec["inputs"].values(), *spec["outputs"].values()]} == {
            "float32"
        }
    found = Segmenter(pack, threads=1, score_threshold=0, max_detections=7)(drawn_images[0])
    expected = float_pipeline(tiny_model, CLASSES)(drawn_images[0], 0, 7)
    assert len(found) == len(expected) > 0
    if precision == "float32":  # half precision may order such random detections otherwise
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.05)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.05)


def test_unknown_precision(tiny_model: Any) -> None:
    with pytest.raises(QuantizationError, match="precision 'int4' is not one of int8, float16"):
        convert_stage(tiny_model, "box_head", [], precision="int4")


def test_codes_that_the_device_relies_on(tiny_pack: Any) -> None:
    """One bit flipped makes the input; zero points let RoIAlign mix levels; all else is int8."""
    backbone = tiny_pack.stage_spec("backbone")
    assert backbone["inputs"]["image"]["scale"] == 1 / 128
    assert backbone["inputs"]["image"]["zero_point"] == 0
    assert {backbone["outputs"][f"p{n}"]["zero_point"] for n in (2, 3, 4, 5)} == {-128}
    for head in ("box_head", "mask_head"):
        rois = tiny_pack.stage_spec(head)["inputs"]["rois"]
        assert rois["scale"] == pytest.approx(6 / 255, rel=1e-6)
        assert rois["zero_point"] == -128
    for name in tiny_pack.stages:
        spec = tiny_pack.stage_spec(name)
        for tensor in [*spec["inputs"].values(), *spec["outputs"].values()]:
            assert tensor["dtype"] == "int8"
    assert backbone["inputs"]["image"]["shape"] == [1, None, None, 3]
    assert tiny_pack.stage_spec("box_head")["inputs"]["rois"]["shape"] == [None, 7, 7, 16]


def test_pack_runs_on_the_device(tiny_pack: Any, drawn_images: list[np.ndarray]) -> None:
    segmenter = Segmenter(tiny_pack, threads=1, score_threshold=0, max_detections=7)
    for image in drawn_images[:3]:
        instances = segmenter(image)
        assert instances.size == image.shape[:2]
        assert 1 <= len(instances) <= 7
    assert set(instances.class_ids.tolist()) <= {1, 2}


def test_float_pipeline_repeats_itself(tiny_model: Any, drawn_images: list[np.ndarray]) -> None:
    pipeline = float_pipeline(tiny_model, CLASSES)
    first = pipeline(drawn_images[0], 0, 7)
    pipeline(drawn_images[1], 0, 7)
    again = pipeline(drawn_images[0], 0, 7)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    np.testing.assert_array_equal(first.scores, again.scores)


def test_image_samples(tiny_config: Any, drawn_images: list[np.ndarray]) -> None:
    manifest = build_manifest(tiny_config.model, CLASSES)
    samples = list(image_samples(drawn_images, manifest))
    assert [sample.shape for sample in samples[:3]] == [
        (1, 64, 96, 3), (1, 96, 64, 3), (1, 64, 64, 3),
    ]  # fmt: skip
    for sample in samples:
        assert sample.dtype == np.float32
        assert sample.min() == -1
        assert sample.max() == 127 / 128


@pytest.mark.parametrize("averaged", [True, False])
def test_image_samples_are_what_the_device_sees(tiny_config: Any, averaged: bool) -> None:
    manifest = build_manifest(tiny_config.model, CLASSES)
    manifest["input"]["resize"] = "averaged" if averaged else "bilinear"
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3)).astype(np.uint8)
    (sample,) = image_samples([image], manifest)
    wanted = Shrinker(averaged=averaged)(image, fit_input(100, 120, 64, 32, 2.0)) / 128 - 1
    np.testing.assert_array_equal(sample[0, 1:], wanted[1:])
    other = Shrinker(averaged=not averaged)(image, fit_input(100, 120, 64, 32, 2.0)) / 128 - 1
    assert np.abs(sample[0, 1:] - other[1:]).max() > 0.1


def test_image_samples_leave_the_image_alone(tiny_config: Any) -> None:
    """An image that already has the network's size is not resized, but must be copied."""
    image = np.full((64, 64, 3), 100, np.uint8)
    (sample,) = image_samples([image], build_manifest(tiny_config.model, CLASSES))
    assert (image == 100).all()
    assert (sample == -28 / 128).mean() > 0.99


def test_head_samples() -> None:
    random = np.random.default_rng(0)
    recorded = [random.uniform(1, 5, (n, 2, 2, 3)).astype(np.float32) for n in (40, 3, 57)]
    before = [array.copy() for array in recorded]
    samples = head_samples(recorded, limit=70)
    assert sum(map(len, samples)) == 70
    assert max(map(len, samples)) <= 2 * HEAD_BATCH
    assert np.concatenate(samples).min() == 0
    assert np.concatenate(samples).max() == 6
    known = {row.tobytes() for array in recorded for row in array}
    rows = [row.tobytes() for batch in samples for row in batch]
    assert len(set(rows) & known) == 69  # all but the one that holds the 0 and the 6
    for array, copy in zip(recorded, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    again = head_samples(recorded, limit=70)
    assert all(np.array_equal(a, b) for a, b in zip(samples, again, strict=True))


def test_head_samples_of_one_roi() -> None:
    (sample,) = head_samples([np.ones((1, 2, 2, 3), np.float32)], limit=10)
    assert sample.shape == (1, 2, 2, 3)


def test_nothing_found(tiny_pack: Any, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that finds nothing cannot be calibrated; the message says what to do."""
    monkeypatch.setattr(
        quantize, "convert_stage", lambda model, stage, samples: tiny_pack.stages[stage]
    )
    monkeypatch.setattr(quantize.Pipeline, "__call__", lambda self, rgb, **options: None)
    with pytest.raises(QuantizationError, match=r"found nothing in 1 images.*train it further"):
        quantize_model(tiny_model, CLASSES, [np.zeros((64, 64, 3), np.uint8)])


def test_every_loop_can_be_watched(tiny_model: Any, drawn_images: list[np.ndarray]) -> None:
    seen = {}

    def watch(items: Any, title: str) -> Any:
        seen[title] = len(items)
        return items

    quantize_model(tiny_model, CLASSES, drawn_images, watch=watch)
    assert seen.pop("calibrating box_head") > 0
    assert seen.pop("calibrating mask_head") > 0
    photographs = ("reading images", "equalizing channels", "calibrating backbone",
                   "collecting RoIs")  # fmt: skip
    assert seen == dict.fromkeys(photographs, len(drawn_images))


def test_zero_points_must_agree(tiny_pack: Any) -> None:
    outputs = {f"p{n}": {"scale": 0.01 * n, "zero_point": -128} for n in (2, 3, 4, 5)}
    check_zero_points(tiny_pack.manifest, {"outputs": outputs})  # scales may differ
    outputs["p4"]["zero_point"] = -100
    with pytest.raises(QuantizationError, match=r"box head's .* different zero points.*'p4': -100"):
        check_zero_points(tiny_pack.manifest, {"outputs": outputs})


def test_keypoints_of_an_int8_pack(
    tiny_pose_pack: Any, tiny_pose: Any, drawn_images: list[np.ndarray]
) -> None:
    """Its head enters with the mask head's code, and it puts sure keypoints where float does."""
    spec = tiny_pose_pack.stage_spec("keypoint_head")
    assert spec["inputs"]["rois"]["scale"] == pytest.approx(6 / 255, rel=1e-3)
    assert spec["inputs"]["rois"]["zero_point"] == -128
    assert spec["outputs"]["logits"]["shape"] == [None, 28, 28, 17]
    segmenter = Segmenter(tiny_pose_pack, threads=1, score_threshold=0.05)
    found = segmenter(drawn_images[0])
    assert len(found) > 0
    assert found.keypoints.shape == (len(found), 17, 3)
    discs = found.class_ids == 1
    assert (found.keypoints[~discs] == 0).all()
    inside = found.keypoints[discs]
    low, high = found.boxes[discs, None, :2], found.boxes[discs, None, 2:]
    assert ((inside[..., :2] >= low) & (inside[..., :2] <= high)).all()
    assert "keypoint_roi_align" not in segmenter.timings  # pooled once for masks and keypoints
    exact = float_pipeline(tiny_pose, CLASSES)(drawn_images[0], 0.05, 20)
    assert exact.keypoints is not None
