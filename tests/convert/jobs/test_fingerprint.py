from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from edgemask_convert.jobs.fingerprint import fingerprint
from edgemask_convert.teach.protocol import TeacherError
from edgemask_convert.teach.registry import make_teacher

from edgemask.modelpack import bundled_packs

MODULE = """
class Teacher:
    name, categories = "own", {1: "disc"}
    label = segment = None

def make(argument=""):
    return Teacher()
"""


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("maskrcnn2go:{}", ["model.pb", "model_init.pb"]),
        ("checkpoint:{}/model.npz", ["model.npz"]),
        ("torchvision:{}/weights.pth", ["weights.pth"]),
    ],
)
def test_every_file_of_the_weights_counts(spec: str, names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"weights")
    spec = spec.format(tmp_path)
    seen = [fingerprint(spec)]
    assert fingerprint(spec) == seen[0]
    for name in names:
        (tmp_path / name).write_bytes(b"other weights")
        seen.append(fingerprint(spec))
    assert len(set(seen)) == len(seen)
    (tmp_path / "notes.txt").touch()
    assert fingerprint(spec) == seen[-1]


def test_packs(small_pack: Path) -> None:
    names = [str(small_pack), *bundled_packs()]
    found = [fingerprint(f"pack:{name}") for name in names]
    assert len(set(found)) == len(names) >= 2
    assert fingerprint(f"pack:{small_pack}") == found[0]


def test_a_teacher_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module, weights = tmp_path / "own_fingerprint_teacher.py", tmp_path / "weights"
    module.write_text(MODULE)
    weights.mkdir()
    (weights / "a.bin").write_bytes(b"1")
    spec = f"own_fingerprint_teacher:make:{weights}"
    make_teacher(spec)
    seen = [fingerprint(spec), fingerprint("own_fingerprint_teacher:make")]
    (weights / "a.bin").write_bytes(b"2")
    seen.append(fingerprint(spec))
    module.write_text(MODULE + "# changed\n")
    seen.append(fingerprint(spec))
    assert len(set(seen)) == 4


def test_a_journal_of_other_weights_is_refused(
    coco: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command: killed, given other weights, given the old ones again."""
    from edgemask_convert.cli import main
    from edgemask_convert.jobs.journal import Journal

    source = """
import numpy as np
from edgemask_convert.teach.protocol import SoftInstances

class Teacher:
    name, categories = "own", {1: "disc"}
    def label(self, image):
        return SoftInstances([[2, 2, 20, 20]], [0.9], [1], np.ones((1, 4, 4)))
    def segment(self, image, boxes, class_ids):
        return None

def make(path):
    return Teacher()
"""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_journal_teacher.py").write_text(source)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"1")
    for number in (1, 2, 3):
        coco.image(number, labeled_cats=[])
    coco.load()
    command = ["teach", "--teacher", f"own_journal_teacher:make:{weights}", "--annotations"]
    command += [str(coco.path), "--images", str(coco.folder), "--out", str(tmp_path / "t.json")]
    add = Journal.add

    def killed(self: Journal, image_id: int, result: Any) -> None:
        if image_id == 2:
            raise KeyboardInterrupt
        add(self, image_id, result)

    monkeypatch.setattr(Journal, "add", killed)
    assert main(command) == 130
    monkeypatch.setattr(Journal, "add", add)
    weights.write_bytes(b"2")
    assert main(command) == 1
    assert "was begun with another teacher" in capsys.readouterr().err
    weights.write_bytes(b"1")
    assert main(command) == 0
    assert "3 instances" in capsys.readouterr().out


def test_missing_weights_are_the_teachers_error(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="missing"):
        make_teacher(f"maskrcnn2go:{tmp_path}")
