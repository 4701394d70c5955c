"""Where crops lie, how they are coloured, and what they say of their objects."""

from __future__ import annotations

import dataclasses

import numpy as np
from edgemask_convert.data.augment import MAX_IGNORE, MAX_OBJECTS, _Color, _crop_window, make_sample
from PIL import Image

from .test_augment import HEIGHT, PLAIN, WIDTH, make_record, ramp

LARGE = dataclasses.replace(PLAIN, crop=256)  # a crop that shows all of the photograph


def windows(boxes: list[list[float]], **changes: float) -> np.ndarray:
    """What 200 crops show, x0 y0 x1 y1 in pixels of the photograph."""
    record, config = make_record(boxes), dataclasses.replace(PLAIN, **changes)
    return np.array([_crop_window(record, config, np.random.default_rng(n)) for n in range(200)])


def test_crops_stay_inside_a_large_photograph() -> None:
    """However near to its corner the object is that they look at."""
    for box in ([0, 0, 4, 4], [196, 116, 200, 120]):
        found = windows([box])
        assert found[:, :2].min() >= 0
        assert found[:, 2].max() <= WIDTH + 1e-6
        assert found[:, 3].max() <= HEIGHT + 1e-6


def test_a_small_photograph_lies_anywhere_in_its_crop() -> None:
    found = windows([], crop=256)
    for axis, size in ((0, WIDTH), (1, HEIGHT)):
        assert size - 256 <= found[:, axis].min() < (size - 256) * 0.95
        assert (size - 256) * 0.05 < found[:, axis].max() <= 0


def test_saturation_contrast_and_gain() -> None:
    """Two pixels of one colour channel each, worked out by hand."""
    pixels = np.array([[[120, 0, 60], [60, 60, 60]]], np.uint8)
    none = np.ones(3)
    # half as far from the grey of 60
    assert _Color(0.5, 1, none).apply(pixels).tolist() == [[[90, 30, 60], [60, 60, 60]]]
    pixels = np.array([[[100, 100, 100], [20, 20, 20]]], np.uint8)
    # half as far from the mean of 60
    assert _Color(1, 0.5, none).apply(pixels).tolist() == [[[80] * 3, [40] * 3]]
    assert _Color(1, 1, np.array([0.5, 1, 3])).apply(pixels).tolist() == [
        [[50, 100, 255], [10, 20, 60]]
    ]


def test_a_close_up_is_resized_as_its_crop_is() -> None:
    """A fine chessboard shrinks to grey if averaged, at twice the size too."""
    board = np.indices((HEIGHT, WIDTH)).sum(0) % 2 * 255
    image = Image.fromarray(board.astype(np.uint8)[..., None].repeat(3, 2))
    spread = {}
    for share in (0.0, 1.0):
        config = dataclasses.replace(
            PLAIN, min_short_side=20, max_short_side=20, crop=16, plain_resize=share
        )
        spread[share] = make_sample(make_record([]), image, config, [1], zoom=2)["closeup"].std()
    assert spread[0.0] < 0.6 * spread[1.0]


def test_an_image_that_is_not_labelled_exhaustively_says_so() -> None:
    for exhaustive in (True, False):
        record = make_record([[20, 30, 90, 100]], exhaustive=exhaustive)
        assert make_sample(record, ramp(), LARGE, [0])["exhaustive"] == exhaustive


def test_what_belongs_to_an_object_stays_with_it() -> None:
    """The second one is larger and comes first."""
    record = make_record([[20, 30, 40, 50], [60, 20, 130, 90]], labels=np.array([3, 5], np.int32))
    record.bitmaps[:] = np.array([10, 20], np.uint8)[:, None, None]
    record.keypoints[:, 0] = [[30, 40, 1], [90, 50, 2]]
    sample = make_sample(record, ramp(), LARGE, [0])
    assert sample["labels"][:3].tolist() == [5, 3, 0]
    assert sample["bitmaps"][:3].max((1, 2)).tolist() == [20, 10, 0]
    assert sample["keypoints"][:3, 0, 2].tolist() == [2, 1, 0]


def test_crowds_are_the_last_to_be_left_out() -> None:
    boxes = [[20 + n, 20, 30 + n, 30] for n in range(MAX_OBJECTS + MAX_IGNORE)]
    crowd = np.array([[5, 60, 195, 115]], np.float32)
    sample = make_sample(make_record(boxes, ignore=crowd), ramp(), LARGE, [0])
    sides = sample["ignore"][:, 2] - sample["ignore"][:, 0]
    assert sides[0] == 190
    assert (sides[1:] <= 10.001).all()


def test_joints_that_are_not_labelled_have_no_place() -> None:
    """Not even where the crop begins left of the photograph."""
    points = np.zeros((1, 17, 3), np.float32)
    points[0, 0] = [30, 40, 2]
    found = make_sample(make_record([[20, 30, 90, 100]], keypoints=points), ramp(), LARGE, [0])
    assert found["keypoints"][0, 0, 2] == 2
    assert np.count_nonzero(found["keypoints"]) == 3
