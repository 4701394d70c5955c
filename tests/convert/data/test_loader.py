from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from edgemask_convert.config import from_dict
from edgemask_convert.data.dataset import DatasetError, Record
from edgemask_convert.data.loader import batches, read_image
from PIL import Image

from ..conftest import TINY, Coco


@pytest.fixture
def records(coco: Coco) -> list[Record]:
    """Five images, so that batches of two straddle the epochs."""
    for number in range(1, 6):
        coco.image(number)
        coco.add(number, [5, 5, 20, 20])
    made: list[Record] = coco.load().records()
    return made


def take(records: list[Record], start: int, stop: int, **train: Any) -> list[dict[str, Any]]:
    """Return the batches of some steps."""
    return list(batches(records, from_dict(TINY | {"train": TINY["train"] | train}), start, stop))


def assert_same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    """Compare batches array by array."""
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_every_epoch_is_a_permutation(records: list[Record]) -> None:
    made = take(records, 0, 5)
    ids = list(itertools.chain.from_iterable(batch["image_id"].tolist() for batch in made))
    assert sorted(ids[:5]) == sorted(ids[5:]) == [1, 2, 3, 4, 5]
    assert ids[:5] != ids[5:]
    assert made[0]["image"].shape == (2, 64, 64, 3)


def test_repeatable_whatever_the_threads(records: list[Record]) -> None:
    assert_same(take(records, 0, 4, workers=1), take(records, 0, 4, workers=4))
    first, second = take(records, 0, 4), take(records, 0, 4, seed=2)
    assert any((a["image"] != b["image"]).any() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("start", [1, 2, 3, 5, 6])
def test_resumes_at_any_step(records: list[Record], start: int) -> None:
    assert_same(take(records, 0, 7)[start:], take(records, start, 7))


def test_shares_make_up_the_batch(records: list[Record]) -> None:
    """Two processes read half of each batch; from the middle of an epoch too."""
    config = from_dict(TINY | {"train": TINY["train"] | {"batch_size": 4}})
    whole = list(batches(records, config, 1, 4))
    halves = [list(batches(records, config, 1, 4, (index, 2))) for index in (0, 1)]
    joined = [
        {key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*halves, strict=True)
    ]
    assert_same(joined, whole)


def test_same_image_differs_between_epochs(records: list[Record]) -> None:
    samples = [
        batch["image"][n]
        for batch in take(records, 0, 5)
        for n in range(2)
        if batch["image_id"][n] == 1
    ]
    assert len(samples) == 2
    assert (samples[0] != samples[1]).any()


def test_nothing_to_do(records: list[Record]) -> None:
    assert take(records, 3, 3) == []


def test_truncated_image_is_named(records: list[Record]) -> None:
    data = records[2].path.read_bytes()
    records[2].path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match=r"image 3: cannot decode .*3\.png"):
        take(records, 0, 3)


def test_changed_image_is_named(records: list[Record]) -> None:
    Image.new("RGB", (41, 30)).save(records[0].path)
    with pytest.raises(DatasetError, match=r"image 1: .*1\.png is 41x30, .* say 40x30"):
        read_image(records[0])


def test_reads_as_the_device_does(records: list[Record]) -> None:
    """16 bits are scaled, not cut off, and the EXIF orientation is applied."""
    record = records[0]
    deep = np.full((30, 40), 128 * 257, np.uint16)
    Image.fromarray(deep).save(record.path)
    assert np.asarray(read_image(record)).max() == 128
    path = record.path.with_suffix(".jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    pixels = np.zeros((40, 30, 3), np.uint8)
    pixels[30:, :] = 255  # at the bottom; on the left when it is upright
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    record.path = path
    upright = np.asarray(read_image(record))
    assert upright.shape == (30, 40, 3)
    assert upright[:, :8].min() > 200
    assert upright[:, 12:].max() < 50


def test_batches_for_a_teacher_that_looks_closer(records: list[Record]) -> None:
    (batch,) = batches(records, from_dict(TINY), 0, 1, zoom=2)
    assert batch["closeup"].shape == (2, 128, 128, 3)
