"""The parts of a lesson, worked out by hand: regions, objects, deltas and what anchors learn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgemask_convert.arch.manifest import build_manifest
from edgemask_convert.compress.lessons import (
    LessonError,
    _encoded,
    _moved,
    _objects,
    _rpn_lesson,
    _sample,
    _View,
    lessons,
)

from edgemask import boxes as bx
from edgemask.anchors import anchors_of
from edgemask.geometry import fit_input
from edgemask.pipeline import Pipeline

from ..conftest import CLASSES
from .test_lessons import Says, float_pipeline, saying


def numbered(count: int) -> np.ndarray:
    """Boxes of 20 pixels that their place tells apart."""
    corner = np.arange(count, dtype=np.float32)[:, None].repeat(2, 1)
    return np.concatenate([corner, corner + 20], 1)


def test_the_best_proposals_and_some_others_are_looked_at() -> None:
    chosen = _sample(numbered(90), np.random.default_rng(0))[:, 0].tolist()
    assert chosen[:32] == list(range(32))
    assert len(set(chosen[32:])) == len(chosen[32:]) == 10
    assert min(chosen[32:]) >= 32
    for count in (0, 20, 35):
        few = _sample(numbered(count), np.random.default_rng(0))[:, 0]
        assert sorted(few) == list(range(count))


def test_a_quarter_of_the_regions_is_moved_a_little() -> None:
    boxes = np.tile(np.float32([[20, 30, 60, 50]]), (400, 1))
    found = _moved(boxes, 100, 100, np.random.default_rng(0))
    moves = found - boxes
    assert 60 < (moves != 0).any(1).sum() < 140
    assert np.abs(moves[:, [0, 2]]).max() == pytest.approx(0.12 * 40, rel=0.05)
    assert np.abs(moves[:, [1, 3]]).max() == pytest.approx(0.12 * 20, rel=0.05)


def test_regions_end_where_the_photograph_does() -> None:
    """Those of which less than two pixels are left are gone."""
    boxes = np.float32([[-5, 10, 20, 30], [40, 40, 70, 41], [-9, -9, 0.5, 5], [50, 60, 90, 95]])
    found = _moved(np.tile(boxes, (20, 1)), 80, 64, np.random.default_rng(1))
    assert found.min() == 0
    assert found[:, 2].max() == 64
    assert found[:, 3].max() == 80
    assert len(found) == 40


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_pooled_of_a_region(exact: bool) -> None:
    """As trained: from the pixel inside its corner, and one cell of 16 pixels at least."""
    teacher = SimpleNamespace(pool=lambda outputs, boxes, head: boxes)
    view: Any = SimpleNamespace(turned=lambda boxes: boxes, teacher=teacher, outputs={})
    boxes = np.float32([[10, 20, 60, 70], [10, 20, 14, 24]])
    found = _View.pool(view, boxes, "box", exact)
    expected = [[11, 21, 60, 70], [11, 21, 27, 37]] if exact else boxes
    np.testing.assert_array_equal(found, expected)


def test_objects_of_both_views() -> None:
    """Background first; a class of .05 counts, and of two in one place the likelier remains."""
    probabilities = np.float32([[0.1, 0.9, 0.0], [0.3, 0.7, 0.0], [0.9, 0.04, 0.06]])
    boxes = np.float32([[0, 0, 20, 20], [1, 0, 20, 20], [40, 40, 90, 90]])
    refined = boxes[:, None].repeat(2, 1)
    size = fit_input(64, 64, 64, 16)
    found, scores, columns = _objects(probabilities, refined, size)
    np.testing.assert_array_equal(found, [[0, 0, 20, 20], [40, 40, 64, 64]])
    np.testing.assert_allclose(scores, [0.9, 0.06])
    assert columns.tolist() == [0, 1]


def test_deltas_lead_from_a_region_to_its_boxes() -> None:
    teacher: Any = SimpleNamespace(manifest={"detections": {"box_weights": [10, 10, 5, 5]}})
    rois = np.float32([[0, 0, 20, 20], [10, 10, 30, 50]])
    boxes = np.float32([
        [[4, 0, 24, 20], [0, 0, 20, 20]],  # a fifth of the width to the right; as it is
        [[10, 10, 30, 50], [30, 10, 20, 50]],  # as it is; without a width
    ])  # fmt: skip
    found = _encoded(boxes, rois, teacher)
    np.testing.assert_allclose(found[0], [[2, 0, 0, 0], [0, 0, 0, 0]], atol=1e-2)
    np.testing.assert_allclose(found[1, 0], 0, atol=1e-2)
    assert np.isfinite(found).all()
    assert found[1, 1, 2] == pytest.approx(5 * np.log(0.5 / 20), rel=1e-2)


def test_an_anchor_learns_how_well_its_box_fits(tiny_2go: Any) -> None:
    """Boxes are decoded first: here each lies half its width right of its anchor."""
    settings = build_manifest(tiny_2go.config, CLASSES)["rpn"]
    anchors = anchors_of(settings, [(4, 4)])
    deltas = np.tile(np.float32([0.5, 0, 0, 0]), (len(anchors), 1))
    values = {
        "rpn_logits_4": np.full((1, 4, 4, 3), -np.log(3), np.float32),  # a quarter
        "rpn_deltas_4": deltas.reshape(1, 4, 4, 12),
    }
    view: Any = SimpleNamespace(
        values=values.__getitem__, turned=lambda boxes: boxes, size=(64, 64),
        teacher=SimpleNamespace(manifest={"rpn": settings}),
    )  # fmt: skip
    boxes = bx.clip(bx.decode(deltas, anchors, settings["box_weights"]), 64, 64)
    number = 3 * 5  # the small anchor of the cell in row 1, column 1
    found, kept = _rpn_lesson(view, boxes[[number]], np.float32([0.64]))
    np.testing.assert_allclose(kept.reshape(-1, 4), deltas)
    overlap = bx.iou_matrix(boxes, boxes[[number]])[:, 0]
    expected = (0.25 + 0.8 * np.clip((overlap - 0.3) / 0.5, 0, 1)) / 2
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-3)
    assert found.argmax() == number
    assert found.min() == pytest.approx(0.125, abs=1e-3)


class Widens(Says):
    """The second class is e^.2 times as wide as its region."""

    def run(self, rois: np.ndarray) -> dict[str, np.ndarray]:
        found = super().run(rois)
        found["deltas"][:, 6] = 1
        return found


def test_the_likeliest_class_comes_first(tiny_2go: Any, drawn_images: list[np.ndarray]) -> None:
    """Its deltas too."""
    teacher = float_pipeline(tiny_2go, CLASSES)
    head = Widens(teacher.stages["box_head"], [0, 1, 2], [0, 1, 2])
    teacher = Pipeline(teacher.manifest, {**teacher.stages, "box_head": head})
    for lesson in lessons(teacher, drawn_images[:1]):
        assert set(map(tuple, lesson.columns.tolist())) == {(1, 0)}
        np.testing.assert_allclose(lesson.deltas[:, 0, 2], 1, atol=2e-2)
        np.testing.assert_allclose(lesson.deltas[:, 1, 2], 0, atol=2e-2)


def test_doubtful_objects_teach_no_mask(tiny_2go: Any, drawn_images: list[np.ndarray]) -> None:
    """The rpn hears of a score of .07, the mask head does not; of many it hears of 14."""
    for score, masks in ((0.07, False), (0.5, True)):
        logits = [float(np.log(1 - score)), float(np.log(score)), -50.0]
        lesson = next(iter(lessons(saying(tiny_2go, logits, logits), drawn_images[:1])))
        assert lesson.objectness.max() > 0.5 * score**0.5
        assert bool(len(lesson.masks)) == masks
        assert len(lesson.masks) <= 14


def test_masks_are_those_of_the_photograph() -> None:
    """Those of its mirror image are turned back; each is of its own class."""
    logits = np.zeros((2, 1, 2, 2), np.float32)
    logits[0, 0, :, 1] = logits[1, 0, :, 0] = [50, -50]
    head = SimpleNamespace(run=lambda rois: {"logits": logits}, quantization=lambda name: (1.0, 0))
    teacher = SimpleNamespace(stages={"mask_head": head})
    for mirrored, row in ((False, [1, 0]), (True, [0, 1])):
        view: Any = SimpleNamespace(teacher=teacher, mirrored=mirrored, pool=lambda *_, **__: None)
        found = _View.masks(view, np.zeros((2, 4), np.float32), np.array([1, 0], np.int32))
        np.testing.assert_allclose(found, [[row], [row]], atol=1e-6)


def test_a_student_reads_what_the_device_pools() -> None:
    asked: list[bool] = []
    head = SimpleNamespace(quantization=lambda name: (0.5, 2))
    view: Any = SimpleNamespace(
        teacher=SimpleNamespace(stages={"box_head": head}),
        pool=lambda boxes, name, exact=False: asked.append(exact) or np.int8([[4, 2]]),
    )
    found = _View.student_regions(view, np.zeros((1, 4), np.float32), "box")
    assert found.tolist() == [[1, 0]]
    assert asked == [False]


def test_a_network_of_sigmoids_teaches_no_parts() -> None:
    manifest = {"detections": {}, "roi": {"strides": [16]}}
    teacher: Any = SimpleNamespace(manifest=manifest)
    with pytest.raises(LessonError, match="maskrcnn2go"):
        list(lessons(teacher, []))


def test_each_region_is_in_one_of_the_two_lessons(
    tiny_2go: Any, drawn_images: list[np.ndarray]
) -> None:
    """At most 42 of each view are looked at."""
    given = lessons(float_pipeline(tiny_2go, CLASSES), drawn_images[:1])
    counts = [len(lesson.regions) for lesson in given]
    assert 42 < sum(counts) <= 84
