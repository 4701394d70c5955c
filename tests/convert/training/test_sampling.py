"""What is drawn at random, and at which IoU an anchor or a region counts."""

from __future__ import annotations

import numpy as np
import pytest
from edgemask_convert.training.targets import assign_by_iou, head_rois, sample_rois

from .test_region_targets import OBJECTS, PROPOSALS, SEED, SIDE, VALID, head_sample, rows, sample
from .test_targets import NOTHING, TWO, assign, assign_iou


def test_the_ninth_nearest_anchor_counts() -> None:
    # IoU .27 twice, .23 twice, and 0: of nine candidates mean .11 + deviation .09 = .20; of eight
    # the threshold would be .25.
    found = assign([[8, 1, 16, 31]])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [1, 5, 9, 13])


def test_from_which_iou_on_an_anchor_is_positive() -> None:
    """The best of the object is another one: IoU .75 is enough, .65 teaches nothing."""
    anchors = np.array([[0, 0, 8, 8], [0, 0, 8, 6], [0, 0, 8, 5.2], [0, 0, 8, 2]], np.float32)
    ones = np.ones(1, np.float32)
    found = assign_by_iou(
        anchors, np.array([[[0, 0, 8, 8]]], np.float32), ones[None], NOTHING, ones
    )
    np.testing.assert_array_equal(found.positive, [[True, True, False, False]])
    np.testing.assert_array_equal(found.negative, [[0, 0, 0, 1]])


def test_padding_matches_nothing() -> None:
    """Whatever its box is."""
    found = assign_iou([[0, 0, 8, 8], [16, 16, 24, 24]], valid=[1, 0])
    np.testing.assert_array_equal(np.flatnonzero(found.positive), [0])
    assert found.negative[10] == 1
    boxes = OBJECTS.copy()
    boxes[0, 2] = [0, 40, 20, 60]  # of a proposal that is background
    regions = sample_rois(
        np.pad(PROPOSALS, ((0, 0), (0, 24), (0, 0))), boxes, VALID, NOTHING,
        np.ones(1, np.float32), SIDE, 16, 8, SEED,
    )  # fmt: skip
    positive = regions.boxes[0].numpy()[regions.positive[0].numpy() > 0]
    assert (0, 40, 20, 60) not in rows(positive)


def test_background_is_drawn_at_random() -> None:
    """There is room for one of the three regions of background."""
    seen = set()
    for seed in range(20):
        found = sample(count=3, most=2, seed=seed)
        assert found["weight"].tolist() == [1, 1, 1]
        seen |= rows(found["boxes"][found["positive"] == 0])
    assert seen == rows(PROPOSALS[0, [2, 4, 5]])


def test_a_heads_regions_are_drawn_at_random() -> None:
    """There is room for one of the three that are positive."""
    regions = head_sample()
    seen = set()
    for seed in range(30):
        rois, _, weight = head_rois(
            regions, regions.boxes.reshape(-1, 4), TWO, np.ones((1, 2), "f4"), SIDE, 1,
            np.array([seed, 1], "i4"),
        )  # fmt: skip
        assert weight.numpy().tolist() == [[1]]
        seen |= rows(rois[0].numpy())
    assert seen == rows(regions.boxes[0, :3])


@pytest.mark.parametrize("edge", range(4))
def test_objects_are_moved_inwards_and_outwards(edge: int) -> None:
    moves = []
    for seed in range(20):
        found = sample(proposals=np.zeros((1, 1, 4), np.float32), seed=seed)
        positive = found["positive"] > 0
        moves += (found["boxes"] - OBJECTS[0, found["matched"]])[positive, edge].tolist()
    assert min(moves) < -1 < 1 < max(moves)
