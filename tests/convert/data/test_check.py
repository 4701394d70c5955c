from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from edgemask_convert.cli import main
from edgemask_convert.data.check import check_dataset
from edgemask_convert.data.dataset import DatasetError
from edgemask_convert.data.soft_mask import encode_soft_mask
from PIL import Image

from ..conftest import Coco


def look(coco: Coco, **options: Any) -> Any:
    coco.path.write_text(json.dumps(coco.data))
    return check_dataset(coco.path, coco.folder, **options)


def outline(x: float, y: float, w: float, h: float) -> list[list[float]]:
    """A rhombus, so that it does not look like a box."""
    return [[x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h / 2]]


def add(coco: Coco, image: int, box: list[float], **extra: Any) -> int:
    return coco.add(image, box, outline(*box), **extra)


def test_counts(coco: Coco) -> None:
    for number in (1, 2, 3):
        coco.image(number)
    add(coco, 1, [2, 2, 10, 10])
    add(coco, 1, [15, 5, 20, 20], category_id=2)
    coco.add(2, [5, 5, 4, 4], segmentation=[])
    add(coco, 2, [5, 5, 30, 20], iscrowd=1)
    check = look(coco, short_side=300)  # the images are 40x30: ten times
    assert (check.images, check.empty) == (3, 1)
    disc, triangle = check.classes
    assert (disc["name"], disc["objects"], disc["masks"], disc["images"]) == ("disc", 2, 1, 2)
    assert (triangle["objects"], triangle["masks"], triangle["images"]) == (1, 1, 1)
    assert check.shapes == {(40, 30): 3}
    assert check.modes == {"RGB": 3}
    assert sorted(check.sides.tolist()) == pytest.approx([40, 100, 200])
    assert list(check.by_size.values()) == [0, 0, 1, 2]
    assert not check.warnings
    assert not check.suspicions
    assert any("few objects of disc (2), triangle (1)" in line for line in check.advice)
    assert any("disc have a box only" in line for line in check.advice)


def test_warnings_of_the_trainer_are_collected(coco: Coco) -> None:
    coco.image(1)
    coco.image(2).unlink()
    coco.add(1, [50, 5, 10, 10])
    coco.add(1, [5, 5, 10, 10], segmentation=[[5, 5, 15, 15]])
    coco.add(9, [0, 0, 5, 5])
    lines = look(coco).warnings
    assert len(lines) == 4
    for text in (
        "1 images of",
        "name images it does not list",
        "less than a pixel",
        "without area",
    ):
        assert sum(text in line for line in lines) == 1


@pytest.mark.parametrize(
    ("boxes", "text"),
    [
        ([[30, 20, 20, 20]], "boxes stick out of their image; first: annotation 100 of image 1"),
        (
            [[0, 0, 40, 30], [3, 3, 8, 8]],
            "a box as large as the image among others; first: image 1",
        ),
        ([[3, 3, 10, 10], [3, 3, 10, 10]], "two objects of a class in the same box"),
    ],
)
def test_suspicious_boxes(coco: Coco, boxes: list[list[float]], text: str) -> None:
    coco.image(1)
    for box in boxes:
        add(coco, 1, box)
    add(coco, 1, [20, 15, 9, 9], category_id=2)
    (line,) = look(coco).suspicions
    assert line.startswith("1 ")
    assert text in line


def test_boxes_that_are_not_their_masks(coco: Coco) -> None:
    coco.image(1)
    add(coco, 1, [20, 15, 9, 9], category_id=2)
    coco.add(1, [2, 2, 20, 20], outline(2, 2, 10, 10))
    whole = np.zeros((30, 40), bool)
    whole[2:12, 2:12] = True
    runs = np.flatnonzero(np.diff(np.concatenate([[0], whole.ravel("F"), [0]]).astype(int)))
    counts = np.diff(np.concatenate([[0], runs, [whole.size]])).tolist()
    coco.add(1, [2, 2, 30, 12], {"size": [30, 40], "counts": counts})
    lines = look(coco).suspicions
    assert "2 boxes are not the extent of their masks; first: annotation 101" in lines[0]


def test_masks_that_are_none(coco: Coco) -> None:
    """The trainer's warning is enough; looking further must not fail."""
    coco.image(1)
    add(coco, 1, [20, 15, 9, 9], category_id=2)
    coco.add(1, [2, 2, 10, 10], [[]])
    coco.add(1, [2, 2, 0.5, 10], "nonsense")
    check = look(coco)
    assert any("less than a pixel" in line for line in check.warnings)
    assert any("without area" in line for line in check.warnings)
    assert not check.suspicions


def test_thin_masks(coco: Coco) -> None:
    coco.image(1)
    add(coco, 1, [20, 15, 9, 9], category_id=2)
    coco.add(1, [2, 2, 20, 20], [[2, 2, 22, 21.5, 22, 22, 2, 2.5]])
    assert any("fills less than a twentieth" in line for line in look(coco).suspicions)


def test_suspicious_classes(coco: Coco) -> None:
    coco.image(1)
    coco.data["categories"].append({"id": 3, "name": "Disc "})
    add(coco, 1, [2, 2, 10, 10])
    lines = look(coco).suspicions
    assert any(
        "the same name apart from case or spaces; first: 'disc' and 'Disc '" in n for n in lines
    )
    assert any(line.startswith("2 classes have no object; first: triangle") for line in lines)


def test_rectangles_as_masks(coco: Coco) -> None:
    for number in range(1, 8):
        coco.image(number)
        coco.add(number, [2, 2, 10, 10])
        add(coco, number, [20, 10, 12, 12], category_id=2)
    (line,) = look(coco).suspicions
    assert "1 classes have only masks that fill their boxes" in line
    assert line.endswith("first: disc")


def test_painted_masks_of_cvat(coco: Coco) -> None:
    coco.image(1)
    add(coco, 1, [2, 2, 10, 10])
    add(coco, 1, [2, 15, 10, 10])
    add(coco, 1, [20, 10, 12, 12], category_id=2)
    for x in (14, 18):
        add(coco, 1, [x, 2, 8, 8], category_id=2, iscrowd=1)
    (line,) = look(coco).suspicions
    assert line.startswith("1 classes have more crowd regions")
    assert line.endswith("first: triangle")


def test_one_file_listed_twice(coco: Coco) -> None:
    coco.image(1)
    coco.image(2, file_name="1.png")
    add(coco, 1, [2, 2, 10, 10])
    add(coco, 2, [2, 2, 10, 10], category_id=2)
    assert any("listed as more than one image" in line for line in look(coco).suspicions)


def test_dark_16_bit_images(coco: Coco) -> None:
    """Twelve bits in sixteen: nearly black once it is divided by 257."""
    values = np.arange(1200, dtype=np.uint16).reshape(30, 40)
    for number, factor in ((1, 3), (2, 50)):
        Image.fromarray(values * np.uint16(factor)).save(coco.image(number))
    add(coco, 1, [2, 2, 10, 10])
    add(coco, 2, [2, 2, 10, 10], category_id=2)
    check = look(coco)
    assert check.modes == {"I;16": 2}
    (line,) = check.suspicions
    assert line.startswith("1 16-bit images")
    assert line.endswith("1.png")


def test_advice_on_sizes(coco: Coco) -> None:
    coco.image(1, 400, 300)
    for n in range(10):
        add(coco, 1, [10 + 30 * n, 20, 4, 4])
        add(coco, 1, [10 + 30 * n, 100, 6, 40], category_id=2)
    lines = look(coco, short_side=320).advice
    assert any("short_side = 1216 they have 16, at 14.4 times the work" in line for line in lines)
    assert any("50% of the boxes are more than three times" in line for line in lines)


def test_no_objects_at_all(coco: Coco) -> None:
    coco.image(1)
    check = look(coco)
    assert check.empty == 1
    assert not len(check.sides)
    assert any("2 classes have no object" in line for line in check.suspicions)


def test_refuses_what_the_trainer_refuses(coco: Coco) -> None:
    coco.image(1, width=40)
    coco.data["images"][0]["width"] = 41
    with pytest.raises(DatasetError, match="is 40x30"):
        look(coco)


def damage(coco: Coco) -> None:
    """Four images: two sound ones, a truncated JPEG and a TIFF of real numbers."""
    for number in (1, 2):
        coco.image(number)
    add(coco, 1, [2, 2, 10, 10])
    add(coco, 2, [20, 10, 10, 10], category_id=2)
    for number, name in ((3, "3.jpg"), (4, "4.tif")):
        coco.image(number, file_name=name)
        add(coco, number, [2, 2, 10, 10])
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(noise).save(coco.folder / "3.jpg")
    content = (coco.folder / "3.jpg").read_bytes()
    (coco.folder / "3.jpg").write_bytes(content[: len(content) // 2])
    Image.fromarray(noise[..., 0].astype(np.float32)).save(coco.folder / "4.tif")


def test_images_that_cannot_be_decoded(coco: Coco, capsys: pytest.CaptureFixture[str]) -> None:
    damage(coco)
    check = look(coco)
    first, second = check.broken
    assert first.startswith("image 3: cannot decode")
    assert second.startswith("image 4: cannot decode")
    assert check.images == 2
    assert not check.suspicions
    command = ["check", "--annotations", str(coco.path), "--images", str(coco.folder)]
    assert main(command) == 1
    out = capsys.readouterr().out
    assert "broken: image 3: cannot decode" in out
    assert out.endswith("2 images cannot be decoded: replace them, or take them out\n")
    for name in ("1.png", "2.png"):
        (coco.folder / name).unlink()
    with pytest.raises(DatasetError, match="none of 2 images can be decoded, first: image 3"):
        look(coco)


def test_command(coco: Coco, capsys: pytest.CaptureFixture[str]) -> None:
    coco.image(1)
    coco.image(2)
    add(coco, 1, [2, 2, 10, 10])
    add(coco, 1, [20, 10, 10, 10], category_id=2)
    coco.path.write_text(json.dumps(coco.data))
    command = ["check", "--annotations", str(coco.path), "--images", str(coco.folder)]
    assert main([*command, "--strict"]) == 0
    out = capsys.readouterr().out
    assert "2 images, 1 of them without objects, 2 objects" in out
    assert "2 of 40x30; pixels 2 RGB" in out
    assert "advice: few objects" in out
    assert out.endswith("nothing is wrong\n")
    (coco.folder / "2.png").unlink()
    assert main(command) == 0
    assert main([*command, "--strict"]) == 1
    captured = capsys.readouterr()
    assert "left out: 1 images of" in captured.out
    assert "1 kind of things to look at" in captured.out
    assert not [line for line in captured.err.splitlines() if "edgemask-convert" in line]


@pytest.mark.parametrize("box", [[10, -10, 15, 15], [10, 20, 10, 18], [-8, 5, 20, 20]])
def test_boxes_that_stick_out_on_any_side(coco: Coco, box: list[float]) -> None:
    coco.image(1)
    add(coco, 1, box)
    add(coco, 1, [20, 15, 9, 9], category_id=2)
    (line,) = look(coco).suspicions
    assert "boxes stick out of their image" in line


@pytest.mark.parametrize(("beyond", "count"), [(3, 0), (5, 1)])
def test_a_hundredth_of_a_large_image_may_stick_out(coco: Coco, beyond: int, count: int) -> None:
    coco.image(1, 400, 300)
    add(coco, 1, [300, 100, 100 + beyond, 50])
    add(coco, 1, [20, 15, 50, 50], category_id=2)
    assert len(look(coco).suspicions) == count


def test_what_is_not_suspicious(coco: Coco) -> None:
    """A portrait, a hat in its head's box, a dot, a crowd that sticks out, and a soft mask."""
    for number in (1, 2, 3, 4, 5):
        coco.image(number)
    add(coco, 1, [0, 0, 40, 30])
    add(coco, 2, [3, 3, 10, 10])
    add(coco, 2, [3, 3, 10, 10], category_id=2)
    coco.add(3, [5, 5, 6, 6], outline(5, 5, 3, 3))
    add(coco, 3, [20, 10, 10, 10], iscrowd=1)
    coco.add(4, [20, 10, 60, 10], outline(5, 5, 3, 3), iscrowd=1, category_id=2)
    coco.add(5, [5, 5, 10, 10], encode_soft_mask(np.ones((8, 8), np.float32)))
    assert not look(coco).suspicions


def test_as_many_crowds_as_objects_are_not_more(coco: Coco) -> None:
    coco.image(1)
    add(coco, 1, [2, 2, 10, 10])
    add(coco, 1, [20, 10, 12, 12], category_id=2)
    add(coco, 1, [14, 2, 8, 8], category_id=2, iscrowd=1)
    assert not look(coco).suspicions


def test_four_rectangles_prove_nothing(coco: Coco) -> None:
    for number in range(1, 5):
        coco.image(number)
        coco.add(number, [2, 2, 10, 10])
    add(coco, 1, [20, 10, 12, 12], category_id=2)
    assert not look(coco).suspicions


def test_16_bit_images_that_use_an_eighth_of_the_range(coco: Coco) -> None:
    values = np.arange(1200, dtype=np.uint16).reshape(30, 40) * np.uint16(9)  # 0 to 41 of 255
    Image.fromarray(values).save(coco.image(1))
    add(coco, 1, [2, 2, 10, 10])
    add(coco, 1, [20, 10, 12, 12], category_id=2)
    assert not look(coco).suspicions


def test_advice_names_eight_classes(coco: Coco) -> None:
    """Those without any object are another matter."""
    coco.image(1, 200, 30)
    coco.data["categories"] = [{"id": n, "name": f"part {n}"} for n in range(1, 12)]
    for n in range(1, 11):
        add(coco, 1, [18 * n, 5, 16, 16], category_id=n)
    (line,) = (line for line in look(coco).advice if line.startswith("few objects of"))
    assert "part 8 (1) and 2 more classes: label more" in line
    assert "part 11" not in line


def test_advice_on_wide_boxes_and_on_images_without_objects(coco: Coco) -> None:
    coco.image(1, 400, 300)
    for n in range(4):
        add(coco, 1, [10, 20 + 60 * n, 200, 50])
    wide, none = "100% of the boxes are more than three times", "no image is without objects"
    lines = look(coco).advice
    assert any(wide in line for line in lines)
    assert any(none in line for line in lines)
    coco.image(2)
    assert not any(none in line for line in look(coco).advice)
