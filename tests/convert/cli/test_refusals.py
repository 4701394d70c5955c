"""What would only fail, or mislead, after hours of work is refused at the start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.checkpoint import export_model
from edgemask_convert.cli import main
from edgemask_convert.cli.common import check_output
from edgemask_convert.config import from_dict
from edgemask_convert.training import fit
from PIL import Image

from edgemask.errors import OutputError

from ..conftest import CLASSES, TINY, Coco, changed
from .test_cli import Capture, fails


def settings(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The options that make a configuration."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from settings(value, f"{prefix}{key}.")
        else:
            yield from ("--set", f"{prefix}{key}={json.dumps(value)}")


# outputs


def test_outputs_are_tried(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="a folder has this name"):
        check_output(tmp_path / "folder")
    with pytest.raises(OutputError, match="is in the way of the folder"):
        check_output(tmp_path / "file" / "model.npz")
    check_output(tmp_path / "file")
    check_output(tmp_path / "new" / "deep" / "model.npz")
    assert (tmp_path / "file").read_text() == "kept"
    assert not list((tmp_path / "new" / "deep").iterdir())
    with pytest.raises(ValueError, match="would be overwritten while it is read"):
        check_output(tmp_path / "folder" / ".." / "file", tmp_path / "file")


@pytest.mark.parametrize("crowd", [False, True])
def test_nothing_to_learn(coco: Any, tmp_path: Path, capsys: Capture, crowd: bool) -> None:
    coco.image(1)
    coco.add(1, [5, 5, 10, 10], **({"iscrowd": 1} if crowd else {}))
    coco.data["categories"] = [{"id": 1, "name": "disc"}, {"id": 2, "name": "hat"}]
    coco.load()
    classes = "model.classes=[1]" if crowd else "model.classes=[2]"
    command = ["train", "--annotations", coco.path, "--images", coco.folder, "--set", classes]
    assert main([str(a) for a in [*command, "--out", tmp_path / "run"]]) == 1
    text = capsys.readouterr().err
    assert "has no object of the classes that are trained" in text
    assert ("split --crowds-as-objects" if crowd else "check model.classes") in text


def test_a_report_wants_the_float_checkpoint(small_pack: Path, capsys: Capture) -> None:
    command = ["report", small_pack, "--annotations", "a.json", "--images", ".", "--out", "r.md"]
    assert main([str(a) for a in [*command, "--float", small_pack]]) == 1
    assert "give the float checkpoint, .npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "lost"),
    [
        (["average", "a.npz", "b.npz", "--out", "b.npz"], "b.npz"),
        (["quantize", "a.npz", "--format", "float16", "--out", "a.npz"], "a.npz"),
        (["evaluate", "people", "--annotations", "a.json", "--images", ".", "--save", "a.json"],
         "a.json"),
        (["verify", "a.zip", "--save", "a.zip"], "a.zip"),
        (["prune", "--checkpoint", "a.npz", "--config", "a.toml", "--images", ".", "--out",
          "a.toml"], "a.toml"),
        (["fuse", "--checkpoint", "a.npz", "--config", "a.toml", "--images", ".", "--out",
          "a.npz"], "a.npz"),
        (["imitate", "--teacher", "a.zip", "--checkpoint", "a.npz", "--images", ".", "--out",
          "a.zip"], "a.zip"),
    ],
    ids=lambda value: value[0],
)  # fmt: skip
def test_no_input_is_overwritten(
    command: list[str], lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(lost).write_text("precious")
    assert main(command) == 1
    assert f"{lost} would be overwritten" in capsys.readouterr().err
    assert Path(lost).read_text() == "precious"


@pytest.mark.parametrize(
    "command",
    [
        ["average", "a.npz", "b.npz"],
        ["fuse", "--checkpoint", "a.npz", "--config", "a.toml", "--images", "."],
        ["imitate", "--teacher", "a.zip", "--checkpoint", "a.npz", "--images", "."],
        ["import-maskrcnn2go", "--weights", "weights"],
        ["prune", "--checkpoint", "a.npz", "--config", "a.toml", "--images", "."],
        ["quantize", "a.npz", "--images", "."],
        ["quantize", "a.npz", "--images", ".", "--out", "a.zip", "--report"],
    ],
    ids=lambda command: f"{command[0]} {command[-1]}",
)
def test_outputs_come_first(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.md").mkdir()
    option = [] if command[-1] == "--report" else ["--out"]
    assert "out.md cannot be written (Is a directory)" in fails(capsys, *command, *option, "out.md")


def test_the_pack_is_written_before_the_report(
    tiny_model: Any, tiny_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgemask_convert.cli import quantize
    from edgemask_convert.export import quantize as work

    def broken(*_: Any) -> None:
        raise RuntimeError("no report")

    monkeypatch.setattr(quantize, "_report", broken)
    made = work.convert_float(tiny_model, CLASSES, "float32")
    monkeypatch.setattr(work, "quantize_model", lambda *_, **__: made)
    checkpoint, pack = tmp_path / "model.npz", tmp_path / "pack.zip"
    header = {"config": tiny_config.to_dict(), "classes": CLASSES, "neck_channels": [1, 2]}
    export_model(checkpoint, tiny_model, header | {"step": 3})
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    command = ["quantize", checkpoint, "--images", tmp_path, "--report", tmp_path / "r.md"]
    assert main([str(part) for part in [*command, "--out", pack]]) == 1
    from edgemask.modelpack import load_pack

    assert load_pack(pack).manifest["training"] == {"epochs": 4.0, "step": 3}


@pytest.mark.parametrize("name", ["", "my model", "../people", ".hidden"])
def test_names_that_no_pack_may_have(name: str, tmp_path: Path, capsys: Capture) -> None:
    command = ["quantize", "a.npz", "--images", tmp_path, "--out", tmp_path / "a.zip", "--name"]
    assert f"--name {name!r} must be letters, digits" in fails(capsys, *command, name)


# options


def test_train_options(coco: Coco, tmp_path: Path, capsys: Capture) -> None:
    train = ["train", "--annotations", coco.path, "--images", coco.folder, "--out", tmp_path / "r"]
    text = fails(capsys, *train, "--init", "a.npz", "--start-from", "b.npz")
    assert "--init and --start-from both give the first weights" in text
    assert "--dev-images needs --dev" in fails(capsys, *train, "--dev-images", tmp_path)


def test_verify_options(small_pack: Path, tmp_path: Path, capsys: Capture) -> None:
    for more in (["--images", tmp_path], ["--annotations", "a.json"], ["--count", 5]):
        assert "need --float" in fails(capsys, "verify", small_pack, *more)


@pytest.mark.parametrize("value", ["0", "-3", "x"])
@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "people", "--annotations", "a.json", "--images", ".", "--limit"],
        ["evaluate", "people", "--annotations", "a.json", "--images", ".", "--short-side"],
        ["teach", "--teacher", "pack:people", "--images", ".", "--out", "b.json", "--limit"],
        ["quantize", "a.npz", "--images", ".", "--out", "b.zip", "--count"],
    ],
    ids=lambda command: f"{command[0]} {command[-1]}",
)
def test_whole_numbers(command: list[str], value: str, capsys: Capture) -> None:
    assert main([*command, value]) == 1
    assert f"{command[-1]}: '{value}' is not a whole number" in capsys.readouterr().err


def test_fuse_keeps_the_classes(tiny_model: Any, tmp_path: Path, capsys: Capture) -> None:
    checkpoint, config = tmp_path / "a.npz", tmp_path / "a.toml"
    export_model(checkpoint, tiny_model, {"config": from_dict(TINY).to_dict(), "classes": CLASSES})
    config.write_text("[model]\nclasses = [2, 1]\n")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    command = ["fuse", "--checkpoint", checkpoint, "--config", config, "--images", tmp_path]
    text = fails(capsys, *command, "--out", tmp_path / "b.npz")
    assert "a.toml has model.classes [2, 1]" in text
    assert "a.npz has [1, 2]" in text


# datasets


def test_evaluate_tries_the_annotations_first(
    coco: Coco, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from edgemask_convert.evaluation import predictions

    monkeypatch.setattr(predictions, "predict", lambda *_: pytest.fail("predicted"))
    coco.image(1)
    coco.add(1, [5, 5, 10, 10], segmentation="7")
    coco.load()
    command = ["evaluate", "people", "--annotations", coco.path, "--images", coco.folder]
    assert "annotation 100 has segmentation 7" in fails(capsys, *command)


def test_train_tries_the_dev_set_first(coco: Coco, tmp_path: Path, capsys: Capture) -> None:
    coco.image(1)
    coco.add(1, [5, 5, 10, 10])
    coco.load()
    dev = tmp_path / "dev.json"
    train = ["train", "--annotations", coco.path, "--images", coco.folder, "--dev", dev]
    train += ["--out", tmp_path / "run", *settings(TINY)]
    good = json.loads(coco.path.read_text())
    for kind, change, message in (
        ("images", {"width": 41}, "1.png is 40x30, the annotations say 41x30"),
        ("annotations", {"segmentation": "7"}, "annotation 100 has segmentation 7"),
    ):
        damaged = json.loads(json.dumps(good))
        damaged[kind][0] |= change
        dev.write_text(json.dumps(damaged))
        assert message in fails(capsys, *train)
    dev.write_text(json.dumps(good))
    (coco.folder / "1.png").rename(coco.folder / "2.png")
    good["images"][0]["file_name"] = "2.png"
    coco.path.write_text(json.dumps(good))
    (coco.folder / "1.png").write_bytes(b"rubbish")
    assert "image 1: cannot read" in fails(capsys, *train)


# the channels of a pruned network


@pytest.fixture
def pruned(coco: Coco, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A command that trains a network with 16 of a teacher's 24 channels, and what is saved."""
    coco.image(1)
    coco.add(1, [5, 5, 10, 10])
    coco.load()
    wide = from_dict(changed(TINY, neck__channels=24))
    header = {"config": wide.to_dict(), "classes": CLASSES}
    export_model(tmp_path / "wide.npz", build_model(wide.model), header)
    header["config"] = from_dict(TINY).to_dict()
    export_model(tmp_path / "unknown.npz", tiny_model, header)
    header["neck_channels"] = list(range(8, 24))
    export_model(tmp_path / "narrow.npz", tiny_model, header)
    saved: list[dict[str, Any]] = []

    def stopped(trainer: Any, batches: Any, header: Any, path: Path, *_: Any) -> int:
        saved.append(header)
        trainer.save(path, header)
        return 15

    monkeypatch.setattr(fit, "fit", stopped)
    command = ["train", "--annotations", coco.path, "--images", coco.folder, *settings(TINY)]
    return command, saved


def test_channels_are_handed_on(pruned: Any, tmp_path: Path, capsys: Capture) -> None:
    command, saved = pruned
    start = ["--start-from", tmp_path / "narrow.npz", "--distill", tmp_path / "wide.npz"]
    first = [*command, *start, "--out", tmp_path / "first"]
    assert main([str(part) for part in first]) == 128 + 15
    (tmp_path / "narrow.npz").unlink()  # a run that goes on does not need it
    assert main([str(part) for part in first]) == 128 + 15
    start[1] = tmp_path / "first" / "checkpoint.npz"
    assert main([str(part) for part in [*command, *start, "--out", tmp_path / "second"]]) == 143
    assert [header["neck_channels"] for header in saved] == [list(range(8, 24))] * 3
    assert "features are not compared" not in capsys.readouterr().out


def test_channels_that_are_not_known(pruned: Any, tmp_path: Path, capsys: Capture) -> None:
    command, saved = pruned
    start = ["--start-from", tmp_path / "unknown.npz", "--distill", tmp_path / "wide.npz"]
    assert main([str(part) for part in [*command, *start, "--out", tmp_path / "run"]]) == 143
    assert "neck_channels" not in saved[0]
    assert "features are not compared: nothing says which of the 24" in capsys.readouterr().out


def test_channels_are_not_those_of_a_narrow_teacher(pruned: Any, tmp_path: Path) -> None:
    """A network that teaches itself has channels 0 to 15, whatever they were of its parent's."""
    from edgemask_convert.training import trainer

    command, _ = pruned
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        made = trainer.Trainer.__init__
        patch.setattr(trainer.Trainer, "__init__", lambda *a: [seen.append(a[4]), made(*a)][1])
        start = ["--start-from", tmp_path / "narrow.npz", "--distill", tmp_path / "unknown.npz"]
        assert main([str(part) for part in [*command, *start, "--out", tmp_path / "run"]]) == 143
    assert seen[0].channels.numpy().tolist() == list(range(16))
