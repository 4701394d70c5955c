from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.cli import main
from edgemask_convert.data.dataset import DatasetError
from edgemask_convert.data.split import one_sided, split_dataset


def dataset(counts: list[dict[int, int]], names: list[str] | None = None) -> dict[str, Any]:
    """A dataset with an image per entry, which says how many objects of each class it shows."""
    images = [
        {"id": n, "file_name": names[n] if names else f"{n}.png", "height": 9, "width": 9}
        for n in range(len(counts))
    ]
    annotations = [
        {"id": 100 * n + 10 * c + k, "image_id": n, "category_id": c}
        for n, shown in enumerate(counts) for c, count in shown.items() for k in range(count)
    ]  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": [{"id": 1}, {"id": 2}],
            "info": {"year": 1}}  # fmt: skip


def ids(part: dict[str, Any]) -> set[int]:
    return {info["id"] for info in part["images"]}


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_in_proportion(seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = [{1: int(random.integers(0, 4)), 2: int(random.random() < 0.1)} for _ in range(100)]
    data = dataset(counts)
    train, dev = split_dataset(data, 0.2, seed)
    assert ids(train) | ids(dev) == set(range(100))
    assert not ids(train) & ids(dev)
    assert 17 <= len(ids(dev)) <= 23
    assert len(train["annotations"]) + len(dev["annotations"]) == len(data["annotations"])
    for class_id in (1, 2):
        total = sum(a["category_id"] == class_id for a in data["annotations"])
        share = sum(a["category_id"] == class_id for a in dev["annotations"]) / total
        assert 0.1 < share < 0.4
    for part in (train, dev):
        assert {a["image_id"] for a in part["annotations"]} <= ids(part)
        assert part["categories"] == data["categories"]
        assert part["info"] == data["info"]


def test_the_seed_decides() -> None:
    data = dataset([{1: 1}] * 50)
    first, same, other = (ids(split_dataset(data, 0.2, seed)[1]) for seed in (1, 1, 2))
    assert first == same != other
    assert len(first) == 10


def test_images_without_objects_are_divided_too() -> None:
    data = dataset([{1: 1}] * 50 + [{}] * 50)
    _, dev = split_dataset(data, 0.2)
    assert 2 <= sum(n >= 50 for n in ids(dev)) <= 18


def test_the_only_image_of_a_class_is_learnt_from() -> None:
    data = dataset([{1: 1}] * 9 + [{1: 1, 2: 3}])
    for seed in range(8):
        assert 9 in ids(split_dataset(data, 0.3, seed)[0])


def test_nothing_can_be_set_aside() -> None:
    names = [f"{folder}/{n}.png" for folder in ("bolt", "nut") for n in range(3)]
    data = dataset([{1: 1}] * 3 + [{2: 1}] * 3, names)
    with pytest.raises(DatasetError, match=r"every folder has the only objects .*without --by-fol"):
        split_dataset(data, 0.3, 0, by_folder=True)
    train, dev = split_dataset(data, 0.3, 0)
    assert ids(train)
    assert ids(dev)


def test_folders_stay_together() -> None:
    names = [f"video{n // 10}/{n}.png" for n in range(100)]
    data = dataset([{1: 1}] * 100, names)
    _, dev = split_dataset(data, 0.2, by_folder=True)
    chosen = sorted(ids(dev))
    assert len(chosen) == 20
    assert len({n // 10 for n in chosen}) == 2


def test_crowds_as_objects() -> None:
    """CVAT exports painted masks as crowds."""
    data = dataset([{1: 1}] * 10)
    for entry in data["annotations"]:
        entry["iscrowd"] = 1
    for wanted, flag in ((1, False), (0, True)):
        for part in split_dataset(data, 0.2, crowds_as_objects=flag):
            assert {a["iscrowd"] for a in part["annotations"]} == {wanted}
    assert data["annotations"][0]["iscrowd"] == 1


def test_refuses() -> None:
    data = dataset([{1: 1}] * 3)
    for share in (0, 1, 1.5, float("nan")):
        with pytest.raises(DatasetError, match="give a number between 0 and 1"):
            split_dataset(data, share)
    with pytest.raises(DatasetError, match="there is 1 folder"):
        split_dataset(data, 0.5, by_folder=True)
    with pytest.raises(DatasetError, match="there is 1 image"):
        split_dataset(dataset([{1: 1}]), 0.5)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = dataset([{1: 1, 2: 1}] * 10)
    for entry in data["annotations"]:
        entry["bbox"] = [0, 0, 1, 1]
    data["categories"] = [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}]
    path = tmp_path / "all.json"
    path.write_text(json.dumps(data))
    assert main(["split", str(path), "--dev", "0.3", "--out", str(tmp_path / "parts")]) == 0
    parts = [json.loads((tmp_path / "parts" / f"{n}.json").read_text()) for n in ("train", "dev")]
    assert [len(part["images"]) for part in parts] == [7, 3]
    out = capsys.readouterr().out
    assert "dev.json: 3 images, 6 objects" in out
    assert "bolt" in out
    assert main(["split", str(path), "--dev", "2", "--out", str(tmp_path)]) == 1
    assert "between 0 and 1" in capsys.readouterr().err


def labelled(tmp_path: Path, counts: list[dict[int, int]]) -> Path:
    """A file of a dataset whose fields are complete."""
    data = dataset(counts)
    for entry in data["annotations"]:
        entry["bbox"] = [0, 0, 1, 1]
    data["categories"] = [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}]
    path = tmp_path / "all.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("name", ["train.json", "dev.json"])
@pytest.mark.parametrize("linked", [False, True])
def test_the_input_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, linked: bool
) -> None:
    path = labelled(tmp_path, [{1: 1}] * 10)
    given = path.rename(tmp_path / name)
    before = given.read_bytes()
    if linked:
        given = tmp_path / "link.json"
        given.symlink_to(name)
    assert main(["split", str(given), "--out", str(tmp_path)]) == 1
    assert f"{name} would be overwritten" in capsys.readouterr().err
    assert given.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {name, given.name}


def test_a_category_without_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = labelled(tmp_path, [{1: 1}] * 10)
    data = json.loads(path.read_text())
    del data["categories"][1]["name"]
    path.write_text(json.dumps(data))
    assert main(["split", str(path), "--out", str(tmp_path / "parts")]) == 1
    assert "categories[1] has no 'name'" in capsys.readouterr().err
    assert not (tmp_path / "parts").exists()


def test_a_class_of_which_one_part_has_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = labelled(tmp_path, [{1: 1}] * 9 + [{1: 1, 2: 3}])
    assert main(["split", str(path), "--out", str(tmp_path / "parts")]) == 0
    err = capsys.readouterr().err
    assert err.startswith(
        "edgemask-convert: warning: 1 classes have objects in only one of the two"
    )
    assert "first: nut; try another --seed" in err
    parts = ({"annotations": [{"category_id": 1}, {"category_id": 2, "iscrowd": 1}],
              "categories": [{"id": n, "name": str(n)} for n in (1, 2, 3)]},
             {"annotations": [{"category_id": 1}]})  # fmt: skip
    assert one_sided(parts) == []


@pytest.mark.parametrize("seed", range(8))
def test_the_rarest_class_chooses_first(seed: int) -> None:
    """Once the common one has filled the dev part there is no room for another."""
    data = dataset([{1: 1}] * 36 + [{1: 1, 2: 1}] * 4)
    _, dev = split_dataset(data, 0.25, seed)
    assert any(a["category_id"] == 2 for a in dev["annotations"])
    assert len(ids(dev)) == 10


def test_no_class_gets_more_than_its_share() -> None:
    _, dev = split_dataset(dataset([{1: 1}] * 36 + [{2: 1}] * 4), 0.25)
    assert sum(n >= 36 for n in ids(dev)) == 1
    assert len(ids(dev)) == 10


def test_a_crowd_is_no_object_that_must_be_learnt_from() -> None:
    """Each image has the only crowd of a class."""
    data = dataset([{1: 1, 10 + n: 1} for n in range(10)])
    for entry in data["annotations"]:
        entry["iscrowd"] = int(entry["category_id"] >= 10)
    assert len(ids(split_dataset(data, 0.2)[1])) == 2


def test_something_is_left_to_learn_from() -> None:
    train, dev = split_dataset(dataset([{}] * 3), 0.95)
    assert (len(ids(train)), len(ids(dev))) == (1, 2)


@pytest.mark.parametrize(("size", "share", "wanted"), [(10, 0.27, 30), (50, 0.2, 50)])
def test_folders_that_do_not_fit_exactly(size: int, share: float, wanted: int) -> None:
    """As near to the share as whole folders come, and one at least."""
    names = [f"all/video{n // size}/{n}.png" for n in range(100)]
    _, dev = split_dataset(dataset([{1: 1}] * 100, names), share, by_folder=True)
    assert len(ids(dev)) == wanted


def test_a_class_that_is_measured_and_not_learnt() -> None:
    names = [{"id": n, "name": str(n)} for n in (1, 2)]
    train = {"annotations": [{"category_id": 1}], "categories": names}
    dev = {"annotations": [{"category_id": 1}, {"category_id": 2}], "categories": names}
    assert one_sided((train, dev)) == one_sided((dev, train)) == ["2"]
