"""A small network with a keypoint head, from drawings to a pack on the device. Takes minutes.

pytest -m train
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edgemask_convert.cli import main
from shapes import draw_dataset

from edgemask import cli as device
from edgemask.keypoints import NAMES
from edgemask.modelpack import load_pack

pytestmark = pytest.mark.train

CONFIG = """
[model]
name = "discs"
classes = [1, 2]
short_side = 128

[model.backbone]
alpha = 0.35
last_block = 13
frozen_blocks = -1 # nothing to start from: everything is trained

[model.neck]
channels = 48

[model.rpn]
convs = 1

[model.box_head]
width = 96

[model.mask_head]
blocks = 2
up_channels = 24

[model.keypoint_head]
blocks = 2
width = 48
up_channels = 24

[augment]
crop = 128
min_short_side = 110
max_short_side = 150
color = 0.1 # the classes differ in colour

[train]
epochs = 50.0
learning_rate = 3e-3
backbone_multiplier = 1.0
warmup_steps = 40
ema_decay = 0.98
proposals = 50
rois_per_image = 32
positive_rois = 16
mask_rois = 8
keypoint_rois = 8
"""
PLACES = {"nose": (0.5, 0.5), "left_ear": (0.2, 0.5), "right_ear": (0.8, 0.5)}  # share of the box


def draw_posed(folder: Path, images: int, seed: int) -> Path:
    """Draw a dataset whose discs have a nose in the middle and an ear on either side."""
    path = draw_dataset(folder, images, seed)
    data = json.loads(path.read_text())
    data["categories"][0]["keypoints"] = list(NAMES)
    for entry in data["annotations"]:
        x, y, w, h = entry["bbox"]
        points = np.zeros((len(NAMES), 3))
        for name, (right, down) in PLACES.items():
            points[NAMES.index(name)] = x + right * w - 0.5, y + down * h - 0.5, 2
        if entry["category_id"] == 1:
            entry |= {"keypoints": points.reshape(-1).tolist(), "num_keypoints": len(PLACES)}
    path.write_text(json.dumps(data))
    return path


def run(*arguments: object) -> None:
    """Run one verb of the toolchain."""
    assert main([str(argument) for argument in arguments]) == 0


def test_from_drawings_to_keypoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = draw_posed(tmp_path / "train", 60, 0)
    dev = draw_posed(tmp_path / "dev", 30, 1)
    config = tmp_path / "discs.toml"
    config.write_text(CONFIG)
    images = ["--annotations", train, "--images", train.parent / "images"]
    dev_images = ["--annotations", dev, "--images", dev.parent / "images"]
    out, raw, final = tmp_path / "run", tmp_path / "raw.zip", tmp_path / "discs.zip"
    run("train", *images, "--config", config, "--out", out)
    model = out / "model.npz"
    run("quantize", model, *images, "--count", 40, "--out", raw)
    capsys.readouterr()
    run("verify", raw, "--float", model, *dev_images)
    assert "keypoint_head" in (text := capsys.readouterr().out)
    assert "apart" in text
    reports = {}
    for name, path in (("int8", raw), ("float", model)):
        reports[name] = tmp_path / f"{name}.json"
        run("evaluate", path, *dev_images, "--save", reports[name])
    run(
        "pack", raw, "--int8", reports["int8"], "--float", reports["float"], "--max-drop", 0.05,
        "--version", "1", "--description", "drawn discs", "--license", "CC0-1.0", "--out", final,
    )  # fmt: skip
    pack = load_pack(final)
    assert sorted(pack.stages) == ["backbone", "box_head", "keypoint_head", "mask_head"]
    for name in ("int8", "float"):
        assert pack.metrics[name]["keypoints"]["AP50"] > 0.6

    run("quantize", model, *images, "--count", 40, "--without-keypoints", "--name", "plain",
        "--out", plain := tmp_path / "plain.zip")  # fmt: skip
    assert sorted(load_pack(plain).stages) == ["backbone", "box_head", "mask_head"]
    assert load_pack(plain).manifest["name"] == "plain"

    # the device, on the same images
    capsys.readouterr()
    arguments = ["eval", *dev_images, "--model", final]
    assert device.main([str(a) for a in arguments]) == 0
    table = capsys.readouterr().out
    assert f"points{pack.metrics['int8']['keypoints']['AP']:7.3f}" in table
    arguments = ["predict", dev.parent / "images", "--model", final, "--out", tmp_path / "found"]
    assert device.main([str(a) for a in [*arguments, "--format", "json,coco,overlay"]]) == 0
    results = json.loads((tmp_path / "found" / "coco.json").read_text())
    assert {len(r["keypoints"]) for r in results if r["category_id"] == 1} == {51}
    assert not any("keypoints" in r for r in results if r["category_id"] == 2)
    one = json.loads(next((tmp_path / "found").glob("shapes*.json")).read_text())
    assert {len(item["keypoints"]) for item in one["instances"]} <= {17}
    assert device.main(["info", str(final)]) == 0
    assert "left_wrist" in capsys.readouterr().out
