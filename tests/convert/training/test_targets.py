"""Assignment on a 4x4 grid of 8-pixel anchors, where everything can be counted."""

from __future__ import annotations

import numpy as np
import pytest
from edgemask_convert.training.targets import (
    AnchorTargets,
    assign_anchors,
    assign_by_iou,
)

from edgemask.anchors import pyramid_anchors

ANCHORS = pyramid_anchors([(4, 4)], [8], [8], [1.0])  # side by side, without overlap
NOTHING = np.zeros((1, 2, 4), np.float32)


def assign(
    boxes: list[list[float]],
    ignore: list[list[float]] | None = None,
    exhaustive: float = 1,
    valid: list[float] | None = None,
) -> AnchorTargets:
    """Assign one image."""
    objects = np.array([boxes], np.float32).reshape(1, -1, 4)
    flags = np.ones(objects.shape[:2], np.float32) if valid is None else np.array([valid], "f4")
    regions = NOTHING if ignore is None else np.array([ignore], np.float32)
    targets = assign_anchors(
        ANCHORS, [16], objects, flags, regions, np.array([exhaustive], np.float32)
    )
    return AnchorTargets(*(np.asarray(part)[0] for part in targets))


def test_adaptive_threshold() -> None:
    # The object covers anchors 0 1 4 5, IoU 64/256 each. The nine nearest are those, the four
    # next to them and number 10: mean .111 + deviation .124 = .235, below .25.
    found = assign([[0, 0, 16, 16]])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [0, 1, 4, 5])
    np.testing.assert_array_equal(found.negative, ~found.positive)
    assert (found.matched[found.positive] == 0).all()


def test_exact_match_beats_the_rest() -> None:
    # IoU 1 for anchor 5 and 0 for eight others: mean .111 + deviation .314
    found = assign([[8, 8, 16, 16]])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [5])


def test_centre_must_lie_inside() -> None:
    # 10 pixels wide from x = 5: anchor 5 lies inside; anchor 4, a third covered, has its centre
    # at x = 4, outside.
    found = assign([[5, 8, 16, 16]])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [5])


def test_anchor_of_two_objects_goes_to_the_better() -> None:
    found = assign([[0, 0, 16, 16], [0, 0, 8, 8]])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [0, 1, 4, 5])
    np.testing.assert_array_equal(found.matched[[0, 1, 4, 5]], [1, 0, 0, 0])


def test_tiny_object_between_centres() -> None:
    # No centre lies in [6, 9]²; anchor 0 has 2x2 pixels of it, its neighbours 2x1 and 1x1.
    found = assign([[6, 6, 9, 9]])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [0])
    assert found.matched[0] == 0


def test_tiny_object_on_a_centre() -> None:
    found = assign([[3, 3, 5, 5]])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [0])


def test_several_levels() -> None:
    anchors = pyramid_anchors([(4, 4), (2, 2)], [8, 16], [8, 16], [1.0])
    box = np.array([[[0, 0, 16, 16]]], np.float32)
    found = assign_anchors(
        anchors, [16, 4], box, np.ones((1, 1), np.float32), NOTHING, np.ones(1, np.float32)
    )
    # All of level 2 are candidates. IoU 1 at its first, .25 four times, 0 eight times:
    # mean .154 + deviation .274 leaves only the exact one.
    np.testing.assert_array_equal(np.flatnonzero(found.positive[0]), [16])


def test_no_objects() -> None:
    found = assign([[0, 0, 0, 0]], valid=[0])
    assert not found.positive.any()
    assert (found.negative == 1).all()


def test_padding_takes_no_anchor() -> None:
    found = assign([[0, 0, 8, 8], [16, 16, 24, 24]], valid=[1, 0])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [0])


def test_object_beyond_all_anchors() -> None:
    found = assign([[100, 100, 110, 110]])
    assert not found.positive.any()


def test_ignore_region() -> None:
    # The region covers 10 11 14 15, and exactly half of 2: half is not "mostly".
    found = assign([[0, 0, 8, 8]], ignore=[[16, 16, 32, 32], [16, 0, 20, 8]])
    np.testing.assert_array_equal(np.flatnonzero(found.negative == 0), [0, 10, 11, 14, 15])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [0])


def test_object_inside_an_ignore_region_is_learnt() -> None:
    found = assign([[16, 16, 24, 24]], ignore=[[16, 16, 32, 32], [0, 0, 0, 0]])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [10])


def test_image_that_is_not_exhaustive() -> None:
    found = assign([[0, 0, 8, 8]], exhaustive=0)
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [0])
    assert not found.negative.any()


# RoI sampling


TWO = np.array([[[0, 0, 20, 20], [48, 48, 92, 92]]], np.float32)


def assign_iou(
    boxes: list[list[float]],
    valid: list[float] | None = None,
    ignore: list[list[float]] | None = None,
    exhaustive: float = 1,
) -> AnchorTargets:
    """Assign one image by IoU alone."""
    objects = np.array([boxes], np.float32).reshape(1, -1, 4)
    flags = np.ones(objects.shape[:2], np.float32) if valid is None else np.array([valid], "f4")
    regions = NOTHING if ignore is None else np.array([ignore], np.float32)
    targets = assign_by_iou(ANCHORS, objects, flags, regions, np.array([exhaustive], np.float32))
    return AnchorTargets(*(np.asarray(part)[0] for part in targets))


def test_iou_assignment() -> None:
    # Anchor 5 is [8, 8, 16, 16]; shifted by 1 the IoU is 56/72 = .78, and 8/120 with anchor 6.
    # The second object's best anchor is 0 with 32/64: positive, though below .7.
    found = assign_iou([[9, 8, 17, 16], [0, 0, 8, 4]])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [0, 5])
    np.testing.assert_array_equal(found.matched[[0, 5]], [1, 0])
    np.testing.assert_array_equal(found.negative, ~found.positive)


def test_iou_between_learns_nothing() -> None:
    # Anchors 5 and 6 share the object: IoU 5 x 8 / (64 + 64 - 40) = .45 and 24 / 104 = .23
    found = assign_iou([[11, 8, 19, 16], [11, 8, 19, 16]])
    assert found.positive[5]
    assert found.negative[6] == 1
    # Two anchors are equally good, IoU 64/128: both are the best.
    wide = assign_iou([[0, 0, 16, 8]])
    np.testing.assert_array_equal(np.flatnonzero(wide.positive), [0, 1])
    # IoU 64/104 with anchor 0 and 40/128 = .31 with anchor 1: too much for background.
    uneven = assign_iou([[0, 0, 13, 8]])
    np.testing.assert_array_equal(np.flatnonzero(uneven.positive), [0])
    assert uneven.negative[1] == 0


def test_iou_assignment_without_objects() -> None:
    found = assign_iou([[0, 0, 0, 0]], valid=[0])
    assert not found.positive.any()
    assert found.negative.all()
    assert not assign_iou([[0, 0, 0, 0]], valid=[0], exhaustive=0).negative.any()
    crowd = assign_iou([[0, 0, 0, 0]], valid=[0], ignore=[[0, 0, 16, 16]])
    assert np.flatnonzero(crowd.negative == 0).tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize(
    "box", [[4.5, 8, 12.5, 16], [8, 4.5, 16, 12.5], [11.5, 8, 19.5, 16], [8, 11.5, 16, 19.5]]
)
def test_centre_must_lie_inside_on_every_side(box: list[float]) -> None:
    # Anchor 5 has IoU .39 and its centre half a pixel inside; the neighbour's .28 is above the
    # threshold of .20 or .22, but its centre is half a pixel outside.
    np.testing.assert_array_equal(np.flatnonzero(assign([box]).positive), [5])


def test_nine_anchors_of_a_level_are_candidates() -> None:
    # IoU .46, .31, .08, .06 and 0: mean .10 + deviation .16 of nine. Of the nearest three the
    # threshold would be .44.
    found = assign([[0, 0, 14, 10]])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [0, 1])


def test_candidates_of_all_levels_count() -> None:
    anchors = pyramid_anchors([(4, 4), (2, 2)], [8, 16], [8, 16], [1.0])
    box = np.array([[[0, 0, 16, 10]]], np.float32)
    found = assign_anchors(
        anchors, [16, 4], box, np.ones((1, 1), np.float32), NOTHING, np.ones(1, np.float32)
    )
    # IoU .625, .4 and .4, .077 twice and 0 of 13 candidates: mean .121 + deviation .202
    np.testing.assert_array_equal(np.flatnonzero(found.positive[0]), [0, 1, 16])
