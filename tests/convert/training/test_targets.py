"""Assignment and sampling on a 4x4 grid of 8-pixel anchors, where everything can be counted."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.training.targets import (
    AnchorTargets,
    RoISample,
    assign_anchors,
    assign_by_iou,
    head_rois,
    heatmaps,
    sample_rois,
)

from edgemask.anchors import pyramid_anchors
from edgemask.keypoints import decode_heatmaps

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


def test_heatmaps_of_one_cell() -> None:
    """An 8 x 16 box of 4 x 4 cells: a cell is 2 wide and 4 high."""
    boxes = np.array([[10, 20, 18, 36]], np.float32)
    places = [[10, 20, 2], [17.9, 35.9, 1], [13.0, 29, 2], [18, 30, 2], [9.9, 30, 2], [13, 29, 0]]
    target, weight = heatmaps(np.array([places], np.float32), boxes, 4, 0.0)
    # on the right edge, left of the box, and not labelled: nothing to learn
    np.testing.assert_array_equal(weight, [[1, 1, 1, 0, 0, 0]])
    found = np.asarray(target)[0]
    assert found.shape == (4, 4, 6)
    for channel, (row, column) in enumerate([(0, 0), (3, 3), (2, 1)]):
        expected = np.zeros((4, 4))
        expected[row, column] = 1
        np.testing.assert_array_equal(found[..., channel], expected)


def test_heatmaps_of_a_gaussian() -> None:
    """Sums to 1, and is decoded to where the keypoint was."""
    random = np.random.default_rng(0)
    boxes = np.array([[10, 20, 66, 132], [0, 0, 14, 28]], np.float32)
    inside = random.uniform(0.15, 0.85, (2, 17, 2)).astype(np.float32)
    points = boxes[:, None, :2] + inside * (boxes[:, None, 2:] - boxes[:, None, :2])
    keypoints = np.concatenate([points, np.full((2, 17, 1), 2, np.float32)], axis=2)
    target, weight = heatmaps(keypoints, boxes, 28, 1.0)
    assert (np.asarray(weight) == 1).all()
    np.testing.assert_allclose(np.sum(target, axis=(1, 2)), 1, rtol=1e-5)
    # one cell from the peak a normal distribution has fallen to exp(-1/2)
    middle, _ = heatmaps(np.array([[[39, 78, 1]]], np.float32), boxes[:1], 28, 1.0)
    peak = np.asarray(middle)[0, :, :, 0]
    assert peak.argmax() == 14 * 28 + 14
    np.testing.assert_allclose(peak[14, [13, 15]] / peak[14, 14], np.exp(-0.5), rtol=1e-4)
    found = decode_heatmaps(np.log(np.asarray(target) + 1e-30), 1.0, boxes)
    np.testing.assert_allclose(found[..., :2], points, atol=0.01)


def head_sample() -> RoISample:
    """Four regions of one image: two of object 0, one of object 1, one of background."""
    boxes = np.array([[[0, 0, 20, 20], [2, 0, 22, 20], [50, 50, 90, 90], [5, 60, 30, 80]]], "f4")
    return RoISample(
        boxes, np.array([[0, 0, 1, 1]], "i4"), np.array([[1, 1, 1, 0]], "f4"), np.ones((1, 4), "f4")
    )


TWO = np.array([[[0, 0, 20, 20], [48, 48, 92, 92]]], np.float32)


@pytest.mark.parametrize(("usable", "wanted"), [([1, 1], 3), ([1, 0], 2), ([0, 1], 1), ([0, 0], 0)])
def test_head_rois_are_positive_and_usable(usable: list[float], wanted: int) -> None:
    sample = head_sample()
    refined = sample.boxes.reshape(-1, 4)
    rois, matched, weight = head_rois(sample, refined, TWO, np.array([usable], "f4"), SIDE, 4, SEED)
    weight = np.asarray(weight)[0]
    assert weight.sum() == wanted
    for box, number, counts in zip(
        np.asarray(rois)[0], np.asarray(matched)[0], weight, strict=True
    ):
        if counts:
            assert usable[number] == 1
            assert box.tolist() in sample.boxes[0, :3].tolist()
        else:
            assert (box[2:] > box[:2]).all()  # harmless, not degenerate


def test_head_rois_are_refined_boxes_half_of_the_time() -> None:
    """Unless refinement lost the object: then the proposal is kept."""
    sample = head_sample()
    refined = sample.boxes.reshape(-1, 4) + np.float32(1)
    refined[2] = [0, 0, 5, 5]
    seen: dict[int, set] = {0: set(), 1: set()}
    for seed in range(20):
        rois, matched, weight = head_rois(
            sample, refined, TWO, np.ones((1, 2), "f4"), SIDE, 3, np.array([seed, 1], "i4")
        )
        assert np.asarray(weight).sum() == 3
        for box, number in zip(np.asarray(rois)[0], np.asarray(matched)[0], strict=True):
            seen[int(number)].add(tuple(box.tolist()))
    assert seen[0] == {(0, 0, 20, 20), (1, 1, 21, 21), (2, 0, 22, 20), (3, 1, 23, 21)}
    assert seen[1] == {(50, 50, 90, 90)}


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


def test_each_side_is_moved_by_its_own_length() -> None:
    wide = np.array([[[10, 40, 80, 50], [40, 10, 50, 80]]], np.float32)
    for seed in range(10):
        found = sample_rois(
            np.zeros((1, 20, 4), np.float32), wide, np.ones((1, 2), np.float32), NOTHING,
            np.ones(1, np.float32), SIDE, 8, 4, SEED + seed,
        )  # fmt: skip
        for box, matched, counts in zip(
            found.boxes[0].numpy(), found.matched[0].numpy(), found.weight[0].numpy(), strict=True
        ):
            if counts:
                sides = np.tile(wide[0, matched, 2:] - wide[0, matched, :2], 2)
                assert (np.abs(box - wide[0, matched]) <= 0.12 * sides + 1e-4).all()


def test_refined_boxes_stay_inside_and_take_no_gradient() -> None:
    sample = head_sample()
    refined = tf.Variable(np.array([[-3, -2, 20, 20], [-3, -2, 20, 20], [50, 50, 99, 97],
                                    [0, 0, 1, 1]], np.float32))  # fmt: skip
    for seed in range(10):
        with tf.GradientTape() as tape:
            rois, _, weight = head_rois(
                sample, refined, TWO, np.ones((1, 2), "f4"), SIDE, 3, np.array([seed, 1], "i4")
            )
            value = tf.reduce_sum(rois)
        assert np.asarray(weight).sum() == 3
        assert rois.numpy().min() >= 0
        assert rois.numpy().max() <= SIDE
        assert tape.gradient(value, refined) is None
