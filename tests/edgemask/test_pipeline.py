"""The pipeline on stages that are made up, so that every number of the result is known."""

from __future__ import annotations

import copy

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

from edgemask.geometry import InputSize
from edgemask.pipeline import Pipeline
from edgemask.quant import quantize
from edgemask.roi_align import roi_align
from edgemask.shrink import Shrinker


def sigmoid(x: float) -> float:
    """Return 1 / (1 + exp(-x))."""
    return float(1 / (1 + np.exp(-x)))


def test_one_object() -> None:
    first, second, third = backbone([(1, 2, 3)]), box_head((1.5, NEVER)), mask_head(4.0)
    run = pipeline(first, second, third)
    found = run(IMAGE)
    # the anchor of row 1, column 2 is 24 8 56 40; the image is twice as large
    np.testing.assert_allclose(found.boxes, [[48, 16, 112, 80]], atol=1e-3)
    assert found.class_ids.tolist() == [1]
    assert found.class_names == ["person"]
    assert found.scores[0] == pytest.approx(sigmoid(1.5) * sigmoid(4.0), abs=1e-5)
    assert found.size == (128, 192)
    expected = np.zeros((128, 192), bool)
    expected[16:80, 48:112] = True
    np.testing.assert_array_equal(found.masks.to_dense()[0], expected)
    assert first.inputs[0].shape == (1, 64, 96, 3)
    assert second.inputs[0].shape == (1, 7, 7, 8)
    assert third.inputs[0].shape == (1, 7, 7, 8)
    names = {
        "resize", "backbone", "proposals", "roi_align", "box_head", "nms", "mask_roi_align",
        "mask_head", "paste", "total",
    }  # fmt: skip
    assert set(run.timings) == names
    assert run.timings["total"] >= max(run.timings.values())


def test_timings_are_those_of_the_clock() -> None:
    """The clock is read at the start, after each step and at the end; every reading is 1 s more."""
    ticks = iter(range(100))
    stages = {
        "backbone": backbone([(1, 2, 3)]), "box_head": box_head((SURE, NEVER)),
        "mask_head": mask_head(SURE),
    }  # fmt: skip
    run = Pipeline(copy.deepcopy(MANIFEST), stages, clock=lambda: float(next(ticks)))
    run(IMAGE)
    steps = {name: ms for name, ms in run.timings.items() if name != "total"}
    assert set(steps.values()) == {1000.0}
    assert run.timings["total"] == 1000.0 * (len(steps) + 1)


def test_masks_that_overlap_lower_the_score_of_the_worse() -> None:
    """The anchors of neighbouring cells share a third of their pixels."""
    cells, logits = [(1, 1, 3.0), (1, 2, 2.0), (1, 4, 1.0)], [(2.0, NEVER), (1.5, NEVER), (1.2, -9)]
    stages = backbone(cells), box_head(*logits), mask_head(SURE, SURE, SURE)
    plain = pipeline(*stages, rescore=False)
    run = pipeline(*stages, rescore=False, soft_nms_threshold=0.2)
    sure, hidden, other = plain(IMAGE).scores
    found = run(IMAGE, score_threshold=0.2)
    lowered = hidden * (1 - 1 / 3) / (1 - 0.2)
    np.testing.assert_allclose(found.scores, [sure, other, lowered], rtol=1e-5)
    np.testing.assert_allclose(found.boxes[:, 0], [16, 112, 48], atol=1e-3)
    corners = [np.argwhere(mask)[0].tolist() for mask in found.masks.to_dense()]
    assert corners == [[16, 16], [16, 112], [16, 48]]
    assert len(run(IMAGE, score_threshold=0.7).scores) == 2
    assert len(plain(IMAGE, score_threshold=0.7).scores) == 3


def test_no_proposals() -> None:
    run = pipeline(backbone([]), NEVER_RUN, NEVER_RUN)
    found = run(IMAGE)
    assert len(found) == 0
    assert found.size == (128, 192)
    assert run.timings["total"] > 0


def test_no_detections() -> None:
    second = box_head((NEVER, NEVER), (NEVER, NEVER))
    found = pipeline(backbone([(1, 1, 3), (3, 4, 2)]), second, NEVER_RUN)(IMAGE)
    assert len(found) == 0
    assert len(second.inputs) == 1


def test_masks_that_rule_all_detections_out() -> None:
    second, third = box_head((SURE, NEVER), (SURE, NEVER)), mask_head(-3.0, -3.0)
    found = pipeline(backbone([(0, 0, 3), (3, 4, 2)]), second, third)(IMAGE)
    assert len(found) == 0
    assert found.masks.to_dense().shape == (0, 128, 192)


def test_order_after_rescoring() -> None:
    """The box scores order 0 1 2 becomes 2 0 1 when the masks are known."""
    first = backbone([(0, 0, 5), (0, 3, 4), (3, 5, 3)])
    second = box_head((2.0, NEVER), (1.5, NEVER), (NEVER, 1.2))
    found = pipeline(first, second, mask_head(0.8, 0.1, 4.0))(IMAGE)
    expected = [sigmoid(1.2) * sigmoid(4), sigmoid(2) * sigmoid(0.8)]
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)  # the last is below .5
    assert found.class_ids.tolist() == [18, 1]
    assert found.class_names == ["dog", "person"]
    np.testing.assert_allclose(found.boxes[1], [0, 0, 48, 48], atol=1e-3)
    plain = pipeline(first, second, mask_head(0.8, 0.1, 4.0), rescore=False)(IMAGE)
    np.testing.assert_allclose(plain.scores, [sigmoid(v) for v in (2, 1.5, 1.2)], atol=1e-5)


def test_score_threshold() -> None:
    stages = (
        backbone([(0, 0, 5), (0, 3, 4)]),
        box_head((2.0, NEVER), (1.0, NEVER)),
        mask_head(SURE, SURE),
    )
    assert len(pipeline(*stages)(IMAGE, score_threshold=0.7)) == 2
    assert len(pipeline(*stages)(IMAGE, score_threshold=0.8)) == 1
    assert len(pipeline(*stages)(IMAGE, score_threshold=0.9)) == 0


def test_a_score_at_the_threshold_is_kept() -> None:
    stages = backbone([(1, 2, 3)]), box_head((0.0, NEVER)), mask_head(SURE)
    run = pipeline(*stages, rescore=False)
    assert run(IMAGE, score_threshold=0.5).scores.tolist() == [0.5]


def test_the_packs_mask_threshold_decides_which_pixels_belong() -> None:
    stages = backbone([(1, 2, 3)]), box_head((SURE, NEVER)), mask_head(-0.4)  # 0.40
    assert pipeline(*stages, rescore=False, threshold=0.3)(IMAGE).masks.areas[0] > 3600
    assert pipeline(*stages, rescore=False)(IMAGE).masks.areas.tolist() == [0]


def test_max_detections_caps_before_the_masks() -> None:
    third = mask_head(SURE, SURE, SURE)
    stages = (
        backbone([(0, 0, 5), (0, 3, 4), (3, 5, 3)]),
        box_head((2.0, NEVER), (1.0, NEVER), (3.0, NEVER)),
        third,
    )
    found = pipeline(*stages)(IMAGE, max_detections=2)
    np.testing.assert_allclose(found.scores, [sigmoid(3), sigmoid(2)], atol=1e-4)
    assert len(third.inputs[0]) == 2


def test_max_proposals_takes_the_best_regions() -> None:
    second, third = box_head((1.0, NEVER), (3.0, NEVER)), mask_head(SURE, SURE)
    first = backbone([(0, 0, 5), (0, 3, 3), (3, 5, 4)])
    found = pipeline(first, second, third)(IMAGE, max_proposals=2)
    assert len(second.inputs[0]) == 2
    np.testing.assert_allclose(found.scores, [sigmoid(3), sigmoid(1)], atol=1e-4)
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    assert centres[0, 1] > centres[1, 1]  # the one below is the second best region


def test_class_specific_masks() -> None:
    """Each detection takes the mask of its own class: 3 for persons, 2 for dogs."""
    stages = (
        backbone([(0, 0, 5), (0, 3, 4)]),
        box_head((SURE, NEVER), (NEVER, SURE - 1)),
        mask_head(3.0, 3.0, channels=2),
    )
    found = pipeline(*stages, class_agnostic=False)(IMAGE)
    np.testing.assert_allclose(found.scores, [sigmoid(3), sigmoid(2)], atol=1e-4)
    assert found.class_names == ["person", "dog"]


def test_short_side() -> None:
    first = backbone([(1, 2, 3)], rows=8, columns=12)
    found = pipeline(first, box_head((SURE, NEVER)), mask_head(SURE))(IMAGE, short_side=128)
    assert first.inputs[0].shape == (1, 128, 192, 3)
    np.testing.assert_allclose(found.boxes, [[24, 8, 56, 40]], atol=1e-3)


def test_elongated_image() -> None:
    """Each axis has its own scale: 100x1000 becomes 32x128, not a padded 64x640."""
    first = backbone([(0, 3, 3)], rows=2, columns=8)
    image = np.zeros((100, 2000, 3), np.uint8)[:, ::2]  # a view works as well
    found = pipeline(first, box_head((SURE, NEVER)), mask_head(SURE))(image)
    assert first.inputs[0].shape == (1, 32, 128, 3)
    # the anchor 40 -8 72 24, clipped, times 1000/128 and 100/32
    np.testing.assert_allclose(found.boxes, [[312.5, 0, 562.5, 75]], atol=1e-2)


def test_max_aspect_is_the_packs() -> None:
    first = backbone([], rows=4, columns=16)
    run = pipeline(first, NEVER_RUN, NEVER_RUN)
    run.manifest["input"]["max_aspect"] = 4.0  # type: ignore[index]
    run(np.zeros((100, 400, 3), np.uint8))
    assert first.inputs[0].shape == (1, 64, 256, 3)


@pytest.mark.parametrize("resize", [None, "averaged", "bilinear"])
def test_how_a_pack_wants_its_images_resized(resize: str | None) -> None:
    """Averaged, where it does not say."""
    image = np.random.default_rng(0).integers(0, 256, (96, 144, 3)).astype(np.uint8)
    first = backbone([])
    first.params["image"] = (1 / 128, 0)
    manifest = copy.deepcopy(MANIFEST)
    if resize is not None:
        manifest["input"]["resize"] = resize
    stages = {"backbone": first, "box_head": NEVER_RUN, "mask_head": NEVER_RUN}
    Pipeline(manifest, stages)(image)
    size = InputSize((96, 144), (64, 96))
    wanted, other = (Shrinker(1, averaged)(image, size) for averaged in (True, False))
    if resize == "bilinear":
        wanted, other = other, wanted
    levels = (first.inputs[0][0].astype(int) + 128).astype(np.uint8)
    np.testing.assert_array_equal(levels, wanted)
    assert not np.array_equal(wanted, other)


def grey_levels() -> np.ndarray:
    """Return a 64x64 image with all values of a byte in all channels."""
    values = np.arange(64 * 64 * 3) * 7 % 256
    return values.reshape(64, 64, 3).astype(np.uint8)


def first_input(params: tuple[float, int], **changes: float) -> np.ndarray:
    """Return what the first stage is given for `grey_levels`."""
    first = backbone([], rows=4, columns=4)
    first.params["image"] = params
    run = pipeline(first, NEVER_RUN, NEVER_RUN)
    run.manifest["input"].update(changes)  # type: ignore[attr-defined]
    image = grey_levels()
    run(image)
    np.testing.assert_array_equal(image, grey_levels())  # the caller's array is untouched
    (given,) = first.inputs
    assert given.shape == (1, 64, 64, 3)
    return given[0]


def test_int8_input_by_flipping_a_bit_equals_the_formula() -> None:
    given = first_input((1 / 128, 0))
    real = (grey_levels().astype(np.float32) - 128) / 128
    assert given.dtype == np.int8
    np.testing.assert_array_equal(given, quantize(real, 1 / 128, 0))
    # the general path, taken because of the mean that is no longer 128 exactly, agrees
    np.testing.assert_array_equal(given, first_input((1 / 128, 0), mean=128.0001))


@pytest.mark.parametrize(
    ("params", "changes"),
    [
        ((0.01, 5), {}),
        ((0.02, -7), {"mean": 120.0, "std": 60.0}),
        ((1 / 128, 0), {"mean": 120.0, "std": 60.0}),
        ((1 / 128, 0), {"mean": 100.0, "std": 100.0}),
        ((1 / 128, 1), {}),
    ],
)
def test_int8_input_in_general(params: tuple[float, int], changes: dict[str, float]) -> None:
    mean, std = changes.get("mean", 128), changes.get("std", 128)
    real = (grey_levels().astype(np.float32) - np.float32(mean)) / np.float32(std)
    given = first_input(params, **changes)
    assert given.dtype == np.int8
    np.testing.assert_array_equal(given, quantize(real, *params))


def test_float_input() -> None:
    given = first_input((1.0, 0))
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, grey_levels() / 128 - 1, atol=1e-6)


TWO_LEVELS = {
    "output_size": 7,
    "sampling_ratio": 2,
    "features": ["p2", "p3"],
    "level_thresholds": [20.0],
}
BOXES = np.array([[3, 5, 20, 19], [0, 0, 96, 64], [50, 30, 90, 62]], np.float32)


def pooled(
    scales: tuple[float, float], wanted: tuple[float, int], features: list[np.ndarray]
) -> np.ndarray:
    """Return what the box head would be given for int8 features of two levels."""
    params = {f"p{n + 2}": (scale, -128) for n, scale in enumerate(scales)}
    manifest = copy.deepcopy(MANIFEST)
    manifest["roi"] = {
        "features": ["p2", "p3"], "strides": [8, 16], "box": TWO_LEVELS, "mask": TWO_LEVELS,
    }  # fmt: skip
    stages = {
        "backbone": Fake({}, params),
        "box_head": Fake({}, {"rois": wanted}),
        "mask_head": NEVER_RUN,
    }
    raw = {
        f"p{n + 2}": quantize(level, *params[f"p{n + 2}"])[None] for n, level in enumerate(features)
    }
    return Pipeline(manifest, stages).pool(raw, BOXES, "box")


@pytest.mark.parametrize("scales", [(6 / 255, 6 / 255), (6 / 255, 1.5 / 255), (2 / 255, 6 / 255)])
@pytest.mark.parametrize("wanted", [(6 / 255, -128), (0.03, -100), (1.0, 0)])
def test_levels_of_different_scale(scales: tuple[float, float], wanted: tuple[float, int]) -> None:
    """The head is given the same real values, whatever codes the levels use."""
    random = np.random.default_rng(0)
    features = [
        random.uniform(0, 255 * scale, (64 // stride, 96 // stride, 8)).astype(np.float32)
        for scale, stride in zip(scales, (8, 16), strict=True)
    ]
    level_ids = np.array([0, 1, 1])
    exact = roi_align(features, BOXES, level_ids, [8, 16], 7, 2, exact=True)
    found = pooled(scales, wanted, features)
    if wanted == (1.0, 0):
        assert found.dtype == np.float32
        real, step = found, 0.0
    else:
        assert found.dtype == np.int8
        real, step = (found.astype(np.float32) - wanted[1]) * np.float32(wanted[0]), wanted[0]
    error = np.abs(real - exact)
    # half a step of the head's code and half a step of the level's
    for n, level in enumerate(level_ids):
        assert error[n].max() <= 0.5 * step + 0.5 * scales[level] + 1e-5


def test_features_beyond_the_heads_range_saturate() -> None:
    """A head that was calibrated on smaller features must not see them wrap around."""
    settings = {"output_size": 7, "sampling_ratio": 2, "features": ["p2"], "level_thresholds": []}
    manifest = copy.deepcopy(MANIFEST)
    manifest["roi"] = {"features": ["p2"], "strides": [16], "box": settings, "mask": settings}
    stages = {
        "backbone": Fake({}, {"p2": (6 / 255, -128)}),
        "box_head": Fake({}, {"rois": (2 / 255, -128)}),
    }
    raw = {"p2": quantize(np.full((1, 4, 6, 8), 5.0), 6 / 255, -128)}
    found = Pipeline(manifest, stages).pool(raw, np.array([[8, 8, 60, 50]], np.float32), "box")
    assert found.dtype == np.int8
    assert (found == 127).all()
