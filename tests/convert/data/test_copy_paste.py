"""Copy-paste, on squares whose place is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from edgemask_convert.config import Config
from edgemask_convert.data import loader
from edgemask_convert.data.augment import MAX_IGNORE, MAX_OBJECTS
from edgemask_convert.data.copy_paste import paste_objects
from edgemask_convert.data.dataset import Record
from PIL import Image

SIDE = 64


def make_sample(boxes: list[list[float]], colour: int, mask: bool = True) -> dict[str, np.ndarray]:
    """A crop with filled boxes; each has one keypoint in its middle."""
    count = len(boxes)
    sample = {
        "image": np.full((SIDE, SIDE, 3), colour, np.uint8),
        "boxes": np.zeros((MAX_OBJECTS, 4), np.float32),
        "full_boxes": np.zeros((MAX_OBJECTS, 4), np.float32),
        "labels": np.zeros(MAX_OBJECTS, np.int32),
        "valid": np.zeros(MAX_OBJECTS, np.float32),
        "has_mask": np.zeros(MAX_OBJECTS, np.float32),
        "keypoints": np.zeros((MAX_OBJECTS, 17, 3), np.float32),
        "bitmaps": np.zeros((MAX_OBJECTS, 64, 64), np.uint8),
        "ignore": np.zeros((MAX_IGNORE, 4), np.float32),
        "labeled": np.ones(1, np.float32),
        "exhaustive": np.float32(1),
        "image_id": np.int64(colour),
    }
    for n, box in enumerate(boxes):
        sample["boxes"][n] = sample["full_boxes"][n] = box
        sample["valid"][n], sample["has_mask"][n] = 1, mask
        sample["bitmaps"][n] = 255 * mask
        sample["keypoints"][n, 0] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 2]
    assert count <= MAX_OBJECTS
    return sample


def paste(sample: dict, donor: dict) -> dict[str, np.ndarray]:
    """With one donor object it is always pasted."""
    return paste_objects(sample, donor, np.random.default_rng(0))


def test_pixels_and_object_come_over() -> None:
    sample, donor = make_sample([[2, 2, 10, 10]], 50), make_sample([[30, 32, 50, 60]], 200)
    made = paste(sample, donor)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[32:60, 30:50] = True
    assert (made["image"][inside] == 200).all()
    assert (made["image"][~inside] == 50).all()
    assert made["valid"].sum() == 2
    np.testing.assert_array_equal(made["boxes"][:2], [[2, 2, 10, 10], [30, 32, 50, 60]])
    np.testing.assert_array_equal(made["keypoints"][1, 0], [40, 46, 2])
    assert made["image_id"] == 50


def test_a_close_up_gets_the_same_pixels() -> None:
    sample, donor = make_sample([[2, 2, 10, 10]], 50), make_sample([[30, 32, 50, 60]], 200)
    for part in (sample, donor):
        part["closeup"] = part["image"].repeat(2, axis=0).repeat(2, axis=1)
    made = paste(sample, donor)
    np.testing.assert_array_equal(made["closeup"][::2, ::2], made["image"])
    np.testing.assert_array_equal(made["closeup"][1::2, 1::2], made["image"])


def test_neither_sample_is_changed() -> None:
    sample, donor = make_sample([[2, 2, 40, 40]], 50), make_sample([[20, 2, 40, 40]], 200)
    before = [{k: np.copy(v) for k, v in part.items()} for part in (sample, donor)]
    paste(sample, donor)
    for part, old in zip((sample, donor), before, strict=True):
        for key, value in old.items():
            np.testing.assert_array_equal(part[key], value)


def test_what_is_covered_is_taken_from_mask_and_box() -> None:
    """The right half of a box of 40 is covered, and the joint in its middle stays seen."""
    made = paste(make_sample([[0, 0, 40, 40]], 50), make_sample([[22, 0, 60, 64]], 200))
    np.testing.assert_array_equal(made["boxes"][0], [0, 0, 22, 40])
    np.testing.assert_array_equal(made["full_boxes"][0], [0, 0, 22, 40])
    assert made["bitmaps"][0].min() == 255
    assert made["keypoints"][0, 0, 2] == 2


def test_a_hole_leaves_the_box() -> None:
    made = paste(make_sample([[0, 0, 40, 40]], 50), make_sample([[10, 10, 30, 30]], 200))
    np.testing.assert_array_equal(made["boxes"][0], [0, 0, 40, 40])
    assert made["bitmaps"][0][20:44, 20:44].max() == 0
    assert made["bitmaps"][0][:12].min() == 255
    assert made["keypoints"][0, 0, 2] == 0  # it lies in the hole


def test_a_hidden_object_is_ignored() -> None:
    made = paste(make_sample([[8, 8, 20, 20]], 50), make_sample([[5, 5, 19, 25]], 200))
    assert made["valid"].sum() == 1
    np.testing.assert_array_equal(made["boxes"][0], [5, 5, 19, 25])
    np.testing.assert_array_equal(made["ignore"][0], [8, 8, 20, 20])


@pytest.mark.parametrize(("right", "kept"), [(25, 2), (35, 1)])
def test_a_box_without_mask_is_kept_while_half_of_it_is_free(right: int, kept: int) -> None:
    sample = make_sample([[0, 0, 50, 50]], 50, mask=False)
    made = paste(sample, make_sample([[0, 0, right - 5, 60]], 200))
    assert made["valid"].sum() == kept


def test_a_joint_behind_something_is_not_pasted() -> None:
    donor = make_sample([[30, 30, 50, 50]], 200)
    donor["keypoints"][0, 1] = [58, 40, 1]
    made = paste(make_sample([], 50), donor)
    assert made["keypoints"][0, 0, 2] == 2
    assert made["keypoints"][0, 1, 2] == 0


def test_nothing_to_paste() -> None:
    sample = make_sample([[2, 2, 10, 10]], 50)
    assert paste(sample, make_sample([], 200)) is sample
    assert paste(sample, make_sample([[1, 1, 9, 9]], 200, mask=False)) is sample


def test_a_full_sample_takes_no_more() -> None:
    full = make_sample([[2 * n, 0, 2 * n + 2, 4] for n in range(MAX_OBJECTS)], 50)
    assert paste(full, make_sample([[1, 20, 9, 40]], 200)) is full


def test_about_half_of_the_objects_come_over() -> None:
    donor = make_sample([[0, 4 * n, 60, 4 * n + 3] for n in range(12)], 200)
    counts = [
        paste_objects(make_sample([], 50), donor, np.random.default_rng(n))["valid"].sum()
        for n in range(50)
    ]
    assert 5 < np.mean(counts) < 7


def test_batches_with_copy_paste(tmp_path: Path) -> None:
    """A share of the crops has objects of another photograph, and the others are as without."""
    records = []
    for n, boxes in enumerate([[[4.0, 4.0, 20.0, 20.0]], []]):
        path = tmp_path / f"{n}.png"
        Image.new("RGB", (SIDE, SIDE), (50 * (n + 1),) * 3).save(path)
        count = len(boxes)
        records.append(
            Record(
                n, path, SIDE, SIDE, np.array(boxes, np.float32).reshape(-1, 4),
                np.zeros(count, np.int32), np.full((count, 64, 64), 255, np.uint8),
                np.ones(count, bool), np.zeros((count, 17, 3), np.float32),
                np.zeros((0, 4), np.float32), np.ones(1, bool), True,
            )
        )  # fmt: skip
    config = Config()
    config.train.batch_size = 4
    config.augment = dataclasses.replace(config.augment, crop=64, min_short_side=64,
                                         max_short_side=64, aspect_jitter=0.0)  # fmt: skip
    plain = list(loader.batches(records, config, 0, 10))
    config.augment.copy_paste = 0.5
    mixed = list(loader.batches(records, config, 0, 10))
    again = list(loader.batches(records, config, 0, 10))
    added = 0
    for before, after, same in zip(plain, mixed, again, strict=True):
        np.testing.assert_array_equal(after["image"], same["image"])
        for n in range(4):
            if (before["image"][n] == after["image"][n]).all():
                np.testing.assert_array_equal(before["boxes"][n], after["boxes"][n])
            else:
                added += 1
    assert 8 < added < 32


def test_a_joint_beside_its_mask_is_pasted() -> None:
    """Joints of hands and feet lie a pixel or two outside of many a mask."""
    donor = make_sample([[30, 30, 50, 50]], 200)
    donor["keypoints"][0, 1:3] = [[52, 40, 2], [56, 40, 2]]
    made = paste(make_sample([], 50), donor)
    assert made["keypoints"][0, :3, 2].tolist() == [2, 2, 0]


@pytest.mark.parametrize(
    ("box", "left"), [([0, 0, 40, 10], 8), ([0, 0, 10, 40], 3)], ids=["a fifth", "3 pixels"]
)
def test_too_little_that_is_left_is_ignored(box: list[float], left: float) -> None:
    made = paste(make_sample([box], 50), make_sample([[left, 0, 64, 64]], 200))
    assert made["valid"].sum() == 1
    np.testing.assert_array_equal(made["ignore"][0], box)


def test_an_edge_that_is_not_covered_stays_where_it_was_drawn() -> None:
    sample = make_sample([[0.7, 0.7, 40, 39.6]], 50)
    made = paste(sample, make_sample([[22, 0, 60, 64]], 200))
    np.testing.assert_allclose(made["boxes"][0], [0.7, 0.7, 22, 39.6])


def test_a_hidden_object_that_no_ignore_region_is_left_for() -> None:
    """Then nothing is learnt as background, as where a crop has too many of them."""
    sample = make_sample([[8, 8, 20, 20]], 50)
    sample["ignore"][:] = [50, 50, 60, 60]
    made = paste(sample, make_sample([[5, 5, 19, 25]], 200))
    assert made["valid"].sum() == 1
    assert made["exhaustive"] == 0
    assert sample["exhaustive"] == 1


def test_everything_of_an_object_comes_over() -> None:
    """The first object is hidden, so the others move up."""
    sample = make_sample([[8, 8, 20, 20], [44, 2, 60, 12]], 50)
    sample["labels"][:2], sample["has_mask"][:2] = [1, 2], [1, 0]
    donor = make_sample([[5, 5, 19, 25]], 200)
    donor["labels"][0] = 3
    made = paste(sample, donor)
    assert made["labels"][:3].tolist() == [2, 3, 0]
    assert made["has_mask"][:3].tolist() == [0, 1, 0]
    assert made["valid"][:3].tolist() == [1, 1, 0]


def test_what_the_donors_crop_cuts_off_is_not_squeezed_in() -> None:
    """The mask fills the right half of the whole object, which is all that the crop shows of it."""
    donor = make_sample([[0, 10, 20, 30]], 200)
    donor["full_boxes"][0] = [-20, 10, 20, 30]
    donor["bitmaps"][0, :, :32] = 0
    made = paste(make_sample([], 50), donor)
    assert (made["image"][10:30, :20] == 200).all()
    assert (made["image"][:, 21:] == 50).all()


def test_an_edge_that_is_covered_by_a_pixel_stays() -> None:
    made = paste(make_sample([[0, 0, 40, 40]], 50), make_sample([[39, 0, 60, 64]], 200))
    np.testing.assert_array_equal(made["boxes"][0], [0, 0, 40, 40])


def mixed_batches(folder: Path, masks: list[bool]) -> list[dict[str, np.ndarray]]:
    """Crops of photographs of one object each, with or without a mask; all are pasted on."""
    records = []
    for n, mask in enumerate(masks):
        path = folder / f"{n}.png"
        Image.new("RGB", (SIDE, SIDE), (50 * (n + 1),) * 3).save(path)
        box = np.array([[4 + 20 * n, 4, 20 + 20 * n, 20]], np.float32)
        records.append(
            Record(
                n, path, SIDE, SIDE, box, np.array([n], np.int32),
                np.full((1, 64, 64), 255 * mask, np.uint8), np.array([mask]),
                np.zeros((1, 17, 3), np.float32), np.zeros((0, 4), np.float32),
                np.ones(3, bool), True,
            )
        )  # fmt: skip
    config = Config()
    config.train.batch_size = 4
    config.augment = dataclasses.replace(
        config.augment, crop=64, min_short_side=64, max_short_side=64, aspect_jitter=0.0,
        flip=0.0, copy_paste=1.0,
    )  # fmt: skip
    return list(loader.batches(records, config, 0, 5))


def test_all_photographs_with_masks_are_donors(tmp_path: Path) -> None:
    donors = set()
    for batch in mixed_batches(tmp_path, [True, False, True]):
        for number, labels, valid in zip(
            batch["image_id"], batch["labels"], batch["valid"], strict=True
        ):
            if number == 1:  # nothing covers its object
                assert valid.sum() == 2
                donors.add(int(labels[1]))
    assert donors == {0, 2}


def test_photographs_without_masks_have_nothing_to_give(tmp_path: Path) -> None:
    for batch in mixed_batches(tmp_path, [False, False]):
        np.testing.assert_array_equal(batch["valid"].sum(1), 1)
