from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.cli import main
from edgemask_convert.data.dataset import CocoDataset, DatasetError, DatasetWarning
from edgemask_convert.data.labelme import import_labelme, keep_labelme, read_labels
from labelled import draw_labelme, labelme_file, labelme_shape, mask_shape
from PIL import Image

from edgemask import rle


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DatasetWarning)
        yield


def put(folder: Path, name: str, *shapes: dict[str, Any], **extra: Any) -> Path:
    """Write an image of 60x40 and its labelme file; return the file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40), (90, 100, 110)).save(path)
    label = path.with_suffix(".json")
    label.write_text(labelme_file(path.name, 60, 40, list(shapes), **extra))
    return label


SQUARE = [[10, 5], [30, 5], [30, 25], [10, 25]]


def test_kinds_of_shapes(tmp_path: Path) -> None:
    bitmap = np.zeros((40, 60), bool)
    bitmap[8:20, 40:50] = True
    bitmap[12:15, 43:46] = False  # a hole
    put(
        tmp_path, "a.png", labelme_shape("nut", SQUARE),
        labelme_shape("nut", [[30, 25], [10, 5]], "rectangle"),  # drawn from the other corner
        labelme_shape("nut", SQUARE, "rectangle"),  # of newer versions: four points
        labelme_shape("bolt", [[20, 20], [20, 30]], "circle"), mask_shape("bolt", bitmap),
    )  # fmt: skip
    data = import_labelme(tmp_path)
    assert data["images"] == [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}]
    assert data["categories"] == [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}]
    square, *rectangles, circle, mask = data["annotations"]
    assert [a["id"] for a in data["annotations"]] == [1, 2, 3, 4, 5]
    for entry in (square, *rectangles):
        assert entry["bbox"] == [10, 5, 20, 20]
        assert entry["area"] == 400
        assert entry["category_id"] == 2
        assert entry["iscrowd"] == 0
    assert square["segmentation"] == [[10, 5, 30, 5, 30, 25, 10, 25]]
    assert circle["bbox"] == [10, 10, 20, 20]
    assert circle["area"] == pytest.approx(100 * math.pi, rel=0.05)
    assert mask["bbox"] == [40, 8, 10, 12]
    assert mask["area"] == 111
    outline = mask["segmentation"]
    np.testing.assert_array_equal(rle.decode(outline["counts"], *outline["size"]), bitmap)


def test_rectangles_that_are_turned(tmp_path: Path) -> None:
    """labelme 6 has them; they come with four corners."""
    corners = [[20, 5], [30, 15], [20, 25], [10, 15]]
    put(tmp_path, "a.png", labelme_shape("nut", corners, "oriented_rectangle"))
    (entry,) = import_labelme(tmp_path)["annotations"]
    assert entry["segmentation"] == [[20, 5, 30, 15, 20, 25, 10, 15]]
    assert entry["area"] == pytest.approx(200, rel=0.06)
    (entry,) = import_labelme(tmp_path, boxes=True)["annotations"]
    assert entry["segmentation"] == []
    assert entry["bbox"] == [10, 5, 20, 20]


def test_groups_are_one_object(tmp_path: Path) -> None:
    """What stands in front of an object cuts it in two."""
    left, right = [[0, 0], [10, 0], [10, 10], [0, 10]], [[20, 5], [30, 5], [30, 15], [20, 15]]
    bitmap = np.zeros((40, 60), bool)
    bitmap[30:34, 40:44] = True
    put(tmp_path, "a.png", labelme_shape("nut", left, group_id=1), labelme_shape("nut", SQUARE),
        labelme_shape("nut", right, group_id=1), labelme_shape("bolt", left, group_id=2),
        mask_shape("bolt", bitmap, group_id=2))  # fmt: skip
    nut, single, bolt = import_labelme(tmp_path)["annotations"]
    assert nut["bbox"] == [0, 0, 30, 15]
    assert len(nut["segmentation"]) == 2
    assert nut["area"] == 200
    assert len(single["segmentation"]) == 1
    assert bolt["area"] == 116  # a polygon and a mask become one RLE
    assert bolt["bbox"] == [0, 0, 44, 34]


def test_parts_that_overlap_count_once(tmp_path: Path) -> None:
    put(tmp_path, "a.png", labelme_shape("nut", SQUARE, group_id=0),
        labelme_shape("nut", SQUARE, group_id=0))  # fmt: skip
    (entry,) = import_labelme(tmp_path)["annotations"]
    assert entry["area"] == 400


def test_rectangles_as_boxes(tmp_path: Path) -> None:
    put(tmp_path, "a.png", labelme_shape("nut", SQUARE[::2], "rectangle"),
        labelme_shape("nut", SQUARE))  # fmt: skip
    boxed, outlined = import_labelme(tmp_path, boxes=True)["annotations"]
    assert boxed["segmentation"] == []
    assert boxed["bbox"] == outlined["bbox"]
    assert outlined["segmentation"]


def test_shapes_are_clipped(tmp_path: Path) -> None:
    bitmap = np.ones((40, 60), bool)
    beyond = mask_shape("nut", bitmap)
    beyond["points"] = [[-10, 30], [49, 69]]
    outside = mask_shape("nut", bitmap)
    outside["points"] = [[0, 50], [59, 89]]
    put(tmp_path, "a.png", labelme_shape("nut", [[0, 0], [0, 10]], "circle"), beyond,
        labelme_shape("nut", SQUARE), outside)  # fmt: skip
    with pytest.warns(DatasetWarning, match=r"1 objects have no area .* a nut in .*a\.json"):
        circle, mask, _ = import_labelme(tmp_path)["annotations"]
    assert circle["bbox"] == [0, 0, 10, 10]
    assert mask["bbox"] == [0, 30, 50, 10]


def test_folders_and_other_files(tmp_path: Path) -> None:
    put(tmp_path / "labels" / "day2", "b.png", labelme_shape("nut", SQUARE))
    put(tmp_path / "labels" / "day1", "a.png", labelme_shape("nut", SQUARE))
    image = tmp_path / "labels" / "day1" / "a.png"
    (tmp_path / "photos").mkdir()
    image.rename(tmp_path / "photos" / "a.png")
    for path in (tmp_path / "labels").rglob("a.json"):
        path.write_text(labelme_file("..\\..\\photos\\a.png", 60, 40, []))  # from Windows
    (tmp_path / "labels" / "coco.json").write_text(
        json.dumps({"images": [], "annotations": [], "categories": []})
    )
    data = import_labelme(tmp_path / "labels", tmp_path)
    names = [info["file_name"] for info in data["images"]]
    assert names == ["photos/a.png", "labels/day2/b.png"]
    with pytest.raises(DatasetError, match=r"a\.png is outside of .*--images"):
        import_labelme(tmp_path / "labels")


def test_empty_photographs(tmp_path: Path) -> None:
    put(tmp_path, "b.png", labelme_shape("nut", SQUARE))
    put(tmp_path, "a.png").unlink()
    assert len(import_labelme(tmp_path)["images"]) == 1
    data = import_labelme(tmp_path, empty=True)
    assert [(info["id"], info["file_name"]) for info in data["images"]] == [
        (1, "b.png"), (2, "a.png"),
    ]  # fmt: skip
    assert {a["image_id"] for a in data["annotations"]} == {1}


def test_what_has_no_area_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.png", labelme_shape("nut", SQUARE), labelme_shape("nut", [[3, 3]], "point"),
        labelme_shape("nut", SQUARE, "linestrip"))  # fmt: skip
    with pytest.warns(DatasetWarning, match=r"2 shapes are points or lines.*shape 1 of .*a point"):
        assert len(import_labelme(tmp_path)["annotations"]) == 1
    put(tmp_path, "a.png", labelme_shape("nut", SQUARE), labelme_shape("nut", [[3, 3], [4, 4]]))
    with pytest.warns(DatasetWarning, match="1 objects have no area"):
        assert len(import_labelme(tmp_path)["annotations"]) == 1


def test_missing_photographs_are_named(tmp_path: Path) -> None:
    put(tmp_path, "a.png", labelme_shape("nut", SQUARE))
    put(tmp_path, "b.png", labelme_shape("nut", SQUARE))
    (tmp_path / "b.png").unlink()
    with pytest.warns(DatasetWarning, match=r"1 labelme files .* missing.*b\.json names 'b\.png'"):
        assert len(import_labelme(tmp_path)["images"]) == 1


def test_image_data_and_missing_sizes_do_not_matter(tmp_path: Path) -> None:
    put(tmp_path, "a.png", labelme_shape("nut", SQUARE), imageData="!!", imageHeight=None)
    assert import_labelme(tmp_path)["images"][0]["height"] == 40


def test_photographs_on_their_side(tmp_path: Path) -> None:
    """labelme shows a photograph upright, and so are its points."""
    label = put(tmp_path, "a.jpg", labelme_shape("nut", SQUARE))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(DatasetError, match=r"60x40 pixels, .* has 40x60"):
        import_labelme(tmp_path)
    label.write_text(labelme_file("a.jpg", 40, 60, [labelme_shape("nut", SQUARE)]))
    assert import_labelme(tmp_path)["images"][0]["width"] == 40


def test_labels(tmp_path: Path) -> None:
    put(tmp_path, "a.png", labelme_shape("nut", SQUARE))
    names = [c["name"] for c in import_labelme(tmp_path, labels=["washer", "nut"])["categories"]]
    assert names == ["washer", "nut"]
    listed = tmp_path / "labels.txt"
    listed.write_text("__ignore__\n_background_\nnut\n\nbolt \n")
    assert read_labels(str(listed)) == ["nut", "bolt"]
    assert read_labels("a, b,") == ["a", "b"]
    with pytest.raises(DatasetError, match="names 'a' twice"):
        read_labels("a,b,a")
    with pytest.raises(DatasetError, match="has no label"):
        read_labels(",")
    with pytest.raises(DatasetError, match=r"a\.json: label 'nut' is not .*mean 'nuts'"):
        import_labelme(tmp_path, labels=["nuts", "bolt"])


def test_label_files_of_windows(tmp_path: Path) -> None:
    listed = tmp_path / "labels.txt"
    listed.write_text("nut\r\nbolt\r\n", encoding="utf-8-sig", newline="")
    assert read_labels(str(listed)) == ["nut", "bolt"]


@pytest.mark.parametrize("name", ["labels.txt", "data/labels", "LABELS.TXT"])
def test_a_file_of_labels_that_is_not_there(name: str) -> None:
    with pytest.raises(DatasetError, match=f"there is no file of labels {name}: check the path"):
        read_labels(name)
    assert read_labels("on/off,nut") == ["on/off", "nut"]


def test_a_labelme_file_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = put(tmp_path / "day", "a.png", labelme_shape("nut", SQUARE))
    before = label.read_bytes()
    assert main(["import-labelme", str(tmp_path), "--out", str(label)]) == 1
    assert f"{label} is a labelme file of {tmp_path}" in capsys.readouterr().err
    assert label.read_bytes() == before
    out = tmp_path / "annotations.json"
    for _ in range(2):  # what it wrote itself may be written again
        assert main(["import-labelme", str(tmp_path), "--out", str(out)]) == 0
    keep_labelme(tmp_path / "other", label)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is not labelme's"),
        ('{"shapes": 3}', "is not labelme's"),
        ('{"shapes": []}', "has no 'imagePath'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    put(tmp_path, "a.png").write_text(content)
    with pytest.raises(DatasetError, match=rf"a\.json.*{message}"):
        import_labelme(tmp_path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"points": []}, "has no label"),
        (labelme_shape("a", [[1, 2, 3]]), "not pairs of numbers"),
        (labelme_shape("a", [["x", "y"]]), "not pairs of numbers"),
        (labelme_shape("a", [[1, float("nan")]] * 3), "not pairs of numbers"),
        (labelme_shape("a", None), "not pairs of numbers"),
        (labelme_shape("a", [[1, 1]], "circle"), "a circle, has 1 points"),
        (labelme_shape("a", [[0, 0], [5, 5]], "mask"), "its mask is damaged"),
        (labelme_shape("a", [[0, 0], [5, 5]], "mask", mask="AAAA"), "its mask is damaged"),
    ],
)
def test_damaged_shapes_are_named(tmp_path: Path, shape: dict[str, Any], message: str) -> None:
    put(tmp_path, "a.png", labelme_shape("a", SQUARE), shape)
    with pytest.raises(DatasetError, match=rf"shape 1 of .*a\.json.*{message}"):
        import_labelme(tmp_path)


def test_contradictions_are_named(tmp_path: Path) -> None:
    put(tmp_path, "a.png", labelme_shape("nut", SQUARE, group_id=4),
        labelme_shape("bolt", SQUARE, group_id=4))  # fmt: skip
    with pytest.raises(DatasetError, match=r"a\.json: group 4 has the labels bolt, nut"):
        import_labelme(tmp_path)
    label = put(tmp_path, "a.png", labelme_shape("nut", SQUARE))
    label.with_name("b.json").write_text(label.read_text())
    with pytest.raises(DatasetError, match=r"b\.json and .*a\.json are both of a\.png"):
        import_labelme(tmp_path)
    label.with_name("b.json").unlink()
    (tmp_path / "a.png").write_bytes(b"rubbish")
    with pytest.raises(DatasetError, match=r"a\.png cannot be read"):
        import_labelme(tmp_path)


def test_nothing_to_import(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none is not a folder"):
        import_labelme(tmp_path / "none")
    with pytest.raises(DatasetError, match="has no labelme file"):
        import_labelme(tmp_path)
    put(tmp_path, "a.png")
    with pytest.raises(DatasetError, match="nothing is labelled"):
        import_labelme(tmp_path)


def test_the_trainer_reads_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Masks from outlines, circles and bitmaps come out where they were drawn."""
    folder = draw_labelme(tmp_path / "drawn", 12)
    out = tmp_path / "annotations.json"
    command = ["import-labelme", str(folder), "--labels", "disc,triangle", "--out", str(out)]
    assert main(command) == 0
    assert "annotations.json: 12 images" in capsys.readouterr().out
    records = CocoDataset(out, folder).records()
    assert sum(len(r.boxes) for r in records) > 20
    assert all(r.has_mask.all() for r in records)
    discs = np.concatenate([r.bitmaps[r.labels == 0] for r in records]).mean(axis=(1, 2)) / 255
    assert abs(float(np.median(discs)) - math.pi / 4) < 0.03


def test_shapes_of_any_place_and_number_of_points(tmp_path: Path) -> None:
    """A triangle on the right of a photograph that is wider than high; it needs no type."""
    shape = labelme_shape("nut", [[50, 5], [58, 5], [58, 21]])
    del shape["shape_type"]
    put(tmp_path, "a.png", shape, {**shape, "shape_type": None})
    for entry in import_labelme(tmp_path)["annotations"]:
        assert entry["bbox"] == [50, 5, 8, 16]
        assert entry["area"] == pytest.approx(64, abs=8)


def test_a_mask_above_the_photograph_is_cut(tmp_path: Path) -> None:
    bitmap = np.zeros((40, 60), bool)
    bitmap[:20, :10] = True
    shape = mask_shape("nut", bitmap)
    (x0, y0), (x1, y1) = shape["points"]
    shape["points"] = [[x0, y0 - 12], [x1, y1 - 12]]
    put(tmp_path, "a.png", shape, labelme_shape("nut", SQUARE))
    assert import_labelme(tmp_path)["annotations"][0]["bbox"] == [0, 0, 10, 8]


def test_a_group_with_a_rectangle_is_a_box(tmp_path: Path) -> None:
    put(tmp_path, "a.png", labelme_shape("nut", SQUARE[::2], "rectangle", group_id=1),
        labelme_shape("nut", [[30, 5], [40, 5], [40, 25]], group_id=1))  # fmt: skip
    (entry,) = import_labelme(tmp_path, boxes=True)["annotations"]
    assert entry["segmentation"] == []
    assert entry["bbox"] == [10, 5, 30, 20]


@pytest.mark.parametrize("place", ["labels/day1", "photos"])
def test_photographs_that_were_moved(tmp_path: Path, place: str) -> None:
    """They are looked for beside their file, and in the folder of all photographs."""
    label = put(tmp_path / "labels" / "day1", "a.png")
    (tmp_path / "photos").mkdir()
    label.with_suffix(".png").rename(tmp_path / place / "b.png")
    square = labelme_shape("nut", SQUARE)
    label.write_text(labelme_file("C:\\Users\\me\\b.png", 60, 40, [square]))
    root = tmp_path if place.startswith("labels") else tmp_path / "photos"
    (info,) = import_labelme(tmp_path / "labels", root)["images"]
    assert (root / info["file_name"]).samefile(tmp_path / place / "b.png")


def test_empty_photographs_of_cameras(tmp_path: Path) -> None:
    put(tmp_path, "b.png", labelme_shape("nut", SQUARE))
    put(tmp_path, "IMG_1.PNG").unlink()
    names = [info["file_name"] for info in import_labelme(tmp_path, empty=True)["images"]]
    assert names == ["b.png", "IMG_1.PNG"]
