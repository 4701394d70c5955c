"""Rotation, on squares and an L whose place after the turn is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from edgemask_convert.config import Config
from edgemask_convert.data import loader
from edgemask_convert.data.dataset import Record
from edgemask_convert.data.rotate import rotate_record
from PIL import Image

from edgemask.masks import paste

WIDTH, HEIGHT = 120, 80  # the middle is 60, 40


def make_record(boxes: list[list[float]], mask: bool = True, **extra: object) -> Record:
    """Objects that fill their boxes, with one joint in the upper left corner."""
    count = len(boxes)
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    keypoints = np.zeros((count, 17, 3), np.float32)
    keypoints[:, 0, :2], keypoints[:, 0, 2] = corners[:, :2], 2
    values: dict = {
        "image_id": 7,
        "path": Path("none"),
        "height": HEIGHT,
        "width": WIDTH,
        "boxes": corners,
        "labels": np.arange(count, dtype=np.int32),
        "bitmaps": np.full((count, 64, 64), 255 * mask, np.uint8),
        "has_mask": np.full(count, mask),
        "keypoints": keypoints,
        "ignore": np.zeros((0, 4), np.float32),
        "labeled": np.ones(1, bool),
        "exhaustive": True,
    }
    return Record(**values | extra)


def picture_of(record: Record) -> Image.Image:
    """Black, with the first object's mask in white."""
    masks = paste(record.bitmaps / np.float32(255), record.boxes, HEIGHT, WIDTH).to_dense()
    return Image.fromarray(masks[:1].any(0).astype(np.uint8) * np.uint8(255)).convert("RGB")


def overlap(record: Record, image: Image.Image) -> float:
    """IoU of the first object's mask with what is white."""
    mask = paste(record.bitmaps[:1] / np.float32(255), record.boxes[:1], HEIGHT, WIDTH).to_dense()
    white = np.asarray(image)[..., 0] > 200
    return float((mask[0] & white).sum() / (mask[0] | white).sum())


def test_a_quarter_turn_clockwise() -> None:
    record = make_record([[70, 40, 80, 60]])
    turned, image = rotate_record(record, picture_of(record), 90)
    # (x, y) from the middle becomes (-y, x).
    np.testing.assert_allclose(turned.boxes, [[40, 50, 60, 60]], atol=1e-4)
    np.testing.assert_allclose(turned.keypoints[0, 0], [60, 50, 2], atol=1e-4)
    assert overlap(turned, image) == 1
    assert turned.image_id == 7


@pytest.mark.parametrize("degrees", [-30.0, -7.5, 12.0, 45.0])
def test_box_and_mask_follow_the_pixels(degrees: float) -> None:
    """An L: its box is not that of the turned box."""
    bitmaps = np.zeros((1, 64, 64), np.uint8)
    bitmaps[:, :, :16] = bitmaps[:, 48:] = 255
    record = make_record([[44, 20, 84, 60]], bitmaps=bitmaps)
    turned, image = rotate_record(record, picture_of(record), degrees)
    assert overlap(turned, image) > 0.93
    rows, columns = np.nonzero(np.asarray(image)[..., 0] == 255)
    white = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(turned.boxes[0], white, atol=1.5)


def test_there_and_back() -> None:
    record = make_record([[50, 30, 75, 50]])
    turned, image = rotate_record(record, picture_of(record), 20)
    back, image = rotate_record(turned, image, -20)
    np.testing.assert_allclose(back.boxes, record.boxes, atol=1.5)
    np.testing.assert_allclose(back.keypoints[0, 0], record.keypoints[0, 0], atol=1e-3)
    assert overlap(back, image) > 0.93


def test_no_turn_changes_nothing() -> None:
    record = make_record([[20.5, 10.25, 60, 70]], ignore=np.array([[1, 2, 3, 4]], np.float32))
    turned, image = rotate_record(record, picture_of(record), 0)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(picture_of(record)))
    for field in dataclasses.fields(Record):
        before, after = getattr(record, field.name), getattr(turned, field.name)
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(after, before, err_msg=field.name)


def test_an_object_without_mask_is_an_ellipse() -> None:
    """A circle keeps its box, where a turned square would need more."""
    record = make_record([[50, 30, 70, 50]], mask=False)
    turned, _ = rotate_record(record, picture_of(record), 45)
    np.testing.assert_allclose(turned.boxes, record.boxes, atol=0.1)
    assert not turned.has_mask[0]


def test_what_leaves_the_image_is_cut_or_dropped() -> None:
    record = make_record([[0, 30, 20, 50], [40, 30, 60, 50]], ignore=np.array([[0, 0, 9, 9.0]]))
    turned, image = rotate_record(record, picture_of(record), 90)
    assert turned.labels.tolist() == [1]  # the first one lies 20 pixels above the edge now
    np.testing.assert_allclose(turned.boxes, [[50, 20, 70, 40]], atol=1e-4)
    assert len(turned.bitmaps) == len(turned.keypoints) == len(turned.has_mask) == 1
    assert turned.ignore.shape == (0, 4)
    assert np.asarray(image)[40, 5].tolist() == [128] * 3  # nothing was known of this

    record = make_record([[40, 0, 80, 10]])
    turned, image = rotate_record(record, picture_of(record), 30)
    assert (turned.boxes >= 0).all()
    assert turned.boxes[0, 1] == 0
    assert turned.keypoints[0, 0, 2] == 0  # the left end went over the edge
    assert overlap(turned, image) > 0.9


def test_a_joint_outside_is_unlabelled() -> None:
    record = make_record([[0, 0, 120, 80]])
    turned, _ = rotate_record(record, picture_of(record), 15)
    np.testing.assert_array_equal(turned.keypoints, 0)


def test_arguments_are_not_changed() -> None:
    record = make_record([[0, 30, 20, 50], [40, 30, 60, 50]])
    copies = {f.name: np.copy(getattr(record, f.name)) for f in dataclasses.fields(Record)}
    rotate_record(record, picture_of(record), 33)
    for name, value in copies.items():
        np.testing.assert_array_equal(getattr(record, name), value)


def test_no_objects() -> None:
    record = make_record([])
    turned, _ = rotate_record(record, Image.new("RGB", (WIDTH, HEIGHT)), 10)
    assert turned.boxes.shape == (0, 4)
    assert turned.bitmaps.shape == (0, 64, 64)


def test_batches_with_rotation(tmp_path: Path) -> None:
    """Half of the crops are turned, the same ones each time, and the others are as without."""
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(path)
    record = make_record([[30, 20, 60, 60]], path=path)
    config = Config()
    config.train.batch_size = 4
    config.augment = dataclasses.replace(config.augment, crop=64, min_short_side=64,
                                         max_short_side=64, aspect_jitter=0.0)  # fmt: skip
    plain = list(loader.batches([record], config, 0, 20))
    config.augment.rotate = 20.0
    mixed = list(loader.batches([record], config, 0, 20))
    again = list(loader.batches([record], config, 0, 20))
    turned = 0
    for before, after, same in zip(plain, mixed, again, strict=True):
        np.testing.assert_array_equal(after["image"], same["image"])
        turned += sum((a != b).any() for a, b in zip(before["image"], after["image"], strict=True))
    assert 25 < turned < 55


def test_who_has_a_mask_is_still_known() -> None:
    record = make_record([[0, 0, 4, 4], [50, 30, 70, 50]], has_mask=np.array([True, False]))
    turned, _ = rotate_record(record, picture_of(record), 45)
    assert turned.labels.tolist() == [1]  # the corner is gone
    assert turned.has_mask.tolist() == [False]


def test_crowds_keep_their_corners() -> None:
    """What is ignored may be too large, and not too small: no ellipse is taken for it."""
    record = make_record([], ignore=np.array([[50, 30, 70, 50]], np.float32))
    turned, _ = rotate_record(record, Image.new("RGB", (WIDTH, HEIGHT)), 45)
    reach = 10 * 2**0.5
    expected = [[60 - reach, 40 - reach, 60 + reach, 40 + reach]]
    np.testing.assert_allclose(turned.ignore, expected, atol=1e-3)


def test_photographs_are_turned_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    config = Config()
    config.train.batch_size = 4
    config.augment = dataclasses.replace(config.augment, crop=64, rotate=20.0)
    seen: list[float] = []
    monkeypatch.setattr(loader, "rotate_record", lambda r, i, d: (seen.append(d), (r, i))[1])
    list(loader.batches([make_record([[30, 20, 60, 60]], path=path)], config, 0, 10))
    assert -20 <= min(seen) < -10 < 10 < max(seen) <= 20


def test_a_pixel_or_two_of_an_object_are_kept() -> None:
    """A quarter turn puts the left edge of the square two pixels above the lower edge."""
    record = make_record([[98, 30, 118, 50]])
    turned, _ = rotate_record(record, picture_of(record), 90)
    np.testing.assert_allclose(turned.boxes, [[50, 78, 70, 80]], atol=1e-4)


def test_a_joint_below_the_photograph_is_unlabelled() -> None:
    """It is higher than wide: a place may be too low that would not be too far right."""
    record = make_record([[90, 30, 120, 50]])
    record.keypoints[0, 1] = [110, 40, 2]
    turned, _ = rotate_record(record, picture_of(record), 90)
    np.testing.assert_allclose(turned.keypoints[0, 0], [70, 70, 2], atol=1e-4)
    np.testing.assert_array_equal(turned.keypoints[0, 1], 0)


def test_what_a_mask_hardly_covers_is_outside() -> None:
    bitmaps = np.full((1, 64, 64), 60, np.uint8)
    bitmaps[:, 16:48, 16:48] = 255
    record = make_record([[40, 20, 80, 60]], bitmaps=bitmaps)
    turned, _ = rotate_record(record, picture_of(record), 90)
    np.testing.assert_allclose(turned.boxes, [[50, 30, 70, 50]], atol=1e-4)


def test_a_mask_that_is_sure_of_nothing_is_an_ellipse() -> None:
    record = make_record([[50, 30, 70, 50]], bitmaps=np.full((1, 64, 64), 100, np.uint8))
    turned, _ = rotate_record(record, picture_of(record), 45)
    np.testing.assert_allclose(turned.boxes, record.boxes, atol=0.1)


@pytest.mark.parametrize("degrees", [25.0, -40.0, 65.0, 130.0])
def test_the_box_of_a_cut_mask_is_that_of_what_is_left(degrees: float) -> None:
    """A pole along the upper edge, of which a turn leaves a piece inside the image."""
    bitmaps = np.zeros((1, 64, 64), np.uint8)
    bitmaps[:, 24:40] = bitmaps[:, :, 28:36] = 255
    record = make_record([[4, 2, 116, 34]], bitmaps=bitmaps)
    turned, image = rotate_record(record, picture_of(record), degrees)
    rows, columns = np.nonzero(np.asarray(image)[..., 0] > 160)  # the grey beyond it has 128
    white = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(turned.boxes[0], white, atol=1.5)
    assert overlap(turned, image) > 0.9


def test_the_box_of_a_cut_ellipse_is_that_of_what_is_left() -> None:
    """A circle of radius 20 around (20, 20) comes to lie around (80, 0) by a quarter turn."""
    record = make_record([[0, 0, 40, 40]], mask=False)
    turned, _ = rotate_record(record, picture_of(record), 90)
    np.testing.assert_allclose(turned.boxes, [[60, 0, 100, 20]], atol=0.1)

    record = make_record([[0, 20, 24, 44]], mask=False)  # its middle ends 8 pixels above the edge
    turned, _ = rotate_record(record, picture_of(record), 90)
    half = (12**2 - 8**2) ** 0.5
    np.testing.assert_allclose(turned.boxes, [[68 - half, 0, 68 + half, 4]], atol=0.1)


def test_a_mask_that_leaves_the_image_is_dropped_though_its_box_stays() -> None:
    """The mask is the left end of its box, which a quarter turn moves above the upper edge."""
    bitmaps = np.zeros((1, 64, 64), np.uint8)
    bitmaps[:, :, :16] = 255
    record = make_record([[0, 30, 80, 50]], bitmaps=bitmaps)
    turned, _ = rotate_record(record, picture_of(record), 90)
    assert turned.boxes.shape == (0, 4)


def test_an_object_around_the_whole_image_keeps_all_of_it() -> None:
    record = make_record([[0, 0, 120, 80]], ignore=np.array([[0, 0, 120, 80]], np.float32))
    turned, _ = rotate_record(record, picture_of(record), 90)
    # Neither its left nor its right edge reaches a corner of the image any more.
    np.testing.assert_allclose(turned.boxes, [[20, 0, 100, 80]], atol=1e-4)
    np.testing.assert_allclose(turned.ignore, [[20, 0, 100, 80]], atol=1e-4)
    half = make_record([], ignore=np.array([[60, -60, 200, 140]], np.float32))
    tilted, _ = rotate_record(half, picture_of(half), 10)
    slope = 40 * np.tan(np.radians(10))  # of the edge through the middle; it crosses both others
    np.testing.assert_allclose(tilted.ignore, [[60 - slope, 0, 120, 80]], atol=1e-4)
