"""Whole runs: the finished file, and a run that is killed in between."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.cli import main
from edgemask_convert.data.dataset import DatasetError, DatasetWarning
from edgemask_convert.jobs.journal import Journal, JournalError
from edgemask_convert.teach.measure import measure_teacher
from edgemask_convert.teach.merge import Rules
from edgemask_convert.teach.protocol import SoftInstances
from edgemask_convert.teach.run import assemble, read_dataset, teach_dataset
from PIL import Image

from edgemask.errors import SourceError
from edgemask.evaluate import load_annotations

RUN = {"source": "fake"}
MASK = np.full((1, 4, 4), 0.9, np.float32)


@pytest.fixture
def dataset(coco: Any) -> Any:
    """Four images: a box without mask, an image without labels, two complete ones."""
    coco.data["categories"] = [{"id": 1, "name": "disc"}, {"id": 2, "name": "hat"}]
    coco.image(1)
    coco.image(2, labeled_cats=[2], license="CC0")
    coco.image(3)
    coco.image(4, labeled_cats=[1, 2], exhaustive=0)
    coco.add(1, [2, 3, 10, 10], [], keypoints=[0] * 51)
    coco.add(3, [2, 3, 10, 10])
    coco.path.write_text(json.dumps(coco.data))
    return coco


def a_disc() -> SoftInstances:
    return SoftInstances([[20, 5, 30, 15]], [0.8], [7], MASK)


def teach(teacher: Any, dataset: Any, out: Path, **options: Any) -> dict[str, int]:
    data = read_dataset(dataset.path, dataset.folder, teacher.categories)
    return teach_dataset(teacher, data, dataset.folder, out, Rules(), RUN, **options)


def test_the_finished_file(dataset: Any, fake_teacher: Any, tmp_path: Path) -> None:
    out = tmp_path / "new" / "taught.json"
    seen = []
    counts = teach(
        fake_teacher(a_disc()),
        dataset,
        out,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert counts == {"masks": 1, "instances": 2, "ignore regions": 0, "images left out": 0}
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    data = json.loads(out.read_text())
    assert [path.name for path in out.parent.iterdir()] == ["taught.json"]
    filled, untouched, *added = data["annotations"]
    assert filled["keypoints"] == [0] * 51
    assert filled["soft_mask"]["size"] == 4
    assert "soft_mask" not in untouched
    assert [(a["id"], a["image_id"], a["bbox"]) for a in added] == [
        (102, 2, [20, 5, 10, 10]),
        (103, 4, [20, 5, 10, 10]),
    ]
    assert [im["taught_cats"] for im in data["images"]] == [[], [1], [], [1, 2]]
    assert data["images"][1]["labeled_cats"] == [2]
    assert data["images"][1]["license"] == "CC0"
    assert data["info"]["taught_by"]["teacher"] == "fake"
    assert data["info"]["taught_by"]["rules"]["accept"] == 0.5


def test_complete_labels_claim_what_was_looked_for(
    dataset: Any, fake_teacher: Any, tmp_path: Path
) -> None:
    out = tmp_path / "taught.json"
    teach(fake_teacher(a_disc()), dataset, out, complete=True)
    images = json.loads(out.read_text())["images"]
    assert [im.get("labeled_cats") for im in images] == [None, [1, 2], None, [1, 2]]
    assert [im.get("exhaustive") for im in images] == [None, None, None, 1]


def test_complete_does_not_claim_what_the_teacher_does_not_know() -> None:
    info = {"id": 1, "labeled_cats": [1, 3], "exhaustive": 0}
    data = {"images": [info], "annotations": [], "categories": []}
    entry = {"looked_for": [1, 2], "filled": {}, "added": []}
    merged, _ = assemble(data, {1: entry}, complete=True)
    assert merged["images"][0]["labeled_cats"] == [1, 2, 3]
    assert merged["images"][0]["exhaustive"] == 0


@pytest.mark.parametrize(("known", "exhaustive"), [([1, 2], 1), ([1], 0)])
def test_complete_where_no_list_says_that_all_categories_are_labelled(
    known: list[int], exhaustive: int
) -> None:
    info = {"id": 1, "exhaustive": 0}
    data = {"images": [info], "annotations": [], "categories": [{"id": 1}, {"id": 2}]}
    entry = {"looked_for": known, "filled": {}, "added": []}
    (image,) = assemble(data, {1: entry}, complete=True)[0]["images"]
    assert image == {"id": 1, "exhaustive": exhaustive, "taught_cats": known}


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("cut", [0, 7])
def test_a_killed_run_ends_in_the_same_file(
    dataset: Any, fake_teacher: Any, tmp_path: Path, cut: int
) -> None:
    whole, resumed = tmp_path / "a" / "taught.json", tmp_path / "b" / "taught.json"
    teach(fake_teacher(a_disc()), dataset, whole)

    def kill(done: int, total: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        teach(fake_teacher(a_disc()), dataset, resumed, progress=kill)
    assert not resumed.exists()
    journal = resumed.with_name("taught.json.partial")
    if cut:  # a kill in the middle of a line
        journal.write_bytes(journal.read_bytes()[:-cut])
    second = fake_teacher(a_disc())
    teach(second, dataset, resumed)
    assert second.labelled == (1 if cut == 0 else 2)
    assert resumed.read_bytes() == whole.read_bytes()
    assert not journal.exists()


def test_a_journal_of_another_run_is_refused(
    dataset: Any, fake_teacher: Any, tmp_path: Path
) -> None:
    out = tmp_path / "taught.json"
    Journal(tmp_path / "taught.json.partial", {"teacher": "other"}).close()
    with pytest.raises(JournalError, match="begun with another teacher"):
        teach(fake_teacher(), dataset, out)
    (tmp_path / "taught.json.partial").write_text("garbage\n")
    with pytest.raises(JournalError, match="begun with another teacher"):
        teach(fake_teacher(), dataset, out)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j"
    Journal(path, {"a": 1}).close()
    path.write_text(path.read_text() + "not json\n")
    with pytest.raises(JournalError, match="damaged"):
        Journal(path, {"a": 1})


def test_a_missing_image_is_left_as_it_was(dataset: Any, fake_teacher: Any, tmp_path: Path) -> None:
    (dataset.folder / "2.png").unlink()
    (dataset.folder / "3.png").write_bytes(b"no image")
    out = tmp_path / "taught.json"
    with pytest.warns(DatasetWarning, match=r"2 images are missing .* first: 2\.png \(id 2\)"):
        counts = teach(fake_teacher(a_disc()), dataset, out)
    assert counts["images left out"] == 2
    data = json.loads(out.read_text())
    assert len(data["images"]) == 4
    assert "taught_cats" not in data["images"][1]
    assert [a["image_id"] for a in data["annotations"]] == [1, 3, 4]


def test_an_image_of_another_size_is_an_error(
    dataset: Any, fake_teacher: Any, tmp_path: Path
) -> None:
    dataset.data["images"][0]["width"] = 41
    dataset.path.write_text(json.dumps(dataset.data))
    with pytest.raises(SourceError, match=r"image 1: .* is 40x30, the annotations say 41x30"):
        teach(fake_teacher(), dataset, tmp_path / "taught.json")


def test_a_folder_without_annotations(coco: Any, fake_teacher: Any, tmp_path: Path) -> None:
    coco.image(12)
    coco.image(3, 50, 20)
    (coco.folder / "text.jpg").write_text("no image")
    teacher = fake_teacher(SoftInstances([[5, 5, 15, 15]], [0.8], [9], MASK))
    with pytest.warns(DatasetWarning, match=r"1 files are not images .*text\.jpg"):
        data = read_dataset(None, coco.folder, teacher.categories)
    assert [im["width"] for im in data["images"]] == [40, 50]
    out = tmp_path / "taught.json"
    teach_dataset(teacher, data, coco.folder, out, Rules(), RUN, complete=True)
    written = json.loads(out.read_text())
    assert written["categories"] == [{"id": 7, "name": "Disc"}, {"id": 9, "name": "hat"}]
    assert [a["category_id"] for a in written["annotations"]] == [9, 9]
    assert [im["labeled_cats"] for im in written["images"]] == [[7, 9], [7, 9]]


TEACHER_SOURCE = """
import numpy as np
from edgemask_convert.teach.protocol import SoftInstances
class T:
    name = "own"
    categories = {1: "disc"}
    def label(self, image):
        return SoftInstances([[0, 0, 10, 10]], [0.6], [1], np.ones((1, 8, 8), np.float32))
    def segment(self, image, boxes, ids):
        return np.ones((len(boxes), 8, 8), np.float32)
def make():
    return T()
"""


@pytest.fixture
def own_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "teacher_for_cli.py").write_text(TEACHER_SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return "teacher_for_cli:make"


def arguments(teacher: str, dataset: Any, *more: str) -> list[str]:
    fixed = ["--annotations", str(dataset.path), "--images", str(dataset.folder)]
    return ["teach", "--teacher", teacher, *fixed, *more]


def test_the_command(dataset: Any, own_teacher: str, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "taught.json"
    assert main(arguments(own_teacher, dataset, "--out", str(out), "--limit", "2")) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}: 1 masks, 1 instances, 0 ignore regions, 0 images left out\n"
    assert said.err == ""
    record = json.loads(out.read_text())["info"]["taught_by"]
    assert record["source"] == own_teacher
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset.path = out
        dataset.data = json.loads(out.read_text())
        records = dataset.load().records()
    assert [r.has_mask.tolist() for r in records] == [[True], [True]]


def test_measuring(dataset: Any, own_teacher: str, tmp_path: Path, capsys: Any) -> None:
    report = tmp_path / "report.json"
    more = ["--measure", "--categories", "1", "--out", str(report)]
    assert main(arguments(own_teacher, dataset, *more)) == 0
    assert "all 1.000 (1)  small 1.000 (1)  medium – (0)" in capsys.readouterr().out
    content = json.loads(report.read_text())
    assert content["prompted"]["segm"]["AP"] == pytest.approx(1)
    assert content["records"][0]["iou"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--out is missing"),
        (["--out", "x.json", "--doubt", "0.9"], "doubt"),
        (["--out", "x.json", "--accept", "1.5"], "0 <= doubt <= accept <= 1"),
        (["--out", "x.json", "--mask-score", "1.5"], "--mask-score is 1.5: give a number from 0"),
        (["--measure", "--mask-score", "nan"], "--mask-score is nan"),
        (["--out", "x.json", "--categories", "1,9"], "no categories [9]: it has [1, 2]"),
        (["--measure", "--categories", "9"], "no categories [9]: it has [1, 2]"),
        (["--out", "x.json", "--flip"], "not for the teacher"),
    ],
)
def test_errors_are_one_line(
    dataset: Any, own_teacher: str, capsys: Any, more: list[str], message: str
) -> None:
    assert main(arguments(own_teacher, dataset, *more)) == 1
    err = capsys.readouterr().err
    assert err.startswith("edgemask-convert: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_the_annotations_are_not_overwritten(dataset: Any, own_teacher: str, capsys: Any) -> None:
    before = dataset.path.read_bytes()
    for more in ([], ["--measure"]):
        assert main(arguments(own_teacher, dataset, "--out", str(dataset.path), *more)) == 1
        assert "annotations.json would be overwritten" in capsys.readouterr().err
    assert dataset.path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 1}, "annotations id 1 occurs 2 times"),
        ({"area": float("nan")}, "has area nan"),
        ({"bbox": None}, "has bbox None"),
        ({"attributes": {"score": float("inf")}}, "NaN or an infinite number"),
    ],
)
def test_what_could_not_be_merged_is_refused_first(
    dataset: Any, change: dict[str, Any], message: str
) -> None:
    data = json.loads(dataset.path.read_text())
    data["annotations"][0]["id"] = 1
    data["annotations"][1].update(change)
    dataset.path.write_text(json.dumps(data))
    with pytest.raises((DatasetError, SourceError), match=message):
        read_dataset(dataset.path, dataset.folder, {7: "disc"})


def test_info_may_be_null(dataset: Any, fake_teacher: Any, tmp_path: Path) -> None:
    data = json.loads(dataset.path.read_text())
    dataset.path.write_text(json.dumps({**data, "info": None}))
    teach(fake_teacher(a_disc()), dataset, tmp_path / "taught.json")
    assert "taught_by" in json.loads((tmp_path / "taught.json").read_text())["info"]


def test_another_folder_than_that_of_the_images(
    dataset: Any, own_teacher: str, tmp_path: Path, capsys: Any
) -> None:
    dataset.folder, out = tmp_path / "elsewhere", tmp_path / "taught.json"
    assert main(arguments(own_teacher, dataset, "--out", str(out))) == 1
    assert "elsewhere: check --images" in capsys.readouterr().err
    assert not out.exists()


def test_measure_needs_annotations(own_teacher: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["teach", "--teacher", own_teacher, "--images", str(tmp_path), "--measure"]) == 1
    assert "--measure needs --annotations" in capsys.readouterr().err


def test_measuring_on_images_of_another_size(dataset: Any, own_teacher: str, capsys: Any) -> None:
    Image.new("RGB", (80, 60)).save(dataset.folder / "3.png")
    assert main(arguments(own_teacher, dataset, "--measure")) == 1
    assert "3.png is 80x60, the annotations say 40x30" in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["categories", "labels"])
def test_a_stopped_run_goes_on_with_the_same_question_only(
    dataset: Any, fake_teacher: Any, tmp_path: Path, changed: str
) -> None:
    class Killed(fake_teacher):
        def label(self, image: Any) -> Any:
            raise KeyboardInterrupt

    out = tmp_path / "taught.json"
    with pytest.raises(KeyboardInterrupt):
        teach(Killed(), dataset, out)
    if changed == "labels":
        dataset.data["annotations"][1]["bbox"] = [3, 3, 10, 10]
        dataset.path.write_text(json.dumps(dataset.data))
    options = {"category_ids": [1]} if changed == "categories" else {}
    with pytest.raises(JournalError, match="begun with another"):
        teach(fake_teacher(), dataset, out, **options)


def test_what_has_no_mask_is_not_measured(dataset: Any, fake_teacher: Any) -> None:
    """Neither crowds nor boxes alone: to miss them, or to find them, is neither right nor wrong."""

    class Third(fake_teacher):
        def label(self, image: Any) -> SoftInstances:
            third = image[0, 0, 1] == 103  # the colour says which image it is
            mask = np.ones((1, 4, 4), np.float32)
            found = SoftInstances([[2, 3, 12, 13]], [0.8], [7], mask)
            return found if third else SoftInstances.empty()

        def segment(self, image: Any, boxes: Any, class_ids: Any) -> Any:
            return np.ones((len(boxes), 4, 4), np.float32)

    number = dataset.add(3, [20, 5, 10, 10], iscrowd=1)
    dataset.path.write_text(json.dumps(dataset.data))
    report = measure_teacher(Third(), load_annotations(dataset.path), dataset.folder, [1])
    assert report["detection"]["bbox"]["AP"] == pytest.approx(1)
    assert number not in [record["id"] for record in report["records"]]
    assert len(report["records"]) == 1


def test_a_line_that_a_kill_cut_off_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.partial"
    journal = Journal(path, RUN)
    journal.add(1, {"results": []})
    assert path.read_text().count("\n") == 2  # not only when it is closed
    journal.close()
    with open(path, "a") as file:
        file.write('{"image_id": 2, "res')
    journal = Journal(path, RUN)
    assert list(journal.done) == [1]
    journal.add(3, {"results": []})
    journal.close()
    again = Journal(path, RUN)
    assert list(again.done) == [1, 3]
    again.close()


def test_measuring_asks_what_teaching_asks(dataset: Any, fake_teacher: Any) -> None:
    """Boxes inside of the image; and ids are not needed, as COCO's evaluation does without them."""
    dataset.data["annotations"][1]["bbox"] = [-5, 3, 60, 10]
    dataset.path.write_text(json.dumps(dataset.data))
    truth = load_annotations(dataset.path)
    for annotation in truth["annotations"]:
        del annotation["id"]
    teacher = fake_teacher()
    report = measure_teacher(teacher, truth, dataset.folder, [1])
    assert teacher.asked[0].tolist() == [[0, 3, 40, 13]]
    assert len(report["records"]) == 1
