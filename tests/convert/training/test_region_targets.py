"""Which regions the heads learn on, and where keypoints lie in their heatmaps."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.training.targets import (
    RoISample,
    head_rois,
    heatmaps,
    sample_rois,
)

from edgemask.keypoints import decode_heatmaps

from .test_targets import NOTHING, TWO

SEED = np.array([0, 5], np.int32)
SIDE = 96.0  # of the image that RoIs are sampled in
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
