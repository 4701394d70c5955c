"""The verbs' errors, one line each. What they do when all is well is in test_end_to_end.py."""

from __future__ import annotations

import argparse
import errno
import hashlib
import importlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from edgemask_convert.checkpoint import export_model, save_arrays
from edgemask_convert.cli import VERBS, main
from edgemask_convert.cli.common import calibration_paths
from edgemask_convert.cli.train import _first_weights
from edgemask_convert.config import from_dict
from edgemask_convert.export.packfile import write_pack
from synthetic import small_manifest

from ..conftest import CLASSES, Coco
from ..export.test_packfile import contents

Capture = pytest.CaptureFixture[str]


def fails(capsys: Capture, *arguments: object) -> str:
    """Run a command that fails with one line, and return that line."""
    assert main([str(argument) for argument in arguments]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "edgemask-convert:" in line]
    assert len(lines) == 1
    assert lines[0].startswith("edgemask-convert: error: ")
    return lines[0]


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_explained(verb: str) -> None:
    verbs = argparse.ArgumentParser().add_subparsers()
    importlib.import_module(f"edgemask_convert.cli.{verb.replace('-', '_')}").add_parser(verbs)
    silent = [action.dest for action in verbs.choices[verb]._actions if not action.help]
    assert silent == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert f"edgemask-convert {verb} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        ([], "edgemask-convert"),
        (["nope"], "edgemask-convert"),
        (["evaluate"], "edgemask-convert evaluate"),
        (["evaluate", "--limit", "x"], "edgemask-convert evaluate"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], program: str, capsys: Capture) -> None:
    assert fails(capsys, *arguments).endswith(f"; see {program} --help")


def test_tensorflow_says_nothing_of_its_own(tmp_path: Path) -> None:
    """Devices that are not there are nobody's error."""
    command = [sys.executable, "-m", "edgemask_convert", "evaluate", "none.npz"]
    command += ["--annotations", "none.json", "--images", "."]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("edgemask-convert: error: none.json cannot be read")


def test_help_of_all(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)


def test_train_errors(coco: Coco, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "run"
    train = ["train", "--annotations", coco.path, "--images", coco.folder, "--out", out]
    assert "cannot read" in fails(capsys, *train)
    coco.image(1)
    coco.add(1, [5, 5, 10, 10])
    coco.load()
    assert "did you mean 'train.epochs'" in fails(capsys, *train, "--set", "train.epoch=1")
    assert "cannot read config" in fails(capsys, *train, "--config", tmp_path / "none.toml")
    assert "class ids [9]" in fails(capsys, *train, "--set", "model.classes=[9]")
    assert not out.exists()


def test_train_finds_faults_of_the_dev_set_at_the_start(
    coco: Coco, tmp_path: Path, capsys: Capture
) -> None:
    coco.image(1)
    coco.add(1, [5, 5, 10, 10])
    coco.load()
    dev = tmp_path / "dev.json"
    dev.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "gone.png", "height": 30, "width": 40}],
                "annotations": [],
                "categories": CLASSES,
            }
        )
    )
    arguments: list[Any] = ["train", "--annotations", coco.path, "--images", coco.folder]
    arguments += ["--out", tmp_path / "run", "--dev", dev, "--set", "model.backbone.alpha=0.35"]
    text = fails(capsys, *arguments)
    assert "1 images of" in text
    assert "are missing" in text
    assert "gone.png" in text


def test_dataset_warnings_are_one_line(coco: Coco, tmp_path: Path, capsys: Capture) -> None:
    coco.image(1)
    coco.image(2)
    coco.add(1, [5, 5, 10, 10])
    coco.load()
    (coco.folder / "2.png").unlink()
    arguments = ["train", "--annotations", coco.path, "--images", coco.folder]
    out = ["--out", tmp_path / "run", "--set", "model.classes=[1]", "--start-from", "none.npz"]
    assert main([str(a) for a in [*arguments, *out, "--set", "model.backbone.alpha=0.35"]]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "edgemask-convert:" in line]
    assert len(lines) == 2
    assert lines[0].startswith("edgemask-convert: warning: 1 images of annotations.json")
    assert "none.npz is not an edgemask checkpoint: there is no such file" in lines[1]


def test_checkpoint_errors(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "photo.png").touch()
    text = fails(capsys, "quantize", tmp_path / "no.npz", "--images", tmp_path, "--out", "x.zip")
    assert "no.npz is not an edgemask checkpoint" in text
    text = fails(capsys, "verify", tmp_path / "no.zip", "--float", "model.npz")
    assert "--float needs --images" in text
    assert "no.zip" in fails(capsys, "verify", tmp_path / "no.zip")
    text = fails(
        capsys, "evaluate", tmp_path / "no.zip", "--annotations", "no.json", "--images", tmp_path
    )
    assert "no.json" in text


def test_train_does_not_go_on_with_another_dataset(
    coco: Coco, tmp_path: Path, capsys: Capture
) -> None:
    coco.image(1)
    coco.add(1, [5, 5, 10, 10])
    coco.load()
    checkpoint = tmp_path / "run" / "checkpoint.npz"
    settings = {"model": {"backbone": {"alpha": 0.35}}}
    header = {"config": from_dict(settings).to_dict(), "data": {"sha256": "0", "images": 1}}
    save_arrays(checkpoint, {}, header)
    before = checkpoint.read_bytes()
    command = ["train", "--annotations", coco.path, "--images", coco.folder, "--out"]
    command += [checkpoint.parent, "--set", "model.backbone.alpha=0.35"]
    text = fails(capsys, *command, "--set", "train.seed=2")
    assert "its run changed: the annotation file is another one; train.seed was 1, is 2" in text
    assert "another --out (--start-from" in text
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint.npz"]
    assert checkpoint.read_bytes() == before


def test_quantize_sets_what_is_no_weight(tiny_model: Any, tiny_config: Any, tmp_path: Path) -> None:
    checkpoint, pack = tmp_path / "model.npz", tmp_path / "pack.zip"
    export_model(checkpoint, tiny_model, {"config": tiny_config.to_dict(), "classes": CLASSES})
    command = ["quantize", checkpoint, "--format", "float32", "--out", pack]
    command += ["--set", "model.rpn.score_threshold=0.15"]
    assert main([str(argument) for argument in command]) == 0
    with zipfile.ZipFile(pack) as archive:
        assert json.loads(archive.read("model.json"))["rpn"]["score_threshold"] == 0.15


def test_options_that_do_not_go_together(tmp_path: Path, capsys: Capture) -> None:
    quantize = ["quantize", "model.npz", "--out", tmp_path / "x.zip"]
    assert "int8 needs --images" in fails(capsys, *quantize)
    text = fails(capsys, *quantize, "--format", "float16", "--report", "r.md")
    assert "there is nothing in float16" in text
    text = fails(capsys, *quantize, "--images", tmp_path, "--report", "r.txt")
    assert "give a name that ends in .json or .md" in text
    teach = ["teach", "--teacher", "pack:people", "--images", tmp_path, "--annotations", "a.json"]
    assert "leave out --ray" in fails(capsys, *teach, "--measure", "--ray", "auto")
    evaluate = ["evaluate", "people", "--images", tmp_path, "--annotations", tmp_path / "a.json"]
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert "--ray-cpus is 0" in fails(capsys, *evaluate, "--ray-cpus", 0)


def test_verify_says_what_failed(small_pack: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["verify", str(small_pack), "--save", str(tmp_path / "new" / "v.json")]) == 1
    out = capsys.readouterr().out
    assert "FAILED  mask_head at 1x7x7x8" in out
    assert "3 checks failed" in out
    assert len(json.loads((tmp_path / "new" / "v.json").read_text())["failures"]) == 3


def test_figures_that_cannot_be_written_leave_the_older_ones(
    small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    saved = tmp_path / "v.json"
    saved.write_text("{}")
    monkeypatch.setattr(os, "replace", full)
    assert main(["verify", str(small_pack), "--save", str(saved)]) == 1
    assert f"{saved} cannot be written (No space left on device)" in capsys.readouterr().err
    assert saved.read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".zip"] == ["v.json"]


def test_traceback_only_with_debug(small_pack: Path, capsys: Capture) -> None:
    for arguments in (["--debug", "verify", "none.zip"], ["verify", "none.zip", "--debug"]):
        assert main(arguments) == 1
        assert "Traceback" in capsys.readouterr().err
    assert main(["verify", "none.zip"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_without_tensorflow(
    coco: Coco, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] in ("keras", "tensorflow")]:
        monkeypatch.setitem(sys.modules, name, None)
    text = fails(
        capsys, "train", "--annotations", coco.path, "--images", tmp_path, "--out", tmp_path / "x"
    )
    assert "pip install 'edgemask[convert]'" in text


# pack


def measured(path: Path, ap: float | None, **extra: Any) -> Path:
    """Write what evaluate --save writes."""
    record = {"model": path.stem, "dataset": "dev.json", "images": 9, "short_side": 64}
    path.write_text(json.dumps(record | {"bbox": {"AP": ap}, "segm": {"AP": ap}} | extra))
    return path


@pytest.fixture
def pack_command(tmp_path: Path) -> list[Any]:
    """A command that packs, but for the two measurements."""
    write_pack(tmp_path / "raw.zip", small_manifest(), contents())
    command: list[Any] = ["pack", tmp_path / "raw.zip", "--version", "2", "--license", "Apache-2.0"]
    return [*command, "--description", "d", "--out", tmp_path / "out.zip", "--credit", "me"]


def test_pack(pack_command: list[Any], tmp_path: Path, capsys: Capture) -> None:
    from edgemask.modelpack import load_pack

    int8, parent = measured(tmp_path / "i.json", 0.3), measured(tmp_path / "f.json", 0.304)
    command = [*pack_command, "--int8", int8, "--float", parent, "--note", "init=a=b"]
    assert main([str(part) for part in command]) == 0
    assert "mask AP 0.300 (float 0.304, drop +0.0040)" in capsys.readouterr().out
    pack = load_pack(tmp_path / "out.zip")
    assert pack.version == "2"
    assert pack.manifest["credits"] == ["me"]
    assert pack.manifest["training"] == {"epochs": 0, "init": "a=b"}
    assert pack.metrics["int8"]["segm"]["AP"] == 0.3
    assert pack.stages == load_pack(tmp_path / "raw.zip").stages
    first = (tmp_path / "out.zip").read_bytes()
    assert main([str(part) for part in command]) == 0
    assert (tmp_path / "out.zip").read_bytes() == first


def test_pack_refuses(pack_command: list[Any], tmp_path: Path, capsys: Capture) -> None:
    good, bad = measured(tmp_path / "g.json", 0.3), measured(tmp_path / "b.json", 0.29)
    none = measured(tmp_path / "n.json", None)
    elsewhere = measured(tmp_path / "e.json", 0.3, images=10)
    text = fails(capsys, *pack_command, "--int8", bad, "--float", good)
    assert "int8 loses 0.0100 mask AP" in text
    text = fails(capsys, *pack_command, "--int8", elsewhere, "--float", good)
    assert "images is 10 and 9" in text
    assert "n.json holds no mask AP" in fails(
        capsys, *pack_command, "--int8", none, "--float", good
    )
    assert "raw.zip holds no mask AP" in fails(
        capsys, *pack_command, "--int8", tmp_path / "raw.zip", "--float", good
    )
    text = fails(capsys, *pack_command, "--int8", good, "--float", good, "--note", "init")
    assert "--note 'init' is not of the form KEY=VALUE" in text
    assert not (tmp_path / "out.zip").exists()
    command = [*pack_command, "--int8", bad, "--float", good, "--max-drop", "0.02"]
    assert main([str(part) for part in command]) == 0


def test_pack_refuses_figures_of_one_model(
    pack_command: list[Any], tmp_path: Path, capsys: Capture
) -> None:
    from edgemask_convert.evaluation.predictions import model_sha256

    own = model_sha256(tmp_path / "raw.zip")
    files = [measured(tmp_path / f"{n[:4]}.json", 0.3, model_sha256=n) for n in (own, "another")]
    same = measured(tmp_path / "c.json", 0.3, model_sha256=own)
    text = fails(capsys, *pack_command, "--int8", files[0], "--float", same)
    assert "figures for the same model" in text
    text = fails(capsys, *pack_command, "--int8", files[1], "--float", files[0])
    assert "anot.json has figures for a different model than" in text
    text = fails(
        capsys, *pack_command, "--int8", *files[:1], "--float", files[1], "--max-drop", "nan"
    )
    assert "--max-drop is nan" in text
    assert main([str(p) for p in [*pack_command, "--int8", files[0], "--float", files[1]]]) == 0


# choice of images


def test_calibration_paths(tmp_path: Path) -> None:
    for n in range(10):
        (tmp_path / f"{n}.png").touch()
    (tmp_path / "notes.txt").touch()
    names = [path.name for path in calibration_paths(tmp_path, None, 4)]
    assert names == ["0.png", "3.png", "6.png", "9.png"]
    assert len(calibration_paths(tmp_path, None, 99)) == 10


def test_calibration_paths_of_annotations(coco: Coco) -> None:
    coco.image(4)
    coco.image(2)
    coco.image(3).unlink()
    coco.path.write_text(json.dumps(coco.data))
    found = calibration_paths(coco.folder, coco.path, 9)
    assert [path.name for path in found] == ["4.png", "2.png"]


def test_calibration_errors(coco: Coco, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images found in"):
        calibration_paths(coco.folder, None, 5)
    with pytest.raises(ValueError, match="is not a folder of images"):
        calibration_paths(tmp_path / "none", None, 5)
    coco.path.write_text("{}")
    with pytest.raises(OSError, match="is not a COCO annotation file"):
        calibration_paths(coco.folder, coco.path, 5)


def test_first_weights_that_are_gone_are_those_that_are_recorded(tmp_path: Path) -> None:
    """A run that goes on needs no file of them; one that is there is looked at."""
    first, out = tmp_path / "first.npz", tmp_path / "run"
    given = {"init": None, "out": out}
    assert _first_weights(argparse.Namespace(start_from=first, **given)) is None  # no run yet
    save_arrays(out / "checkpoint.npz", {}, {"data": {"first_weights": "abc"}})
    for start in (first, None):
        assert _first_weights(argparse.Namespace(start_from=start, **given)) == "abc"
    first.write_bytes(b"others")
    digest = hashlib.sha256(b"others").hexdigest()
    assert _first_weights(argparse.Namespace(start_from=first, **given)) == digest
    given["init"] = first
    assert _first_weights(argparse.Namespace(start_from=None, **given)) == digest
    save_arrays(out / "checkpoint.npz", {}, {"data": {}})  # of an older version
    assert _first_weights(argparse.Namespace(start_from=None, init=None, out=out)) is None
