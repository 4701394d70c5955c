"""Samples are checked against a picture whose pixels tell where they come from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from edgemask_convert.config import AugmentConfig
from edgemask_convert.data.augment import MAX_IGNORE, MAX_OBJECTS, _crop_window, make_sample
from edgemask_convert.data.dataset import Record
from PIL import Image

HEIGHT, WIDTH = 120, 200
PLAIN = AugmentConfig(
    crop=64, min_short_side=120, max_short_side=120, aspect_jitter=0, flip=0, color=0
)


def make_record(boxes: list[list[float]], **extra: object) -> Record:
    """A record without masks."""
    count = len(boxes)
    values: dict = {
        "image_id": 5,
        "path": Path("none"),
        "height": HEIGHT,
        "width": WIDTH,
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.arange(count, dtype=np.int32) % 2,
        "bitmaps": np.zeros((count, 64, 64), np.uint8),
        "has_mask": np.ones(count, bool),
        "keypoints": np.zeros((count, 17, 3), np.float32),
        "ignore": np.zeros((0, 4), np.float32),
        "labeled": np.array([True, False]),
        "exhaustive": True,
    }
    return Record(**values | extra)


def ramp() -> Image.Image:
    """Red is x, green is 2 y: a pixel's colour says where its centre was."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 0] = np.arange(WIDTH)
    pixels[..., 1] = 2 * np.arange(HEIGHT)[:, None]
    return Image.fromarray(pixels)


def test_same_seed_same_sample() -> None:
    record = make_record([[20, 30, 90, 100]])
    config = AugmentConfig(crop=64)
    first = make_sample(record, ramp(), config, [1, 2, 3])
    again = make_sample(record, ramp(), config, [1, 2, 3])
    other = make_sample(record, ramp(), config, [1, 2, 4])
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    assert (first["image"] != other["image"]).any()


@pytest.mark.parametrize("plain", [0.0, 1.0])
def test_a_close_up_shows_the_same_crop(plain: float) -> None:
    """Flipped, coloured and cut alike, at twice the size; and the sample is as without it."""
    record = make_record([[20, 30, 90, 100]])
    config = AugmentConfig(crop=64, plain_resize=plain)
    for seed in range(6):
        sample = make_sample(record, ramp(), config, [seed], zoom=2)
        closeup = sample.pop("closeup")
        alone = make_sample(record, ramp(), config, [seed])
        assert alone.keys() == sample.keys()
        for key in alone:
            np.testing.assert_array_equal(alone[key], sample[key])
        assert closeup.shape == (128, 128, 3)
        smaller = closeup.astype(np.float32).reshape(64, 2, 64, 2, 3).mean((1, 3))
        # The photograph's edge may lie half a pixel off, so not every pixel is the same.
        assert np.median(np.abs(smaller - sample["image"])) <= 3


def test_plain_resize_does_not_average() -> None:
    """A fine chessboard shrinks to grey if averaged, and to black and white if not."""
    board = np.indices((HEIGHT, WIDTH)).sum(0) % 2 * 255
    image = Image.fromarray(board.astype(np.uint8)[..., None].repeat(3, 2))
    spread = {}
    for share in (0.0, 1.0):
        config = dataclasses.replace(PLAIN, min_short_side=40, max_short_side=40, crop=32)
        config = dataclasses.replace(config, plain_resize=share)
        spread[share] = make_sample(make_record([]), image, config, [1])["image"].std()
    assert spread[0.0] < 40 < spread[1.0]


def test_plain_resize_puts_things_in_the_same_place() -> None:
    config = dataclasses.replace(PLAIN, min_short_side=90, max_short_side=90)
    images = [
        make_sample(make_record([]), ramp(), dataclasses.replace(config, plain_resize=p), [3])
        for p in (0.0, 1e-9, 1.0)
    ]
    # a probability of next to nothing draws the number, so that what follows is the same
    difference = images[1]["image"].astype(int) - images[2]["image"]
    assert np.abs(difference).max() <= 2


def test_shapes_and_types() -> None:
    sample = make_sample(make_record([[20, 30, 90, 100]]), ramp(), AugmentConfig(crop=96), [0])
    assert {key: (np.shape(v), np.asarray(v).dtype.name) for key, v in sample.items()} == {
        "image": ((96, 96, 3), "uint8"),
        "boxes": ((MAX_OBJECTS, 4), "float32"),
        "full_boxes": ((MAX_OBJECTS, 4), "float32"),
        "labels": ((MAX_OBJECTS,), "int32"),
        "valid": ((MAX_OBJECTS,), "float32"),
        "has_mask": ((MAX_OBJECTS,), "float32"),
        "keypoints": ((MAX_OBJECTS, 17, 3), "float32"),
        "bitmaps": ((MAX_OBJECTS, 64, 64), "uint8"),
        "ignore": ((MAX_IGNORE, 4), "float32"),
        "labeled": ((2,), "float32"),
        "exhaustive": ((), "float32"),
        "image_id": ((), "int64"),
    }
    np.testing.assert_array_equal(sample["labeled"], [1, 0])
    assert sample["image_id"] == 5


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("seed", [1, 2, 3, 5])  # crops that show the object
def test_boxes_follow_the_pixels(flip: int, seed: int) -> None:
    """The colours at a box's corners are those that the box had in the photograph."""
    config = AugmentConfig(
        crop=64, min_short_side=100, max_short_side=160, aspect_jitter=0.1, flip=flip, color=0
    )
    box = [60.0, 40.0, 120.0, 90.0]
    sample = make_sample(make_record([box]), ramp(), config, [seed])
    assert sample["valid"][0]
    x0, y0, x1, y1 = sample["full_boxes"][0]
    image = sample["image"].astype(np.float32)
    columns, rows = np.arange(64) + 0.5, np.arange(64) + 0.5
    # Colour is position less half a pixel, and linear: fit it, and read the box's edges off.
    red = np.polyfit(columns, image[32, :, 0] + 0.5, 1)
    green = np.polyfit(rows, (image[:, 32, 1] + 1) / 2, 1)
    left, right = np.polyval(red, [x0, x1])
    if flip:
        left, right = right, left
    assert left == pytest.approx(box[0], abs=0.25)
    assert right == pytest.approx(box[2], abs=0.25)
    np.testing.assert_allclose(np.polyval(green, [y0, y1]), [box[1], box[3]], atol=0.25)


def test_flip_mirrors_the_masks() -> None:
    bitmaps = np.zeros((1, 64, 64), np.uint8)
    bitmaps[0, :, :10] = 255
    record = make_record([[90, 50, 110, 70]], bitmaps=bitmaps)
    config = AugmentConfig(
        crop=64, min_short_side=120, max_short_side=120, aspect_jitter=0, flip=1, color=0
    )
    for seed in range(20):
        sample = make_sample(record, ramp(), config, [seed])
        if sample["valid"][0]:
            assert (sample["bitmaps"][0, :, -10:] == 255).all()
            assert (sample["bitmaps"][0, :, :-10] == 0).all()
            return
    pytest.fail("the object was in none of the crops")


def test_grey_beyond_the_image() -> None:
    config = AugmentConfig(
        crop=256, min_short_side=120, max_short_side=120, aspect_jitter=0, flip=0, color=0
    )
    sample = make_sample(make_record([]), Image.new("RGB", (WIDTH, HEIGHT)), config, [0])
    black = (sample["image"] == 0).all(axis=2)
    assert black.sum() == HEIGHT * WIDTH
    assert (sample["image"][~black] == 128).all()


def test_cut_and_tiny_objects_become_ignore_regions() -> None:
    # The crop is 64 of 200x120 pixels at scale 1, and no object draws it near.
    boxes = [[0, 0, 200, 120], [100, 60, 102, 62]]
    crowd = np.array([[0, 0, 200, 120]], np.float32)
    sample = make_sample(make_record(boxes, ignore=crowd), ramp(), PLAIN, [1])
    assert not sample["valid"].any()  # 17 % of the first is visible; the second is 2 pixels
    np.testing.assert_array_equal(sample["ignore"][0], [0, 0, 64, 64])
    regions = sample["ignore"][(sample["ignore"][:, 2:] > 0).all(axis=1)]
    assert len(regions) in (2, 3)  # crowd, the cut object, and the tiny one where it is in the crop


def test_largest_objects_are_kept() -> None:
    random = np.random.default_rng(0)
    corners = np.stack([random.uniform(60, 120, 40), random.uniform(30, 80, 40)], 1)
    boxes = np.concatenate([corners, corners + np.linspace(6, 14, 40)[:, None]], 1)
    config = AugmentConfig(
        crop=256, min_short_side=120, max_short_side=120, aspect_jitter=0, flip=0, color=0
    )
    sample = make_sample(make_record(boxes.tolist()), ramp(), config, [0])
    assert sample["valid"].sum() == MAX_OBJECTS
    sides = sample["boxes"][:, 2] - sample["boxes"][:, 0]
    assert (np.diff(sides) <= 1e-4).all()
    assert sides[-1] == pytest.approx(6 + 16 / 39 * 8, abs=1e-3)  # the 24th largest
    surplus = sample["ignore"][:, 2] - sample["ignore"][:, 0]
    assert (surplus > 0).sum() == 40 - MAX_OBJECTS
    assert sample["exhaustive"] == 1


@pytest.mark.parametrize("more", [0, 1])
def test_what_does_not_fit_is_never_background(more: int) -> None:
    """Every object is one, or an ignore region, or nothing is taken for background."""
    count = MAX_OBJECTS + MAX_IGNORE + more
    boxes = [[20 + n, 20, 30 + n, 30] for n in range(count)]
    config = AugmentConfig(
        crop=256, min_short_side=120, max_short_side=120, aspect_jitter=0, flip=0, color=0
    )
    sample = make_sample(make_record(boxes), ramp(), config, [0])
    assert sample["valid"].sum() == MAX_OBJECTS
    assert (sample["ignore"][:, 2] > 0).all()
    assert sample["exhaustive"] == 1 - more


def test_colour_keeps_the_geometry() -> None:
    record = make_record([[20, 30, 90, 100]])
    plain = make_sample(record, ramp(), PLAIN, [3])
    config = AugmentConfig(
        crop=64, min_short_side=120, max_short_side=120, aspect_jitter=0, flip=0, color=0.5
    )
    bright = make_sample(record, ramp(), config, [3])
    np.testing.assert_array_equal(plain["boxes"], bright["boxes"])
    assert (plain["image"] != bright["image"]).any()


@pytest.mark.parametrize("flip", [0, 1])
def test_keypoints_follow_the_pixels(flip: int) -> None:
    """The colour under a keypoint says where it was; a mirror image swaps left and right."""
    points = np.zeros((1, 17, 3), np.float32)
    points[0, [0, 9, 10]] = [[60, 40, 2], [50, 70, 1], [75, 70, 2]]  # nose, left and right wrist
    record = make_record([[40, 30, 90, 80]], keypoints=points)
    config = AugmentConfig(
        crop=96, min_short_side=96, max_short_side=120, aspect_jitter=0.1, flip=flip, color=0
    )
    for seed in range(20):
        sample = make_sample(record, ramp(), config, [seed])
        found = sample["keypoints"][0]
        if sample["valid"][0] and (found[[0, 9, 10], 2] > 0).all():
            break
    else:
        pytest.fail("no crop shows all keypoints")
    swapped = [0, 10, 9] if flip else [0, 9, 10]
    for was, now in zip([0, 9, 10], swapped, strict=True):
        x, y, visibility = found[now]
        assert visibility == points[0, was, 2]
        red, green, _ = sample["image"][int(y), int(x)]
        np.testing.assert_allclose([red, green / 2], points[0, was, :2], atol=1.5)
    assert (found[[1, 2, 11, 16]] == 0).all()


def test_keypoints_outside_of_the_crop_are_not_labelled() -> None:
    points = np.zeros((1, 17, 3), np.float32)
    points[0, :, 2] = 2
    points[0, :, 0] = np.linspace(1, WIDTH - 1, 17)
    points[0, :, 1] = HEIGHT / 2
    record = make_record([[0, 0, WIDTH, HEIGHT]], keypoints=points)
    config = AugmentConfig(
        crop=48, min_short_side=64, max_short_side=64, aspect_jitter=0, flip=0, color=0
    )
    seen = set()
    for seed in range(30):
        found = make_sample(record, ramp(), config, [seed])["keypoints"][0]
        inside = found[:, 2] > 0
        seen.add(int(inside.sum()))
        assert (found[~inside] == 0).all()
        assert ((found[inside, :2] >= 0) & (found[inside, :2] < 48)).all()
    assert min(seen) < max(seen) < 17
    np.testing.assert_array_equal(record.keypoints, points)  # the record is untouched


def sizes_of_windows(config: AugmentConfig) -> tuple[np.ndarray, np.ndarray]:
    """Widths and heights of what 200 crops show, in pixels of the photograph."""
    record = make_record([])
    windows = [_crop_window(record, config, np.random.default_rng(n)) for n in range(200)]
    x0, y0, x1, y1 = np.array(windows).T
    return x1 - x0, y1 - y0


def test_scales_are_even_in_the_logarithm() -> None:
    """As many crops between short sides 60 and 120 as between 120 and 240."""
    config = dataclasses.replace(PLAIN, min_short_side=60, max_short_side=240)
    width, height = sizes_of_windows(config)
    np.testing.assert_allclose(width, height)
    sides = HEIGHT * config.crop / width
    assert 60 <= sides.min() < 65 < 220 < sides.max() <= 240.001
    assert 0.4 < (sides < 120).mean() < 0.6


def test_aspect_jitter_changes_the_shape_and_not_the_size() -> None:
    width, height = sizes_of_windows(dataclasses.replace(PLAIN, aspect_jitter=0.3))
    np.testing.assert_allclose(width * height, PLAIN.crop**2)
    shapes = np.log(width / height)
    assert -0.601 <= shapes.min() < -0.5 < 0.5 < shapes.max() <= 0.601


def test_a_close_up_is_flipped_with_its_crop() -> None:
    """Red is x: the other channels look the same in a mirror."""
    config = dataclasses.replace(PLAIN, flip=1.0)
    sample = make_sample(make_record([]), ramp(), config, [0], zoom=2)
    smaller = sample["closeup"].astype(np.float32).reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(smaller[..., 0] - sample["image"][..., 0]).mean() < 2
    assert sample["image"][0, 0, 0] > sample["image"][0, -1, 0]


def test_colours_do_not_overflow() -> None:
    white = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    config = dataclasses.replace(PLAIN, color=0.3)
    pixels = [make_sample(make_record([]), white, config, [n])["image"] for n in range(20)]
    assert np.min(pixels) >= int(255 * 0.65)  # the least gain
    assert np.max(pixels) == 255


def test_objects_without_a_mask_say_so() -> None:
    boxes = [[20, 30, 90, 100], [100, 20, 130, 60]]
    record = make_record(boxes, has_mask=np.array([False, True]))
    sample = make_sample(record, ramp(), dataclasses.replace(PLAIN, crop=256), [0])
    assert sample["valid"].sum() == 2
    assert sample["has_mask"][:3].tolist() == [0, 1, 0]


def test_most_crops_look_at_an_object() -> None:
    """Wherever it is: this one is on the right, at the top."""
    record = make_record([[150, 5, 170, 25]])
    found = [make_sample(record, ramp(), PLAIN, [n])["valid"].sum() for n in range(100)]
    assert sum(found) > 65


def test_pixels_lie_where_the_boxes_say_beyond_the_edge() -> None:
    white = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    record = make_record([[0, 0, WIDTH, HEIGHT]])
    config = dataclasses.replace(PLAIN, min_short_side=30, max_short_side=30, aspect_jitter=0.3)
    for seed in range(10):
        sample = make_sample(record, white, config, [seed])
        rows = np.flatnonzero((sample["image"][..., 0] == 255).any(1))
        columns = np.flatnonzero((sample["image"][..., 0] == 255).any(0))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(seen, sample["boxes"][0], atol=1.01)


def test_flip_mirrors_all_that_has_a_place() -> None:
    """Box, ignore region and joint together: the joint in the upper left is in the upper right."""
    box = [20, 30, 90, 100]
    keypoints = np.zeros((1, 17, 3), np.float32)
    keypoints[0, 0] = [20, 30, 2]
    record = make_record([box], ignore=np.array([box], np.float32), keypoints=keypoints)
    sample = make_sample(record, ramp(), dataclasses.replace(PLAIN, crop=256, flip=1.0), [0])
    np.testing.assert_allclose(sample["ignore"][0], sample["boxes"][0])
    np.testing.assert_allclose(sample["keypoints"][0, 0, :2], sample["boxes"][0, [2, 1]])
