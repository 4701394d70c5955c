"""The network without a pyramid through training, distillation, int8 and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.arch.keras_stages import float_pipeline
from edgemask_convert.checkpoint import export_model, load_model
from edgemask_convert.cli import main
from edgemask_convert.config import Config, from_dict
from edgemask_convert.export.quantize import feature_range
from edgemask_convert.export.verify import verify
from edgemask_convert.training.distill import Distillation, DistillError
from edgemask_convert.training.network_step import StepLosses, propose
from edgemask_convert.training.trainer import Trainer

from edgemask.postprocess import proposals

from .conftest import CLASSES, TINY_2GO, make_2go, make_pack

SEED = np.array([1, 2], np.int32)


def config() -> Config:
    return from_dict(TINY_2GO)


def losses(step: StepLosses, batch: dict[str, np.ndarray]) -> dict[str, float]:
    tensors = {key: tf.constant(value) for key, value in batch.items() if key != "image_id"}
    return {key: float(value) for key, value in step(tensors, SEED, training=False).items()}


@pytest.mark.usefixtures("eager")
def test_losses(tiny_2go: Any, batch: dict[str, np.ndarray]) -> None:
    found = losses(StepLosses(tiny_2go, config()), batch)
    assert set(found) == {"rpn_class", "rpn_box", "class", "box", "mask", "total"}
    assert all(value > 0 for value in found.values())
    batch["valid"][:] = batch["has_mask"][:] = 0
    batch["boxes"][:] = 0
    empty = losses(StepLosses(tiny_2go, config()), batch)
    assert empty["rpn_box"] == empty["box"] == empty["mask"] == 0
    assert np.isfinite(empty["total"])


@pytest.mark.usefixtures("eager")
def test_each_class_learns_its_own_box_and_mask(batch: dict[str, np.ndarray]) -> None:
    model = make_2go()
    step = StepLosses(model, config())
    batch["labels"][:] = 1
    tensors = {key: tf.constant(value) for key, value in batch.items() if key != "image_id"}
    deltas = model.box_head.get_layer("box_deltas").bias
    masks = model.mask_head.get_layer("mask_logits").bias
    with tf.GradientTape(persistent=True) as tape:
        found = step(tensors, SEED, training=False)
    box = np.asarray(tape.gradient(found["box"], deltas.value))
    assert not box[:4].any()
    assert box[4:].any()
    mask = np.asarray(tape.gradient(found["mask"], masks.value))
    assert mask[0] == 0 != mask[1]


@pytest.mark.usefixtures("eager")
def test_unlabelled_classes_are_not_background(batch: dict[str, np.ndarray]) -> None:
    """Without objects a known class is pushed down, one that is not labelled is not."""
    model = make_2go()
    step = StepLosses(model, config())
    batch["valid"][:] = batch["has_mask"][:] = 0
    batch["boxes"][:] = 0
    batch["labeled"][:, 1] = 0
    tensors = {key: tf.constant(value) for key, value in batch.items() if key != "image_id"}
    with tf.GradientTape() as tape:
        loss = step(tensors, SEED, training=False)["class"]
    bias = model.box_head.get_layer("box_logits").bias
    gradient = np.asarray(tape.gradient(loss, bias.value))
    assert gradient[1] > 0
    assert gradient[0] < 0
    assert gradient[2] < 0


@pytest.mark.usefixtures("eager")
def test_a_student_that_agrees_has_nothing_to_learn(batch: dict[str, np.ndarray]) -> None:
    teacher, other = make_2go(), make_2go(seed=8)
    for student, low, high in ((teacher, 0, 1e-3), (other, 1e-2, np.inf)):
        distillation = Distillation(teacher, student, config().distill)
        found = losses(StepLosses(student, config(), distillation), batch)
        taught = {name: value for name, value in found.items() if name.startswith("distill_")}
        assert len(taught) == 5
        for name, value in taught.items():
            assert low <= abs(value) <= high, name


def test_teachers_of_another_kind_are_refused(tiny_2go: Any, tiny_model: Any) -> None:
    with pytest.raises(DistillError, match=r"backbone\.kind"):
        Distillation(tiny_2go, tiny_model, config().distill)
    other = make_2go(rpn__anchor_boxes=[[-8.0, -8.0, 8.0, 8.0]] * 3)
    with pytest.raises(DistillError, match="anchor_boxes"):
        Distillation(other, tiny_2go, config().distill)


def test_training_lowers_the_loss(batch: dict[str, np.ndarray]) -> None:
    values = config()
    values.train.learning_rate = 3e-3
    trainer = Trainer(make_2go(), values, 12, Distillation(make_2go(), make_2go(), values.distill))
    found = [trainer.train_batch(batch)["total"] for _ in range(12)]
    assert found[-1] < 0.8 * found[0]


def test_proposals_equal_the_device(tiny_2go: Any) -> None:
    random = np.random.default_rng(4)
    raw = {
        "rpn_logits_4": random.normal(0, 2, (1, 4, 4, 3)).astype(np.float32),
        "rpn_deltas_4": random.normal(0, 0.3, (1, 4, 4, 12)).astype(np.float32),
    }
    manifest = float_pipeline(tiny_2go, CLASSES).manifest
    expected = proposals(raw, lambda name: (1.0, 0), manifest["rpn"] | {"pre_nms": 48}, 64, 64)
    step = StepLosses(tiny_2go, config())
    logits = raw["rpn_logits_4"].reshape(1, -1)
    deltas = raw["rpn_deltas_4"].reshape(1, -1, 4)
    _, found = propose(logits, deltas, step.anchors, 64, 12, manifest["rpn"]["nms_threshold"])
    np.testing.assert_allclose(found[0][: len(expected)], expected, atol=1e-3)


def test_int8(tiny_2go: Any, drawn_images: list[np.ndarray], tmp_path: Path) -> None:
    """One partition a stage, one code from the trunk to the heads, and nearly the same results."""
    pack = make_pack(tiny_2go, drawn_images, tmp_path / "tiny.zip")
    stages = pack.manifest["stages"]
    codes = [stages["backbone"]["outputs"]["c4"]]
    codes += [stages[head]["inputs"]["rois"] for head in ("box_head", "mask_head")]
    assert len({entry["zero_point"] for entry in codes}) == 1
    np.testing.assert_allclose([entry["scale"] for entry in codes], codes[0]["scale"], rtol=1e-3)
    low, high = feature_range(tiny_2go, stages["backbone"])
    assert low < 0 < high
    assert verify_pack(pack) == []


def verify_pack(pack: Any) -> list[str]:
    """What keeps the pack from being one partition a stage."""
    return verify(pack, None, []).failures


def test_command_line(
    tiny_2go: Any, drawn_images: list[np.ndarray], tmp_path: Path, capsys: Any
) -> None:
    """`prune` with a budget, and what it writes is a network that runs."""
    from PIL import Image

    for index, image in enumerate(drawn_images[:2]):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    wide = make_2go(mask_head__expansions=[48, 16, 16, 16])
    values = Config(wide.config).to_dict()
    export_model(tmp_path / "wide.npz", wide, {"config": values, "classes": CLASSES})
    toml = tmp_path / "narrow.toml"
    boxes = TINY_2GO["model"]["rpn"]["anchor_boxes"]
    toml.write_text(
        f"[model]\nclasses = [1, 2]\nshort_side = 64\nbackbone.kind = 'maskrcnn2go'\n"
        f"rpn.anchor_boxes = {boxes}\n"
        "[model.box_head]\noutput_size = 6\nfeatures = ['c4']\nlevel_thresholds = []\n"
        "activation = 'softmax'\nclass_agnostic = false\n"
        "[model.mask_head]\noutput_size = 6\nfeatures = ['c4']\nlevel_thresholds = []\n"
        "class_agnostic = false\n"
    )
    command = ["prune", "--checkpoint", str(tmp_path / "wide.npz"), "--config", str(toml)]
    command += ["--images", str(tmp_path), "--out", str(tmp_path / "narrow.npz")]
    assert main([*command, "--budget", "mask_head=3.7"]) == 0
    assert "mask_head: expansions = [" in capsys.readouterr().out
    narrow, header = load_model(tmp_path / "narrow.npz")
    assert sum(narrow.config.mask_head.expansions) < 96
    assert narrow.config.rpn.expansions == [16] * 3
    assert header["classes"] == CLASSES
    assert len(float_pipeline(narrow, CLASSES)(drawn_images[0], 0.01)) >= 0
    assert main([*command, "--trunk-mmac", "3"]) == 1
    assert "--budget" in capsys.readouterr().err
    assert main([*command, "--budget", "neck=3"]) == 1
