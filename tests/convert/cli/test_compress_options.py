"""What `fuse` and `imitate` make of their options; the fitting itself is tested elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.checkpoint import export_model, load_model
from edgemask_convert.cli import main
from edgemask_convert.compress import fuse, imitate
from edgemask_convert.compress import lessons as lessons_module
from edgemask_convert.config import Config, from_dict
from PIL import Image

from ..compress.test_fuse import CONFIG
from ..conftest import CLASSES, TINY
from .test_cli import Capture, fails


@pytest.fixture
def fuse_command(tiny_model: Any, tmp_path: Path) -> list[Any]:
    header = {"config": from_dict(TINY).to_dict(), "classes": CLASSES}
    export_model(tmp_path / "wide.npz", tiny_model, header)
    export_model(tmp_path / "teacher.npz", build_model(tiny_model.config), header)
    (tmp_path / "c.toml").write_text(CONFIG)
    Image.new("RGB", (400, 300)).save(tmp_path / "a.png")
    command = ["fuse", "--checkpoint", tmp_path / "wide.npz", "--config", tmp_path / "c.toml"]
    return [*command, "--images", tmp_path, "--out", tmp_path / "out.npz"]


def test_what_fuse_fits(
    fuse_command: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Early blocks fast, then the trunk slowly, to the teacher's; photographs of enough pixels."""
    seen: list[tuple[Any, ...]] = []
    sides: list[int] = []
    load = fuse.load_small

    def fit(teacher: Any, target: Any, crops: Any, steps: int, rate: float, say: Any) -> Any:
        seen.append((np.asarray(teacher.box_head.get_layer("box_fc1").kernel), steps, rate))
        return [0.25]

    monkeypatch.setattr(fuse, "fit_front", fit)
    monkeypatch.setattr(fuse, "fit_trunk", fit)
    monkeypatch.setattr(fuse, "load_small", lambda p, side: (sides.append(side), load(p, side))[1])
    command = [*fuse_command, "--crop", 64, "--learning-rate", 0.01, "--teacher"]
    command += [tmp_path / "teacher.npz", "--steps", 5, "--trunk-steps", 7]
    assert main([str(part) for part in command]) == 0
    assert [(steps, rate) for _, steps, rate in seen] == [(5, 0.01), (7, pytest.approx(0.0005))]
    wide, teacher = (load_model(tmp_path / f"{n}.npz")[0].box_head for n in ("wide", "teacher"))
    np.testing.assert_array_equal(seen[0][0], teacher.get_layer("box_fc1").kernel)
    assert (seen[0][0] != np.asarray(wide.get_layer("box_fc1").kernel)).any()
    made = load_model(tmp_path / "out.npz")[0].box_head  # all but the early blocks
    np.testing.assert_array_equal(
        made.get_layer("box_fc1").kernel, wide.get_layer("box_fc1").kernel
    )
    assert sides == [192]
    assert "early blocks 0.250; trunk 0.250" in capsys.readouterr().out


def test_fuse_only_copies_if_there_is_nothing_to_fit(
    fuse_command: list[Any], capsys: Capture
) -> None:
    assert main([str(part) for part in [*fuse_command, "--steps", 0]]) == 0
    assert "nothing was fitted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--crop", 48, "multiple of 32"),
        ("--crop", 0, "multiple of 32"),
        ("--steps", -1, "it must be 0 or more"),
        ("--trunk-steps", -1, "--trunk-steps is -1: it must be 0 or more"),
        ("--batch", 0, "it must be 1 or more"),
        ("--count", 0, "it must be 1 or more"),
    ],
)
def test_fuse_refuses(option: str, value: int, message: str, capsys: Capture) -> None:
    command = ["fuse", "--checkpoint", "a", "--config", "b", "--images", ".", "--out", "c"]
    assert message in fails(capsys, *command, option, value)


@pytest.fixture
def imitate_command(tiny_2go: Any, tmp_path: Path) -> list[Any]:
    header = {"config": Config(tiny_2go.config).to_dict(), "step": 0, "classes": CLASSES}
    for name, classes in (("wide", CLASSES), ("other", CLASSES[::-1])):
        export_model(tmp_path / f"{name}.npz", tiny_2go, header | {"classes": classes})
    Image.new("RGB", (80, 60), (90, 100, 110)).save(tmp_path / "a.png")
    return ["imitate", "--images", tmp_path, "--out", tmp_path / "out.npz", "--teacher"]


def test_what_imitate_fits(
    imitate_command: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts that are not named take their own number of steps."""
    seen: list[Any] = []
    monkeypatch.setattr(
        lessons_module, "lessons", lambda teacher, images, seed: [("lessons", seed)]
    )
    monkeypatch.setattr(
        imitate, "imitate",
        lambda student, learnt, steps, seed, say: seen.append((learnt, steps, seed)) or {},
    )  # fmt: skip
    wide = tmp_path / "wide.npz"
    command = [*imitate_command, wide, "--checkpoint", wide, "--steps", "rpn=7", "--seed", 3]
    assert main([str(part) for part in command]) == 0
    steps = {"rpn": 7, "box_head": 3000, "mask_head": 600}
    assert seen == [([("lessons", 3)], steps, 3)]
    header = load_model(tmp_path / "out.npz")[1]
    assert header["step"] == 3607


def test_imitate_refuses(
    imitate_command: list[Any], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imitate, "imitate", lambda *_, **__: pytest.fail("fitted"))
    command = [*imitate_command, tmp_path / "wide.npz", "--checkpoint", tmp_path / "other.npz"]
    assert "have different classes" in fails(capsys, *command)
    for steps in ("trunk=5", "rpn=-1", "rpn", "rpn=x"):
        assert f"'{steps}' is not PART=N with PART one of rpn, box_head, mask_head" in fails(
            capsys, *command, "--steps", steps
        )
