"""Assignment and sampling on a 4x4 grid of 8-pixel anchors, where everything can be counted."""

from __future__ import annotations

import numpy as np
import pytest
from edgemask_convert.targets import AnchorTargets, assign_anchors, sample_rois

from edgemask.anchors import pyramid_anchors

ANCHORS = pyramid_anchors([(4, 4)], [8], [8], [1.0])  # side by side, without overlap
SEED = np.array([0, 5], np.int32)
SIDE = 96.0  # of the image that RoIs are sampled in
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

OBJECTS = np.array([[[10, 10, 30, 30], [40, 40, 60, 60], [0, 0, 0, 0]]], np.float32)
VALID = np.array([[1, 1, 0]], np.float32)
PROPOSALS = np.array(
    [
        [
            [10, 10, 30, 30],  # IoU 1 with the first
            [10, 10, 30, 50],  # IoU .5 with the first: just positive
            [10, 10, 30, 51],  # just not
            [41, 40, 61, 60],  # IoU 19/21 with the second
            [0, 40, 20, 60],  # background
            [20, 0, 40, 9],  # background
            [0, 0, 0, 0],  # padding
            [70, 70, 70.5, 71],  # too small to be real
        ]
    ],
    np.float32,
)


def sample(
    count: int = 16,
    most: int = 8,
    ignore: list[list[float]] | None = None,
    exhaustive: float = 1,
    seed: int = 0,
    proposals: np.ndarray = PROPOSALS,
) -> dict[str, np.ndarray]:
    """Sample one image; padded proposals fill it up to `count`."""
    padded = np.pad(proposals, ((0, 0), (0, 24), (0, 0)))
    regions = NOTHING if ignore is None else np.array([ignore], np.float32)
    chosen = sample_rois(
        padded,
        OBJECTS,
        VALID,
        regions,
        np.array([exhaustive], np.float32),
        SIDE,
        count,
        most,
        SEED + seed,
    )
    return {name: np.asarray(part)[0] for name, part in chosen._asdict().items()}


def rows(boxes: np.ndarray) -> set[tuple[float, ...]]:
    """Return boxes as a set."""
    return {tuple(box) for box in boxes.tolist()}


def test_sample() -> None:
    found = sample()
    positive, negative = found["positive"] > 0, (found["weight"] > 0) & (found["positive"] == 0)
    given = rows(PROPOSALS[0])
    assert rows(found["boxes"][positive]) & given == rows(PROPOSALS[0, [0, 1, 3]])
    assert rows(found["boxes"][negative]) == rows(PROPOSALS[0, [2, 4, 5]])
    # the two objects themselves, moved a little, are positive as well
    assert positive.sum() == 5
    assert (found["weight"] == 0).sum() == 16 - 8
    for box, matched in zip(found["boxes"][positive], found["matched"][positive], strict=True):
        assert np.abs(box - OBJECTS[0, matched]).max() <= 20


def test_moved_objects_stay_near() -> None:
    for seed in range(20):
        found = sample(proposals=np.zeros((1, 1, 4), np.float32), seed=seed)
        moved = found["boxes"][found["positive"] > 0]
        assert len(moved) == 2
        objects = OBJECTS[0][found["matched"][found["positive"] > 0]]
        assert 0 < np.abs(moved - objects).max() <= 0.12 * 20 + 1e-4


def test_moved_objects_stay_inside_the_image() -> None:
    boxes = np.array([[[0, 0, 96, 96], [60, 70, 96, 96], [0, 0, 0, 0]]], np.float32)
    for seed in range(10):
        chosen = sample_rois(
            np.zeros((1, 30, 4), np.float32), boxes, VALID, NOTHING, np.ones(1, np.float32),
            SIDE, 16, 8, SEED + seed,
        )  # fmt: skip
        assert chosen.boxes.numpy().min() >= 0
        assert chosen.boxes.numpy().max() <= SIDE


def test_at_most_so_many_positives() -> None:
    found = sample(most=2)
    assert found["positive"].sum() == 2
    # a positive that was not drawn must not come back as background
    assert found["weight"].sum() == 2 + 3


def test_count_is_shared_with_positives_first() -> None:
    found = sample(count=6)
    assert found["weight"].sum() == 6
    assert found["positive"].sum() == 5


def test_sample_ignores_regions() -> None:
    found = sample(ignore=[[0, 35, 25, 65], [0, 0, 0, 0]])
    negative = (found["weight"] > 0) & (found["positive"] == 0)
    assert rows(found["boxes"][negative]) == rows(PROPOSALS[0, [2, 5]])


def test_sample_of_an_image_that_is_not_exhaustive() -> None:
    found = sample(exhaustive=0)
    np.testing.assert_array_equal(found["weight"], found["positive"])
    assert found["positive"].sum() == 5


def test_sample_is_repeatable() -> None:
    first, again, other = sample(most=2), sample(most=2), sample(most=2, seed=3)
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    assert any((first[key] != other[key]).any() for key in first)


@pytest.mark.parametrize("objects", [0, 1])
def test_batch_images_do_not_mix(objects: int) -> None:
    boxes = np.zeros((2, 3, 4), np.float32)
    boxes[objects] = OBJECTS[0]
    valid = np.zeros((2, 3), np.float32)
    valid[objects] = VALID[0]
    proposals = np.repeat(np.pad(PROPOSALS, ((0, 0), (0, 24), (0, 0))), 2, axis=0)
    none = np.zeros((2, 1, 4), np.float32)
    chosen = sample_rois(proposals, boxes, valid, none, np.ones(2, np.float32), SIDE, 16, 8, SEED)
    assert chosen.positive[objects].numpy().sum() == 5
    assert chosen.positive[1 - objects].numpy().sum() == 0
