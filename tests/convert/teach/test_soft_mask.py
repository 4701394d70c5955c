"""The field soft_mask: what is written is read back, and trained on."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest
from edgemask_convert.data.bitmaps import MASK_SIZE, box_bitmap
from edgemask_convert.data.dataset import DatasetError
from edgemask_convert.data.soft_mask import decode_soft_mask, encode_soft_mask


@pytest.mark.parametrize("size", [1, 24, 28])
def test_round_trip_within_a_step(size: int) -> None:
    mask = np.random.default_rng(size).random((size, size), dtype=np.float32)
    text = json.dumps(encode_soft_mask(mask))
    back = decode_soft_mask(json.loads(text))
    assert back.dtype == np.uint8
    assert np.abs(back / 255 - mask).max() <= 0.5 / 255 + 1e-6


def test_a_mask_is_small() -> None:
    y, x = np.mgrid[:28, :28]
    disc = 1 / (1 + np.exp(np.hypot(y - 14, x - 14) - 10))
    assert len(json.dumps(encode_soft_mask(disc.astype(np.float32)))) < 1000


def bomb() -> str:
    return base64.b64encode(zlib.compress(bytes(10_000_000))).decode()


@pytest.mark.parametrize(
    "value",
    [
        {"size": 2},
        {"size": 2, "data": "%%%"},
        {"size": 2, "data": base64.b64encode(b"not zlib").decode()},
        {"size": 3, "data": encode_soft_mask(np.zeros((2, 2)))["data"]},
        {"size": 0, "data": ""},
        {"size": 100_000, "data": bomb()},
        {"size": 28, "data": bomb()},
        {"size": "x", "data": ""},
    ],
)
def test_damaged_masks_are_refused(value: dict) -> None:
    with pytest.raises(ValueError, match="not a soft mask"):
        decode_soft_mask(value)


def test_bitmap_of_a_soft_mask() -> None:
    half = np.zeros((8, 8), np.float32)
    half[:, 4:] = 0.8
    bitmap = box_bitmap(encode_soft_mask(half), np.array([0, 0, 10, 10]), 20, 20)
    assert bitmap is not None
    assert bitmap.shape == (MASK_SIZE, MASK_SIZE)
    assert (bitmap[:, : MASK_SIZE // 2 - 4] == 0).all()
    assert (bitmap[:, MASK_SIZE // 2 + 4 :] == 204).all()


def test_the_dataset_uses_it_where_there_is_no_segmentation(coco) -> None:
    coco.image(1)
    soft = encode_soft_mask(np.full((4, 4), 0.6, np.float32))
    coco.add(1, [2, 3, 10, 10], [], soft_mask=soft)
    coco.add(1, [12, 3, 10, 10], soft_mask=soft)
    coco.add(1, [22, 3, 10, 10], [])
    (record,) = coco.load().records()
    assert record.has_mask.tolist() == [True, True, False]
    assert [int(b.max()) for b in record.bitmaps] == [153, 255, 0]


def test_the_dataset_names_a_damaged_one(coco) -> None:
    coco.image(5)
    number = coco.add(5, [2, 3, 10, 10], [], soft_mask={"size": 4, "data": "AAAA"})
    with pytest.raises(DatasetError, match=f"annotation {number} of image 5: not a soft mask"):
        coco.load().records()


def test_a_size_that_no_teacher_gives_is_refused() -> None:
    assert decode_soft_mask(encode_soft_mask(np.zeros((512, 512)))).shape == (512, 512)
    with pytest.raises(ValueError, match="size 513 is not between 1 and 512"):
        decode_soft_mask(encode_soft_mask(np.zeros((513, 513))))


def test_probabilities_out_of_range_are_clipped() -> None:
    mask = np.array([[1.2, -0.1], [0.5, 1]], np.float32)
    assert decode_soft_mask(encode_soft_mask(mask)).tolist() == [[255, 0], [128, 255]]
