"""What is written of a take comes back, and comes out in the formats of others."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from synthetic import make_instances

from edgemask.errors import InputError, OutputError
from edgemask.instances import Instances
from edgemask.sources.base import Frame
from edgemask.takes import writer
from edgemask.takes.coco import write_coco
from edgemask.takes.openpose import write_openpose
from edgemask.takes.reader import Record, read_take
from edgemask.takes.silhouettes import write_silhouettes
from edgemask.takes.tables import COLUMNS, POINT_COLUMNS, write_csv
from edgemask.takes.writer import SCHEMA, TakeWriter

MODEL = {"name": "people", "version": "7", "sha256": "0" * 64}
SECOND = 1_000_000_000


def frame(index: int, height: int = 40, width: int = 60, name: str = "") -> Frame:
    rgb = np.zeros((height, width, 3), np.uint8)
    name = name or f"cam-{index:06d}"
    return Frame(rgb, index, index * SECOND // 10, 1_700_000_000 * SECOND + index, name)


def people(index: int, *, tracks: bool = True, posed: bool = False) -> Instances:
    """Two rectangles of which the first moves a pixel a frame."""
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 5:25, 10 + index : 20 + index] = True
    masks[1, 10:30, 40:50] = True
    found = make_instances(masks, [0.9, 0.8])
    keypoints = None
    if posed:
        keypoints = np.zeros((2, 17, 3), np.float32)
        keypoints[0] = np.stack([np.arange(17) + 10.5, np.arange(17) + 5.5, np.full(17, 0.6)], 1)
        keypoints[0, 3, 2] = 0.25
    return Instances(
        found.boxes, found.scores, found.class_ids, found.masks, found.class_names,
        track_ids=[4, 7] if tracks else None, keypoints=keypoints,
    )  # fmt: skip


@pytest.fixture
def take(tmp_path: Path) -> Path:
    """Frames 0, 1 and 3: of frame 2 nothing is known. In frame 3 there is nobody."""
    with TakeWriter(tmp_path / "cam.jsonl") as written:
        written.add(frame(0), people(0), MODEL)
        written.add(frame(1), people(1), MODEL)
        written.add(frame(3), Instances.empty(40, 60), MODEL)
    return written.path


@pytest.fixture
def posed(tmp_path: Path) -> Path:
    with TakeWriter(tmp_path / "pose.jsonl") as written:
        written.add(frame(0), people(0, posed=True))
        written.add(frame(1), Instances.empty(40, 60, keypoints=True))
    return written.path


# ---- writing and reading


def test_a_line_for_each_frame(take: Path) -> None:
    first, second, third = map(json.loads, take.read_text().splitlines())
    assert first["schema"] == SCHEMA == "edgemask.frame/1"
    assert (first["source"], first["index"], first["sensor_ns"]) == ("cam-000000", 0, 0)
    assert first["wall_ns"] == 1_700_000_000 * SECOND
    assert first["model"] == MODEL
    assert {k: second[k] for k in ("size", "instances")} == people(1).to_dict()
    assert third["instances"] == []


def test_what_is_written_comes_back(take: Path) -> None:
    records = list(read_take(take))
    assert [record.index for record in records] == [0, 1, 3]
    assert [record.sensor_ns for record in records] == [0, SECOND // 10, 3 * SECOND // 10]
    assert records[0].size == (40, 60)
    assert records[1].instances == people(1).to_dict()["instances"]


def test_a_film_may_begin_before_its_time_0(take: Path) -> None:
    assert list(read_take(spoilt(take, sensor_ns=-300_000_000)))[1].sensor_ns == -300_000_000


def test_every_frame_is_on_the_disk_at_once(tmp_path: Path) -> None:
    with TakeWriter(tmp_path / "deep" / "take.jsonl") as written:
        for index in range(3):
            written.add(frame(index), people(index))
            assert len(list(read_take(written.path))) == index + 1


def test_a_take_is_never_replaced(take: Path) -> None:
    before = take.read_bytes()
    with pytest.raises(OutputError, match="exists already: choose another name"):
        TakeWriter(take)
    assert take.read_bytes() == before


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TakeWriter(tmp_path / "take.jsonl") as written:
        written.add(frame(0), people(0))

        def full(record: object) -> bytes:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(writer, "json_line", full)
        with pytest.raises(OutputError, match=r"No space left.*free some space") as caught:
            written.add(frame(1), people(1))
    assert caught.value.errno == errno.ENOSPC
    assert [record.index for record in read_take(written.path)] == [0]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a file is in the way"):
        TakeWriter(tmp_path / "file" / "take.jsonl")


def test_a_power_cut_costs_the_last_line(take: Path) -> None:
    take.write_bytes(take.read_bytes()[:-30])
    with pytest.warns(UserWarning, match="the last line is not complete and is left out"):
        assert [record.index for record in read_take(take)] == [0, 1]


def test_progress_ends_at_the_size_of_the_file(take: Path) -> None:
    told: list[int] = []
    list(read_take(take, told.append))
    assert told == sorted(told)
    assert told[-1] == take.stat().st_size


def spoilt(take: Path, **changes: object) -> Path:
    """Change the record of the second frame."""
    lines = take.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | changes)
    take.write_text("\n".join(lines) + "\n")
    return take


GOOD = people(1).to_dict()["instances"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "edgemask.frame/2"}, "line 2 .*its schema is not edgemask.frame/1"),
        ({"index": -1}, "not whole numbers"),
        ({"index": 0}, "line 2 has the index 0 after 0: give each take by itself"),
        ({"index": True}, "not whole numbers"),
        ({"sensor_ns": 1.5}, "not whole numbers"),
        ({"wall_ns": None}, "not whole numbers"),
        ({"size": [40]}, "size is not"),
        ({"size": [0, 60]}, "size is not"),
        ({"size": [40, 10**9]}, "size is not"),
        ({"instances": None}, "an instance lacks"),
        ({"instances": [{}]}, "an instance lacks"),
        ({"instances": [GOOD | {"box": [1, 2, 3]}]}, "an instance lacks"),
        ({"instances": [GOOD | {"box": [1, 2, 3, "4"]}]}, "an instance lacks"),
        ({"instances": [GOOD | {"track_id": "a"}]}, "an instance lacks"),
        ({"instances": [GOOD | {"segmentation": "x"}]}, "an instance lacks"),
        ({"instances": [GOOD | {"segmentation": {"size": [40, 60]}}]}, "an instance lacks"),
        ({"instances": [GOOD | {"centroid": 5}]}, "an instance lacks"),
        ({"instances": [GOOD | {"keypoints": [[1, 2, 3]]}]}, "an instance lacks"),
        ({"instances": [GOOD | {"score": "high"}]}, "an instance lacks"),
        ({"instances": [GOOD | {"score": float("nan")}]}, "an instance lacks"),
        ({"instances": [GOOD | {"area": [1]}]}, "an instance lacks"),
        ({"instances": [GOOD | {"box": [0.5, 1, 10**400, 2]}]}, "an instance lacks"),
        ({"instances": [GOOD | {"keypoints": [[float("inf"), 1, 1]] * 17}]}, "an instance lacks"),
        ({"index": 2**63}, "not whole numbers"),
        ({"size": [65_535, 65_535]}, "size .* is more than 256 megapixels"),
    ],
)
def test_a_damaged_line_is_named(take: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_take(spoilt(take, **changes)))


@pytest.mark.parametrize(
    "content", [b"\0\1\2", b"index,score\n1,2\n", b"[]\n", b"\xff\xfe\n", b"[" * 10**5]
)
def test_another_file_is_no_take(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"line 1 is not a record.*give a file that edgemask track"
    ):
        list(read_take(path))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        list(read_take(tmp_path / "none.jsonl"))


def test_a_folder_is_no_take(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        list(read_take(tmp_path))


# ---- CSV


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_csv(take: Path, tmp_path: Path) -> None:
    write_csv(read_take(take), tmp_path / "out.csv")
    rows = rows_of(tmp_path / "out.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [(row["index"], row["track_id"]) for row in rows] == [
        ("0", "4"), ("0", "7"), ("1", "4"), ("1", "7")]  # fmt: skip
    assert rows[2]["class_name"] == "person"
    assert [float(rows[2][c]) for c in ("x0", "y0", "x1", "y1")] == [11, 5, 21, 25]
    assert [float(rows[2][c]) for c in ("area", "centroid_x", "centroid_y")] == [200, 16, 15]


def test_csv_of_poses(posed: Path, tmp_path: Path) -> None:
    write_csv(read_take(posed), tmp_path / "out.csv")
    rows = rows_of(tmp_path / "out.csv")
    assert tuple(rows[0]) == COLUMNS + POINT_COLUMNS
    assert [float(rows[0][f"nose_{part}"]) for part in ("x", "y", "score")] == [10.5, 5.5, 0.6]


def test_csv_of_what_is_missing(tmp_path: Path) -> None:
    with TakeWriter(tmp_path / "take.jsonl") as written:
        written.add(frame(0), people(0, tracks=False))
    write_csv(read_take(written.path), tmp_path / "out.csv")
    assert rows_of(tmp_path / "out.csv")[0]["track_id"] == ""


def test_csv_has_every_value_in_its_column(tmp_path: Path) -> None:
    item = {"class_id": 1, "class_name": 'a "b"\nc, ü', "score": 0.5, "box": [1, 2, 3, 4],
            "area": 5, "centroid": [6, 7], "track_id": 8}  # fmt: skip
    write_csv([Record(9, 10, 11, "f", (40, 60), [item])], tmp_path / "a.csv")
    (row,) = rows_of(tmp_path / "a.csv")
    assert (row["index"], row["sensor_ns"], row["wall_ns"]) == ("9", "10", "11")
    assert row["class_name"] == 'a "b"\nc, ü'
    assert b"\r\r\n" not in (tmp_path / "a.csv").read_bytes()


def test_csv_of_a_name_that_is_no_text(take: Path, tmp_path: Path) -> None:
    spoilt(take, instances=[GOOD | {"class_name": "\ud800"}])
    write_csv(read_take(take), tmp_path / "take.csv")
    assert "\\ud800" in (tmp_path / "take.csv").read_text("utf-8")


def test_csv_of_nobody_has_a_header(tmp_path: Path) -> None:
    write_csv([], tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().strip() == ",".join(COLUMNS)


# ---- COCO


def test_coco_is_read_by_pycocotools(take: Path, tmp_path: Path) -> None:
    write_coco(lambda: read_take(take), tmp_path / "out.json")
    coco = COCO(str(tmp_path / "out.json"))
    images = coco.loadImgs(coco.getImgIds())
    assert [(im["id"], im["file_name"], im["frame_index"]) for im in images] == [
        (1, "cam-000000.jpg", 0), (2, "cam-000001.jpg", 1), (4, "cam-000003.jpg", 3)]  # fmt: skip
    assert (images[0]["height"], images[0]["width"]) == (40, 60)
    assert coco.loadCats(coco.getCatIds()) == [{"id": 1, "name": "person"}]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[2]))
    assert [entry["track_id"] for entry in annotations] == [4, 7]
    assert annotations[0]["bbox"] == [11, 5, 10, 20]
    mask = coco_mask.decode(annotations[0]["segmentation"])
    assert np.array_equal(mask.astype(bool), people(1).masks.to_dense()[0])


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["photos/a.jpg", "photos/b.JPG"], ["a.jpg", "b.JPG"]),
        (["photos/a/1.jpg", "photos/b/1.jpg"], ["a/1.jpg", "b/1.jpg"]),
        (["/disk/a/1.jpg", "/disk/2.jpg"], ["a/1.jpg", "2.jpg"]),
        (["1.jpg", "a/1.jpg"], ["1.jpg", "a/1.jpg"]),
    ],
)
def test_coco_names_are_those_below_the_common_folder(
    sources: list[str], names: list[str], tmp_path: Path
) -> None:
    with TakeWriter(tmp_path / "take.jsonl") as written:
        for index, source in enumerate(sources):
            written.add(frame(index, name=source), people(index))
    write_coco(lambda: read_take(written.path), tmp_path / "out.json")
    images = json.loads((tmp_path / "out.json").read_text())["images"]
    assert [image["file_name"] for image in images] == names


def test_coco_of_poses(posed: Path, tmp_path: Path) -> None:
    write_coco(lambda: read_take(posed), tmp_path / "out.json")
    data = json.loads((tmp_path / "out.json").read_text())
    (category,) = data["categories"]
    assert category["keypoints"][0] == "nose"
    assert min(min(pair) for pair in category["skeleton"]) == 1
    first, second = data["annotations"]
    assert first["keypoints"][:3] == [10, 5, 2]  # half a pixel less: COCO counts pixels
    assert first["keypoints"][9:12] == [13, 8, 1]  # not sure
    assert (first["num_keypoints"], second["num_keypoints"]) == (17, 0)


def test_coco_of_nobody(tmp_path: Path) -> None:
    write_coco(list, tmp_path / "out.json")
    empty = {"images": [], "annotations": [], "categories": []}
    assert json.loads((tmp_path / "out.json").read_text()) == empty


# ---- OpenPose


def test_openpose(posed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pose_json"
    assert write_openpose(read_take(posed), folder, "pose") == 2
    assert sorted(p.name for p in folder.iterdir()) == ["pose_000000.json", "pose_000001.json"]
    data = json.loads((folder / "pose_000000.json").read_text())
    (person,) = data["people"]  # the other has no keypoints
    assert data["version"] == 1.3
    assert person["person_id"] == [4]
    assert len(person["pose_keypoints_2d"]) == 51
    assert person["pose_keypoints_2d"][:3] == [10, 5, 0.6]
    assert person["face_keypoints_2d"] == []
    assert json.loads((folder / "pose_000001.json").read_text())["people"] == []


def test_openpose_needs_keypoints(take: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cam has no keypoints: .* --model people-pose"):
        write_openpose(read_take(take), tmp_path / "pose_json", "cam")


# ---- silhouettes


def test_silhouettes(take: Path, tmp_path: Path) -> None:
    folder = tmp_path / "silhouettes"
    assert write_silhouettes(read_take(take), folder) == 4
    assert sorted(p.name for p in folder.iterdir()) == [
        "000000_4.png", "000000_7.png", "000001_4.png", "000001_7.png"]  # fmt: skip
    pixels = np.asarray(Image.open(folder / "000001_4.png"))
    assert np.array_equal(pixels, people(1).masks.to_dense()[0] * np.uint8(255))


def test_silhouettes_are_of_tracks(tmp_path: Path) -> None:
    with TakeWriter(tmp_path / "take.jsonl") as written:
        written.add(frame(0), people(0, tracks=False))
    assert write_silhouettes(read_take(written.path), tmp_path / "silhouettes") == 0


def test_a_damaged_mask_is_named(take: Path, tmp_path: Path) -> None:
    broken = GOOD | {"segmentation": {"size": [40, 60], "counts": "0"}}
    with pytest.raises(InputError, match="a mask of frame 1 is damaged"):
        write_silhouettes(read_take(spoilt(take, instances=[broken])), tmp_path / "out")
