"""Fitting a narrowed network to the wide one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.arch.keras_stages import float_pipeline
from edgemask_convert.checkpoint import export_model, load_model
from edgemask_convert.cli import main
from edgemask_convert.compress.imitate import OTHER_TRUNK, ImitationError, imitate, trunk_gap
from edgemask_convert.compress.lessons import Lesson, lessons
from edgemask_convert.config import Config
from edgemask_convert.evaluation.predictions import model_sha256
from PIL import Image

from ..conftest import CLASSES, make_2go

PARTS = ("rpn", "box_head", "mask_head")


@pytest.fixture(scope="module")
def taught(tiny_2go: Any, drawn_images: list[np.ndarray]) -> list[Lesson]:
    return list(lessons(float_pipeline(tiny_2go, CLASSES), drawn_images))


def part_of(name: str) -> str:
    stage, layer, _ = name.split("/")
    return ("rpn" if layer.startswith("rpn") else "trunk") if stage == "backbone" else stage


def values(model: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(weight).copy() for name, weight in model.named_weights().items()}


def spoilt(model: Any) -> Any:
    """A copy with noise on all weights but the trunk's."""
    student = make_2go()
    random = np.random.default_rng(2)
    for (name, weight), old in zip(
        student.named_weights().items(), values(model).values(), strict=True
    ):
        noise = random.normal(0, 0.3 * float(old.std()) + 1e-3, old.shape)
        weight.assign(old if part_of(name) == "trunk" else old + noise)
    return student


@pytest.mark.parametrize("part", PARTS)
def test_a_part_learns_and_the_others_stay(tiny_2go: Any, taught: list[Lesson], part: str) -> None:
    student = spoilt(tiny_2go)
    before = values(student)
    heard: list[tuple[str, int]] = []
    steps = dict.fromkeys(PARTS, 0) | {part: 60}
    losses = imitate(
        student, taught, steps, dict.fromkeys(PARTS, 3e-3), say=lambda p, s, _: heard.append((p, s))
    )
    assert set(losses) == {part}
    first, last, epochs = losses[part]
    assert epochs > 0
    assert last < first
    assert heard == [(part, 60)]
    for name, value in values(student).items():
        assert (value == before[name]).all() == (part_of(name) != part), name


def test_the_same_seed_gives_the_same_weights(tiny_2go: Any, taught: list[Lesson]) -> None:
    found = []
    for seed in (1, 1, 2):
        student = spoilt(tiny_2go)
        imitate(student, taught, {"box_head": 4}, seed=seed)
        found.append(np.asarray(student.box_head.get_layer("box_logits").kernel))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_nothing_to_learn_from(tiny_2go: Any, taught: list[Lesson]) -> None:
    with pytest.raises(ImitationError, match="no photograph teaches the rpn"):
        imitate(tiny_2go, [], {"rpn": 1})
    blank = replace(
        taught[0], masks=taught[0].masks[:0], mask_columns=taught[0].mask_columns[:0],
        mask_regions=taught[0].mask_regions[:0],
    )  # fmt: skip
    with pytest.raises(ImitationError, match="teaches the mask_head"):
        imitate(tiny_2go, [blank], {"mask_head": 1})


def test_a_loss_that_is_not_finite(tiny_2go: Any, taught: list[Lesson]) -> None:
    student = spoilt(tiny_2go)
    student.box_head.get_layer("box_logits").bias.assign([np.nan, 0, 0])
    with pytest.raises(ImitationError, match="not finite at step 1"):
        imitate(student, taught, {"box_head": 2})


def test_trunk_gap(tiny_2go: Any, drawn_images: list[np.ndarray]) -> None:
    teacher = float_pipeline(tiny_2go, CLASSES)
    assert trunk_gap(spoilt(tiny_2go), teacher, drawn_images[0]) < 1e-6
    assert trunk_gap(make_2go(seed=9), teacher, drawn_images[0]) > OTHER_TRUNK


def test_verb(
    tiny_2go: Any,
    drawn_images: list[np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    header = {"config": Config(tiny_2go.config).to_dict(), "step": 0, "classes": CLASSES}
    export_model(tmp_path / "wide.npz", tiny_2go, header)
    export_model(tmp_path / "narrow.npz", spoilt(tiny_2go), header)
    export_model(tmp_path / "other.npz", make_2go(seed=9), header)
    (tmp_path / "images").mkdir()
    for index, image in enumerate(drawn_images[:3]):
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")

    def run(checkpoint: str) -> int:
        return main([
            "imitate", "--teacher", str(tmp_path / "wide.npz"),
            "--checkpoint", str(tmp_path / checkpoint), "--images", str(tmp_path / "images"),
            "--steps", "rpn=2", "--steps", "box_head=2", "--steps", "mask_head=0",
            "--out", str(tmp_path / "out.npz"),
        ])  # fmt: skip

    assert run("narrow.npz") == 0
    assert "box_head: 2 steps" in capsys.readouterr().out
    made, header = load_model(tmp_path / "out.npz")
    assert header["imitation"]["steps"] == {"rpn": 2, "box_head": 2, "mask_head": 0}
    assert header["data"]["images"] == 3
    # Each photograph has a size of its own: a batch is one of them and its mirror image, of six.
    assert header["epochs"]["rpn"] == round(2 * 2 / 6, 2)
    assert header["data"]["annotations"] is None  # every photograph of the folder
    assert header["data"]["first_weights"] == model_sha256(tmp_path / "narrow.npz")
    assert header["data"]["teacher"] == model_sha256(tmp_path / "wide.npz")
    old = values(load_model(tmp_path / "narrow.npz")[0])
    changed = {part_of(name) for name, value in values(made).items() if (value != old[name]).any()}
    assert changed == {"rpn", "box_head"}
    assert run("other.npz") == 1
    assert "trunk" in capsys.readouterr().err


def test_both_must_be_of_the_kind_that_learns_by_parts(
    tiny_2go: Any, tiny_model: Any, drawn_images: list[np.ndarray]
) -> None:
    for student, teacher in ((tiny_2go, tiny_model), (tiny_model, tiny_2go)):
        with pytest.raises(ImitationError, match="must be of the kind maskrcnn2go"):
            trunk_gap(student, float_pipeline(teacher, CLASSES), drawn_images[0])
