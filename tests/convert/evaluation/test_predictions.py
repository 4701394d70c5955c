"""Evaluation that is stopped and goes on; over a cluster it is in test_cluster.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from edgemask_convert.cli import main
from edgemask_convert.evaluation import predictions
from edgemask_convert.evaluation.predictions import model_sha256, predict
from edgemask_convert.jobs.journal import Journal, JournalError
from PIL import Image

from edgemask.errors import SourceError
from edgemask.evaluate import load_annotations

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def dataset(coco: Any) -> tuple[Path, Path, Path]:
    """The bundled pack, annotations of four small photographs, and their folder."""
    coco.data["categories"] = [{"id": 1, "name": "person"}]
    with Image.open(ROOT / "edgemask" / "assets" / "astronaut.jpg") as photograph:
        for number in range(1, 5):
            path = coco.image(number, 96, 80)
            photograph.crop((10 * number, 0, 400, 320)).resize((96, 80)).save(path)
            coco.add(number, [20, 5, 60, 75])
    coco.load()
    return ROOT / "edgemask" / "models" / "people.zip", coco.path, coco.folder


@pytest.fixture
def stop_at_three(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A kill before the third image is written; undo it to go on."""
    add = Journal.add

    def killed(self: Journal, image_id: int, result: Any) -> None:
        if image_id == 3:
            raise KeyboardInterrupt
        add(self, image_id, result)

    monkeypatch.setattr(Journal, "add", killed)
    return monkeypatch


def test_a_stopped_run_goes_on(
    dataset: tuple[Path, Path, Path], tmp_path: Path, stop_at_three: pytest.MonkeyPatch
) -> None:
    pack, annotations, folder = dataset
    truth = load_annotations(annotations)
    keep = tmp_path / "e.json.partial"
    with pytest.raises(KeyboardInterrupt):
        predict(pack, truth, folder, 64, keep)
    stop_at_three.undo()
    seen: list[tuple[int, int]] = []
    found = predict(pack, truth, folder, 64, keep, progress=lambda *n: seen.append(n))
    assert seen == [(3, 4), (4, 4)]
    assert found == predict(pack, truth, folder, 64)
    assert len({result["image_id"] for result in found}) > 1
    other = tmp_path / "other.zip"
    shutil.copy(pack, other)
    assert predict(other, truth, folder, 64, keep) == found  # the content counts, not the name
    with pytest.raises(JournalError, match="begun with another teacher or model"):
        predict(pack, truth, folder, 96, keep)


def test_the_verb(
    dataset: tuple[Path, Path, Path], tmp_path: Path, stop_at_three: pytest.MonkeyPatch
) -> None:
    pack, annotations, folder = dataset
    command = ["evaluate", str(pack), "--annotations", str(annotations), "--images", str(folder)]
    command += ["--short-side", "64", "--save", str(tmp_path / "new" / "e.json")]
    assert main(command) == 130
    partial = tmp_path / "new" / "e.json.partial"
    assert len(partial.read_text().splitlines()) == 1 + 2
    stop_at_three.undo()
    assert main(command) == 0
    assert not partial.exists()
    record = json.loads((tmp_path / "new" / "e.json").read_text())
    assert record["images"] == 4
    assert record["model_sha256"] == model_sha256(pack)


def test_a_missing_image(dataset: tuple[Path, Path, Path]) -> None:
    pack, annotations, folder = dataset
    (folder / "2.png").unlink()
    with pytest.raises(SourceError, match=r"2\.png"):
        predict(pack, load_annotations(annotations), folder)


def test_a_worker_names_the_image_and_not_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "load_pipeline", lambda model: None)
    monkeypatch.setattr(predictions, "model_sha256", lambda model: "same")
    work = predictions._predictor("people", "same", None)
    info = {"id": 1, "file_name": "street/12.jpg", "height": 4, "width": 4}
    with pytest.raises(SourceError, match=r"^street/12\.jpg is not an image"):
        work((info, b"nonsense"))
