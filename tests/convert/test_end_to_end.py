"""From labelled drawings to a pack that finds its shapes: every verb, in order. Takes minutes.

pytest -m train

The commands and settings are those of docs/own-data.md.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.checkpoint import load_arrays
from edgemask_convert.cli import main
from edgemask_convert.data.soft_mask import decode_soft_mask
from edgemask_convert.training.trainer import Trainer
from labelled import draw_labelme, to_grey
from PIL import Image
from shapes import draw_dataset, draw_image

from edgemask import cli as device
from edgemask import rle
from edgemask.modelpack import load_pack

pytestmark = pytest.mark.train

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = ROOT / "models" / "people.npz"

WANTED_AP = 0.8
CONFIG = """
[model]
name = "shapes"
classes = [1, 2]
short_side = 128

[model.box_head]   # these two as in models/people.npz
width = 160

[model.mask_head]
features = ["p2", "p3"]
level_thresholds = [112.0]
blocks = 3
up_channels = 32
context = {channels = 64}

[augment]
crop = 128
min_short_side = 110
max_short_side = 150
color = 0.1

[train]
epochs = 15.0
learning_rate = 2e-3
warmup_steps = 40
ema_decay = 0.98
proposals = 50
rois_per_image = 32
positive_rois = 16
mask_rois = 8
eval_epochs = 15.0
eval_images = 30
"""


def run(*arguments: object) -> None:
    """Run one verb of the toolchain."""
    assert main([str(argument) for argument in arguments]) == 0


def test_from_labelme_files_to_a_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photographs, config = tmp_path / "photographs", tmp_path / "shapes.toml"
    draw_labelme(photographs / "outlined", 50)
    draw_labelme(photographs / "boxed", 30, seed=2, boxes=True)
    dev_images = draw_labelme(tmp_path / "dev", 30, seed=1)
    config.write_text(CONFIG)
    train, dev, taught = (tmp_path / f"{name}.json" for name in ("train", "devel", "taught"))
    labels = ["--labels", "disc,triangle"]
    run("import-labelme", photographs, *labels, "--boxes", "--out", train)
    run("import-labelme", dev_images, *labels, "--out", dev)
    capsys.readouterr()
    run("check", "--annotations", train, "--images", photographs, "--short-side", 128, "--strict")
    assert "nothing is wrong" in (text := capsys.readouterr().out)
    assert "80 images" in text
    assert "have a box only" in text

    images, first, second = ["--images", photographs], tmp_path / "first", tmp_path / "second"
    measured = ["--dev", dev, "--dev-images", dev_images, "--config", config]
    run("train", "--annotations", train, *images, *measured, "--start-from", PEOPLE, "--out", first)
    assert "start fresh: box_logits" in capsys.readouterr().out
    teacher = f"checkpoint:{first / 'model.npz'}"
    run("teach", "--teacher", teacher, "--annotations", train, *images, "--out", taught)
    assert_masks_are_filled(train, taught)
    run("train", "--annotations", taught, *images, *measured, "--start-from", first / "model.npz",
        "--out", second)  # fmt: skip
    model, raw, final = second / "model.npz", tmp_path / "raw.zip", tmp_path / "shapes.zip"
    for folder in (first, second):
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [r["dev_mask_AP"] for r in rows if "dev_mask_AP" in r][-1] > WANTED_AP

    run("quantize", model, *images, "--annotations", train, "--count", 40, "--out", raw)
    known = ["--images", dev_images, "--annotations", dev]
    run("verify", raw, "--float", model, *known, "--save", tmp_path / "verify.json")
    reports = {}
    for name, path in (("int8", raw), ("float", model)):
        reports[name] = tmp_path / f"{name}.json"
        run("evaluate", path, *known, "--save", reports[name])
    run(
        "pack", raw, "--int8", reports["int8"], "--float", reports["float"], "--max-drop", 0.02,
        "--version", "1", "--description", "drawn shapes", "--license", "CC0-1.0", "--out", final,
    )  # fmt: skip
    pack = load_pack(final)
    print({name: pack.metrics[name]["segm"]["AP"] for name in ("int8", "float")})
    assert pack.metrics["int8"]["segm"]["AP"] > WANTED_AP
    assert pack.metrics["int8"]["bbox"]["AP"] > WANTED_AP - 0.1
    assert pack.metrics["float"]["segm"]["AP"] > WANTED_AP
    assert pack.manifest["training"]["step"] == 150
    assert pack.class_names == {1: "disc", 2: "triangle"}
    assert_finds_new_shapes(final, tmp_path)
    page = tmp_path / "report.html"
    run("report", final, *known, "--float", model, "--out", page)
    assert f"{pack.metrics['int8']['segm']['AP']:.3f}" in page.read_text()


def assert_masks_are_filled(boxed: Path, taught: Path) -> None:
    """Every object that had a box only, or nearly, has a mask now, which looks like its shape."""
    before, after = (json.loads(path.read_text()) for path in (boxed, taught))
    open_ids = {a["id"] for a in before["annotations"] if not a["segmentation"]}
    filled = [a for a in after["annotations"] if a["id"] in open_ids and "soft_mask" in a]
    assert len(open_ids) > 40
    assert len(filled) > 0.9 * len(open_ids)
    # A disc fills pi / 4 of its box; only shapes that others hide fill less or more.
    discs = [decode_soft_mask(a["soft_mask"]) > 127 for a in filled if a["category_id"] == 1]
    assert abs(np.median([mask.mean() for mask in discs]) - np.pi / 4) < 0.05


def assert_finds_new_shapes(pack: Path, folder: Path, depth: int = 0) -> None:
    """Run ``edgemask predict`` on new drawings, grey of a depth or coloured."""
    random = np.random.default_rng(7)
    truths = {}
    (folder / "new").mkdir()
    for n in range(10):
        rgb, shapes = draw_image(random)
        image = to_grey(rgb, depth) if depth else Image.fromarray(rgb)
        image.save(folder / "new" / f"{n}.png")
        truths[n] = [(kind, mask) for kind, mask in shapes if mask.sum() >= 200]
    arguments = ["predict", folder / "new", "--model", pack, "--out", folder / "found"]
    assert device.main([str(a) for a in [*arguments, "--format", "json,overlay"]]) == 0
    hits, total, extra = 0, 0, 0
    for n, shapes in truths.items():
        assert (folder / "found" / f"{n}.overlay.png").exists()
        result = json.loads((folder / "found" / f"{n}.json").read_text())
        found = [
            (item["class_id"], rle.decode(item["segmentation"]["counts"], *result["size"]))
            for item in result["instances"]
        ]
        matched = 0
        for kind, mask in shapes:
            overlaps = [
                (mask & other).sum() / (mask | other).sum() for c, other in found if c == kind
            ]
            matched += max(overlaps, default=0) > 0.75
        hits, total = hits + matched, total + len(shapes)
        extra += len(found) - matched
    assert total >= 15
    assert hits >= 0.85 * total
    assert extra <= 0.3 * total


def test_grey_images(tmp_path: Path) -> None:
    """As from a microscope: one channel, 8 or 16 bits; shape alone tells the classes apart."""
    annotations = draw_dataset(tmp_path / "train", 50)
    images = tmp_path / "train" / "images"
    for n, path in enumerate(sorted(images.iterdir())):
        with Image.open(path) as image:
            grey = to_grey(np.asarray(image), 16 if n % 2 else 8)
        grey.save(path)
    config, out, pack = tmp_path / "grey.toml", tmp_path / "run", tmp_path / "grey.zip"
    config.write_text(CONFIG)
    common = ["--annotations", annotations, "--images", images]
    run("check", *common, "--short-side", 128, "--strict")
    run("train", *common, "--config", config, "--set", "train.epochs=25", "--start-from", PEOPLE,
        "--out", out)  # fmt: skip
    run("quantize", out / "model.npz", *common, "--count", 30, "--out", pack)
    assert_finds_new_shapes(pack, tmp_path, 16)


def test_the_tutorial_shows_these_settings() -> None:
    text = (ROOT / "docs" / "own-data.md").read_text("utf-8")
    shown = tomllib.loads(text.partition("```toml\n")[2].partition("```")[0])
    assert shown == tomllib.loads(CONFIG)


# A small network with random weights: what these tests are about does not need a good one.
SMALL = """
[model]
classes = [1, 2]
short_side = 128

[model.backbone]
alpha = 0.35
last_block = 13
frozen_blocks = -1

[model.neck]
channels = 48

[model.box_head]
width = 96

[model.mask_head]
blocks = 2
up_channels = 24

[augment]
crop = 128
min_short_side = 110
max_short_side = 150

[train]
warmup_steps = 40
ema_decay = 0.98
proposals = 50
rois_per_image = 32
positive_rois = 16
mask_rois = 8
"""
SHORT = ["--set", "train.epochs=0.5", "--set", "train.save_minutes=0.0", "--set"]


def train_command(folder: Path, out: Path) -> list[Any]:
    """A run of four steps that saves after each."""
    annotations = folder / "annotations.json"
    command: list[Any] = ["train", "--annotations", annotations, "--images", folder / "images"]
    return [*command, "--config", folder / "c.toml", "--out", out, *SHORT, "train.batch_size=4"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A folder with 32 drawings and a configuration."""
    draw_dataset(tmp_path, 32)
    (tmp_path / "c.toml").write_text(SMALL)
    return tmp_path


def test_the_same_seed_gives_the_same_run(dataset: Path) -> None:
    """Weights that no file initialises are drawn from the seed as well."""
    models = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(*train_command(dataset, dataset / name), "--set", f"train.seed={seed}")
        models.append(load_arrays(dataset / name / "model.npz")[0])
    first, same, other = models
    for name, value in first.items():
        np.testing.assert_allclose(
            same[name].astype("f4"), value.astype("f4"), atol=2e-3, err_msg=name
        )
    name = "backbone/block_5_expand/kernel"
    assert np.abs(first[name] - other[name]).max() > 0.05


def test_a_run_that_was_stopped_goes_on(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Trainer.train_batch

    def stop(self: Trainer, batch: dict[str, np.ndarray], wish: bool) -> dict[str, float]:
        if self.step == 2:
            raise KeyboardInterrupt
        return step(self, batch, wish)

    out = dataset / "run"
    command = [str(part) for part in train_command(dataset, out)]
    monkeypatch.setattr(Trainer, "train_batch", stop)
    assert main(command) == 130
    assert not (out / "model.npz").exists()
    monkeypatch.undo()
    assert main(command) == 0
    assert "resuming" in (text := capsys.readouterr().out)
    assert "at step 2 of 4" in text
    assert load_arrays(out / "checkpoint.npz")[1]["step"] == 4
    straight = dataset / "straight"
    run(*train_command(dataset, straight))
    expected, found = (load_arrays(path / "model.npz")[0] for path in (straight, out))
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name].astype("f4"), value.astype("f4"), atol=2e-3, err_msg=name
        )
