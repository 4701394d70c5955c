from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
import pytest
from edgemask_convert.data.dataset import (
    DatasetWarning,
    upright_size,
)
from edgemask_convert.data.loader import read_image
from edgemask_convert.data.soft_mask import encode_soft_mask
from PIL import Image

from ..conftest import CLASSES, Coco


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DatasetWarning)
        yield


def test_record(coco: Coco) -> None:
    coco.image(7, labeled_cats=[2], exhaustive=0)
    coco.image(8)
    coco.add(7, [5, 6, 20, 10], category_id=2)
    coco.add(7, [1, 2, 3, 4], segmentation=[])  # a box without a mask
    coco.add(7, [10, 0, 10, 30], iscrowd=1)
    dataset = coco.load()
    assert len(dataset) == 2
    assert dataset.classes == [1, 2]
    first, second = dataset.records()
    assert (first.image_id, first.height, first.width) == (7, 30, 40)
    assert first.path == coco.folder / "7.png"
    np.testing.assert_array_equal(first.boxes, [[5, 6, 25, 16], [1, 2, 4, 6]])
    np.testing.assert_array_equal(first.labels, [1, 0])
    np.testing.assert_array_equal(first.has_mask, [True, False])
    np.testing.assert_array_equal(first.ignore, [[10, 0, 20, 30]])
    np.testing.assert_array_equal(first.labeled, [False, True])
    assert not first.exhaustive
    assert (first.bitmaps[0] == 255).all()
    assert (first.bitmaps[1] == 0).all()
    assert second.boxes.shape == (0, 4)
    assert second.ignore.shape == (0, 4)
    assert second.bitmaps.shape == (0, 64, 64)
    np.testing.assert_array_equal(second.labeled, [True, True])
    assert second.exhaustive


def test_classes_choose_and_order_the_columns(coco: Coco) -> None:
    coco.image(1, labeled_cats=[1])
    coco.add(1, [0, 0, 10, 10], category_id=1)
    coco.add(1, [5, 5, 10, 10], category_id=2)
    (record,) = coco.load([2, 1]).records()
    np.testing.assert_array_equal(record.labels, [1, 0])
    np.testing.assert_array_equal(record.labeled, [False, True])
    (record,) = coco.load([2]).records()
    np.testing.assert_array_equal(record.boxes, [[5, 5, 15, 15]])
    np.testing.assert_array_equal(record.labels, [0])


def test_null_means_not_given(coco: Coco) -> None:
    coco.image(1, labeled_cats=None)
    (record,) = coco.load().records()
    assert record.labeled.all()


def test_boxes_are_clipped(coco: Coco) -> None:
    coco.image(1)
    coco.add(1, [-5, -5, 10, 10])
    coco.add(1, [30, 20, 50, 50])
    (record,) = coco.load().records()
    np.testing.assert_array_equal(record.boxes, [[0, 0, 5, 5], [30, 20, 40, 30]])
    assert (record.bitmaps == 255).all()  # each fills what is left of its box


def test_polygons_and_rle_mixed(coco: Coco) -> None:
    coco.image(1)
    dense = np.zeros((30, 40), np.uint8)
    dense[10:20, 5:25] = 1
    runs = np.flatnonzero(np.diff(np.concatenate([[0], dense.ravel("F"), [0]])))
    counts = np.diff(np.concatenate([[0], runs, [dense.size]])).tolist()
    coco.add(1, [5, 10, 20, 10], {"size": [30, 40], "counts": counts})
    coco.add(1, [5, 10, 20, 10])
    (record,) = coco.load().records()
    assert record.has_mask.all()
    assert (record.bitmaps == 255).all()


def test_file_names_with_folders(coco: Coco) -> None:
    (coco.folder / "day1").mkdir()
    Image.new("RGB", (40, 30)).save(coco.folder / "day1" / "a.png")
    coco.data["images"].append({"id": 1, "file_name": "day1/a.png", "width": 40, "height": 30})
    assert coco.load().records()[0].path == coco.folder / "day1" / "a.png"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_size_of_a_turned_image(coco: Coco, suffix: str, orientation: int) -> None:
    """Pillow turns a TIFF by itself, and says so of its size; a JPEG it does not."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    width, height = (30, 40) if orientation > 4 else (40, 30)
    coco.image(1, width, height, file_name=f"1.{suffix}")
    Image.new("RGB", (40, 30)).save(coco.folder / f"1.{suffix}", exif=exif)
    (record,) = coco.load().records()
    assert (record.width, record.height) == (width, height)
    assert read_image(record).size == (width, height)


def test_size_of_a_turned_tiff_of_an_older_pillow() -> None:
    class Older:
        size = width, height = (40, 30)
        tag_v2: ClassVar = {256: 40, 257: 30}

        def getexif(self) -> dict[int, int]:
            return {0x0112: 6}

    assert upright_size(Older()) == (30, 40)  # type: ignore[arg-type]


def test_a_teacher_fills_a_mask_without_area(coco: Coco) -> None:
    soft = encode_soft_mask(np.ones((4, 4), np.float32))
    coco.image(1)
    coco.add(1, [5, 5, 10, 10], segmentation=[[5, 5, 15, 15]], soft_mask=soft)
    (record,) = coco.load().records()
    assert record.has_mask.all()


def test_missing_images_are_skipped(coco: Coco) -> None:
    coco.image(1)
    coco.image(2).unlink()
    coco.image(3).unlink()
    coco.add(2, [0, 0, 9, 9])
    with pytest.warns(DatasetWarning, match=r"2 images of .* are missing.*2\.png \(id 2\)"):
        dataset = coco.load()
    assert [record.image_id for record in dataset.records()] == [1]


def test_files_that_are_no_images_are_skipped(coco: Coco) -> None:
    coco.image(1)
    coco.image(2).write_bytes(b"not a picture")
    dataset = coco.load()
    with pytest.warns(DatasetWarning, match=r"1 files are not images.*2\.png \(id 2\)"):
        records = dataset.records()
    assert [record.image_id for record in records] == [1]


def test_degenerate_boxes_are_dropped(coco: Coco) -> None:
    coco.image(1)
    outside = coco.add(1, [50, 5, 10, 10])
    coco.add(1, [5, 5, 0.5, 10])
    coco.add(1, [5, 5, -3, 10])
    coco.add(1, [5, 5, 10, 10])
    dataset = coco.load()
    with pytest.warns(DatasetWarning, match=rf"3 objects .* dropped, first: annotation {outside}"):
        (record,) = dataset.records()
    assert len(record.boxes) == 1


def test_masks_without_area_keep_their_box(coco: Coco) -> None:
    coco.image(1)
    first = coco.add(1, [5, 5, 10, 10], segmentation=[[5, 5, 15, 15]])
    coco.add(1, [5, 5, 10, 10], segmentation={"size": [30, 40], "counts": [1200]})
    dataset = coco.load()
    with pytest.warns(DatasetWarning, match=f"2 objects have a mask without area.* {first}"):
        (record,) = dataset.records()
    assert len(record.boxes) == 2
    assert not record.has_mask.any()


def test_annotations_of_unlisted_images(coco: Coco) -> None:
    coco.image(1)
    number = coco.add(9, [0, 0, 5, 5])
    with pytest.warns(DatasetWarning, match=f"1 annotations .* annotation {number}"):
        coco.load()


def test_image_upright_by_exif(coco: Coco) -> None:
    """The annotations are of the picture as people see it, and as the device will."""
    path = coco.image(1, width=30, height=40, file_name="1.jpg").with_suffix(".jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    assert coco.load().records()[0].width == 30


def test_category_names(coco: Coco) -> None:
    coco.image(1)
    assert coco.load().category_names == {c["id"]: c["name"] for c in CLASSES}


def test_too_large_images_are_skipped(coco: Coco, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemask_convert.data.dataset.MAX_PIXELS", 1500)
    coco.image(1)
    coco.image(2, width=60)
    dataset = coco.load()
    with pytest.warns(DatasetWarning, match=r"too large, .*2\.png \(id 2\)"):
        assert len(dataset.records()) == 1


def test_broken_exif_does_not_matter(coco: Coco, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Image.Image) -> None:
        raise SyntaxError("bad EXIF")

    coco.image(1)
    monkeypatch.setattr(Image.Image, "getexif", broken)
    assert coco.load().records()[0].width == 40


def test_everything_at_once(coco: Coco) -> None:
    """What one meets in a real collection is said once each, and the rest is used."""
    coco.image(1)
    coco.image(2).unlink()
    coco.image(3).write_bytes(b"rubbish")
    dense = {"size": [30, 40], "counts": [410, 10, 780]}
    coco.add(1, [5, 5, 10, 10])
    coco.add(1, [13, 20, 1, 10], dense)
    coco.add(1, [0, 0, 40, 15], dense, iscrowd=1)
    coco.add(1, [5, 5, 10, 10], segmentation=[])
    coco.add(1, [60, 60, 10, 10])
    coco.add(1, [5, 5, 10, 10], segmentation=[[5, 5, 6, 6]])
    coco.add(8, [5, 5, 10, 10])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DatasetWarning)
        (record,) = coco.load().records()
    assert len(caught) == 5
    assert all("first: " in str(w.message) for w in caught)
    np.testing.assert_array_equal(record.has_mask, [True, True, False, False])
    assert len(record.ignore) == 1


def test_an_image_in_which_nothing_is_labelled_exhaustively(coco: Coco) -> None:
    """An empty list is not a missing one."""
    coco.image(1, labeled_cats=[])
    coco.image(2)
    coco.add(1, [5, 5, 10, 10])
    first, second = coco.load().records()
    assert first.labeled.tolist() == [False, False]
    assert second.labeled.tolist() == [True, True]
